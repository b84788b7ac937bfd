"""Real facts for the laboratory: short, unambiguous ones out of the EntityQuestions archive."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from sftknow.errors import DataError
from sftknow.facts.fact import SPLITS, Fact, Split
from sftknow.facts.load import load_facts
from sftknow.facts.relations import Relation
from sftknow.lab.rng import Rng
from sftknow.lab.sizes import Recipe
from sftknow.lab.world import LabFact, grade, splits

SUBJECT_LENGTH = 24
ANSWER_LENGTH = 20
SHARED_BY = 10


def choose_facts(recipe: Recipe, relations: Mapping[str, Relation], source: Path, seed: int) -> list[LabFact]:
    """Return facts of the archive as the recipe asks for: probed ones first, then warm-up and filler facts.

    A fact fits when it has one answer of at most 20 characters that its subject does not give away and that ten such
    facts of the relation share, and a subject of at most 24 that no fact before it has. Each fact keeps its official
    split.

    Raises:
        DataError: the archive cannot be read, or has too few fitting facts of a relation and split.
    """
    rng = Rng(seed, "real facts")
    subjects: set[str] = set()
    pools: dict[tuple[str, Split], list[Fact]] = {(name, split): [] for name in relations for split in SPLITS}
    fitting = [fact for fact in load_facts(source, relations=relations, only=relations).facts if _fits(fact)]
    shared = Counter((fact.relation, fact.answers[0]) for fact in fitting)
    for fact in rng.shuffled(fitting):
        if shared[fact.relation, fact.answers[0]] >= SHARED_BY and fact.subject.casefold() not in subjects:
            subjects.add(fact.subject.casefold())
            pools[fact.relation, fact.split].append(fact)
    chosen = {
        name: [_take(pools[name, split], name, split, source) for split in splits(relation.domain, count, recipe)]
        for (name, count), relation in zip(recipe.relations.items(), relations.values(), strict=True)
    }
    return grade(chosen, recipe, Rng(seed, "exposures"))


def _fits(fact: Fact) -> bool:
    answer = fact.answers[0]
    short = len(fact.subject) <= SUBJECT_LENGTH and len(answer) <= ANSWER_LENGTH
    return short and len(fact.answers) == 1 and answer.casefold() not in fact.subject.casefold()


def _take(pool: list[Fact], relation: str, split: Split, source: Path) -> Fact:
    if not pool:
        raise DataError(
            f"{source} has too few short {split} facts with one common answer for relation {relation}; "
            "build a smaller --size, or without --facts."
        )
    return pool.pop()
