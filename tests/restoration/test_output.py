"""The output appears whole or not at all, whatever happens while it is written."""

import errno
import os
import shutil
import signal

import checkpoints
import pytest
from checkpoints import read, region_names, same

import sftknow
from sftknow import records
from sftknow.errors import CheckpointError, ConfigError, DataError
from sftknow.restoration import survey
from sftknow.restoration.output import Shards
from sftknow.restoration.select import Forecast


class Trap:
    """Stands before every step that touches the disk, counts them, and springs at one."""

    def __init__(self, spring, at):
        self.spring, self.at, self.seen = spring, at, 0

    def set(self):
        for owner, name in ((os, "pwrite"), (os, "fsync"), (records, "_exchange"), (shutil, "copyfile"), (os, "mkdir")):
            setattr(owner, name, self._before(getattr(owner, name)))

    def _before(self, step):
        def trapped(*arguments, **options):
            self.seen += 1
            if self.seen == self.at:
                self.spring()
            return step(*arguments, **options)

        return trapped


def in_child(work):
    """Run work in a forked process; return its exit status, negative for a signal."""
    child = os.fork()
    if child == 0:
        code = 1
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it otherwise
        try:
            code = work() or 0
        except KeyboardInterrupt:
            code = 130
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def trapped_restore(pair, out, spring, at, **options):
    """Restore in a child with a trap set; return (exit status, whether the trap sprang)."""

    def work():
        trap = Trap(spring, at)
        trap.set()
        sftknow.restore(pair.base, pair.tuned, out, [20, 50], threads=1, **options)
        return 7 if trap.seen < at else 0

    status = in_child(work)
    return status, status != 7


@pytest.fixture(scope="module", autouse=True)
def _compiled(bf16_pair):
    """Load the kernels before any fork."""
    sftknow.restore(bf16_pair.base, bf16_pair.tuned, dry_run=True)


def complete(pair, out):
    names = region_names("transformer", pair.after)
    for percent in (20, 50):
        same(read(out / f"top-{percent}"), pair.expected(names, percent))
        assert (out / f"top-{percent}" / "restoration.json").is_file()


def moments(step=3):
    """Every third disk operation, until a run ends before the trap."""
    at = 1
    while True:
        yield at
        at += step


def test_a_kill_at_any_moment_leaves_nothing_and_the_next_run_cleans_up(tmp_path, bf16_pair):
    out = tmp_path / "out"
    kill = lambda: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
    for at in moments():
        status, sprang = trapped_restore(bf16_pair, out, kill, at)
        if not sprang:
            assert status == 7
            break
        assert status == -signal.SIGKILL
        if out.exists():
            complete(bf16_pair, out)
            shutil.rmtree(out)
    assert at > 30
    complete(bf16_pair, out)
    assert list(tmp_path.iterdir()) == [out], "no leftover of any killed run"


def test_a_kill_while_overwriting_leaves_the_old_or_the_new_folder_whole(tmp_path, bf16_pair):
    out = tmp_path / "out"
    kill = lambda: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
    for at in moments(5):
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        (out / "mine").write_text("keep")
        _, sprang = trapped_restore(bf16_pair, out, kill, at, overwrite=True)
        if (out / "mine").exists():
            assert (out / "mine").read_text() == "keep"
            assert [entry.name for entry in out.iterdir()] == ["mine"]
        else:
            complete(bf16_pair, out)
        if not sprang:
            break
    assert list(tmp_path.iterdir()) == [out]


def test_ctrl_c_at_any_moment_leaves_nothing(tmp_path, bf16_pair):
    out = tmp_path / "out"
    interrupt = lambda: os.kill(os.getpid(), signal.SIGINT)  # noqa: E731
    for at in moments(9):
        status, sprang = trapped_restore(bf16_pair, out, interrupt, at)
        if not sprang:
            break
        assert status == 130
        if at < 60:
            assert list(tmp_path.iterdir()) == [], at
        elif out.exists():  # interrupted after the last rename
            complete(bf16_pair, out)
            shutil.rmtree(out)
        assert list(tmp_path.iterdir()) == []
    complete(bf16_pair, out)


