"""One row of a source of facts, as the readers hand it on: checked, not yet merged with its duplicates."""

from dataclasses import dataclass
from typing import Any

from sftknow.facts.fact import Domain, Split


@dataclass(frozen=True, slots=True)
class Row:
    """A question with its answers and where it stands.

    Attributes:
        relation: id of the relation.
        domain: domain of the relation.
        split: train, dev or test.
        subject: the subject's name.
        question: the full question.
        answers: one or more answers.
    """

    relation: str
    domain: Domain
    split: Split
    subject: str
    question: str
    answers: tuple[str, ...]


def check_answers(value: Any) -> tuple[str, ...] | str:
    """Return the answers of a row without surrounding white space, or what is wrong with them."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not value:
        return "'answers' must be a list of at least one answer"
    if not all(isinstance(answer, str) for answer in value):
        return "'answers' must hold texts only"
    answers = tuple(dict.fromkeys(answer.strip() for answer in value))
    return answers if all(answers) else "an answer is empty"
