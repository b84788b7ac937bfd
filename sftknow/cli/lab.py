"""`sftknow lab`: the embedded laboratory."""

from pathlib import Path

import click

from sftknow.cli.common import CONTEXT, FOLDER, examples


@click.group(context_settings=CONTEXT)
def command() -> None:
    """The embedded laboratory: a small world of facts and a small model pretrained on it."""


@command.command()
@click.option("--size", default="demo", help="tiny (tests, seconds), demo (minutes), or long (a GPU, or hours).")
@click.option("--facts", type=FOLDER, metavar="ARCHIVE", help="The EntityQuestions zip or folder, for real facts.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Another seed is another world and model.")
@click.option("--device", default="cpu", help="Torch device to pretrain on.")
@click.option("--out", type=FOLDER, help="A new folder to put a copy in; by default it stays in the cache.")
@click.option("--rebuild", is_flag=True, help="Build it again even where the cache holds it.")
@examples(
    "sftknow lab build",
    "sftknow lab build --size tiny --out lab-tiny",
    "sftknow lab build --facts dataset.zip --seed 3",
)
def build(size: str, facts: Path | None, seed: int, device: str, out: Path | None, rebuild: bool) -> None:
    """Build the laboratory, or reuse the cached one, and print its folder.

    The folder is an ordinary Hugging Face model with facts.jsonl, relations.yaml and lab.json beside the weights.
    """
    from sftknow.lab.build import build_lab

    def say(line: str) -> None:
        click.echo(line, err=True)

    click.echo(build_lab(out, size=size, facts=facts, seed=seed, device=device, rebuild=rebuild, log=say).folder)
