from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftknow.errors import ConfigError
from sftknow.facts.fact import Fact
from sftknow.mastery.table import MasteryTable, ProbedFact
from sftknow.tuning.selection import parse_buckets, select_facts


def row(relation, number, *, bucket=0, split="train", domain="in_domain", subject=None, question=None):
    fact = Fact(
        f"{relation}-{split}-{number}",
        relation,
        domain,
        split,
        subject or f"{relation} subject {split} {number}",
        question or f"{relation} question {split} {number}?",
        ("answer",),
    )
    return ProbedFact.from_counts(fact, (bucket,), (4,))


def uneven_table(sizes):
    return MasteryTable(tuple(row(relation, number) for relation, size in sizes.items() for number in range(size)))


def test_relations_share_evenly():
    chosen = select_facts(uneven_table({"a": 50, "b": 50, "c": 50}), 0, 60, 1)
    assert chosen.per_relation == {"a": 20, "b": 20, "c": 20}
    assert Counter(fact.relation for fact in chosen.facts) == chosen.per_relation
    assert chosen.shortfalls == {}


def test_a_relation_that_runs_out_is_reported_and_made_up_for():
    chosen = select_facts(uneven_table({"a": 4, "b": 50, "c": 50}), 0, 60, 1)
    assert chosen.per_relation == {"a": 4, "b": 28, "c": 28}
    assert chosen.shortfalls == {"a": 16}


def test_a_relation_without_facts_in_the_bucket_is_a_shortfall_too():
    table = MasteryTable(
        tuple(row("a", number) for number in range(20)) + tuple(row("b", number, bucket=3) for number in range(20))
    )
    assert select_facts(table, 0, 10, 0).shortfalls == {"b": 5}


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.dictionaries(st.sampled_from("abcde"), st.integers(1, 40), min_size=1),
    seed=st.integers(0, 2**32),
    data=st.data(),
)
def test_draws_of_one_seed_are_nested_and_never_repeat(sizes, seed, data):
    table, total = uneven_table(sizes), sum(sizes.values())
    large = data.draw(st.integers(1, total))
    small = data.draw(st.integers(1, large))
    big, little = (select_facts(table, 0, size, seed).facts for size in (large, small))
    assert big[:small] == little
    assert len({fact.id for fact in big}) == large


def test_the_order_of_the_table_does_not_matter_and_the_seed_does():
    table = uneven_table({"a": 40, "b": 40})
    turned = MasteryTable(tuple(reversed(table.rows)))
    assert select_facts(table, 0, 30, 5).facts == select_facts(turned, 0, 30, 5).facts
    assert select_facts(table, 0, 30, 5).facts != select_facts(table, 0, 30, 6).facts


def test_only_in_domain_train_facts_of_the_bucket_are_drawn(table):
    chosen = select_facts(table, (1, 3), "all", 0)
    rows = {row.fact.id: row for row in table.rows}
    drawn = [rows[fact.id] for fact in chosen.facts]
    assert {entry.bucket for entry in drawn} == {1, 3}
    assert {(entry.fact.split, entry.fact.domain) for entry in drawn} == {("train", "in_domain")}
    assert chosen.per_bucket == {1: 16, 3: 16}


def test_facts_that_share_a_subject_or_question_with_a_test_fact_are_set_aside():
    table = MasteryTable(
        (
            row("a", 1, subject="Ann Lee"),
            row("a", 2, question="Same?"),
            row("a", 3),
            row("b", 4, split="test", domain="out_of_domain", subject="ANN LEE"),
            row("a", 5, split="test", question="same?"),
        )
    )
    chosen = select_facts(table, 0, "all", 0)
    assert [fact.id for fact in chosen.facts] == ["a-train-3"]
    assert chosen.set_aside == 2


def test_too_few_facts_are_refused_with_the_number_there_is():
    table = uneven_table({"a": 7})
    with pytest.raises(ConfigError, match=r"60 training facts were asked for, and bucket 0 .* has 7; .*--allow-fewer"):
        select_facts(table, 0, 60, 0)
    assert len(select_facts(table, 0, 60, 0, allow_fewer=True).facts) == 7


def test_an_empty_bucket_is_refused_even_with_allow_fewer():
    with pytest.raises(ConfigError, match="no facts to train on in bucket 2"):
        select_facts(uneven_table({"a": 7}), 2, 5, 0, allow_fewer=True)


def test_mixed_is_all_five_buckets(table):
    assert select_facts(table, "mixed", 40, 0).facts == select_facts(table, (0, 1, 2, 3, 4), 40, 0).facts


@pytest.mark.parametrize("wrong", ["5", "", "low", (0, 7), (), -1])
def test_buckets_that_do_not_exist_are_refused(wrong):
    with pytest.raises(ConfigError, match="does not exist"):
        parse_buckets(wrong)


def test_buckets_are_read_from_text():
    assert parse_buckets("3,1") == (1, 3)
    assert parse_buckets(4) == (4,)


def test_no_facts_asked_for_is_refused(table):
    with pytest.raises(ConfigError, match="0 training facts"):
        select_facts(table, 0, 0, 0)
