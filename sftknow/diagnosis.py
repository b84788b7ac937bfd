"""What `sftknow doctor` looks at: versions, whether lm-eval sees the tasks, what is missing and how to get it."""

import importlib.metadata
import importlib.util
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

NEEDED = ("torch", "transformers", "trl", "lm-eval", "datasets", "tokenizers", "safetensors", "numba", "pyarrow")
OPTIONAL = {
    "peft": "LoRA fine-tuning: pip install 'sftknow[lora]'",
    "vllm": "probing and scoring with --model vllm: pip install 'sftknow[vllm]'",
    "ray": "studies on several machines: pip install 'sftknow[ray]'",
}
INSTALLED_TASKS = "sftknow_cbqa"
State = Literal["ok", "missing", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's report: what was looked at, how it stands, and what to do about it."""

    subject: str
    state: State
    detail: str
    remedy: str = ""


def diagnose() -> list[Finding]:
    """Look at this installation; a finding in state ``problem`` keeps some command from working."""
    return [_python(), *_libraries(), *_extras(), _device(), lm_eval_tasks(), _lm_eval_command()]


def lm_eval_tasks(lm_eval_folder: Path | None = None) -> Finding:
    """Tell whether `lm_eval --tasks cbqa_mastery` finds the tasks without --include_path.

    Args:
        lm_eval_folder: lm-eval's package folder; by default that of this Python.
    """
    from sftknow.harness import tasks_folder

    subject = "lm-eval tasks"
    remedy = 'give lm_eval --include_path "$(sftknow tasks-path)", or pip install sftknow beside lm-eval'
    folder = lm_eval_folder or _package_folder("lm_eval")
    if folder is None:
        return Finding(subject, "problem", "lm-eval is not installed for this Python", "pip install 'lm-eval[hf]'")
    installed, source = folder / "tasks" / INSTALLED_TASKS, tasks_folder()
    if not installed.is_dir():
        return Finding(subject, "problem", f"lm-eval in {folder} does not list cbqa_mastery", remedy)
    if _contents(installed) != _contents(source):
        return Finding(
            subject, "problem", f"{installed} differs from {source}", "run pip install again, in the same way as before"
        )
    return Finding(subject, "ok", "lm_eval --tasks cbqa_mastery works without --include_path")


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("Python", "ok", f"{version} in {sys.prefix}")


def _libraries() -> list[Finding]:
    found = []
    for name in ("sftknow", *NEEDED):
        try:
            found.append(Finding(name, "ok", importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            found.append(Finding(name, "problem", "not installed", "pip install sftknow, which brings it"))
    return found


def _extras() -> list[Finding]:
    found = []
    for name, use in OPTIONAL.items():
        try:
            found.append(Finding(name, "ok", importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            found.append(Finding(name, "missing", "optional", use))
    return found


def _device() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return Finding("device", "ok", f"cpu, {torch.get_num_threads()} threads; torch sees no GPU")
    names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
    return Finding("device", "ok", f"cuda: {names}")


def _lm_eval_command() -> Finding:
    found = shutil.which("lm_eval")
    here = Path(sysconfig.get_path("scripts"))
    if found is None:
        own = here / "lm_eval"
        remedy = f"call {own}" if own.exists() else "activate the environment, or call python -m lm_eval"
        return Finding("lm_eval command", "missing", "not on the PATH", remedy)
    if Path(found).parent.resolve() != here.resolve():
        return Finding(
            "lm_eval command",
            "problem",
            f"{found} belongs to another environment than {sys.prefix}",
            'give it --include_path "$(sftknow tasks-path)" and install sftknow there too, or call python -m lm_eval',
        )
    return Finding("lm_eval command", "ok", found)


def _package_folder(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def _contents(folder: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in folder.iterdir() if "yaml" in entry.name}
