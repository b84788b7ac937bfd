"""A probing process: the model's place on the first line of its input, then one window a line, one result a line."""

import json
import os
import signal
import sys
from typing import IO, Any

from sftknow.errors import SftknowError


def main() -> None:
    """Answer windows until the input ends; Ctrl-C is left to the parent, whose end closes the input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    lines = sys.stdin.buffer
    place = json.loads(lines.readline() or "null")
    engine = None
    for number, line in enumerate(lines):
        try:
            engine = engine or _engine(place)
            from sftknow.mastery.window import Window

            _, result = next(engine.results([(number, Window.from_json(json.loads(line)))]))
        except Exception as error:
            result = {"error": type(error).__name__, "message": _text(error)}
        _answer(answers, result)


def _engine(place: dict[str, Any]) -> Any:
    from sftknow.mastery.engine import InProcess, LocalModel

    return InProcess(LocalModel(**place))


def _text(error: Exception) -> str:
    return str(error) if isinstance(error, SftknowError) else f"{type(error).__name__}: {error}"


def _answer(answers: IO[bytes], result: Any) -> None:
    answers.write(json.dumps(result).encode() + b"\n")
    answers.flush()


if __name__ == "__main__":
    main()
