"""The one scorer: whether a completion contains an answer, equals one, or shares words with one.

Probing, the lm-eval tasks and the reports all use it. Both sides are brought into a normal form first.

==============================  ==================================  =============================================
subject                         here                                SQuAD's normalisation
==============================  ==================================  =============================================
case                            case-folded (ß is ss)               lower-cased
Unicode                         compatibility form, accents off     as it is: "São Paulo" is not "Sao Paulo"
                                Latin, Greek and Cyrillic letters,
                                ł o/ đ æ as l o d ae
articles a, an, the             left out, unless nothing remains    left out: the band "The The" becomes empty
                                ("The The")
punctuation                     ends a word: "Paris-based" has      removed: "Paris-based" is "parisbased"
                                "Paris", "Coca-Cola" is "Coca Cola"
apostrophes                     removed ("O'Neill" is "ONeill"),    removed: "Shakespeare's" is "shakespeares"
                                a possessive 's with its letter
dotted initials                 joined: "J. K.", "J.K." and "JK"    "J. K." is "j k", "J.K." is "jk"
&                               "and"                               removed
==============================  ==================================  =============================================

``contains`` with the rule ``words`` (the default) looks for an answer as whole words: "Iran" is not in "Iranian",
"midfielder" is not in "midfielders". Three cases would still go wrong and are seen to:

- An answer inside a longer name is not that answer: "York" is not found in "New York", "Guinea" not in "Papua New
  Guinea" or "Guinea-Bissau", "Washington University" not in "George Washington University". The longer names are
  those of ``LONGER_NAMES``; one that is itself among the answers counts, of course. (The other way round is no
  question: "York" never contains "New York".)
- An answer that leaves nothing but function words ("The Who", "It", "US") or one or two letters ("OK" for Oklahoma)
  must stand there letter by letter, capitals and article included, or be the whole text: else every text with "who",
  "it" or "ok" in it would be right.
- Scripts written without spaces (Chinese, Japanese, Thai, ...) have no word boundaries to look for: answers in them
  are found anywhere.

The rule ``substring`` is that of the paper: the answer's characters anywhere in the text, case and Unicode form
evened out and nothing else; "Iran" is then in "Iranian", and "York" in "New York".
"""

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, get_args

from sftknow.errors import ConfigError, DataError
from sftknow.facts.normal import normalize, plain_fold

Rule = Literal["words", "substring"]
RULES: tuple[Rule, ...] = get_args(Rule)

_FUNCTION_WORDS = """
    a an the and or but if of at by for with about to from in on off out up down over under is are was were be been
    being am do does did have has had i me my mine we us our you your he him his she her hers it its they them their
    this that these those who whom whose which what when where why how all any both each few more most other some
    such no nor not only own same so than too very can will just should now then here there yes one as into until
    after before again once la le el de du
"""
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
_LONGER_NAMES = """
    New York; New Jersey; New Hampshire; New Mexico; New England; New Britain; New Brunswick; New Orleans; New Bedford;
    New London; New Plymouth; New Westminster; New Hanover; New South Wales; New Caledonia; New Zealand; New Guinea;
    Papua New Guinea; Equatorial Guinea; Guinea-Bissau; West Virginia; West Bengal; Northern Ireland; South Sudan;
    British Columbia; District of Columbia; Inner Mongolia; Baja California; Nova Scotia; Lower Saxony; Saxony-Anhalt;
    American Samoa; Netherlands Antilles; Washington, D.C.; Mexico City; Kansas City; Oklahoma City; Iowa City;
    Jersey City; Quebec City; Panama City; Guatemala City; Kuwait City; Belize City; Long Island City; Virginia Beach;
    Santiago de Cuba; Santiago de Compostela; Kingston upon Hull; Kingston upon Thames; Stratford-upon-Avon;
    Newcastle-under-Lyme; Gulf of Mexico; George Washington University; Western Washington University;
    Eastern Washington University; Central Washington University; Oxford Brookes; Penn State; Old English;
    Middle English; Serbo-Croatian; People's Republic of China > Republic of China; Holy Roman Empire > Roman Empire;
    Democratic Republic of the Congo > Republic of the Congo; Cambridge, Massachusetts > Cambridge;
    Cambridge, MA > Cambridge; Oxford, Mississippi > Oxford; Oxford, Ohio > Oxford; Columbia, Missouri > Columbia;
    Columbia, South Carolina > Columbia
"""
# Longer name -> the one shorter name in it that it hides; None where it hides whatever stands in it.
LONGER_NAMES: dict[str, str | None] = {
    longer: shorter or None
    for longer, _, shorter in (" ".join(entry.split()).partition(" > ") for entry in _LONGER_NAMES.split(";"))
}
SHORT = 2

_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
_WORD_ENDS = re.compile(r"""[\s,;:!?"()\[\]“”«»]|(?<=\w\w)\.""")


