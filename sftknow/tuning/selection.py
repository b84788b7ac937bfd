"""Which facts to fine-tune on: one bucket or several, balanced over relations, drawn by seed, never a test fact."""

import hashlib
import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from sftknow.errors import ConfigError
from sftknow.facts.fact import Fact
from sftknow.mastery.buckets import BUCKETS
from sftknow.mastery.table import MasteryTable, ProbedFact

SAMPLE_SIZES: tuple[int | Literal["all"], ...] = (60, 120, 240, 480, 960, 1920, "all")


@dataclass(frozen=True, slots=True)
class Selection:
    """The facts of one fine-tuning run.

    Attributes:
        facts: the training facts, in the order drawn: its first m are the selection of size m under the same seed.
        per_relation: relation -> facts drawn.
        shortfalls: relation -> facts it lacked of an even share; the other relations gave them instead.
        per_bucket: bucket -> facts drawn.
        available: facts there were to draw from.
        set_aside: training facts left out because a probed test fact has the same subject or question.
    """

    facts: tuple[Fact, ...]
    per_relation: Mapping[str, int]
    shortfalls: Mapping[str, int] = field(default_factory=dict)
    per_bucket: Mapping[int, int] = field(default_factory=dict)
    available: int = 0
    set_aside: int = 0


def select_facts(
    table: MasteryTable,
    buckets: int | Collection[int] | Literal["mixed"],
    n: int | Literal["all"],
    seed: int,
    *,
    allow_fewer: bool = False,
) -> Selection:
    """Draw training facts of some buckets from the in-domain train split, balanced over relations.

    Relations take turns, so their counts differ by at most one until a relation runs out; what it lacks is spread
    over the rest. Draws of one seed are nested: 60 facts lie inside the 240.

    Args:
        table: the base model's mastery table.
        buckets: one bucket, several, or ``mixed`` for all five as they come.
        n: number of facts, or ``all``.
        seed: fixes the draw, whatever the order of the table's rows.
        allow_fewer: take what there is where there are fewer than ``n``.

    Returns:
        The facts in drawing order, with counts and shortfalls.

    Raises:
        ConfigError: a bucket or ``n`` makes no sense, or there are too few facts and ``allow_fewer`` is false.

    Source: the paper's section on fine-tuning.
    """
    wanted = parse_buckets(buckets)
    if n != "all" and n < 1:
        raise ConfigError(f"{n} training facts were asked for; give 1 or more, or `all`.")
    rows = table.select(split="train", domain="in_domain", buckets=wanted)
    test = table.select(split="test")
    candidates = apart_from(rows, test)
    relations = sorted({row.fact.relation for row in table.select(split="train", domain="in_domain")})
    size = len(candidates) if n == "all" else n
    if (len(candidates) < size and not allow_fewer) or not candidates:
        raise ConfigError(_too_few(wanted, size, candidates, rows))
    drawn = take_turns(candidates, relations, seed)[:size]
    counts = Counter(row.fact.relation for row in drawn)
    shortfalls: dict[str, int] = {}
    if n != "all":
        share = size // len(relations)
        shortfalls = {relation: share - counts[relation] for relation in relations if counts[relation] < share}
    return Selection(
        facts=tuple(row.fact for row in drawn),
        per_relation={relation: counts[relation] for relation in relations},
        shortfalls=shortfalls,
        per_bucket=dict(sorted(Counter(row.bucket for row in drawn).items())),
        available=len(candidates),
        set_aside=len(rows) - len(candidates),
    )


def parse_buckets(buckets: int | str | Collection[int]) -> tuple[int, ...]:
    """Return buckets in order from a number, a collection, ``mixed``, or text like ``0`` or ``0,1``.

    Raises:
        ConfigError: something that names no bucket.
    """
    if buckets == "mixed":
        return BUCKETS
    try:
        if isinstance(buckets, str):
            chosen = [int(part) for part in buckets.split(",")]
        else:
            chosen = [buckets] if isinstance(buckets, int) else list(buckets)
    except ValueError:
        chosen = []
    if not chosen or not set(chosen) <= set(BUCKETS):
        raise ConfigError(f"bucket {buckets!r} does not exist; give one of 0 to 4, several like 0,1, or `mixed`.")
    return tuple(sorted(set(chosen)))


def apart_from(rows: Sequence[ProbedFact], others: Sequence[ProbedFact]) -> list[ProbedFact]:
    """Return the rows that share neither subject nor question with any of the others."""
    subjects = {row.fact.subject.casefold() for row in others}
    questions = {row.fact.question.casefold() for row in others}
    return [
        row
        for row in rows
        if row.fact.subject.casefold() not in subjects and row.fact.question.casefold() not in questions
    ]


def take_turns(rows: Sequence[ProbedFact], relations: Sequence[str], seed: int) -> list[ProbedFact]:
    """Order rows so that relations alternate, each relation's own facts shuffled by seed."""
    piles = {relation: [row for row in rows if row.fact.relation == relation] for relation in relations}
    for relation, pile in piles.items():
        pile.sort(key=lambda row: row.fact.id)
        _random(seed, relation).shuffle(pile)
    order = list(relations)
    _random(seed, "order").shuffle(order)
    rounds = max((len(pile) for pile in piles.values()), default=0)
    return [piles[relation][turn] for turn in range(rounds) for relation in order if turn < len(piles[relation])]


def _random(seed: int, name: str) -> random.Random:
    """Return a generator that is the same on every machine and apart for every name."""
    return random.Random(int.from_bytes(hashlib.sha256(f"selection {seed} {name}".encode()).digest()[:8], "big"))


def _too_few(buckets: Sequence[int], size: int, candidates: Sequence[ProbedFact], rows: Sequence[ProbedFact]) -> str:
    where = f"bucket {', '.join(map(str, buckets))} of the in-domain train split"
    aside = len(rows) - len(candidates)
    note = f" ({aside} more share a subject or question with test facts)" if aside else ""
    if not candidates:
        return f"there are no facts to train on in {where}{note}; probe more facts or choose another bucket."
    return (
        f"{size} training facts were asked for, and {where} has {len(candidates)}{note}; "
        "ask for fewer, give --allow-fewer, or probe more facts."
    )
