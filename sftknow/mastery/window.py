"""A window: some facts with all their prompts, probed together; the unit of work, of the journal and of a process."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from sftknow.facts.fact import Fact
from sftknow.mastery.streams import stream_key


class Expander(Protocol):
    """Adds the other names of answers, as :mod:`sftknow.facts.aliases` does."""

    def expand(self, relation: str, answers: Sequence[str]) -> tuple[str, ...]:
        """Return the answers of a fact of one relation, and all their other names."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What fixes a probe's numbers, apart from the model and the facts.

    Attributes:
        estimator: ``sample``, ``likelihood`` or ``fewshot``.
        samples: completions drawn for each template.
        temperature: of the softmax; 0 is greedy.
        max_new_tokens: tokens of a completion at most.
        seed: of the sampling.
        match: ``words`` or ``substring``.
        top_k: draw from the k most probable tokens only; 0 for all.
        stop_newline: end a completion at its first newline.
        batch_size: rows of a forward pass at most.
        confidence: stop sampling a fact when its bucket is this certain; None for the full protocol.
        prior: (a, b) of the beta distribution of mastery over facts, once fitted.
    """

    estimator: str = "sample"
    samples: int = 10
    temperature: float = 0.7
    max_new_tokens: int = 32
    seed: int = 0
    match: str = "words"
    top_k: int = 0
    stop_newline: bool = False
    batch_size: int = 512
    confidence: float | None = None
    prior: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """One fact of a window.

    Attributes:
        prompts: one completion prompt a template.
        keys: the random streams of each prompt.
        answers: all names that count as right, aliases included.
    """

    prompts: tuple[str, ...]
    keys: tuple[int, ...]
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """Some facts, and how to probe them."""

    settings: Settings
    items: tuple[Item, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the window as JSON-serialisable values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Window":
        """Make a window from what :meth:`to_json` gave."""
        items = (Item(tuple(i["prompts"]), tuple(i["keys"]), tuple(i["answers"])) for i in value["items"])
        settings = Settings(**value["settings"])
        prior = (settings.prior[0], settings.prior[1]) if settings.prior else None
        return cls(replace(settings, prior=prior), tuple(items))


def make_item(fact: Fact, templates: Sequence[str], answers: Sequence[str], seed: int) -> Item:
    """Return a fact's prompts, each with its random streams keyed by seed, fact and template."""
    return Item(
        prompts=tuple(template.replace("{subject}", fact.subject) for template in templates),
        keys=tuple(stream_key(seed, f"{fact.id}\n{template}") for template in templates),
        answers=tuple(answers),
    )
