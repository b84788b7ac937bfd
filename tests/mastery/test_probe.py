import json
import subprocess
import sys
from dataclasses import replace
from math import sqrt
from pathlib import Path

import pytest
from probe_worlds import FACTS, RELATIONS, RIGHT, SCRIPT, NoAliases, make_fact
from scripted import write_random, write_scripted

from sftknow.errors import CheckpointError, ConfigError, DataError
from sftknow.facts.fact import Fact
from sftknow.facts.relations import Relation
from sftknow.mastery import source
from sftknow.mastery.probe import probe
from sftknow.mastery.table import read_mastery


@pytest.fixture(scope="module")
def scripted(tmp_path_factory):
    return write_scripted(tmp_path_factory.mktemp("scripted"), SCRIPT)


@pytest.fixture(scope="module")
def vague(tmp_path_factory):
    """A random model: its completions hold the answers now and then."""
    return write_random(tmp_path_factory.mktemp("random"), seed=1)


def many_facts(count):
    names = ["Rome", "Paris", "Lima", "Bern"]
    return [
        replace(make_fact("Anna", names[n % 4]), id=f"birth-{n}", question=f"{n}?") for n in range(count)
    ]  # fmt: skip


def run(folder, facts=FACTS, relations=RELATIONS, **options):
    return probe(folder, facts, relations, aliases=NoAliases(), device="cpu", **options)


def test_r_of_a_scripted_model_is_within_binomial_error(scripted):
    table = run(scripted, samples=1500)
    assert [row.fact for row in table.rows] == list(FACTS)
    for row in table.rows:
        assert row.template_trials == (1500, 1500, 1500)
        assert row.trials == 4500 and row.hits == sum(row.template_hits)
        for hits, p in zip(row.template_hits, RIGHT[row.fact.answers[0]], strict=True):
            assert abs(hits / 1500 - p) <= 4 * sqrt(p * (1 - p) / 1500)


def test_facts_with_equal_prompts_are_drawn_apart(scripted):
    rows = run(scripted, [make_fact("Anna", "Rome"), make_fact("Anna", "Paris")], samples=2000).rows
    # The same prompt for both: of one stream, hits of Rome and of Paris behind "born in" would add up to every draw.
    assert rows[0].template_hits[0] + rows[1].template_hits[0] != 2000


def test_another_seed_draws_other_samples_and_the_same_seed_the_same(scripted):
    first, again, other = (run(scripted, samples=40, seed=seed) for seed in (0, 0, 1))
    assert first.rows == again.rows
    assert first.rows != other.rows


def test_the_table_says_how_it_was_made_and_survives_its_folder(scripted, tmp_path):
    table = run(scripted, samples=5, seed=3)
    table.write(tmp_path / "table")
    back = read_mastery(tmp_path / "table")
    assert back.rows == table.rows
    wanted = {"estimator": "sample", "templates": 3, "samples": 5, "temperature": 0.7, "max_new_tokens": 32}
    assert wanted.items() <= back.protocol.items()
    assert back.protocol["cost"]["completions"] == 9 * 3 * 5
    assert back.seeds == {"probe": 3}
    assert back.made_from["model"]["path"] == str(scripted)
    assert back.templates == {"birth": list(RELATIONS["birth"].templates)}


def test_fewer_templates_are_the_first_ones_with_the_same_samples(scripted):
    full, two = run(scripted, samples=20), run(scripted, samples=20, templates=2)
    assert [row.template_hits for row in two.rows] == [row.template_hits[:2] for row in full.rows]


@pytest.mark.slow
def test_workers_give_the_table_of_one_process(vague, monkeypatch):
    monkeypatch.setattr(source, "LOCAL_WINDOW", 4)
    one, two = (run(vague, many_facts(18), workers=workers, **SMALL) for workers in (1, 2))
    assert one.rows == two.rows
    assert one.protocol == two.protocol


SMALL = {"samples": 3, "max_new_tokens": 5}


class Killed(BaseException):
    pass


def kill_after(monkeypatch, lines):
    """Let a probe die once its journal has so many windows."""
    from sftknow.mastery.journal import Journal

    whole, written = Journal.append, []

    def append(self, window, result):
        if len(written) == lines:
            raise Killed
        written.append(window)
        whole(self, window, result)

    monkeypatch.setattr(Journal, "append", append)


