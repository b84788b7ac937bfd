import json

import pytest
from click.testing import CliRunner
from toy_world import toy_facts, toy_table, write_toy_model

from sftknow.cli.kl import command as kl
from sftknow.cli.train import command as train
from sftknow.errors import ConfigError, DataError, SftknowError
from sftknow.kl import divergence
from sftknow.records import read_record


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with ``base``, ``mastery`` and ``tuned``, the last made by the command under test."""
    folder, facts = tmp_path_factory.mktemp("world"), toy_facts()
    write_toy_model(folder / "base", facts)
    toy_table(facts).write(folder / "mastery")
    arguments = [folder / "base", folder / "mastery", "--out", folder / "tuned", "--bucket", "0,1", "-n", "18"]
    done = run(train, *arguments, "--learning-rate", "1e-2", "--set", "weight_decay=0.1", "--drift-every", "2")
    assert done.exit_code == 0, done.output
    return folder, done


def run(command, *arguments):
    return CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=True)


def test_train_says_what_it_did_and_records_it(world):
    folder, done = world
    record = read_record(folder / "tuned" / "sft.json", "sft")
    assert "tuned on 18 facts (birth 9, school 9)" in done.stdout
    assert f"{100 * record['changed']['fraction']:.1f}% of" in done.stdout
    assert "drift after update 2: KL" in done.stdout
    assert record["arguments"]["settings"] == {"weight_decay": 0.1}
    assert record["arguments"]["buckets"] == [0, 1]
    assert record["made_from"]["mastery"]["path"].endswith("mastery.json")


def test_kl_prints_and_writes_the_same_figure(world, tmp_path):
    folder, _ = world
    done = run(kl, folder / "base", folder / "tuned", folder / "mastery", "--out", tmp_path / "kl.json")
    assert done.exit_code == 0, done.output
    record = read_record(tmp_path / "kl.json", "kl")
    assert record["mean"] == divergence(folder / "base", folder / "tuned", folder / "mastery").mean
    assert f"{record['mean']:.4f} nats over {record['facts']} facts" in done.stdout
    assert record["measure"]["direction"] == "KL(tuned || base)"
    assert len(record["moved"]) == 10
    assert [path.name for path in tmp_path.iterdir()] == ["kl.json"]


def test_kl_on_a_prompt_file(world, tmp_path):
    folder, _ = world
    (tmp_path / "p.jsonl").write_text(json.dumps({"prompt": "Who is"}) + "\n")
    done = run(kl, folder / "base", folder / "tuned", "--prompts", tmp_path / "p.jsonl", "--direction", "js")
    assert done.exit_code == 0, done.output
    assert "Jensen-Shannon(tuned, base), top 10 of tuned, first token" in done.stdout


@pytest.mark.parametrize(
    ("extra", "kind", "message"),
    [
        (["-n", "sixty"], ConfigError, "-n 'sixty' is not a number of facts"),
        (["-n", "60"], ConfigError, "bucket 0 of the in-domain train split has 16"),
        (["-n", "8", "--merge"], ConfigError, "add --lora"),
        (["-n", "8", "--set", "learning_rat=1"], ConfigError, "did you mean learning_rate?"),
        (["-n", "8", "--precision", "bf16", "--batch-size", "0"], ConfigError, "batch size 0"),
        (["-n", "8", "--device", "cuda:77"], ConfigError, "device 'cuda:77' cannot be used here"),
        (["-n", "8", "--set", "max_length=9"], DataError, "max_length 9 would cut the answer"),
    ],
)
def test_bad_options_of_train_are_one_sentence_and_leave_nothing(world, tmp_path, extra, kind, message):
    folder, _ = world
    done = run(train, folder / "base", folder / "mastery", "--out", tmp_path / "out", "--bucket", "0", *extra)
    assert isinstance(done.exception, kind)
    assert message in str(done.exception)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("base", "tuned"), "give either a mastery table or prompts"),
        (("base", "nothing", "mastery"), "neither a model folder nor a Hub id"),
        (("base", "tuned", "nothing"), "is not a folder"),
        (("base", "tuned", "mastery", "--out", "mastery"), "is a folder; name a file"),
        (("base", "tuned", "mastery", "--out", "none/kl.json"), "does not exist; make it first"),
    ],
)
def test_bad_options_of_kl_are_one_sentence(world, arguments, message):
    folder, _ = world
    done = run(kl, *(argument if argument.startswith("--") else folder / argument for argument in arguments))
    assert isinstance(done.exception, SftknowError)
    assert message in str(done.exception)


def test_an_existing_kl_record_is_kept(world, tmp_path):
    folder, _ = world
    (tmp_path / "kl.json").write_text("mine")
    done = run(kl, folder / "base", folder / "tuned", folder / "mastery", "--out", tmp_path / "kl.json")
    assert "--overwrite" in str(done.exception)
    assert (tmp_path / "kl.json").read_text() == "mine"
