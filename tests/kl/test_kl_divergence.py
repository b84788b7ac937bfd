import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from sftknow.errors import ConfigError, DataError
from sftknow.kl import (
    KLPrompt,
    divergence,
    divergence_from_logits,
    divergences,
    gather_logits,
    kl_prompts,
    last_logits,
    read_prompts,
    top_logits,
)
from sftknow.models import load_model, load_tokenizer
from sftknow.tuning.train import train


@pytest.fixture(scope="session")
def tuned(base, table, tmp_path_factory):
    out = tmp_path_factory.mktemp("kl") / "tuned"
    return train(base, table, out, bucket=0, n=16, seed=0, learning_rate=1e-2).folder


@pytest.fixture(scope="session")
def pair(base, tuned):
    return tuple((load_model(folder), load_tokenizer(folder)) for folder in (base, tuned))


def by_hand(base, tuned, texts, k=10):
    """The paper's KL, prompt by prompt, both models at once, in float64 NumPy."""
    models = [AutoModelForCausalLM.from_pretrained(folder) for folder in (base, tuned)]
    tokenizer = AutoTokenizer.from_pretrained(base)
    result = []
    for text in texts:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        with torch.no_grad():
            before, after = (model(ids).logits[0, -1].numpy().astype(np.float64) for model in models)
        top = np.argsort(-after, kind="stable")[:k]
        p, q = (np.exp(row[top]) / np.exp(row[top]).sum() for row in (after, before))
        result.append(float((p * np.log(p / q)).sum()))
    return result


def test_the_default_is_the_paper_s(base, tuned, table):
    result = divergence(base, tuned, table)
    rows = [row for row in table.rows if row.bucket == 4 and row.fact.split == "test" and "in" in row.fact.domain[:2]]
    wording = {"birth": "{} hails from", "school": "{} attended"}
    texts = [wording[row.fact.relation].format(row.fact.subject) for row in rows]
    expected = by_hand(base, tuned, texts)
    np.testing.assert_allclose([fact.value for fact in result.per_fact], expected, atol=1e-5)
    assert [fact.id for fact in result.per_fact] == [row.fact.id for row in rows]
    assert result.mean == pytest.approx(np.mean(expected), abs=1e-5)
    assert result.mean > 0.01
    births = [value for value, row in zip(expected, rows, strict=True) if row.fact.relation == "birth"]
    assert result.per_relation["birth"].mean == pytest.approx(np.mean(births), abs=1e-5)
    assert result.per_relation["birth"].facts == len(births)
    assert result.measure["direction"] == "KL(tuned || base)"
    assert result.measure["support"] == "top 10 of tuned"


def test_the_interval_covers_the_mean_and_is_that_of_resampled_facts(base, tuned, table):
    result = divergence(base, tuned, table)
    values = np.array([fact.value for fact in result.per_fact])
    generator = np.random.default_rng(9)
    means = [generator.choice(values, len(values)).mean() for _ in range(4000)]
    low, high = np.quantile(means, [0.025, 0.975])
    assert result.low < result.mean < result.high
    spread = values.std() / len(values) ** 0.5
    assert abs(result.low - low) < 0.2 * spread
    assert abs(result.high - high) < 0.2 * spread
    again = divergence(base, tuned, table)
    assert (again.low, again.high) == (result.low, result.high)


def test_identical_models_give_exactly_zero(base, table):
    for support in ("top", "full"):
        for direction in ("tuned-base", "base-tuned", "js"):
            result = divergence(base, base, table, support=support, direction=direction)
            assert result.mean == result.low == result.high == 0.0


@pytest.mark.parametrize("support", ["top", "full"])
def test_swapping_the_models_gives_the_reverse(base, tuned, table, support):
    reverse = divergence(base, tuned, table, direction="base-tuned", support=support)
    swapped = divergence(tuned, base, table, support=support)
    assert [fact.value for fact in reverse.per_fact] == [fact.value for fact in swapped.per_fact]
    assert reverse.measure["direction"] == "KL(base || tuned)"


def test_batch_size_and_padding_side_change_nothing_but_rounding(pair, table):
    (base, tokenizer), (tuned, other) = pair
    whole = divergence((base, tokenizer), (tuned, other), table)
    values = np.array([fact.value for fact in whole.per_fact])
    for size in (1, 3):
        parts = divergence((base, tokenizer), (tuned, other), table, batch_size=size)
        np.testing.assert_allclose([fact.value for fact in parts.per_fact], values, atol=1e-5)
    try:
        tokenizer.padding_side = other.padding_side = "right"
        right = divergence((base, tokenizer), (tuned, other), table)
    finally:
        tokenizer.padding_side = other.padding_side = "left"
    assert [fact.value for fact in right.per_fact] == values.tolist()


