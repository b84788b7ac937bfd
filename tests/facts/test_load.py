"""Facts from an archive, a folder or JSONL: what is read, merged and counted, and what is refused in one sentence."""

import json
import re
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftknow.errors import DataError
from sftknow.facts import entity_questions
from sftknow.facts.fact import Fact, fact_id
from sftknow.facts.load import leaks, load_facts
from sftknow.facts.relations import Relation, load_relations

SHARED = Path(__file__).parents[3] / "shared" / "entity_questions" / "dataset.zip"
needs_archive = pytest.mark.skipif(not SHARED.is_file(), reason="the EntityQuestions archive is not here")

Rows = list[dict[str, Any]]
SMALL: dict[str, Rows] = {
    "train/P19.train.json": [
        {"question": "Where was Ada born?", "answers": ["London"]},
        {"question": "Where was Bob born?", "answers": ["Paris", "France"]},
        {"question": "Where was Ada born?", "answers": ["England", "London"]},
        {"question": "Where was Cäcilie born?", "answers": ["Wien"]},
    ],
    "test/P19.test.json": [
        {"question": "Where was Dan born?", "answers": ["Oslo"]},
        {"question": "Where was Bob born?", "answers": ["Rome"]},
    ],
    "dev/P19.dev.json": [{"question": "Where was Eve born?", "answers": ["Riga"]}],
    "train/P131.train.json": [{"question": "Where is Hull located?", "answers": ["England"]}],
    "test/P276.test.json": [{"question": "Where is Hull located?", "answers": ["Yorkshire"]}],
    "train/P26.train.json": [
        {"question": "Who is DAN married to?", "answers": ["Dora"]},
        {"question": "Who is Zoe married to?", "answers": ["Zack"]},
    ],
}


def zip_of(path: Path, files: dict[str, Any], prefix: str = "dataset/") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(prefix + name, content if isinstance(content, bytes | str) else json.dumps(content))
    return path


def folder_of(path: Path, files: dict[str, Any]) -> Path:
    for name, content in files.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def with_file(name: str, content: Any) -> dict[str, Any]:
    return {**SMALL, name: content}


def test_a_small_archive_is_read_merged_and_counted(tmp_path: Path) -> None:
    loaded = load_facts(zip_of(tmp_path / "dataset.zip", SMALL))
    assert [(fact.relation, fact.split, fact.subject, fact.answers) for fact in loaded.facts] == [
        ("P19", "train", "Ada", ("London", "England")),
        ("P19", "train", "Bob", ("Paris", "France")),
        ("P19", "train", "Cäcilie", ("Wien",)),
        ("P19", "dev", "Eve", ("Riga",)),
        ("P19", "test", "Dan", ("Oslo",)),
        ("P19", "test", "Bob", ("Rome",)),
        ("P26", "train", "DAN", ("Dora",)),
        ("P26", "train", "Zoe", ("Zack",)),
        ("P131", "train", "Hull", ("England",)),
        ("P276", "test", "Hull", ("Yorkshire",)),
    ]
    ada = loaded.facts[0]
    assert ada == Fact(
        fact_id("P19", "train", "Where was Ada born?"),
        "P19",
        "in_domain",
        "train",
        "Ada",
        "Where was Ada born?",
        ("London", "England"),
    )
    assert {fact.domain for fact in loaded.facts if fact.relation == "P26"} == {"out_of_domain"}
    report = loaded.report
    assert (report.rows, report.facts, report.merged) == (11, 10, 1)
    assert (report.question_leaks, report.subject_leaks, report.left_out) == (2, 3, 0)  # Bob, Hull; and Dan
    assert report.counts["P19", "train"] == 3
    assert report.lines() == [
        "rows: 11, facts: 10, relations: 4",
        "rows that repeat a question, their answers merged: 1",
        "train facts that share a question with test: 2, a subject: 3 (kept; --no-leak leaves them out of train)",
        "relation        train      dev     test",
        "P19                 3        1        2",
        "P26                 2        0        0",
        "P131                1        0        0",
        "P276                0        0        1",
    ]


