"""A callback for anyone's SFTTrainer: how far has the model drifted on facts it knew, and does it still know them?

Importing this module imports transformers.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import TrainerCallback

from sftknow.errors import ConfigError
from sftknow.kl.arrays import kl_top_k
from sftknow.kl.passes import last_logits
from sftknow.kl.prompts import KLPrompt, encode

DEFAULT_INTERVAL = 50
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Drift:
    """One measurement: after which update, the KL to the base in nats, and the fraction of facts still completed."""

    step: int
    kl: float
    accuracy: float


class DriftCallback(TrainerCallback):  # type: ignore[misc]
    """Measure drift every so many updates, log it with the loss, and stop when it passes a bound.

    The base's logits are taken before the first update, so no second model is loaded. One forward pass a measurement
    gives both figures: the paper's KL at the first token of each answer, and accuracy, the fraction of facts whose
    answer is the model's most probable continuation, token by token. They appear as ``drift_kl`` and
    ``drift_accuracy`` in the trainer's log history.

    When the KL passes ``stop_above``, training stops and the weights of the last measurement within the bound come
    back; ``best_step`` names it.

    Args:
        prompts: facts the base knows well, with answers; a few dozen are enough. See
            :func:`sftknow.kl.kl_prompts`.
        tokenizer: the model's tokenizer.
        every: updates between measurements.
        stop_above: bound on the KL, in nats; None only watches.
        k: tokens kept in the KL.

    Raises:
        ConfigError: an interval below 1, or no prompts.
        DataError: a prompt without an answer.

    Example::

        drift = DriftCallback(kl_prompts(table)[:32], tokenizer, stop_above=0.5)
        trainer = SFTTrainer(model=model, args=args, train_dataset=data, callbacks=[drift])
        drift.attach(trainer)  # so that trackers such as wandb show it too
        trainer.train()
    """

    def __init__(
        self,
        prompts: Sequence[KLPrompt],
        tokenizer: Any,
        *,
        every: int = DEFAULT_INTERVAL,
        stop_above: float | None = None,
        k: int = 10,
    ) -> None:
        if every < 1 or not prompts:
            raise ConfigError(f"a drift callback needs an interval of 1 or more (not {every}) and some prompts.")
        self.every, self.stop_above = every, stop_above
        self.measurements: list[Drift] = []
        self.base_accuracy: float | None = None
        self.best_step: int | None = None
        self.stopped_at: int | None = None
        self.seconds = 0.0
        self._prompts, self._tokenizer, self._k = tuple(prompts), tokenizer, k
        encoded = encode(tokenizer, self._prompts, "answer")
        self._gold = np.array([item.next_ids[step] for item in encoded for step in range(len(item.positions))])
        self._owner = np.repeat(np.arange(len(encoded)), [len(item.positions) for item in encoded])
        self._first = np.searchsorted(self._owner, np.arange(len(encoded)))
        self._base: Any = None
        self._snapshot: dict[str, Any] = {}
        self._pending: Drift | None = None

    def attach(self, trainer: Any) -> "DriftCallback":
        """Move to the front of a trainer's callbacks, so that what reports to trackers sees the figures."""
        callbacks = trainer.callback_handler.callbacks
        if self in callbacks:
            callbacks.remove(self)
        callbacks.insert(0, self)
        if self._base is None and not _sharded(trainer.args):
            self._take_base(trainer.model)
        return self

    def on_init_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Take the base's logits while the model is still the base, before a checkpoint may be loaded."""
        if model is not None and not _sharded(args):
            self._take_base(model)

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Take the base's logits if they are still missing, and keep the weights to come back to."""
        if self._base is None:
            if state.global_step:
                raise ConfigError(
                    "drift cannot be measured from a checkpoint on: add the callback to the trainer's init."
                )
            self._take_base(model)
        if self.stop_above is not None:
            within = not state.global_step or self._measure(model, state.global_step).kl <= self.stop_above
            if within:
                self._keep(model, state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Measure at the interval and at the last update; stop where the bound is passed."""
        if state.global_step % self.every and state.global_step != state.max_steps:
            return
        measured = self._measure(model, state.global_step)
        self.measurements.append(measured)
        self._pending = measured
        control.should_log = True
        if self.stop_above is None:
            return
        if measured.kl <= self.stop_above:
            self._keep(model, state.global_step)
        else:
            self.stopped_at = state.global_step
            control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Add the latest measurement to the log entry of its step."""
        if self._pending is None or logs is None:
            return
        figures = {"drift_kl": self._pending.kl, "drift_accuracy": self._pending.accuracy}
        logs.update(figures)
        if state.log_history:
            state.log_history[-1].update(figures)
        self._pending = None

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """After a stop, bring back the weights of the last measurement within the bound."""
        import torch

        if self.stopped_at is None:
            return
        if self.best_step is None:
            log.warning("drift had passed %s before training went on; the last weights are kept.", self.stop_above)
            return
        if not self.best_step:
            log.warning("drift passed %s at the first measurement; the base is kept. Measure oftener.", self.stop_above)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in self._snapshot:
                    parameter.copy_(self._snapshot[name])
        self._snapshot = {}

    def _take_base(self, model: Any) -> None:
        started = time.perf_counter()
        logits = self._logits(model)
        self._base = logits[self._first]
        self.base_accuracy = self._accuracy(logits)
        self.seconds += time.perf_counter() - started

    def _measure(self, model: Any, step: int) -> Drift:
        started = time.perf_counter()
        logits = self._logits(model)
        kl = float(kl_top_k(logits[self._first], self._base, self._k).mean())
        measured = Drift(step, kl, self._accuracy(logits))
        self.seconds += time.perf_counter() - started
        return measured

    def _logits(self, model: Any) -> Any:
        return last_logits(model, self._tokenizer, self._prompts, positions="answer")

    def _accuracy(self, logits: Any) -> float:
        wrong = np.bincount(self._owner, logits.argmax(-1) != self._gold)
        return float((wrong == 0).mean())

    def _keep(self, model: Any, step: int) -> None:
        if any(hasattr(parameter, "ds_id") for parameter in model.parameters()):
            raise ConfigError("a drift bound cannot keep weights under DeepSpeed ZeRO-3; use FSDP2 or no bound.")
        trained = ((name, value) for name, value in model.named_parameters() if value.requires_grad)
        self._snapshot = {name: value.detach().to("cpu", copy=True) for name, value in trained}
        self.best_step = step


def _sharded(args: Any) -> bool:
    """Say whether the model's weights are spread over processes, so that it can only run once training begins."""
    return bool(getattr(args, "fsdp", None) or getattr(args, "deepspeed", None)) or bool(
        args.distributed_state.distributed_type.value in ("FSDP", "DEEPSPEED", "MEGATRON_LM")
    )