@pytest.mark.parametrize("options", [{}, {"estimator": "likelihood"}, {"confidence": 0.6}])
def test_killed_anywhere_it_ends_in_the_table_of_an_uninterrupted_run(vague, tmp_path, monkeypatch, options):
    monkeypatch.setattr(source, "LOCAL_WINDOW", 5)
    facts, options = many_facts(42), {**SMALL, **options}
    whole = run(vague, facts, **options)
    for windows in (0, 1, 2):
        journal = tmp_path / f"killed-{windows}.jsonl"
        with monkeypatch.context() as patch:
            kill_after(patch, windows)
            with pytest.raises(Killed):
                run(vague, facts, journal=journal, **options)
        resumed = run(vague, facts, journal=journal, **options)
        assert resumed.rows == whole.rows
        assert resumed.protocol == whole.protocol


def test_a_journal_cut_at_any_byte_is_gone_on_with(vague, tmp_path, monkeypatch):
    monkeypatch.setattr(source, "LOCAL_WINDOW", 2)
    facts = many_facts(6)
    journal = tmp_path / "journal.jsonl"
    whole = run(vague, facts, journal=journal, **SMALL)
    data = journal.read_bytes()
    for end in range(0, len(data), 61):
        journal.write_bytes(data[:end])
        assert run(vague, facts, journal=journal, **SMALL).rows == whole.rows
        assert journal.read_bytes() == data


def test_a_finished_journal_asks_the_model_nothing(scripted, tmp_path, monkeypatch):
    journal = tmp_path / "journal.jsonl"
    whole = run(scripted, journal=journal)
    monkeypatch.setattr(source.Source, "engine", lambda self: pytest.fail("the model was loaded"))
    assert run(scripted, journal=journal).rows == whole.rows


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"samples": 9}, "samples 10 -> 9"),
        ({"temperature": 0.5}, "temperature 0.7 -> 0.5"),
        ({"seed": 1}, "seed 0 -> 1"),
        ({"match": "substring"}, "match 'words' -> 'substring'"),
        ({"templates": 2}, "facts"),
        ({"facts": FACTS[:3]}, "facts"),
        ({"estimator": "likelihood"}, "estimator 'sample' -> 'likelihood'"),
        ({"confidence": 0.9}, "confidence None -> 0.9"),
        ({"dtype": "bfloat16"}, "dtype 'float32' -> 'bfloat16'"),
    ],
)
def test_a_journal_of_other_options_is_refused_naming_them(scripted, tmp_path, options, named):
    journal = tmp_path / "journal.jsonl"
    run(scripted, journal=journal)
    before = journal.read_bytes()
    with pytest.raises(ConfigError, match=f"begun with other options.*{named}"):
        run(scripted, journal=journal, **options)
    assert journal.read_bytes() == before


def test_a_journal_of_another_model_is_refused(scripted, vague, tmp_path):
    run(scripted, journal=tmp_path / "journal.jsonl")
    with pytest.raises(ConfigError, match="model"):
        run(vague, journal=tmp_path / "journal.jsonl")


@pytest.mark.parametrize(
    ("text", "kind"), [("no JSON\n", "not a probe's journal"), ('{"schema": "x/1", "options": {}}\n', "schema 'x/1'")]
)
def test_a_file_that_is_no_journal_is_refused_and_kept(scripted, tmp_path, text, kind):
    path = tmp_path / "journal.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=kind):
        run(scripted, journal=path)
    assert path.read_text() == text


@pytest.mark.slow
def test_a_worker_that_dies_leaves_what_is_done_and_says_so(vague, tmp_path, monkeypatch):
    from sftknow.mastery.engine import _Worker

    monkeypatch.setattr(source, "LOCAL_WINDOW", 4)
    ask, asked = _Worker.ask, []

    def dying(self, window):
        asked.append(window)
        if len(asked) == 4:
            self._process.kill()
        return ask(self, window)

    facts, journal = many_facts(16), tmp_path / "journal.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr(_Worker, "ask", dying)
        with pytest.raises(DataError, match=r"ended by itself.*run the same command again"):
            run(vague, facts, workers=2, journal=journal, **SMALL)
    assert run(vague, facts, workers=2, journal=journal, **SMALL).rows == run(vague, facts, **SMALL).rows


