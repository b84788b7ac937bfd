"""What the demo does: fixed before any result is seen, and recorded with the results."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sftknow.errors import DataError
from sftknow.mastery.table import MasteryTable

LARGE = 480


@dataclass(frozen=True)
class DemoSettings:
    """The choices of one demo.

    Attributes:
        size: size of the laboratory model, see :mod:`sftknow.lab.sizes`.
        facts: archive of real facts, or None for the invented world.
        lab_seed: seed of world and pretraining.
        buckets: source buckets of the fine-tunings, low first.
        small: number of training facts of the small fine-tunings.
        seeds: seeds of selection and training; results are means over them.
        percents: percents restored in the sweep.
        learning_rate: of the fine-tunings; the laboratory's, far above the paper's 1e-5 for its thousandfold size.
        test_facts_per_bucket: at most this many test facts in each bucket of each domain.
        sampling_seed: seed of the probe and of the choice of test facts.
        restored_percent: percent of the restored checkpoint that the demo leaves on disk.
    """

    size: Literal["tiny", "demo"] = "demo"
    facts: Path | None = None
    lab_seed: int = 0
    buckets: tuple[int, int] = (0, 4)
    small: int = 60
    seeds: tuple[int, ...] = (1, 2)
    percents: tuple[float, ...] = (1, 3, 5, 10, 20, 40, 60)
    learning_rate: float = 5e-4
    test_facts_per_bucket: int = 60
    sampling_seed: int = 0
    restored_percent: float = 20

    @classmethod
    def quick(cls, **changes: Any) -> "DemoSettings":
        """Return settings that walk the same path in under two minutes, on a model too small to show effects."""
        return cls(size="tiny", small=4, percents=(5, 20, 60), test_facts_per_bucket=20, **changes)

    def large(self, table: MasteryTable) -> int:
        """Return the large number of training facts: 480, or what the scarcer of the two buckets has, if that is less.

        Raises:
            DataError: a bucket has too few training facts for the large number to exceed the small one.
        """
        counts = table.histogram(split="train", domain="in_domain")
        most = min(LARGE, *(counts[bucket] for bucket in self.buckets))
        large = most - most % (4 if self.size == "tiny" else 20)
        if large <= self.small:
            scarce = min(self.buckets, key=lambda bucket: counts[bucket])
            raise DataError(
                f"bucket {scarce} has only {counts[scarce]} training facts, the demo needs more than {self.small}; "
                "give another --seed for the laboratory."
            )
        return large

    def record(self, table: MasteryTable) -> dict[str, Any]:
        """Return the settings as the report reads them."""
        return {
            "quick": self.size == "tiny",
            "facts": str(self.facts) if self.facts else "invented world",
            "buckets": list(self.buckets),
            "sizes": [self.small, self.large(table)],
            "seeds": list(self.seeds),
            "percents": [0, *self.percents],
            "learning_rate": self.learning_rate,
            "test_facts_per_bucket": self.test_facts_per_bucket,
            "sampling_seed": self.sampling_seed,
            "restored_percent": self.restored_percent,
        }
