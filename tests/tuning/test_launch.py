import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from sftknow.records import read_record
from sftknow.tuning.train import train

CONFIGS = Path(__file__).parents[2] / "configs" / "accelerate"


@pytest.mark.slow
def test_two_processes_make_the_update_of_one_with_the_same_batch(base, table, tmp_path):
    table.write(tmp_path / "mastery")
    options = ["--bucket", "0,1", "-n", "16", "--learning-rate", "1e-3", "--kl-weight", "0.5", "--drift-every", "1"]
    command = [
        "--config_file",
        CONFIGS / "two-cpu-processes.yaml",
        "--main_process_port",
        "0",
        "-m",
        "sftknow",
        "train",
    ]
    done = subprocess.run(
        list(
            map(
                str,
                [
                    *(sys.executable, "-m", "accelerate.commands.launch", *command),
                    *(base, tmp_path / "mastery", "--out", tmp_path / "two", *options),
                ],
            )
        ),
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("wrote") == 1
    one = train(
        base,
        tmp_path / "mastery",
        tmp_path / "one",
        bucket=(0, 1),
        n=16,
        seed=0,
        learning_rate=1e-3,
        kl_weight=0.5,
        drift_every=1,
    )
    record = read_record(tmp_path / "two" / "sft.json", "sft")
    assert record["processes"] == 2
    assert record["fact_ids"] == one.record["fact_ids"]
    for part in ("losses", ("preservation", "kl"), ("drift", "measured")):
        left, right = (
            entry[part] if isinstance(part, str) else entry[part[0]][part[1]] for entry in (record, one.record)
        )
        torch.testing.assert_close(torch.tensor(left), torch.tensor(right), atol=1e-4, rtol=1e-4)
    left, right = (load_file(tmp_path / name / "model.safetensors") for name in ("two", "one"))
    for name in left:
        torch.testing.assert_close(left[name], right[name], atol=2e-5, rtol=0)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_launch_files_are_ones_that_accelerate_reads(path):
    from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file

    config = load_config_from_file(str(path))
    assert isinstance(config, ClusterConfig)
    written = yaml.safe_load(path.read_text())
    assert config.num_processes == written["num_processes"]
