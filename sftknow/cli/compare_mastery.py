"""`sftknow compare-mastery`: agreement of two mastery tables."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from sftknow.cli.common import CONTEXT, FOLDER, examples


@examples("sftknow compare-mastery sampled/ likelihood/", "sftknow compare-mastery base/ other-model/ --json")
@click.command(context_settings=CONTEXT)
@click.argument("first", type=FOLDER)
@click.argument("second", type=FOLDER)
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON.")
def command(first: Path, second: Path, as_json: bool) -> None:
    """Compare the mastery tables FIRST and SECOND: two estimators, two models, or two seeds."""
    from sftknow.mastery.compare import compare
    from sftknow.mastery.table import read_mastery

    agreement = compare(read_mastery(first), read_mastery(second))
    if as_json:
        click.echo(json.dumps(asdict(agreement)))
        return
    for line in agreement.lines(str(first), str(second)):
        click.echo(line)
