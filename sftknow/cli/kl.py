"""`sftknow kl`: base + tuned + mastery table -> divergence."""

from pathlib import Path
from typing import Any

import click

from sftknow.cli.common import CONTEXT, FOLDER, examples


@examples(
    "sftknow kl base/ tuned/ mastery/ --out kl.json",
    "sftknow kl meta-llama/Llama-2-7b-hf tuned/ mastery/ --device cuda --domain both --out kl.json",
)
@click.command(context_settings=CONTEXT)
@click.argument("base")
@click.argument("tuned")
@click.argument("table", type=FOLDER)
@click.option("--out", type=FOLDER, help="Write the record, with the divergence of every fact, to this file.")
@click.option("-k", default=10, help="Tokens kept: the highest logits of the tuned model.")
@click.option("--bucket", default=4, help="Mastery bucket of the facts compared on.")
@click.option("--domain", type=click.Choice(["in_domain", "out_of_domain", "both"]), default="in_domain")
@click.option("--seed", default=0, help="Seed of the bootstrap intervals.")
@click.option("--batch-size", default=64, help="Prompts per forward pass.")
@click.option("--device", default="cpu", help="Torch device, such as cpu or cuda.")
@click.option("--dtype", type=click.Choice(["auto", "float32", "bfloat16", "float16"]), default="auto")
@click.option("--overwrite", is_flag=True, help="Replace an existing OUT file.")
def command(base: str, tuned: str, table: Path, out: Path | None, overwrite: bool, **options: Any) -> None:
    """How far fine-tuning moved the predictions of TUNED from BASE, on facts the base had mastered.

    The paper's measure: for each test fact of bucket 4 of the mastery TABLE, in the completion template that works
    best for its relation, the ten highest logits of TUNED at the first predicted token, softmaxed over those ten on
    both sides, and KL(tuned || base) averaged over facts.
    """
    from sftknow.kl.divergence import divergence
    from sftknow.kl.record import check_output_file, describe, write_divergence
    from sftknow.mastery.table import RECORD_FILE
    from sftknow.models import resolve_model
    from sftknow.records import file_identity

    if out is not None:
        check_output_file(out, overwrite=overwrite)
    result = divergence(base, tuned, table, **options)
    if out is not None:
        made_from = {
            "base": resolve_model(base)[1],
            "tuned": resolve_model(tuned)[1],
            "mastery": file_identity(table / RECORD_FILE),
        }
        write_divergence(out, result, made_from=made_from, seed=options["seed"])
    click.echo(describe(result))
    if out is not None:
        click.echo(f"wrote {out}")
