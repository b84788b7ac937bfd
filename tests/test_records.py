"""Files appear whole or not at all, carry their provenance, and are checked when read."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftknow import __version__, records
from sftknow.errors import CheckpointError, ConfigError, DataError


def test_a_record_carries_schema_versions_seeds_and_sources(tmp_path: Path) -> None:
    source = tmp_path / "facts.jsonl"
    source.write_bytes(b"abc")
    path = tmp_path / "kl.json"
    records.write_record(path, "kl", {"mean": 0.5}, made_from={"facts": records.file_identity(source)}, seeds=[3, 4])
    written = json.loads(path.read_text())
    assert written["schema"] == "sftknow.kl/1"
    assert written["versions"]["sftknow"] == __version__
    assert "torch" in written["versions"]
    assert written["seeds"] == [3, 4]
    assert written["made_from"]["facts"] == {
        "path": str(source),
        "bytes": 3,
        "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    }
    assert records.read_record(path, "kl") == written


def test_a_record_refuses_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        records.write_record(tmp_path / "kl.json", "kl", {"mean": float("nan")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        ("", "cannot be read as JSON"),
        ('{"schema": ', "cannot be read as JSON"),
        ("[]", "has schema None"),
        ('{"schema": "sftknow.kl/99"}', "this version of sftknow reads 'sftknow.kl/1'"),
        ('{"schema": "sftknow.mastery/1"}', "this version of sftknow reads 'sftknow.kl/1'"),
    ],
)
def test_reading_names_the_file_and_what_is_wrong(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "kl.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        records.read_record(path, "kl")
    assert str(path) in str(caught.value)


def test_writing_into_a_missing_folder_is_a_plain_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be written: No such file or directory"):
        records.write_text(tmp_path / "absent" / "a.txt", "a")


def test_writing_keeps_the_old_file_until_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    records.write_text(path, "old")

    def full_disk(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(DataError, match="No space left on device"):
        records.write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_folder_appears_only_at_the_end(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with records.new_folder(out) as staging:
        (staging / "a").write_text("a")
        assert not out.exists()
    assert [entry.name for entry in out.iterdir()] == ["a"]
    assert [entry.name for entry in out.parent.iterdir()] == ["out"]


def test_an_error_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), records.new_folder(tmp_path / "out") as staging:
        (staging / "a").write_text("a")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_refused_and_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("keep")
    with pytest.raises(ConfigError, match="--overwrite"), records.new_folder(out):
        pass
    with pytest.raises(RuntimeError), records.new_folder(out, overwrite=True):
        raise RuntimeError
    assert (out / "mine").read_text() == "keep"
    with records.new_folder(out, overwrite=True) as staging:
        (staging / "new").write_text("new")
    assert [entry.name for entry in out.iterdir()] == ["new"]


def test_a_file_in_the_way_is_refused_even_with_overwrite(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ConfigError, match="is a file"), records.new_folder(tmp_path / "out", overwrite=True):
        pass


def test_a_folder_below_a_file_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="not a folder you may write to"):
        records.check_output_folder(tmp_path / "file" / "out")


KILLED_WRITER = """
    import sys, time
    from pathlib import Path
    from sftknow.records import new_folder
    with new_folder(Path(sys.argv[1])) as staging:
        (staging / "half").write_text("half")
        print("ready", flush=True)
        time.sleep(60)
"""


def test_a_killed_writer_leaves_no_folder_and_the_next_run_removes_the_leftover(tmp_path: Path) -> None:
    out = tmp_path / "out"
    writer = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED_WRITER), str(out)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert not out.exists()
    assert len(list(tmp_path.iterdir())) == 1
    with records.new_folder(out):
        pass
    assert list(tmp_path.iterdir()) == [out]


def test_a_folder_moved_aside_by_a_killed_overwrite_comes_back(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    aside = tmp_path / f".out.{ended.pid}-abcdef.old"
    aside.mkdir()
    (aside / "mine").write_text("keep")
    with pytest.raises(ConfigError, match="already exists"), records.new_folder(tmp_path / "out"):
        pass
    assert (tmp_path / "out" / "mine").read_text() == "keep"


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.lists(st.booleans()), min_size=2))
def test_the_digest_ignores_the_order_of_keys(value: dict[str, object]) -> None:
    backwards = dict(reversed(list(value.items())))
    canonical = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    assert records.digest(value) == records.digest(backwards) == hashlib.sha256(canonical.encode()).hexdigest()[:16]


def test_model_identity_tells_retrained_weights_apart(tmp_path: Path) -> None:
    import numpy
    from safetensors.numpy import save_file

    digests = []
    for value in (0.0, 1.0):
        (tmp_path / "config.json").write_text("{}")
        save_file({"w": numpy.full((64, 64), value, dtype=numpy.float32)}, tmp_path / "model.safetensors")
        digests.append(records.model_identity(tmp_path)["digest"])
    assert digests[0] != digests[1]


def test_a_folder_without_weights_has_no_identity(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no \.safetensors weights"):
        records.model_identity(tmp_path)


def test_creation_time_is_utc(tmp_path: Path) -> None:
    record = records.write_record(tmp_path / "kl.json", "kl", {})
    assert record["created"].endswith("+00:00")
    assert record["created"][:4] == time.strftime("%Y", time.gmtime())
