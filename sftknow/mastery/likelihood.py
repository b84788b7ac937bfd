"""Mastery without sampling: the probability that a completion begins with an answer.

For each prompt the probability, at the protocol's temperature, that the completion begins with one of the answer's
names as whole words. It is deterministic and needs two forward passes, the prompt's and that of the names behind it,
but it is another quantity than the sampled R: an answer that comes later in the completion does not count.

A text has many tokenisations. Summed up here are the tokenizer's own one of each name, and from any point of it every
single token that ends the name and goes on with a new word (such as "Paris,"). Other ways of spelling a name out are
left out: a trained model gives them little probability, and what is reported is a lower bound.
"""

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sftknow.mastery.branch_cache import BranchCache
from sftknow.mastery.cost import Cost
from sftknow.mastery.tokens import end_tokens, last_logits, token_texts
from sftknow.mastery.window import Window

Array = np.ndarray[Any, Any]


def likelihood_window(scorer: "AnswerScorer", window: Window) -> list[list[float]]:
    """Return for each fact its probability of success per template."""
    prompts = [prompt for item in window.items for prompt in item.prompts]
    answers = [item.answers for item in window.items for _ in item.prompts]
    found = iter(scorer.probabilities(prompts, answers))
    return [[next(found) for _ in item.prompts] for item in window.items]


@dataclass(frozen=True, slots=True)
class _Name:
    """One name behind one prompt: its tokens, and at each of them the tokens that would end the name there."""

    prompt: int
    tokens: tuple[int, ...]
    endings: tuple[tuple[int, ...], ...]


