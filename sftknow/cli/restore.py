"""`sftknow-restore`: undo the parameter updates that moved most."""

import json
from pathlib import Path
from typing import Any, NoReturn

import click

from sftknow.cli.common import CONTEXT, add_common_options, examples, run, set_up_logging
from sftknow.errors import ConfigError


@examples(
    "sftknow-restore meta-llama/Llama-3.1-8B ./tuned --out ./restored --top 20",
    "sftknow-restore ./base ./tuned --out ./sweep --top 1 --top 5 --top 20 --top 60",
    "sftknow-restore ./base ./tuned --out ./sweep --top 5 --top 20 --kl-facts ./mastery",
    "sftknow-restore ./base ./tuned --dry-run --top 20 --region mlp --layers 0-3 --json",
)
@click.command(context_settings=CONTEXT)
@click.argument("base")
@click.argument("tuned")
@click.option("--out", type=click.Path(path_type=Path), help="Folder to make; several --top fill top-5, top-20, ...")
@click.option("--top", type=float, multiple=True, default=(20.0,), help="Percent of parameters to restore; repeatable.")
@click.option(
    "--strategy", default="top", help="top: largest change first; bottom: smallest first; random.", metavar="NAME"
)
@click.option(
    "--region",
    default="transformer",
    metavar="NAME",
    help="transformer, attention, mlp, embedding, all or regex:PATTERN.",
)
@click.option("--layers", metavar="RANGES", help="Only these blocks, such as 0-3,28-31.")
@click.option("--rank-by", default="relative", metavar="NAME", help="relative: |s - p| / |p|; absolute: |s - p|.")
@click.option("--of", default="region", metavar="NAME", help="Percent of the whole region, or of what changed in it.")
@click.option("--seed", type=int, default=0, help="Fixes random choices and the order of equals.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads to use.  [default: one for each core]")
@click.option("--overwrite", is_flag=True, help="Replace an existing --out once the new one is complete.")
@click.option("--dry-run", is_flag=True, help="Report thresholds and statistics, write nothing.")
@click.option("--kl-facts", metavar="TABLE", help="Take the KL from BASE at the mastered test facts of this table.")
@click.option("--kl-prompts", metavar="FILE", help="The same at the prompts of a JSONL file or a datasets folder.")
@click.option("--kl-device", default="cpu", help="Torch device for the KL.")
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON instead of tables.")
@add_common_options
def restore_command(
    base: str,
    tuned: str,
    top: tuple[float, ...],
    kl_facts: str | None,
    kl_prompts: str | None,
    kl_device: str,
    as_json: bool,
    verbose: bool,
    debug: bool,
    **options: Any,
) -> None:
    """Undo the updates of TUNED that moved most, giving back BASE's values.

    BASE and TUNED are model folders or Hub ids (org/name@revision). Base values are copied bit for bit where they are
    restored, tuned ones everywhere else; the result is an ordinary Hugging Face folder with a restoration.json.
    """
    set_up_logging(verbose, debug)
    from sftknow.restoration.compiled import load_numba_alone

    load_numba_alone()
    from sftknow.restoration.restore import checkpoint_folders, restore
    from sftknow.restoration.tables import show

    prompts = _prompts(kl_facts, kl_prompts, options["dry_run"])
    record = restore(base, tuned, top=list(top), **options)
    if prompts:
        from sftknow.kl.restored import add_divergences, divergence_lines

        folders = checkpoint_folders(options["out"], record["recipe"]["strategy"], record["recipe"]["top"])
        record = add_divergences(record, base, tuned, folders, prompts, device=kl_device)
    if as_json:
        click.echo(json.dumps(record, indent=1, ensure_ascii=False))
    else:
        click.echo(show(record))
        click.echo("\n" + divergence_lines(record["kl"]) if prompts else "", nl=bool(prompts))


def _prompts(facts: str | None, file: str | None, dry_run: bool) -> Any:
    """Read the prompts for the KL before anything is written; None where no KL is asked for."""
    if facts is None and file is None:
        return None
    if dry_run:
        raise ConfigError("--kl-facts and --kl-prompts need restored checkpoints; leave out --dry-run.")
    from sftknow.kl.restored import restoration_prompts

    return restoration_prompts(facts, file)


def main() -> NoReturn:
    """Run `sftknow-restore`."""
    run(restore_command, "sftknow-restore", interrupted="nothing was written")
