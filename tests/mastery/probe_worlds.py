"""Facts about a scripted model, and relations to ask it."""

from sftknow.facts.fact import Fact, fact_id
from sftknow.facts.relations import Relation

SCRIPT = {
    " in": {" Rome": 0.5, " Paris": 0.3, " the": 0.2},
    " is": {" Rome": 0.05, " Paris": 0.9, " the": 0.05},
    " near": {" Bern": 1.0},
    " Rome": {"</s>": 1.0},
    " Paris": {".": 1.0},
    " the": {" Rome": 0.25, " Paris": 0.75},
    ".": {"</s>": 1.0},
    " Bern": {"</s>": 1.0},
    " born": {" in": 1.0},
    " was": {" in": 1.0},
    " home": {" is": 1.0},
    "Anna": {" was": 1.0},
    "Otto": {" was": 1.0},
    "Lima": {" was": 1.0},
}
TEMPLATES = ("{subject} was born in", "{subject} home is", "{subject} was near")
RELATIONS = {"birth": Relation("birth", "born in", "in_domain", "Where was {subject} born?", TEMPLATES)}
# Probability that a completion behind each template contains the answer, by hand from SCRIPT.
RIGHT = {
    "Rome": (0.5 + 0.2 * 0.25, 0.05 + 0.05 * 0.25, 0.0),
    "Paris": (0.3 + 0.2 * 0.75, 0.9 + 0.05 * 0.75, 0.0),
    "Bern": (0.0, 0.0, 1.0),
}


class NoAliases:
    def expand(self, relation, answers):
        return tuple(answers)


def make_fact(subject, answer, split="train", relation="birth"):
    question = f"Where was {subject} born?"
    return Fact(
        fact_id(relation, split, f"{question} {answer}"), relation, "in_domain", split, subject, question, (answer,)
    )


FACTS = tuple(make_fact(subject, answer) for subject in ("Anna", "Otto", "Lima") for answer in RIGHT)
