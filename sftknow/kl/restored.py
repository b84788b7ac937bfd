"""KL of a fine-tuning and of what is left of it after restoration, for the restored checkpoints of one run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sftknow.errors import ConfigError
from sftknow.kl.divergence import divergences
from sftknow.kl.prompt_file import read_prompts
from sftknow.kl.prompts import KLPrompt, kl_prompts
from sftknow.kl.result import Divergence
from sftknow.mastery.locate import load_mastery
from sftknow.records import amend_record

ADAPTER = "adapter_config.json"


def restoration_prompts(facts: str | None, prompts: str | None) -> tuple[KLPrompt, ...]:
    """Return the prompts to take the KL at: a mastery table's best-known test facts, or a file's.

    Args:
        facts: folder or Hub dataset of a mastery table.
        prompts: what :func:`sftknow.kl.read_prompts` reads; exactly one of the two is given.

    Raises:
        ConfigError: both are given.
        DataError: what is given cannot be read.
    """
    if facts is not None and prompts is not None:
        raise ConfigError("both --kl-facts and --kl-prompts are given; choose one.")
    return tuple(kl_prompts(load_mastery(facts)) if facts is not None else read_prompts(str(prompts)))


def add_divergences(
    record: Mapping[str, Any],
    base: str,
    tuned: str,
    folders: Mapping[float, Path],
    prompts: Sequence[KLPrompt],
    *,
    device: str = "cpu",
) -> dict[str, Any]:
    """Take KL(tuned || base) and KL(restored || base), and add them to the record and to ``restoration.json``.

    Models are loaded one after the other, the base once. An adapter given as the tuned model has no weights of its
    own to load, so its KL is left out; that of 0 percent restored is the same.

    Args:
        record: what ``restore`` returned.
        base: folder or Hub id.
        tuned: folder or Hub id.
        folders: percent -> restored checkpoint.
        prompts: where to take it.
        device: a torch device.

    Returns:
        The record with ``kl``: the measure, ``tuned``, and ``restored`` by percent, in nats.

    Source: the paper's section on token-level analysis.
    """
    others = {f"{percent:.12g}": str(folder) for percent, folder in folders.items()}
    if not (Path(tuned) / ADAPTER).is_file():
        others["tuned"] = tuned
    found = divergences(base, others, prompts, device=device)
    kl: dict[str, Any] = {
        "measure": dict(next(iter(found.values())).measure),
        "prompts": len(prompts),
        "tuned": _interval(found["tuned"]) if "tuned" in found else None,
        "restored": {name: _interval(result) for name, result in found.items() if name != "tuned"},
    }
    for percent, folder in folders.items():
        name = f"{percent:.12g}"
        own = {**kl, "restored": {name: kl["restored"][name]}}
        amend_record(folder / "restoration.json", "restoration", {"kl": own})
    return {**record, "kl": kl}


def divergence_lines(kl: Mapping[str, Any]) -> str:
    """Return the KL of a record as lines of text."""
    rows = [("not restored", kl["tuned"])] if kl["tuned"] else []
    rows += [(f"restored {name}%", part) for name, part in kl["restored"].items()]
    head = (
        f"{kl['measure']['direction']}, {kl['measure']['support']}, in nats over {kl['prompts']} prompts (95% interval)"
    )
    lines = [f"{name:<16} {part['mean']:.4f}  ({part['low']:.4f} to {part['high']:.4f})" for name, part in rows]
    return "\n".join([head, *lines])


def _interval(result: Divergence) -> dict[str, float]:
    return {"mean": result.mean, "low": result.low, "high": result.high}
