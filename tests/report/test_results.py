import copy

import pytest
import worlds

from sftknow.errors import DataError
from sftknow.records import write_record
from sftknow.report.results import read_results, results_of


def altered(path, value):
    """Return a record with one field set, or removed where the value is ``...``."""
    record = copy.deepcopy(worlds.record())
    *parents, last = path
    place = record
    for key in parents:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return record


def test_every_field_of_the_record_arrives():
    results = results_of(worlds.record())
    assert results.buckets == (0, 4)
    assert results.sizes == (60, 480)
    assert [run.seed for run in results.cell(4, 480)] == [1, 2]
    assert [sweep.seed for sweep in results.sweeps_of(0, "random")] == [1, 2]
    step = results.sweeps_of(0, "top")[0].at(20.0)
    assert step is not None and step.change_undone == 0.31 and step.restored == 78643
    assert results.histogram["test/in_domain"] == (156, 180, 66, 72, 126)
    assert results.concentration[0].share_of_r.keys() == {1.0, 3.0, 5.0, 10.0, 20.0, 40.0, 60.0}


def test_the_mean_leaves_empty_buckets_out():
    record = worlds.record()
    del record["sweeps"], record["runs"]
    cells = {str(b): {"accuracy": a, "stderr": 0.0, "facts": n} for b, a, n in ((0, 0.1, 10), (1, 0, 0), (4, 0.7, 10))}
    record["base"]["in_domain"] = {"accuracy": 0.4, "stderr": 0.0, "facts": 20, "buckets": cells}
    base = results_of(record).base
    assert base is not None
    assert base.in_domain.accuracy == pytest.approx(0.4)
    assert list(base.in_domain.buckets) == [0, 4]


def test_per_fact_outcomes_are_read():
    base = results_of(worlds.record(paired=True)).base
    assert base is not None
    mastered = base.in_domain.buckets[4]
    assert mastered.outcomes is not None
    assert sum(mastered.outcomes) / len(mastered.outcomes) == pytest.approx(mastered.accuracy)


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (("runs", 3, "seed"), ..., r"field runs\[3\]\.seed is missing"),
        (("runs", 0, "bucket"), 5, r"field runs\[0\]\.bucket names bucket 5"),
        (("runs", 0, "n"), "60", r"field runs\[0\]\.n is '60', expected a whole number"),
        (("runs", 0, "changed"), 1.5, r"changed is 1\.5, expected a number from 0 to 1"),
        (("runs",), {"a": 1}, r"field runs is not a list"),
        (("base", "in_domain", "buckets", "2", "accuracy"), True, r"buckets\.2\.accuracy is True"),
        (("base", "in_domain", "accuracy"), 0.9, r"unweighted mean over its buckets is 0\.1"),
        (("base", "in_domain", "buckets"), {}, r"holds no test facts"),
        (("histogram", "test/in_domain"), [1, 2], r"holds 2 counts"),
        (("sweeps", 0, "strategy"), "lucky", r"strategy is 'lucky', expected one of top, bottom, random"),
        (("sweeps", 0, "steps", 1, "percent"), float("nan"), r"steps\[1\]\.percent is nan"),
        (("concentration", 0, "share_of_r"), {"top": 0.5}, r"has the name 'top', expected a percent"),
        (("settings",), [], r"field settings is not an object"),
    ],
)
def test_a_bad_field_is_named(path, value, sentence):
    with pytest.raises(DataError, match=sentence):
        results_of(altered(path, value))


def test_outcomes_of_another_length_are_refused():
    record = worlds.record(paired=True)
    record["base"]["in_domain"]["buckets"]["0"]["outcomes"] = "01"
    with pytest.raises(DataError, match="must be 60 characters 0 or 1"):
        results_of(record)


def test_scores_on_different_test_sets_are_refused():
    record = worlds.record()
    record["base"] = worlds.score(0.2, 0.2, facts=50)
    with pytest.raises(DataError, match="other test facts"):
        results_of(record)


def test_reading_a_folder_and_the_schema(tmp_path):
    write_record(tmp_path / "demo.json", "demo", worlds.record())
    assert read_results(tmp_path).sizes == (60, 480)
    with pytest.raises(DataError, match="does not exist"):
        read_results(tmp_path / "elsewhere")
    write_record(tmp_path / "kl.json", "kl", {})
    with pytest.raises(DataError, match="schema"):
        read_results(tmp_path / "kl.json")
