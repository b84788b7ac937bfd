"""The estimators of mastery on a local model, one window at a time."""

from dataclasses import asdict
from typing import Any

from sftknow.mastery.sample import make_sampler, sample_window
from sftknow.mastery.window import Window


class Estimators:
    """A loaded model and its tokenizer, ready to probe windows.

    Args:
        model: any causal language model of transformers.
        tokenizer: its tokenizer.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model = model
        self._tokenizer = tokenizer

    def run(self, window: Window) -> dict[str, Any]:
        """Return what the window's settings ask for: hits per template of every fact, and what they cost."""
        sampler = make_sampler(self._model, self._tokenizer, window.settings)
        hits = sample_window(sampler, window)
        trials = [[window.settings.samples] * len(item.prompts) for item in window.items]
        return {"hits": hits, "trials": trials, "cost": asdict(sampler.cost)}
