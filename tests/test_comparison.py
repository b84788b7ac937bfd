"""Two results compared fact by fact, counted by hand."""

import json

import pytest

from sftknow.comparison import compare, read_outcomes
from sftknow.errors import DataError
from sftknow.records import write_record

# fact -> domain, bucket, right with A, right with B
FACTS = {
    "a": ("in_domain", 0, 0, 1),
    "b": ("in_domain", 0, 0, 0),
    "c": ("in_domain", 4, 1, 0),
    "d": ("in_domain", 4, 1, 0),
    "e": ("in_domain", 4, 1, 1),
    "f": ("out_of_domain", 2, 1, 1),
}


def outcome(fact, which, *, bucket=None):
    domain, own, *right = FACTS[fact]
    return {
        "fact": fact,
        "relation": "birth",
        "domain": domain,
        "bucket": own if bucket is None else bucket,
        "mastery": 0.5,
        "prompt": f"Where was {fact} born?",
        "gold": ["Oslo"],
        "answer": " Oslo" if right[which] else " Rome",
        "contains": bool(right[which]),
        "exact_match": bool(right[which]),
        "f1": float(right[which]),
    }


def write(path, which, facts="abcdef", **options):
    write_record(path, "scores", {"scores": {}, "facts": [outcome(fact, which, **options) for fact in facts]})
    return path


def test_each_bucket_counts_what_was_lost_and_gained(tmp_path):
    found = compare(write(tmp_path / "a.json", 0), write(tmp_path / "b.json", 1))
    first, last = found.buckets["in_domain", 0], found.buckets["in_domain", 4]
    assert (first.before, first.after, len(first.lost), len(first.gained)) == (0.0, 0.5, 0, 1)
    assert (last.before, last.after) == (1.0, pytest.approx(1 / 3))
    assert [pair[0].fact for pair in last.lost] == ["c", "d"]
    assert last.p_value == pytest.approx(0.5)  # two of two one way: 2 / 2^2
    whole = found.domains["in_domain"]
    assert (whole.before, whole.after) == (pytest.approx(0.5), pytest.approx((0.5 + 1 / 3) / 2))
    assert whole.p_value == pytest.approx(1.0)  # two against one
    assert found.domains["out_of_domain"].p_value == 1.0


def test_facts_of_one_result_only_are_counted_and_left_out(tmp_path):
    found = compare(write(tmp_path / "a.json", 0, "abce"), write(tmp_path / "b.json", 1, "acdef"))
    assert (found.only_first, found.only_second) == (1, 2)
    assert found.buckets["in_domain", 4].facts == 2


def test_logged_samples_of_lm_eval_are_read_and_the_last_run_counts(tmp_path):
    folder = tmp_path / "out" / "model"
    folder.mkdir(parents=True)

    def log(name, stamp, facts, which):
        lines = []
        for fact in facts:
            value = outcome(fact, which)
            doc = {name: value[name] for name in ("relation", "domain", "bucket", "mastery", "prompt", "gold")}
            scores = {name: float(value[name]) for name in ("contains", "exact_match", "f1")}
            lines.append({"doc": {**doc, "id": fact}, "filtered_resps": [value["answer"]], **scores})
        lines.append({"doc": {}, "filtered_resps": [""]})  # the stand-in of an empty bucket
        path = folder / f"samples_{name}_{stamp}.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    log("cbqa_mastery_id_0", "2026-01-01T00-00-00.1", "ab", 0)
    log("cbqa_mastery_id_0", "2026-01-02T00-00-00.1", "ab", 1)
    log("cbqa_mastery_by_relation_id", "2026-01-02T00-00-00.1", "f", 1)
    found = read_outcomes(tmp_path / "out")
    assert {name: value.contains for name, value in found.items()} == {"a": True, "b": False}
    compared = compare(write(tmp_path / "a.json", 0), tmp_path / "out")
    assert len(compared.domains["in_domain"].gained) == 1


def test_results_that_do_not_fit_are_refused(tmp_path):
    first = write(tmp_path / "a.json", 0)
    with pytest.raises(DataError, match="no fact in common"):
        compare(write(tmp_path / "x.json", 0, "a"), write(tmp_path / "y.json", 1, "b"))
    with pytest.raises(DataError, match=r"fact a is in bucket 0 .* and 3 "):
        compare(first, write(tmp_path / "z.json", 1, "a", bucket=3))
    with pytest.raises(DataError, match="does not exist"):
        compare(first, tmp_path / "nowhere.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="--log_samples"):
        compare(first, tmp_path / "empty")


def test_a_damaged_record_is_named(tmp_path):
    write_record(tmp_path / "bad.json", "scores", {"facts": [{"fact": "a"}]})
    with pytest.raises(DataError, match=r"bad.json is damaged"):
        read_outcomes(tmp_path / "bad.json")
