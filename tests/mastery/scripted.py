"""Real LLaMA models whose next-token probabilities are known: they depend on the last token only."""

import math
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEMPERATURE = 0.7
SPECIAL = ("<s>", "</s>")


def write_tokenizer(folder: Path, pieces: list[str]) -> PreTrainedTokenizerFast:
    """Write a tokenizer of whole pieces, spaces part of the piece as in byte-level BPE."""
    vocabulary = {piece.replace(" ", "Ġ"): number for number, piece in enumerate([*SPECIAL, *pieces])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    wrapped.save_pretrained(folder)
    return wrapped


def write_scripted(folder: Path, script: dict[str, dict[str, float]]) -> Path:
    """Write a model that follows a token with the scripted ones at their probabilities (at temperature 0.7).

    Attention and feed-forward are zero and the embedding is the identity, so the head reads the last token alone.
    """
    pieces = sorted({*script, *(piece for following in script.values() for piece in following)} - {*SPECIAL})
    tokenizer = write_tokenizer(folder, pieces)
    ids = {piece: number for number, piece in enumerate([*SPECIAL, *pieces])}
    width = len(ids) + len(ids) % 2
    config = LlamaConfig(
        vocab_size=len(ids), hidden_size=width, intermediate_size=2, num_hidden_layers=1, num_attention_heads=1,
        tie_word_embeddings=False, rms_norm_eps=1e-12, bos_token_id=0, eos_token_id=1, pad_token_id=1,
        max_position_embeddings=128,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.eye(len(ids), width))
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.lm_head.weight.fill_(0.0)
        for piece, number in ids.items():
            following = script.get(piece, {"</s>": 1.0})
            assert math.isclose(sum(following.values()), 1.0)
            model.lm_head.weight[:, number] = -1e3
            for follower, probability in following.items():
                model.lm_head.weight[ids[follower], number] = TEMPERATURE * math.log(probability) / width**0.5
    model.save_pretrained(folder)
    assert len(tokenizer) == len(ids)
    return folder


def write_random(folder: Path, *, seed: int = 0, kind: str = "llama") -> Path:
    """Write a small random model with a byte-level tokenizer of 40 words; ``kind`` chooses the architecture."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, MistralConfig, MistralForCausalLM

    words = "Rome Paris born in was Anna Otto Lima Bern is"
    pieces = [f"{space}{word}" for space in ("", " ") for word in words.split()]
    write_tokenizer(folder, [*pieces, ".", "\n"])
    torch.manual_seed(seed)
    shape = {
        "vocab_size": len(pieces) + 4, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, "initializer_range": 0.3,
    }  # fmt: skip
    model = {
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**shape, num_key_value_heads=2)),
        "sliding": lambda: MistralForCausalLM(MistralConfig(**shape, num_key_value_heads=2, sliding_window=4)),
        "neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**shape)),
    }[kind]()
    model.save_pretrained(folder)
    return folder
