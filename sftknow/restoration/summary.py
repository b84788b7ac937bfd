"""The record of a restoration: what moved, what is undone, and where (the paper's Tables 3, 9 and 10)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sftknow.restoration.apply import Undone
from sftknow.restoration.pairs import Pair
from sftknow.restoration.recipe import Recipe, percent_name
from sftknow.restoration.survey import Survey


def summarise(
    pairs: Sequence[Pair], found: Survey, undone: Undone, recipe: Recipe, notes: Sequence[str]
) -> dict[str, Any]:
    """Return the body of ``restoration.json``.

    Args:
        pairs: the tensors of the region.
        found: what the first reading found.
        undone: what the second restored.
        recipe: what was asked for.
        notes: sentences about the inputs.
    """
    fractions = [_fraction(number, pairs, found, undone, recipe) for number in range(len(recipe.percents))]
    whole = [percent_name(one["percent"]) for one in fractions if one["everything_undone"] and one["percent"] < 100]
    notes = list(notes)
    if whole:
        notes.append(
            f"{100 * found.changed / found.considered:.4g}% of the region changed at all, so {recipe.strategy} "
            f"{', '.join(whole)}% undoes every update in it."
        )
    return {
        "recipe": recipe.as_record(),
        "considered": found.considered,
        "changed": found.changed,
        "changed_percent": 100 * found.changed / found.considered,
        "change": {
            "absolute": _finite(sum(part.absolute for part in found.moved)),
            "relative": _finite(sum(part.relative for part in found.moved)),
        },
        "concentration": {
            "measure": recipe.rank_by,
            "of": recipe.of,
            "share": {percent_name(percent): share for percent, share in found.concentration.items()},
        },
        "fractions": fractions,
        "tensors": _tensors(pairs, found, undone, recipe),
        "notes": notes,
    }


def only_fraction(body: dict[str, Any], percent: float) -> dict[str, Any]:
    """Return the record of one of several fractions, as it goes into that checkpoint's folder."""
    key = percent_name(percent)
    tensors = {name: {**entry, "restored": {key: entry["restored"][key]}} for name, entry in body["tensors"].items()}
    fractions = [one for one in body["fractions"] if one["percent"] == percent]
    return {**body, "recipe": {**body["recipe"], "top": [percent]}, "fractions": fractions, "tensors": tensors}


def _fraction(number: int, pairs: Sequence[Pair], found: Survey, undone: Undone, recipe: Recipe) -> dict[str, Any]:
    threshold, restored = found.thresholds[number], undone.restored[:, number]
    ranked = recipe.strategy != "random"
    absolute, relative = undone.absolute[:, number], undone.relative[:, number]
    return {
        "percent": recipe.percents[number],
        "restored": int(restored.sum()),
        "threshold": _finite(threshold.value) if ranked else None,
        "ties": {"size": threshold.tied, "taken": threshold.taken} if ranked and threshold.bits is not None else None,
        "share_of_change_undone": _share(absolute.sum(), sum(part.absolute for part in found.moved)),
        "share_of_relative_change_undone": _share(relative.sum(), sum(part.relative for part in found.moved)),
        "everything_undone": _undoes_all(found, number, recipe),
        "layers": _grouped([pair.place.block for pair in pairs], pairs, restored),
        "modules": _grouped([pair.place.module for pair in pairs], pairs, restored),
    }


def _undoes_all(found: Survey, number: int, recipe: Recipe) -> bool:
    target = found.thresholds[number].target
    if recipe.strategy == "top" or recipe.only_changed:
        return target >= found.changed
    return target >= found.considered


def _grouped(keys: Sequence[Any], pairs: Sequence[Pair], restored: Any) -> dict[str, dict[str, Any]]:
    """Return for each layer or module how much was restored, its share of all that was, and the share of itself."""
    order = sorted({key for key in keys if key is not None})
    whole = int(restored.sum())
    groups = {}
    for key in order:
        mine = [number for number, own in enumerate(keys) if own == key]
        count, size = int(restored[mine].sum()), sum(pairs[number].size for number in mine)
        groups[str(key)] = {
            "considered": size,
            "restored": count,
            "share_of_restored": _share(count, whole),
            "share_of_own": count / size if size else 0.0,
        }
    return groups


def _tensors(pairs: Sequence[Pair], found: Survey, undone: Undone, recipe: Recipe) -> dict[str, dict[str, Any]]:
    names = [percent_name(percent) for percent in recipe.percents]
    return {
        pair.name: {
            "considered": pair.size,
            "changed": part.changed,
            "mean_absolute_change": _finite(part.absolute / max(pair.size, 1)),
            "mean_relative_change": _finite(part.relative / max(pair.size, 1)),
            "restored": dict(zip(names, map(int, undone.restored[number]), strict=True)),
        }
        for number, (pair, part) in enumerate(zip(pairs, found.moved, strict=True))
    }


def _share(part: float, whole: float) -> float | None:
    if not np.isfinite(part) or not np.isfinite(whole):
        return None
    return float(min(1.0, max(0.0, part / whole))) if whole else 0.0


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and np.isfinite(value) else None