def test_full_vocabulary_and_jensen_shannon_match_a_direct_computation(pair, table):
    (base, tokenizer), (tuned, _) = pair
    prompts = kl_prompts(table)
    before, after = (last_logits(model, tokenizer, prompts).astype(np.float64) for model in (base, tuned))
    p, q = (np.exp(rows) / np.exp(rows).sum(-1, keepdims=True) for rows in (after, before))
    middle = (p + q) / 2
    full = (p * np.log(p / q)).sum(-1)
    js = 0.5 * (p * np.log(p / middle)).sum(-1) + 0.5 * (q * np.log(q / middle)).sum(-1)
    result = divergence(*pair, table, support="full")
    np.testing.assert_allclose([fact.value for fact in result.per_fact], full, atol=1e-9)
    result = divergence(*pair, table, support="full", direction="js")
    np.testing.assert_allclose([fact.value for fact in result.per_fact], js, atol=1e-9)


def test_answer_positions_average_over_every_token_of_the_answer(pair, table):
    (base, tokenizer), (tuned, _) = pair
    result = divergence(*pair, table, support="full", positions="answer")
    prompt = kl_prompts(table)[0]
    start = len(tokenizer(prompt.text)["input_ids"])
    ids = tokenizer(f"{prompt.text} {prompt.answer}")["input_ids"]
    assert tokenizer.decode(ids[start:]) == f" {prompt.answer}"
    with torch.no_grad():
        before, after = (model(torch.tensor([ids])).logits[0].double().log_softmax(-1) for model in (base, tuned))
    rows = (after.exp() * (after - before)).sum(-1)[start - 1 : len(ids) - 1]
    assert len(rows) > 1
    assert result.per_fact[0].value == pytest.approx(float(rows.mean()), abs=1e-6)


def test_kept_logits_give_the_same_as_two_passes(pair, table):
    (base, tokenizer), (tuned, _) = pair
    prompts = kl_prompts(table, domain="both")
    top = top_logits(tuned, tokenizer, prompts, 10)
    whole = last_logits(tuned, tokenizer, prompts)
    np.testing.assert_array_equal(np.take_along_axis(whole, top.ids, -1), top.logits)
    np.testing.assert_allclose(top.log_total, np.logaddexp.reduce(whole.astype(np.float64), -1), rtol=1e-12)
    ours = last_logits(base, tokenizer, prompts)
    np.testing.assert_array_equal(
        gather_logits(base, tokenizer, prompts, top.ids), np.take_along_axis(ours, top.ids, -1)
    )
    kept = divergence_from_logits(prompts, ours, whole)
    assert kept.per_fact == divergence(*pair, table, domain="both").per_fact
    with pytest.raises(ConfigError, match="do not fit"):
        divergence_from_logits(prompts, ours[1:], whole)


def test_several_models_share_the_base_s_pass(base, tuned, table):
    prompts = kl_prompts(table)
    found = divergences(base, {"tuned": tuned, "same": base}, prompts)
    assert found["same"].mean == 0.0
    assert found["tuned"].per_fact == divergence(base, tuned, table).per_fact


def test_domains_and_buckets_choose_the_facts(table):
    inside, outside, both = (kl_prompts(table, domain=name) for name in ("in_domain", "out_of_domain", "both"))
    assert len(inside) + len(outside) == len(both)
    assert {prompt.relation for prompt in outside} == {"job"}
    rows = {row.fact.id: row for row in table.rows}
    assert {rows[prompt.id].bucket for prompt in kl_prompts(table, bucket=2)} == {2}
    with pytest.raises(ConfigError, match="does not exist"):
        kl_prompts(table, bucket=7)


def test_a_table_without_such_facts_is_refused(table):
    bare = type(table)(tuple(row for row in table.rows if row.bucket < 4), templates=table.templates)
    with pytest.raises(DataError, match="no test facts in bucket 4"):
        divergence("nowhere", "nowhere", bare)


def test_other_vocabularies_are_refused_with_what_differs(base, tuned, table, tmp_path):
    other = shutil.copytree(tuned, tmp_path / "other")
    text = (other / "tokenizer.json").read_text()
    tokenizer = json.loads(text)
    words = tokenizer["model"]["vocab"]
    words["zzz"] = words.pop("!")
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(DataError, match=r"2 tokens differ, such as '!' \(id \d+ in the base, None in the tuned\)"):
        divergence(base, other, table)


def test_another_way_of_cutting_prompts_is_refused(base, tuned, table, tmp_path):
    other = shutil.copytree(tuned, tmp_path / "other")
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    tokenizer["post_processor"] = None
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(DataError, match=r"tokenize prompt .* differently"):
        divergence(base, other, table)


