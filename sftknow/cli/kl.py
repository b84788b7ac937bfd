"""`sftknow kl`: base + tuned + mastery table -> divergence."""

from pathlib import Path
from typing import Any

import click

from sftknow.cli.common import CONTEXT, FOLDER, examples


@examples(
    "sftknow kl base/ tuned/ mastery/ --out kl.json",
    "sftknow kl meta-llama/Llama-2-7b-hf tuned/ mastery/ --device cuda --domain both --out kl.json",
    "sftknow kl base/ tuned/ mastery/ --direction js --support full --positions answer",
    "sftknow kl base/ tuned/ --prompts texts.jsonl",
)
@click.command(context_settings=CONTEXT)
@click.argument("base")
@click.argument("tuned")
@click.argument("table", type=FOLDER, required=False)
@click.option("--prompts", help="Other prompts to compare on: a JSONL file with `prompt` fields, or a dataset.")
@click.option("--out", type=FOLDER, help="Write the record, with the divergence of every fact, to this file.")
@click.option("--bucket", default=4, help="Mastery bucket of the facts compared on.")
@click.option("--domain", type=click.Choice(["in_domain", "out_of_domain", "both"]), default="in_domain")
@click.option("-k", default=10, help="Tokens kept: the highest logits of the tuned model.")
@click.option(
    "--direction",
    type=click.Choice(["tuned-base", "base-tuned", "js"]),
    default="tuned-base",
    help="KL(tuned || base), KL(base || tuned), or Jensen-Shannon.",
)
@click.option("--support", type=click.Choice(["top", "full"]), default="top", help="The k tokens, or all of them.")
@click.option(
    "--positions",
    type=click.Choice(["first", "answer"]),
    default="first",
    help="The first predicted token, or the mean over every token of the gold answer.",
)
@click.option("--moved", default=10, help="Describe this many of the facts that moved most.")
@click.option("--seed", default=0, help="Seed of the bootstrap intervals.")
@click.option("--batch-size", default=64, help="Prompts per forward pass.")
@click.option("--device", default="cpu", help="Torch device, such as cpu or cuda.")
@click.option("--dtype", type=click.Choice(["auto", "float32", "bfloat16", "float16"]), default="auto")
@click.option("--overwrite", is_flag=True, help="Replace an existing OUT file.")
def command(
    base: str, tuned: str, table: Path | None, prompts: str | None, out: Path | None, overwrite: bool, **options: Any
) -> None:
    """How far fine-tuning moved the predictions of TUNED from BASE, on facts the base had mastered.

    The paper's measure is the default: for each test fact of bucket 4 of the mastery TABLE, in the completion template
    that works best for its relation, the ten highest logits of TUNED at the first predicted token, softmaxed over
    those ten on both sides, and KL(tuned || base) averaged over facts.

    With --out an interrupted comparison goes on where it stopped.
    """
    from sftknow.kl.divergence import divergence
    from sftknow.kl.prompt_file import read_prompts
    from sftknow.kl.record import check_output_file, describe, write_divergence

    if out is not None:
        check_output_file(out, overwrite=overwrite)
    texts = read_prompts(prompts) if prompts else None
    work = out.absolute().with_name(f".{out.name}.work") if out else None
    result = divergence(base, tuned, table, prompts=texts, work=work, **options)
    if out is not None:
        write_divergence(out, result, made_from=_made_from(base, tuned, table, prompts), seed=options["seed"])
    click.echo(describe(result))
    if out is not None:
        click.echo(f"wrote {out}")


def _made_from(base: str, tuned: str, table: Path | None, prompts: str | None) -> dict[str, Any]:
    from sftknow.mastery.table import RECORD_FILE
    from sftknow.models import resolve_model
    from sftknow.records import file_identity

    models = {"base": resolve_model(base)[1], "tuned": resolve_model(tuned)[1]}
    if table is not None:
        return models | {"mastery": file_identity(table / RECORD_FILE)}
    path = Path(prompts or "")
    return models | {"prompts": file_identity(path) if path.is_file() else {"dataset": prompts}}
