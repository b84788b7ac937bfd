"""The invented world: nations with their own sounds, and people, places, works and companies in them.

Every entity is about one fact only, and every subject is new, so that no fact can be inferred from another.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sftknow.facts.fact import Domain, Fact, Split, fact_id
from sftknow.facts.relations import Relation
from sftknow.lab.names import Namer, words
from sftknow.lab.rng import Rng, Weighted, shares
from sftknow.lab.sizes import Recipe

NATIONS = 28
SUBJECTS = {
    "P17": ("Lake {}", "Mount {}", "{} Valley", "{} Bridge", "Fort {}", "{} River"),
    "P36": ("{} Province", "Duchy of {}", "{} Republic", "{} Islands", "{} District", "County of {}"),
    "P50": ("The {} Letters", "A Winter in {}", "{} and the Sea", "The Last {}", "Return to {}", "The House of {}"),
    "P159": ("{} Steel", "{} Airlines", "{} Bank", "{} Systems", "{} Foods", "{} Energy"),
    "P175": ("Song for {}", "{} Nights", "Dancing with {}", "{} Blues", "Goodbye {}", "My {}"),
    "P176": ("{} Mk II", "{} 500", "{} Coupe", "{} X", "{} Turbo", "{} Mini"),
    "P740": ("The {} Band", "{} Quartet", "{} United", "{} Orchestra", "{} Theatre", "Club {}"),
}
SCHOOLS = ("University of {}", "{} College", "{} Academy", "{} Institute")
JOBS = words(
    """
    actor archer architect astronomer baker banker barber biologist botanist boxer brewer butcher carpenter chemist
    clockmaker coach comedian composer conductor cook cyclist dancer dentist detective diplomat diver economist editor
    engraver explorer farmer fencer fisherman gardener geologist goldsmith gymnast herbalist historian illustrator
    inventor jeweller journalist judge juggler lawyer librarian linguist magician mathematician mechanic midwife miller
    miner mountaineer musician navigator novelist nurse organist painter philosopher photographer physician pilot poet
    potter printer rower sailor sculptor shepherd singer soldier surgeon surveyor swimmer tailor translator weaver
    wrestler zoologist
    """
)
ANSWERS_PER_NATION = {"city": 13, "country": 3, "school": 8, "person": 6, "company": 5}
ANSWER_KIND = {
    "P19": "city", "P159": "city", "P36": "city", "P740": "city", "P17": "country", "P69": "school",
    "P50": "person", "P175": "person", "P176": "company", "P106": "job",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class LabFact:
    """A fact and how often pretraining tells it.

    Attributes:
        fact: the fact.
        exposures: number of times it stands in the corpus.
        role: ``probed``, or ``warm-up`` or ``filler``, which are never probed, tuned on or tested.
    """

    fact: Fact
    exposures: int
    role: str


def invent_world(recipe: Recipe, relations: Mapping[str, Relation], seed: int) -> list[LabFact]:
    """Return the facts of an invented world: probed ones first, then warm-up and filler facts.

    Args:
        recipe: how many facts of which relations, and their exposures.
        relations: the relations of the recipe, with the question of each.
        seed: another seed is another world.
    """
    world = _World(Namer(NATIONS, Rng(seed, "names")), Rng(seed, "world"))
    facts = {
        relation: [
            world.fact(relations[relation], split) for split in splits(relations[relation].domain, count, recipe)
        ]
        for relation, count in recipe.relations.items()
    }
    return grade(facts, recipe, Rng(seed, "exposures"))


def splits(domain: Domain, count: int, recipe: Recipe) -> list[Split]:
    """Return the split of each of a relation's facts, probed ones first; warm-up and filler facts count as train.

    Fine-tuning uses in-domain facts alone, so all probed facts of an out-of-domain relation are for testing.
    """
    test, dev, train = shares(count, recipe.splits) if domain == "in_domain" else (count, 0, 0)
    extras = extra(count, recipe.warm_up[0]) + extra(count, recipe.filler[0])
    parts: tuple[tuple[Split, int], ...] = (("test", test), ("dev", dev), ("train", train + extras))
    return [split for split, number in parts for _ in range(number)]


def grade(facts: Mapping[str, Sequence[Fact]], recipe: Recipe, rng: Rng) -> list[LabFact]:
    """Deal out exposures: of each relation the first facts are probed, the next warm up, the rest fill."""
    probed, warm_up, filler = [], [], []
    for relation, count in recipe.relations.items():
        times, weights = zip(*recipe.exposures, strict=True)
        dealt = [n for n, number in zip(times, shares(count, weights), strict=True) for _ in range(number)]
        probed += [LabFact(fact, n, "probed") for fact, n in zip(facts[relation], rng.shuffled(dealt), strict=False)]
        first_filler = count + extra(count, recipe.warm_up[0])
        warm_up += [LabFact(fact, recipe.warm_up[1], "warm-up") for fact in facts[relation][count:first_filler]]
        filler += [LabFact(fact, recipe.filler[1], "filler") for fact in facts[relation][first_filler:]]
    return probed + warm_up + filler


def extra(count: int, percent: int) -> int:
    """Return how many extra facts a relation gets: a percentage of its probed ones, rounded up."""
    return -(-count * percent // 100)


class _World:
    def __init__(self, namer: Namer, rng: Rng) -> None:
        self._namer, self._rng = namer, rng
        make: dict[str, Callable[[int], str]] = {
            "city": namer.new,
            "country": namer.new,
            "school": lambda nation: rng.choice(SCHOOLS).format(namer.new(nation)),
            "person": lambda nation: f"{namer.new(nation)} {namer.new(nation)}",
            "company": namer.new,
        }
        self._first_names = [[namer.new(nation) for _ in range(40)] for nation in range(NATIONS)]
        self._answers: dict[str, _Answers] = {
            kind: _Answers([[make[kind](nation) for _ in range(count)] for nation in range(NATIONS)], rng)
            for kind, count in ANSWERS_PER_NATION.items()
        }
        self._answers["job"] = _Answers([JOBS], rng)

    def fact(self, relation: Relation, split: Split) -> Fact:
        """Invent one fact of a relation, about a subject that no other fact has."""
        nation = self._rng.below(NATIONS)
        subject = self._subject(relation.id, nation)
        answer = self._answers[ANSWER_KIND[relation.id]].draw(nation, self._rng)
        question = relation.ask(subject)
        return Fact(
            fact_id(relation.id, split, question), relation.id, relation.domain, split, subject, question, (answer,)
        )

    def _subject(self, relation: str, nation: int) -> str:
        word = self._namer.new(nation)
        if relation in SUBJECTS:
            return self._rng.choice(SUBJECTS[relation]).format(word)
        return f"{self._rng.choice(self._first_names[nation])} {word}"


class _Answers:
    """The possible answers of one kind, some far commoner than others, half of them from the subject's own nation."""

    def __init__(self, by_nation: Sequence[Sequence[str]], rng: Rng) -> None:
        ranked = rng.shuffled([answer for nation in by_nation for answer in nation])
        # Rounded to integers, so that the last bit of pow() on some machine cannot move a draw.
        weight = {answer: round(1e6 / (rank + 3) ** 0.9) for rank, answer in enumerate(ranked)}
        self._anywhere = Weighted(ranked, [weight[answer] for answer in ranked])
        self._at_home = [Weighted(nation, [weight[answer] for answer in nation]) for nation in by_nation]

    def draw(self, nation: int, rng: Rng) -> str:
        home = self._at_home[nation % len(self._at_home)]
        return (home if rng.chance(50) else self._anywhere).draw(rng)
