"""What samplers need to know of a tokenizer and a model: tokens that end, texts of tokens, logits of the last place."""

import functools
import inspect
from typing import Any

import torch


def end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """Return the ids that end a completion: those of the generation config and the tokenizer's EOS."""
    found: set[int] = set()
    for value in (getattr(model, "generation_config", None), model.config, tokenizer):
        ends = getattr(value, "eos_token_id", None)
        found |= set() if ends is None else {ends} if isinstance(ends, int) else set(ends)
    return found


def decode_all(tokenizer: Any, rows: list[list[int]]) -> list[str]:
    """Return the texts of rows of token ids, special tokens left out and spaces as they are."""
    if getattr(tokenizer, "is_fast", False):
        return list(tokenizer.backend_tokenizer.decode_batch(rows, skip_special_tokens=True))
    texts = tokenizer.batch_decode(rows, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return list(texts)


def token_texts(tokenizer: Any) -> list[str]:
    """Return the text that each token adds behind another one, its space included; empty for special tokens."""
    special = set(tokenizer.all_special_ids)
    anchor = [next(token for token in range(len(tokenizer)) if token not in special)]
    before = len(decode_all(tokenizer, [anchor])[0])
    return [text[before:] for text in decode_all(tokenizer, [[*anchor, token] for token in range(len(tokenizer))])]


def last_logits(model: Any, ids: torch.Tensor, cache: Any) -> torch.Tensor:
    """Return the logits behind the last token of each row, (rows, vocabulary); the cache takes the tokens in.

    Args:
        model: a causal language model of transformers.
        ids: (rows, tokens), all of one length.
        cache: what came before; empty for a prompt.
    """
    extra = {"logits_to_keep": 1} if _keeps_last(type(model).forward) else {}
    out = model(input_ids=ids.to(model.device), past_key_values=cache, use_cache=True, **extra)
    logits: torch.Tensor = out.logits[:, -1]
    return logits


@functools.lru_cache
def _keeps_last(forward: Any) -> bool:
    return "logits_to_keep" in inspect.signature(forward).parameters
