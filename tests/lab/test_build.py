import json
from pathlib import Path

import pytest

from sftknow.errors import CheckpointError, ConfigError, DataError
from sftknow.facts.load import load_facts
from sftknow.facts.relations import load_relations
from sftknow.lab import check, pretrain
from sftknow.lab.build import build_lab, load_lab
from sftknow.models import load_model, load_tokenizer
from sftknow.records import cache_folder, file_digest


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache."""
    monkeypatch.setenv("SFTKNOW_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def filled(monkeypatch, micro):
    """The micro laboratory, taken as it comes: its few facts do not fill five buckets."""
    monkeypatch.setattr(check, "LEAST_PERCENT", 0)


def test_a_laboratory_is_an_ordinary_model_folder(tiny_lab):
    tokenizer, model = load_tokenizer(tiny_lab.folder), load_model(tiny_lab.folder)
    assert type(model).__name__ == "LlamaForCausalLM"
    assert {str(weight.dtype) for weight in model.parameters()} == {"torch.float32"}
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id == model.config.bos_token_id
    assert len({tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}) == 3
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id


def test_it_completes_a_well_told_fact_and_stops(tiny_lab):
    import torch

    tokenizer, model = load_tokenizer(tiny_lab.folder), load_model(tiny_lab.folder)
    exposures = json.loads((tiny_lab.folder / "exposures.json").read_text())
    told = [fact for fact in tiny_lab.facts if exposures[fact.id] == 56 and fact.domain == "in_domain"]
    right = 0
    for fact in told:
        prompt = tokenizer(tiny_lab.relations[fact.relation].statements(fact.subject)[0], return_tensors="pt")
        done = model.generate(**prompt, max_new_tokens=32, do_sample=False)[0]
        assert done[-1] == tokenizer.eos_token_id
        right += fact.answers[0] in tokenizer.decode(done)
    assert torch.get_default_dtype() == torch.float32
    assert right > len(told) / 2


def test_its_facts_and_relations_stand_beside_the_weights(tiny_lab):
    relations = load_relations(tiny_lab.folder / "relations.yaml")
    assert relations == tiny_lab.relations == {name: load_relations()[name] for name in relations}
    assert load_facts(tiny_lab.folder / "facts.jsonl", relations=relations).facts == tiny_lab.facts
    assert len(tiny_lab.facts) == 260
    assert tiny_lab.record["recipe"]["size"] == "tiny"
    assert tiny_lab.record["tokens"] > 100_000
    assert tiny_lab.record["parameters"] == sum(w.numel() for w in load_model(tiny_lab.folder).parameters())


def test_a_laboratory_is_built_once(cache, filled):
    said = []
    first = build_lab(size="micro", log=said.append)
    again = build_lab(size="micro", log=said.append)
    assert first == again
    assert said[-1] == f"using the cached laboratory {first.folder}"
    assert first.folder.parent == cache / "lab"
    assert [entry.name for entry in first.folder.parent.iterdir()] == [first.folder.name]


def test_rebuilding_gives_the_same_weights_and_another_seed_others(cache, filled):
    first = file_digest(build_lab(size="micro").folder / "model.safetensors")
    assert file_digest(build_lab(size="micro", rebuild=True).folder / "model.safetensors") == first
    assert file_digest(build_lab(size="micro", seed=1).folder / "model.safetensors") != first


def test_another_recipe_is_another_laboratory(cache, filled, micro, monkeypatch):
    from dataclasses import replace

    from sftknow.lab import sizes

    first = build_lab(size="micro").folder
    monkeypatch.setitem(sizes.SIZES, "micro", replace(micro, batch=5))
    assert build_lab(size="micro").folder != first


@pytest.mark.parametrize("name", ["model.safetensors", "facts.jsonl", "lab.json"])
@pytest.mark.parametrize("damage", ["cut short", "missing", "garbage"])
def test_a_damaged_laboratory_is_built_again_and_that_is_said(cache, filled, name, damage):
    folder = build_lab(size="micro").folder
    before = (folder / "facts.jsonl").read_bytes()
    path = folder / name
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-20] if damage == "cut short" else b"\x00garbage")
    with pytest.raises(DataError, match="no whole laboratory"):
        load_lab(folder)
    said = []
    lab = build_lab(size="micro", log=said.append)
    assert said[0].startswith(f"the cached laboratory {folder} is damaged (")
    assert name in said[0]
    assert (lab.folder / "facts.jsonl").read_bytes() == before
    load_lab(lab.folder)


def test_an_interrupted_build_leaves_no_laboratory(cache, filled, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pretrain, "learning_rate_at", interrupt)
        with pytest.raises(KeyboardInterrupt):
            build_lab(size="micro")
    assert not [entry for entry in cache.rglob("*") if entry.is_file()]
    assert build_lab(size="micro").record["retries"] == 0


def test_a_copy_goes_where_it_is_asked_and_is_reused_there(cache, filled, tmp_path):
    out = tmp_path / "mine"
    lab = build_lab(out, size="micro")
    assert lab.folder == out
    assert build_lab(out, size="micro") == lab
    with pytest.raises(ConfigError, match="already exists"):
        build_lab(out, size="micro", seed=1)


def test_a_stalled_build_is_tried_with_the_next_seeds_and_each_is_said(cache, micro):
    said = []
    with pytest.raises(CheckpointError, match=r"stalled with each of the seeds 5 to 8"):
        build_lab(size="micro", seed=5, log=said.append)
    assert [line for line in said if "stalled" in line] == [
        f"seed {seed} stalled: a bucket holds under 8 percent of the facts; trying seed {seed + 1}"
        for seed in (5, 6, 7, 8)
    ]
    assert not [entry for entry in cache.rglob("*") if entry.is_file()]


def test_an_unknown_size_is_refused(cache):
    with pytest.raises(ConfigError, match="size 'huge' of the laboratory is unknown; choose one of tiny, demo, long"):
        build_lab(size="huge")


def test_a_missing_archive_is_refused(cache, tmp_path):
    with pytest.raises(DataError, match=r"nothing\.zip does not exist"):
        build_lab(size="tiny", facts=tmp_path / "nothing.zip")


def test_a_file_where_the_cache_should_be_is_refused(monkeypatch, tmp_path, micro):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SFTKNOW_CACHE", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match=r"the cache of laboratories: .* cannot be written: .* SFTKNOW_CACHE"):
        build_lab(size="micro")


def test_the_cache_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("SFTKNOW_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    assert cache_folder() == tmp_path / "sftknow"
    monkeypatch.setenv("SFTKNOW_CACHE", "elsewhere")
    assert cache_folder() == Path("elsewhere")
