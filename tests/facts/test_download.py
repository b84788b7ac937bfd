"""Facts fetched from a real server on loopback: checked, resumed, kept; and from a small Hub."""

import hashlib
import http.server
import json
import os
import re
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sftknow.errors import DataError
from sftknow.facts import download
from sftknow.facts.download import fetch, fetch_from_hub, fetch_url
from sftknow.facts.load import load_facts

ROWS = [{"question": f"Where was Person {number} born?", "answers": [f"Town {number % 7}"]} for number in range(400)]


class Server(http.server.ThreadingHTTPServer):
    """Serves one file, with ranges; breaks off where told to."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.tag = '"one"'
        self.break_off: list[int] = []  # bytes after which each next answer breaks off
        self.ranges = True
        self.status = 200
        self.requests: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/data/facts%20set.zip"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.requests.append(wanted)
        if self.server.status != 200:
            self.send_error(self.server.status)
            return
        start = 0
        if wanted and self.server.ranges and self.headers.get("If-Range") == self.server.tag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        if start >= len(self.server.content) > 0:
            self.send_error(416)
            return
        body = self.server.content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header(
                "Content-Range", f"bytes {start}-{len(self.server.content) - 1}/{len(self.server.content)}"
            )
        self.send_header("Content-Length", str(len(body)))
        if self.server.tag:
            self.send_header("ETag", self.server.tag)
        self.end_headers()
        self.wfile.write(body[: self.server.break_off.pop(0)] if self.server.break_off else body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def archive(tmp_path: Path) -> bytes:
    path = tmp_path / "made.zip"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("dataset/train/P19.train.json", json.dumps(ROWS))
    return path.read_bytes()


@pytest.fixture
def server(archive: bytes) -> Iterator[Server]:
    with Server(archive) as running:
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    monkeypatch.setenv("SFTKNOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_facts_are_loaded_from_a_url_with_its_digest_and_fetched_once(server: Server, archive: bytes) -> None:
    source = f"{server.url}#sha256={sha256(archive).upper()}"
    loaded = load_facts(source)
    assert len(loaded.facts) == 400
    assert loaded.identity["sha256"] == sha256(archive)
    assert load_facts(source).facts == loaded.facts
    assert server.requests == [None]


def test_a_download_that_breaks_off_goes_on_where_it_stopped(server: Server, archive: bytes, tmp_path: Path) -> None:
    server.break_off = [1000, 2000, 0]
    path = fetch_url(server.url, sha256(archive), tmp_path / "d")
    assert path.read_bytes() == archive
    assert path.name.endswith("-facts_set.zip")
    assert server.requests == [None, "bytes=1000-", "bytes=3000-", "bytes=3000-"]
    assert sorted(entry.name for entry in path.parent.iterdir()) == [path.name, f"{path.name}.sha256"]


def test_a_later_run_goes_on_with_what_an_earlier_one_left(server: Server, archive: bytes, tmp_path: Path) -> None:
    server.break_off = [1000, 500, 500, 500, 500]
    with pytest.raises(
        DataError, match=r"cannot be fetched \(the connection ended early\); 3,000 bytes are kept, the same"
    ):
        fetch_url(server.url, None, tmp_path / "d")
    assert fetch_url(server.url, None, tmp_path / "d").read_bytes() == archive
    assert server.requests[-1] == "bytes=3000-"


def test_a_file_that_changed_in_between_is_fetched_anew(server: Server, archive: bytes, tmp_path: Path) -> None:
    server.break_off = [1000] * 5
    server.ranges = False
    with pytest.raises(DataError, match="1,000 bytes are kept"):
        fetch_url(server.url, None, tmp_path / "d")
    server.ranges, server.tag, server.content = True, '"two"', archive[::-1]
    assert fetch_url(server.url, None, tmp_path / "d").read_bytes() == archive[::-1]


def test_a_server_without_ranges_or_tags_is_read_from_the_start(server: Server, archive: bytes, tmp_path: Path) -> None:
    server.tag = ""
    server.break_off = [1000, 1000]
    assert fetch_url(server.url, sha256(archive), tmp_path / "d").read_bytes() == archive
    assert server.requests == [None, None, None]


def test_a_part_longer_than_the_file_is_thrown_away(server: Server, archive: bytes, tmp_path: Path) -> None:
    server.break_off = [1000] * 5
    with pytest.raises(DataError):
        fetch_url(server.url, None, tmp_path / "d")
    server.content = archive[:100]
    assert fetch_url(server.url, None, tmp_path / "d").read_bytes() == archive[:100]


def test_content_with_another_digest_is_not_kept(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has SHA-256 [0-9a-f]{64}, not 0{64} as asked for; it was not kept"):
        fetch_url(server.url, "0" * 64, tmp_path / "d")
    assert not list((tmp_path / "d").glob("*.zip*"))


def test_a_damaged_copy_is_fetched_again_and_held_to_the_first_digest(
    server: Server, archive: bytes, tmp_path: Path
) -> None:
    path = fetch_url(server.url, None, tmp_path / "d")
    assert (path.parent / f"{path.name}.sha256").read_text() == f"{sha256(archive)}  {path.name}\n"
    path.write_bytes(b"damaged")
    assert fetch_url(server.url, None, tmp_path / "d").read_bytes() == archive
    path.write_bytes(b"damaged")
    server.content = b"something else"
    with pytest.raises(DataError, match=r"not [0-9a-f]{64} as when it was fetched first"):
        fetch_url(server.url, None, tmp_path / "d")


def test_a_digest_given_later_is_checked_against_the_copy(server: Server, archive: bytes, tmp_path: Path) -> None:
    fetch_url(server.url, None, tmp_path / "d")
    server.content = archive[::-1]
    assert fetch_url(server.url, sha256(archive[::-1]), tmp_path / "d").read_bytes() == archive[::-1]
    assert fetch_url(server.url, None, tmp_path / "d").read_bytes() == archive[::-1]
    assert len(server.requests) == 2


def test_what_cannot_be_fetched_is_one_clear_line(server: Server, tmp_path: Path) -> None:
    server.status = 404
    with pytest.raises(DataError, match=r"facts%20set\.zip answered 404 Not Found; check the address\."):
        fetch_url(server.url, None, tmp_path / "d")
    server.status = 503
    with pytest.raises(DataError, match=r"cannot be fetched \(503 Service Unavailable\); 0 bytes are kept"):
        fetch_url(server.url, None, tmp_path / "d")
    server.shutdown()
    server.server_close()
    with pytest.raises(DataError, match=r"cannot be fetched \(.*refused.*\)"):
        fetch_url(server.url, None, tmp_path / "d")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"cannot be written: .*SFTKNOW_CACHE names another folder"):
        fetch_url(server.url, None, tmp_path / "file")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("http://127.0.0.1/a.zip", "is not encrypted: give its digest with it"),
        ("https://127.0.0.1/a.zip#md5=0", "what follows the '#' must be sha256=<64 hex digits>."),
        ("https://127.0.0.1/a.zip#sha256=12", "what follows the '#' must be sha256=<64 hex digits>."),
        ("hf://models/org/name", "is not of the form hf://datasets/org/name[@revision][/file]."),
        ("hf://datasets/name", "is not of the form hf://datasets/org/name[@revision][/file]."),
    ],
)
def test_malformed_addresses_are_refused_before_anything_is_fetched(source: str, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        fetch(source)


def test_a_path_that_only_looks_like_an_address_is_a_path(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        load_facts(tmp_path / "https:" / "facts.zip")


def test_too_long_a_file_is_not_fetched(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "MAX_DOWNLOAD_BYTES", 1000)
    with pytest.raises(DataError, match="more than facts can be"):
        fetch_url(server.url, None, tmp_path / "d")


# The Hub


class Hub(http.server.ThreadingHTTPServer):
    """The part of the Hugging Face Hub that listing and fetching a dataset's files needs."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.files = files


