"""Work over chunks on several threads; the kernels release the GIL, results keep the order of the tasks."""

import itertools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from sftknow import progress

Task = TypeVar("Task")
State = TypeVar("State")
Result = TypeVar("Result")


MAX_DEFAULT_THREADS = 16
"""More wait for memory, not for a core, and each holds its own histogram."""


def default_threads() -> int:
    """Return how many threads to use: one for each core this process may use, up to a limit."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MAX_DEFAULT_THREADS)


def run_tasks(
    tasks: Sequence[Task],
    work: Callable[[State, Task], Result],
    *,
    threads: int,
    make_state: Callable[[], State],
    weigh: Callable[[Task], int],
    label: str,
    unit: str = "param",
) -> list[Result]:
    """Apply ``work`` to every task and return the results in the order of the tasks.

    Args:
        tasks: done roughly in order.
        work: (the thread's own state, task) -> result.
        threads: at most this many at once.
        make_state: makes the state of one thread.
        weigh: how far a task moves the progress bar.
        label: what the bar says.
        unit: what the bar counts.

    Raises:
        Exception: the first one that ``work`` raised; the other threads end after the task in hand.
    """
    results: list[Result | None] = [None] * len(tasks)
    numbers, lock, stop, done = itertools.count(), threading.Lock(), threading.Event(), [0]

    def loop() -> None:
        state = make_state()
        while not stop.is_set() and (number := next(numbers)) < len(tasks):
            try:
                results[number] = work(state, tasks[number])
            except BaseException:
                stop.set()
                raise
            with lock:
                done[0] += weigh(tasks[number])

    total = sum(weigh(task) for task in tasks)
    workers = max(1, min(threads, len(tasks)))
    with (
        progress.counter(label=label, total=total, unit=unit, unit_scale=True) as bar,
        ThreadPoolExecutor(workers) as pool,
    ):
        try:
            _await([pool.submit(loop) for _ in range(workers)], bar, done)
        finally:
            stop.set()
    return results  # type: ignore[return-value]


def _await(futures: list[Future[None]], bar: object, done: list[int]) -> None:
    pending = set(futures)
    while pending:
        finished, pending = wait(pending, timeout=0.2, return_when=FIRST_EXCEPTION)
        bar.update(done[0] - bar.n)  # type: ignore[attr-defined]
        for future in finished:
            future.result()
