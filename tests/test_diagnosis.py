"""What the doctor finds: tasks in place, missing, or stale; a command of another environment."""

import os
import shutil
from pathlib import Path

from sftknow.diagnosis import INSTALLED_TASKS, diagnose, lm_eval_tasks
from sftknow.harness import tasks_folder


def lm_eval_folder(tmp_path: Path, *, tasks: bool) -> Path:
    (tmp_path / "lm_eval" / "tasks").mkdir(parents=True)
    if tasks:
        shutil.copytree(tasks_folder(), tmp_path / "lm_eval" / "tasks" / INSTALLED_TASKS)
    return tmp_path / "lm_eval"


def test_tasks_beside_lm_eval_are_well(tmp_path):
    assert lm_eval_tasks(lm_eval_folder(tmp_path, tasks=True)).state == "ok"


def test_an_lm_eval_without_the_tasks_is_told_of_the_include_path(tmp_path):
    found = lm_eval_tasks(lm_eval_folder(tmp_path, tasks=False))
    assert found.state == "problem"
    assert '--include_path "$(sftknow tasks-path)"' in found.remedy


def test_tasks_of_an_older_installation_are_told_apart(tmp_path):
    folder = lm_eval_folder(tmp_path, tasks=True)
    (folder / "tasks" / INSTALLED_TASKS / "_cbqa_mastery.yaml").write_text("group: cbqa_mastery\n")
    found = lm_eval_tasks(folder)
    assert found.state == "problem"
    assert "differs from" in found.detail


def test_a_command_of_another_environment_is_told_of(tmp_path, monkeypatch):
    other = tmp_path / "lm_eval"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    found = next(finding for finding in diagnose() if finding.subject == "lm_eval command")
    assert found.state == "problem"
    assert "another environment" in found.detail


def test_every_needed_library_is_listed_with_its_version():
    found = {finding.subject: finding for finding in diagnose()}
    assert found["lm-eval"].state == "ok"
    assert found["lm-eval"].detail[0].isdigit()
    assert found["vllm"].state in ("ok", "missing")
