"""Mastery tables from folders and from a Hub on loopback."""

import http.server
import json
import os
import subprocess
import sys
import threading

import pytest

from sftknow.errors import DataError
from sftknow.facts.fact import Fact, fact_id
from sftknow.mastery.locate import load_mastery, mastery_folder
from sftknow.mastery.table import MasteryTable, ProbedFact

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def write_table(folder):
    fact = Fact(fact_id("birth", "test", "Q?"), "birth", "in_domain", "test", "Ann", "Q?", ("Oslo",))
    MasteryTable((ProbedFact.from_counts(fact, [1], [4]),)).write(folder)
    return folder


def test_a_folder_is_taken_as_it_is_and_read_once(tmp_path):
    folder = write_table(tmp_path / "table")
    assert mastery_folder(folder) == folder
    assert load_mastery(folder) is load_mastery(str(folder))


def test_what_is_neither_folder_nor_hub_id_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for reference in (tmp_path / "nowhere", tmp_path / "file", "plainname", "a/b/c"):
        with pytest.raises(DataError, match="neither a folder nor a Hub dataset"):
            mastery_folder(reference)


def test_a_dataset_that_cannot_be_fetched_is_one_sentence():
    with pytest.raises(DataError, match="org/none is no folder here and cannot be fetched") as raised:
        mastery_folder("org/none")
    assert "\n" not in str(raised.value)


def hub_of(folder):
    """Serve a folder as the dataset org/table of a Hub on loopback; return the server."""

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            path = self.path.partition("?")[0]
            entries = [{"type": "file", "path": entry.name, "size": entry.stat().st_size} for entry in folder.iterdir()]
            if path.startswith("/api/datasets/org/table/tree/"):
                oids = [{**entry, "oid": entry["path"]} for entry in entries]
                self.reply(json.dumps(oids).encode())
            elif path.startswith("/api/datasets/org/table/revision/"):
                names = [{"rfilename": entry["path"]} for entry in entries]
                self.reply(json.dumps({"id": "org/table", "sha": COMMIT, "siblings": names}).encode())
            elif path.startswith(f"/datasets/org/table/resolve/{COMMIT}/"):
                self.reply((folder / path.rpartition("/")[2]).read_bytes())
            else:
                self.send_error(404)

        def reply(self, data):
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("ETag", f'"{hash(data) & 0xFFFFFFFF:x}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.mark.parametrize("reference", ["org/table", "org/table@v1"])
def test_a_table_on_the_hub_is_fetched_and_read(tmp_path, reference):
    server = hub_of(write_table(tmp_path / "table"))
    code = f"from sftknow.mastery.locate import load_mastery; print(load_mastery({reference!r}).rows[0].fact.subject)"
    environment = {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path / "hub"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
    }
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True
        )
    finally:
        server.shutdown()
        server.server_close()
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "Ann"
