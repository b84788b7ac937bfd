"""Well-mastered facts kept out of training and testing, to watch or preserve knowledge with."""

from collections.abc import Sequence

from sftknow.errors import DataError
from sftknow.kl.prompts import KLPrompt
from sftknow.mastery.table import MasteryTable
from sftknow.tuning.selection import Selection, apart_from, take_turns

MASTERED = 4


def mastered_prompts(table: MasteryTable, selection: Selection, count: int, seed: int) -> list[KLPrompt]:
    """Draw prompts on in-domain train facts of bucket 4 that are neither trained on nor near a test fact.

    Args:
        table: the base model's mastery table.
        selection: the training facts.
        count: prompts wanted; fewer are returned where there are fewer.
        seed: fixes the draw; a smaller count is the beginning of a larger one.

    Returns:
        Each fact in the best completion template of its relation, with its answer.

    Raises:
        DataError: no such fact.
    """
    rows = table.select(split="train", domain="in_domain", buckets=(MASTERED,))
    chosen = {fact.id for fact in selection.facts}
    trained = [row for row in table.rows if row.fact.id in chosen]
    free = apart_from(rows, [*table.select(split="test"), *trained])
    if not free:
        raise DataError(
            "the mastery table has no train facts in bucket 4 left besides the training facts; "
            "train on fewer, probe more, or leave out the KL and drift options."
        )
    templates = table.best_templates()
    relations: Sequence[str] = sorted({row.fact.relation for row in free})
    return [
        KLPrompt(
            row.fact.id,
            row.fact.relation,
            templates[row.fact.relation].replace("{subject}", row.fact.subject).rstrip(),
            row.fact.answers[0],
        )
        for row in take_turns(free, relations, seed)[:count]
    ]
