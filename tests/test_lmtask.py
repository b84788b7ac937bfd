"""The tasks through lm-eval's own loader and simple_evaluate: documents, prompts, few-shot examples, metrics."""

import json
import logging
from dataclasses import replace

import pytest
import word_model
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from sftknow.errors import DataError
from sftknow.facts.fact import Fact, fact_id
from sftknow.harness import tasks_folder
from sftknow.lmtask import RelationTask, choose_facts, measure
from sftknow.mastery.table import MasteryTable, ProbedFact

KNOWN = {("in_domain", 1): 1, ("in_domain", 4): 3, ("out_of_domain", 2): 2}


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    folder = tmp_path_factory.mktemp("known")
    model = word_model.write_model(folder / "model")
    prompts: dict[str, str] = {}
    table = word_model.known_table(model, KNOWN, prompts=prompts)
    table.write(folder / "table")
    return model, folder / "table", table, prompts


@pytest.fixture(autouse=True)
def no_table_in_the_environment(monkeypatch):
    monkeypatch.delenv("SFTKNOW_MASTERY", raising=False)


def load(names, **metadata):
    manager = TaskManager(include_defaults=False, include_path=tasks_folder(), metadata=metadata)
    return manager.load(names)["tasks"]


def documents(task):
    return list(task.eval_docs)


def run(model, names, *, metadata, **options):
    manager = TaskManager(include_defaults=False, include_path=tasks_folder(), metadata=metadata)
    lm = HFLM(pretrained=str(model), batch_size=8, device="cpu")
    return simple_evaluate(lm, tasks=names, task_manager=manager, **options)


def row(answers, *, question="Where was Ann born?", split="test", bucket=1, subject="Ann", relation="birth"):
    fact = Fact(fact_id(relation, split, question), relation, "in_domain", split, subject, question, tuple(answers))
    return ProbedFact(fact, bucket, 4, bucket / 4, bucket, (bucket / 4,))


def table_of(folder, *rows, **fields):
    MasteryTable(tuple(rows), templates={"birth": ["The birthplace of {subject} is"]}, **fields).write(folder)
    return str(folder)


def test_every_group_and_task_loads_and_has_the_three_metrics(known):
    tasks = load(["cbqa_mastery", "cbqa_completion", "cbqa_mastery_by_relation"], mastery=str(known[1]))
    assert len(tasks) == 22
    for task in tasks.values():
        assert {"contains", "exact_match", "f1"} <= set(task.higher_is_better())
        assert all(task.higher_is_better().values())


def test_a_document_carries_its_fact(known):
    table = known[2]
    docs = documents(load(["cbqa_mastery_id_4"], mastery=str(known[1]))["cbqa_mastery_id_4"])
    rows = table.select(split="test", domain="in_domain", buckets=(4,))
    assert [(doc["id"], doc["relation"], doc["bucket"], doc["mastery"]) for doc in docs] == [
        (row.fact.id, row.fact.relation, 4, 1.0) for row in rows
    ]


@pytest.mark.parametrize(
    ("prompt_format", "prompt"),
    [
        ("paper", "<|question|> Where was Ann born? <|answer|>"),
        ("plain", "Question: Where was Ann born? Answer:"),
        ("question", "Where was Ann born?"),
        ("Ask: {question} Reply:", "Ask: Where was Ann born? Reply:"),
    ],
)
def test_prompt_formats(tmp_path, prompt_format, prompt):
    folder = table_of(tmp_path / "table", row(["Oslo"]))
    tasks = load(["cbqa_mastery_id_1"], mastery=folder, prompt_format=prompt_format)
    assert documents(tasks["cbqa_mastery_id_1"])[0]["prompt"] == prompt


def test_braces_in_a_question_are_left_alone(tmp_path):
    folder = table_of(tmp_path / "table", row(["Oslo"], question="Who wrote {x}?", subject="{x}"))
    tasks = load(["cbqa_mastery_id_1", "cbqa_completion_id_1"], mastery=folder)
    assert documents(tasks["cbqa_mastery_id_1"])[0]["prompt"] == "<|question|> Who wrote {x}? <|answer|>"
    assert documents(tasks["cbqa_completion_id_1"])[0]["prompt"] == "The birthplace of {x} is"


