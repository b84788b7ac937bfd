"""A sweep in memory against restored checkpoints written to disk and scored one by one."""

import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import word_model
from transformers import AutoModelForCausalLM

from sftknow.errors import ConfigError, DataError
from sftknow.harness import load_tasks, task_folders, tasks_folder
from sftknow.mastery.table import MasteryTable
from sftknow.restoration.restore import restore
from sftknow.scoring import score
from sftknow.sweeping import headings, sweep

KNOWN = {("in_domain", 0): 6, ("in_domain", 2): 6, ("in_domain", 4): 8, ("out_of_domain", 3): 4}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A base, a tuned model that lost some of its answers, and a table of what the base answers."""
    folder = tmp_path_factory.mktemp("pair")
    base = word_model.write_model(folder / "base")
    table = word_model.known_table(base, KNOWN, facts=8, prompts={})
    tests = [row for row in table.rows if row.fact.split == "test"]
    dev = [replace(row, fact=replace(row.fact, id=f"{row.fact.id}-d", split="dev")) for row in tests[::2]]
    MasteryTable((*table.rows, *dev), templates=table.templates).write(folder / "table")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    torch.manual_seed(4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layers" in name and "norm" not in name:
                parameter.add_(0.08 * torch.randn_like(parameter) * (torch.rand_like(parameter) < 0.7))
    shutil.copytree(base, folder / "tuned")
    model.save_pretrained(folder / "tuned")
    return base, folder / "tuned", folder / "table"


def test_scores_in_memory_are_those_of_written_checkpoints(pair, tmp_path):
    base, tuned, table = pair
    tops = [1.0, 20.0, 60.0]
    found = sweep(base, tuned, tops, ["cbqa_mastery"], metadata={"mastery": str(table)})
    restore(base, tuned, tmp_path / "restored", tops)
    folders = {0.0: tuned, **{top: tmp_path / "restored" / f"top-{top:g}" for top in tops}}
    assert [step.percent for step in found.steps] == [0.0, *tops]
    for step in found.steps:
        scores = score(folders[step.percent], table)
        assert step.figures["cbqa_mastery_id"].value == pytest.approx(scores.domains["in_domain"].accuracy)
        assert step.figures["cbqa_mastery_ood"].value == pytest.approx(scores.domains["out_of_domain"].accuracy)
    values = [step.figures["cbqa_mastery_id"].value for step in found.steps]
    assert len(set(values)) > 1


def test_restoring_everything_brings_the_base_model_back(pair):
    base, tuned, table = pair
    found = sweep(base, tuned, [100.0], ["cbqa_mastery"], metadata={"mastery": str(table)})
    assert found.steps[-1].figures["cbqa_mastery_id"].value == pytest.approx((6 / 8 + 6 / 8 + 8 / 8) / 3)
    assert found.steps[-1].share_of_change_undone == pytest.approx(1.0)


def test_intervals_are_those_of_a_paired_bootstrap_by_hand(pair):
    base, tuned, table = pair
    figure = (
        sweep(base, tuned, [100.0], ["cbqa_mastery"], metadata={"mastery": str(table)})
        .steps[-1]
        .figures["cbqa_mastery_id"]
    )
    before, after = score(tuned, table), score(base, table)
    differences = {}
    for old, new in zip(before.outcomes, after.outcomes, strict=True):
        if old.domain == "in_domain":
            differences.setdefault(old.bucket, []).append(int(new.contains) - int(old.contains))
    rng = np.random.default_rng(99)
    drawn = [np.mean([np.mean(rng.choice(part, len(part))) for part in differences.values()]) for _ in range(4000)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert figure.change == pytest.approx(np.mean([np.mean(part) for part in differences.values()]))
    assert figure.low == pytest.approx(low, abs=0.05)
    assert figure.high == pytest.approx(high, abs=0.05)
    assert figure.low < figure.change < figure.high


def test_the_best_fraction_is_chosen_on_dev_facts(pair):
    base, tuned, table = pair
    found = sweep(
        base, tuned, [5.0, 100.0], ["cbqa_mastery_ood"], metadata={"mastery": str(table)}, select_on="cbqa_mastery_id"
    )
    selections = {
        step.percent: score(folder, table, split="dev").domains["in_domain"].accuracy
        for step, folder in ((found.steps[0], tuned), (found.steps[-1], base))
    }
    assert found.steps[0].selection == pytest.approx(selections[0.0])
    assert found.steps[-1].selection == pytest.approx(selections[100.0])
    assert found.chosen == max(found.steps, key=lambda step: step.selection).percent


def test_a_choice_without_dev_facts_is_refused(pair, tmp_path):
    base, tuned, _ = pair
    word_model.known_table(base, {("in_domain", 1): 1}, prompts={}).write(tmp_path / "table")
    with pytest.raises(DataError, match="has no dev facts"):
        sweep(
            base,
            tuned,
            [5.0],
            ["cbqa_mastery_id"],
            metadata={"mastery": str(tmp_path / "table")},
            select_on="cbqa_mastery_id",
        )


OTHER_TASK = """
task: {name}
custom_dataset: !function docs.make
test_split: test
output_type: multiple_choice
doc_to_text: question
doc_to_choice: ["bando", "gerix"]
doc_to_target: 0
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
"""
OTHER_DOCS = """
from datasets import Dataset
def make(**metadata):
    return {"test": Dataset.from_dict({"question": [f"Where was {number} ?" for number in range(12)]})}
"""


def test_any_task_can_be_swept_and_a_weighted_group_is_weighted(pair, tmp_path, monkeypatch):
    base, tuned, _ = pair
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "docs.py").write_text(OTHER_DOCS)
    for name in ("word_choice_a", "word_choice_b"):
        (folder / f"{name}.yaml").write_text(OTHER_TASK.format(name=name))
    (folder / "word_choice.yaml").write_text(
        "group: word_choice\ntask: [word_choice_a, word_choice_b]\naggregate_metric_list:\n  - {metric: acc}\n"
    )
    monkeypatch.setattr("sftknow.harness.task_folders", lambda names: [tasks_folder(), folder])
    found = sweep(base, tuned, [30.0], ["word_choice"], num_fewshot=0)
    figure = found.steps[-1].figures["word_choice"]
    assert figure.metric == "acc,none"
    assert figure.low <= figure.change <= figure.high
    assert found.chosen is None


def test_headings_are_groups_with_an_aggregate_and_loose_tasks(pair):
    loaded = load_tasks(["cbqa_mastery", "cbqa_completion_id_4"], {"mastery": str(pair[2])})
    assert headings(loaded) == ["cbqa_mastery_id", "cbqa_mastery_ood", "cbqa_completion_id_4"]


def test_folders_of_other_tasks_are_found_by_text():
    ours = tasks_folder()
    assert task_folders(["cbqa_mastery", "cbqa_completion_id_2"]) == [ours]
    found = task_folders(["cbqa_mastery", "gsm8k"])
    assert found[0] == ours
    assert [folder.name for folder in found[1:]] == ["gsm8k"]


@pytest.mark.slow
def test_an_unknown_task_is_named():
    with pytest.raises(ConfigError, match="lm-eval has no task no_such_task"):
        load_tasks(["no_such_task"], {})


def test_figures_have_standard_errors(pair):
    base, tuned, table = pair
    step = sweep(base, tuned, [5.0], ["cbqa_mastery_id_0"], metadata={"mastery": str(table)}).steps[0]
    figure = step.figures["cbqa_mastery_id_0"]
    assert figure.stderr == pytest.approx(math.sqrt(figure.value * (1 - figure.value) / 7))
    assert figure.change is None
