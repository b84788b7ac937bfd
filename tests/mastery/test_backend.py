import json
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import sqrt

import pytest
from probe_worlds import FACTS, RELATIONS, RIGHT, SCRIPT, NoAliases
from scripted import write_scripted

from sftknow.errors import ConfigError, DataError
from sftknow.mastery import source
from sftknow.mastery.backend import LmEvalModel
from sftknow.mastery.probe import probe


def run(model, facts=FACTS, **options):
    return probe(model, facts, RELATIONS, aliases=NoAliases(), **options)


class Server(ThreadingHTTPServer):
    """A completions server that follows the script: equal prompt and seed give equal text, as real ones do."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests = []
        self.fail_after = None

    def complete(self, prompt, seed):
        draw, token, text = random.Random(f"{prompt} {seed}"), " " + prompt.split()[-1], ""
        while True:
            following = SCRIPT.get(token, {"</s>": 1.0})
            token = draw.choices(list(following), list(following.values()))[0]
            if token == "</s>":
                return text
            text += token


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(body)
        failing = self.server.fail_after is not None and len(self.server.requests) > self.server.fail_after
        prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
        choices = [
            {"index": n, "text": self.server.complete(prompt, body["seed"]), "logprobs": None, "finish_reason": "stop"}
            for n, prompt in enumerate(prompts)
        ]
        data = json.dumps({"error": "out of order"} if failing else {"choices": choices}).encode()
        self.send_response(500 if failing else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def served(server):
    url = f"http://127.0.0.1:{server.server_port}/v1/completions"
    args = f"model=scripted,base_url={url},tokenized_requests=False,tokenizer_backend=None,max_retries=1"
    return LmEvalModel("local-completions", args, batch_size="27")


def test_r_of_a_served_model_is_within_binomial_error(server):
    table = run(served(server), samples=60)
    pooled = {}
    for row in table.rows:
        for position, hits in enumerate(row.template_hits):
            pooled.setdefault((row.fact.answers[0], position), []).append(hits)
    for (answer, position), hits in pooled.items():
        p, n = RIGHT[answer][position], 60 * len(hits)
        assert abs(sum(hits) / n - p) <= 4 * sqrt(p * (1 - p) / n), (answer, position)
    assert table.protocol["sampler"] == "local-completions"
    assert table.made_from["model"]["backend"] == "local-completions"
    assert table.protocol["cost"]["completions"] == 9 * 3 * 60


def test_every_repeat_goes_out_with_another_seed_and_the_protocol_s_numbers(server):
    run(served(server), samples=10, temperature=0.6, max_new_tokens=7)
    assert len({request["seed"] for request in server.requests}) == 10
    assert sum(len(request["prompt"]) for request in server.requests) == 9 * 3 * 10
    for request in server.requests:
        wanted = {"model": "scripted", "temperature": 0.6, "max_tokens": 7, "top_p": 1.0}
        assert wanted.items() <= request.items()
        assert "top_k" not in request
    again = len(server.requests)
    first = run(served(server), samples=10, seed=1)
    assert {r["seed"] for r in server.requests[:again]}.isdisjoint(r["seed"] for r in server.requests[again:])
    assert run(served(server), samples=10, seed=1).rows == first.rows


def test_a_server_that_fails_midway_loses_nothing_that_was_finished(server, tmp_path, monkeypatch):
    monkeypatch.setattr(source, "BACKEND_WINDOW", 3)
    journal = tmp_path / "journal.jsonl"
    whole = run(served(server), samples=4)
    per_window = len(server.requests) // 3
    server.requests.clear()
    server.fail_after = per_window + 1
    with pytest.raises(DataError, match=r"local-completions failed.*run the same command again"):
        run(served(server), samples=4, journal=journal)
    server.fail_after = None
    server.requests.clear()
    assert run(served(server), samples=4, journal=journal).rows == whole.rows
    assert len(server.requests) == 2 * per_window


def test_adaptive_probing_asks_a_server_less(server):
    facts = [fact for fact in FACTS if fact.answers[0] == "Bern"] + list(FACTS[:1])
    table = run(served(server), facts, samples=30, confidence=0.8)
    assert sum(row.trials for row in table.rows) == sum(len(request["prompt"]) for request in server.requests)


def test_transformers_through_lm_eval_samples_the_whole_vocabulary(tmp_path):
    write_scripted(tmp_path, SCRIPT)
    model = LmEvalModel("hf-auto", f"pretrained={tmp_path},dtype=float32", batch_size="64", device="cpu")
    table = run(model, FACTS[:2], samples=60, max_new_tokens=4)
    for row in table.rows:
        for hits, p in zip(row.template_hits, RIGHT[row.fact.answers[0]], strict=True):
            assert abs(hits / 60 - p) <= 4 * sqrt(p * (1 - p) / 60)
    assert table.rows == run(model, FACTS[:2], samples=60, max_new_tokens=4).rows
    assert table.made_from["model"]["path"] == str(tmp_path)


@pytest.mark.parametrize(
    ("model", "options", "text"),
    [
        (LmEvalModel("no-such", "x=1"), {}, "--model no-such --model_args x=1 cannot be used"),
        (LmEvalModel("local-completions", "nonsense"), {}, "cannot be used"),
        (LmEvalModel("local-completions", "model=x"), {"estimator": "likelihood"}, "needs a local model"),
        (LmEvalModel("local-completions", "model=x"), {"workers": 2}, "--workers is for --model hf"),
    ],
)
def test_what_cannot_be_used_is_refused(model, options, text):
    with pytest.raises(ConfigError, match=text):
        run(model, **options)