def test_extra_output_rows_on_one_side_are_left_out_and_said(base, tuned, table, tmp_path):
    wide = shutil.copytree(tuned, tmp_path / "wide")
    tensors = load_file(wide / "model.safetensors")
    name = "model.embed_tokens.weight"
    extra = 30 * tensors[name].abs().amax() * torch.ones(8, tensors[name].shape[1])
    tensors[name] = torch.cat([tensors[name], extra])
    save_file(tensors, wide / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((wide / "config.json").read_text())
    config["vocab_size"] += 8
    (wide / "config.json").write_text(json.dumps(config))
    for options in ({}, {"support": "full"}, {"direction": "base-tuned"}):
        result = divergence(base, wide, table, **options)
        plain = divergence(base, tuned, table, **options)
        np.testing.assert_allclose(
            [fact.value for fact in result.per_fact], [fact.value for fact in plain.per_fact], atol=1e-6
        )
        assert "the tuned model's output rows 400 to 407" in result.notes[0]
        assert plain.notes == ()


def test_half_precision_models_are_compared_in_float32(base, tuned, table):
    whole, half = (divergence(base, tuned, table, dtype=dtype).mean for dtype in ("float32", "bfloat16"))
    assert half == pytest.approx(whole, rel=0.2)
    assert half != whole


def test_the_facts_that_moved_most_show_which_tokens_moved(pair, table):
    (base, tokenizer), (tuned, _) = pair
    result = divergence(*pair, table, moved=3, support="full")
    values = sorted((fact.value for fact in result.per_fact), reverse=True)
    assert [fact["value"] for fact in result.moved] == values[:3]
    prompts = [prompt for prompt in kl_prompts(table) if prompt.id == result.moved[0]["id"]]
    before, after = (last_logits(model, tokenizer, prompts)[0].astype(np.float64) for model in (base, tuned))
    p, q = (np.exp(row) / np.exp(row).sum() for row in (before, after))
    gained, lost = int((q - p).argmax()), int((p - q).argmax())
    first = result.moved[0]["gained"][0]
    assert (first["id"], result.moved[0]["lost"][0]["id"]) == (gained, lost)
    assert first["token"] == tokenizer.decode([gained])
    assert first["tuned"] == pytest.approx(q[gained])


def test_a_stopped_comparison_goes_on_and_ends_the_same(base, tuned, table, tmp_path, monkeypatch):
    work = tmp_path / ".kl.json.work"
    monkeypatch.setattr("sftknow.kl.compare.CHUNK", {"top": 3, "full": 2})
    whole = divergence(base, tuned, table)
    calls = []

    def fails_late(*args, **kwargs):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return gather_logits(*args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("sftknow.kl.compare.gather_logits", fails_late)
        divergence(base, tuned, table, work=work)
    kept = sorted(path.name for path in work.glob("rows-*"))
    assert kept == ["rows-0.npz", "rows-1.npz"]

    def never(*args, **kwargs):
        raise AssertionError("the leading model's pass was finished")

    monkeypatch.setattr("sftknow.kl.compare.top_logits", never)
    again = divergence(base, tuned, table, work=work)
    assert again.per_fact == whole.per_fact
    assert not work.exists()


def test_chunks_of_another_comparison_are_not_used(base, tuned, table, tmp_path, monkeypatch):
    work = tmp_path / ".kl.json.work"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(
            "sftknow.kl.compare.gather_logits", lambda *args, **kwargs: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        divergence(base, tuned, table, work=work)
    assert (work / "lead-0.npz").exists()
    assert divergence(base, base, table, work=work).mean == 0.0


def test_prompts_from_a_file(base, tuned, tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "Who was", "relation": "who"}\n\n{"prompt": "Where is", "id": "w", "answer": "here"}\n')
    prompts = read_prompts(path)
    assert prompts == (KLPrompt("1", "who", "Who was"), KLPrompt("w", "prompts", "Where is", "here"))
    result = divergence(base, tuned, prompts=prompts)
    expected = by_hand(base, tuned, ["Who was", "Where is"])
    np.testing.assert_allclose([fact.value for fact in result.per_fact], expected, atol=1e-5)
    with pytest.raises(DataError, match="prompt 1 has no answer"):
        divergence(base, tuned, prompts=prompts, positions="answer")


def test_prompts_from_a_saved_dataset(tmp_path):
    import datasets

    datasets.Dataset.from_list([{"prompt": "Who was"}, {"prompt": "Where is"}]).save_to_disk(tmp_path / "saved")
    assert [prompt.text for prompt in read_prompts(tmp_path / "saved")] == ["Who was", "Where is"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no prompts"),
        ("{\n", "line 1: no JSON"),
        ('{"promt": "x"}\n', "row 1: no text under `prompt`"),
        ('{"prompt": " "}\n', "row 1: no text under `prompt`"),
        ('{"prompt": "x", "answer": 3}\n', "`answer` is no text"),
        ('{"prompt": "x", "id": "a"}\n{"prompt": "y", "id": "a"}\n', "two prompts 'a'"),
    ],
)
def test_malformed_prompt_files_are_refused(tmp_path, text, message):
    path = tmp_path / "prompts.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_prompts(path)


@pytest.mark.parametrize("name", ["missing.jsonl", "nowhere/missing.jsonl"])
def test_a_missing_prompt_file_is_refused_without_asking_the_network(name):
    with pytest.raises(DataError, match="does not exist"):
        read_prompts(name)


@pytest.mark.parametrize("options", [{"direction": "sideways"}, {"support": "some"}, {"k": 0}, {"k": 401}])
def test_measures_that_do_not_exist_are_refused(base, tuned, table, options):
    with pytest.raises(ConfigError):
        divergence(base, tuned, table, **options)
