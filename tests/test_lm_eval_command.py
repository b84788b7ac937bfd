"""lm-eval's own command line on the tasks, from a built wheel in a fresh environment and from the checkout.

The fresh environment holds the wheel of this project and a copy of lm-eval with two of its task folders (so that the
index of tasks is short); every other library is the one the tests run with.
"""

import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import threading
from importlib.util import find_spec
from pathlib import Path

import pytest
import word_model

from sftknow.harness import tasks_folder
from sftknow.scoring import score

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
KNOWN = {("in_domain", 1): 1, ("in_domain", 4): 3, ("out_of_domain", 2): 2}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    if find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed here, and wheels are built without the network")
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=ROOT, check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def fresh(tmp_path_factory, wheel):
    """A fresh environment with the wheel and lm-eval side by side; returns its Python."""
    folder = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*install, "--disable-pip-version-check", wheel], check=True)
    site = Path(
        subprocess.check_output(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
        ).strip()
    )
    here = Path(sysconfig.get_path("purelib"))
    (site / "rest.pth").write_text(f"{here}\n")
    source = here / "lm_eval"
    tasks = {entry.name for entry in (source / "tasks").iterdir() if entry.is_dir()} - {"gsm8k", "arc"}
    shutil.copytree(
        source,
        site / "lm_eval",
        dirs_exist_ok=True,
        ignore=lambda parent, names: (
            tasks & set(names) if Path(parent) == source / "tasks" else {"__pycache__"} & set(names)
        ),
    )
    return python


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    folder = tmp_path_factory.mktemp("known")
    model = word_model.write_model(folder / "model")
    prompts: dict[str, str] = {}
    table = word_model.known_table(model, KNOWN, prompts=prompts)
    table.write(folder / "table")
    return model, folder / "table", table, prompts


