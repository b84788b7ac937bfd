"""The recipes of the laboratory: how large a world, how often each fact is told, how the model is trained.

Every constant here was fixed before any fine-tuning result was looked at, by mastery histograms alone; see
docs/laboratory.md.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

from sftknow.errors import ConfigError

RECIPE_VERSION = 3
IN_DOMAIN = ("P19", "P159", "P17", "P36", "P69", "P740")
OUT_OF_DOMAIN = ("P50", "P175", "P176", "P106")
# Of the relations of the paper, those with enough short answers that several facts share and no subject tells.
REAL_IN_DOMAIN = ("P19", "P20", "P69", "P159", "P740", "P17")
REAL_OUT_OF_DOMAIN = {"P136": 180, "P176": 180, "P264": 180, "P127": 130, "P170": 130}


@dataclass(frozen=True)
class Recipe:
    """Everything but the seed that fixes a laboratory.

    Attributes:
        size: name of the recipe.
        relations: relation -> number of probed facts.
        splits: weights of test, dev and train among the probed facts of an in-domain relation.
        exposures: (times a fact is told in pretraining, weight) pairs, split over the facts of each relation.
        warm_up: share of extra facts told first (percent of all probed facts) and how often each.
        filler: share of extra facts mixed in (percent of all probed facts) and how often each.
        question_percent: of the warm-up and filler exposures, the share put as question and answer.
        vocabulary: size of the byte-level BPE vocabulary.
        hidden, layers, heads, feed_forward: shape of the model.
        batch: rows a step.
        learning_rate: peak of the cosine schedule.
    """

    size: str
    relations: dict[str, int]
    splits: tuple[int, int, int]
    exposures: tuple[tuple[int, int], ...]
    warm_up: tuple[int, int]
    filler: tuple[int, int]
    question_percent: int
    vocabulary: int
    hidden: int
    layers: int
    heads: int
    feed_forward: int
    batch: int
    learning_rate: float

    def as_dict(self) -> dict[str, Any]:
        """Return the recipe as JSON-serialisable fields, with the version of the code that carries it out."""
        return {"version": RECIPE_VERSION, **asdict(self)}


_EXPOSURES = ((0, 14), (8, 6), (12, 10), (16, 18), (20, 20), (24, 12), (32, 6))
_REAL_EXPOSURES = ((0, 18), (8, 10), (12, 14), (16, 21), (20, 15), (24, 5), (32, 3))

SIZES = {
    "tiny": Recipe(
        size="tiny",
        relations={"P19": 60, "P159": 60, "P69": 60, "P50": 40, "P106": 40},
        splits=(40, 5, 55),
        exposures=((0, 12), (12, 14), (20, 16), (28, 15), (56, 14)),
        warm_up=(8, 40),
        filler=(15, 24),
        question_percent=40,
        vocabulary=1536,
        hidden=64,
        layers=2,
        heads=4,
        feed_forward=256,
        batch=8,
        learning_rate=5e-3,
    ),
    "demo": Recipe(
        size="demo",
        relations={**dict.fromkeys(IN_DOMAIN, 560), **dict.fromkeys(OUT_OF_DOMAIN, 200)},
        splits=(20, 4, 76),
        exposures=_EXPOSURES,
        warm_up=(5, 40),
        filler=(14, 20),
        question_percent=40,
        vocabulary=4096,
        hidden=128,
        layers=2,
        heads=4,
        feed_forward=512,
        batch=8,
        learning_rate=3e-3,
    ),
    "long": Recipe(
        size="long",
        relations={**dict.fromkeys(IN_DOMAIN, 2000), **dict.fromkeys(OUT_OF_DOMAIN, 600)},
        splits=(20, 4, 76),
        exposures=tuple((5 * times, weight) for times, weight in _EXPOSURES),
        warm_up=(5, 40),
        filler=(14, 20),
        question_percent=40,
        vocabulary=8192,
        hidden=192,
        layers=2,
        heads=6,
        feed_forward=768,
        batch=16,
        learning_rate=2e-3,
    ),
}


REAL_SIZES = {
    "tiny": replace(
        SIZES["tiny"],
        relations={"P19": 60, "P69": 60, "P159": 60, "P176": 40, "P264": 40},
    ),
    "demo": replace(
        SIZES["demo"],
        relations={**dict.fromkeys(REAL_IN_DOMAIN, 560), **REAL_OUT_OF_DOMAIN},
        exposures=_REAL_EXPOSURES,
    ),
    "long": replace(
        SIZES["long"],
        relations={**dict.fromkeys(REAL_IN_DOMAIN, 1400), **REAL_OUT_OF_DOMAIN},
        exposures=tuple((5 * times, weight) for times, weight in _REAL_EXPOSURES),
    ),
}


def recipe_for(size: str, *, real: bool = False) -> Recipe:
    """Return the recipe of a size, for the invented world or for real facts; ConfigError where there is none."""
    sizes = REAL_SIZES if real else SIZES
    if size not in sizes:
        raise ConfigError(f"size {size!r} of the laboratory is unknown; choose one of {', '.join(sizes)}.")
    return sizes[size]