class Matcher:
    """The names of one fact's answers, prepared once to be looked for in many texts.

    Args:
        answers: every name that counts, aliases included.
        rule: ``words`` or ``substring``, see the module's text.

    Raises:
        ConfigError: there is no such rule.
        DataError: there are no answers, or one of them is blank.
    """

    __slots__ = ("_answers", "_hidden", "_literal", "_lookahead", "_needles", "_rule")

    def __init__(self, answers: Iterable[str], rule: str = "words") -> None:
        if rule not in RULES:
            raise ConfigError(f"there is no matching rule {rule!r}; choose {' or '.join(RULES)}.")
        names = tuple(dict.fromkeys(answers))
        if not names or not all(name.strip() for name in names):
            raise DataError("a fact has no answers, or an empty one; give each fact at least one answer.")
        self._rule = rule
        if rule == "substring":
            self._needles = tuple(dict.fromkeys(plain_fold(name.strip()) for name in names))
            return
        normal = {name: normalize(name) for name in names}
        self._answers = tuple(dict.fromkeys(normal.values()))
        spelled = [name for name, form in normal.items() if _must_be_spelled(form)]
        self._literal = _literal_pattern(spelled)
        words = [form for name, form in normal.items() if name not in spelled]
        self._needles = tuple(dict.fromkeys(form if _UNSPACED.search(form) else f" {form} " for form in words))
        longer = _longer_names(self._answers)
        self._hidden = _hidden_pattern(longer)
        self._lookahead = any(not name.endswith(form) for name in longer for form in self._answers if form in name)

    def contains(self, text: str) -> bool:
        """Return whether a text contains an answer, by the rule the matcher was made with."""
        if self._rule == "substring":
            folded = plain_fold(text)
            return any(needle in folded for needle in self._needles)
        form = normalize(text)
        return form in self._answers or self._occurs(text, form)

    def settled(self, text: str) -> bool:
        """Return whether a text that is still being written contains an answer however it goes on.

        A word at the very end may still grow ("Iran", "Iranian"), and a name may become a longer one ("Guinea",
        "Guinea-Bissau"): such an answer is not settled before more has been written.
        """
        if self._rule == "substring":
            return self.contains(text)
        ends = [match.end() for match in _WORD_ENDS.finditer(text)]
        written = text[: ends[-1]] if ends else ""
        if not written or not self._occurs(written, normalize(written)):
            return False
        if not self._lookahead:
            return True
        earlier = written.rstrip(" .,;:!?").rpartition(" ")[0]
        return self._occurs(earlier, normalize(earlier))

    def _occurs(self, text: str, form: str) -> bool:
        """Return whether a text, given with its normal form, has an answer in it as whole words."""
        if self._literal is not None and self._literal.search(_composed(text)):
            return True
        padded = f" {form} "
        if not any(needle in padded for needle in self._needles):
            return False
        if self._hidden is None:
            return True
        seen = self._hidden.sub("|", padded)
        return any(needle in seen for needle in self._needles)


@functools.lru_cache(maxsize=4096)
def _matcher(answers: tuple[str, ...], rule: str) -> Matcher:
    return Matcher(answers, rule)


def contains(text: str, answers: Sequence[str], rule: str = "words") -> bool:
    """Return whether a text contains one of the answers; for many texts make a :class:`Matcher` once."""
    return _matcher(tuple(answers), rule).contains(text)


def exact_match(text: str, answers: Iterable[str]) -> bool:
    """Return whether a text as a whole is one of the answers, in normal form."""
    form = normalize(text)
    return any(form == normalize(answer) for answer in answers)


def token_f1(text: str, answers: Iterable[str]) -> float:
    """Return the F1 of the words a text shares with an answer, the best over the answers, as SQuAD defines it."""
    words = Counter(normalize(text).split())
    return max((_f1(words, Counter(normalize(answer).split())) for answer in answers), default=0.0)


def _f1(words: Counter[str], answer: Counter[str]) -> float:
    shared = (words & answer).total()
    return 2 * shared / (words.total() + answer.total()) if shared else 0.0


def _must_be_spelled(form: str) -> bool:
    if len(form) <= SHORT:
        return _UNSPACED.search(form) is None
    return all(word in FUNCTION_WORDS or not any(map(str.isalnum, word)) for word in form.split())


def _literal_pattern(names: Sequence[str]) -> re.Pattern[str] | None:
    if not names:
        return None
    spelled = (r"\s+".join(re.escape(word) for word in _composed(name).split()) for name in names)
    return re.compile(rf"(?<!\w)(?:{'|'.join(spelled)})(?!\w)")


def _composed(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFC", text)


@functools.lru_cache(maxsize=1)
def _longer_forms() -> tuple[tuple[str, str | None], ...]:
    forms = ((normalize(longer), shorter and normalize(shorter)) for longer, shorter in LONGER_NAMES.items())
    return tuple(sorted(forms, key=lambda form: len(form[0]), reverse=True))


def _longer_names(answers: Sequence[str]) -> list[str]:
    """Return the longer names that hide one of the answers and are not answers themselves, the longest first."""
    return [
        longer
        for longer, shorter in _longer_forms()
        if longer not in answers
        and any(answer == (shorter or answer) and f" {answer} " in f" {longer} " for answer in answers)
    ]


def _hidden_pattern(names: Sequence[str]) -> re.Pattern[str] | None:
    if not names:
        return None
    return re.compile(rf"(?<= )(?:{'|'.join(map(re.escape, names))})(?= )")
