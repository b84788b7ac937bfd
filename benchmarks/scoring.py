"""A sweep over seven fractions in memory, against seven checkpoints written to disk and scored by lm-eval's command.

Claims, on the laboratory model:
- `sftknow sweep` takes at most a third of the time of `sftknow-restore` followed by `lm_eval` on each checkpoint;
- its memory is at most that of one loaded model plus 1 GB;
- both give the same scores.

Every subject is a process of its own, timed from start to exit, on the wall clock and in CPU time (which other work on
the machine disturbs less); memory is the peak resident set of the sweep less that
of a process that imports the same libraries and loads the model.

    python benchmarks/scoring.py --size tiny
    python benchmarks/scoring.py --size demo
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

TOPS = ("1", "3", "5", "10", "20", "40", "60")
PROGRAM = "from sftknow.cli.main import main; main()"
RESTORE = "from sftknow.cli.restore import main; main()"
LOAD = """
import sys
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from sftknow.models import load_model, load_tokenizer
import numba, datasets, torch
model = load_model(sys.argv[1]); tokenizer = load_tokenizer(sys.argv[1])
model.generate(**tokenizer(["a b c"] * 64, return_tensors="pt"), max_new_tokens=16)
"""


@dataclass(frozen=True)
class Cost:
    """What processes took: seconds of wall clock and of CPU, and bytes of the largest peak resident set."""

    wall: float = 0.0
    cpu: float = 0.0
    memory: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        """Return the cost of both, one after the other."""
        return Cost(self.wall + other.wall, self.cpu + other.cpu, max(self.memory, other.memory))


def main() -> None:
    """Make a base, a table and a tuned model, run both ways and print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--size", choices=("tiny", "demo"), default="tiny")
    options.add_argument("--facts-per-bucket", type=int, default=60)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        base, table, tuned = prepare(chosen.size, work)
        metadata = [f"mastery={table}", f"facts_per_bucket={chosen.facts_per_bucket}"]
        loaded = run([sys.executable, "-c", LOAD, str(tuned)])
        swept = run(sweep_command(base, tuned, metadata, work / "sweep.json"))
        written = write_and_score(base, tuned, metadata, work)
        report(chosen.size, loaded, swept, written)
        compare(work)


def prepare(size: str, work: Path) -> tuple[Path, Path, Path]:
    """Build the laboratory, probe it with few samples, and tune it on its least known facts."""
    from sftknow.lab.build import build_lab
    from sftknow.mastery.probe import probe
    from sftknow.tuning.train import train

    lab = build_lab(size=size)
    table = probe(lab.folder, lab.facts, lab.relations, samples=1, max_new_tokens=16)
    table.write(work / "table")
    train(lab.folder, work / "table", work / "tuned", bucket=0, n="all", seed=0, learning_rate=5e-4)
    return lab.folder, work / "table", work / "tuned"


def sweep_command(base: Path, tuned: Path, metadata: list[str], out: Path) -> list[str]:
    """Return the command of the sweep."""
    tops = [word for top in TOPS for word in ("--top", top)]
    pairs = [word for pair in metadata for word in ("--metadata", pair)]
    return [sys.executable, "-c", PROGRAM, "sweep", str(base), str(tuned), *tops, *pairs, "--json", str(out)]


def write_and_score(base: Path, tuned: Path, metadata: list[str], work: Path) -> tuple[Cost, Cost]:
    """Restore to disk and score the tuned model and every checkpoint by lm-eval's command; return what both cost."""
    tops = [word for top in TOPS for word in ("--top", top)]
    folder = work / "restored"
    restored = run([sys.executable, "-c", RESTORE, str(base), str(tuned), "--out", str(folder), *tops])
    scored = Cost()
    for name, model in (("0", tuned), *((top, folder / f"top-{top}") for top in TOPS)):
        command = [sys.executable, "-m", "lm_eval", "--model", "hf", "--model_args", f"pretrained={model}"]
        command += ["--tasks", "cbqa_mastery", "--metadata", *metadata, "--device", "cpu", "--batch_size", "64"]
        command += ["--output_path", str(work / "scores" / name)]
        scored += run(command)
    return restored, scored


def run(command: list[str]) -> Cost:
    """Run a process to its end."""
    code = (
        "import json, resource, subprocess, sys\n"
        "code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss * 1024]))\n"
        "sys.exit(code)"
    )
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, *command], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"failed: {' '.join(command)}")
    return Cost(time.perf_counter() - started, *json.loads(done.stdout))


def report(size: str, loaded: Cost, swept: Cost, written: tuple[Cost, Cost]) -> None:
    """Print seconds, the ratio and the memory."""
    whole = written[0] + written[1]
    print(
        f"laboratory {size}, {len(TOPS)} fractions and the unrestored model; {platform.processor() or 'cpu'}, ", end=""
    )
    print(f"{len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}")
    print(f"{'':<34}{'wall s':>9}{'CPU s':>9}")
    subjects = {"restore to disk": written[0], "score each with lm_eval": written[1], "together": whole}
    for name, cost in {**subjects, "sftknow sweep": swept}.items():
        print(f"{name:<34}{cost.wall:>9.1f}{cost.cpu:>9.1f}")
    print(f"{'times faster (claim: 3)':<34}{whole.wall / swept.wall:>9.1f}{whole.cpu / swept.cpu:>9.1f}")
    over = (swept.memory - loaded.memory) / 1e9
    print(f"{'GB beyond one loaded model':<34}{over:>9.2f}   (claim: 1)")


def compare(work: Path) -> None:
    """Print the largest difference between the scores of both ways."""
    steps = json.loads((work / "sweep.json").read_text())["steps"]
    largest = 0.0
    for step in steps:
        results = next((work / "scores" / f"{step['percent']:g}").rglob("results_*.json"))
        groups = json.loads(results.read_text())["groups"]
        for name, figure in step["figures"].items():
            largest = max(largest, abs(groups[name]["contains,none"] - figure["value"]))
    print(f"{'largest difference of a score':<34}{largest:>9.4f}")


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