def test_no_leak_leaves_train_facts_out_whose_question_or_subject_is_tested(tmp_path: Path) -> None:
    loaded = load_facts(zip_of(tmp_path / "dataset.zip", SMALL), no_leak=True)
    assert [fact.subject for fact in loaded.facts if fact.split == "train"] == ["Ada", "Cäcilie", "Zoe"]
    assert len([fact for fact in loaded.facts if fact.split == "test"]) == 3
    assert (loaded.report.question_leaks, loaded.report.subject_leaks, loaded.report.left_out) == (2, 3, 3)
    assert "(3 left out of train)" in loaded.report.lines()[2]


def test_zip_and_folder_with_and_without_the_upper_level_give_the_same_facts(tmp_path: Path) -> None:
    facts = load_facts(zip_of(tmp_path / "a.zip", SMALL)).facts
    assert load_facts(zip_of(tmp_path / "b.zip", SMALL, prefix="")).facts == facts
    assert load_facts(zip_of(tmp_path / "c.bin", SMALL, prefix="entity-questions/dataset/")).facts == facts
    assert load_facts(folder_of(tmp_path / "d", SMALL)).facts == facts
    assert load_facts(str(folder_of(tmp_path / "e" / "dataset", SMALL).parent)).facts == facts


def test_files_beside_the_facts_are_passed_over(tmp_path: Path) -> None:
    extra = {
        "README.md": "read me",
        "train/notes.txt": "x",
        "__MACOSX/train/P19.train.json": b"\0\0",
        "a/P19.json": "x",
    }
    facts = load_facts(zip_of(tmp_path / "a.zip", {**extra, **SMALL}, prefix="")).facts
    assert facts == load_facts(folder_of(tmp_path / "b", SMALL)).facts


def test_only_some_relations_can_be_asked_for(tmp_path: Path) -> None:
    source = zip_of(tmp_path / "a.zip", with_file("train/P999.train.json", []))
    loaded = load_facts(source, only=["P26", "P131"])
    assert {fact.relation for fact in loaded.facts} == {"P26", "P131"}
    with pytest.raises(DataError, match=r"relation 'P998' is not known; known relations: P17, .*P800\."):
        load_facts(source, only=["P998"])
    with pytest.raises(DataError, match=r"has no relation 'P17'; it has P131, P19, P26, P276, P999\."):
        load_facts(source, only=["P17"])


def test_the_identity_tells_the_same_content_from_another(tmp_path: Path) -> None:
    source = zip_of(tmp_path / "a.zip", SMALL)
    assert load_facts(source).identity["bytes"] == source.stat().st_size
    first = load_facts(folder_of(tmp_path / "b", SMALL)).identity["digest"]
    assert load_facts(folder_of(tmp_path / "c", SMALL)).identity["digest"] == first
    changed = with_file("dev/P19.dev.json", [{"question": "Where was Eve born?", "answers": ["Oslo"]}])
    assert load_facts(folder_of(tmp_path / "d", changed)).identity["digest"] != first


BAD_FILES: list[tuple[str, Any, str]] = [
    ("train/P19.train.json", "", "P19.train.json is empty."),
    ("train/P19.train.json", '[{"question": "Where was X born?",\n"answers": ["x"]},\noops]', "line 3: not valid JSON"),
    ("train/P19.train.json", "{}", "must hold a JSON list of questions."),
    ("train/P19.train.json", [[]], "row 1: expected an object with 'question' and 'answers'."),
    ("train/P19.train.json", [{"answers": ["x"]}], "row 1: expected an object with 'question' and 'answers'."),
    ("train/P19.train.json", [*SMALL["train/P19.train.json"], {"question": "Where was X born?"}], "row 5: 'answers'"),
    ("train/P19.train.json", [{"question": "Where was X born?", "answers": []}], "row 1: 'answers' must be a list"),
    ("train/P19.train.json", [{"question": "Where was X born?", "answers": ["a", " "]}], "row 1: an answer is empty."),
    ("train/P19.train.json", [{"question": "Where was X born?", "answers": ["a", 3]}], "row 1: 'answers' must hold"),
    ("train/P19.train.json", [{"question": "Who is X?", "answers": ["a"]}], "does not have the wording of P19"),
    ("train/P999.train.json", [], "relation 'P999' is not known; known relations: P17, P19"),
    ("train/P19.test.json", [], "stands in the folder of another split; put it into test/."),
    ("train/P19.train.json", "[" * 100_000, "is nested too deeply"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "message"), BAD_FILES)
