"""lm-eval in process against answers known beforehand: a greedy loop of plain forward passes gives them."""

import math
from dataclasses import replace
from statistics import mean, stdev

import pytest
import torch
import word_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from sftknow.errors import CheckpointError, ConfigError, DataError
from sftknow.records import read_record
from sftknow.scoring import Scorer, check_output_file, score, write_scores

KNOWN = {
    ("in_domain", 0): 0,
    ("in_domain", 1): 1,
    ("in_domain", 2): 3,
    ("in_domain", 3): 2,
    ("in_domain", 4): 5,
    ("out_of_domain", 0): 1,
    ("out_of_domain", 2): 4,
    ("out_of_domain", 4): 2,
}


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    folder = tmp_path_factory.mktemp("known")
    model = word_model.write_model(folder / "model")
    prompts: dict[str, str] = {}
    table = word_model.known_table(model, KNOWN, prompts=prompts)
    table.write(folder / "table")
    return model, folder / "table", table, prompts


def test_scores_equal_a_hand_computation(known):
    model, folder, _, _ = known
    scores = score(model, folder)
    for domain in ("in_domain", "out_of_domain"):
        shares = {bucket: right / 5 for (name, bucket), right in KNOWN.items() if name == domain}
        found = scores.domains[domain]
        assert {bucket: part.accuracy for bucket, part in found.buckets.items()} == pytest.approx(shares)
        assert found.accuracy == pytest.approx(mean(shares.values()))
        assert found.facts == 5 * len(shares)


def test_standard_errors_are_those_of_means(known):
    model, folder, _, _ = known
    found = score(model, folder).domains["in_domain"]
    errors = {
        bucket: stdev([1] * right + [0] * (5 - right)) / math.sqrt(5)
        for (name, bucket), right in KNOWN.items()
        if name == "in_domain"
    }
    assert {bucket: part.stderr for bucket, part in found.buckets.items()} == pytest.approx(errors)
    assert found.stderr == pytest.approx(math.sqrt(sum(error**2 for error in errors.values())) / 5)


def test_answers_are_those_of_a_plain_greedy_loop(known):
    model, folder, table, prompts = known
    answers = {outcome.fact: outcome.answer for outcome in score(model, folder).outcomes}
    for row in table.select(split="test"):
        assert answers[row.fact.id].split() == word_model.continuation(model, prompts[row.fact.subject]).split()


def test_prompts_carry_bos_only_where_the_tokenizer_adds_it(tmp_path):
    model = word_model.write_model(tmp_path / "model", bos=False)
    prompts: dict[str, str] = {}
    table = word_model.known_table(model, {("in_domain", 1): 3}, prompts=prompts)
    table.write(tmp_path / "table")
    for outcome in score(model, tmp_path / "table").outcomes:
        subject = next(row.fact.subject for row in table.rows if row.fact.id == outcome.fact)
        assert outcome.answer.split() == word_model.continuation(model, prompts[subject]).split()


def test_batch_size_changes_nothing(known):
    model, folder, _, _ = known
    assert score(model, folder, batch_size=1) == score(model, folder, batch_size=16)


def test_outcomes_say_which_facts_were_right(known):
    model, folder, table, _ = known
    contained = score(model, folder).contained()
    tested = table.select(split="test")
    assert contained == {row.fact.id: row.fact.answers != (word_model.NEVER,) for row in tested}


def test_a_scorer_follows_weights_that_change_in_place(known, tmp_path):
    folder, table = known[0], known[1]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    scorer = Scorer(model, table, tokenizer=AutoTokenizer.from_pretrained(folder))
    before = scorer.score()
    kept = [parameter.detach().clone() for parameter in model.parameters()]
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    changed = scorer.score()
    model.save_pretrained(tmp_path / "changed")
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "changed")
    assert changed != before
    assert changed == score(tmp_path / "changed", table)
    with torch.no_grad():
        for parameter, old in zip(model.parameters(), kept, strict=True):
            parameter.copy_(old)
    assert scorer.score() == before