def test_completions_use_the_template_with_the_highest_success_rate(known):
    docs = documents(load(["cbqa_completion_id_1"], mastery=str(known[1]))["cbqa_completion_id_1"])
    # word_model gives the first template all hits of bucket 1 and at least as many of every other bucket
    assert docs[0]["prompt"] == f"{docs[0]['subject']} {docs[0]['relation']} was"


def test_answers_that_look_like_dates_stay_text(tmp_path):
    folder = table_of(tmp_path / "table", row(["1999-01-02", "7"]))
    doc = documents(load(["cbqa_mastery_id_1"], mastery=folder)["cbqa_mastery_id_1"])[0]
    assert doc["gold"] == ["1999-01-02", "7"]


def test_aliases_count(tmp_path):
    folder = table_of(tmp_path / "table", row(["United States of America"], relation="P17"))
    doc = documents(load(["cbqa_mastery_id_1"], mastery=folder)["cbqa_mastery_id_1"])[0]
    assert measure(doc, [" the USA, I think"])["contains"] == 1.0
    assert measure(doc, [" USA"]) == {"contains": 1.0, "exact_match": 1.0, "f1": 1.0}


def test_measures_by_hand(tmp_path):
    folder = table_of(tmp_path / "table", row(["Salt Lake City"]))
    doc = documents(load(["cbqa_mastery_id_1"], mastery=folder)["cbqa_mastery_id_1"])[0]
    # two of three gold words among four given: precision 2/4, recall 2/3
    assert measure(doc, [" in Salt Lake Valley"]) == {"contains": 0.0, "exact_match": 0.0, "f1": pytest.approx(4 / 7)}
    assert measure(doc, [" Salt Lake City, Utah"])["contains"] == 1.0


@pytest.mark.parametrize(("match", "found"), [("words", 0.0), ("substring", 1.0)])
def test_answers_are_found_by_the_rule_of_the_table_or_of_the_caller(tmp_path, match, found):
    folder = table_of(tmp_path / "table", row(["Iran"]), protocol={"match": match})
    doc = documents(load(["cbqa_mastery_id_1"], mastery=folder)["cbqa_mastery_id_1"])[0]
    assert measure(doc, [" Iranian"])["contains"] == found
    other = {"words": "substring", "substring": "words"}[match]
    doc = documents(load(["cbqa_mastery_id_1"], mastery=folder, match=other)["cbqa_mastery_id_1"])[0]
    assert measure(doc, [" Iranian"])["contains"] == 1.0 - found


def test_the_table_may_come_from_the_environment(known, monkeypatch):
    monkeypatch.setenv("SFTKNOW_MASTERY", str(known[1]))
    assert len(documents(load(["cbqa_mastery_id_1"])["cbqa_mastery_id_1"])) == 5


def test_metadata_of_the_model_is_no_hindrance(known):
    load(["cbqa_mastery_id_1"], mastery=str(known[1]), pretrained="x", seed=4, dtype="float32", add_bos_token=True)


@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        ({}, "make one with `sftknow probe`"),
        ({"mastery": "nowhere/at/all"}, "made by `sftknow probe`"),
        ({"mastery": "TABLE", "split": "validation"}, "split 'validation' is unknown"),
        ({"mastery": "TABLE", "split": "dev"}, "has no dev facts"),
        ({"mastery": "TABLE", "facts_per_bucket": "many"}, "facts_per_bucket 'many' must be a whole number"),
        ({"mastery": "TABLE", "facts_per_bucket": 0}, "at least 1"),
        ({"mastery": "TABLE", "prompt_format": "papre"}, "prompt_format 'papre' is none of paper, plain, question"),
        ({"mastery": "TABLE", "prompt_fromat": "plain"}, "did you mean 'prompt_format'"),
        ({"mastery": "TABLE", "match": "regex"}, "choose one of words, substring"),
    ],
)
def test_bad_metadata_is_one_sentence(known, metadata, text):
    if metadata.get("mastery") == "TABLE":
        metadata = {**metadata, "mastery": str(known[1])}
    with pytest.raises(DataError, match=text) as raised:
        load(["cbqa_mastery_id_1"], **metadata)
    assert raised.value.code == f"sftknow: {raised.value}"
    assert "\n" not in str(raised.value)


