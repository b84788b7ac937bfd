"""A penalty on drift: KL(tuned || base) over the whole vocabulary at the first token after well-mastered prompts."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from sftknow.kl.passes import batches, forward
from sftknow.kl.prompts import Encoded


class Preservation:
    """The extra term of the loss; the base's logits are computed once and kept, or come from a disabled adapter.

    Args:
        weight: of the term.
        encoded: the prompts, one position each.
        batch: prompts per update, over all processes.
        seed: of the order in which prompts take turns.
    """

    direction = "KL(tuned || base)"
    support = "full vocabulary"

    def __init__(self, weight: float, encoded: Sequence[Encoded], *, batch: int, seed: int) -> None:
        self.weight = weight
        self._encoded = list(encoded)
        self._batch = batch
        self._base: Any = None
        self._order = functools.lru_cache(maxsize=4)(
            lambda turn: np.random.default_rng([seed, turn]).permutation(len(self._encoded))
        )

    def __len__(self) -> int:
        return len(self._encoded)

    def keep_base(self, model: Any) -> None:
        """Compute and keep the logits of a model that is still the base, float32 on the CPU."""
        import torch

        rows: Any = None
        for index, values in batches(model, self._encoded, label="base logits"):
            if rows is None:
                rows = torch.empty((len(self._encoded), values.shape[-1]))
            rows[torch.from_numpy(index)] = values.cpu()
        self._base = rows

    def term(self, model: Any, *, update: int, part: int, parts: int) -> Any:
        """Return the mean divergence over one part of an update's prompts, with its gradient.

        Args:
            model: the model in training, wrapped as it is.
            update: number of the update, which alone fixes its prompts: a resumed run sees the same.
            part: which share of the update's prompts, 0-based.
            parts: shares of an update: processes times accumulated steps.
        """
        import torch

        chosen = self.prompts_of(update)[part * self._batch // parts : (part + 1) * self._batch // parts]
        items = [self._encoded[number] for number in chosen]
        ours = torch.log_softmax(forward(model, items), -1)
        base = torch.log_softmax(self._base_logits(model, chosen, items).to(ours.device), -1)
        return (ours.exp() * (ours - base)).sum(-1).mean()

    def prompts_of(self, update: int) -> list[int]:
        """Return the prompts of one update: every prompt once before any a second time."""
        places = range(update * self._batch, (update + 1) * self._batch)
        turns = (divmod(place, len(self._encoded)) for place in places)
        return [int(self._order(turn)[position]) for turn, position in turns]

    def _base_logits(self, model: Any, chosen: Sequence[int], items: Sequence[Encoded]) -> Any:
        import torch

        if self._base is not None:
            return self._base[torch.tensor(chosen)]
        adapted = getattr(model, "module", model)
        with torch.no_grad(), adapted.disable_adapter():
            return forward(adapted, items)
