"""Workers run side by side, hand back results as they come, and their errors arrive whole."""

import os

import pytest

from sftknow.demo.workers import run_side_by_side
from sftknow.errors import DataError, SftknowError


def square(number: int) -> int:
    return number * number


def refuse(number: int) -> int:
    raise DataError(f"number {number} is refused.")


def die(number: int) -> int:
    os._exit(1)


def threads(number: int) -> str:
    return os.environ["OMP_NUM_THREADS"]


def test_every_item_comes_back_with_its_result() -> None:
    assert dict(run_side_by_side(square, [1, 2, 3], workers=2)) == {1: 1, 2: 4, 3: 9}


def test_workers_use_one_thread_each_and_the_caller_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert dict(run_side_by_side(threads, [1], workers=1)) == {1: "1"}
    assert os.environ["OMP_NUM_THREADS"] == "7"


def test_an_error_arrives_as_it_was() -> None:
    with pytest.raises(DataError, match="number 5 is refused"):
        list(run_side_by_side(refuse, [5], workers=1))


def test_a_worker_that_dies_is_explained() -> None:
    with pytest.raises(SftknowError, match="--workers 1"):
        list(run_side_by_side(die, [5], workers=1))
