"""The restored checkpoint is what sorting everything in memory would give, whatever the dtype, region or sharding."""

import json
import math
import shutil

import checkpoints
import numpy as np
import oracle
import pytest
from checkpoints import make_pair, read, region_names, same
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sftknow
from sftknow.errors import CheckpointError, ConfigError
from sftknow.restoration import survey
from sftknow.restoration.select import Forecast

PERCENTS = [0, 0.01, 1, 33, 99.9, 100]


@pytest.mark.parametrize("region", ["transformer", "attention", "mlp", "embedding", "all"])
@pytest.mark.parametrize("strategy", ["top", "bottom", "random"])
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_every_strategy_and_region_restores_what_sorting_gives(tmp_path, dtype, strategy, region):
    pair = make_pair(tmp_path, dtype=dtype)
    names = region_names(region, pair.after)
    for seed in (0, 7):
        out = tmp_path / f"out-{seed}"
        record = sftknow.restore(pair.base, pair.tuned, out, PERCENTS, strategy=strategy, region=region, seed=seed)
        considered = sum(pair.after[name].size for name in names)
        for fraction, percent in zip(record["fractions"], PERCENTS, strict=True):
            assert fraction["restored"] == int(considered * percent / 100)
            same(
                read(out / f"{strategy}-{percent}"),
                pair.expected(names, percent, strategy=strategy, seed=seed),
            )


@pytest.mark.parametrize("of", ["region", "changed"])
@pytest.mark.parametrize("rank_by", ["relative", "absolute"])
@pytest.mark.parametrize("strategy", ["top", "bottom", "random"])
def test_ranking_and_population_are_as_asked(tmp_path, bf16_pair, strategy, rank_by, of):
    names = region_names("transformer", bf16_pair.after)
    options = {"strategy": strategy, "rank_by": rank_by, "of": of, "seed": 3}
    record = sftknow.restore(bf16_pair.base, bf16_pair.tuned, tmp_path / "out", [2, 50, 100], **options)
    base, tuned = (np.concatenate(values) for values in zip(*bf16_pair.floats(names).values(), strict=True))
    population = int((base != tuned).sum()) if of == "changed" else base.size
    for fraction in record["fractions"]:
        assert fraction["restored"] == int(population * fraction["percent"] / 100)
        found = read(tmp_path / "out" / f"{strategy}-{fraction['percent']}")
        same(found, bf16_pair.expected(names, fraction["percent"], **options))


@pytest.mark.parametrize(
    ("dtype", "tuned_dtype"),
    [(one, other) for one in ("BF16", "F16", "F32") for other in ("BF16", "F16", "F32") if one != other],
)
def test_base_and_tuned_may_have_different_dtypes(tmp_path, dtype, tuned_dtype):
    pair = make_pair(tmp_path, dtype=dtype, tuned_dtype=tuned_dtype, size=1e-2)
    names = region_names("all", pair.after)
    sftknow.restore(pair.base, pair.tuned, tmp_path / "out", [20, 100], region="all")
    for percent in (20, 100):
        same(read(tmp_path / "out" / f"top-{percent}"), pair.expected(names, percent))


def test_top_0_is_the_tuned_file_byte_for_byte(tmp_path, bf16_pair):
    sftknow.restore(bf16_pair.base, bf16_pair.tuned, tmp_path / "out", 0)
    written = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert written == (bf16_pair.tuned / "model.safetensors").read_bytes()


def test_top_100_of_all_is_base(tmp_path, bf16_pair):
    sftknow.restore(bf16_pair.base, bf16_pair.tuned, tmp_path / "out", 100, region="all")
    same(read(tmp_path / "out"), bf16_pair.before)


