"""Invented names: many random phonologies, so that names differ between nations as much as real ones do.

A world whose names share few syllables of one kind cannot be learned fact by fact: the model sees the same pieces in
every subject. Each nation therefore draws its own sounds.
"""

from dataclasses import dataclass

from sftknow.lab.rng import Rng


def words(text: str) -> tuple[str, ...]:
    """Return the words of a text."""
    return tuple(text.split())


ONSETS = words(
    "b bl br c ch d dr f fl fr g gh gl gr h j k kh kl kr l m mb n nd ng p pl pr qu r s sh sk sl sn st str t th tr ts v "
    "vl w y z zh"
)
VOWELS = words("a e i o u y")
GLIDES = words("aa ae ai au ea ei eo ia ie io oa oi oo ou ua ue ui uu")
CODAS = words("b ck d f g k l ld ll lm ln m mp n nd ng nk nt p r rd rk rl rm rn rt s sh sk ss st t th v x z")
ENDINGS = words(
    "a e i o u an ar as el en er es et ia ic id il im in is ism ko la len ma mir na os ov ra ren rik ro sen ska ta tar "
    "to tu ul um us va ven vik wa wen yn za"
)


@dataclass(frozen=True)
class Phonology:
    """The sounds one nation's names are made of."""

    onsets: tuple[str, ...]
    nuclei: tuple[str, ...]
    codas: tuple[str, ...]
    endings: tuple[str, ...]

    @classmethod
    def random(cls, rng: Rng) -> "Phonology":
        """Draw 16 of 48 onsets and the empty one, 7 nuclei, 9 codas and 6 endings."""
        return cls(
            ("", *rng.shuffled(ONSETS)[:16]),
            (*rng.shuffled(VOWELS)[:4], *rng.shuffled(GLIDES)[:3]),
            tuple(rng.shuffled(CODAS)[:9]),
            tuple(rng.shuffled(ENDINGS)[:6]),
        )

    def word(self, rng: Rng) -> str:
        """Return one capitalised word of one or two syllables and an ending."""
        start = rng.choice(self.onsets) + rng.choice(self.nuclei)
        middle = rng.choice(self.onsets[1:]) + rng.choice(self.nuclei) if rng.chance(50) else ""
        return (start + middle + rng.choice(self.codas) + rng.choice(self.endings)).capitalize()


class Namer:
    """Gives out words of several phonologies, no word twice."""

    def __init__(self, phonologies: int, rng: Rng) -> None:
        self._rng = rng
        self._phonologies = [Phonology.random(rng) for _ in range(phonologies)]
        self._used: set[str] = set()

    def new(self, nation: int) -> str:
        """Return a word of 3 to 10 letters that no call returned before."""
        while True:
            word = self._phonologies[nation].word(self._rng)
            if 3 <= len(word) <= 10 and word not in self._used:
                self._used.add(word)
                return word