class AnswerScorer:
    """Computes the probability that completions begin with one of some names.

    Args:
        model: any causal language model of transformers with a dynamic cache.
        tokenizer: its tokenizer.
        temperature: above 0.
        match: ``words``: a name must be followed by the end or by something that is no letter or digit;
            ``substring``: it may go on in any way.
        batch_size: rows of a forward pass at most.
    """

    def __init__(
        self, model: Any, tokenizer: Any, *, temperature: float = 0.7, match: str = "words", batch_size: int = 512
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._temperature = temperature
        self._words = match == "words"
        self._batch_size = batch_size
        self.cost = Cost()
        texts = token_texts(tokenizer)
        ends = end_tokens(model, tokenizer) | set(tokenizer.all_special_ids)
        self._order = sorted((text, token) for token, text in enumerate(texts) if text and token not in ends)
        width = model.get_input_embeddings().weight.shape[0]
        stops = torch.zeros(max(width, len(texts)), dtype=torch.bool)
        stops[[token for token, text in enumerate(texts) if token in ends or _stops(text)]] = True
        self._stops = stops.to(model.device)
        self._endings_of: dict[str, tuple[int, ...]] = {}

    def probabilities(self, prompts: Sequence[str], answers: Sequence[Sequence[str]]) -> list[float]:
        """Return for each prompt the probability that its completion begins with one of the names."""
        result = np.zeros(len(prompts))
        encoded = self._tokenizer(list(prompts))["input_ids"]
        names = list(self._names(prompts, encoded, answers))
        for chosen in _batches([len(ids) for ids in encoded], max(1, self._batch_size // 2)):
            place = {prompt: row for row, prompt in enumerate(chosen)}
            ids = torch.tensor([encoded[prompt] for prompt in chosen])
            wanted = [name for name in names if name.prompt in place]
            for name, probability in zip(wanted, self._batch(ids, wanted, place), strict=True):
                result[name.prompt] += probability
        return [min(1.0, float(value)) for value in result]

    def _names(
        self, prompts: Sequence[str], encoded: Sequence[list[int]], answers: Sequence[Sequence[str]]
    ) -> Iterator[_Name]:
        """Yield every prompt's names that none of its other names begins."""
        pairs = [(number, name) for number, names in enumerate(answers) for name in self._distinct(names)]
        joined = self._tokenizer([f"{prompts[number]} {name}" for number, name in pairs])["input_ids"]
        for (number, name), ids in zip(pairs, joined, strict=True):
            length = len(encoded[number])
            tokens = ids[length:]
            if ids[:length] != encoded[number]:
                tokens = self._tokenizer(f" {name}", add_special_tokens=False)["input_ids"]
            tokens = [token for token in tokens if token not in self._tokenizer.all_special_ids]
            if tokens:
                yield _Name(number, tuple(tokens), tuple(self._endings(f" {name}", tokens)))

    def _distinct(self, names: Sequence[str]) -> list[str]:
        names = list(dict.fromkeys(name.strip() for name in names))
        return [name for name in names if not any(name != other and self._begins(name, other) for other in names)]

    def _begins(self, name: str, start: str) -> bool:
        rest = name[len(start) :]
        return name.startswith(start) and not (self._words and rest[:1].isalnum())

    def _endings(self, text: str, tokens: Sequence[int]) -> Iterator[tuple[int, ...]]:
        for position in range(len(tokens)):
            done = self._tokenizer.decode(tokens[:position])
            rest = text[len(done) :] if text.startswith(done) else text.lstrip()[len(done) :]
            if rest not in self._endings_of:
                self._endings_of[rest] = tuple(self._longer_tokens(rest))
            yield self._endings_of[rest]

    def _longer_tokens(self, text: str) -> Iterator[int]:
        """Yield the tokens that begin with a text and go on, with a new word where words are matched."""
        start = bisect.bisect_left(self._order, (text, -1)) if text else len(self._order)
        for found, token in self._order[start:]:
            if not found.startswith(text):
                return
            if len(found) > len(text) and not (self._words and found[len(text)].isalnum()):
                yield token

    @torch.inference_mode()
    def _batch(self, ids: torch.Tensor, names: Sequence[_Name], place: dict[int, int]) -> list[float]:
        """Return the probability of each name behind its prompt; ids is (prompts, tokens)."""
        device = self._model.device
        cache = BranchCache(self._model.config)
        first = self._distribution(last_logits(self._model, ids, cache))
        self.cost.prompt_tokens += ids.numel()
        rows = torch.tensor([place[name.prompt] for name in names])
        longest = max(len(name.tokens) for name in names)
        behind = torch.zeros(len(names), longest, dtype=torch.long)
        for row, name in enumerate(names):
            behind[row, : len(name.tokens)] = torch.tensor(name.tokens)
        self.cost.branch_tokens += sum(len(name.tokens) for name in names)
        cache.arrange(rows.to(device))
        logits = self._model(input_ids=behind.to(device), past_key_values=cache, use_cache=True).logits
        found = np.zeros(len(names))
        reached = torch.ones(len(names), dtype=torch.double, device=device)
        for step in range(longest + 1):
            distribution = first[rows.to(device)] if step == 0 else self._distribution(logits[:, step - 1])
            found += self._ended(names, step, distribution, reached)
            if step < longest:
                reached = reached * distribution.gather(1, behind[:, step : step + 1].to(device))[:, 0].double()
        return [float(value) for value in found]

    def _ended(self, names: Sequence[_Name], step: int, distribution: torch.Tensor, reached: torch.Tensor) -> Array:
        """Return the probability of each name to end with this step's token, (names,)."""
        result = np.zeros(len(names))
        whole = [row for row, name in enumerate(names) if len(name.tokens) == step]
        if whole:
            stop = distribution[whole][:, self._stops[: distribution.shape[1]]].double().sum(-1) if self._words else 1.0
            result[whole] = (reached[whole] * stop).cpu().numpy()
        for row, name in enumerate(names):
            if step < len(name.tokens) and name.endings[step]:
                ending = distribution[row, list(name.endings[step])].double().sum()
                result[row] = float(reached[row] * ending)
        return result

    def _distribution(self, logits: torch.Tensor) -> torch.Tensor:
        return (logits.float() / self._temperature).softmax(-1)


def _stops(text: str) -> bool:
    return bool(text) and not text[0].isalnum() and text[0] != "\ufffd"


def _batches(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Yield positions of prompts of equal length, at most ``size`` together."""
    order = sorted(range(len(lengths)), key=lambda position: (lengths[position], position))
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and end - start < size and lengths[order[end]] == lengths[order[start]]:
            end += 1
        yield order[start:end]
        start = end