@pytest.mark.parametrize("strategy", ["top", "bottom", "random"])
def test_fractions_are_nested_and_the_same_alone_or_together(tmp_path, bf16_pair, strategy):
    percents = [1, 3, 5, 10, 20, 40, 60]
    sftknow.restore(bf16_pair.base, bf16_pair.tuned, tmp_path / "all", percents, strategy=strategy)
    smaller = None
    for percent in percents:
        alone = tmp_path / f"alone-{percent}"
        sftknow.restore(bf16_pair.base, bf16_pair.tuned, alone, percent, strategy=strategy)
        together = tmp_path / "all" / f"{strategy}-{percent}"
        assert (alone / "model.safetensors").read_bytes() == (together / "model.safetensors").read_bytes()
        words = read(alone)
        undone = {name: words[name] != bf16_pair.after[name] for name in words}
        assert smaller is None or all((undone[name] >= smaller[name]).all() for name in undone)
        smaller = undone


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shapes=st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=3).map(tuple), min_size=1, max_size=6),
    shards=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    threads=st.integers(1, 5),
    strategy=st.sampled_from(["top", "bottom", "random"]),
    dtype=st.sampled_from(["BF16", "F16", "F32"]),
    percent=st.floats(0, 100),
    seed=st.integers(0, 2**40),
    share=st.sampled_from([0.05, 0.5, 1.0]),
)
def test_shapes_shardings_and_threads_do_not_matter(
    tmp_path_factory, shapes, shards, threads, strategy, dtype, percent, seed, share
):
    folder = tmp_path_factory.mktemp("property")
    named = {f"model.layers.{number}.mlp.up_proj.weight": shape for number, shape in enumerate(shapes)}
    shards = tuple(min(count, len(named)) for count in shards)
    pair = make_pair(folder, dtype=dtype, shapes=named, shards=shards, seed=seed % 1000, share=share, size=1e-2)
    if all(np.array_equal(pair.before[name], pair.after[name]) for name in named):
        return
    sftknow.restore(pair.base, pair.tuned, folder / "out", percent, strategy=strategy, seed=seed, threads=threads)
    same(read(folder / "out"), pair.expected(list(named), percent, strategy=strategy, seed=seed))
    shutil.rmtree(folder)


LARGE = {
    "model.layers.0.mlp.up_proj.weight": (1100, 1000),
    "model.layers.1.mlp.up_proj.weight": (600, 1000),
    "model.layers.2.mlp.up_proj.weight": (700, 1),
}


@pytest.fixture(scope="module")
def large_pair(tmp_path_factory):
    return make_pair(tmp_path_factory.mktemp("large"), shapes=LARGE, share=0.5, size=2e-5)


@pytest.mark.parametrize("strategy", ["top", "bottom", "random"])
def test_tensors_of_many_chunks_agree_with_sorting_on_any_number_of_threads(tmp_path, large_pair, strategy):
    records = []
    for threads in (1, 3):
        out = tmp_path / f"threads-{threads}"
        record = sftknow.restore(
            large_pair.base, large_pair.tuned, out, [5, 20, 60], strategy=strategy, threads=threads, seed=1
        )
        records.append({key: value for key, value in record.items() if key != "created"})
        for percent in (5, 20, 60):
            same(
                read(out / f"{strategy}-{percent}"),
                large_pair.expected(list(LARGE), percent, strategy=strategy, seed=1),
            )
    assert records[0] == records[1]


@pytest.mark.parametrize(
    "forecast",
    [Forecast(frozenset(), ()), Forecast(frozenset({1, 60000}), (0x3C000000, 0x3F000000))],
    ids=["nothing foreseen", "wrongly foreseen"],
)
def test_a_wrong_forecast_costs_a_reading_and_changes_nothing(tmp_path, large_pair, monkeypatch, forecast):
    monkeypatch.setattr(survey, "foresee", lambda *_: forecast)
    for of in ("region", "changed"):
        out = tmp_path / of
        sftknow.restore(large_pair.base, large_pair.tuned, out, [5, 60], of=of)
        for percent in (5, 60):
            same(read(out / f"top-{percent}"), large_pair.expected(list(LARGE), percent, of=of))


