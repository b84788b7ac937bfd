"""Models load from whole folders only, and every failure says what to do."""

from pathlib import Path

import pytest

from sftknow import models
from sftknow.errors import CheckpointError, ConfigError


def test_a_missing_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="neither a model folder nor a Hub id"):
        models.resolve_model(tmp_path / "absent")


def test_an_empty_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no \.safetensors weights"):
        models.resolve_model(tmp_path)


def test_a_hub_id_without_a_connection_says_what_to_check(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="cannot be fetched from the Hub"):
        models.resolve_model("some-org/some-model@main")


def test_a_damaged_model_names_the_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(CheckpointError, match="check that the folder is whole") as caught:
        models.load_model(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_remote_code_is_never_run(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mine", "auto_map": {"AutoConfig": "code.Config"}}')
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: pass\n")
    (tmp_path / "model.safetensors").write_bytes(b"\x02\x00\x00\x00\x00\x00\x00\x00{}")
    with pytest.raises(CheckpointError):
        models.load_model(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_unknown_dtype_and_device_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="choose one of auto, float32"):
        models.load_model(tmp_path, dtype="int4")
    with pytest.raises(ConfigError, match="try --device cpu"):
        models.load_model(tmp_path, device="no-such-device")