def test_a_disk_that_fills_up_at_any_moment_is_survived(tmp_path, bf16_pair):
    out = tmp_path / "out"

    def full():
        raise OSError(errno.ENOSPC, "No space left on device")

    def attempt(at):
        trap = Trap(full, at)
        trap.set()
        try:
            sftknow.restore(bf16_pair.base, bf16_pair.tuned, out, [20, 50], threads=2)
        except (ConfigError, DataError) as error:
            return 0 if "disk is full" in str(error) or "No space left" in str(error) else 3
        return 7 if trap.seen < at else 5

    for at in moments(4):
        status = in_child(lambda: attempt(at))  # noqa: B023 - called at once
        assert status in (0, 5, 7)
        if status == 7:
            break
        if status == 0:
            assert not list(tmp_path.iterdir()), at
        shutil.rmtree(out, ignore_errors=True)
    complete(bf16_pair, out)


def test_missing_space_is_told_before_anything_is_written(tmp_path, bf16_pair, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(ConfigError, match=r"needs 0\.03 GB and .* has 0\.00 GB left; free some or name another folder"):
        sftknow.restore(bf16_pair.base, bf16_pair.tuned, tmp_path / "out", [20, 50])
    sftknow.restore(bf16_pair.base, bf16_pair.tuned, tmp_path / "out", [20, 50], dry_run=True)
    assert not list(tmp_path.iterdir())


def test_a_system_that_writes_in_small_pieces_is_served(tmp_path, bf16_pair, monkeypatch):
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda handle, data, start: write(handle, data[:100], start))
    sftknow.restore(bf16_pair.base, bf16_pair.tuned, tmp_path / "out", [20, 50])
    complete(bf16_pair, tmp_path / "out")


@pytest.mark.parametrize("at", [0, 1, 7, 15])
def test_bytes_that_change_on_their_way_to_the_disk_are_noticed(tmp_path, bf16_pair, monkeypatch, at):
    write, calls = os.pwrite, []

    def corrupt(handle, data, start):
        calls.append(start)
        data = bytearray(data)
        if len(calls) == at + 1:
            data[len(data) // 2] ^= 1
        return write(handle, bytes(data), start)

    monkeypatch.setattr(os, "pwrite", corrupt)
    with pytest.raises(CheckpointError, match="does not hold what was written; check the disk"):
        sftknow.restore(bf16_pair.base, bf16_pair.tuned, tmp_path / "out", [20, 50], threads=1)
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_refused_before_any_work(tmp_path, bf16_pair):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("keep")
    with pytest.raises(ConfigError, match=r"already exists and is not empty; .* --overwrite"):
        sftknow.restore(tmp_path / "absent", tmp_path / "absent", out, 20)
    sftknow.restore(bf16_pair.base, bf16_pair.tuned, out, [20, 50], overwrite=True)
    complete(bf16_pair, out)
    assert not (out / "mine").exists()


def test_two_writers_of_one_folder_do_not_take_each_other_for_leftovers(tmp_path):
    out = tmp_path / "out"
    with records.new_folder(out) as first:
        (first / "a").write_text("a")
        with records.new_folder(out) as second:
            (second / "b").write_text("b")
        assert (first / "a").read_text() == "a"
        shutil.rmtree(out)
    assert [entry.name for entry in out.iterdir()] == ["a"]


def test_open_ties_are_settled_on_disk_and_still_verified(tmp_path, monkeypatch):
    """Parameters left open by the second reading are written one by one; the checksums must follow."""
    shapes = {f"model.layers.{n}.mlp.up_proj.weight": (301, 7) for n in range(3)}
    pair = checkpoints.make_pair(tmp_path, shapes=shapes, size=2e-4)
    monkeypatch.setattr(survey, "foresee", lambda *_: Forecast(frozenset(), ()))  # small groups are then left open
    written = []
    lower = Shards.lower
    monkeypatch.setattr(Shards, "lower", lambda *arguments: (written.append(arguments[2:]), lower(*arguments)))
    sftknow.restore(pair.base, pair.tuned, tmp_path / "out", [7, 7.1, 30], of="changed")
    assert written, "this pair must have open ties"
    for percent in (7, 7.1, 30):
        same(read(tmp_path / "out" / f"top-{percent}"), pair.expected(list(shapes), percent, of="changed"))