@pytest.mark.parametrize("strategy", ["top", "bottom"])
def test_a_sample_foresees_bins_without_changing_the_result(tmp_path, large_pair, monkeypatch, strategy):
    monkeypatch.setattr(survey, "SAMPLE", 1 << 14)
    sftknow.restore(large_pair.base, large_pair.tuned, tmp_path / "out", [5, 20], strategy=strategy)
    for percent in (5, 20):
        expected = large_pair.expected(list(LARGE), percent, strategy=strategy)
        same(read(tmp_path / "out" / f"{strategy}-{percent}"), expected)


def test_a_large_tie_group_is_split_over_layers_in_proportion(tmp_path):
    """Every parameter moves by the same ratio: only the hash decides, so layers share alike."""
    shapes = {f"model.layers.{layer}.mlp.up_proj.weight": (50 * (layer + 1), 100) for layer in range(8)}
    before = {name: np.full(shape, 0x3F00, np.uint16) for name, shape in shapes.items()}
    after = {name: words + np.uint16(1) for name, words in before.items()}
    base = checkpoints.write(tmp_path / "base", before)
    tuned = checkpoints.write(tmp_path / "tuned", after)
    record = sftknow.restore(base, tuned, tmp_path / "out", 30)
    (fraction,) = record["fractions"]
    total = sum(rows * width for rows, width in shapes.values())
    assert fraction["ties"] == {"size": total, "taken": int(total * 0.3)}
    for layer, group in fraction["layers"].items():
        size = 5000 * (int(layer) + 1)
        deviation = math.sqrt(size * 0.3 * 0.7)
        assert abs(group["restored"] - 0.3 * size) < 5 * deviation
    name = "model.layers.7.mlp.up_proj.weight"
    rows = (read(tmp_path / "out")[name] == before[name]).sum(axis=1)
    assert rows[:200].sum() == pytest.approx(rows[200:].sum(), rel=0.1), "position must not matter"


def test_another_seed_splits_ties_otherwise_and_the_same_seed_alike(tmp_path, large_pair):
    words = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        sftknow.restore(large_pair.base, large_pair.tuned, tmp_path / name, 50, of="changed", seed=seed)
        words.append((tmp_path / name / "model.safetensors").read_bytes())
    assert words[0] == words[1] != words[2]


def test_a_restored_minus_zero_takes_base_s_bits(tmp_path):
    shapes = {"model.layers.0.mlp.up_proj.weight": (2,)}
    (name,) = shapes
    base = checkpoints.write(tmp_path / "base", {name: np.array([0x0000, 0x3F80], np.uint16)})
    tuned = checkpoints.write(tmp_path / "tuned", {name: np.array([0x8000, 0x3F81], np.uint16)})
    sftknow.restore(base, tuned, tmp_path / "out", 100)
    assert read(tmp_path / "out")[name].tolist() == [0x0000, 0x3F80]


def test_a_change_from_zero_whose_ratio_overflows_ranks_first(tmp_path):
    name = "model.layers.0.mlp.up_proj.weight"
    before = {name: np.array([0.0, 1.0, 2.0, 3.0], np.float32).view(np.uint32)}
    after = {name: np.array([1e38, 1.5, 2.0, 3.5], np.float32).view(np.uint32)}
    base, tuned = (
        checkpoints.write(tmp_path / "base", before, "F32"),
        checkpoints.write(tmp_path / "tuned", after, "F32"),
    )
    record = sftknow.restore(base, tuned, tmp_path / "out", 25)
    assert read(tmp_path / "out")[name].view(np.float32).tolist() == [0.0, 1.5, 2.0, 3.5]
    (fraction,) = record["fractions"]
    assert fraction["share_of_relative_change_undone"] is None, "a share of infinity is no number"
    json.dumps(record, allow_nan=False)


