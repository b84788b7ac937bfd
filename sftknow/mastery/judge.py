"""The verdict on a completion while it grows: right for good, right as it ended, or not."""

import re
from collections.abc import Sequence

from sftknow.facts.matching import Matcher
from sftknow.facts.normal import normalize

_NOT_PLAIN = re.compile(r"[^a-z0-9\0]+")


class AnswerJudge:
    """Judges the completions of several prompts by the answers of the fact behind each; equal texts are judged once.

    Args:
        facts: position of the fact behind each prompt.
        answers: all names of each fact's answers, aliases included.
        rule: ``words`` or ``substring``, see :mod:`sftknow.facts.matching`.
    """

    def __init__(self, facts: Sequence[int], answers: Sequence[Sequence[str]], rule: str = "words") -> None:
        self._facts = facts
        self._matchers = [Matcher(names, rule) for names in answers]
        self._signs = [_signs(names) if rule == "words" else ("",) for names in answers]
        self._ended: list[dict[str, bool]] = [{} for _ in answers]
        self._settled: list[dict[str, bool]] = [{} for _ in answers]

    def right(self, prompts: Sequence[int], texts: Sequence[str], ended: Sequence[bool]) -> list[bool]:
        """Say of each text whether it is right: as it is where it has ended, however it goes on where it has not."""
        return [
            self._may_hold(self._facts[prompt], text, squeezed) and self._judged(self._facts[prompt], text, end)
            for prompt, text, squeezed, end in zip(prompts, texts, squeeze(texts), ended, strict=True)
        ]

    def _may_hold(self, fact: int, text: str, squeezed: str) -> bool:
        for sign in self._signs[fact]:
            if sign in squeezed:
                return True
        return not text.isascii()

    def _judged(self, fact: int, text: str, end: bool) -> bool:
        known = (self._ended if end else self._settled)[fact]
        if text not in known:
            matcher = self._matchers[fact]
            known[text] = matcher.contains(text) if end else matcher.settled(text)
        return known[text]


def squeeze(texts: Sequence[str]) -> list[str]:
    """Return the plain letters and digits of each text, in lower case and with nothing between them."""
    joined = "\0".join(texts).casefold().replace("&", "and")
    squeezed = _NOT_PLAIN.sub("", joined).split("\0")
    if len(squeezed) == max(1, len(texts)):
        return squeezed
    return squeeze([text.replace("\0", " ") for text in texts])


def _signs(answers: Sequence[str]) -> tuple[str, ...]:
    """Return for each answer letters that a squeezed ASCII text must hold, or it does not contain the answer.

    The longest word of an answer's normal form: bringing a text into normal form takes signs and spaces away from
    within a word and nothing else. An answer that is not ASCII is in no ASCII text.
    """
    return tuple({max(normalize(answer).split(), key=len) for answer in answers if normalize(answer).isascii()})
