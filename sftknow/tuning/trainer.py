"""TRL's SFTTrainer as this project runs it: no telemetry, a bar with the loss on stderr, and a penalty on drift.

Importing this module imports TRL.
"""

from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback
from trl import SFTTrainer

from sftknow.progress import counter
from sftknow.tuning.regularise import Preservation


class FactTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer that reports to nobody unless asked, and can preserve knowledge.

    Args:
        preservation: the penalty to add to the loss of every update, or None.
    """

    def __init__(self, *args: Any, preservation: Preservation | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.remove_callback(PrinterCallback)
        self.add_callback(LossBar())
        self.preservation = preservation
        self._part = (-1, 0)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return SFTTrainer's loss, plus the penalty on drift while training."""
        result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if self.preservation is None or not self.model.training:
            return result
        update, turn = self.state.global_step, self._part[1] + 1 if self._part[0] == self.state.global_step else 0
        self._part = (update, turn)
        accumulated, processes = self.args.gradient_accumulation_steps, self.accelerator.num_processes
        part = turn * processes + self.accelerator.process_index
        kl = self.preservation.term(model, update=update, part=part, parts=accumulated * processes)
        self._metrics["train"]["kl"].append(self.accelerator.gather(kl.detach()).mean().item())
        extra = self.preservation.weight * kl / (accumulated if num_items_in_batch is not None else 1)
        return (result[0] + extra, result[1]) if return_outputs else result + extra

    def _send_telemetry(self) -> None:
        """Send nothing: this tool uses the network only when told to."""


class LossBar(TrainerCallback):  # type: ignore[misc]
    """A progress bar of updates with the latest loss, silent where stderr is not a terminal."""

    def __init__(self) -> None:
        self._bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the bar, at the step a resumed run begins with."""
        if state.is_world_process_zero:
            self._bar = counter(label="fine-tuning", total=state.max_steps, unit="step")
            self._bar.update(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Advance the bar by one update."""
        if self._bar is not None:
            self._bar.update(1)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Show the latest loss beside the bar."""
        if self._bar is not None and logs and "loss" in logs:
            self._bar.set_postfix(loss=f"{float(logs['loss']):.3f}")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
