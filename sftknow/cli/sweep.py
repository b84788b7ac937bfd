"""`sftknow sweep`: base + tuned + tasks -> scores per fraction restored, in memory."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sftknow.cli.common import CONTEXT, FOLDER, examples
from sftknow.errors import ConfigError

if TYPE_CHECKING:
    from sftknow.sweeping import Figure, Sweep


@examples(
    "sftknow sweep base/ tuned/ --mastery mastery/ --top 1 --top 5 --top 20 --top 60",
    "sftknow sweep base/ tuned/ --mastery mastery/ --tasks cbqa_mastery,gsm8k --top 5 --top 20 --limit 200",
    "sftknow sweep base/ tuned/ --mastery mastery/ --top 5 --top 20 --select-on cbqa_mastery_id --out restored",
)
@click.command(context_settings=CONTEXT)
@click.argument("base")
@click.argument("tuned")
@click.option("--top", "tops", type=float, multiple=True, required=True, help="Percent to restore; may be repeated.")
@click.option("--tasks", default="cbqa_mastery", help="lm-eval tasks, groups or tags, separated by commas.")
@click.option("--mastery", help="Mastery table, for this project's tasks; by default $SFTKNOW_MASTERY.")
@click.option("--metadata", "pairs", multiple=True, metavar="KEY=VALUE", help="Another option of the tasks.")
@click.option("--select-on", metavar="TASK", help="Choose the best fraction by this task; cbqa tasks on dev facts.")
@click.option("--out", type=FOLDER, help="Write the chosen checkpoint to this folder.")
@click.option("--json", "record", type=FOLDER, help="Write all figures to this file.")
@click.option("--strategy", type=click.Choice(["top", "bottom", "random"]), default="top", help="What to restore.")
@click.option("--region", default="transformer", help="transformer, attention, mlp, embedding, all or regex:PATTERN.")
@click.option("--layers", help="Blocks to restore in, such as 0-3,28-31; by default all.")
@click.option("--rank-by", type=click.Choice(["relative", "absolute"]), default="relative", help="How changes rank.")
@click.option("--of", type=click.Choice(["region", "changed"]), default="region", help="What percents are of.")
@click.option("--seed", default=0, help="Of random choices, few-shot examples and the bootstrap.")
@click.option("--num-fewshot", type=click.IntRange(0), help="Examples in front; by default each task's own number.")
@click.option("--limit", type=click.IntRange(1), help="Score only the first so many documents of each task.")
@click.option("--batch-size", type=click.IntRange(1), default=64, help="Prompts processed at once.")
@click.option("--dtype", default="auto", help="auto keeps the checkpoint's; or float32, bfloat16, float16.")
@click.option("--device", default="cpu", help="Torch device, such as cpu or cuda.")
@click.option("--overwrite", is_flag=True, help="Replace an existing OUT folder or JSON file.")
def command(
    base: str,
    tuned: str,
    tops: tuple[float, ...],
    tasks: str,
    mastery: str | None,
    pairs: tuple[str, ...],
    select_on: str | None,
    out: Path | None,
    record: Path | None,
    overwrite: bool,
    **options: Any,
) -> None:
    """Score TUNED, and TUNED with its largest updates undone at several fractions, without writing checkpoints.

    One model is loaded; its weights move from fraction to fraction. Each score's change against the unrestored model
    has a 95% interval from a paired bootstrap over the documents.
    """
    from sftknow.models import process_threads
    from sftknow.records import check_output_folder
    from sftknow.scoring import check_output_file
    from sftknow.sweeping import sweep

    if out is not None:
        if select_on is None:
            raise ConfigError("--out needs --select-on: a fraction chosen by the scores it reports would flatter them.")
        check_output_folder(out, overwrite=overwrite)
    if record is not None:
        check_output_file(record, overwrite=overwrite)
    process_threads()
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    metadata = _metadata(mastery, pairs)
    found = sweep(base, tuned, tops, names, metadata=metadata, select_on=select_on, **options)
    print_sweep(found)
    if record is not None:
        _write_record(record, found, base, tuned, {"tasks": names, "metadata": metadata, **options})
        click.echo(f"wrote {record}")
    if found.chosen is not None:
        click.echo(f"best on {select_on}: {found.chosen:g}%")
    if out is not None and found.chosen is not None:
        _write_chosen(base, tuned, out, found.chosen, overwrite, options)


def _metadata(mastery: str | None, pairs: tuple[str, ...]) -> dict[str, Any]:
    metadata: dict[str, Any] = {} if mastery is None else {"mastery": mastery}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ConfigError(f"--metadata {pair!r} is not of the form KEY=VALUE.")
        metadata[key] = int(value) if value.isdecimal() else value
    return metadata


def _write_record(path: Path, found: "Sweep", base: str, tuned: str, settings: dict[str, Any]) -> None:
    from sftknow.models import resolve_model
    from sftknow.records import write_record

    identities = {name: resolve_model(model)[1] for name, model in (("base", base), ("tuned", tuned))}
    body = {"settings": settings, **found.to_record()}
    write_record(path, "sweep", body, made_from=identities, seeds={"sweep": settings["seed"]})


def _write_chosen(base: str, tuned: str, out: Path, percent: float, overwrite: bool, options: dict[str, Any]) -> None:
    from sftknow.restoration.restore import restore

    if percent == 0:
        click.echo(f"no fraction does better than the unrestored model: nothing is written to {out}")
        return
    recipe = {name: options[name] for name in ("strategy", "region", "layers", "rank_by", "of", "seed")}
    restore(base, tuned, out, percent, overwrite=overwrite, **recipe)
    click.echo(f"wrote {out}")


def print_sweep(found: "Sweep") -> None:
    """Print a row for each fraction: share of the change undone, and each score with its change and interval."""
    names = list(found.steps[0].figures)
    width = max([34, *(len(name) + 2 for name in names)])
    click.echo(f"{'top %':>7}{'undone %':>10}" + "".join(name.rjust(width) for name in names))
    for step in found.steps:
        undone = "" if step.share_of_change_undone is None else f"{100 * step.share_of_change_undone:.1f}"
        cells = "".join(_cell(figure).rjust(width) for figure in step.figures.values())
        click.echo(f"{step.percent:>7g}{undone:>10}{cells}")


def _cell(figure: "Figure") -> str:
    text = f"{figure.value:.3f}"
    if figure.change is not None:
        text += f"  {figure.change:+.3f}"
    if figure.low is not None and figure.high is not None:
        text += f" [{figure.low:+.3f}, {figure.high:+.3f}]"
    return text