def test_scoring_leaves_a_model_in_training_mode_as_it_was(known):
    folder, table = known[0], known[1]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).train()
    score(model, table, tokenizer=AutoTokenizer.from_pretrained(folder))
    assert model.training


def test_an_empty_bucket_is_left_out_of_the_mean_and_named(known, caplog):
    found = score(known[0], known[1]).domains["out_of_domain"]
    assert set(found.buckets) == {0, 2, 4}
    assert found.accuracy == pytest.approx((1 / 5 + 4 / 5 + 2 / 5) / 3)
    assert "bucket 3 has no test facts (out-of-domain)" in caplog.text


def test_a_domain_without_facts_has_no_score(tmp_path, known):
    table = known[2]
    rows = tuple(row for row in table.rows if row.fact.domain == "in_domain")
    replace(table, rows=rows).write(tmp_path / "table")
    assert set(score(known[0], tmp_path / "table").domains) == {"in_domain"}


def test_fewer_facts_per_bucket_are_drawn_by_seed_and_nested(known):
    model, table = known[0], known[1]
    chosen = {
        (count, seed): set(score(model, table, facts_per_bucket=count, seed=seed).contained())
        for count, seed in ((2, 0), (4, 0), (2, 1))
    }
    assert len(chosen[2, 0]) == 2 * len(KNOWN)
    assert chosen[2, 0] < chosen[4, 0]
    assert chosen[2, 0] != chosen[2, 1]


def test_a_bucket_with_one_fact_has_no_standard_error(known):
    found = score(known[0], known[1], facts_per_bucket=1).domains["in_domain"]
    assert found.buckets[4].stderr is None
    assert found.stderr is None


def test_the_record_gives_each_domain_and_bucket(known):
    record = score(known[0], known[1]).to_record()
    assert record["in_domain"]["buckets"]["1"]["accuracy"] == pytest.approx(0.2)
    assert record["in_domain"]["buckets"]["1"]["outcomes"] == "10000"
    assert record["in_domain"]["facts"] == 25
    assert list(record) == ["in_domain", "out_of_domain"]


def test_written_scores_can_be_read_and_name_what_they_were_made_from(known, tmp_path):
    scores = score(known[0], known[1])
    write_scores(tmp_path / "scores.json", scores, {"split": "test"}, model={"path": "m"}, table=known[1])
    record = read_record(tmp_path / "scores.json", "scores")
    assert record["scores"] == scores.to_record()
    assert len(record["facts"]) == len(scores.outcomes)
    assert record["made_from"]["mastery"]["path"].endswith("mastery.json")


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"view": "essays"}, ConfigError, "choose one of questions, completions"),
        ({"split": "validation"}, DataError, "choose one of train, dev, test"),
        ({"split": "dev"}, DataError, "has no dev facts"),
        ({"prompt_format": "papier"}, DataError, "none of paper, plain, question"),
        ({"facts_per_bucket": 0}, DataError, "at least 1"),
        ({"num_fewshot": 7}, DataError, "needs 7 other train facts of relation"),
    ],
)
def test_options_that_make_no_sense_are_refused(known, options, error, text):
    with pytest.raises(error, match=text):
        score(known[0], known[1], **options)


def test_a_missing_model_a_missing_table_and_a_missing_tokenizer_are_named(known, tmp_path):
    with pytest.raises(CheckpointError, match="nowhere"):
        score(tmp_path / "nowhere", known[1])
    with pytest.raises(DataError, match="sftknow probe"):
        score(known[0], tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="tokenizer"):
        score(AutoModelForCausalLM.from_pretrained(known[0]), known[1])


def test_an_output_file_is_not_overwritten_unasked(tmp_path):
    path = tmp_path / "scores.json"
    path.write_text("old")
    with pytest.raises(ConfigError, match="--overwrite"):
        check_output_file(path, overwrite=False)
    check_output_file(path, overwrite=True)
    with pytest.raises(ConfigError, match="is not a folder"):
        check_output_file(tmp_path / "none" / "scores.json", overwrite=False)
