"""Which divergence: its direction, the tokens it is taken over, and the positions it is taken at, each by name."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sftknow.errors import ConfigError
from sftknow.kl.arrays import jensen_shannon, kl_rows
from sftknow.kl.prompts import Positions

Direction = Literal["tuned-base", "base-tuned", "js"]
Support = Literal["top", "full"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
SUPPORTS: tuple[Support, ...] = get_args(Support)
POSITIONS: tuple[Positions, ...] = get_args(Positions)
_NAMES = {
    "tuned-base": "KL(tuned || base)",
    "base-tuned": "KL(base || tuned)",
    "js": "Jensen-Shannon(tuned, base)",
}


@dataclass(frozen=True, slots=True)
class Measure:
    """A divergence; the defaults are the paper's.

    Attributes:
        direction: ``tuned-base`` for KL(tuned || base), ``base-tuned`` for its reverse, ``js`` for Jensen-Shannon.
        support: ``top`` for the k highest logits of the leading model (the tuned one; the base for ``base-tuned``, so
            that swapping the models is the same as reversing), softmaxed over those alone; ``full`` for the whole
            vocabulary.
        positions: ``first`` for the first predicted token, ``answer`` for the mean over every token of the answer.
        k: tokens of the support ``top``.
    """

    direction: Direction = "tuned-base"
    support: Support = "top"
    positions: Positions = "first"
    k: int = 10

    def __post_init__(self) -> None:
        for name, known in (("direction", DIRECTIONS), ("support", SUPPORTS), ("positions", POSITIONS)):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} {getattr(self, name)!r} is unknown; choose one of {', '.join(known)}.")
        if self.k < 1:
            raise ConfigError(f"k {self.k} is not a number of tokens; give 1 or more.")

    @property
    def base_leads(self) -> bool:
        """Whether the base model is the first of the two distributions."""
        return self.direction == "base-tuned"

    def rows(self, lead: ArrayLike, follow: ArrayLike) -> NDArray[np.float64]:
        """Return the divergence of each row from both models' logits on the support, shape ``(rows, tokens)``."""
        return jensen_shannon(lead, follow) if self.direction == "js" else kl_rows(lead, follow)

    def in_words(self) -> dict[str, Any]:
        """Return direction, support, positions and unit as a record names them."""
        leader = "base" if self.base_leads else "tuned"
        return {
            "direction": _NAMES[self.direction],
            "support": f"top {self.k} of {leader}" if self.support == "top" else "full vocabulary",
            "positions": "first token" if self.positions == "first" else "mean over answer tokens",
            "unit": "nats",
        }
