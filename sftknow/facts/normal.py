"""The normal form in which texts and answers are compared; :mod:`sftknow.facts.matching` explains its choices."""

import re
import unicodedata

ARTICLES = frozenset(("a", "an", "the"))
# Letters that Unicode does not decompose and that are commonly written without their stroke or as two letters, and
# the marks that stand for an apostrophe.
_PLAIN = str.maketrans(
    {
        **dict(zip("łŁøØđĐıħĦŧŦ", "lLoOdDihHtT", strict=True)),
        **{"æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ð": "d", "Ð": "D", "þ": "th", "Þ": "Th"},
        **dict.fromkeys("‘’‛ʼʻʹ′`´ʾʿ", "'"),
    }
)
_LATIN_MARKS = re.compile("[\u0300-\u036f]")
_POSSESSIVE = re.compile(r"(?<=\w)'s(?!\w)")
_INITIALS = re.compile(r"(?<!\w)(?:(?:[^\W\d_]\.){2,}|[^\W\d_](?:\.[^\W\d_])+(?!\w)|(?:[^\W\d_]\. ){2,})")


class _Separators(dict[int, str]):
    """A table for str.translate: punctuation and symbols become spaces, found out character by character."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        kept = " " if unicodedata.category(character)[0] in "PSZC" else character
        self[code] = kept
        return kept


_SEPARATORS = _Separators({ord("'"): "", ord("&"): " and "})
_SEPARATORS.update({code: _SEPARATORS[code] for code in range(128)})


def normalize(text: str) -> str:
    """Return the normal form of a text: lower-case words with single spaces between them.

    A text of nothing but articles keeps them, and one of nothing but punctuation keeps that, so that only blank texts
    have an empty normal form.
    """
    folded = (text if text.isascii() else _fold_letters(text)).casefold()
    if "'" in folded:
        folded = _POSSESSIVE.sub("", folded)
    if "." in folded:
        folded = _INITIALS.sub(_join_initials, folded)
    words = folded.translate(_SEPARATORS).split()
    return " ".join([word for word in words if word not in ARTICLES] or words or folded.split())


def _fold_letters(text: str) -> str:
    """Return a text in Unicode's compatibility form without the accents of Latin, Greek and Cyrillic letters."""
    apart = unicodedata.normalize("NFKD", text).translate(_PLAIN)
    return unicodedata.normalize("NFC", _LATIN_MARKS.sub("", unicodedata.normalize("NFKD", apart.casefold())))


def _join_initials(match: re.Match[str]) -> str:
    found = match[0]
    return found.replace(".", "").replace(" ", "") + " "


def plain_fold(text: str) -> str:
    """Return a text with case and Unicode form evened out and nothing taken away."""
    return (text if text.isascii() else unicodedata.normalize("NFKC", text)).casefold()