BAD = Relation("birth", "born in", "in_domain", "Where was {subject} born?", ())


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"facts": ()}, DataError, "no facts to probe"),
        ({"facts": (FACTS[0], FACTS[0])}, DataError, "more than once"),
        ({"relations": {}}, DataError, "relation birth has no completion templates"),
        ({"relations": {"birth": BAD}}, DataError, "relation birth has no completion templates"),
        ({"templates": 4}, ConfigError, "4 templates are asked for, relation birth has 3"),
        ({"samples": -1, "max_new_tokens": 0}, ConfigError, "samples must be at least 1.*max_new_tokens must be"),
        ({"temperature": -0.1}, ConfigError, "temperature must be at least 0"),
        ({"temperature": float("nan")}, ConfigError, "temperature must be at least 0"),
        ({"confidence": 1.0}, ConfigError, "confidence must lie between"),
        ({"estimator": "guess"}, ConfigError, "estimator must be one of"),
        ({"estimator": "likelihood", "temperature": 0.0}, ConfigError, "needs a temperature above 0"),
        ({"estimator": "likelihood", "confidence": 0.9}, ConfigError, "adaptive probing is for the estimator sample"),
        ({"match": "fuzzy"}, ConfigError, "match must be words or substring"),
        ({"workers": 0}, ConfigError, "workers must be at least 1"),
        ({"dtype": "int8"}, ConfigError, "dtype 'int8' is unknown"),
        ({"folder": "nowhere/at/all"}, CheckpointError, "neither a model folder nor a Hub id"),
    ],
)
def test_bad_input_is_one_clear_error(scripted, options, error, text):
    with pytest.raises(error, match=text):
        run(options.pop("folder", scripted), **options)


def test_an_empty_answer_is_refused(scripted):
    fact = Fact("birth-0", "birth", "in_domain", "train", "Anna", "?", (" ",))
    with pytest.raises(DataError, match="empty"):
        run(scripted, [fact])


def write_jsonl(path, count=12):
    rows = [
        {"relation": "birth", "subject": f"Anna{n}", "answers": [("Rome", "Paris", "Lima")[n % 3]], "split": "train"}
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    relations = path.with_suffix(".yaml")
    relations.write_text(
        "birth:\n  name: born in\n  domain: in_domain\n  question: Where was {subject} born?\n"
        "  templates: ['{subject} was born in', 'Home of {subject} is']\n"
    )
    return relations


def sftknow(*arguments):
    code = "from sftknow.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=120,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip


def test_the_command_writes_a_table_and_prints_its_histogram(vague, tmp_path):
    relations = write_jsonl(tmp_path / "facts.jsonl")
    out = tmp_path / "mastery"
    done = sftknow(
        "probe", "--model", "hf", "--model_args", f"pretrained={vague}", "--facts", tmp_path / "facts.jsonl",
        "--relations", relations, "--out", out, "--device", "cpu",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    table = read_mastery(out)
    assert len(table.rows) == 12 and {row.trials for row in table.rows} == {20}
    counts = table.histogram(split="train", domain="in_domain")
    line = next(line for line in done.stdout.splitlines() if line.startswith("train in-domain"))
    assert [int(word) for word in line.split()[2:8]] == [12, *counts]
    assert table.best_templates()["birth"] in done.stdout
    assert list(tmp_path.glob("*journal*")) == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--model_args", "dtype=float32"], "names no model"),
        (["--model_args", "pretrained=nowhere/at/all"], "neither a model folder nor a Hub id"),
        (["--model", "no-such-backend", "--model_args", "x=1"], "--model no-such-backend"),
        (["--model_args", "pretrained=x,peft=y"], "not peft"),
        (["--facts", "missing.jsonl", "--model_args", "pretrained=x"], "missing.jsonl does not exist"),
    ],
)
def test_bad_input_on_the_command_line_is_one_line_and_exit_code_2(tmp_path, arguments, text):
    relations = write_jsonl(tmp_path / "facts.jsonl")
    given = ["--facts", tmp_path / "facts.jsonl", *arguments]
    done = sftknow("probe", *given, "--relations", relations, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert text in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not (tmp_path / "out").exists()
