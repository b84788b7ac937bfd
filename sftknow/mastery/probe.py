"""Probing: base model + facts -> mastery table."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from sftknow.errors import ConfigError
from sftknow.facts.fact import Fact
from sftknow.facts.relations import Relation
from sftknow.mastery import fewshot
from sftknow.mastery.backend import LmEvalModel
from sftknow.mastery.plan import check_settings, make_plan, packaged_aliases
from sftknow.mastery.results import make_table, run_plan
from sftknow.mastery.source import Source, open_source
from sftknow.mastery.table import MasteryTable
from sftknow.mastery.window import Expander, Settings


def probe(
    model_ref: str | Path | LmEvalModel,
    facts: Sequence[Fact],
    relations: Mapping[str, Relation],
    *,
    estimator: str = "sample",
    samples: int | None = None,
    templates: int | None = None,
    temperature: float | None = None,
    max_new_tokens: int = 32,
    seed: int = 0,
    confidence: float | None = None,
    match: str = "words",
    aliases: Expander | None = None,
    stop_newline: bool = False,
    device: str | None = None,
    dtype: str | None = None,
    batch_size: int | None = None,
    workers: int | None = 1,
    journal: Path | None = None,
) -> MasteryTable:
    """Measure how well a base model knows each fact.

    The numbers depend on the model, the facts and the options, not on how often the probe was interrupted: a journal
    that is gone on with ends in the same table, and so does any number of workers above one. Another batch size,
    number of threads or device changes the last bits of the model's arithmetic, and so a sample in 10,000 or fewer.

    Args:
        model_ref: a model folder or a Hub id ``org/name@revision``, or a model of another backend of lm-eval.
        facts: the facts to probe, each id once.
        relations: relation id -> relation with its completion templates.
        estimator: ``sample``, the paper's; ``likelihood``, the probability that a completion begins with an answer;
            ``fewshot``, SliCK's protocol, which needs no templates.
        samples: completions drawn for each template (10) or few-shot prompt (16).
        templates: use only the first so many templates of each relation, or so many few-shot prompts; by default all
            (21 in the paper), or 10.
        temperature: of the sampling, 0.7 by default and 0.5 for few-shot prompts; 0 is greedy.
        max_new_tokens: tokens of a completion at most.
        seed: of the sampling, of the exemplars, and of the facts that the prior is fitted on.
        confidence: stop sampling a fact when its bucket is this certain, such as 0.9; None draws every sample.
        match: ``words``, or ``substring`` for the paper's rule.
        aliases: equivalent names of answers; by default the packaged ones.
        stop_newline: end a completion at its first newline; always so for few-shot prompts.
        device: a torch device; by default a GPU if there is one.
        dtype: of the weights; by default float32 on a CPU and the checkpoint's own elsewhere.
        batch_size: rows of a forward pass at most; by default what fits the model.
        workers: processes to probe with on a CPU, one thread each; None for one a core where the model is small.
        journal: a file to append finished windows to, and to go on from.

    Returns:
        The mastery table, rows in the order of the facts.

    Raises:
        DataError: no facts, a fact given twice, a fact whose relation has no templates, or a backend that failed.
        ConfigError: an option that cannot be carried out, or a journal begun with other options.
        CheckpointError: the model cannot be loaded.

    Source: the paper's section on knowledge mastery.
    """
    few = estimator == "fewshot"
    source = open_source(model_ref, device=device, dtype=dtype, batch_size=batch_size, workers=workers)
    settings = Settings(
        estimator=estimator,
        samples=samples or (fewshot.SAMPLES if few else 10),
        temperature=temperature if temperature is not None else (fewshot.TEMPERATURE if few else 0.7),
        max_new_tokens=max_new_tokens,
        seed=seed,
        match=match,
        top_k=fewshot.TOP_K if few else 0,
        stop_newline=stop_newline or few,
        batch_size=source.batch_size,
        confidence=confidence,
    )
    check_settings(settings)
    _check_source(settings, source)
    plan = make_plan(facts, relations, settings, templates, aliases or packaged_aliases(), source.window_facts)
    return make_table(plan, run_plan(plan, source, journal), source)


def _check_source(settings: Settings, source: Source) -> None:
    if settings.estimator == "likelihood" and not source.local:
        raise ConfigError("the likelihood estimator needs a local model: use --model hf.")
