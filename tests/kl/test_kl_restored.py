"""The KL of restored checkpoints: as a comparison of each folder gives it, printed and kept with the checkpoint."""

import json
import subprocess
import sys

import pytest

from sftknow.kl import divergence
from sftknow.tuning.train import train

RESTORE = [sys.executable, "-c", "from sftknow.cli.restore import main; main()"]


@pytest.fixture(scope="module")
def tuned(base, table, tmp_path_factory):
    out = tmp_path_factory.mktemp("restored") / "tuned"
    return train(base, table, out, bucket=0, n=16, seed=0, learning_rate=1e-2).folder


def run(*arguments):
    return subprocess.run([*RESTORE, *map(str, arguments)], capture_output=True, text=True, timeout=300)


def test_every_fraction_has_the_kl_that_its_folder_gives(base, tuned, table, tmp_path):
    table.write(tmp_path / "table")
    out = tmp_path / "out"
    options = ("--top", 20, "--top", 100, "--kl-facts", tmp_path / "table", "--json")
    done = run(base, tuned, "--out", out, *options)
    assert done.returncode == 0, done.stderr
    kl = json.loads(done.stdout)["kl"]
    assert kl["tuned"]["mean"] == pytest.approx(divergence(base, tuned, table).mean)
    for percent in ("20", "100"):
        expected = divergence(base, out / f"top-{percent}", table).mean
        assert kl["restored"][percent]["mean"] == pytest.approx(expected)
        kept = json.loads((out / f"top-{percent}" / "restoration.json").read_text())
        assert kept["kl"]["restored"] == {percent: kl["restored"][percent]}
        assert kept["schema"] == "sftknow.restoration/1"
    assert kl["restored"]["20"]["mean"] < kl["tuned"]["mean"]


def test_prompts_come_from_a_file_too(base, tuned, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "the capital of"}\n{"prompt": "born in"}\n')
    done = run(base, tuned, "--out", tmp_path / "out", "--top", 20, "--kl-prompts", prompts)
    assert done.returncode == 0, done.stderr
    assert "over 2 prompts" in done.stdout
    assert "restored 20%" in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--kl-facts", "a", "--kl-prompts", "b", "--out", "OUT"), "choose one"),
        (("--kl-facts", "a", "--dry-run"), "leave out --dry-run"),
        (("--kl-facts", "absent", "--out", "OUT"), "absent"),
        (("--kl-prompts", "absent.jsonl", "--out", "OUT"), "absent.jsonl"),
    ],
)
def test_what_cannot_be_read_is_said_before_anything_is_written(base, tuned, tmp_path, options, message):
    out = tmp_path / "out"
    done = run(base, tuned, *(str(out) if option == "OUT" else option for option in options))
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not out.exists()
