"""`sftknow probe`: base model + facts -> mastery table."""

from pathlib import Path
from typing import Any

import click

from sftknow.cli.common import CONTEXT, FOLDER, examples
from sftknow.errors import ConfigError

JOURNAL_SUFFIX = ".journal.jsonl"
HF_ARGS = ("pretrained", "dtype", "revision")


@examples(
    "sftknow probe --model hf --model_args pretrained=base/ --facts dataset.zip --out mastery",
    "sftknow probe --model_args pretrained=org/name --facts my.jsonl --relations my.yaml --adaptive --out mastery",
    "sftknow probe --model_args pretrained=base/ --facts dataset.zip --estimator likelihood --out mastery",
    "sftknow probe --model_args pretrained=base/ --facts trivia.jsonl --protocol fewshot --out mastery",
    "sftknow probe --model local-completions --facts dataset.zip --out mastery \\",
    "    --model_args model=NAME,base_url=http://localhost:8000/v1/completions,num_concurrent=16,tokenized_requests=False",
)
@click.command(context_settings=CONTEXT)
@click.option("--model", default="hf", help="Model backend, as lm-eval names them; hf is sampled by sftknow itself.")
@click.option("--model_args", "--model-args", "model_args", required=True, help="NAME=VALUE,... as for lm-eval.")
@click.option("--facts", "source", required=True, help="EntityQuestions zip or folder, or a JSONL file of facts.")
@click.option("--relations", type=FOLDER, help="Relations file; by default the 24 of EntityQuestions.")
@click.option("--aliases", type=FOLDER, help="A file of other names of answers, on top of the packaged ones.")
@click.option("--only", multiple=True, metavar="RELATION", help="Probe these relations only.")
@click.option("--split", type=click.Choice(["train", "dev", "test"]), multiple=True, help="Probe these splits only.")
@click.option("--per-relation", type=click.IntRange(1), help="At most so many facts of each relation and split.")
@click.option("--no-leak", is_flag=True, help="Leave out train facts whose subject or question stands in test.")
@click.option("--out", type=FOLDER, required=True, help="The table's folder; appears whole or not at all.")
@click.option("--overwrite", is_flag=True, help="Replace an existing table.")
@click.option(
    "--estimator",
    type=click.Choice(["sample", "likelihood"]),
    default="sample",
    help="sample: the paper's. likelihood: the probability that a completion begins with an answer, no sampling.",
)
@click.option(
    "--protocol",
    type=click.Choice(["templates", "fewshot"]),
    default="templates",
    help="templates: completion templates. fewshot: SliCK's 4-shot questions, for sets without templates.",
)
@click.option("--adaptive", is_flag=True, help="Stop sampling a fact when its bucket is settled.")
@click.option("--confidence", default=0.9, help="With --adaptive: how certain a bucket must be.")
@click.option("--samples", type=int, help="Completions per template (10) or few-shot prompt (16).")
@click.option("--templates", type=int, help="Use the first so many templates of a relation (all), or prompts (10).")
@click.option("--temperature", type=float, help="Of the sampling (0.7; 0.5 for fewshot).")
@click.option("--max-new-tokens", default=32, help="Tokens of a completion at most.")
@click.option("--match", type=click.Choice(["words", "substring"]), default="words", help="How answers are found.")
@click.option("--stop-newline", is_flag=True, help="End a completion at its first newline.")
@click.option("--seed", default=0, help="Of the sampling.")
@click.option("--device", help="Torch device; by default a GPU if there is one.")
@click.option("--batch-size", type=int, help="Rows of a forward pass at most, or the backend's batch size.")
@click.option(
    "--workers",
    type=int,
    help="Processes to probe with on a CPU, one thread each; by default one a core for models below 500 MB.",
)
def command(source: str, out: Path, overwrite: bool, **options: Any) -> None:
    """Measure how well a base model knows each fact: 21 completion templates x 10 samples, as the paper does.

    Interrupted, the same command goes on where it stopped: what is done stands in OUT.journal.jsonl until the table is
    written.
    """
    from sftknow.facts.aliases import load_aliases
    from sftknow.facts.load import load_facts
    from sftknow.facts.relations import load_relations
    from sftknow.mastery.histogram import best_template_lines, cost_lines, histogram_lines
    from sftknow.mastery.pick import pick_facts
    from sftknow.mastery.probe import probe
    from sftknow.records import check_output_folder

    check_output_folder(out, overwrite=overwrite)
    few = options.pop("protocol") == "fewshot"
    if few and options["estimator"] != "sample":
        raise ConfigError("--protocol fewshot samples answers; leave --estimator out.")
    relations = load_relations(options.pop("relations"))
    loaded = load_facts(
        source,
        relations=relations,
        only=options.pop("only") or None,
        no_leak=options.pop("no_leak"),
        any_relation=few,
    )
    facts = pick_facts(loaded.facts, options.pop("split"), options.pop("per_relation"))
    journal = out.with_name(out.name + JOURNAL_SUFFIX)
    adaptive, confidence = options.pop("adaptive"), options.pop("confidence")
    table = probe(
        model_reference(options),
        facts,
        relations,
        estimator="fewshot" if few else options.pop("estimator"),
        aliases=load_aliases(options.pop("aliases")),
        confidence=confidence if adaptive else None,
        journal=journal,
        **{name: value for name, value in options.items() if name != "estimator"},
    )
    table.write(out, overwrite=overwrite)
    journal.unlink(missing_ok=True)
    for line in (*histogram_lines(table), *cost_lines(table), "best template of each relation:"):
        click.echo(line)
    for line in best_template_lines(table):
        click.echo(line)
    click.echo(f"wrote {out}")


def model_reference(options: dict[str, Any]) -> Any:
    """Return what ``--model`` and ``--model_args`` name, and take them and what the backend sees to out of options."""
    from sftknow.mastery.backend import LmEvalModel

    name, text = options.pop("model"), options.pop("model_args")
    if name != "hf":
        size, device = options.pop("batch_size"), options.pop("device")
        return LmEvalModel(name, text, batch_size=str(size or 1), device=device)
    pairs = dict(pair.partition("=")[::2] for pair in text.split(",") if pair)
    if not pairs.get("pretrained"):
        raise ConfigError(f"--model_args {text!r} names no model; give pretrained=FOLDER or pretrained=org/name.")
    unknown = sorted(set(pairs) - set(HF_ARGS))
    if unknown:
        raise ConfigError(
            f"--model hf takes {', '.join(HF_ARGS)} in --model_args, not {', '.join(unknown)}; "
            "--model hf-auto goes through lm-eval, with all it takes."
        )
    options["dtype"] = pairs.get("dtype")
    revision = pairs.get("revision")
    return f"{pairs['pretrained']}@{revision}" if revision else pairs["pretrained"]
