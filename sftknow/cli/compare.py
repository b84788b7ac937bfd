"""`sftknow compare`: two scored models, fact by fact."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sftknow.cli.common import CONTEXT, FOLDER, examples

if TYPE_CHECKING:
    from sftknow.comparison import Change


@examples(
    "sftknow compare tuned-scores.json restored-scores.json",
    "sftknow compare results/tuned results/restored --facts 5",
)
@click.command(context_settings=CONTEXT)
@click.argument("results_a", type=FOLDER)
@click.argument("results_b", type=FOLDER)
@click.option("--facts", "shown", type=click.IntRange(0), default=10, help="List so many lost and gained facts each.")
def command(results_a: Path, results_b: Path, shown: int) -> None:
    """Compare RESULTS_B with RESULTS_A, fact by fact, in each mastery bucket.

    Each is a file of `sftknow score --out` or a folder of `lm_eval --log_samples --output_path`. The p-value is
    McNemar's, exact: the chance of so uneven a count of lost and gained facts if both were equally likely.
    """
    from sftknow.comparison import compare

    found = compare(results_a, results_b)
    click.echo(f"{'':<22}{'facts':>6}{'A %':>8}{'B %':>8}{'change':>9}{'lost':>6}{'gained':>8}{'p':>8}")
    for domain, whole in found.domains.items():
        for (name, bucket), change in found.buckets.items():
            if name == domain:
                click.echo(_row(f"{_words(domain)} {bucket}", change))
        click.echo(_row(f"{_words(domain)} mean", whole))
    if found.only_first or found.only_second:
        click.echo(f"left out: {found.only_first} facts only in A, {found.only_second} only in B")
    for title, kind in (("lost", "lost"), ("gained", "gained")):
        pairs = [pair for whole in found.domains.values() for pair in getattr(whole, kind)]
        if shown and pairs:
            click.echo(f"\n{title} ({min(shown, len(pairs))} of {len(pairs)}):")
        for before, after in pairs[:shown]:
            click.echo(f"  {before.fact}  bucket {before.bucket}  {before.prompt}  [{'; '.join(before.gold)}]")
            click.echo(f"    A: {before.answer.strip()!r}  B: {after.answer.strip()!r}")


def _words(domain: str) -> str:
    return domain.replace("_", " ")


def _row(name: str, change: "Change") -> str:
    before, after = 100 * change.before, 100 * change.after
    return (
        f"{name:<22}{change.facts:>6}{before:>8.1f}{after:>8.1f}{after - before:>+9.1f}"
        f"{len(change.lost):>6}{len(change.gained):>8}{change.p_value:>8.3f}"
    )