def test_a_damaged_and_a_foreign_table_are_refused(known, tmp_path):
    known[2].write(tmp_path / "damaged")
    path = tmp_path / "damaged" / "facts.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="is not the file"):
        load(["cbqa_mastery_id_1"], mastery=str(tmp_path / "damaged"))
    known[2].write(tmp_path / "foreign")
    path = tmp_path / "foreign" / "mastery.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": "sftknow.mastery/99"}))
    with pytest.raises(DataError, match=r"schema .sftknow\.mastery/99"):
        load(["cbqa_mastery_id_1"], mastery=str(tmp_path / "foreign"))


def test_a_table_written_anew_at_the_same_place_is_read_anew(tmp_path):
    table_of(tmp_path / "table", row(["Oslo"]))
    load(["cbqa_mastery_id_1"], mastery=str(tmp_path / "table"))
    MasteryTable((row(["Bergen"]),)).write(tmp_path / "table", overwrite=True)
    docs = documents(load(["cbqa_mastery_id_1"], mastery=str(tmp_path / "table"))["cbqa_mastery_id_1"])
    assert docs[0]["gold"] == ["Bergen"]


def test_few_shot_examples_are_other_train_facts_of_the_same_relation(known):
    model, folder, table, _ = known
    results = run(model, ["cbqa_mastery"], metadata={"mastery": str(folder)}, num_fewshot=3)
    relation_of = {row.fact.question: row.fact.relation for row in table.select(split="train")}
    seen = 0
    for samples in results["samples"].values():
        for sample in samples:
            if sample["doc"]["role"] != "tested":
                continue
            *shots, asked = sample["arguments"][0][0].split("\n\n")
            questions = [shot.removeprefix("<|question|> ").split(" <|answer|> ")[0] for shot in shots]
            assert asked == sample["doc"]["prompt"]
            assert len(set(questions)) == 3
            assert {relation_of[question] for question in questions} == {sample["doc"]["relation"]}
            seen += 1
    assert seen == 15


def test_few_shot_examples_never_ask_about_the_tested_subject(tmp_path):
    rows = [row(["Oslo"], split="train", question=f"Where was {name} born?", subject=name) for name in ("Ann", "Bo")]
    folder = table_of(tmp_path / "table", row(["Oslo"]), *rows)
    task = load(["cbqa_mastery_id_1"], mastery=folder)["cbqa_mastery_id_1"]
    task.set_fewshot_seed(0)
    assert [doc["subject"] for doc in task.sampler.sample(1, documents(task)[0])] == ["Bo"]
    with pytest.raises(DataError, match="needs 2 other train facts of relation birth"):
        task.sampler.sample(2, documents(task)[0])


def test_few_shot_examples_depend_on_seed_and_fact_alone(known):
    def shots(order, seed):
        task = load(["cbqa_mastery_id_4"], mastery=str(known[1]))["cbqa_mastery_id_4"]
        task.set_fewshot_seed(seed)
        docs = documents(task)
        return {docs[i]["id"]: [shot["id"] for shot in task.sampler.sample(3, docs[i])] for i in order}

    assert shots([0, 1, 2], 7) == shots([2, 1, 0], 7)
    assert shots([0, 1, 2], 7) != shots([0, 1, 2], 8)


def test_group_scores_are_unweighted_means_and_the_sum_of_logged_samples(known):
    model, folder, _, _ = known
    results = run(model, ["cbqa_mastery"], metadata={"mastery": str(folder)})
    by_bucket = {
        name: [sample["contains"] for sample in samples if "contains" in sample]
        for name, samples in results["samples"].items()
    }
    means = {name: sum(values) / len(values) for name, values in by_bucket.items() if values}
    assert means == {name: results["results"][name]["contains,none"] for name in means}
    assert results["groups"]["cbqa_mastery_id"]["contains,none"] == pytest.approx((1 / 5 + 3 / 5) / 2)
    assert results["groups"]["cbqa_mastery_ood"]["contains,none"] == pytest.approx(2 / 5)
    assert "cbqa_mastery" not in results["groups"]
    assert results["higher_is_better"]["cbqa_mastery_id"] == {"contains": True, "exact_match": True, "f1": True}


def test_limit_gen_kwargs_and_automatic_batch_size(known):
    manager = TaskManager(include_defaults=False, include_path=tasks_folder(), metadata={"mastery": str(known[1])})
    lm = HFLM(pretrained=str(known[0]), batch_size="auto", max_batch_size=4, device="cpu")
    results = simple_evaluate(
        lm, tasks=["cbqa_mastery_id_4"], task_manager=manager, limit=2, gen_kwargs={"max_gen_toks": 3}
    )
    samples = results["samples"]["cbqa_mastery_id_4"]
    assert len(samples) == 2
    assert all(len(sample["resps"][0][0].split()) <= 3 for sample in samples)
    assert samples[0]["arguments"][0][1]["until"] == ["\n"]


