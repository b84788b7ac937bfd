"""The words around the numbers: headline, what was run, settings and provenance, as plain strings."""

from collections.abc import Mapping, Sequence
from typing import Any

from sftknow.report.results import Results
from sftknow.report.run_parts import mean_accuracy
from sftknow.report.statistics import spread
from sftknow.report.sweep_parts import PERCENT
from sftknow.report.verdicts import FAILS, HOLDS, OPEN, Finding, percent

INVENTED = "invented world"
BEYOND_PAPER = "largest-first"
WORDS = ("none", "one", "two", "three", "four", "five")
LABELS: Mapping[str, str] = {
    "facts": "Facts",
    "buckets": "Training buckets",
    "sizes": "Training samples",
    "percents": "Percents restored",
    "learning_rate": "Learning rate",
    "test_facts_per_bucket": "Test facts per bucket, at most",
    "layers": "Layers",
    "vocabulary": "Vocabulary",
    "trained_tokens": "Tokens pretrained on",
    "tokens": "Tokens pretrained on",
    "hidden": "Hidden size",
    "seconds": "Seconds to pretrain",
    "retries": "Pretraining retries",
    "templates": "Completion templates per relation",
    "samples": "Samples per template",
    "max_new_tokens": "New tokens, at most",
    "kl": "KL",
}

Pairs = tuple[tuple[str, str], ...]


def headline(results: Results, judged: Sequence[Finding]) -> str:
    """Say in two sentences what happened and how many of the paper's findings hold."""
    return " ".join(sentence for sentence in (_story(results), tally(judged)) if sentence)


def tally(judged: Sequence[Finding]) -> str:
    """Count the verdicts on the paper's own findings."""
    verdicts = [finding.verdict for finding in judged if finding.key != BEYOND_PAPER]
    holds, fails, still_open = (verdicts.count(verdict) for verdict in (HOLDS, FAILS, OPEN))
    if still_open == len(verdicts):
        return f"Whether the paper's {WORDS[len(verdicts)]} findings hold cannot be told from these results."
    parts = [f"{WORDS[holds]} {'hold' if holds != 1 else 'holds'}"]
    parts += [f"{WORDS[fails]} {'do' if fails != 1 else 'does'} not"] if fails else []
    parts += [f"{WORDS[still_open]} cannot be told"] if still_open else []
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"Of the paper's {WORDS[len(verdicts)]} findings, {listed} in these results."


def about(results: Results) -> tuple[str, ...]:
    """Say what was run and what such a run is not, a paragraph each."""
    facts = results.settings.get("facts", INVENTED)
    world = "a world of invented facts" if facts == INVENTED else f"facts from {facts}"
    size = results.model.get("parameters")
    model = f"a language model of {_compact(size)} parameters" if isinstance(size, int) else "a small language model"
    paragraphs = [
        f"The whole method on an embedded laboratory: {model}, pretrained on {world} that it met more or less often, "
        "is asked what it knows; fine-tuned on facts it knows badly and on facts it knows well; measured for how far "
        "it drifted from its base; and given back, step by step, the parameters that fine-tuning changed most.",
        "What the laboratory is not: evidence about large language models. It is a model small enough to train in "
        "minutes, tuned at a higher learning rate on fewer facts than the paper's. Its accuracies mean nothing "
        "elsewhere, and an effect that shows or does not show here may do otherwise at scale. It shows that the method "
        "and this tool work, and how each claim is tested.",
    ]
    if results.settings.get("quick"):
        paragraphs.append("This was a quick run, made to try the tool out: its effects are mostly noise.")
    return tuple(paragraphs)


def not_yet(results: Results) -> tuple[str, ...]:
    """Name the steps whose results are not there yet."""
    steps = (
        ("mastery of the base model", results.histogram),
        ("scores of the base model", results.base),
        ("fine-tunings", [run for run in results.runs if run.score is not None]),
        ("KL", [run for run in results.runs if run.kl is not None]),
        ("concentration of change", results.concentration),
        ("restoration sweeps", results.sweeps),
    )
    missing = [name for name, found in steps if not found]
    planned = [
        f"bucket {bucket} with {n:,} samples"
        for bucket in _numbers(results.settings.get("buckets"))
        for n in _numbers(results.settings.get("sizes"))
        if results.runs and not results.cell(bucket, n)
    ]
    return (*missing, *planned)