class HubHandler(http.server.BaseHTTPRequestHandler):
    server: Hub
    commit = "0123456789abcdef0123456789abcdef01234567"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        listing = re.fullmatch(r"/api/datasets/org/facts/(?:tree|revision)/(main|v1|[0-9a-f]{40})/?", path)
        file = re.fullmatch(r"/datasets/org/facts/resolve/(main|v1|[0-9a-f]{40})/(.+)", path)
        if listing:
            tree = [{"type": "file", "path": name, "size": len(data), "oid": "0" * 40} for name, data in self.files()]
            siblings = [{"rfilename": name} for name, _ in self.files()]
            info = {"id": "org/facts", "sha": self.commit, "siblings": siblings}
            self._send(json.dumps(tree if "/tree/" in path else info).encode(), {"Content-Type": "application/json"})
        elif path == "/api/datasets/org/facts":
            siblings = [{"rfilename": name} for name, _ in self.files()]
            self._send(json.dumps({"id": "org/facts", "sha": self.commit, "siblings": siblings}).encode(), {})
        elif file and file[2] in self.server.files:
            data = self.server.files[file[2]]
            self._send(data, {"X-Repo-Commit": self.commit, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'})
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound" if file else "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def files(self) -> list[tuple[str, bytes]]:
        return sorted(self.server.files.items())

    def _send(self, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


PROGRAM = """
import sys
from sftknow.errors import DataError
from sftknow.facts.load import load_facts
for source in sys.argv[1:]:
    try:
        print(len(load_facts(source).facts))
    except DataError as error:
        print(error)
"""


def from_hub(files: dict[str, bytes], home: Path, *sources: str) -> list[str]:
    """Load facts from a Hub of these files in a process of its own: the client reads its address when imported."""
    with Hub(files) as hub:
        threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        environment = {
            **{name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "HF_TOKEN")},
            "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_address[1]}",
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        run = subprocess.run(
            [sys.executable, "-c", PROGRAM, *sources], env=environment, capture_output=True, text=True, timeout=120
        )
        hub.shutdown()
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def test_facts_come_from_the_hub_as_archive_layout_zip_or_jsonl(tmp_path: Path, archive: bytes) -> None:
    line = json.dumps({"relation": "P19", "subject": "Ada", "answers": ["London"], "split": "test"}).encode()
    layout = {"README.md": b"x", "dataset/train/P19.train.json": json.dumps(ROWS).encode()}
    dataset = "hf://datasets/org/facts"
    assert from_hub(layout, tmp_path / "a", dataset, f"{dataset}@v1") == ["400", "400"]
    assert from_hub({"README.md": b"x", "dataset.zip": archive}, tmp_path / "b", dataset) == ["400"]
    answers = from_hub(
        {"one.jsonl": line, "sub/two.jsonl": line},
        tmp_path / "c",
        dataset,
        f"{dataset}/sub/two.jsonl",
        f"{dataset}/three.jsonl",
        "hf://datasets/org/none",
    )
    assert answers[0] == f"{dataset} holds several files of facts; add one of them: one.jsonl, sub/two.jsonl."
    assert answers[1] == "1"
    assert answers[2].startswith(f"{dataset}/three.jsonl cannot be fetched from the Hub: ")
    assert answers[3].startswith("hf://datasets/org/none cannot be fetched from the Hub: ")
    assert from_hub({"README.md": b"x"}, tmp_path / "d", dataset) == [
        f"{dataset} holds neither the files of the EntityQuestions archive nor a .zip or .jsonl file."
    ]


def test_offline_the_hub_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"^hf://datasets/org/facts/a\.zip cannot be fetched from the Hub: [^\n]+\.$"):
        fetch_from_hub("hf://datasets/org/facts/a.zip")
