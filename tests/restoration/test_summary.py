"""The record says what was undone, where, and how concentrated the updates were, by figures worked out densely."""

import json

import checkpoints
import numpy as np
import oracle
import pytest
from checkpoints import region_names

import sftknow
from sftknow.restoration.tables import show

SHOWN = (1, 3, 5, 10, 20, 40, 60)


@pytest.fixture(scope="module")
def record(tmp_path_factory, bf16_pair):
    out = tmp_path_factory.mktemp("summary") / "out"
    return sftknow.restore(bf16_pair.base, bf16_pair.tuned, out, [5, 90], layers="0-1", seed=9) | {"out": out}


def dense(pair):
    """Return the transformer region's floats by name, and |s - p| and r of all of it."""
    floats = pair.floats(region_names("transformer", pair.after))
    absolute, relative = zip(*(oracle.changes(*both) for both in floats.values()), strict=True)
    return floats, np.concatenate(absolute).astype(np.float64), np.concatenate(relative).astype(np.float64)


def test_counts_and_sums(record, bf16_pair):
    _, absolute, relative = dense(bf16_pair)
    assert record["considered"] == absolute.size
    assert record["changed"] == (absolute > 0).sum()
    assert record["changed_percent"] == pytest.approx(100 * (absolute > 0).mean())
    assert record["change"]["absolute"] == pytest.approx(absolute.sum(), rel=1e-12)
    assert record["change"]["relative"] == pytest.approx(relative.sum(), rel=1e-12)


def test_concentration_is_the_share_of_r_in_the_largest(record, bf16_pair):
    _, _, relative = dense(bf16_pair)
    ordered = np.sort(relative)[::-1]
    for percent in SHOWN:
        expected = ordered[: int(ordered.size * percent / 100)].sum() / ordered.sum()
        assert record["concentration"]["share"][str(percent)] == pytest.approx(expected, rel=1e-9)


def test_shares_undone_threshold_and_ties(record, bf16_pair):
    floats, absolute, relative = dense(bf16_pair)
    for fraction in record["fractions"]:
        masks = oracle.restored(floats, fraction["percent"], seed=9)
        mask = np.concatenate(list(masks.values()))
        assert fraction["share_of_change_undone"] == pytest.approx(absolute[mask].sum() / absolute.sum(), rel=1e-12)
        assert fraction["share_of_relative_change_undone"] == pytest.approx(relative[mask].sum() / relative.sum())
        threshold = relative[mask].min()
        assert fraction["threshold"] == pytest.approx(threshold)
        tied = relative == threshold
        assert fraction["ties"] == {"size": tied.sum(), "taken": (tied & mask).sum()}


def test_restored_share_by_layer_and_by_module(record, bf16_pair):
    floats, _, _ = dense(bf16_pair)
    for fraction in record["fractions"]:
        masks = oracle.restored(floats, fraction["percent"], seed=9)
        total = sum(mask.sum() for mask in masks.values())
        for group, key in (("layers", lambda name: name.split(".")[2]), ("modules", module)):
            keys = {key(name) for name in masks}
            assert set(fraction[group]) == keys
            for one in keys:
                mine = np.concatenate([mask for name, mask in masks.items() if key(name) == one])
                found = fraction[group][one]
                assert found["considered"] == mine.size
                assert found["restored"] == mine.sum()
                assert found["share_of_restored"] == pytest.approx(mine.sum() / total)
                assert found["share_of_own"] == pytest.approx(mine.mean())


def module(name):
    return ".".join(name.split(".")[3:-1])


def test_means_and_counts_per_tensor(record, bf16_pair):
    floats, _, _ = dense(bf16_pair)
    assert set(record["tensors"]) == set(floats)
    for name, (base, tuned) in floats.items():
        absolute, relative = (values.astype(np.float64) for values in oracle.changes(base, tuned))
        found = record["tensors"][name]
        assert found["considered"] == base.size
        assert found["changed"] == (base != tuned).sum()
        assert found["mean_absolute_change"] == pytest.approx(absolute.mean())
        assert found["mean_relative_change"] == pytest.approx(relative.mean())
    for percent in ("5", "90"):
        restored = sum(found["restored"][percent] for found in record["tensors"].values())
        assert restored == next(f["restored"] for f in record["fractions"] if f["percent"] == int(percent))


def test_every_folder_holds_the_record_of_its_own_fraction(record):
    for percent in (5, 90):
        written = json.loads((record["out"] / f"top-{percent}" / "restoration.json").read_text())
        assert written["recipe"] == record["recipe"] | {"top": [percent]}
        assert written["fractions"] == [one for one in record["fractions"] if one["percent"] == percent]
        assert all(list(tensor["restored"]) == [str(percent)] for tensor in written["tensors"].values())
        assert written["made_from"] == record["made_from"]
        assert set(written["made_from"]) == {"base", "tuned"}
        assert written["seeds"] == {"restoration": 9}


def test_a_percent_beyond_what_changed_says_that_everything_is_undone(record, bf16_pair):
    assert [one["everything_undone"] for one in record["fractions"]] == [False, True]
    changed = f"{record['changed_percent']:.4g}"
    assert record["notes"] == [f"{changed}% of the region changed at all, so top 90% undoes every update in it."]
    bottom = sftknow.restore(bf16_pair.base, bf16_pair.tuned, top=[90, 100], strategy="bottom", dry_run=True)
    assert [one["everything_undone"] for one in bottom["fractions"]] == [False, True]


def test_random_has_no_threshold_and_no_ties(bf16_pair):
    record = sftknow.restore(bf16_pair.base, bf16_pair.tuned, top=[50, 100], strategy="random", dry_run=True)
    assert all(one["threshold"] is None and one["ties"] is None for one in record["fractions"])


def test_the_tables_show_the_same_figures(record):
    text = show(record)
    assert f"region transformer, layers 0-1: {record['considered']:,} parameters" in text
    rows = {line.split("  ")[0]: line.split() for line in text.splitlines() if line}
    for percent, fraction in zip(("5", "90"), record["fractions"], strict=True):
        assert rows[percent][1] == f"{fraction['restored']:,}"
        assert rows[percent][-2] == f"{100 * fraction['share_of_change_undone']:.2f}"
    shares = [one["modules"]["mlp.down_proj"]["share_of_restored"] for one in record["fractions"]]
    assert rows["mlp.down_proj"][1:] == [f"{100 * share:.2f}" for share in shares]
    assert text.endswith(f"note: {record['notes'][0]}")


def test_regions_without_blocks_have_no_table_of_layers(bf16_pair):
    record = sftknow.restore(bf16_pair.base, bf16_pair.tuned, top=5, region="embedding", dry_run=True)
    assert record["fractions"][0]["layers"] == {}
    assert "by layer" not in show(record)
    assert "lm_head" in show(record)


def test_numbers_of_layers_are_in_their_order(tmp_path):
    shapes = {f"model.layers.{n}.mlp.up_proj.weight": (3, 5) for n in range(12)}
    pair = checkpoints.make_pair(tmp_path, shapes=shapes, size=1e-2)
    record = sftknow.restore(pair.base, pair.tuned, top=50, dry_run=True)
    assert list(record["fractions"][0]["layers"]) == [str(number) for number in range(12)]
