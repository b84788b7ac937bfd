"""Damaged, foreign and dangerous checkpoints are refused in one sentence that names what is wrong."""

import json
import shutil

import checkpoints
import numpy as np
import pytest

import sftknow
from sftknow.errors import CheckpointError
from sftknow.restoration.checkpoint import open_checkpoint


@pytest.fixture
def folder(tmp_path, bf16_pair):
    return shutil.copytree(bf16_pair.tuned, tmp_path / "model")


@pytest.fixture
def sharded(tmp_path, bf16_pair):
    return checkpoints.write(tmp_path / "sharded", bf16_pair.after, shards=3)


def refuse(folder, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(folder)
    assert "\n" not in str(caught.value)


def edit_header(path, change):
    """Rewrite the header of a safetensors file."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


def test_names_shapes_and_values_are_those_of_the_safetensors_library(sharded, bf16_pair):
    found = open_checkpoint(sharded)
    assert {name: tensor.shape for name, tensor in found.tensors.items()} == {
        name: words.shape for name, words in bf16_pair.after.items()
    }
    for name, words in checkpoints.read(sharded).items():
        tensor = found.tensors[name]
        assert found.values(tensor).read(3, tensor.size).tobytes() == words.reshape(-1)[3:].tobytes()


def test_values_at_odd_offsets_are_read(tmp_path):
    words = {"mask": np.ones(3, np.uint8), "w": np.arange(5, dtype=np.float32).view(np.uint32)}
    folder = checkpoints.write(tmp_path / "odd", words, "F32", dtypes={"mask": "U8"})
    found = open_checkpoint(folder)
    assert found.values(found.tensors["w"]).read(1, 5).view(np.float32).tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1])
def test_a_truncated_file_is_refused(folder, keep):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    refuse(folder, r"model\.safetensors (is truncated|has a damaged header)")


def test_a_file_with_bytes_too_many_is_refused(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes() + b"x")
    refuse(folder, "is longer than its header says")


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header["model.norm.weight"].update(dtype="BF17"),
        lambda header: header["model.norm.weight"].update(shape=[17]),
        lambda header: header["model.norm.weight"].update(shape=[-16]),
        lambda header: header["model.norm.weight"].update(shape="16"),
        lambda header: header["model.norm.weight"].update(data_offsets=[0, 32]),
        lambda header: header["model.norm.weight"].pop("dtype"),
        lambda header: header.update(broken=3),
        lambda header: header.pop("model.norm.weight"),
    ],
)
def test_a_header_that_contradicts_itself_is_refused(folder, change):
    edit_header(folder / "model.safetensors", change)
    refuse(folder, "damaged header")


def test_noise_is_no_checkpoint(folder):
    (folder / "model.safetensors").write_bytes(np.random.default_rng(0).bytes(5000))
    refuse(folder, "is truncated or no safetensors file")
    (folder / "model.safetensors").write_bytes((50).to_bytes(8, "little") + b"\xff" * 5000)
    refuse(folder, "damaged header")


def test_a_git_lfs_pointer_is_named(folder):
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    refuse(folder, "is a Git LFS pointer, .* `git lfs pull`")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_pickled_weights_are_refused_with_the_command_that_converts_them(tmp_path, name):
    folder = tmp_path / "pickled"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / name).write_bytes(b"\x80\x04.")
    refuse(
        folder, rf"pickled weights, .* python -c .*from_pretrained\('{folder}'.*save_pretrained\('{folder}-safetensors'"
    )


@pytest.mark.slow
def test_the_command_that_converts_runs(tmp_path):
    import re
    import subprocess
    import sys

    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path / "pickled"
    model = LlamaForCausalLM(LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                                         num_attention_heads=1, num_key_value_heads=1))  # fmt: skip
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    program = re.search(r'python -c "(.*)"', str(caught.value))[1]
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=300)
    assert set(open_checkpoint(tmp_path / "pickled-safetensors").tensors) == set(model.state_dict())


def test_a_folder_without_weights_is_refused(tmp_path):
    refuse(tmp_path / "absent", "is not a folder")
    (tmp_path / "empty").mkdir()
    refuse(tmp_path / "empty", "has neither model.safetensors nor model.safetensors.index.json")
    shutil.copy(checkpoints.write(tmp_path / "m", checkpoints.random_words({"w": (2,)}, 0)) / "model.safetensors",
                tmp_path / "empty" / "part.safetensors")  # fmt: skip
    refuse(tmp_path / "empty", r"\(only part\.safetensors\)")


def test_an_index_naming_a_missing_file_is_refused(sharded):
    (sharded / "model-00002-of-00003.safetensors").unlink()
    refuse(sharded, "names model-00002-of-00003.safetensors, which is missing")


@pytest.mark.parametrize("path", ["../tuned/model.safetensors", "/etc/passwd", "sub/model.safetensors", "..", ""])
def test_an_index_naming_files_outside_its_folder_is_refused(sharded, path):
    index = sharded / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["model.norm.weight"] = path
    index.write_text(json.dumps(content))
    refuse(sharded, "a file outside its folder")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": {}}', '{"weight_map": 3}', "\xff"])
def test_a_damaged_index_is_refused(sharded, content):
    (sharded / "model.safetensors.index.json").write_bytes(content.encode("latin-1"))
    refuse(sharded, "model.safetensors.index.json (has no weight_map|cannot be read as JSON|is not a JSON object)")


def test_an_index_that_misplaces_a_tensor_is_refused(sharded):
    index = sharded / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["absent.weight"] = "model-00001-of-00003.safetensors"
    index.write_text(json.dumps(content))
    refuse(sharded, "places tensor absent.weight in model-00001-of-00003.safetensors, which does not hold it")


def test_a_tensor_in_two_shards_is_refused(sharded, bf16_pair):
    name = "model.norm.weight"
    for file in sorted(sharded.glob("*.safetensors"))[:2]:
        held = {key: words for key, words in checkpoints.read(sharded).items() if key in (name,)}
        checkpoints.write_file(file, {**held, f"own.{file.stem}": np.zeros(2, np.uint16)})
    refuse(sharded, f"tensor {name} is in both")


def test_quantised_checkpoints_are_refused(folder):
    (folder / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "gptq"}}))
    refuse(folder, "says that the weights are quantised")


@pytest.mark.parametrize("dtype", ["I32", "I64", "U8", "F64", "F8_E4M3"])
@pytest.mark.parametrize("which", ["base", "tuned"])
def test_integers_and_other_dtypes_are_refused_inside_the_region_only(tmp_path, bf16_pair, dtype, which):
    item = checkpoints.ITEM[dtype]
    name = "model.layers.0.mlp.gate_proj.weight"
    words = {"base": dict(bf16_pair.before), "tuned": dict(bf16_pair.after)}
    words[which][name] = np.zeros(words[which][name].shape, {1: np.uint8, 4: np.uint32, 8: np.uint64}[item])
    folders = {
        key: checkpoints.write(tmp_path / key, words[key], dtypes={name: dtype} if key == which else {})
        for key in ("base", "tuned")
    }
    with pytest.raises(CheckpointError, match=rf"tensor {name} in .*{which} holds {dtype} values"):
        sftknow.restore(folders["base"], folders["tuned"], tmp_path / "out", 20)
    sftknow.restore(folders["base"], folders["tuned"], tmp_path / "out", 20, region="attention")
    found = checkpoints.read(tmp_path / "out")
    assert np.array_equal(found[name], words["tuned"][name])