def test_layers_and_patterns_narrow_the_region(tmp_path, bf16_pair):
    sftknow.restore(bf16_pair.base, bf16_pair.tuned, tmp_path / "layers", 30, layers="1")
    mine = [name for name in region_names("transformer", bf16_pair.after) if ".layers.1." in name]
    same(read(tmp_path / "layers"), bf16_pair.expected(mine, 30))
    sftknow.restore(bf16_pair.base, bf16_pair.tuned, tmp_path / "pattern", 30, region=r"regex:[qk]_proj|model\.norm")
    mine = [name for name in bf16_pair.after if "q_proj" in name or "k_proj" in name or name == "model.norm.weight"]
    same(read(tmp_path / "pattern"), bf16_pair.expected(mine, 30))


def test_a_dry_run_reports_the_same_and_writes_nothing(tmp_path, bf16_pair):
    record = sftknow.restore(bf16_pair.base, bf16_pair.tuned, None, [5, 20], dry_run=True)
    named = sftknow.restore(bf16_pair.base, bf16_pair.tuned, tmp_path / "out", [5, 20], dry_run=True)
    assert not list(tmp_path.iterdir())
    written = sftknow.restore(bf16_pair.base, bf16_pair.tuned, tmp_path / "out", [5, 20])
    for other in (named, written):
        assert {**other, "created": None} == {**record, "created": None}


def test_the_output_holds_every_other_file_but_no_training_state(tmp_path):
    pair = make_pair(tmp_path, shards=(1, 3))
    others = {
        "tokenizer.json": "{}", "chat_template.jinja": "{{ m }}", "generation_config.json": "{}", "README.md": "mine",
        "additional_chat_templates/tool.jinja": "t", "sft.json": "{}", "training_args.bin": "pickle",
        "checkpoint-5/optimizer.pt": "x", "checkpoint-5/trainer_state.json": "{}", "runs/events": "x", ".hidden": "x",
        "adapter/adapter_config.json": "{}", "restoration.json": "{}",
    }  # fmt: skip
    for name, content in others.items():
        (pair.tuned / name).parent.mkdir(exist_ok=True)
        (pair.tuned / name).write_text(content)
    (pair.tuned / "tokenizer.json").chmod(0o600)
    (pair.tuned / "model-00001-of-00003.safetensors").chmod(0o600)
    sftknow.restore(pair.base, pair.tuned, tmp_path / "out", 20)
    found = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert found == {
        "config.json", "tokenizer.json", "chat_template.jinja", "generation_config.json", "README.md", "sft.json",
        "additional_chat_templates/tool.jinja", "restoration.json", "model.safetensors.index.json",
        *(f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)),
    }  # fmt: skip
    index = "model.safetensors.index.json"
    assert (tmp_path / "out" / index).read_bytes() == (pair.tuned / index).read_bytes()
    for path in (tmp_path / "out").rglob("*"):
        assert path.stat().st_mode & 0o444 == 0o444, path
    assert json.loads((tmp_path / "out" / "restoration.json").read_text())["schema"] == "sftknow.restoration/1"


def test_a_stale_index_beside_unsharded_weights_is_not_copied(tmp_path, bf16_pair):
    tuned = shutil.copytree(bf16_pair.tuned, tmp_path / "tuned")
    (tuned / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "gone.safetensors"}}))
    sftknow.restore(bf16_pair.base, tuned, tmp_path / "out", 20)
    assert not (tmp_path / "out" / "model.safetensors.index.json").exists()
    same(read(tmp_path / "out"), bf16_pair.expected(region_names("transformer", bf16_pair.after), 20))


