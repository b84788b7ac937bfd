"""Progress bars on stderr, silent where stderr is not a terminal."""

import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

Item = TypeVar("Item")


def bar(items: Iterable[Item], *, label: str, total: int | None = None, unit: str = "it") -> Iterator[Item]:
    """Iterate with a bar that shows rate and remaining time."""
    from tqdm import tqdm

    return iter(tqdm(items, desc=label, total=total, unit=unit, disable=not sys.stderr.isatty(), leave=False))


def counter(*, label: str, total: int, unit: str = "it", unit_scale: bool = False) -> Any:
    """Return a tqdm bar that the caller advances by hand, in a ``with`` block."""
    from tqdm import tqdm

    silent = not sys.stderr.isatty()
    return tqdm(desc=label, total=total, unit=unit, unit_scale=unit_scale, disable=silent, leave=False)
