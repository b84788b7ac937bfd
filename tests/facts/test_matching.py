"""The scorer, against verdicts written by hand."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftknow.errors import ConfigError, DataError
from sftknow.facts.matching import LONGER_NAMES, Matcher, contains, exact_match, token_f1
from sftknow.facts.normal import normalize

YES, NO = True, False

# text, answers divided by |, verdict of the rule "words", verdict of the rule "substring"
CONTAINS = [
    # plain occurrence
    ("Paris", "Paris", YES, YES),
    ("Paris.", "Paris", YES, YES),
    (" Paris, the capital of France", "Paris", YES, YES),
    ("the city of Paris", "Paris", YES, YES),
    ("a town near Paris, France", "Paris", YES, YES),
    ("London", "Paris", NO, NO),
    ("", "Paris", NO, NO),
    ("   ", "Paris", NO, NO),
    ("...", "Paris", NO, NO),
    ("Paris\nParis is", "Paris", YES, YES),
    ("It is\nParis", "Paris", YES, YES),
    ("Rome, Paris and Oslo", "Oslo", YES, YES),
    # case
    ("paris", "Paris", YES, YES),
    ("PARIS", "Paris", YES, YES),
    ("pArIs", "paris", YES, YES),
    ("STRASSE", "Straße", YES, YES),
    ("die Straße", "strasse", YES, YES),
    ("IBM", "ibm", YES, YES),
    ("ΑΘΗΝΑ", "Αθήνα", YES, NO),
    # word boundaries
    ("Iranian", "Iran", NO, YES),
    ("the Iranian people", "Iran", NO, YES),
    ("Iran", "Iranian", NO, NO),
    ("midfielders", "midfielder", NO, YES),
    ("a midfielder", "midfielder", YES, YES),
    ("an attacking midfielder", "midfielder", YES, YES),
    ("Romeo", "Rome", NO, YES),
    ("Romania", "Oman", NO, YES),
    ("Nigeria", "Niger", NO, YES),
    ("Niger", "Nigeria", NO, NO),
    ("Somaliland", "Somalia", NO, NO),
    ("Malian", "Mali", NO, YES),
    ("Mali.", "Mali", YES, YES),
    ("Cubans", "Cuba", NO, YES),
    ("Omaha", "Oman", NO, NO),
    ("contractor", "actor", NO, YES),
    ("an actor and director", "actor", YES, YES),
    ("poetry", "poet", NO, YES),
    ("a 1958 film", "195", NO, YES),
    ("Apollo 11", "Apollo 1", NO, YES),
    ("Apollo 11", "Apollo 11", YES, YES),
    ("Symphony No. 5", "Symphony No. 5", YES, YES),
    ("Symphony no 5", "Symphony No. 5", YES, NO),
    ("Symphony No. 51", "Symphony No. 5", NO, YES),
    # several answers
    ("in New Delhi", "Mumbai|New Delhi", YES, YES),
    ("in Pune", "Mumbai|New Delhi", NO, NO),
    ("the USA", "United States of America|USA", YES, YES),
    ("the United States", "United States of America|United States", YES, YES),
    ("United States of America", "United States", YES, YES),
    ("United Kingdom", "United States", NO, NO),
    # answers of several words
    ("New York", "New York City", NO, NO),
    ("New York City", "New York", YES, YES),
    ("York", "New York", NO, NO),
    ("Los Angeles County", "Los Angeles", YES, YES),
    ("Los  Angeles", "Los Angeles", YES, NO),
    ("Los\nAngeles", "Los Angeles", YES, NO),
    ("Angeles, Los", "Los Angeles", NO, NO),
    ("University of Oxford", "Oxford University", NO, NO),
    ("Oxford University Press", "Oxford University", YES, YES),
    ("Bosnia and Herzegovina", "Bosnia and Herzegovina", YES, YES),
    ("Bosnia & Herzegovina", "Bosnia and Herzegovina", YES, NO),
    ("Harland & Wolff", "Harland and Wolff", YES, NO),
    ("Harland and Wolff", "Harland & Wolff", YES, NO),
    ("the firm of Smith & Wesson", "Smith & Wesson", YES, YES),
    # names inside longer names
    ("New York", "York", NO, YES),
    ("York", "York", YES, YES),
    ("York, England", "York", YES, YES),
    ("New York, then York", "York", YES, YES),
    ("New York New York York", "York", YES, YES),
    ("New York New York", "York", NO, YES),
    ("New Jersey", "Jersey", NO, YES),
    ("the island of Jersey", "Jersey", YES, YES),
    ("New England", "England", NO, YES),
    ("England", "England", YES, YES),
    ("New Mexico", "Mexico", NO, YES),
    ("Mexico City", "Mexico", NO, YES),
    ("Mexico City, Mexico", "Mexico", YES, YES),
    ("Mexico City", "Mexico City", YES, YES),
    ("Mexico City", "Mexico|Mexico City", YES, YES),
    ("Papua New Guinea", "Guinea", NO, YES),
    ("Papua New Guinea", "New Guinea", NO, YES),
    ("Equatorial Guinea", "Guinea", NO, YES),
    ("Guinea-Bissau", "Guinea", NO, YES),
    ("Guinea", "Guinea", YES, YES),
    ("Guinea, West Africa", "Guinea", YES, YES),
    ("Papua New Guinea", "Papua New Guinea", YES, YES),
    ("West Virginia", "Virginia", NO, YES),
    ("Virginia", "Virginia", YES, YES),
    ("Virginia Beach, Virginia", "Virginia", YES, YES),
    ("Northern Ireland", "Ireland", NO, YES),
    ("the Republic of Ireland", "Ireland", YES, YES),
    ("South Sudan", "Sudan", NO, YES),
    ("British Columbia", "Columbia", NO, YES),
    ("Columbia University", "Columbia", YES, YES),
    ("Kansas City", "Kansas", NO, YES),
    ("Topeka, Kansas", "Kansas", YES, YES),
    ("the Democratic Republic of the Congo", "Republic of the Congo", NO, YES),
    ("the Republic of the Congo", "Republic of the Congo", YES, YES),
    ("the People's Republic of China", "Republic of China", NO, YES),
    ("the Republic of China", "Republic of China", YES, YES),
    ("the People's Republic of China", "China", YES, YES),
    ("Washington, D.C.", "Washington", NO, YES),
    ("Seattle, Washington", "Washington", YES, YES),
    ("George Washington University", "Washington University", NO, YES),
    ("Washington University in St. Louis", "Washington University", YES, YES),
    ("studied in Cambridge, Massachusetts", "University of Cambridge|Cambridge", NO, YES),
    ("studied at Cambridge", "University of Cambridge|Cambridge", YES, YES),
    ("Old English", "English", NO, YES),
    # accents and letters with strokes
    ("Sao Paulo", "São Paulo", YES, NO),
    ("São Paulo", "Sao Paulo", YES, NO),
    ("Osaka", "Ōsaka", YES, NO),
    ("Celine Dion", "Céline Dion", YES, NO),
    ("Beyoncé", "Beyonce", YES, NO),
    ("Lodz", "Łódź", YES, NO),
    ("Ålesund", "Alesund", YES, NO),
    ("Malmo", "Malmö", YES, NO),
    ("Malmoe", "Malmö", NO, NO),
    ("Kobenhavn", "København", YES, NO),
    ("Tromso", "Tromsø", YES, NO),
    ("Aethelstan", "Æthelstan", YES, NO),
    ("Istanbul", "İstanbul", YES, NO),
    ("Diyarbakir", "Diyarbakır", YES, NO),
    ("Cafe\u0301 Tacuba", "Café Tacuba", YES, YES),
    ("ﬁnance minister", "finance minister", YES, YES),
    ("ＩＢＭ", "IBM", YES, YES),
    ("Пётр", "Петр", YES, NO),
    ("हिन्दी", "हिन्दी", YES, YES),
    ("हिन्द", "हिन्दी", NO, NO),
    # scripts without spaces
    ("首都は東京です。", "東京", YES, YES),
    ("京都", "東京", NO, NO),
    ("位于北京市", "北京", YES, YES),
    ("กรุงเทพมหานคร", "กรุงเทพ", YES, YES),
    ("서울", "서울", YES, YES),
    # articles
    ("Beatles", "The Beatles", YES, NO),
    ("the Beatles", "The Beatles", YES, YES),
    ("a politician", "politician", YES, YES),
    ("an actor", "actor", YES, YES),
    ("Netherlands", "The Netherlands", YES, NO),
    ("University of the Arts", "University of Arts", YES, NO),
    ("Theatre", "The", NO, YES),
    ("by The The", "The The", YES, YES),
    ("the theory", "The The", NO, YES),
    # punctuation
    ("a Paris-based firm", "Paris", YES, YES),
    ("Paris–Dakar", "Dakar", YES, YES),
    ("Coca Cola", "Coca-Cola", YES, NO),
    ("CocaCola", "Coca-Cola", NO, NO),
    ("singer songwriter", "singer-songwriter", YES, NO),
    ("singer-songwriter", "songwriter", YES, YES),
    ("(Berlin)", "Berlin", YES, YES),
    ('"Berlin"', "Berlin", YES, YES),
    ("«Berlin»", "Berlin", YES, YES),
    ("“Lolita”", "Lolita", YES, YES),
    ("Berlin/Hamburg", "Hamburg", YES, YES),
    ("Berlin;Hamburg", "Hamburg", YES, YES),
    ("Washington DC", "Washington, D.C.", YES, NO),
    ("Washington D.C", "Washington, D.C.", YES, NO),
    ("San Juan, Puerto Rico", "San Juan Puerto Rico", YES, NO),
    ("Yahoo", "Yahoo!", YES, NO),
    ("AT&T", "AT & T", YES, NO),
    ("Who's Afraid?", "Whos Afraid", NO, NO),
    # apostrophes and possessives
    ("Eugene O’Neill", "Eugene O'Neill", YES, NO),
    ("Eugene ONeill", "Eugene O'Neill", YES, NO),
    ("Shakespeare's plays", "Shakespeare", YES, YES),
    ("Shakespeare’s plays", "William Shakespeare|Shakespeare", YES, YES),
    ("Xian", "Xi'an", YES, NO),
    ("McDonald's", "McDonald's", YES, YES),
    ("McDonald", "McDonald's", YES, NO),
    ("Cote d'Ivoire", "Côte d'Ivoire", YES, NO),
    ("the actors' guild", "actors", YES, YES),
    # initials
    ("J.K. Rowling", "J. K. Rowling", YES, NO),
    ("JK Rowling", "J. K. Rowling", YES, NO),
    ("J. R. R. Tolkien", "J.R.R. Tolkien", YES, NO),
    ("P.G. Wodehouse", "P. G. Wodehouse", YES, NO),
    ("George W. Bush", "George W Bush", YES, NO),
    ("the U.S.A.", "USA", YES, NO),
    ("the USA", "U.S.A.", YES, NO),
    ("R.E.M.", "REM", YES, NO),
    ("Washington, D.C. A. Smith", "Washington DC", YES, NO),
    # function words and names of one or two letters, letter by letter
    ("a band who played", "The Who", NO, NO),
    ("played by The Who", "The Who", YES, YES),
    ("played by the Who", "The Who", NO, YES),
    ("Who", "The Who", YES, NO),
    ("they told us so", "US", NO, YES),
    ("in the US", "US", YES, YES),
    ("in the U.S. since", "U.S.", YES, YES),
    ("US-based", "US", YES, YES),
    ("it was written", "It", NO, YES),
    ("wrote It in 1986", "It", YES, YES),
    ("now and then he", "Now and Then", NO, YES),
    ("sang Now and Then", "Now and Then", YES, YES),
    ("ok", "OK", YES, YES),
    ("it was ok for", "OK", NO, YES),
    ("Tulsa, OK", "OK", YES, YES),
    ("by U2", "U2", YES, YES),
    ("vitamin c", "C", NO, YES),
    ("written in C.", "C", YES, YES),
    # nothing but punctuation
    ("by !!!", "!!!", YES, YES),
    ("by Wow!", "!!!", NO, NO),
    ("!!!", "!!!", YES, YES),
]


@pytest.mark.parametrize(("text", "answers", "words", "substring"), CONTAINS)
def test_contains_gives_the_verdict_written_by_hand(text: str, answers: str, words: bool, substring: bool) -> None:
    names = answers.split("|")
    assert Matcher(names).contains(text) is words
    assert contains(text, names) is words
    assert Matcher(names, rule="substring").contains(text) is substring


def test_the_table_is_as_long_as_it_should_be() -> None:
    assert len(CONTAINS) >= 150
    assert len({(text, answers) for text, answers, *_ in CONTAINS}) == len(CONTAINS)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("The  Hague", "hague"),
        ("a", "a"),
        ("The The", "the the"),
        ("!!!", "!!!"),
        ("  ", ""),
        ("J. R. R. Tolkien's Ring", "jrr tolkien ring"),
        ("U.S. and a U.S. state", "us and us state"),
        ("vitamin C. A study", "vitamin c study"),
        ("Rock 'n' Roll", "rock n roll"),
        ("Łódź, Øresund & Æthelred", "lodz oresund and aethelred"),
        ("1,000", "1 000"),
        ("A$AP Rocky", "ap rocky"),
        ("snake_case", "snake case"),
    ],
)
def test_normal_forms(text: str, form: str) -> None:
    assert normalize(text) == form


@pytest.mark.parametrize(
    ("text", "answers", "same"),
    [
        ("Paris", ["Paris"], True),
        (" the paris. ", ["Paris"], True),
        ("Paris, France", ["Paris"], False),
        ("USA", ["United States of America", "U.S.A."], True),
        ("us", ["US"], True),
        ("York", ["New York"], False),
        ("New York", ["York"], False),
        ("", ["Paris"], False),
        ("!!!", ["!!!"], True),
        ("???", ["!!!"], False),
    ],
)
def test_exact_match_compares_whole_answers(text: str, answers: list[str], same: bool) -> None:
    assert exact_match(text, answers) is same


@pytest.mark.parametrize(
    ("text", "answers", "expected"),
    [
        ("New York", ["New York City"], 0.8),  # precision 2/2, recall 2/3
        ("New York City", ["New York City"], 1.0),
        ("the New York", ["York", "New York"], 1.0),
        ("Rome", ["Paris"], 0.0),
        ("", ["Paris"], 0.0),
        ("Paris Paris", ["Paris"], 2 / 3),  # precision 1/2, recall 1/1
        ("in Paris France", ["Paris"], 0.5),  # precision 1/3, recall 1/1
    ],
)
def test_token_f1_is_the_best_over_the_answers(text: str, answers: list[str], expected: float) -> None:
    assert token_f1(text, answers) == pytest.approx(expected)


def test_a_growing_text_is_settled_only_when_nothing_can_undo_it() -> None:
    iran = Matcher(["Iran"])
    assert [iran.settled(text) for text in ("Ir", "Iran", "Irani", "Iran ", "Iran,", "in Iran.", "Iran and")] == [
        False, False, False, True, True, True, True,
    ]  # fmt: skip
    guinea = Matcher(["Guinea"])
    assert not any(guinea.settled(text) for text in ("Guinea", "Guinea ", "Guinea-", "Guinea-Bissau, and"))
    assert guinea.settled("Guinea and ")
    who = Matcher(["The Who"])
    assert not who.settled("Who ")
    assert who.settled("The Who, a band")
    assert Matcher(["Iran"], rule="substring").settled("Irania")


NAMES = [
    "Iran",
    "York",
    "New York",
    "Guinea",
    "The Who",
    "US",
    "Mexico",
    "J. K. Rowling",
    "Washington, D.C.",
    "O'Neill",
]
PIECES = st.sampled_from(
    [*NAMES, "Iranian", "New", "Guinea-Bissau", "City", "a", "the", "who", "in", ".", ",", "'s", "-", "\n", "U.S.", "é"]
)


@given(st.lists(PIECES, max_size=8), st.sampled_from(NAMES), st.sampled_from(["", " "]))
def test_what_is_settled_stays_right_however_the_text_goes_on(pieces: list[str], name: str, joint: str) -> None:
    matcher = Matcher([name])
    text = joint.join(pieces)
    cut = next((at for at in range(len(text) + 1) if matcher.settled(text[:at])), None)
    assert cut is None or matcher.contains(text)


@given(st.text(max_size=30), st.text(min_size=1, max_size=10).filter(lambda name: bool(name.strip())))
def test_an_exact_match_is_always_contained_and_scores_one(text: str, answer: str) -> None:
    assert normalize(normalize(text)) == normalize(text) or not text.isascii()
    if exact_match(text, [answer]):
        assert contains(text, [answer])
        assert token_f1(text, [answer]) == pytest.approx(1.0) or not normalize(answer)
    assert 0.0 <= token_f1(text, [answer]) <= 1.0
    assert contains(answer, [answer])


@given(st.text(alphabet="abcdefgh ", min_size=1, max_size=12).filter(lambda name: bool(name.strip())))
def test_an_answer_is_found_between_other_words_under_both_rules(answer: str) -> None:
    for rule in ("words", "substring"):
        assert Matcher([answer], rule=rule).contains(f"zz {answer} zz")


def test_every_longer_name_counts_itself_and_hides_what_it_should() -> None:
    for longer, shorter in LONGER_NAMES.items():
        assert Matcher([longer]).contains(f"it is {longer}, they say")
        assert not shorter or not Matcher([shorter]).contains(f"it is {longer}, they say")
    assert Matcher(["Massachusetts"]).contains("in Cambridge, Massachusetts")


def test_a_matcher_refuses_what_it_cannot_look_for() -> None:
    with pytest.raises(ConfigError, match=r"no matching rule 'fuzzy'; choose words or substring"):
        Matcher(["Paris"], rule="fuzzy")
    with pytest.raises(DataError, match="no answers, or an empty one"):
        Matcher([])
    with pytest.raises(DataError, match="no answers, or an empty one"):
        Matcher(["Paris", " "])


@pytest.mark.slow
def test_a_million_completions_are_matched_in_about_a_minute() -> None:
    matcher = Matcher(["United States of America", "United States", "USA", "US", "U.S.", "America"])
    text = " Iran, and it is one of the largest cities in the province, known for its history. The population was"
    start = time.perf_counter()
    for _ in range(100_000):
        matcher.contains(text)
    assert time.perf_counter() - start < 12