@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_a_malformed_archive_is_refused_naming_file_and_row(
    tmp_path: Path, name: str, content: Any, message: str, kind: str
) -> None:
    files = with_file(name, content)
    source = zip_of(tmp_path / "a.zip", files) if kind == "zip" else folder_of(tmp_path / "a", files)
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        load_facts(source)
    assert str(source) in str(caught.value)
    assert "\n" not in str(caught.value)


def truncated(path: Path) -> None:
    path.write_bytes(zip_of(path, SMALL).read_bytes()[:-60])


def damaged_member(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("train/P19.train.json", json.dumps(SMALL["train/P19.train.json"]))
    path.write_bytes(path.read_bytes().replace(b"London", b"Londin", 1))


def encrypted(path: Path) -> None:
    data = bytearray(zip_of(path, SMALL).read_bytes())
    for start in (match.start() for match in re.finditer(b"PK\x01\x02", bytes(data))):
        data[start + 8] |= 1
    path.write_bytes(data)


def with_declared_size(path: Path, content: bytes, size: int) -> None:
    """An archive whose list of contents declares another size for its one member."""
    data = bytearray(zip_of(path, {"train/P19.train.json": content}).read_bytes())
    entry = bytes(data).index(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = struct.pack("<I", size)
    path.write_bytes(data)


def bomb(path: Path) -> None:
    with_declared_size(path, b"[]", 315_000_000)


def bomb_that_lies(path: Path) -> None:
    with_declared_size(path, b"[" + b" " * 20_000_000 + b"]", 10)


BAD_SOURCES: list[tuple[Callable[[Path], object], str]] = [
    (lambda path: None, "does not exist; name the EntityQuestions zip or folder, or a JSONL file of facts."),
    (lambda path: path.write_bytes(b""), "is not a zip archive, or is damaged"),
    (lambda path: path.write_bytes(b"PK\x03\x04 and no more"), "is not a zip archive, or is damaged"),
    (truncated, "is not a zip archive, or is damaged"),
    (damaged_member, "train/P19.train.json is damaged"),
    (encrypted, "cannot be unpacked"),
    (bomb, "would unpack to 315 MB, more than"),
    (bomb_that_lies, "is damaged"),
    (lambda path: zip_of(path, {"facts.csv": "a,b"}), "does not have the layout of the EntityQuestions archive"),
    (lambda path: zip_of(path, {}), "does not have the layout of the EntityQuestions archive"),
    (lambda path: zip_of(path, {"train/P19.train.json": []}), "holds no facts of any relation."),
    (lambda path: path.mkdir(), "does not have the layout of the EntityQuestions archive"),
]


@pytest.mark.parametrize(("make", "message"), BAD_SOURCES)
def test_a_source_that_is_no_archive_is_refused_in_one_line(
    tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    path = tmp_path / "facts.zip"
    make(path)
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        load_facts(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_files_for_one_relation_and_split_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")
        for _ in range(2):
            archive.writestr("dataset/train/P19.train.json", json.dumps(SMALL["train/P19.train.json"]))
    with pytest.raises(DataError, match="holds both dataset/train/P19"):
        load_facts(path)


def test_no_more_is_unpacked_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = zip_of(tmp_path / "a.zip", SMALL)
    monkeypatch.setattr(entity_questions, "MAX_TOTAL_BYTES", 100)
    with pytest.raises(DataError, match="would unpack to"):
        load_facts(source)


# JSONL


def jsonl(path: Path, *rows: Any) -> Path:
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return path


ADA = {"relation": "P19", "subject": "Ada", "answers": ["London"], "split": "train"}


def test_jsonl_facts_take_their_question_from_the_relation_or_bring_their_own(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path / "facts.jsonl",
        ADA,
        "",
        {**ADA, "answers": "England", "label": 3},
        {**ADA, "subject": " Bob ", "question": "Whence comes Bob?", "split": "test", "answers": [" Rome ", "Rome"]},
    )
    loaded = load_facts(path)
    assert [(fact.subject, fact.question, fact.answers, fact.split) for fact in loaded.facts] == [
        ("Ada", "Where was Ada born?", ("London", "England"), "train"),
        ("Bob", "Whence comes Bob?", ("Rome",), "test"),
    ]
    assert (loaded.report.rows, loaded.report.merged) == (3, 1)
    assert loaded.facts[0].id == fact_id("P19", "train", "Where was Ada born?")


def test_jsonl_may_begin_with_a_byte_order_mark_and_end_lines_in_any_way(tmp_path: Path) -> None:
    path = tmp_path / "facts.txt"
    path.write_bytes(
        b"\xef\xbb\xbf" + json.dumps(ADA).encode() + b"\r\n\r\n" + json.dumps({**ADA, "subject": "\u2028B"}).encode()
    )
    assert [fact.subject for fact in load_facts(path).facts] == ["Ada", "B"]


def test_jsonl_facts_of_ones_own_relations(tmp_path: Path) -> None:
    own = {"colour": Relation("colour", "colour", "out_of_domain", "Which colour is {subject}?", ("{subject} is",))}
    loaded = load_facts(jsonl(tmp_path / "a", {**ADA, "relation": "colour", "answers": ["red"]}), relations=own)
    assert (loaded.facts[0].domain, loaded.facts[0].question) == ("out_of_domain", "Which colour is Ada?")


def test_question_sets_without_templates_are_taken_when_asked_for(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path / "trivia.jsonl",
        {"relation": "trivia", "question": "Who?", "answers": ["Me"], "split": "test"},
        {**ADA, "relation": "trivia", "question": "What?", "subject": "It", "domain": "out_of_domain", "split": "dev"},
        ADA,
    )
    with pytest.raises(DataError, match="line 1: relation 'trivia' is not known"):
        load_facts(path)
    facts = load_facts(path, any_relation=True).facts
    assert [(fact.relation, fact.domain, fact.subject, fact.question) for fact in facts] == [
        ("trivia", "in_domain", "Who?", "Who?"),
        ("trivia", "out_of_domain", "It", "What?"),
        ("P19", "in_domain", "Ada", "Where was Ada born?"),
    ]
    assert len(load_facts(path, any_relation=True, only=["trivia"]).facts) == 2
    wrong = jsonl(
        tmp_path / "wrong.jsonl",
        {"relation": "t", "question": "Who?", "answers": ["x"], "split": "test", "domain": "z"},
    )
    with pytest.raises(DataError, match="line 1: domain 'z' must be one of in_domain, out_of_domain"):
        load_facts(wrong, any_relation=True)


BAD_LINES: list[tuple[Any, str]] = [
    ("{not json}", "line 2: not valid JSON"),
    ('["a"]', "line 2: expected an object with relation, subject, answers, split; a JSON list is no JSONL"),
    ("[", "line 2: not valid JSON (Expecting value); a JSON list is no JSONL: write one object a line."),
    ("3", "line 2: expected an object"),
    ({**ADA, "relation": "P999"}, "line 2: relation 'P999' is not known; known relations: P17"),
    ({**ADA, "relation": 19}, "line 2: 'relation' must be text"),
    ({**ADA, "subject": ""}, "line 2: 'subject' must be text that is not empty."),
    ({**ADA, "question": "  "}, "line 2: 'question' must be text that is not empty."),
    ({**ADA, "split": "validation"}, "line 2: split 'validation' must be one of train, dev, test."),
    ({**ADA, "answers": []}, "line 2: 'answers' must be a list of at least one answer."),
    ({**ADA, "answers": [""]}, "line 2: an answer is empty."),
    ({**ADA, "answers": [1]}, "line 2: 'answers' must hold texts only."),
    ({**ADA, "answers": None}, "line 2: 'answers' must be a list"),
    ({"relation": "P19", "subject": "B", "split": "test"}, "line 2: the field 'answers' is missing."),
    ({"relation": "P19", "answers": ["x"], "split": "test"}, "line 2: the field 'subject' is missing."),
    ({"subject": "B", "answers": ["x"], "split": "test"}, "line 2: the field 'relation' is missing."),
    ("[" * 100_000, "line 2: nested too deeply"),
]


@pytest.mark.parametrize(("line", "message"), BAD_LINES)
def test_a_wrong_line_of_jsonl_is_named(tmp_path: Path, line: Any, message: str) -> None:
    path = jsonl(tmp_path / "facts.jsonl", ADA, line)
    with pytest.raises(DataError, match=re.escape(f"{path}, {message}")):
        load_facts(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; expected one JSON object a line"),
        (b"\n \n", "is empty; expected one JSON object a line"),
        (b"\xff\xfe{", "is neither a zip nor a text file in UTF-8"),
    ],
)
def test_an_empty_or_binary_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=re.escape(message)):
        load_facts(path)


def test_jsonl_without_facts_of_the_wanted_relations_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no facts of P17, P20\."):
        load_facts(jsonl(tmp_path / "a", ADA), only=["P17", "P20"])


# Overlaps of train and test


def fact(relation: str, split: Any, subject: str, question: str) -> Fact:
    return Fact(fact_id(relation, split, question), relation, "in_domain", split, subject, question, ("x",))


def test_names_that_differ_in_case_or_unicode_form_are_the_same_subject() -> None:
    test = fact("P19", "test", "Zoe\u0308", "Where was Zoe\u0308 born?")
    same = fact("P20", "train", "ZOË", "Where did ZOË die?")
    other = fact("P20", "train", "Zoe", "Where did Zoe die?")
    asked, about = leaks([test, same, other])
    assert (asked, about) == (set(), {same.id})


@given(
    st.lists(
        st.tuples(st.sampled_from(["P19", "P20"]), st.sampled_from(["train", "dev", "test"]), st.sampled_from("ABCDE"))
    )
)
def test_leaks_are_those_of_a_plain_comparison(drawn: list[tuple[str, Any, str]]) -> None:
    relations = load_relations()
    facts = [
        fact(relation, split, name, relations[relation].ask(name)) for relation, split, name in dict.fromkeys(drawn)
    ]
    asked, about = leaks(facts)
    for one in facts:
        tested = [other for other in facts if other.split == "test"] if one.split == "train" else []
        assert (one.id in asked) == any(other.question == one.question for other in tested)
        assert (one.id in about) == any(other.subject == one.subject for other in tested)


# The real archive


@pytest.mark.slow
@needs_archive
def test_the_whole_archive_parses_and_its_repeats_are_merged() -> None:
    loaded = load_facts(SHARED)
    report = loaded.report
    assert (report.rows, report.merged, report.facts) == (220_703, 1_806, 218_897)
    relations = load_relations()
    assert {fact.relation for fact in loaded.facts} == set(relations)
    assert len({fact.id for fact in loaded.facts}) == len(loaded.facts)
    rows, questions = plain_reading()
    assert (rows, len(questions)) == (220_703, 218_897)
    for fact in loaded.facts:
        assert relations[fact.relation].question.replace("{subject}", fact.subject) == fact.question
        assert set(fact.answers) == questions[fact.relation, fact.split, fact.question]
    assert report.counts["P19", "train"] == 7_991
    assert (report.question_leaks, report.subject_leaks, report.left_out) == (374, 3_342, 0)
    assert loaded.identity["sha256"]


def plain_reading() -> tuple[int, dict[tuple[str, str, str], set[str]]]:
    """Read the archive in the plainest way: (relation, split, question) -> every answer given anywhere."""
    rows, questions = 0, {}
    with zipfile.ZipFile(SHARED) as archive:
        for name in archive.namelist():
            relation, split, _ = name.rsplit("/", 1)[1].split(".")
            for row in json.loads(archive.read(name)):
                rows += 1
                questions.setdefault((relation, split, row["question"]), set()).update(row["answers"])
    return rows, questions


@needs_archive
def test_no_leak_makes_train_and_test_of_the_archive_disjoint() -> None:
    loaded = load_facts(SHARED, only=["P19", "P20", "P131", "P276"], no_leak=True)
    subjects = {
        split: {fact.subject.casefold() for fact in loaded.facts if fact.split == split} for split in ("train", "test")
    }
    assert not subjects["train"] & subjects["test"]
    assert loaded.report.left_out == loaded.report.subject_leaks > 0
