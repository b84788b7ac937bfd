"""TRL's SFTTrainer as this project runs it: no telemetry, a bar with the loss on stderr, nothing on stdout.

Importing this module imports TRL.
"""

from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback
from trl import SFTTrainer

from sftknow.progress import counter


class FactTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer that reports to nobody unless asked."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.remove_callback(PrinterCallback)
        self.add_callback(LossBar())

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
