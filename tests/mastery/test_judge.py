import pytest

from sftknow.facts.matching import Matcher
from sftknow.mastery.judge import AnswerJudge, squeeze

TEXTS = [
    "", " ", " Rome", " Rome.", " Rome, Italy", " Romeo",
    " the United States of America.", " New York", " York, England",
    " in São Paulo", " Sao Paulo!", " O'Neill and Sons", " ONeill.", " J. K. Rowling,", " J.K. Rowling", " JK Rowling",
    " Coca-Cola", " the bank of the west", " AT&T.", " AT and T", " James's house", " Guinea", " Guinea-Bissau and",
    " 東京 ", " The Who,", " who is", " Iran", " Iranian ", "\0 Rome\0", " Rome\ufffd", "ROME WAS", " Saint-Denis. It",
]  # fmt: skip
ANSWERS = [
    ("Rome",), ("New York", "NYC"), ("York",), ("São Paulo",), ("O'Neill",), ("J. K. Rowling",),
    ("Coca-Cola", "Coca Cola"),
    ("Bank of the West",), ("AT&T",), ("James",), ("Guinea",), ("東京", "Tokyo"), ("The Who",), ("Iran",),
    ("Saint Denis",),     ("United States", "USA", "United States of America"),
]  # fmt: skip


@pytest.mark.parametrize("rule", ["words", "substring"])
def test_the_cheap_first_look_never_changes_a_verdict(rule):
    for answers in ANSWERS:
        judge = AnswerJudge([0] * len(TEXTS), [answers], rule)
        matcher = Matcher(answers, rule)
        prompts = range(len(TEXTS))
        assert judge.right(prompts, TEXTS, [True] * len(TEXTS)) == [matcher.contains(text) for text in TEXTS]
        assert judge.right(prompts, TEXTS, [False] * len(TEXTS)) == [matcher.settled(text) for text in TEXTS]


def test_each_prompt_is_judged_by_its_own_fact():
    judge = AnswerJudge([0, 1, 0], [("Rome",), ("Paris",)])
    assert judge.right([0, 1, 2], [" Rome.", " Rome.", " Paris."], [True] * 3) == [True, False, False]


def test_a_word_that_may_still_grow_is_not_right_yet():
    judge = AnswerJudge([0], [("Iran",)])
    assert judge.right([0, 0, 0], [" Iran", " Iran,", " Iranian,"], [False] * 3) == [False, True, False]
    assert judge.right([0], [" Iran"], [True]) == [True]


def test_squeezing_keeps_the_number_of_texts():
    assert squeeze(["A b.", "", "\0C & d"]) == ["ab", "", "candd"]
    assert squeeze([""]) == [""]
