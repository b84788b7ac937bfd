"""YAML that a person wrote, read with the line of every value, so that an error can say where it is."""

from collections.abc import Iterator
from pathlib import Path

import yaml

from sftknow.errors import DataError

STRING_TAG = "tag:yaml.org,2002:str"


class Problems:
    """The problems found in one file, raised together."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: list[tuple[int, str]] = []

    def add(self, node: yaml.Node, text: str) -> None:
        """Note one problem at the line where the node begins."""
        self._found.append((node.start_mark.line + 1, text))

    def check(self) -> None:
        """Raise DataError listing every problem noted so far, in the order of the file; return where there is none."""
        if not self._found:
            return
        lines = [f"line {line}: {text}" for line, text in sorted(self._found)]
        count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
        raise DataError(f"{self._path} has {count}:\n  " + ";\n  ".join(lines) + ".")


def parse(path: Path) -> yaml.MappingNode:
    """Read a YAML file whose top level is a mapping.

    Raises:
        DataError: the file is missing, not UTF-8, not YAML, empty, or holds something else at its top level.
    """
    try:
        root = yaml.compose(path.read_text(encoding="utf-8-sig"), Loader=yaml.SafeLoader)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; name an existing YAML file.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a text file in UTF-8 ({error.reason} at byte {error.start}).") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    except yaml.YAMLError as error:
        raise DataError(f"{path} is not valid YAML: {_first_line(error)}.") from error
    if root is None:
        raise DataError(f"{path} is empty.")
    if not isinstance(root, yaml.MappingNode):
        raise DataError(f"{path}, line {root.start_mark.line + 1}: the top level must be a mapping (name: ...).")
    return root


def _first_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"line {mark.line + 1}: {problem}" if mark is not None else problem


def entries(node: yaml.MappingNode, problems: Problems) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
    """Yield (key, key node, value node) of a mapping, noting keys that are no text or stand twice."""
    seen: dict[str, int] = {}
    for key_node, value in node.value:
        key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
        if not key:
            problems.add(key_node, "a key must be plain text")
            continue
        if key in seen:
            problems.add(key_node, f"{key!r} stands here for the second time; it is first on line {seen[key]}")
            continue
        seen[key] = key_node.start_mark.line + 1
        yield key, key_node, value


def text_of(node: yaml.Node) -> str | None:
    """Return the text of a string node; None where the node is something else (a number, a list, nothing)."""
    return node.value if isinstance(node, yaml.ScalarNode) and node.tag == STRING_TAG else None
