"""The record of a restoration as tables for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from sftknow.restoration.recipe import percent_name


def show(record: Mapping[str, Any]) -> str:
    """Return a restoration record as text: what moved, what each fraction undoes, and where."""
    recipe = record["recipe"]
    layers = f", layers {_ranges(recipe['layers'])}" if recipe["layers"] else ""
    parts = [
        f"region {recipe['region']}{layers}: {record['considered']:,} parameters, "
        f"{record['changed']:,} changed ({record['changed_percent']:.4g}%)",
        _concentration(record),
        _fractions(record),
        _groups(record, "layers", "layer"),
        _groups(record, "modules", "module"),
        *(f"note: {note}" for note in record["notes"]),
    ]
    return "\n\n".join(part for part in parts if part)


def _concentration(record: Mapping[str, Any]) -> str:
    shares = record["concentration"]["share"]
    head = f"largest % by {record['concentration']['measure']} change"
    return _table([[head, *shares], ["% of all change", *(_percent(share) for share in shares.values())]])


def _fractions(record: Mapping[str, Any]) -> str:
    rows = [["restored %", "parameters", "threshold", "ties", "of them taken", "% of |change|", "% of r"]]
    for one in record["fractions"]:
        ties = one["ties"] or {"size": None, "taken": None}
        rows.append(
            [
                percent_name(one["percent"]),
                f"{one['restored']:,}",
                "-" if one["threshold"] is None else f"{one['threshold']:.4g}",
                *("-" if ties[key] is None else f"{ties[key]:,}" for key in ("size", "taken")),
                _percent(one["share_of_change_undone"]),
                _percent(one["share_of_relative_change_undone"]),
            ]
        )
    return _table(rows)


def _groups(record: Mapping[str, Any], field: str, title: str) -> str:
    fractions = record["fractions"]
    names = list(fractions[0][field])
    if not names:
        return ""
    head = [f"% of the restored, by {title}", *(percent_name(one["percent"]) for one in fractions)]
    rows = [[name, *(_percent(one[field][name]["share_of_restored"]) for one in fractions)] for name in names]
    return _table([head, *rows])


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"


def _ranges(numbers: Sequence[int]) -> str:
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
