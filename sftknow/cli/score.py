"""`sftknow score`: a checkpoint scored by lm-eval in process, by mastery bucket."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sftknow.cli.common import CONTEXT, FOLDER, examples

if TYPE_CHECKING:
    from sftknow.scoring import Scores


@examples(
    "sftknow score tuned/ mastery/",
    "sftknow score tuned/ mastery/ --facts-per-bucket 60 --out tuned-scores.json",
    "sftknow score base/ mastery/ --view completions --device cuda --batch-size 256",
)
@click.command(context_settings=CONTEXT)
@click.argument("model")
@click.argument("table")
@click.option("--out", type=FOLDER, help="Write scores and the outcome of every fact to this JSON file.")
@click.option(
    "--view",
    type=click.Choice(["questions", "completions"]),
    default="questions",
    help="Ask questions (for a tuned model) or let statements be completed (for a base model).",
)
@click.option("--split", type=click.Choice(["test", "dev", "train"]), default="test", help="Facts to test.")
@click.option("--facts-per-bucket", type=click.IntRange(1), help="Test at most so many facts per bucket and domain.")
@click.option("--seed", default=0, help="Seed of that choice, and of few-shot examples.")
@click.option("--prompt-format", default="paper", help="paper, plain, question, or any text with {question} in it.")
@click.option("--num-fewshot", type=click.IntRange(0), default=0, help="Examples in front of each question.")
@click.option("--batch-size", type=click.IntRange(1), default=128, help="Prompts generated at once.")
@click.option("--dtype", default="auto", help="auto keeps the checkpoint's; or float32, bfloat16, float16.")
@click.option("--device", default="cpu", help="Torch device, such as cpu or cuda.")
@click.option("--overwrite", is_flag=True, help="Replace an existing OUT file.")
def command(model: str, table: str, out: Path | None, overwrite: bool, **options: Any) -> None:
    """Score MODEL on the test facts of TABLE, in and out of domain, by mastery bucket.

    The same tasks, prompts and metrics as `lm_eval --tasks cbqa_mastery`; the headline is the unweighted mean over
    buckets of `contains`: the share of answers that contain a gold answer or one of its aliases.
    """
    from sftknow.mastery.locate import mastery_folder
    from sftknow.models import process_threads, resolve_model
    from sftknow.scoring import check_output_file, score, write_scores

    if out is not None:
        check_output_file(out, overwrite=overwrite)
    process_threads()
    _, identity = resolve_model(model)
    scores = score(model, mastery_folder(table), progress=True, **options)
    print_scores(scores)
    if out is not None:
        write_scores(out, scores, options, model=identity, table=mastery_folder(table))
        click.echo(f"{out}: scores of {len(scores.outcomes)} facts")


def print_scores(scores: "Scores") -> None:
    """Print accuracy in percent: a row for each bucket, a column for each domain."""
    from sftknow.mastery.buckets import BUCKETS

    names = list(scores.domains)
    click.echo("bucket".ljust(8) + "".join(name.replace("_", " ").rjust(28) for name in names))
    for bucket in BUCKETS:
        cells = (scores.domains[name].buckets.get(bucket) for name in names)
        click.echo(str(bucket).ljust(8) + "".join(_cell(cell).rjust(28) for cell in cells))
    click.echo("mean".ljust(8) + "".join(_cell(scores.domains[name]).rjust(28) for name in names))


def _cell(part: Any) -> str:
    if part is None:
        return "no facts"
    spread = "" if part.stderr is None else f" ± {100 * part.stderr:.1f}"
    return f"{100 * part.accuracy:.1f}{spread}  ({part.facts} facts)"