def settings(results: Results) -> tuple[tuple[str, Pairs], ...]:
    """Return the settings in groups of (label, value)."""
    groups = (("Run", results.settings), ("Base model", results.model), ("Probing", results.protocol))
    return tuple(group for title, values in groups for group in _groups(title, values))


def provenance(results: Results) -> tuple[tuple[str, Pairs], ...]:
    """Return versions, times and inputs in groups of (label, value)."""
    total = sum(results.seconds.values())
    times = {**results.seconds, **({"all steps": total} if results.seconds else {})}
    inputs = {
        name: ", ".join(f"{key} {value}" for key, value in identity.items() if value is not None)
        for name, identity in results.made_from.items()
    }
    groups = (
        ("Versions", tuple(results.versions.items())),
        ("Time, seconds", tuple((name, f"{seconds:,.1f}") for name, seconds in times.items())),
        ("Made from", tuple(inputs.items())),
        ("Seeds", (("seeds", _value(results.seeds)),) if results.seeds else ()),
        ("Restored checkpoint", _restored(results.restored)),
    )
    return tuple((title, pairs) for title, pairs in groups if pairs)


def _restored(restored: Mapping[str, Any]) -> Pairs:
    """Say where a restored checkpoint lies, and whether scoring it from disk gave what the sweep gave in memory."""
    names = {
        "folder": "Folder",
        "from": "Made from",
        "percent": "Percent restored",
        "as_in_memory": "Scores from disk equal those in memory",
    }
    return tuple((label, _value(restored[name])) for name, label in names.items() if name in restored)


def _story(results: Results) -> str:
    if len(results.buckets) < 2 or not results.sizes:
        return ""
    low, high, n = results.buckets[0], results.buckets[-1], results.sizes[-1]
    if not results.cell(low, n) or not results.cell(high, n):
        return ""
    after_low, after_high = (percent(mean_accuracy(results.cell(bucket, n), "in_domain")) for bucket in (low, high))
    known = {0: "it did not know", 4: "it had mastered"}
    text = (
        f"Fine-tuned on {n:,} facts {known.get(low, f'of bucket {low}')}, the model answers {after_low} of test "
        f"questions; on {n:,} facts {known.get(high, f'of bucket {high}')}, {after_high}"
    )
    pairs = [(sweep.at(0.0), sweep.at(PERCENT)) for sweep in results.sweeps_of(low, "top")]
    there = [(whole.score, restored.score) for whole, restored in pairs if whole is not None and restored is not None]
    if not there:
        return f"{text}."
    before, after = (spread(score.in_domain.accuracy for score in scores).mean for scores in zip(*there, strict=True))
    verb = "takes" if after < before else "brings"
    moved = f"{verb} the first from {percent(before)} to {percent(after)}"
    return f"{text}. Undoing the {PERCENT:g}% largest relative updates {moved}."


def _groups(title: str, values: Mapping[str, Any]) -> list[tuple[str, Pairs]]:
    """Return plain values as one group, and each mapping among them as a group of its own."""
    plain = {key: value for key, value in values.items() if not isinstance(value, Mapping)}
    nested = [
        (f"{title}: {key.replace('_', ' ')}", value) for key, value in values.items() if isinstance(value, Mapping)
    ]
    return [(name, _pairs(group)) for name, group in ((title, plain), *nested) if group]


def _pairs(values: Mapping[str, Any]) -> Pairs:
    return tuple((_label(key), _value(value)) for key, value in values.items())


def _label(key: str) -> str:
    return LABELS.get(key, key.replace("_", " ").capitalize())


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 100 else f"{value:g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_value(item)}" for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_value(item) for item in value)
    return "none" if value is None else str(value)


def _numbers(value: Any) -> list[int]:
    return [item for item in value if isinstance(item, int)] if isinstance(value, Sequence) else []


def _compact(number: int) -> str:
    for size, name in ((10**9, "billion"), (10**6, "million")):
        if number >= size:
            return f"{number / size:.3g} {name}"
    return f"{number:,}"
