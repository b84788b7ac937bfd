"""What to restore: the options of one restoration, checked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sftknow.errors import ConfigError
from sftknow.restoration.regions import Region, parse_region

STRATEGIES = ("top", "bottom", "random")
RANKINGS = ("relative", "absolute")
POPULATIONS = ("region", "changed")


@dataclass(frozen=True)
class Recipe:
    """The options of one restoration.

    Attributes:
        percents: fractions to restore, rising.
        strategy: ``top`` (largest change first), ``bottom`` or ``random``.
        region: the tensors considered.
        rank_by: ``relative`` |s - p| / |p|, or ``absolute`` |s - p|.
        of: percents of the whole ``region`` or of its parameters that ``changed``.
        seed: fixes random choices, ties included.
    """

    percents: tuple[float, ...]
    strategy: str
    region: Region
    rank_by: str
    of: str
    seed: int

    @property
    def by_absolute(self) -> bool:
        """Whether parameters are ranked by |s - p|."""
        return self.rank_by == "absolute"

    @property
    def only_changed(self) -> bool:
        """Whether the population is what changed."""
        return self.of == "changed"

    def as_record(self) -> dict[str, Any]:
        """Return the options as they go into a record."""
        return {
            "top": list(self.percents),
            "strategy": self.strategy,
            "region": self.region.name,
            "layers": sorted(self.region.layers) or None,
            "rank_by": self.rank_by,
            "of": self.of,
            "seed": self.seed,
        }


def make_recipe(
    top: float | Sequence[float],
    *,
    strategy: str = "top",
    region: str = "transformer",
    layers: str | None = None,
    rank_by: str = "relative",
    of: str = "region",
    seed: int = 0,
) -> Recipe:
    """Check the options of a restoration.

    Raises:
        ConfigError: a percent outside 0 to 100, or an unknown strategy, region, ranking or population.
    """
    percents = tuple(top) if isinstance(top, Sequence) else (top,)
    if not percents:
        raise ConfigError("no percent is given; name at least one between 0 and 100.")
    if len(percents) > 100:
        raise ConfigError(f"{len(percents)} percents are more than the 100 that one reading can write; name fewer.")
    for percent in percents:
        if not (isinstance(percent, int | float) and 0 <= percent <= 100):  # false for NaN, too
            raise ConfigError(f"top {percent} is no percent; give a number between 0 and 100.")
    for what, value, known in (
        ("strategy", strategy, STRATEGIES),
        ("rank-by", rank_by, RANKINGS),
        ("of", of, POPULATIONS),
    ):
        if value not in known:
            raise ConfigError(f"{what} {value!r} is unknown; choose one of {', '.join(known)}.")
    percents = tuple(sorted({int(percent) if percent == int(percent) else float(percent) for percent in percents}))
    return Recipe(percents, strategy, parse_region(region, layers), rank_by, of, seed)


def percent_name(percent: float) -> str:
    """Return a percent as it stands in names: 5, 0.01, 33.3."""
    return format(percent, ".12g")
