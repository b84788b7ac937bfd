"""lm-eval in process: its tasks built once and without its full index, its evaluator run quietly, a model kept loaded.

Nothing of lm-eval's is patched, and its caches stay unused: they are not keyed by weights.
"""

import contextlib
import io
import logging
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sftknow.errors import ConfigError

STDERR_DRAWS = 100
"""Draws for the standard error of a metric that is no mean; for means lm-eval has a formula."""


def tasks_folder() -> Path:
    """Return the folder of the task YAMLs, in a checkout as in an installed wheel: lm-eval's --include_path."""
    return Path(__file__).resolve().parent.parent / "lm_eval_tasks" / "cbqa_mastery"


def load_tasks(names: Sequence[str], metadata: Mapping[str, Any], *, num_fewshot: int | None = None) -> dict[str, Any]:
    """Build tasks and groups, this project's or any of lm-eval's, without indexing all of lm-eval's thousands.

    Args:
        names: task, group or tag names.
        metadata: options of the tasks, see :class:`sftknow.lmtask.TaskOptions`.
        num_fewshot: examples in front of each question; None leaves it to each task.

    Returns:
        What lm-eval's ``TaskManager.load`` returns.

    Raises:
        ConfigError: there is no such task.
        DataError: the mastery table cannot be read, or an option makes no sense.
    """
    from lm_eval.tasks import TaskManager

    with quiet(progress=False):
        manager = TaskManager(include_path=task_folders(names), include_defaults=False, metadata=dict(metadata))
        if _unknown(manager.task_index, names):
            manager = TaskManager(include_path=tasks_folder(), metadata=dict(metadata))
        if unknown := [name for name in names if name not in manager.task_index]:
            raise ConfigError(f"lm-eval has no task {', '.join(unknown)}; `lm_eval ls tasks` lists them all.")
        loaded: dict[str, Any] = manager.load(list(names))
    for task in loaded["tasks"].values():
        shots = task.get_config("num_fewshot") if num_fewshot is None else num_fewshot
        task.set_config(key="num_fewshot", value=shots or 0)
    return loaded


def _unknown(index: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Return which of the names, or of the members of the groups they name, an index of tasks lacks."""
    missing, seen, waiting = [], set(names), list(names)
    while waiting:
        name = waiting.pop()
        if name not in index:
            missing.append(name)
            continue
        members = (index[name].cfg or {}).get("task")
        for member in members if isinstance(members, list) else ():
            inner = member if isinstance(member, str) else member.get("task")
            if isinstance(inner, str) and inner not in seen:
                seen.add(inner)
                waiting.append(inner)
    return missing


def task_folders(names: Sequence[str]) -> list[Path]:
    """Return this project's folder of tasks and those of lm-eval that define the other names.

    A YAML is searched for the name as text, which takes a second or two where parsing them all takes ten. What is
    not found that way is left to the full index.
    """
    ours = tasks_folder()
    spec = find_spec("lm_eval")
    others = [name for name in names if not (ours / f"{name}.yaml").exists() and not (ours / f"_{name}.yaml").exists()]
    if not others or spec is None or spec.origin is None:
        return [ours]
    root = Path(spec.origin).parent / "tasks"
    alternatives = "|".join(map(re.escape, others))
    definition = re.compile(
        rf"^(?:task|group|tag|  ?-)[: ]\s*[\"']?(?:{alternatives})[\"']?\s*$".encode(), re.MULTILINE
    )
    found = {path.relative_to(root).parts[0] for path in root.rglob("*yaml") if definition.search(path.read_bytes())}
    return [ours, *(root / name for name in sorted(found))]


def language_model(
    model: Any, tokenizer: Any = None, *, batch_size: int, dtype: str = "auto", device: str = "cpu"
) -> Any:
    """Return lm-eval's HFLM around a model, loading folders and Hub ids without remote code.

    The prompt carries BOS exactly when the tokenizer adds it by default: the way TRL tokenizes in training, and what
    lm-eval does where ``add_bos_token`` is not given.

    Raises:
        ConfigError: a loaded model comes without a tokenizer.
        CheckpointError: the model cannot be loaded.
    """
    from lm_eval.models.huggingface import HFLM

    from sftknow.models import load_model, load_tokenizer, resolve_model

    if isinstance(model, str | Path):
        folder, _ = resolve_model(model)
        model = load_model(folder, dtype=dtype, device=device)
        tokenizer = tokenizer or load_tokenizer(folder)
    if tokenizer is None:
        raise ConfigError("a loaded model is scored with its tokenizer; pass tokenizer=...")
    if model.generation_config.eos_token_id is None:
        model.generation_config.eos_token_id = tokenizer.eos_token_id
    training = model.training
    with quiet(progress=False):
        lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
    model.train(training)  # HFLM switches to evaluation mode; a model in the middle of training stays there
    return lm


def evaluate(
    lm: Any, tasks: Mapping[str, Any], *, seed: int = 0, limit: int | None = None, progress: bool = False
) -> dict[str, Any]:
    """Run lm-eval's evaluator on the model as it is now and return its results with samples.

    Args:
        lm: see :func:`language_model`.
        tasks: see :func:`load_tasks`; used again and again.
        seed: of few-shot examples, set anew at every call.
        limit: score only the first so many documents of each task.
        progress: show lm-eval's progress bars where stderr is a terminal.
    """
    from lm_eval.evaluator import evaluate as lm_evaluate

    for task in tasks["tasks"].values():
        task.set_fewshot_seed(seed)
    training = lm.model.training
    lm.model.eval()
    try:
        with quiet(progress=progress):
            results = lm_evaluate(lm, tasks, limit=limit, bootstrap_iters=STDERR_DRAWS, log_samples=True)
    finally:
        lm.model.train(training)
    return dict(results)


@contextlib.contextmanager
def quiet(*, progress: bool) -> Iterator[None]:
    """Silence lm-eval's log below errors, and its progress bars unless they are wanted and stderr is a terminal."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    shown = progress and sys.stderr.isatty()
    try:
        with contextlib.nullcontext() if shown else contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
