import worlds

from sftknow.report.results import results_of
from sftknow.report.tables import Table, histogram_table, runs_table, sweep_table, tables


def line(text, *starts):
    return next(row.split() for row in text.splitlines() if row.split()[: len(starts)] == list(starts))


def test_the_histogram_counts_and_shares():
    text = histogram_table(worlds.record())
    shares = line(text, "Test", "facts,", "out")[5:]
    assert " ".join(shares) == "334 (38%) 220 (25%) 97 (11%) 88 (10%) 141 (16%) 880"


def test_runs_are_means_over_seeds_with_their_spread():
    record = worlds.record()
    first, second = (
        one["score"]["in_domain"]["accuracy"] for one in record["runs"] if (one["bucket"], one["n"]) == (4, 480)
    )
    mean, sd = 50 * (first + second), 100 * abs(first - second) / 2**0.5
    row = line(runs_table(record), "bucket", "4", "480")
    assert row[3:7] == ["2", f"{mean:.1f}", "±", f"{sd:.1f}"]


def test_one_seed_has_no_spread():
    row = line(runs_table(worlds.record(seeds=(1,))), "bucket", "4", "480")
    assert "±" not in row


def test_the_base_carries_its_sampling_error():
    record = worlds.record()
    variance = sum(b["accuracy"] * (1 - b["accuracy"]) / 60 for b in record["base"]["in_domain"]["buckets"].values())
    assert line(runs_table(record), "base")[5] == f"{100 * variance**0.5 / 5:.1f}"


def test_sweeps_have_a_row_for_each_step():
    rows = [row for row in sweep_table(worlds.record()).splitlines() if row.startswith("bucket")]
    assert len(rows) == 8 + 6 + 8 + 6
    assert rows[5].split()[:7] == ["bucket", "0,", "480", "largest", "first", "20", "2"]
    assert rows[5].split()[7] == "31.0"


def test_what_is_not_there_is_said():
    assert sweep_table({"runs": []}).endswith("not yet")
    assert tables(results_of({})) == {}


def test_equal_change_orders_both_strategies_by_share():
    table = tables(results_of(worlds.record()))["equal-change"]
    shares = [float(row[2]) for row in table.rows if row[0] == "bucket 0"]
    assert shares == sorted(shares) and {row[1] for row in table.rows} == {"largest first", "random"}


def test_markdown_cells_cannot_break_out_of_the_table():
    table = Table("t", "Title", ("a|b", "n"), (("<b>\nx", "1"),))
    assert table.markdown().splitlines() == ["| a\\|b | n |", "| :-- | --: |", "| &lt;b&gt; x | 1 |"]


def test_text_columns_line_up():
    table = Table("t", "Title", ("name", "n"), (("x", "1"), ("longer", "100")))
    assert table.text().splitlines() == ["Title", "", "name      n", "------  ---", "x         1", "longer  100"]
