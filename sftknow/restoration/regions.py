"""Which part of a language model a tensor belongs to, told from the architecture's naming.

Decoder blocks are numbered: ``model.layers.3.self_attn.q_proj.weight`` (Llama, Mistral, Mixtral, Qwen, Gemma, Phi,
OLMo), ``transformer.h.3.attn.c_attn.weight`` (GPT-2, Falcon), ``gpt_neox.layers.3.attention.dense.weight`` (GPT-NeoX),
``model.decoder.layers.3.fc1.weight`` (OPT). Only wrappers of a language model may stand before the number, so that the
blocks of a vision tower are never taken for it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from sftknow.errors import ConfigError

NAMED_REGIONS = ("transformer", "attention", "mlp", "embedding", "all")
ATTENTION, MLP, NORM, EMBEDDING, BUFFER, OTHER = "attention", "mlp", "norm", "embedding", "buffer", "other"

_WRAPPERS = r"(?:(?:model|language_model|text_model|base_model|transformer|gpt_neox|decoder|backbone)\.)*"
_BLOCK = re.compile(rf"{_WRAPPERS}(?:layers|h|blocks)\.(\d+)\.(.+)")
_VOCABULARY = re.compile(
    rf"{_WRAPPERS}(?:embed_tokens|wte|word_embeddings|embed_in|tok_embeddings|lm_head|embed_out)\.(?:weight|bias)"
)
_POSITIONS = re.compile(rf"{_WRAPPERS}(?:wpe|embed_positions)\.weight")
_HEAD = re.compile(rf"{_WRAPPERS}(?:lm_head|embed_out)\.weight")
_INPUT_EMBEDDING = re.compile(rf"{_WRAPPERS}(?:embed_tokens|wte|word_embeddings|embed_in|tok_embeddings)\.weight")
_ATTENTION = re.compile(r"(?:.*_)?(?:attn|attention)|att_proj|attn_out")
_NORM = re.compile(r"(?:.*[a-z_])?norm_?\d*|ln_?\d*|ln_[a-z]+")
_BUFFER = re.compile(r".*\.(?:inv_freq|masked_bias|rotary_emb\..+)")
_MASK = re.compile(r".*\.(?:attn|attention)\.bias")


@dataclass(frozen=True)
class Place:
    """Where a tensor stands in the model.

    Attributes:
        part: attention, mlp, norm, embedding, buffer (no parameter, as a causal mask) or other.
        block: number of its decoder block; None outside the blocks.
        module: what holds it, without block and expert numbers, such as ``self_attn.q_proj``.
    """

    part: str
    block: int | None
    module: str


@dataclass(frozen=True)
class Region:
    """The tensors a restoration considers.

    Attributes:
        name: one of ``NAMED_REGIONS`` or ``regex:PATTERN``.
        layers: block numbers; empty for all.
    """

    name: str
    layers: frozenset[int] = frozenset()

    def holds(self, name: str, place: Place) -> bool:
        """Tell whether a tensor lies in the region."""
        if place.part == BUFFER or (self.layers and place.block not in self.layers):
            return False
        if self.name.startswith("regex:"):
            return re.search(self.name.removeprefix("regex:"), name) is not None
        if self.name == "transformer":
            return place.part in (ATTENTION, MLP)
        return self.name in ("all", place.part)


def parse_region(name: str, layers: str | None = None) -> Region:
    """Read ``--region`` and ``--layers``, such as ``0-3,28-31``.

    Raises:
        ConfigError: an unknown region, a pattern that is no regular expression, or layers that are no ranges.
    """
    if name.startswith("regex:"):
        try:
            re.compile(name.removeprefix("regex:"))
        except re.error as error:
            raise ConfigError(f"region {name!r} is not a regular expression ({error}); mend the pattern.") from error
    elif name not in NAMED_REGIONS:
        raise ConfigError(f"region {name!r} is unknown; choose one of {', '.join(NAMED_REGIONS)} or regex:PATTERN.")
    return Region(name, parse_layers(layers) if layers is not None else frozenset())


def parse_layers(text: str) -> frozenset[int]:
    """Read block numbers and ranges; raise ConfigError where the text is neither."""
    numbers: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first or last - first > 10_000:
            raise ConfigError(f"layers {text!r} cannot be read at {part.strip()!r}; write ranges such as 0-3,28-31.")
        numbers.update(range(first, last + 1))
    return frozenset(numbers)


def place_of(name: str, shape: tuple[int, ...]) -> Place:
    """Return where a tensor stands, from its name; its shape tells causal masks from biases."""
    block = _BLOCK.fullmatch(name)
    parts = (block[2] if block else name).split(".")
    module = ".".join("N" if part.isdigit() else part for part in parts[:-1]) or parts[-1]
    number = int(block[1]) if block else None
    if _BUFFER.fullmatch(name) or (_MASK.fullmatch(name) and len(shape) == 4):
        return Place(BUFFER, number, module)
    if block is None:
        known = _VOCABULARY.fullmatch(name) or _POSITIONS.fullmatch(name)
        return Place(EMBEDDING if known else OTHER, None, module)
    if len(parts) > 1 and _NORM.fullmatch(parts[-2]):
        return Place(NORM, number, module)
    inside_attention = any(_ATTENTION.fullmatch(part) for part in parts[:-1])
    return Place(ATTENTION if inside_attention else MLP, number, module)


def bare_name(name: str) -> str:
    """Return a tensor's name without the wrappers before it, under which tools save the same tensor differently."""
    return re.sub(f"^{_WRAPPERS}", "", name)


def has_vocabulary_rows(name: str) -> bool:
    """Tell whether the rows of a tensor are tokens: an embedding, an output head or its bias."""
    return _VOCABULARY.fullmatch(name) is not None


def is_head(name: str) -> bool:
    """Tell whether a tensor is the weight of the output head."""
    return _HEAD.fullmatch(name) is not None


def is_input_embedding(name: str) -> bool:
    """Tell whether a tensor is the token embedding."""
    return _INPUT_EMBEDDING.fullmatch(name) is not None


def outline(names: Iterable[str]) -> str:
    """Return the names with runs of block numbers drawn together, for messages."""
    seen: dict[str, list[int]] = {}
    for name in names:
        block = _BLOCK.fullmatch(name)
        key = f"{name[: block.start(1)]}*.{block[2]}" if block else name
        seen.setdefault(re.sub(r"\.\d+\.", ".N.", key), []).append(int(block[1]) if block else -1)
    texts = [key.replace("*", f"{{{min(blocks)}-{max(blocks)}}}") for key, blocks in seen.items()]
    return ", ".join(texts[:24]) + (f" and {len(texts) - 24} more" if len(texts) > 24 else "")
