"""Aliases are groups of true equivalents, unambiguous within a relation, and a user's file extends them."""

import re
from collections import Counter
from pathlib import Path
from textwrap import dedent

import pytest

from sftknow.errors import DataError
from sftknow.facts.aliases import load_aliases
from sftknow.facts.fact import Fact
from sftknow.facts.load import load_facts
from sftknow.facts.matching import Matcher
from sftknow.facts.normal import normalize
from sftknow.facts.relations import load_relations

SHARED = Path(__file__).parents[3] / "shared" / "entity_questions" / "dataset.zip"


def test_there_are_many_groups_of_names_that_do_not_contain_each_other() -> None:
    groups = load_aliases().groups
    assert len(groups) >= 600
    telling = [
        group
        for group in groups
        if any(f" {one} " not in f" {other} " and f" {other} " not in f" {one} " for one, other in pairs(group.names))
    ]
    assert len(telling) >= 600
    assert all(len({normalize(name) for name in group.names}) >= 2 for group in groups)


def pairs(names: tuple[str, ...]) -> list[tuple[str, str]]:
    forms = [normalize(name) for name in names]
    return [(one, other) for at, one in enumerate(forms) for other in forms[at + 1 :]]


def test_for_one_relation_a_name_stands_in_one_group_only() -> None:
    relations = load_relations()
    seen = Counter(
        (relation, form)
        for group in load_aliases().groups
        for relation in group.relations
        for form in {normalize(name) for name in group.names}
    )
    assert not [place for place, count in seen.items() if count > 1]
    assert {relation for relation, _ in seen} <= set(relations)


def test_answers_stand_first_and_their_other_names_follow() -> None:
    aliases = load_aliases()
    names = aliases.expand("P17", ["Iran", "United States of America"])
    assert names[:2] == ("Iran", "United States of America")
    assert {"USA", "United States", "America", "Persia"} <= set(names)
    assert len(set(names)) == len(names)
    assert aliases.expand("P17", ["usa"])[0] == "usa"
    assert "United States of America" in aliases.expand("P17", ["usa"])
    assert aliases.expand("P26", ["Nobody Known"]) == ("Nobody Known",)
    assert aliases.expand("P17", ["Iran"]) is aliases.expand("P17", ["Iran"])


def test_ambiguous_names_mean_what_the_relation_asks_for() -> None:
    aliases = load_aliases()
    assert "Sakartvelo" in aliases.expand("P17", ["Georgia"])
    assert aliases.expand("P131", ["Georgia"])[1:] == ("State of Georgia", "GA")
    assert aliases.expand("P36", ["Georgia"]) == ("Georgia",)
    assert "Columbia Records" in aliases.expand("P264", ["Columbia"])
    assert "Columbia University" in aliases.expand("P69", ["Columbia"])
    assert "NYC" in aliases.expand("P19", ["New York City"])
    assert "New York City" not in aliases.expand("P131", ["New York"])
    assert "Washington" in aliases.expand("P19", ["Washington, D.C."])
    assert "Washington, D.C." not in aliases.expand("P131", ["Washington"])
    assert "Français" in aliases.expand("P407", ["French"])


@pytest.mark.parametrize(
    ("relation", "answer", "text"),
    [
        ("P17", "United States of America", "the U.S. state of Texas"),
        ("P17", "People's Republic of China", "China."),
        ("P495", "Soviet Union", "the USSR"),
        ("P19", "Kyiv", "Kiev, Ukraine"),
        ("P20", "Saint Petersburg", "Leningrad"),
        ("P159", "Mumbai", "Bombay"),
        ("P69", "Massachusetts Institute of Technology", "MIT"),
        ("P106", "actor", "an actress"),
        ("P413", "defenceman", "a defenseman for"),
        ("P407", "Persian", "Farsi"),
        ("P136", "hip hop music", "hip-hop"),
        ("P176", "Volkswagen Group", "VW"),
        ("P127", "British Broadcasting Corporation", "the BBC"),
        ("P170", "Vincent van Gogh", "Van Gogh"),
        ("P50", "Fyodor Dostoyevsky", "Fyodor Dostoevsky"),
        ("P276", "Museo del Prado", "the Prado in Madrid"),
        ("P131", "Texas", "Austin, TX"),
    ],
)
def test_an_answer_counts_in_its_other_names(relation: str, answer: str, text: str) -> None:
    assert not Matcher([answer]).contains(text)
    assert Matcher(load_aliases().expand(relation, [answer])).contains(text)


