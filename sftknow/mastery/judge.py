"""The verdict on a completion while it grows: right for good, right as it ended, or not."""

from collections.abc import Sequence

from sftknow.facts.matching import Matcher


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
        self._ended: list[dict[str, bool]] = [{} for _ in answers]
        self._settled: list[dict[str, bool]] = [{} for _ in answers]

    def verdict(self, prompt: int, text: str) -> bool:
        """Return whether the text, as it ended, contains an answer."""
        fact = self._facts[prompt]
        known = self._ended[fact]
        if text not in known:
            known[text] = self._matchers[fact].contains(text)
        return known[text]

    def final(self, prompt: int, text: str) -> bool:
        """Return whether the text contains an answer however it goes on."""
        fact = self._facts[prompt]
        known = self._settled[fact]
        if text not in known:
            known[text] = self._matchers[fact].settled(text)
        return known[text]
