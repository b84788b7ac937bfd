"""The packaged relations are whole, and a user's file is checked to the last line."""

import json
import re
from pathlib import Path
from textwrap import dedent

import pytest

from sftknow.errors import DataError
from sftknow.facts.fact import DOMAINS
from sftknow.facts.relations import SLOT, load_relations, pick_relation

IN_DOMAIN = {f"P{number}" for number in (17, 19, 20, 36, 69, 131, 159, 276, 495, 740)}
OUT_OF_DOMAIN = {f"P{number}" for number in (26, 40, 50, 106, 112, 127, 136, 170, 175, 176, 264, 407, 413, 800)}
PUBLISHED = Path(__file__).parents[3] / "shared" / "entity_questions" / "relation_query_templates.json"


def test_all_24_relations_stand_in_the_domain_of_the_paper() -> None:
    relations = load_relations()
    assert set(relations) == IN_DOMAIN | OUT_OF_DOMAIN
    assert {name for name, relation in relations.items() if relation.domain == "in_domain"} == IN_DOMAIN
    assert {relation.domain for relation in relations.values()} == set(DOMAINS)
    assert all(name == relation.id for name, relation in relations.items())


def test_each_relation_has_21_templates_no_two_alike_in_the_whole_file() -> None:
    templates = [template for relation in load_relations().values() for template in relation.templates]
    assert all(len(relation.templates) == 21 for relation in load_relations().values())
    assert len(templates) == 24 * 21
    assert len({re.sub(r"\W+", " ", template.casefold()) for template in templates}) == len(templates)


def test_templates_name_the_subject_once_and_stop_before_the_object() -> None:
    for relation in load_relations().values():
        for template in (*relation.templates, relation.question):
            assert template.count(SLOT) == 1
            assert "{" not in template.replace(SLOT, "")
        for template in relation.templates:
            assert template == template.strip()
            assert template[-1].isalpha() or template[-1] in ",:"
            assert template[0] in "{" or template[0].isupper()


def test_templates_suppose_neither_a_sex_nor_a_date() -> None:
    for relation in load_relations().values():
        for template in relation.templates:
            assert not set(re.findall(r"[a-z]+", template.casefold())) & {"he", "she", "his", "her", "him", "hers"}
            assert not re.match(r"\{subject\} (was|were) (born|founded|created|formed|written|built) in$", template)


def test_templates_of_a_relation_differ_in_more_than_a_word() -> None:
    for relation in load_relations().values():
        words = [
            frozenset(re.findall(r"[a-z]+", template.casefold())) - {"the", "is", "of"}
            for template in relation.templates
        ]
        assert len({frozenset(kept) for kept in words}) == len(words)


@pytest.mark.skipif(not PUBLISHED.is_file(), reason="the published question templates are not here")
def test_questions_are_those_of_entity_questions() -> None:
    published = json.loads(PUBLISHED.read_text())
    for relation in load_relations().values():
        assert relation.question == published[relation.id].replace("[X]", SLOT)


def test_a_subject_is_recovered_from_its_question() -> None:
    relation = load_relations()["P19"]
    assert relation.ask("Ada Lovelace") == "Where was Ada Lovelace born?"
    assert relation.subject_of("Where was Ada Lovelace born?") == "Ada Lovelace"
    assert relation.subject_of("Where did Ada Lovelace die?") is None
    assert relation.subject_of("Where was born?") is None
    assert relation.subject_of("Where was  born?") is None
    assert relation.statements("X")[0] == "The birthplace of X is"
    child = load_relations()["P40"]
    assert child.subject_of("Who is Who's Who's child?") == "Who's Who"


def test_an_unknown_relation_is_named_with_the_known_ones() -> None:
    with pytest.raises(DataError, match=r"relation 'P999' is not known; known relations: P17, P19, .*P800\."):
        pick_relation(load_relations(), "P999")


def write(folder: Path, text: str) -> Path:
    path = folder / "relations.yaml"
    path.write_text(dedent(text).lstrip("\n"), encoding="utf-8")
    return path


