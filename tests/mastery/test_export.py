import json

import pytest
from click.testing import CliRunner
from probe_worlds import make_fact

from sftknow.cli.export import command
from sftknow.errors import ConfigError, DataError
from sftknow.mastery.export import fact_rows, label_own, write_rows
from sftknow.mastery.table import MasteryTable, ProbedFact

HITS = (0, 1, 3, 5, 8)
FACTS = [make_fact(f"S{n}", "Rome", split="train" if n < 4 else "test") for n in range(5)]
TABLE = MasteryTable(
    tuple(ProbedFact.from_counts(fact, (hits,), (8,)) for fact, hits in zip(FACTS, HITS, strict=True)),
    templates={"birth": ["{subject} was born in"]},
)


def test_facts_of_chosen_buckets_go_out_with_prompt_completion_and_labels():
    rows = fact_rows(TABLE, buckets=(1, 2, 3, 4), split="train")
    assert [row["bucket"] for row in rows] == [1, 2, 3]
    assert rows[0]["prompt"] == "<|question|> Where was S1 born? <|answer|>"
    assert rows[0]["completion"] == " Rome "
    assert rows[0]["mastery"] == 1 / 8


def test_one_s_own_rows_are_labelled_by_their_question_and_the_unknown_left_out():
    own = [
        {"question": "where was  S1 BORN?", "text": "x"},
        {"question": "Where was S0 born?", "text": "not known to the model"},
        {"question": "What is this?", "text": "never probed"},
    ]
    found = label_own(own, TABLE, buckets=(1, 2, 3, 4))
    assert found.rows == ({**own[0], "mastery": 0.125, "bucket": 1},)
    assert (found.known, found.unknown) == (2, 1)
    kept = label_own(own, TABLE, buckets=(1, 2, 3, 4), keep_unknown=True)
    assert kept.rows[1] == {**own[2], "mastery": None, "bucket": None}
    prompts = [{"prompt": "<|question|> Where was S2 born? <|answer|>"}]
    assert label_own(prompts, TABLE, field="prompt").rows[0]["bucket"] == 2


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "datasets"])
def test_every_format_reads_back_as_datasets_does(tmp_path, kind):
    import datasets

    rows = fact_rows(TABLE)
    out = tmp_path / f"known.{kind}"
    write_rows(rows, out, kind)
    if kind == "datasets":
        back = datasets.load_from_disk(str(out))
    else:
        name = {"jsonl": "json"}.get(kind, kind)
        back = datasets.load_dataset(name, data_files=str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert back.to_list() == rows


def test_an_existing_file_is_kept_unless_told_otherwise(tmp_path):
    out = tmp_path / "known.jsonl"
    out.write_text("mine")
    with pytest.raises(ConfigError, match="already exists"):
        write_rows(fact_rows(TABLE), out, "jsonl")
    assert out.read_text() == "mine"
    write_rows(fact_rows(TABLE), out, "jsonl", overwrite=True)
    assert len(out.read_text().splitlines()) == 5


def test_nothing_to_export_is_refused(tmp_path):
    with pytest.raises(DataError, match="no row is left"):
        write_rows([], tmp_path / "x.jsonl", "jsonl")


def test_the_command_exports_facts_and_one_s_own_set(tmp_path):
    TABLE.write(tmp_path / "table")
    done = CliRunner().invoke(
        command, [str(tmp_path / "table"), "--bucket", "1,2,3", "--out", str(tmp_path / "known.jsonl")]
    )
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in (tmp_path / "known.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [fact.id for fact in FACTS[1:4]]
    own = tmp_path / "own.jsonl"
    own.write_text("".join(json.dumps({"question": fact.question}) + "\n" for fact in FACTS))
    done = CliRunner().invoke(
        command,
        [str(tmp_path / "table"), "--data", str(own), "--bucket", "4", "--out", str(tmp_path / "own4.jsonl")],
    )
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "own4.jsonl").read_text()) == {
        "question": FACTS[4].question,
        "mastery": 1.0,
        "bucket": 4,
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty"),
        ('{"question": "x"}\n{broken\n', "line 2: not JSON"),
        ("[1]\n", "line 1: a row must be a JSON object"),
        ('{"prompt": "x"}\n', "row 1 of the data has no text in the field 'question'"),
    ],
)
def test_a_malformed_set_of_one_s_own_is_refused_naming_the_line(tmp_path, text, told):
    TABLE.write(tmp_path / "table")
    own = tmp_path / "own.jsonl"
    own.write_text(text)
    done = CliRunner().invoke(
        command, [str(tmp_path / "table"), "--data", str(own), "--out", str(tmp_path / "x.jsonl")]
    )
    assert isinstance(done.exception, DataError) and told in str(done.exception)
    assert not (tmp_path / "x.jsonl").exists()
