"""A checkpoint of pretraining, so that an interrupted build goes on where it was, to the same weights."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from sftknow.records import write_bytes

EVERY = 1000


class Checkpoint:
    """One file that holds the last state of a pretraining.

    Args:
        path: the file; None keeps no state at all.
        identity: names the build, so that the state of another one is never taken up.
        log: told when a state is taken up.
    """

    def __init__(self, path: Path | None = None, identity: str = "", log: Callable[[str], None] | None = None) -> None:
        self._path, self._identity, self._log = path, identity, log

    def save(self, losses: Tensor, parameters: Sequence[Tensor], optimiser: torch.optim.Optimizer) -> None:
        """Write the state after as many steps as there are losses, every thousandth step."""
        if self._path is None or len(losses) % EVERY:
            return
        import safetensors.torch

        tensors = {"losses": losses.cpu().contiguous()}
        for number, weight in enumerate(parameters):
            state = optimiser.state[weight]
            for name, value in (("weight", weight.detach()), *((key, state[key]) for key in ("exp_avg", "exp_avg_sq"))):
                tensors[f"{name}.{number}"] = value.cpu().contiguous()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(self._path, safetensors.torch.save(tensors, metadata={"identity": self._identity}))

    def restore(self, losses: Tensor, parameters: Sequence[Tensor], optimiser: torch.optim.Optimizer) -> int:
        """Put a saved state into the losses, the parameters and the optimiser, and return its step.

        A file that is missing, damaged or of another build is passed over: step 0, nothing changed.
        """
        tensors = self._read()
        if not tensors:
            return 0
        step = len(tensors["losses"])
        if self._log:
            self._log(f"going on with the interrupted pretraining at step {step:,}")
        with torch.no_grad():
            losses[:step] = tensors["losses"]
            for number, weight in enumerate(parameters):
                weight.copy_(tensors[f"weight.{number}"])
                optimiser.state[weight] = {
                    "step": torch.tensor(float(step), device=weight.device),
                    "exp_avg": tensors[f"exp_avg.{number}"].to(weight.device),
                    "exp_avg_sq": tensors[f"exp_avg_sq.{number}"].to(weight.device),
                }
        return step

    def _read(self) -> dict[str, Tensor]:
        import safetensors

        if self._path is None or not self._path.is_file():
            return {}
        try:
            with safetensors.safe_open(self._path, framework="pt") as file:
                if file.metadata().get("identity") != self._identity:
                    return {}
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (safetensors.SafetensorError, OSError):
            return {}

    def remove(self) -> None:
        """Delete the file."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
