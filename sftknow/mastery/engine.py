"""Engines: what probes windows of facts on a local model, in this process or in several of their own."""

import contextlib
import json
import os
import queue
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from sftknow.errors import CheckpointError, ConfigError, DataError, SftknowError
from sftknow.mastery.window import Window

WindowResult = dict[str, Any]
_ERRORS: dict[str, type[SftknowError]] = {kind.__name__: kind for kind in (ConfigError, DataError, CheckpointError)}


class Engine(Protocol):
    """Probes windows of facts; results come in any order, each with its window's number."""

    def results(self, windows: Iterable[tuple[int, Window]]) -> Iterator[tuple[int, WindowResult]]:
        """Yield (number, result) of every window."""

    def close(self) -> None:
        """Free what the engine holds."""


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model folder and how to load it.

    Attributes:
        folder: a Hugging Face model folder.
        device: a torch device.
        dtype: one of ``sftknow.models.DTYPES``.
        threads: torch threads to compute with; None leaves torch's own choice.
    """

    folder: str
    device: str = "cpu"
    dtype: str = "float32"
    threads: int | None = None


class InProcess:
    """Loads the model here and probes one window after another."""

    def __init__(self, source: LocalModel) -> None:
        from sftknow.mastery.estimators import LocalEstimators
        from sftknow.models import load_model, load_tokenizer, process_threads

        if source.threads:
            process_threads(source.threads)
        folder = Path(source.folder)
        model = load_model(folder, dtype=source.dtype, device=source.device)
        self._estimators = LocalEstimators(model, load_tokenizer(folder))

    def results(self, windows: Iterable[tuple[int, Window]]) -> Iterator[tuple[int, WindowResult]]:
        """Yield (number, result) of every window, in order."""
        for number, window in windows:
            yield number, self._estimators.run(window)

    def close(self) -> None:
        """Forget the model."""
        del self._estimators


class ManyProcesses:
    """Probes windows in processes of their own, one torch thread each; each loads the model once.

    The windows and so the numbers are those of one process: only the order in which they end differs.
    """

    def __init__(self, source: LocalModel, workers: int) -> None:
        self._free: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._workers = [_Worker(source) for _ in range(workers)]
        for worker in self._workers:
            self._free.put(worker)

    def results(self, windows: Iterable[tuple[int, Window]]) -> Iterator[tuple[int, WindowResult]]:
        """Yield (number, result) of every window as it ends."""
        pool = ThreadPoolExecutor(len(self._workers))
        try:
            futures = {pool.submit(self._ask, window): number for number, window in windows}
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.end()

    def _ask(self, window: Window) -> WindowResult:
        worker = self._free.get()
        try:
            return worker.ask(window)
        finally:
            self._free.put(worker)


class _Worker:
    """One process that reads a window a line and answers a result a line; it ends when its input does."""

    def __init__(self, source: LocalModel) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sftknow.mastery.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**environment, "OMP_NUM_THREADS": str(source.threads or 1), "TOKENIZERS_PARALLELISM": "false"},
        )
        self._write(asdict(source))

    def ask(self, window: Window) -> WindowResult:
        self._write(window.to_json())
        line = self._pipe(self._process.stdout).readline()
        if not line:
            raise DataError(
                f"a probing process ended by itself (exit code {self._process.wait()}; -9 means out of memory); "
                "what is done is kept: run the same command again, with fewer --workers."
            )
        answer = json.loads(line)
        if "error" in answer:
            raise _ERRORS.get(answer["error"], RuntimeError)(answer["message"])
        return dict(answer)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):
                self._pipe(pipe).close()

    def _write(self, value: Any) -> None:
        pipe = self._pipe(self._process.stdin)
        with contextlib.suppress(BrokenPipeError):  # the reader finds that the process ended, and says so
            pipe.write(json.dumps(value).encode() + b"\n")
            pipe.flush()

    @staticmethod
    def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
        assert pipe is not None
        return pipe
