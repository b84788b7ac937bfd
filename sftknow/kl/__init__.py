"""How far fine-tuning moved a model's next-token predictions: KL between base and tuned, the paper's and others.

The public functions, imported from here: :func:`divergence` for two folders or two loaded models, and the steps it is
made of for sweeps, where the base model's pass is shared.
"""

from sftknow.kl.arrays import jensen_shannon, kl_rows, kl_top_k
from sftknow.kl.divergence import divergence, divergence_from_logits, divergences
from sftknow.kl.passes import gather_logits, last_logits, top_logits
from sftknow.kl.prompt_file import read_prompts
from sftknow.kl.prompts import KLPrompt, kl_prompts
from sftknow.kl.result import Divergence, FactDivergence, Interval

__all__ = [
    "Divergence",
    "FactDivergence",
    "Interval",
    "KLPrompt",
    "divergence",
    "divergence_from_logits",
    "divergences",
    "gather_logits",
    "jensen_shannon",
    "kl_prompts",
    "kl_rows",
    "kl_top_k",
    "last_logits",
    "read_prompts",
    "top_logits",
]
