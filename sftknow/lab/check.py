"""Whether a pretrained model has facts of every bucket: a quick estimate of the mastery histogram, without sampling."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

from sftknow.facts.fact import Fact
from sftknow.facts.relations import Relation
from sftknow.lab.network import Network
from sftknow.lab.rng import Rng
from sftknow.mastery.buckets import BUCKETS, bucket_of_mastery

TEMPERATURE = 0.7
TRIALS = 210
LEAST_PERCENT = 8
FACTS = 1000
ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class Estimate:
    """An estimated mastery histogram of in-domain facts.

    Attributes:
        histogram: number of the sampled facts in each bucket.
        facts: number of sampled facts.
    """

    histogram: tuple[int, ...]
    facts: int

    @property
    def stalled(self) -> bool:
        """Whether some bucket holds under 8 percent of the facts."""
        return min(self.histogram) * 100 < LEAST_PERCENT * self.facts

    def __str__(self) -> str:
        shares = " ".join(f"{100 * count / self.facts:.0f}" for count in self.histogram)
        return f"{shares} percent of {self.facts} in-domain facts in buckets 0 to 4"


def estimate_histogram(
    network: Network, tokenizer: Any, facts: Sequence[Fact], relations: Mapping[str, Relation], *, seed: int
) -> Estimate:
    """Estimate how in-domain facts fall into the buckets, from the probability of the answer after the statements.

    All templates for each of up to 1,000 facts; the probe would draw 10 completions of each.

    Args:
        network: the pretrained weights.
        tokenizer: the tokenizer they were trained with.
        facts: probed facts; out-of-domain ones are passed over.
        relations: their completion templates.
        seed: of the choice of facts.
    """
    chosen = Rng(seed, "estimate").shuffled([fact for fact in facts if fact.domain == "in_domain"])[:FACTS]
    statements = [relations[fact.relation].statements(fact.subject) for fact in chosen]
    rows = [(text, fact.answers[0]) for fact, texts in zip(chosen, statements, strict=True) for text in texts]
    chances = iter(_chances(network, tokenizer, rows))
    buckets = [_bucket(sum(islice(chances, len(texts))) / len(texts)) for texts in statements]
    return Estimate(tuple(buckets.count(bucket) for bucket in BUCKETS), len(chosen))


def _bucket(mastery: float) -> int:
    """Bucket 0 where 210 samples would more likely than not hold no answer at all."""
    return 0 if (1 - min(mastery, 1.0)) ** TRIALS > 0.5 else bucket_of_mastery(min(mastery, 1.0))


def _chances(network: Network, tokenizer: Any, rows: Sequence[tuple[str, str]]) -> list[float]:
    """Return the probability, at the temperature of the probe, that each answer follows its statement."""
    backend, start = tokenizer.backend_tokenizer, tokenizer.bos_token_id
    encoded = [
        ([start, *backend.encode(text, add_special_tokens=False).ids], answer)
        for (text, _), answer in zip(
            rows, (backend.encode(f" {answer}", add_special_tokens=False).ids for _, answer in rows), strict=True
        )
    ]
    chances = [0.0] * len(rows)
    order = sorted(range(len(rows)), key=lambda place: len(encoded[place][0]) + len(encoded[place][1]))
    for first in range(0, len(order), ROWS_AT_ONCE):
        places = order[first : first + ROWS_AT_ONCE]
        for place, chance in zip(places, _batch_chances(network, [encoded[place] for place in places]), strict=True):
            chances[place] = chance
    return chances


@torch.no_grad()
def _batch_chances(network: Network, rows: Sequence[tuple[list[int], list[int]]]) -> list[float]:
    width = max(len(prompt) + len(answer) for prompt, answer in rows) - 1
    whole = [(prompt + answer)[:-1] for prompt, answer in rows]
    device = network.embedding.device
    ids = torch.tensor([row + [0] * (width - len(row)) for row in whole], device=device)
    places = [
        (number * width + len(prompt) - 1 + offset, token, number)
        for number, (prompt, answer) in enumerate(rows)
        for offset, token in enumerate(answer)
    ]
    positions, tokens, owners = (torch.tensor(column, device=device) for column in zip(*places, strict=True))
    hidden = network.hidden(network.embedding[ids])[positions]
    logits = F.linear(hidden, network.embedding) / TEMPERATURE
    log_chances = F.log_softmax(logits, -1).gather(1, tokens[:, None])[:, 0]
    totals = torch.zeros(len(rows), device=device).index_add_(0, owners, log_chances)
    return [float(value) for value in totals.exp().cpu()]
