"""Checkpoint pairs on disk, as plain words, and what lies in a folder that was written."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import oracle

ITEM = {"BF16": 2, "F16": 2, "F32": 4, "I32": 4, "I64": 8, "U8": 1, "F64": 8, "F8_E4M3": 1}
CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}


def llama_shapes(layers=2, hidden=16, forward=24, vocabulary=20):
    """Return the names and shapes of a small Llama."""
    shapes = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for layer in range(layers):
        at = f"model.layers.{layer}"
        shapes |= {
            f"{at}.self_attn.q_proj.weight": (hidden, hidden),
            f"{at}.self_attn.k_proj.weight": (hidden // 2, hidden),
            f"{at}.self_attn.v_proj.weight": (hidden // 2, hidden),
            f"{at}.self_attn.v_proj.bias": (hidden // 2,),
            f"{at}.self_attn.o_proj.weight": (hidden, hidden),
            f"{at}.mlp.gate_proj.weight": (forward, hidden),
            f"{at}.mlp.down_proj.weight": (hidden, forward),
            f"{at}.input_layernorm.weight": (hidden,),
            f"{at}.post_attention_layernorm.weight": (hidden,),
        }
    return shapes | {"model.norm.weight": (hidden,), "lm_head.weight": (vocabulary, hidden)}


def random_words(shapes, seed, dtype="BF16", scale=0.02):
    """Return name -> words of random weights."""
    generator = np.random.default_rng(seed)
    return {
        name: oracle.from_floats(generator.standard_normal(shape, np.float32) * np.float32(scale), dtype)
        for name, shape in shapes.items()
    }


def tune(words, seed, dtype="BF16", tuned_dtype=None, share=0.6, size=1e-4):
    """Return words of the same weights after an update of some of them."""
    generator = np.random.default_rng(seed)
    result = {}
    for name, old in words.items():
        values = oracle.to_floats(old, dtype)
        update = generator.standard_normal(old.shape, np.float32) * np.float32(size)
        moved = values + update * (generator.random(old.shape) < share)
        result[name] = oracle.from_floats(moved.astype(np.float32), tuned_dtype or dtype)
    return result


def write(folder, words, dtype="BF16", *, shards=1, config=CONFIG, dtypes=None, others=None):
    """Write a model folder of words: one file, or as many shards as asked, with an index."""
    folder = Path(folder)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    for name, content in (others or {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    names = list(words)
    if shards == 1:
        write_file(folder / "model.safetensors", words, dtype, dtypes)
        return folder
    placed = {}
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        mine = names[number::shards]
        write_file(folder / file, {name: words[name] for name in mine}, dtype, dtypes)
        placed |= dict.fromkeys(mine, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    return folder


def write_file(path, words, dtype="BF16", dtypes=None):
    """Write one safetensors file, by its published format."""
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, values in words.items():
        own = (dtypes or {}).get(name, dtype)
        assert values.itemsize == ITEM[own]
        header[name] = {"dtype": own, "shape": list(values.shape), "data_offsets": [at, at + values.nbytes]}
        at += values.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(words[name].tobytes() for name in words))


def read(folder):
    """Return name -> words of every tensor of a folder, read by the safetensors library."""
    from safetensors import safe_open

    result = {}
    for file in sorted(Path(folder).glob("*.safetensors")):
        with safe_open(file, "pt") as stored:
            for name in stored.keys():  # noqa: SIM118 - not a mapping
                tensor = stored.get_tensor(name)
                words = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}[tensor.itemsize]
                import torch

                result[name] = (
                    tensor.contiguous().view(torch.uint8).numpy().reshape(-1).view(words).reshape(tensor.shape)
                )
    return result


@dataclass
class Pair:
    """A base and a tuned folder with the words that were written to them."""

    base: Path
    tuned: Path
    before: dict
    after: dict
    dtype: str
    tuned_dtype: str

    def floats(self, names):
        """Return name -> (base, tuned) float32 values of some tensors."""
        return {
            name: (
                oracle.to_floats(self.before[name].reshape(-1), self.dtype),
                oracle.to_floats(self.after[name].reshape(-1), self.tuned_dtype),
            )
            for name in names
        }

    def expected(self, region, percent, **options):
        """Return name -> words of the restored checkpoint, by the oracle."""
        masks = oracle.restored(self.floats(region), percent, **options)
        result = {}
        for name, tuned in self.after.items():
            result[name] = tuned.copy()
            if name in masks:
                base = oracle.from_floats(oracle.to_floats(self.before[name].reshape(-1), self.dtype), self.tuned_dtype)
                result[name].reshape(-1)[masks[name]] = base[masks[name]]
        return result


def make_pair(folder, *, dtype="BF16", tuned_dtype=None, shapes=None, seed=0, shards=(1, 1), **update):
    """Write a random pair."""
    before = random_words(shapes or llama_shapes(), seed, dtype)
    after = tune(before, seed + 1, dtype, tuned_dtype, **update)
    base = write(folder / "base", before, dtype, shards=shards[0])
    tuned = write(folder / "tuned", after, tuned_dtype or dtype, shards=shards[1])
    return Pair(base, tuned, before, after, dtype, tuned_dtype or dtype)


def region_names(region, names):
    """Return the names of a region of a Llama, by hand."""
    blocks = [name for name in names if ".layers." in name and "norm" not in name]
    return {
        "transformer": blocks,
        "attention": [name for name in blocks if ".self_attn." in name],
        "mlp": [name for name in blocks if ".mlp." in name],
        "embedding": ["model.embed_tokens.weight", "lm_head.weight"],
        "all": list(names),
    }[region]


def same(found, expected):
    """Assert that two checkpoints hold the same tensors, word for word."""
    assert sorted(found) == sorted(expected)
    for name, words in expected.items():
        assert found[name].dtype == words.dtype, name
        assert np.array_equal(found[name], words), name
