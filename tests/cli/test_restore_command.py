"""`sftknow-restore`: tables or JSON, one line for bad input, a terminal that is left clean."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

PROGRAM = [sys.executable, "-c", "from sftknow.cli.restore import main; main()"]
NAME = "model.layers.0.mlp.up_proj.weight"


def run(*arguments, **options):
    return subprocess.run([*PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=120, **options)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Base and tuned folders of one float32 matrix each."""
    folder = tmp_path_factory.mktemp("pair")
    values = np.arange(1, 101, dtype=np.float32).reshape(10, 10)
    for name, matrix in (("base", values), ("tuned", values + np.where(values > 40, 0.5, 0).astype(np.float32))):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text("{}")
        save_file({NAME: matrix}, folder / name / "model.safetensors")
    return folder / "base", folder / "tuned"


def test_tables_are_printed_and_the_checkpoint_written(tmp_path, pair):
    done = run(*pair, "--out", tmp_path / "out", "--top", "20")
    assert done.returncode == 0, done.stderr
    assert "100 parameters, 60 changed (60%)" in done.stdout
    assert done.stderr == ""
    base, tuned, found = (load_file(f / "model.safetensors")[NAME] for f in (*pair, tmp_path / "out"))
    assert (found == base).sum() == 40 + 20
    assert np.array_equal(np.flatnonzero((found == base) & (base != tuned)), np.arange(40, 60)), "largest ratios"


def test_json_is_the_record(tmp_path, pair):
    out = tmp_path / "out"
    done = run(*pair, "--out", out, "--top", "1", "--top", "90", "--json", "--seed", "3", "--of", "changed")
    record = json.loads(done.stdout)
    assert record["schema"] == "sftknow.restoration/1"
    assert [one["percent"] for one in record["fractions"]] == [1, 90]
    assert record["recipe"]["seed"] == 3
    assert record["recipe"]["of"] == "changed"
    assert sorted(entry.name for entry in out.iterdir()) == ["top-1", "top-90"]


def test_a_dry_run_needs_no_folder_and_writes_nothing(tmp_path, pair):
    done = run(*pair, "--dry-run", "--strategy", "random", "--rank-by", "absolute", "--region", "mlp", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--top", "120"], "top 120.0 is no percent; give a number between 0 and 100."),
        (["--region", "head"], "region 'head' is unknown"),
        (["--layers", "3"], "matches no tensor"),
        (["--threads", "0"], "Invalid value for '--threads'"),
        (["--overwrte"], "No such option"),
    ],
)
def test_bad_input_is_told_in_one_line(tmp_path, pair, arguments, message):
    done = run(*pair, "--out", tmp_path / "out", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_missing_model_and_a_hub_that_cannot_be_reached_are_told(tmp_path, pair):
    done = run(tmp_path / "absent", pair[1], "--out", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    done = run("some-org/some-model@main", pair[1], "--out", tmp_path / "out", env=environment)
    assert done.returncode == 2
    assert "some-org/some-model" in done.stderr
    assert "cannot be fetched from the Hub" in done.stderr
    assert done.stderr.count("\n") == 1


def heed_interrupts():
    """Take SIGINT as a terminal's programs do; a shell's background jobs, and all they start, ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_ends_with_one_line_and_code_130(tmp_path):
    for name in ("base", "tuned"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        values = np.random.default_rng(0).standard_normal((6000, 10_000), np.float32)
        save_file({NAME: values + (name == "tuned")}, tmp_path / name / "model.safetensors")
    tops = [word for percent in range(1, 40) for word in ("--top", str(percent))]
    command = [*PROGRAM, str(tmp_path / "base"), str(tmp_path / "tuned"), "--out", str(tmp_path / "out"), *tops]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts
    )
    while not list(tmp_path.glob(".out.*.partial")):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.strip() == "sftknow: interrupted; nothing was written."
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["base", "tuned"]
