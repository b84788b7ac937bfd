"""`sftknow probe`: base model + facts -> mastery table."""

from pathlib import Path

import click

from sftknow.cli.common import CONTEXT, FOLDER, examples
from sftknow.errors import ConfigError

JOURNAL_SUFFIX = ".journal.jsonl"


@examples(
    "sftknow probe --model hf --model_args pretrained=base/ --facts entity_questions/dataset.zip --out mastery",
    "sftknow probe --model_args pretrained=org/name --facts my.jsonl --relations my.yaml --out mastery",
)
@click.command(context_settings=CONTEXT)
@click.option("--model", default="hf", help="Model backend, as lm-eval names them.")
@click.option("--model_args", "--model-args", "model_args", required=True, help="NAME=VALUE,... as for lm-eval.")
@click.option("--facts", "source", required=True, help="EntityQuestions zip or folder, or a JSONL file of facts.")
@click.option("--relations", type=FOLDER, help="Relations file; by default the 24 of EntityQuestions.")
@click.option("--only", multiple=True, metavar="RELATION", help="Probe these relations only.")
@click.option("--split", type=click.Choice(["train", "dev", "test"]), multiple=True, help="Probe these splits only.")
@click.option("--per-relation", type=click.IntRange(1), help="At most so many facts of a relation and split.")
@click.option("--out", type=FOLDER, required=True, help="The table's folder; appears whole or not at all.")
@click.option("--overwrite", is_flag=True, help="Replace an existing table.")
@click.option("--samples", default=10, help="Completions drawn for each template.")
@click.option("--templates", type=int, help="Use the first so many templates of a relation; by default all.")
@click.option("--temperature", default=0.7, help="Of the sampling.")
@click.option("--max-new-tokens", default=32, help="Tokens of a completion at most.")
@click.option("--match", type=click.Choice(["words", "substring"]), default="words", help="How answers are found.")
@click.option("--stop-newline", is_flag=True, help="End a completion at its first newline.")
@click.option("--seed", default=0, help="Of the sampling.")
@click.option("--device", help="Torch device; by default a GPU if there is one.")
@click.option("--batch-size", default=1024, help="Rows of a forward pass at most.")
@click.option("--workers", default=1, help="Processes to probe with on a CPU, one thread each.")
def command(
    model: str,
    model_args: str,
    source: str,
    relations: Path | None,
    only: tuple[str, ...],
    split: tuple[str, ...],
    per_relation: int | None,
    out: Path,
    overwrite: bool,
    **options: object,
) -> None:
    """Measure how well a base model knows each fact: 21 completion templates x 10 samples, as the paper does.

    Interrupted, the same command goes on where it stopped.
    """
    from sftknow.facts.load import load_facts
    from sftknow.facts.relations import load_relations
    from sftknow.mastery.histogram import histogram_lines
    from sftknow.mastery.pick import pick_facts
    from sftknow.mastery.probe import probe
    from sftknow.records import check_output_folder

    check_output_folder(out, overwrite=overwrite)
    known = load_relations(relations)
    facts = pick_facts(load_facts(source, relations=known, only=only or None).facts, split, per_relation)
    journal = out.with_name(out.name + JOURNAL_SUFFIX)
    table = probe(pretrained(model, model_args), facts, known, journal=journal, **options)  # type: ignore[arg-type]
    table.write(out, overwrite=overwrite)
    journal.unlink(missing_ok=True)
    for line in histogram_lines(table):
        click.echo(line)
    click.echo(f"wrote {out}")


def pretrained(model: str, model_args: str) -> str:
    """Return the model that ``--model hf --model_args pretrained=...`` names."""
    pairs = dict(pair.partition("=")[::2] for pair in model_args.split(",") if pair)
    if model != "hf" or set(pairs) != {"pretrained"}:
        raise ConfigError("--model hf --model_args pretrained=FOLDER is what can be probed.")
    return pairs["pretrained"]
