"""One pretraining step of the laboratory's demo model, written out against transformers' own forward pass.

Claim: the written-out forward pass and batches of equally long rows cost less time a token than LlamaForCausalLM with
rows padded to the longest of a random batch, at the same loss.

    python benchmarks/pretraining_step.py
    OMP_NUM_THREADS=1 python benchmarks/pretraining_step.py
"""

import platform
import statistics
import time
from collections.abc import Callable, Sequence

import torch

from sftknow.facts.relations import load_relations
from sftknow.lab.corpus import write_corpus
from sftknow.lab.network import Network
from sftknow.lab.pretrain import as_tensors, batches_of, new_model
from sftknow.lab.rng import Rng
from sftknow.lab.sizes import SIZES
from sftknow.lab.tokenizer import encode_rows, train_tokenizer
from sftknow.lab.world import invent_world

STEPS = 60
ROUNDS = 5

Batch = Sequence[Sequence[int]]


def main() -> None:
    """Time both ways in turns on the same kind of rows and print medians."""
    recipe, relations = SIZES["demo"], load_relations()
    corpus = write_corpus(invent_world(recipe, relations, 0), relations, recipe, 0)
    tokenizer = train_tokenizer(corpus.main, recipe.vocabulary)
    rows = encode_rows(tokenizer, list(corpus.main[:8000]))
    model = new_model(tokenizer, recipe, 0)
    network = Network(model)
    even = Rng(0).shuffled(batches_of(rows, recipe.batch))
    mixed = [rows[start : start + recipe.batch] for start in range(0, len(rows), recipe.batch)]
    pad = tokenizer.pad_token_id
    written_out = _Way(network.parameters(), lambda ids, targets: network.backward(ids, targets), pad)
    transformers = _Way(list(model.parameters()), lambda ids, targets: _theirs(model, ids, targets, pad), pad)
    times: dict[str, list[float]] = {"transformers, padded": [], "written out, equal lengths": []}
    for turn in range(ROUNDS):
        part = slice(turn * STEPS, (turn + 1) * STEPS)
        times["transformers, padded"].append(transformers.seconds_a_token(mixed[part]))
        times["written out, equal lengths"].append(written_out.seconds_a_token(even[part]))
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    first = statistics.median(times["transformers, padded"])
    for name, seconds in times.items():
        middle = statistics.median(seconds)
        print(f"{name:<28} {1e6 * middle:7.1f} microseconds a token  {middle / first:5.2f}")


class _Way:
    def __init__(self, parameters: list[torch.nn.Parameter], backward: Callable[..., object], pad: int) -> None:
        self._parameters, self._backward, self._pad = parameters, backward, pad
        self._optimiser = torch.optim.AdamW(parameters, lr=1e-3, fused=True)

    def seconds_a_token(self, batches: Sequence[Batch]) -> float:
        start = time.perf_counter()
        for batch in batches:
            self._backward(*as_tensors(batch, self._pad, "cpu"))
            torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
            self._optimiser.step()
            self._optimiser.zero_grad(set_to_none=True)
        return (time.perf_counter() - start) / sum(len(row) for batch in batches for row in batch)


def _theirs(model: torch.nn.Module, ids: torch.Tensor, targets: torch.Tensor, pad: int) -> None:
    logits = model(input_ids=ids, attention_mask=(ids != pad).long(), use_cache=False).logits
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()


if __name__ == "__main__":
    main()
