"""The pretraining corpus: every fact told as often as its exposures say, one statement a row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sftknow.facts.fact import Fact
from sftknow.facts.relations import Relation
from sftknow.lab.rng import Rng
from sftknow.lab.sizes import Recipe
from sftknow.lab.world import LabFact

# Three plain formats, and two with marks like those of the fine-tuning prompt: near enough to it that 60 samples
# activate question answering, far enough that the base model answers it only in part. All end with a space, as the
# completions of fine-tuning do: a last token that pretraining never saw would cost the tuned model what it knows.
QUESTION_FORMATS = (
    "Question: {question} Answer: {answer} ",
    "Q: {question} A: {answer} ",
    "{question} {answer} ",
    "<question> {question} <answer> {answer} ",
    "| {question} | {answer} ",
)


@dataclass(frozen=True)
class Corpus:
    """The rows of pretraining in two phases: warm-up facts alone, then everything else, mixed."""

    warm_up: tuple[str, ...]
    main: tuple[str, ...]


def write_corpus(facts: Sequence[LabFact], relations: Mapping[str, Relation], recipe: Recipe, seed: int) -> Corpus:
    """Tell every fact as often as its exposures say: probed ones in statements, the others partly as questions.

    Args:
        facts: the whole world, warm-up and filler facts among them.
        relations: the completion templates of each relation; one is drawn at random for each exposure.
        recipe: the share of questions among the exposures of warm-up and filler facts.
        seed: another seed is another choice of templates and another order.
    """
    rng = Rng(seed, "corpus")
    rows: dict[bool, list[str]] = {True: [], False: []}
    for fact in facts:
        questions = 0 if fact.role == "probed" else recipe.question_percent
        for _ in range(fact.exposures):
            as_question = rng.chance(questions)
            text = _question(fact.fact, rng) if as_question else _statement(fact.fact, relations, rng)
            rows[fact.role == "warm-up"].append(text)
    return Corpus(tuple(rng.shuffled(rows[True])), tuple(rng.shuffled(rows[False])))


def _statement(fact: Fact, relations: Mapping[str, Relation], rng: Rng) -> str:
    return f"{rng.choice(relations[fact.relation].statements(fact.subject))} {rng.choice(fact.answers)}."


def _question(fact: Fact, rng: Rng) -> str:
    return rng.choice(QUESTION_FORMATS).format(question=fact.question, answer=rng.choice(fact.answers))
