"""The quick demo, from facts to report: killed half-way, gone on with, and checked by other routes."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sftknow.demo.run import Demo, plan_units, run_demo
from sftknow.demo.settings import DemoSettings
from sftknow.demo.unit import run_unit
from sftknow.errors import ConfigError
from sftknow.mastery.table import read_mastery

COMMAND = [sys.executable, "-c", "from sftknow.cli.main import main; main()", "demo", "--quick", "--out"]


@pytest.fixture(scope="module")
def demo(tiny_lab, tmp_path_factory) -> Path:
    """A finished quick demo that was killed when its first fine-tuning had been measured."""
    folder = tmp_path_factory.mktemp("quick") / "demo"
    process = subprocess.Popen([*COMMAND, str(folder)], stdout=subprocess.DEVNULL, start_new_session=True)
    while process.poll() is None and not list(folder.glob("runs/*/unit.json")):
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (folder / "report.html").exists()
    half = json.loads((folder / "demo.json").read_text())
    assert len(half["runs"]) < 8
    done = subprocess.run([*COMMAND, str(folder)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "finished before and are kept" in done.stdout
    return folder


@pytest.fixture(scope="module")
def record(demo: Path) -> dict:
    return json.loads((demo / "demo.json").read_text())


@pytest.mark.slow
def test_every_fine_tuning_and_sweep_is_there(record: dict) -> None:
    large = record["settings"]["sizes"][1]
    wanted = {(bucket, n, seed) for bucket in (0, 4) for n in (4, large) for seed in (1, 2)}
    assert {(run["bucket"], run["n"], run["seed"]) for run in record["runs"]} == wanted
    sweeps = {(sweep["bucket"], sweep["seed"], sweep["strategy"]) for sweep in record["sweeps"]}
    assert sweeps == {
        (bucket, seed, strategy) for bucket in (0, 4) for seed in (1, 2) for strategy in ("top", "random")
    }
    assert all([step["percent"] for step in sweep["steps"]] == [0, 5, 20, 60] for sweep in record["sweeps"])


@pytest.mark.slow
def test_the_headline_is_the_unweighted_mean_over_buckets(record: dict) -> None:
    for score in [record["base"], *(run["score"] for run in record["runs"])]:
        for domain in score.values():
            hits = [np.array([int(hit) for hit in bucket["outcomes"]]) for bucket in domain["buckets"].values()]
            assert domain["accuracy"] == pytest.approx(np.mean([part.mean() for part in hits]))


@pytest.mark.slow
def test_an_unrestored_sweep_starts_from_its_fine_tuning(record: dict) -> None:
    runs = {(run["bucket"], run["n"], run["seed"]): run for run in record["runs"]}
    for sweep in record["sweeps"]:
        run = runs[sweep["bucket"], sweep["n"], sweep["seed"]]
        assert sweep["steps"][0]["score"] == run["score"]
        assert sweep["steps"][0]["kl"] == run["kl"]["mean"]


@pytest.mark.slow
def test_the_checkpoint_on_disk_scores_as_the_sweep_in_memory(demo: Path, record: dict) -> None:
    assert record["restored"]["as_in_memory"] is True
    assert (demo / "restored" / "restoration.json").is_file()


@pytest.mark.slow
def test_the_shares_undone_are_those_of_a_dense_count(demo: Path, tiny_lab, record: dict) -> None:
    from safetensors.numpy import load_file

    sweep = next(sweep for sweep in record["sweeps"] if sweep["strategy"] == "top")
    tuned = demo / "runs" / f"bucket{sweep['bucket']}-n{sweep['n']}-seed{sweep['seed']}" / "model"
    before, after = (load_file(folder / "model.safetensors") for folder in (tiny_lab.folder, tuned))
    names = [name for name in before if ".layers." in name and "norm" not in name]
    p, s = (np.concatenate([values[name].ravel() for name in names]) for values in (before, after))
    moved = np.abs(s - p)
    order = np.argsort(-(moved / (np.abs(p) + np.float32(1e-8))), kind="stable")
    for step in sweep["steps"]:
        chosen = order[: int(len(p) * step["percent"] / 100)]
        assert step["restored"] == len(chosen)
        undone = moved[chosen].sum(dtype=np.float64) / moved.sum(dtype=np.float64)
        assert step["change_undone"] == pytest.approx(undone, rel=1e-4)


@pytest.mark.slow
def test_a_unit_repeated_elsewhere_gives_the_same_numbers(demo: Path, tiny_lab, tmp_path: Path, record: dict) -> None:
    whole = Demo(DemoSettings.quick(), demo)
    units = plan_units(whole, tiny_lab.folder, read_mastery(demo / "mastery"))
    small = next(unit for unit in units if (unit.bucket, unit.n, unit.seed) == (4, 4, 2))
    again = run_unit(replace(small, folder=tmp_path))
    assert again["run"] in record["runs"]


@pytest.mark.slow
def test_a_finished_demo_is_not_repeated(demo: Path, record: dict) -> None:
    lines: list[str] = []
    run_demo(Demo(DemoSettings.quick(), demo, log=lines.append))
    assert any("9 of 9 were finished before" in line for line in lines)
    assert json.loads((demo / "demo.json").read_text())["runs"] == record["runs"]


@pytest.mark.slow
def test_the_report_holds_every_finding_and_figure(demo: Path) -> None:
    page = (demo / "report.html").read_text()
    assert page.count('class="verdict') == 6
    assert page.count("<figure>") == 6
    assert "http" not in page.replace("http://www.w3.org/", "")


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ConfigError, match="is not empty and holds no demo"):
        run_demo(Demo(DemoSettings.quick(), tmp_path))
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine.txt"]


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        run_demo(Demo(DemoSettings.quick(), tmp_path / "demo"))


def test_facts_that_cannot_be_read_are_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, str(tmp_path / "demo"), "--facts", str(tmp_path / "absent.zip")], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "absent.zip" in done.stderr
