"""`sftknow demo`: the whole method on the embedded laboratory."""

import time
from pathlib import Path
from typing import Any

import click

from sftknow.cli.common import FOLDER, examples


@examples(
    "sftknow demo                          # about ten minutes on two cores; open demo/report.html",
    "sftknow demo --quick --out /tmp/quick # the same path in two minutes, too small to show effects",
    "sftknow demo --facts dataset.zip      # on facts of the EntityQuestions archive",
)
@click.command("demo")
@click.option("--out", type=FOLDER, default=Path("demo"), help="Folder for everything the demo makes.")
@click.option("--facts", type=FOLDER, help="EntityQuestions archive (zip or folder); by default an invented world.")
@click.option("--quick", is_flag=True, help="A tiny laboratory: every step, but no effects to be seen.")
@click.option("--seed", type=int, default=0, help="Seed of the laboratory: its world and its pretraining.")
@click.option("--device", default="cpu", help="Torch device.")
@click.option("--workers", type=click.IntRange(1), help="Processes side by side; by default one a core, at most 4.")
def command(facts: Path | None, out: Path, quick: bool, seed: int, device: str, workers: int | None) -> None:
    """Run the whole method on the embedded laboratory and write a report page.

    Builds or reuses a small model pretrained on a world of facts, probes what it knows, fine-tunes it on facts it knows
    badly and well at a small and a large number, measures KL, restores growing shares of the updates beside a random
    control, scores everything with lm-eval, and says which findings of the paper show here. Stopped, the same command
    goes on where it was.
    """
    from sftknow.demo.run import Demo, run_demo
    from sftknow.demo.settings import DemoSettings

    choices: dict[str, Any] = {"facts": facts, "lab_seed": seed}
    settings = DemoSettings.quick(**choices) if quick else DemoSettings(**choices)
    start = time.monotonic()
    page = run_demo(Demo(settings, out, device=device, workers=workers or _default_workers(device), log=click.echo))
    click.echo(f"\nDone in {(time.monotonic() - start) / 60:.1f} minutes. The report: {page}")


def _default_workers(device: str) -> int:
    from sftknow.models import available_cores

    return 1 if device != "cpu" else min(4, available_cores())
