"""What a probe cost, in completions and tokens."""

from dataclasses import dataclass


@dataclass
class Cost:
    """Counters of a sampler or scorer.

    Attributes:
        completions: samples drawn.
        sampled_tokens: tokens of those samples, each counted on its own.
        prompt_tokens: tokens of prompts that went through the model.
        branch_tokens: tokens behind the prompts that went through the model; samples that share them count once.
    """

    completions: int = 0
    sampled_tokens: int = 0
    prompt_tokens: int = 0
    branch_tokens: int = 0