def lm_eval(python, *arguments, folder, launcher=(), **environment):
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "SFTKNOW_MASTERY")}
    return subprocess.run(
        [python, "-m", *launcher, "lm_eval", *map(str, arguments)],
        cwd=folder,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def results_in(folder):
    path = next(folder.rglob("results_*.json"))
    return json.loads(path.read_text())


def test_the_command_finds_the_tasks_and_scores_as_in_process(fresh, known, tmp_path):
    model, table, _, _ = known
    done = lm_eval(
        fresh,
        "--model",
        "hf",
        "--model_args",
        f"pretrained={model},dtype=float32",
        "--tasks",
        "cbqa_mastery",
        "--metadata",
        f"mastery={table}",
        "--device",
        "cpu",
        "--batch_size",
        "16",
        "--log_samples",
        "--output_path",
        tmp_path / "out",
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "cbqa_mastery_id_4" in done.stdout
    assert "bucket 3 has no test facts (in-domain)" in done.stderr
    results = results_in(tmp_path / "out")
    scores = score(model, table, batch_size=1)
    for domain, group in (("in_domain", "cbqa_mastery_id"), ("out_of_domain", "cbqa_mastery_ood")):
        assert results["groups"][group]["contains,none"] == pytest.approx(scores.domains[domain].accuracy)
        assert results["groups"][group]["contains_stderr,none"] == pytest.approx(scores.domains[domain].stderr)
    assert results["groups"]["cbqa_mastery_id"]["contains,none"] == pytest.approx((1 / 5 + 3 / 5) / 2)
    samples = [
        json.loads(line)
        for path in (tmp_path / "out").rglob("samples_cbqa_mastery_*.jsonl")
        for line in path.read_text().splitlines()
    ]
    outcomes = {outcome.fact: outcome for outcome in scores.outcomes}
    tested = [sample for sample in samples if sample["doc"]["role"] == "tested"]
    assert {sample["doc"]["id"] for sample in tested} == set(outcomes)
    for sample in tested:
        outcome = outcomes[sample["doc"]["id"]]
        assert bool(sample["contains"]) == outcome.contains
        assert sample["filtered_resps"] == [outcome.answer]
        assert (sample["doc"]["relation"], sample["doc"]["bucket"]) == (outcome.relation, outcome.bucket)
        assert sample["doc"]["mastery"] == outcome.mastery


def test_without_a_table_one_line_says_how_to_make_one(fresh, known, tmp_path):
    done = lm_eval(
        fresh,
        "--model",
        "hf",
        "--model_args",
        f"pretrained={known[0]}",
        "--tasks",
        "cbqa_mastery",
        "--device",
        "cpu",
        folder=tmp_path,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("sftknow: no mastery table is given; make one with `sftknow probe`")


def test_validate_and_ls_know_the_tasks(fresh, tmp_path):
    done = lm_eval(fresh, "validate", "--tasks", "cbqa_mastery,cbqa_completion", folder=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "All tasks found and valid" in done.stdout
    done = lm_eval(fresh, "ls", "tasks", folder=tmp_path)
    listed = done.stdout
    for name in ("cbqa_mastery_by_relation", "cbqa_completion_ood", "cbqa_mastery_id_0"):
        assert re.search(rf"^\|{name} *\|", listed, re.MULTILINE)
    assert "generate_until" in next(line for line in listed.splitlines() if line.startswith("|cbqa_mastery_id_0 "))


def test_an_lm_eval_installed_elsewhere_needs_the_include_path(fresh, known, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(fresh.parent.parent, elsewhere, symlinks=True)
    python = elsewhere / "bin" / "python"
    shutil.rmtree(next(elsewhere.glob("lib/*/site-packages/lm_eval/tasks/sftknow_cbqa")))
    run = [
        "--model",
        "hf",
        "--model_args",
        f"pretrained={known[0]}",
        "--tasks",
        "cbqa_mastery_id_4",
        "--device",
        "cpu",
        "--metadata",
        f"mastery={known[1]}",
        "--limit",
        "2",
    ]
    done = lm_eval(python, *run, folder=tmp_path)
    assert done.returncode != 0
    assert "cbqa_mastery_id_4" in done.stderr
    path = subprocess.check_output(
        [python, "-c", "from sftknow.cli.main import main; main()", "tasks-path"], text=True, cwd=tmp_path
    ).strip()
    assert str(elsewhere) in path
    done = lm_eval(python, *run, "--include_path", path, folder=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "|cbqa_mastery_id_4|" in done.stdout


def test_the_checkout_serves_as_include_path(fresh, known, tmp_path):
    done = lm_eval(
        fresh,
        "--model",
        "hf",
        "--model_args",
        f"pretrained={known[0]}",
        "--tasks",
        "cbqa_completion",
        "--device",
        "cpu",
        "--include_path",
        tasks_folder(),
        "--limit",
        "2",
        folder=tmp_path,
        SFTKNOW_MASTERY=str(known[1]),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "cbqa_completion_id_4" in done.stdout


class Completions(http.server.BaseHTTPRequestHandler):
    """An OpenAI-like completions endpoint that answers from a table and remembers what it was asked."""

    answers: dict[str, str]
    asked: list[dict]

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(body)
        prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
        choices = [{"index": i, "text": self.answers.get(prompt, " no idea")} for i, prompt in enumerate(prompts)]
        data = json.dumps({"choices": choices}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass


@pytest.mark.skipif(find_spec("tenacity") is None, reason="lm-eval[api] is not installed")
def test_a_completions_server_on_loopback_can_be_scored(fresh, known, tmp_path):
    _, folder, table, prompts = known
    tested = table.select(split="test", domain="in_domain", buckets=(4,))
    Completions.answers = {prompts[row.fact.subject]: f" It is {row.fact.answers[0]}." for row in tested[:2]}
    Completions.asked = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Completions)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/v1/completions"
        done = lm_eval(
            fresh,
            "--model",
            "local-completions",
            "--tasks",
            "cbqa_mastery_id_4",
            "--metadata",
            f"mastery={folder}",
            "--model_args",
            f"model=any,base_url={url},tokenizer_backend=none,tokenized_requests=False",
            "--output_path",
            tmp_path / "out",
            folder=tmp_path,
            OPENAI_API_KEY="none",
        )
    finally:
        server.shutdown()
        server.server_close()
    assert done.returncode == 0, done.stderr[-2000:]
    found = results_in(tmp_path / "out")["results"]["cbqa_mastery_id_4"]
    assert found["contains,none"] == pytest.approx(2 / 5)
    assert found["exact_match,none"] == 0.0
    assert {body["prompt"] for body in Completions.asked} == {prompts[row.fact.subject] for row in tested}
    assert all(body["max_tokens"] == 16 and "\n" in body["stop"] for body in Completions.asked)
    assert all(body["temperature"] == 0 for body in Completions.asked)


def test_data_parallel_processes_score_the_same(fresh, known, tmp_path):
    script = tmp_path / "parallel.py"
    script.write_text(PARALLEL)
    launch = [fresh, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0", "--standalone"]
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [*launch, script, known[0], known[1], tasks_folder(), tmp_path / "scores.json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        env={**kept, "ACCELERATE_USE_CPU": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "scores.json").read_text())
    scores = score(known[0], known[1])
    assert found["processes"] == 2
    assert found["documents"] == [9, 6]  # of five facts in each of three buckets, every other to each process
    assert found["contained"] == scores.contained()
    assert found["cbqa_mastery_id"] == pytest.approx(scores.domains["in_domain"].accuracy)
    assert found["cbqa_mastery_ood"] == pytest.approx(scores.domains["out_of_domain"].accuracy)


# `accelerate launch` starts several processes in this way. lm-eval's HFLM divides the documents among them by itself
# only where each has a GPU; on CPUs it is told its rank here.
PARALLEL = """
import json, sys
from accelerate import Accelerator
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
model, table, tasks, out = sys.argv[1:]
lm = HFLM(pretrained=model, batch_size=4, device="cpu")
lm.accelerator = accelerator = Accelerator()
lm._rank, lm._world_size = accelerator.process_index, accelerator.num_processes
loaded = TaskManager(include_defaults=False, include_path=tasks, metadata={"mastery": table}).load(["cbqa_mastery"])
results = evaluate(lm, loaded, bootstrap_iters=1)
own = sum(sum(i.doc["role"] == "tested" for i in task.instances) for task in loaded["tasks"].values())
shares = [None] * lm.world_size
import torch.distributed
torch.distributed.all_gather_object(shares, own)
if lm.rank == 0:
    samples = [sample for task in results["samples"].values() for sample in task if "contains" in sample]
    figures = {name: group["contains,none"] for name, group in results["groups"].items() if "contains,none" in group}
    contained = {sample["doc"]["id"]: bool(sample["contains"]) for sample in samples}
    report = {"processes": lm.world_size, "documents": shares, "contained": contained, **figures}
    open(out, "w").write(json.dumps(report))
accelerator.end_training()
"""
