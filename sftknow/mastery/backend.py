"""Sampling through any model backend of lm-eval: vLLM, served models, several GPUs."""

import inspect
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sftknow.errors import ConfigError, DataError
from sftknow.mastery.cost import Cost
from sftknow.mastery.engine import WindowResult
from sftknow.mastery.estimators import sampled
from sftknow.mastery.sample import Array, Judge, Request
from sftknow.mastery.streams import stream_key
from sftknow.mastery.window import Settings, Window

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LmEvalModel:
    """A model as lm-eval's command line names it.

    Attributes:
        name: the backend, such as ``vllm`` or ``local-completions``.
        args: its ``--model_args``.
        batch_size: its ``--batch_size``.
        device: its ``--device``; None leaves the choice to the backend.
    """

    name: str
    args: str
    batch_size: str = "1"
    device: str | None = None


class BackendEngine:
    """Probes windows with a backend of lm-eval, one after another.

    Raises:
        ConfigError: the backend does not exist, lacks a package, or refuses its arguments.
    """

    def __init__(self, source: LmEvalModel) -> None:
        self._source = source
        self._model = load_backend(source)

    def results(self, windows: Iterable[tuple[int, Window]]) -> Iterator[tuple[int, WindowResult]]:
        """Yield (number, result) of every window, in order.

        Raises:
            DataError: the backend failed; what is done is kept.
        """
        for number, window in windows:
            try:
                yield number, self._run(window)
            except (ConfigError, DataError):
                raise
            except Exception as error:  # backends raise what their libraries raise: HTTP, CUDA, JSON, ...
                reason = " ".join(str(error).split())[:300] or type(error).__name__
                raise DataError(
                    f"the backend {self._source.name} failed ({type(error).__name__}: {reason}); windows that were "
                    "finished are kept: run the same command again to go on."
                ) from error

    def close(self) -> None:
        """Forget the model."""
        del self._model

    def _run(self, window: Window) -> WindowResult:
        if window.settings.estimator == "fewshot":
            from sftknow.mastery.fewshot import fewshot_window

            return fewshot_window(self._sampler, window)
        return sampled(self._sampler(window.settings), window)

    def _sampler(self, settings: Settings, **changes: Any) -> "BackendSampler":
        return BackendSampler(self._model, self._source.name, settings, **changes)


def load_backend(source: LmEvalModel) -> Any:
    """Return the lm-eval model that a name and its arguments stand for; raise ConfigError where there is none."""
    from lm_eval.api.registry import get_model

    options = {"batch_size": source.batch_size, "device": source.device}
    try:
        return get_model(source.name).create_from_arg_string(source.args, options)
    except Exception as error:  # a missing package, an unknown name, a refused argument, a server that is not there
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ConfigError(
            f"--model {source.name} --model_args {source.args} cannot be used ({type(error).__name__}: {reason}); "
            "the names and arguments are those of lm-eval."
        ) from error


class BackendSampler:
    """Draws independent samples through a backend: one request a sample, another seed for every repeat.

    Args:
        model: a loaded lm-eval model.
        name: its backend's name.
        settings: of the probe.
        temperature: instead of the settings' one; 0 is greedy.
        top_k: instead of the settings' one.
    """

    def __init__(
        self, model: Any, name: str, settings: Settings, temperature: float | None = None, top_k: int | None = None
    ) -> None:
        self._model = model
        self._name = name
        self._settings = settings
        self._temperature = settings.temperature if temperature is None else temperature
        self._top_k = settings.top_k if top_k is None else top_k
        self.cost = Cost()

    def outcomes(self, requests: Sequence[Request], judge: Judge) -> list[Array]:
        """Return for each request which of its samples are right: (count,) bool."""
        right = [np.zeros(request.count, dtype=bool) for request in requests]
        for sample in sorted({r.first + offset for r in requests for offset in range(r.count)}):
            drawn = [n for n, request in enumerate(requests) if 0 <= sample - request.first < request.count]
            texts = self._texts([requests[n] for n in drawn], sample)
            for n, verdict in zip(drawn, judge.right(drawn, texts, [True] * len(drawn)), strict=True):
                right[n][sample - requests[n].first] = verdict
        self.cost.completions += sum(request.count for request in requests)
        return right

    def _texts(self, requests: Sequence[Request], sample: int) -> list[str]:
        """Return one completion of each request."""
        from lm_eval.api.instance import Instance
        from transformers import set_seed

        seed = stream_key(self._settings.seed, f"{requests[0].key} {sample}") % 2**31
        set_seed(seed)
        options = generation_options(self._model, self._settings, self._temperature, self._top_k, seed)
        instances = [
            Instance(request_type="generate_until", doc={}, arguments=(request.text, dict(options)), idx=position)
            for position, request in enumerate(requests)
        ]
        extra = {}
        if "disable_tqdm" in inspect.signature(self._model.generate_until).parameters:
            extra["disable_tqdm"] = not sys.stderr.isatty()
        texts = list(self._model.generate_until(instances, **extra))
        if len(texts) != len(instances) or not all(isinstance(text, str) for text in texts):
            raise DataError(
                f"the backend {self._name} gave {len(texts)} texts for {len(instances)} prompts; windows that were "
                "finished are kept: run the same command again to go on."
            )
        if self._settings.stop_newline:
            texts = [text.partition("\n")[0] for text in texts]
        return texts


def generation_options(model: Any, settings: Settings, temperature: float, top_k: int, seed: int) -> dict[str, Any]:
    """Return lm-eval's generation arguments for one repeat, in the dialect of the model's backend.

    transformers cuts to the 50 most probable tokens unless told otherwise; servers and vLLM draw the same sample
    again unless the request carries another seed; other backends get neither argument.
    """
    options: dict[str, Any] = {
        "do_sample": temperature > 0,
        "temperature": temperature,
        "max_gen_toks": settings.max_new_tokens,
        "until": ["\n"] if settings.stop_newline else [],
    }
    kinds = {kind.__name__ for kind in type(model).__mro__}
    if temperature > 0:
        options["top_p"] = 1.0
        if "HFLM" in kinds or top_k:
            options["top_k"] = top_k
        if kinds & {"TemplateAPI", "VLLM"}:
            options["seed"] = seed
    return options
