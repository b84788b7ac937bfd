"""Checkpoints as users have them: tied and untied heads, other prefixes, more rows, tensors in one model only."""

import json

import checkpoints
import numpy as np
import pytest
from checkpoints import llama_shapes, random_words, read, region_names, same, tune, write

import sftknow
from sftknow.errors import CheckpointError

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def without(words, *names):
    return {name: values for name, values in words.items() if name not in names}


def pair_of(folder, before, after):
    """Write two sets of words and return them as a pair."""
    base, tuned = write(folder / "base", before), write(folder / "tuned", after)
    return checkpoints.Pair(base, tuned, before, after, "BF16", "BF16")


@pytest.fixture
def words():
    before = random_words(llama_shapes(), 0)
    return before, tune(before, 1)


def test_tied_models_without_a_head_stay_without(tmp_path, words):
    before, after = (without(one, HEAD) for one in words)
    pair = pair_of(tmp_path, before, after)
    sftknow.restore(pair.base, pair.tuned, tmp_path / "out", 30, region="all")
    same(read(tmp_path / "out"), pair.expected(list(after), 30))


def test_a_tied_head_stored_twice_stays_equal_to_its_embedding_and_counts_once(tmp_path, words):
    before, after = ({**one, HEAD: one[EMBEDDING]} for one in words)
    pair = pair_of(tmp_path, before, after)
    record = sftknow.restore(pair.base, pair.tuned, tmp_path / "out", 30, region="all")
    alone = checkpoints.Pair(pair.base, pair.tuned, before, without(after, HEAD), "BF16", "BF16")
    expected = alone.expected(list(alone.after), 30)
    same(read(tmp_path / "out"), {**expected, HEAD: expected[EMBEDDING]})
    assert record["considered"] == sum(values.size for values in alone.after.values())


def test_a_pattern_that_matches_the_twin_restores_both(tmp_path, words):
    before, after = ({**one, HEAD: one[EMBEDDING]} for one in words)
    pair = pair_of(tmp_path, before, after)
    sftknow.restore(pair.base, pair.tuned, tmp_path / "out", 100, region="regex:lm_head")
    same(read(tmp_path / "out"), {**after, HEAD: before[EMBEDDING], EMBEDDING: before[EMBEDDING]})


def test_an_untied_head_is_compared_with_the_embedding_of_a_tied_base(tmp_path, words):
    before, after = without(words[0], HEAD), words[1]
    pair = pair_of(tmp_path, before, after)
    record = sftknow.restore(pair.base, pair.tuned, tmp_path / "out", 100, region="embedding")
    same(read(tmp_path / "out"), {**after, HEAD: before[EMBEDDING], EMBEDDING: before[EMBEDDING]})
    assert any("base has a tied head" in note for note in record["notes"])


def test_a_tied_tuned_model_fits_a_base_that_stores_the_same_matrix_twice(tmp_path, words):
    before, after = {**words[0], HEAD: words[0][EMBEDDING]}, without(words[1], HEAD)
    pair = pair_of(tmp_path, before, after)
    sftknow.restore(pair.base, pair.tuned, tmp_path / "out", 30, region="all")
    same(read(tmp_path / "out"), pair.expected(list(after), 30))


def test_a_head_that_only_base_has_is_an_error_where_the_region_includes_it(tmp_path, words):
    pair = pair_of(tmp_path, words[0], without(words[1], HEAD))
    with pytest.raises(
        CheckpointError, match=r"1 tensors of region all are in .*base but not in .*tuned: lm_head\.weight"
    ):
        sftknow.restore(pair.base, pair.tuned, tmp_path / "out", 30, region="all")
    sftknow.restore(pair.base, pair.tuned, tmp_path / "out", 30)
    same(read(tmp_path / "out"), pair.expected(region_names("transformer", pair.after), 30))


def test_a_tensor_of_the_region_in_tuned_only_is_named(tmp_path, words):
    name = "model.layers.1.mlp.gate_proj.weight"
    pair = pair_of(tmp_path, without(words[0], name), words[1])
    with pytest.raises(CheckpointError, match=rf"in .*tuned but not in .*base: {name.replace('1', '{1-1}')}"):
        sftknow.restore(pair.base, pair.tuned, tmp_path / "out", 30)
    sftknow.restore(pair.base, pair.tuned, tmp_path / "out", 30, region="attention")
    same(read(tmp_path / "out"), pair.expected(region_names("attention", pair.after), 30))


