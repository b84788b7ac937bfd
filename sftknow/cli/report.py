"""`sftknow report`: the report of a demo, from its record alone, at any time."""

from pathlib import Path

import click

from sftknow.cli.common import CONTEXT, FOLDER, examples


@examples(
    "sftknow report demo                   # demo/demo.json -> demo/report.html, report.md, figures/",
    "sftknow report demo --out elsewhere   # leave the demo's folder as it is",
    "sftknow report demo --tables          # tables on the terminal, nothing written",
)
@click.command(context_settings=CONTEXT, short_help="Write the report of a demo.")
@click.argument("demo", type=FOLDER)
@click.option("--out", type=FOLDER, help="Folder to write to.  [default: the demo's folder]")
@click.option("--tables", "only_tables", is_flag=True, help="Print the tables and findings instead of writing files.")
def command(demo: Path, out: Path | None, only_tables: bool) -> None:
    """Write report.html, report.md and figures/ from the demo record in folder DEMO.

    Works half-way too: what is not there yet is named, and findings say what they still need.
    """
    if only_tables:
        _print(demo)
        return
    from sftknow.report.page import write_report

    click.echo(write_report(demo, out or (demo if demo.is_dir() else demo.parent)))


def _print(demo: Path) -> None:
    from sftknow.report.findings import findings
    from sftknow.report.results import read_results
    from sftknow.report.tables import tables

    results = read_results(demo)
    for table in tables(results).values():
        click.echo(table.text() + "\n")
    for finding in findings(results):
        click.echo(f"{finding.title}: {finding.verdict}\n  {finding.text}\n")
