"""score, sweep, compare, tasks-path and doctor from the command line."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import word_model
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from sftknow.cli.main import cli
from sftknow.errors import ConfigError, DataError
from sftknow.harness import tasks_folder
from sftknow.mastery.table import read_mastery
from sftknow.records import read_record

KNOWN = {("in_domain", 0): 1, ("in_domain", 4): 3, ("out_of_domain", 2): 2}


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    folder = tmp_path_factory.mktemp("known")
    model = word_model.write_model(folder / "model")
    word_model.known_table(model, KNOWN, facts=4, prompts={}).write(folder / "table")
    return str(model), str(folder / "table")


@pytest.fixture(scope="module")
def tuned(known, tmp_path_factory):
    """A model that is nowhere near the base."""
    folder = tmp_path_factory.mktemp("tuned") / "tuned"
    shutil.copytree(known[0], folder)
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if "layers" in name:
            tensors[name] = tensor.flip(0).contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


def run(*arguments, fails=None):
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    if fails is None:
        assert result.exception is None, result.exception
    else:
        assert isinstance(result.exception, fails)
    return result


def test_score_prints_percents_and_writes_a_record(known, tmp_path):
    result = run("score", *known, "--out", tmp_path / "scores.json")
    lines = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert "25.0 ± 25.0  (4 facts)" in lines["0"]
    assert "no facts" in lines["3"]
    assert "50.0" in lines["mean"]
    record = read_record(tmp_path / "scores.json", "scores")
    assert record["scores"]["in_domain"]["accuracy"] == pytest.approx(0.5)
    assert record["made_from"]["model"]["path"] == known[0]
    assert "--overwrite" in str(run("score", *known, "--out", tmp_path / "scores.json", fails=ConfigError).exception)


def test_compare_prints_each_bucket_and_the_facts(known, tmp_path):
    for name, prompt_format in (("a", "paper"), ("b", "question")):
        run("score", *known, "--out", tmp_path / f"{name}.json", "--prompt-format", prompt_format)
    output = run("compare", tmp_path / "a.json", tmp_path / "b.json").stdout
    assert "in domain mean" in output
    assert "out of domain 2" in output
    same = run("compare", tmp_path / "a.json", tmp_path / "a.json").stdout
    assert "1.000" in same
    assert "lost (" not in same


def test_sweep_prints_each_fraction_and_writes_a_record(known, tuned, tmp_path):
    model, table = known
    result = run(
        "sweep",
        model,
        tuned,
        "--mastery",
        table,
        "--top",
        20,
        "--top",
        100,
        "--region",
        "all",
        "--json",
        tmp_path / "sweep.json",
        "--metadata",
        "facts_per_bucket=2",
    )
    assert [line.split()[0] for line in result.stdout.splitlines()[1:4]] == ["0", "20", "100"]
    record = read_record(tmp_path / "sweep.json", "sweep")
    assert record["settings"]["metadata"] == {"mastery": table, "facts_per_bucket": 2}
    assert record["steps"][1]["figures"]["cbqa_mastery_id"]["low"] is not None
    assert record["made_from"]["tuned"]["path"] == tuned


def test_sweep_writes_only_the_chosen_fraction(known, tuned, tmp_path):
    model, table = known
    dev = read_mastery(Path(table))
    rows = [replace(row, fact=replace(row.fact, split="dev")) for row in dev.rows if row.fact.split == "test"]
    replace(dev, rows=(*dev.rows, *rows)).write(tmp_path / "table")
    options = ["--mastery", tmp_path / "table", "--region", "all", "--select-on", "cbqa_mastery_id"]
    result = run("sweep", model, tuned, *options, "--top", 100, "--top", 1, "--out", tmp_path / "restored")
    assert "best on cbqa_mastery_id: 100%" in result.stdout
    written = load_file(tmp_path / "restored" / "model.safetensors")
    base = load_file(Path(model) / "model.safetensors")
    assert all(written[name].equal(base[name]) for name in base)


def test_sweep_writes_nothing_where_nothing_can_be_chosen(known, tuned, tmp_path):
    options = ["--top", 100, "--region", "all", "--mastery", known[1], "--select-on", "cbqa_mastery_id"]
    result = run("sweep", known[0], tuned, *options, "--out", tmp_path / "restored", fails=DataError)
    assert "has no dev facts" in str(result.exception)
    assert not (tmp_path / "restored").exists()


def test_sweep_refuses_to_choose_by_the_scores_it_reports(known, tmp_path):
    result = run("sweep", known[0], known[0], "--top", 5, "--out", tmp_path / "restored", fails=ConfigError)
    assert "--select-on" in str(result.exception)


def test_sweep_refuses_metadata_without_a_value(known):
    result = run("sweep", known[0], known[0], "--top", 5, "--metadata", "split", fails=ConfigError)
    assert "KEY=VALUE" in str(result.exception)


def test_tasks_path_is_the_folder_of_the_yamls():
    assert run("tasks-path").stdout.strip() == str(tasks_folder())


def test_doctor_says_what_it_looked_at():
    output = CliRunner().invoke(cli, ["doctor"]).stdout
    assert "lm-eval tasks" in output
    assert "torch" in output
