"""The estimators of mastery, one window at a time."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from sftknow.mastery.adaptive import adaptive_window
from sftknow.mastery.sample import Sampler, sample_window
from sftknow.mastery.window import Settings, Window


class LocalEstimators:
    """A loaded model and its tokenizer, ready to probe windows.

    Args:
        model: any causal language model of transformers.
        tokenizer: its tokenizer.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._scorer: Any = None

    def run(self, window: Window) -> dict[str, Any]:
        """Return what the window's settings ask for, and what it cost."""
        if window.settings.estimator == "likelihood":
            return self._likelihood(window)
        if window.settings.estimator == "fewshot":
            from sftknow.mastery.fewshot import fewshot_window

            return fewshot_window(self._sampler, window)
        return sampled(self._sampler(window.settings), window)

    def _sampler(self, settings: Settings, **changes: Any) -> Sampler:
        from sftknow.mastery.tree import TreeSampler

        options = {
            "temperature": settings.temperature,
            "max_new_tokens": settings.max_new_tokens,
            "top_k": settings.top_k,
            "stop_newline": settings.stop_newline,
            "batch_size": settings.batch_size,
        }
        return TreeSampler(self._model, self._tokenizer, **{**options, **changes})

    def _likelihood(self, window: Window) -> dict[str, Any]:
        from sftknow.mastery.likelihood import AnswerScorer, likelihood_window

        settings = window.settings
        if self._scorer is None:
            self._scorer = AnswerScorer(
                self._model,
                self._tokenizer,
                temperature=settings.temperature,
                match=settings.match,
                batch_size=settings.batch_size,
            )
        before = asdict(self._scorer.cost)
        probabilities = likelihood_window(self._scorer, window)
        spent = {name: value - before[name] for name, value in asdict(self._scorer.cost).items()}
        return {"probabilities": probabilities, "cost": spent}


def sampled(sampler: Sampler, window: Window) -> dict[str, Any]:
    """Return hits and trials per template of every fact of a window, in full or until its bucket is settled."""
    estimate: Callable[..., Any] = sample_window if window.settings.prior is None else adaptive_window
    hits, trials = estimate(sampler, window)
    return {"hits": hits, "trials": trials, "cost": asdict(sampler.cost)}
