"""A byte-level BPE tokenizer trained on the corpus: any text can be written with it, invented names included."""

from collections.abc import Iterable
from typing import Any

BOS, EOS, PAD = "<s>", "</s>", "<pad>"
MAX_LENGTH = 128


def train_tokenizer(rows: Iterable[str], vocabulary: int) -> Any:
    """Train a tokenizer and return it as a transformers fast tokenizer that puts BOS before every text.

    Args:
        rows: the training texts.
        vocabulary: number of entries, special tokens and the 256 bytes among them.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(rows, trainer)
    start = (BOS, tokenizer.token_to_id(BOS))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[start]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )


def encode_rows(tokenizer: Any, rows: list[str]) -> list[list[int]]:
    """Return the token ids of whole rows, BOS first and EOS last."""
    end = tokenizer.eos_token_id
    return [[*encoding.ids, end] for encoding in tokenizer.backend_tokenizer.encode_batch(rows)]
