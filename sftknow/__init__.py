"""What a base model knows, what fine-tuning did to that knowledge, and which updates to undo.

The Python API; each name is imported on first use, so that importing sftknow costs nothing.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_EXPORTS: dict[str, str] = {
    "Fact": "sftknow.facts.fact",
    "load_facts": "sftknow.facts.load",
    "load_relations": "sftknow.facts.relations",
    "MasteryTable": "sftknow.mastery.table",
    "read_mastery": "sftknow.mastery.table",
    "probe": "sftknow.mastery.probe",
    "train": "sftknow.tuning.train",
    "divergence": "sftknow.kl",
    "restore": "sftknow.restoration.restore",
    "score": "sftknow.scoring",
    "Scorer": "sftknow.scoring",
    "sweep": "sftknow.sweeping",
    "compare": "sftknow.comparison",
    "build_lab": "sftknow.lab.build",
    "SftknowError": "sftknow.errors",
}
__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'sftknow' has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