def test_inputs_are_never_written_to(tmp_path, bf16_pair):
    before = {path: path.read_bytes() for folder in (bf16_pair.base, bf16_pair.tuned) for path in folder.iterdir()}
    sftknow.restore(bf16_pair.base, bf16_pair.tuned, tmp_path / "out", 20)
    for out in (bf16_pair.base, bf16_pair.tuned, bf16_pair.tuned / "inside", bf16_pair.tuned.parent):
        with pytest.raises(ConfigError, match="overlap"):
            sftknow.restore(bf16_pair.base, bf16_pair.tuned, out, 20, overwrite=True)
    assert before == {path: path.read_bytes() for path in before}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top": -1}, "top -1 is no percent; give a number between 0 and 100"),
        ({"top": 100.01}, "top 100.01 is no percent"),
        ({"top": float("nan")}, "top nan is no percent"),
        ({"top": []}, "no percent is given"),
        ({"strategy": "best"}, "strategy 'best' is unknown; choose one of top, bottom, random"),
        ({"rank_by": "size"}, "rank-by 'size' is unknown; choose one of relative, absolute"),
        ({"of": "it"}, "of 'it' is unknown; choose one of region, changed"),
        ({"region": "heads"}, "region 'heads' is unknown; choose one of transformer, attention"),
        ({"region": "regex:("}, "is not a regular expression"),
        ({"region": "regex:nothing"}, r"matches no tensor .* model\.layers\.\{0-1\}\.mlp\.gate_proj\.weight"),
        ({"layers": "2-1"}, "layers '2-1' cannot be read"),
        ({"layers": "a"}, "layers 'a' cannot be read at 'a'; write ranges such as 0-3,28-31"),
        ({"layers": "5-6"}, r"in layers 5, 6 \(blocks are numbered 0 to 1\)"),
        ({"region": "embedding", "layers": "0"}, "region embedding matches no tensor"),
        ({"out": None}, "no output folder is given"),
    ],
)
def test_options_that_cannot_be_carried_out_are_named(tmp_path, bf16_pair, options, message):
    with pytest.raises(ConfigError, match=message):
        sftknow.restore(bf16_pair.base, bf16_pair.tuned, **{"out": tmp_path / "out", **options})
    assert not list(tmp_path.iterdir())


def test_equal_models_are_refused(tmp_path, bf16_pair):
    with pytest.raises(CheckpointError, match="equal in region transformer: there is no update to undo"):
        sftknow.restore(bf16_pair.base, bf16_pair.base, tmp_path / "out", 20)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize(
    ("which", "name"),
    [
        ("base", "model.layers.1.mlp.down_proj.weight"),
        ("tuned", "model.layers.1.mlp.down_proj.weight"),
        ("tuned", "model.norm.weight"),
    ],
)
def test_nan_and_infinity_are_named_wherever_they_would_be_written(tmp_path, which, name, dtype, value):
    before = checkpoints.random_words(checkpoints.llama_shapes(), 0, dtype)
    after = checkpoints.tune(before, 1, dtype)
    words = before if which == "base" else after
    words[name].reshape(-1)[3] = oracle.from_floats(np.array([value], np.float32), dtype)[0]
    base, tuned = (
        checkpoints.write(tmp_path / "base", before, dtype),
        checkpoints.write(tmp_path / "tuned", after, dtype),
    )
    with pytest.raises(CheckpointError, match=rf"tensor {name} of {which} holds NaN or infinity"):
        sftknow.restore(base, tuned, tmp_path / "out", 20)
    assert not (tmp_path / "out").exists()


def test_base_values_that_overflow_in_tuned_s_dtype_are_refused(tmp_path):
    name = "model.layers.0.mlp.up_proj.weight"
    for value, fits in ((65519.0, True), (65520.0, False)):
        folder = tmp_path / str(value)
        before = {name: np.array([value, 1.0], np.float32).view(np.uint32)}
        base = checkpoints.write(folder / "base", before, "F32")
        tuned = checkpoints.write(folder / "tuned", {name: np.array([5.0, 2.0], np.float16).view(np.uint16)}, "F16")
        if fits:
            sftknow.restore(base, tuned, folder / "out", 100)
            assert read(folder / "out")[name].view(np.float16).tolist() == [65504.0, 1.0]
        else:
            with pytest.raises(CheckpointError, match="too large for the dtype of tuned"):
                sftknow.restore(base, tuned, folder / "out", 100)
