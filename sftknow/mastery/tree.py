"""The tree sampler: all samples of one prompt at once, sharing the forward passes of their common prefix.

The samples of a prompt begin as one branch. At each step every sample draws its next token with a random number of its
own; samples that drew the same token stay together, so the count splits multinomially over the next tokens, and each
distinct branch costs one row of a forward pass. A sample sees exactly the model's distribution and its own random
numbers, as if it had been drawn alone: sharing changes the cost, not the law.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from sftknow.mastery.branch_cache import BranchCache
from sftknow.mastery.cost import Cost
from sftknow.mastery.sample import Judge, Request
from sftknow.mastery.streams import uniforms
from sftknow.mastery.tokens import decode_all, end_tokens, last_logits

Array = np.ndarray[Any, Any]
_BLOCK = 64
_BRANCHES = 4  # branches of a prompt to leave room for; a batch that has more is divided


@dataclass
class _Branches:
    """The live branches of one batch of prompts of equal length, and the samples that follow them."""

    cache: BranchCache
    logits: torch.Tensor
    prompt: Array
    tokens: Array
    sample_row: Array
    sample_index: Array
    sample_key: Array
    step: int = 0


@dataclass
class TreeSampler:
    """Draws samples of prompts from a causal language model and says which are right.

    Attributes:
        model: any causal language model of transformers with a dynamic cache.
        tokenizer: its tokenizer.
        temperature: 0 is greedy.
        max_new_tokens: a sample has at most this many tokens.
        top_k: draw from the k most probable tokens only; 0 for all.
        stop_newline: end a sample at its first newline.
        batch_size: rows of a forward pass at most; a batch that branches beyond it is divided.
    """

    model: Any
    tokenizer: Any
    temperature: float = 0.7
    max_new_tokens: int = 32
    top_k: int = 0
    stop_newline: bool = False
    batch_size: int = 512
    cost: Cost = field(default_factory=Cost)

    def __post_init__(self) -> None:
        self._ends = np.array(sorted(end_tokens(self.model, self.tokenizer)), dtype=np.int64)

    def outcomes(self, requests: Sequence[Request], judge: Judge) -> list[Array]:
        """Return for each request which of its samples are right: (count,) bool."""
        right = [np.zeros(request.count, dtype=bool) for request in requests]
        for prompt, index, _, hit in self.samples(requests, judge):
            right[prompt][index - requests[prompt].first] = hit
        return right

    def samples(self, requests: Sequence[Request], judge: Judge) -> Iterator[tuple[int, int, str, bool]]:
        """Yield (request, sample index, text, right) as samples end; a right sample's text stops where that is sure."""
        self.cost.completions += sum(request.count for request in requests)
        for chosen, ids in self._batches(requests):
            waiting = [self._start(requests, chosen, ids)]
            while waiting:
                branches = waiting.pop()
                while branches is not None:
                    if len(branches.prompt) > self.batch_size and len(set(branches.prompt.tolist())) > 1:
                        waiting.append(_part(branches, first=False))
                        branches = _part(branches, first=True)
                    yield from self._step(branches, judge)
                    if not len(branches.sample_row):
                        break
                    self._forward(branches)

    def _batches(self, requests: Sequence[Request]) -> Iterator[tuple[Array, Array]]:
        """Yield positions and token ids (prompts, length) of batches of prompts of equal length."""
        if not requests:
            return
        prompts = max(1, self.batch_size // _BRANCHES)
        encoded = self.tokenizer([request.text for request in requests])["input_ids"]
        lengths = np.array([len(ids) for ids in encoded])
        for length in np.unique(lengths):
            same = np.flatnonzero(lengths == length)
            for start in range(0, len(same), prompts):
                chosen = same[start : start + prompts]
                yield chosen, np.array([encoded[position] for position in chosen], dtype=np.int64)

    @torch.inference_mode()
    def _start(self, requests: Sequence[Request], chosen: Array, ids: Array) -> _Branches:
        self.cost.prompt_tokens += ids.size
        cache = BranchCache(self.model.config)
        logits = last_logits(self.model, torch.from_numpy(ids), cache)
        counts = [requests[position].count for position in chosen]
        return _Branches(
            cache=cache,
            logits=logits,
            prompt=chosen,
            tokens=np.zeros((len(chosen), 0), dtype=np.int64),
            sample_row=np.repeat(np.arange(len(chosen)), counts),
            sample_index=np.concatenate([requests[p].first + np.arange(requests[p].count) for p in chosen]),
            sample_key=np.repeat(np.array([requests[p].key for p in chosen], dtype=np.uint64), counts),
        )

    @torch.inference_mode()
    def _step(self, branches: _Branches, judge: Judge) -> Iterator[tuple[int, int, str, bool]]:
        """Draw every sample's next token, report the samples that end, and arrange the branches that go on."""
        drawn = self._draw(branches)
        codes, follows = np.unique(branches.sample_row * branches.logits.shape[1] + drawn, return_inverse=True)
        parent, token = np.divmod(codes, branches.logits.shape[1])
        tokens = np.concatenate([branches.tokens[parent], token[:, None]], axis=1)
        ended = np.isin(token, self._ends)
        texts = self._texts(tokens, ended)
        ended |= branches.step + 1 == self.max_new_tokens
        if self.stop_newline:
            ended |= np.array(["\n" in text for text in texts])
            texts = [text.partition("\n")[0] for text in texts]
        prompts = branches.prompt[parent].tolist()
        right = np.array(judge.right(prompts, texts, ended.tolist()), dtype=bool)
        over = ended | right
        self.cost.sampled_tokens += len(drawn)
        results = [
            (prompts[branch], int(branches.sample_index[sample]), texts[branch], bool(right[branch]))
            for sample, branch in enumerate(follows.tolist())
            if over[branch]
        ]
        _go_on(branches, parent, tokens, follows, ~over)
        return iter(results)

    def _draw(self, branches: _Branches) -> Array:
        if self.temperature == 0:
            return branches.logits.argmax(-1).cpu().numpy()[branches.sample_row]
        logits = branches.logits.float().mul_(1 / self.temperature)
        if 0 < self.top_k < logits.shape[1]:
            least = logits.topk(self.top_k).values[:, -1:]
            logits = logits.masked_fill(logits < least, -torch.inf)
        numbers = uniforms(branches.sample_key, branches.sample_index, branches.step)
        return draw(logits.softmax(-1), branches.sample_row, numbers)

    def _texts(self, tokens: Array, ended: Array) -> list[str]:
        rows = [row[:-1] if end else row for row, end in zip(tokens.tolist(), ended.tolist(), strict=True)]
        return decode_all(self.tokenizer, rows)

    @torch.inference_mode()
    def _forward(self, branches: _Branches) -> None:
        self.cost.branch_tokens += len(branches.prompt)
        branches.logits = last_logits(self.model, torch.from_numpy(branches.tokens[:, -1:].copy()), branches.cache)
        branches.step += 1


def draw(probabilities: torch.Tensor, rows: Array, numbers: Array) -> Array:
    """Draw tokens by inverting the cumulative distribution, block by block so that only one block is accumulated.

    Args:
        probabilities: (branches, vocabulary), rows summing to about 1.
        rows: (n,) the branch each sample stands on.
        numbers: (n,) uniform in [0, 1).

    Returns:
        (n,) token ids; a token of probability zero is never drawn.
    """
    width = probabilities.shape[1]
    if width % _BLOCK:
        probabilities = torch.nn.functional.pad(probabilities, (0, _BLOCK - width % _BLOCK))
    blocks = probabilities.view(len(probabilities), -1, _BLOCK)
    row = torch.from_numpy(rows).to(probabilities.device)
    number = torch.from_numpy(numbers).to(probabilities.device)
    sums = blocks.sum(-1).double().cumsum(-1)[row]
    target = number * sums[:, -1]
    block = _first_above(sums, target)
    before = torch.where(block > 0, sums.gather(1, (block - 1).clamp(min=0)[:, None])[:, 0], 0.0)
    share = (target - before) / (sums.gather(1, block[:, None])[:, 0] - before)
    inner = blocks[row, block].double().cumsum(-1)
    token = block * _BLOCK + _first_above(inner, share.clamp(0, 1 - 1e-12) * inner[:, -1])
    return np.asarray(token.cpu().numpy())


def _first_above(cumulative: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    found = torch.searchsorted(cumulative, target[:, None], right=True)[:, 0]
    return found.clamp(max=cumulative.shape[1] - 1)


def _go_on(branches: _Branches, parent: Array, tokens: Array, follows: Array, live: Array) -> None:
    """Keep the live branches, each in its parent's row where it can be, so that the cache copies few rows."""
    place, source = _places(parent, live)
    kept = np.flatnonzero(live)
    order = np.empty(len(kept), dtype=np.int64)
    order[place] = kept
    position = np.full(len(parent), -1, dtype=np.int64)
    position[kept] = place
    if len(kept):
        branches.cache.arrange(torch.from_numpy(source).to(branches.logits.device))
    branches.prompt = branches.prompt[parent[order]]
    branches.tokens = tokens[order]
    going = live[follows]
    branches.sample_row = position[follows[going]]
    branches.sample_index = branches.sample_index[going]
    branches.sample_key = branches.sample_key[going]


def _places(parent: Array, live: Array) -> tuple[Array, Array]:
    """Return each live branch's new row, and for each new row its old one."""
    parents = parent[live]
    count = len(parents)
    first = np.ones(count, dtype=bool)
    first[1:] = parents[1:] != parents[:-1]
    place = np.full(count, -1, dtype=np.int64)
    stays = first & (parents < count)
    place[stays] = parents[stays]
    taken = np.zeros(count, dtype=bool)
    taken[place[stays]] = True
    place[~stays] = np.flatnonzero(~taken)
    source = np.empty(count, dtype=np.int64)
    source[place] = parents
    return place, source


def _part(branches: _Branches, *, first: bool) -> _Branches:
    """Return the branches of the first or the second half of the prompts."""
    prompts = np.unique(branches.prompt)
    middle = prompts[len(prompts) // 2]
    chosen = branches.prompt < middle if first else branches.prompt >= middle
    rows = np.flatnonzero(chosen)
    position = np.cumsum(chosen) - 1
    samples = chosen[branches.sample_row]
    index = torch.from_numpy(rows).to(branches.logits.device)
    return _Branches(
        cache=branches.cache.taken(index),
        logits=branches.logits[index],
        prompt=branches.prompt[rows],
        tokens=branches.tokens[rows],
        sample_row=position[branches.sample_row[samples]],
        sample_index=branches.sample_index[samples],
        sample_key=branches.sample_key[samples],
        step=branches.step,
    )
