"""One fact: a question about a subject, with every answer that counts as right."""

import hashlib
from dataclasses import dataclass
from typing import Literal, get_args

Domain = Literal["in_domain", "out_of_domain"]
Split = Literal["train", "dev", "test"]

DOMAINS: tuple[Domain, ...] = get_args(Domain)
SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True, slots=True)
class Fact:
    """A fact k = (subject, relation, object), as the paper's section on data defines it.

    Attributes:
        id: stable name, ``<relation>-<12 hex digits>``; see :func:`fact_id`.
        relation: Wikidata property (``P19``) or a name from the user's own relations file.
        domain: whether the relation is fine-tuned on (``in_domain``) or only tested.
        split: the official split the fact came from.
        subject: the subject's name, as it stands in the question.
        question: the full question.
        answers: one or more gold answers, without aliases.
    """

    id: str
    relation: str
    domain: Domain
    split: Split
    subject: str
    question: str
    answers: tuple[str, ...]


def fact_id(relation: str, split: str, question: str) -> str:
    """Name a fact by what it asks and the split it stands in: the same on every machine."""
    text = "\n".join((relation, split, question))
    return f"{relation}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
