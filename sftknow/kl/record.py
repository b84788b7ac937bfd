"""The divergence as `kl.json`, and as text for a terminal."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sftknow.errors import ConfigError
from sftknow.kl.moved import describe_moved
from sftknow.kl.result import Divergence
from sftknow.records import write_record


def check_output_file(path: Path, *, overwrite: bool = False) -> None:
    """Raise ConfigError where an output file exists or its folder does not, before work begins."""
    path = Path(path)
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; name a file, such as {path / 'kl.json'}.")
    if path.exists() and not overwrite:
        raise ConfigError(f"{path} already exists; name another file or give --overwrite to replace it.")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"the folder of {path} does not exist; make it first.")


def write_divergence(
    path: Path,
    result: Divergence,
    *,
    made_from: Mapping[str, Mapping[str, Any]],
    seed: int,
) -> dict[str, Any]:
    """Write a divergence and return the record.

    Args:
        path: the file.
        result: what to write.
        made_from: identities of base, tuned and the mastery table or prompts.
        seed: of the bootstrap intervals.
    """
    return write_record(path, "kl", divergence_body(result), made_from=made_from, seeds={"bootstrap": seed})


def divergence_body(result: Divergence) -> dict[str, Any]:
    """Return a divergence as JSON fields."""
    return {
        "measure": dict(result.measure),
        "mean": result.mean,
        "low": result.low,
        "high": result.high,
        "facts": len(result.per_fact),
        "per_relation": {relation: asdict(interval) for relation, interval in result.per_relation.items()},
        "per_fact": [asdict(fact) for fact in result.per_fact],
        "notes": list(result.notes),
        "moved": [dict(fact) for fact in result.moved],
    }


def describe(result: Divergence) -> str:
    """Return a divergence as lines of text: the mean first, then a table of relations."""
    measure = result.measure
    lines = [
        f"{measure['direction']}, {measure['support']}, {measure['positions']}: "
        f"{result.mean:.4f} nats over {len(result.per_fact)} facts "
        f"(95% interval {result.low:.4f} to {result.high:.4f})",
        *(f"note: {note}" for note in result.notes),
        "",
        f"{'relation':<16} {'facts':>6} {'mean':>9} {'low':>9} {'high':>9}",
    ]
    for relation, row in result.per_relation.items():
        lines.append(f"{relation:<16} {row.facts:>6} {row.mean:>9.4f} {row.low:>9.4f} {row.high:>9.4f}")
    if result.moved:
        lines += ["", "moved most:", *describe_moved(result.moved)]
    return "\n".join(lines)
