import json
import subprocess
import sys
from pathlib import Path

import pytest

from sftknow.errors import ConfigError
from sftknow.tuning.resume import last_checkpoint, open_work, work_folder
from sftknow.tuning.train import train


@pytest.fixture(scope="module")
def table_folder(table, tmp_path_factory):
    folder = tmp_path_factory.mktemp("table") / "mastery"
    table.write(folder)
    return folder


def killed_run(base, table_folder, out, options, kills):
    script = Path(__file__).with_name("killed_run.py")
    command = [sys.executable, script, base, table_folder, out, json.dumps(options), json.dumps(kills)]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


WATCHED = {"kl_weight": 0.5, "drift_every": 2, "drift_stop": 9.0, "settings": {"warmup_steps": 2}}


@pytest.mark.slow
@pytest.mark.parametrize(("extra", "kills"), [({}, [1, 3, 4, 8]), (WATCHED, [3, 7])], ids=["plain", "watched"])
def test_a_run_killed_at_several_updates_ends_with_the_same_bytes(base, table_folder, tmp_path, extra, kills):
    """Killed before the first checkpoint, between two, as one is due, and at the last update."""
    options = {"bucket": [0, 1], "n": 32, "seed": 0, "learning_rate": 1e-3, "batch_size": 4, "save_steps": 2, **extra}
    killed_run(base, table_folder, tmp_path / "killed", options, kills)
    whole = train(base, table_folder, tmp_path / "whole", **{**options, "save_steps": None})
    resumed = json.loads((tmp_path / "killed" / "sft.json").read_text())
    assert (tmp_path / "killed" / "model.safetensors").read_bytes() == (whole.folder / "model.safetensors").read_bytes()
    assert resumed["losses"] == whole.record["losses"]
    assert resumed.get("drift") == whole.record.get("drift")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "whole"]


def stopped(work, steps, key):
    open_work(work, key, resume=False, overwrite=False)
    for step in steps:
        folder = work / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))


def test_the_last_whole_checkpoint_is_found(tmp_path):
    stopped(tmp_path / "work", [2, 4, 10], {})
    (tmp_path / "work" / "checkpoint-10" / "trainer_state.json").write_text('{"global_st')
    (tmp_path / "work" / "checkpoint-12").mkdir()
    assert last_checkpoint(tmp_path / "work").name == "checkpoint-4"


def test_a_stopped_run_is_neither_lost_nor_mixed_up(tmp_path):
    work = tmp_path / "work"
    stopped(work, [2], {"seed": "a", "lr": "x"})
    with pytest.raises(ConfigError, match=r"checkpoint-2.*give --resume to go on"):
        open_work(work, {"seed": "a", "lr": "x"}, resume=False, overwrite=False)
    with pytest.raises(ConfigError, match=r"differs in lr, seed;"):
        open_work(work, {"seed": "b", "lr": "y"}, resume=True, overwrite=False)
    assert open_work(work, {"seed": "a", "lr": "x"}, resume=True, overwrite=False).name == "checkpoint-2"
    assert open_work(work, {"seed": "b", "lr": "x"}, resume=False, overwrite=True) is None
    assert last_checkpoint(work) is None


def test_resume_without_a_stopped_run_begins(base, table, tmp_path):
    result = train(base, table, tmp_path / "out", bucket=0, n=8, seed=0, resume=True)
    assert result.record["updates"] == 1
    assert not work_folder(tmp_path / "out").exists()


def test_another_run_cannot_be_resumed(base, table, tmp_path):
    out = tmp_path / "out"
    stopped(work_folder(out), [2], {"seed": "other"})
    with pytest.raises(ConfigError, match=r"the stopped run in .* differs in allow_fewer, base, batch_size"):
        train(base, table, out, bucket=0, n=8, seed=0, resume=True)
    assert work_folder(out).exists()