@pytest.mark.parametrize(
    ("relation", "answer", "text"),
    [
        ("P17", "United States of America", "they told us so"),
        ("P131", "Oregon", "in one or two"),
        ("P19", "Los Angeles", "La Paz"),
        ("P69", "University of Cambridge", "studied in Cambridge, Massachusetts"),
        ("P69", "University of Pennsylvania", "Penn State University"),
        ("P17", "Taiwan", "the People's Republic of China"),
        ("P17", "South Korea", "North Korea"),
    ],
)
def test_other_names_do_not_let_other_things_in(relation: str, answer: str, text: str) -> None:
    assert not Matcher(load_aliases().expand(relation, [answer])).contains(text)


@pytest.mark.skipif(not SHARED.is_file(), reason="the EntityQuestions archive is not here")
def test_the_most_frequent_answers_of_the_dataset_are_covered() -> None:
    aliases = load_aliases()
    facts = load_facts(SHARED, only=["P17", "P69", "P407", "P136"]).facts
    shares = aliases.coverage(facts)
    assert shares == pytest.approx(
        {relation: share_by_hand(relation, facts) for relation in shares},
    )
    assert all(shares[relation] > 0.95 for relation in ("P17", "P407"))
    assert all(shares[relation] > 0.6 for relation in ("P69", "P136"))


def share_by_hand(relation: str, facts: tuple[Fact, ...]) -> float:
    names = {normalize(name) for group in load_aliases().groups if relation in group.relations for name in group.names}
    mine = [fact for fact in facts if fact.relation == relation]
    return sum(any(normalize(answer) in names for answer in fact.answers) for fact in mine) / len(mine)


# A user's file


def write(folder: Path, text: str) -> Path:
    path = folder / "aliases.yaml"
    path.write_text(dedent(text).lstrip("\n"), encoding="utf-8")
    return path


def test_a_file_of_ones_own_adds_groups_and_names(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        mine:
          relations: [P17, colour]
          groups:
            - [Uncle Sam's country, USA]
            - [Freedonia, Republic of Freedonia]
        everywhere:
          relations: all
          groups:
            - [Q, Quux]
        """,
    )
    aliases = load_aliases(path)
    packaged = load_aliases()
    assert aliases.expand("P17", ["United States"]) == (
        *packaged.expand("P17", ["United States"]),
        "Uncle Sam's country",
    )
    assert aliases.expand("P495", ["United States"]) == packaged.expand("P495", ["United States"])
    assert aliases.expand("colour", ["USA"]) == ("USA", "Uncle Sam's country")
    assert aliases.expand("P17", ["Freedonia"]) == ("Freedonia", "Republic of Freedonia")
    assert aliases.expand("P999", ["Quux"]) == ("Quux", "Q")
    assert packaged.expand("P17", ["Freedonia"]) == ("Freedonia",)


def test_all_problems_of_an_aliases_file_are_told_at_once_with_their_lines(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        one:
          relations: [P17, P 18]
          groups:
            - [A, B]
        two:
          relations: [P17]
          names: []
          groups:
            - [C]
            - [D, 7]
            - E
            - [Bulgaria, Poland]
            - [F, G]
            - [H, g]
        three: [P17]
        four:
          relations: all
          groups: []
        five:
          groups:
            - [I, J]
        """,
    )
    with pytest.raises(DataError) as caught:
        load_aliases(path)
    group = "a group is a list of at least two names (quote numbers and 'no')"
    assert str(caught.value).splitlines() == [
        f"{path} has 10 problems:",
        "  line 2: section 'one': relations must be a list of relation ids, or 'all';",
        "  line 7: section 'two' has no field 'names'; its fields are relations and groups;",
        f"  line 9: section 'two': {group};",
        f"  line 10: section 'two': {group};",
        f"  line 11: section 'two': {group};",
        "  line 12: 'Bulgaria' would make one group of 'Bulgaria' and 'Poland' for P17, which differ there;",
        "  line 14: 'g' stands in the group on line 13 already, for P17;",
        "  line 15: section 'three' must have the fields relations and groups;",
        "  line 18: section 'four': groups must be a list of lists of names;",
        "  line 19: section 'five' lacks the field 'relations'.",
    ]


@pytest.mark.parametrize(
    ("content", "message"), [("", "is empty."), ("- a", "must be a mapping"), ("a: [", "not valid YAML")]
)
def test_a_file_that_is_no_aliases_file_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "aliases.yaml"
    path.write_text(content)
    with pytest.raises(DataError, match=re.escape(message)):
        load_aliases(path)
    with pytest.raises(DataError, match="does not exist"):
        load_aliases(tmp_path / "none.yaml")