def test_the_chat_template_wraps_the_bare_question(known):
    model, folder, _, _ = known
    manager = TaskManager(
        include_defaults=False,
        include_path=tasks_folder(),
        metadata={"mastery": str(folder), "prompt_format": "question"},
    )
    lm = HFLM(pretrained=str(model), batch_size=8, device="cpu")
    lm.tokenizer.chat_template = (
        "{% for message in messages %}<{{ message.role }}> {{ message.content }} {% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    results = simple_evaluate(lm, tasks=["cbqa_mastery_id_4"], task_manager=manager, apply_chat_template=True)
    sample = results["samples"]["cbqa_mastery_id_4"][0]
    assert sample["arguments"][0][0] == f"<user> {sample['doc']['prompt']} <assistant>"


def test_by_relation_every_relation_has_its_mean(known):
    model, folder, table, _ = known
    results = run(model, ["cbqa_mastery_by_relation"], metadata={"mastery": str(folder)})
    tested = table.select(split="test", domain="in_domain")
    right = {row.fact.id for row in tested if row.fact.answers != (word_model.NEVER,)}
    found = results["results"]["cbqa_mastery_by_relation_id"]
    for relation in ("birth", "school"):
        ids = [row.fact.id for row in tested if row.fact.relation == relation]
        assert found[f"contains_{relation},none"] == pytest.approx(sum(name in right for name in ids) / len(ids))
    assert found["contains,none"] == pytest.approx(4 / 10)
    assert results["higher_is_better"]["cbqa_mastery_by_relation_id"]["contains_birth"]


def test_by_relation_takes_the_same_facts(known):
    metadata = {"mastery": str(known[1]), "facts_per_bucket": 3, "facts_seed": 2}
    split = load(["cbqa_mastery_by_relation_id"], **metadata)["cbqa_mastery_by_relation_id"]
    buckets = load(["cbqa_mastery_id_1", "cbqa_mastery_id_4"], **metadata)
    assert isinstance(split, RelationTask)
    assert {doc["id"] for doc in documents(split)} == {
        doc["id"] for task in buckets.values() for doc in documents(task)
    }


def test_a_relation_with_fewer_facts_than_processes_has_no_figure_of_its_own(tmp_path, monkeypatch):
    rows = [row(["Oslo"], question=f"{number}?", relation="many") for number in range(3)]
    folder = table_of(tmp_path / "table", *rows, row(["Oslo"], relation="few"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    task = load(["cbqa_mastery_by_relation_id"], mastery=folder)["cbqa_mastery_by_relation_id"]
    assert set(task.aggregation()) == {"contains", "exact_match", "f1", "contains_many"}


def test_an_empty_bucket_yields_no_metric_and_one_document_for_each_process(known, monkeypatch, caplog):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with caplog.at_level(logging.WARNING):
        task = load(["cbqa_mastery_id_2"], mastery=str(known[1]))["cbqa_mastery_id_2"]
    docs = documents(task)
    assert [measure(doc, ["anything"]) for doc in docs] == [{}, {}, {}]
    assert "bucket 2 has no test facts (in-domain)" in caplog.text


def test_a_bucket_smaller_than_the_launch_is_warned_of(tmp_path, monkeypatch, caplog):
    folder = table_of(tmp_path / "table", row(["Oslo"]))
    monkeypatch.setenv("WORLD_SIZE", "2")
    load(["cbqa_mastery_id_1"], mastery=folder)
    assert "bucket 1 has 1 facts (in-domain), fewer than the 2 processes" in caplog.text


def test_chosen_facts_are_nested_and_keep_table_order():
    rows = [row(["Oslo"], question=f"{number}?") for number in range(50)]
    few, many = choose_facts(rows, 10, 3), choose_facts(rows, 30, 3)
    assert len(few) == 10
    assert set(few) < set(many)
    assert list(many) == [row for row in rows if row in many]
    assert choose_facts(rows, 50, 3) == choose_facts(rows, None, 3) == tuple(rows)
    assert choose_facts([replace(row, bucket=2) for row in rows], 10, 4) != few
