"""Everything that fixes one fine-tuning run besides the base model and the mastery table."""

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from sftknow.errors import ConfigError
from sftknow.tuning.lora import Lora

Precision = Literal["float32", "bf16", "bf16-mixed"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True)
class Recipe:
    """The options of a run.

    Attributes:
        buckets: mastery buckets of the training facts.
        n: number of facts, or ``all``.
        seed: fixes both the draw of facts and the order of training.
        learning_rate: peak learning rate.
        batch_size: facts per update, over all processes.
        micro_batch: facts per process and forward pass; the rest of a batch is accumulated.
        epochs: passes over the facts.
        precision: ``float32``, ``bf16`` (weights and updates in bf16), ``bf16-mixed`` (float32 weights, bf16
            arithmetic); None trains in the dtype of the base. The checkpoint is stored in the base's dtype, except
            that ``bf16`` stores bf16.
        device: torch device, ``cpu`` or ``cuda``.
        settings: any other field of TRL's SFTConfig.
        allow_fewer: take what there is where the bucket has fewer than ``n`` facts.
        lora: train an adapter instead of all weights.
        kl_weight: weight of KL(tuned || base) on well-mastered facts, added to the loss.
        kl_facts: facts of that penalty, at most.
        drift_every: updates between two measurements of drift; None for none.
        drift_facts: facts it is measured on.
        drift_stop: stop when the drift's KL passes this many nats, and keep the last weights within.
        save_steps: updates between checkpoints to resume from; None for none.

    Raises:
        ConfigError: options that make no sense, all of them at once.
    """

    buckets: tuple[int, ...]
    n: int | Literal["all"]
    seed: int
    learning_rate: float = 1e-5
    batch_size: int = 8
    micro_batch: int | None = None
    epochs: float = 1
    precision: Precision | None = None
    device: str = "cpu"
    settings: Mapping[str, Any] = field(default_factory=dict)
    allow_fewer: bool = False
    lora: Lora | None = None
    kl_weight: float = 0.0
    kl_facts: int = 256
    drift_every: int | None = None
    drift_facts: int = 32
    drift_stop: float | None = None
    save_steps: int | None = None

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise ConfigError(f"this training cannot be carried out: {'; '.join(problems)}.")

    def _problems(self) -> Any:
        if self.precision is not None and self.precision not in PRECISIONS:
            yield f"precision {self.precision!r} is unknown, choose one of {', '.join(PRECISIONS)}"
        for name in ("learning_rate", "epochs"):
            if not getattr(self, name) > 0:
                yield f"{name} must be above 0, not {getattr(self, name)}"
        for name in ("drift_every", "drift_stop", "save_steps"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                yield f"{name} must be above 0, not {getattr(self, name)}"
        if self.kl_weight < 0:
            yield f"kl_weight must be 0 or more, not {self.kl_weight}"
        if self.drift_stop is not None and self.drift_every is None:
            yield "drift_stop needs drift_every, the number of updates between two measurements"
        if self.drift_stop and self.drift_every and (self.save_steps or 0) % self.drift_every:
            yield f"with drift_stop, save_steps must be a multiple of drift_every ({self.drift_every})"
        if self.kl_facts < 1 or self.drift_facts < 1:
            yield "kl_facts and drift_facts must be 1 or more"

    def to_record(self) -> dict[str, Any]:
        """Return the options as JSON fields."""
        return {**asdict(self), "buckets": list(self.buckets), "settings": dict(self.settings)}


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse names that are no option of a run, with the nearest right one.

    Raises:
        ConfigError: all wrong names at once.
    """
    known = {entry.name for entry in fields(Recipe)} - {"buckets", "n", "seed"}
    wrong = [name for name in options if name not in known]
    if wrong:
        near = [difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5) for name in wrong]
        texts = [
            name + (f" (did you mean {close[0]}?)" if close else "") for name, close in zip(wrong, near, strict=True)
        ]
        raise ConfigError(f"train() has no option {', '.join(texts)}; SFTConfig fields go into settings={{...}}.")