def test_a_relations_file_of_ones_own_is_read_in_its_order(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        favourite-colour:
          domain: out_of_domain
          name: favourite colour
          question: "Which colour does {subject} like?"
          templates: ["{subject} likes the colour", "La couleur préférée de {subject} est :"]
        P19:
          name: birthplace
          domain: in_domain
          question: Where was {subject} born?
          templates:
            - "{subject} comes from"
        """,
    )
    relations = load_relations(path)
    assert list(relations) == ["favourite-colour", "P19"]
    assert relations["favourite-colour"].templates[1] == "La couleur préférée de {subject} est :"
    assert relations["P19"].question == "Where was {subject} born?"


def test_all_problems_of_a_relations_file_are_told_at_once_with_their_lines(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        P1:
          name: 12
          domain: indomain
          question: Where?
          colour: red
          templates:
            - "{subject} was born in."
            - "The birthplace is"
            - "{subject} and {subject} come from"
            - "{subject} was born in {object} in the year"
            - "{subject} hails from "
            - "{subject}"
            - "{Subject} lives in"
            - "{subject} likes"
            - "{subject}  LIKES"
            - 7
        P 2: none
        P3:
          name: three
          domain: in_domain
          question: "Who is {subject}?"
          templates: []
        P3:
          name: again
        P4:
          name: four
        """,
    )
    with pytest.raises(DataError) as caught:
        load_relations(path)
    assert str(caught.value).splitlines() == [
        f"{path} has 20 problems:",
        "  line 2: P1: name must be text (put it in quotes);",
        "  line 3: P1: domain 'indomain' must be one of in_domain, out_of_domain;",
        "  line 4: P1: question 'Where?' lacks {subject};",
        "  line 5: P1 has no field 'colour'; its fields are name, domain, question, templates;",
        "  line 7: P1: template '{subject} was born in.' ends with '.'; it stops just before the object, "
        "with no text after the object's place;",
        "  line 8: P1: template 'The birthplace is' lacks {subject};",
        "  line 9: P1: template '{subject} and {subject} come from' holds {subject} 2 times; it may stand there once;",
        "  line 10: P1: template '{subject} was born in {object} in the year' holds {object}: leave the object out, "
        "with any text after its place;",
        "  line 11: P1: template '{subject} hails from ' begins or ends with white space; it stops right after the "
        "last word before the object;",
        "  line 12: P1: template '{subject}' says nothing but the subject;",
        "  line 13: P1: template '{Subject} lives in' lacks {subject};",
        "  line 15: P1: template '{subject}  LIKES' stands on line 14 already;",
        "  line 16: P1: a template must be text (put it in quotes);",
        "  line 17: P 2 must have the fields name, domain, question, templates;",
        "  line 17: relation id 'P 2' may hold letters, digits, '.', '_' and '-' only;",
        "  line 22: P3: templates must be a list of at least one completion template;",
        "  line 23: 'P3' stands here for the second time; it is first on line 18;",
        "  line 25: P4 lacks the field 'domain';",
        "  line 25: P4 lacks the field 'question';",
        "  line 25: P4 lacks the field 'templates'.",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty."),
        (b"# only a comment\n", "is empty."),
        (b"- a\n- b\n", "line 1: the top level must be a mapping"),
        (b"P1:\n  name: [\n", "is not valid YAML: line"),
        (b"P1:\n\tname: x\n", "is not valid YAML: line 2"),
        (b"\xff\xfe\x00", "is not a text file in UTF-8"),
        (b"? [a, b]\n: c\n", "line 1: a key must be plain text"),
    ],
)
def test_a_file_that_is_no_relations_file_is_refused_in_one_sentence(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "relations.yaml"
    path.write_bytes(content)
    with pytest.raises(DataError, match=re.escape(message)):
        load_relations(path)


def test_a_missing_relations_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.yaml does not exist"):
        load_relations(tmp_path / "none.yaml")
    with pytest.raises(DataError, match="cannot be read"):
        load_relations(tmp_path)