def test_name_prefixes_that_one_tool_adds_do_not_matter(tmp_path, words):
    """The Hub's first GPT-2 files have no ``transformer.``, what is saved today has."""
    before = {name.removeprefix("model."): values for name, values in words[0].items()}
    base, tuned = write(tmp_path / "base", before), write(tmp_path / "tuned", words[1])
    record = sftknow.restore(base, tuned, tmp_path / "out", 30, region="all")
    pair = checkpoints.Pair(base, tuned, words[0], words[1], "BF16", "BF16")
    same(read(tmp_path / "out"), pair.expected(list(words[1]), 30))
    assert any("other name prefixes in base" in note for note in record["notes"])


def test_causal_masks_stored_as_buffers_are_only_copied(tmp_path, words):
    mask = {"model.layers.0.attn.bias": np.ones((1, 1, 4, 4), np.uint8)}
    after = {**words[1], **mask}
    base = write(tmp_path / "base", words[0])
    tuned = write(tmp_path / "tuned", after, dtypes=dict.fromkeys(mask, "U8"))
    sftknow.restore(base, tuned, tmp_path / "out", 30, region="all")
    pair = checkpoints.Pair(base, tuned, words[0], words[1], "BF16", "BF16")
    same(read(tmp_path / "out"), {**pair.expected(list(words[1]), 30), **mask})


@pytest.mark.parametrize("twice", [False, True])
def test_rows_that_only_tuned_has_stay_and_are_told(tmp_path, words, twice):
    before, after = words
    longer = {
        name: np.concatenate([after[name], np.full((3, after[name].shape[1]), 0x3F80, np.uint16)])
        for name in (EMBEDDING, HEAD)
    }
    if twice:
        before, longer = {**before, HEAD: before[EMBEDDING]}, dict.fromkeys((EMBEDDING, HEAD), longer[EMBEDDING])
    pair = pair_of(tmp_path, before, {**after, **longer})
    record = sftknow.restore(pair.base, pair.tuned, tmp_path / "out", 100, region="all")
    found = read(tmp_path / "out")
    for name in (EMBEDDING, HEAD):
        assert np.array_equal(found[name][:20], before[name])
        assert np.array_equal(found[name][20:], longer[name][20:])
    assert any(f"{EMBEDDING} has 3 rows more in tuned than in base; only the 20 shared" in n for n in record["notes"])
    plain = sftknow.restore(pair.base, pair.tuned, tmp_path / "transformer", 20)
    assert plain["notes"] == []


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        (EMBEDDING, (19, 16)),
        (EMBEDDING, (20, 17)),
        ("model.layers.0.mlp.gate_proj.weight", (25, 16)),
        ("model.layers.0.mlp.gate_proj.weight", (24, 4, 4)),
    ],
)
def test_other_shapes_are_refused(tmp_path, words, name, shape):
    pair = pair_of(tmp_path, words[0], {**words[1], name: np.full(shape, 0x3F80, np.uint16)})
    wanted = rf"tensor {name} has shape .* in base and {json.dumps(list(shape))} in tuned".replace("[", r"\[")
    with pytest.raises(CheckpointError, match=wanted):
        sftknow.restore(pair.base, pair.tuned, tmp_path / "out", 30, region="all")


@pytest.mark.parametrize("architecture", ["gpt2", "neox", "opt"])
def test_other_architectures_find_their_blocks(tmp_path, architecture):
    from transformers import AutoConfig, AutoModelForCausalLM

    tiny = {
        "gpt2": ("gpt2", {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 30, "n_positions": 16}),
        "neox": ("gpt_neox", {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
                              "intermediate_size": 24, "vocab_size": 30}),
        "opt": ("opt", {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 24,
                        "vocab_size": 30, "word_embed_proj_dim": 16, "max_position_embeddings": 16}),
    }  # fmt: skip
    import torch

    torch.manual_seed(0)
    kind, options = tiny[architecture]
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **options))
    model.save_pretrained(tmp_path / "base")
    with torch.no_grad():
        for values in model.parameters():
            values.add_(torch.randn_like(values) * 1e-3)
    model.save_pretrained(tmp_path / "tuned")
    record = sftknow.restore(tmp_path / "base", tmp_path / "tuned", tmp_path / "out", 100)
    found, before, after = (read(tmp_path / name) for name in ("out", "base", "tuned"))
    inside = set(record["tensors"])
    assert {name for name in found if np.array_equal(found[name], before[name])} == inside
    assert {name for name in found if np.array_equal(found[name], after[name])} == set(found) - inside
    modules = {
        "gpt2": {"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"},
        "neox": {"attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"},
        "opt": {*(f"self_attn.{part}_proj" for part in ("q", "k", "v", "out")), "fc1", "fc2"},
    }
    assert set(record["fractions"][0]["modules"]) == modules[architecture]
    assert set(record["fractions"][0]["layers"]) == {"0", "1"}
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")
