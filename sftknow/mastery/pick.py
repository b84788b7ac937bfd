"""Which of the loaded facts are probed."""

from collections import Counter
from collections.abc import Collection, Iterable

from sftknow.errors import DataError
from sftknow.facts.fact import Fact


def pick_facts(facts: Iterable[Fact], splits: Collection[str] = (), per_relation: int | None = None) -> list[Fact]:
    """Return the facts of some splits, and of each relation and split at most so many: those whose ids sort first.

    Ids are digests, so the first by id are as good as drawn at random, and are the same on every machine.

    Raises:
        DataError: no fact is left.
    """
    kept = [fact for fact in facts if not splits or fact.split in splits]
    if not kept:
        raise DataError(f"no fact is of the split {' or '.join(splits)}; name another --split.")
    if per_relation is None:
        return kept
    taken: Counter[tuple[str, str]] = Counter()
    chosen = set()
    for fact in sorted(kept, key=lambda fact: fact.id):
        if taken[fact.relation, fact.split] < per_relation:
            taken[fact.relation, fact.split] += 1
            chosen.add(fact.id)
    return [fact for fact in kept if fact.id in chosen]
