"""Regions follow each architecture's own naming."""

import pytest

from sftknow.errors import ConfigError
from sftknow.restoration.regions import bare_name, outline, parse_layers, parse_region, place_of

ATTENTION = [
    "model.layers.3.self_attn.q_proj.weight",  # Llama, Mistral, Qwen, Gemma, Phi, OLMo
    "model.layers.3.self_attn.q_proj.bias",
    "model.layers.3.self_attn.qkv_proj.weight",
    "model.language_model.layers.3.self_attn.q_proj.weight",  # vision-language wrappers, new and old
    "language_model.model.layers.3.linear_attn.in_proj_qkvz.weight",
    "transformer.h.3.attn.c_attn.weight",  # GPT-2
    "h.3.attn.c_attn.bias",
    "gpt_neox.layers.3.attention.query_key_value.weight",  # GPT-NeoX
    "gpt_neox.layers.3.attention.dense.bias",
    "model.decoder.layers.3.self_attn.out_proj.weight",  # OPT
    "transformer.h.3.self_attention.dense.weight",  # Falcon
    "transformer.blocks.3.norm_attn_norm.attn.Wqkv.weight",  # DBRX
]
MLP = [
    "model.layers.3.mlp.gate_proj.weight",
    "model.layers.3.mlp.gate.weight",  # router of Qwen and OLMo mixtures
    "model.layers.3.mlp.experts.17.down_proj.weight",
    "model.layers.3.mlp.experts.gate_up_proj",
    "model.layers.3.mlp.shared_expert_gate.weight",
    "model.layers.3.block_sparse_moe.gate.weight",  # Mixtral
    "model.layers.3.block_sparse_moe.experts.7.w1.weight",
    "transformer.h.3.mlp.c_fc.bias",
    "gpt_neox.layers.3.mlp.dense_h_to_4h.weight",
    "model.decoder.layers.3.fc1.weight",
    "transformer.h.3.mlp.dense_4h_to_h.weight",
]
NORM = [
    "model.layers.3.input_layernorm.weight",
    "model.layers.3.pre_feedforward_layernorm.weight",
    "model.layers.3.self_attn.q_norm.weight",  # Qwen3, OLMo2
    "model.layers.3.self_attn.k_layernorm.bias",  # Phi
    "model.layers.3.self_attn.kv_a_layernorm.weight",
    "transformer.h.3.ln_1.weight",
    "transformer.h.3.ln_attn.bias",
    "gpt_neox.layers.3.post_attention_layernorm.weight",
    "model.decoder.layers.3.final_layer_norm.weight",
    "transformer.blocks.3.norm_attn_norm.norm_1.weight",
]
EMBEDDING = [
    "model.embed_tokens.weight", "lm_head.weight", "lm_head.bias", "transformer.wte.weight", "wpe.weight",
    "gpt_neox.embed_in.weight", "embed_out.weight", "transformer.word_embeddings.weight",
    "model.decoder.embed_positions.weight", "language_model.model.embed_tokens.weight",
]  # fmt: skip
OTHER = [
    "model.norm.weight",
    "transformer.ln_f.weight",
    "vision_tower.vision_model.encoder.layers.3.self_attn.q_proj.weight",
    "model.vision_tower.vision_model.encoder.layers.3.mlp.fc1.weight",
    "model.visual.blocks.3.attn.qkv.weight",
    "model.audio_tower.layers.3.self_attn.q_proj.weight",
    "model.encoder.layers.3.self_attn.q_proj.weight",
    "transformer.word_embeddings_layernorm.weight",
    "multi_modal_projector.linear_1.weight",
]
BUFFER = ["gpt_neox.layers.3.attention.masked_bias", "model.layers.3.self_attn.rotary_emb.inv_freq", "rotary.inv_freq"]


@pytest.mark.parametrize(
    ("part", "names"),
    {
        "attention": ATTENTION, "mlp": MLP, "norm": NORM, "embedding": EMBEDDING, "other": OTHER, "buffer": BUFFER
    }.items(),
)  # fmt: skip
def test_a_name_tells_the_part(part, names):
    for name in names:
        assert place_of(name, (4, 4)).part == part, name


def test_blocks_carry_their_number_and_only_blocks():
    assert {place_of(name, (4,)).block for name in (*ATTENTION, *MLP, *NORM)} == {3}
    assert {place_of(name, (4,)).block for name in (*EMBEDDING, *OTHER)} == {None}


def test_modules_of_all_blocks_and_experts_share_a_name():
    assert place_of("model.layers.3.mlp.experts.17.down_proj.weight", ()).module == "mlp.experts.N.down_proj"
    assert place_of("model.layers.9.self_attn.q_proj.bias", ()).module == "self_attn.q_proj"


@pytest.mark.parametrize("name", ["transformer.h.3.attn.bias", "gpt_neox.layers.3.attention.bias"])
def test_a_causal_mask_is_no_bias(name):
    assert place_of(name, (1, 1, 64, 64)).part == "buffer"
    assert place_of(name, (64,)).part == "attention"


@pytest.mark.parametrize(
    ("region", "layers", "held"),
    [
        ("transformer", None, [*ATTENTION, *MLP]),
        ("transformer", "3", [*ATTENTION, *MLP]),
        ("transformer", "0-2,4", []),
        ("attention", None, ATTENTION),
        ("mlp", None, MLP),
        ("embedding", None, EMBEDDING),
        ("all", None, [*ATTENTION, *MLP, *NORM, *EMBEDDING, *OTHER]),
        ("all", "2-3", [*ATTENTION, *MLP, *NORM]),
        (r"regex:\.experts\.", None, [name for name in MLP if ".experts." in name]),
        ("regex:inv_freq", None, []),
    ],
)
def test_regions_hold_their_parts(region, layers, held):
    chosen = parse_region(region, layers)
    names = [*ATTENTION, *MLP, *NORM, *EMBEDDING, *OTHER, *BUFFER]
    assert [name for name in names if chosen.holds(name, place_of(name, (4, 4)))] == held


def test_layers_are_numbers_and_ranges():
    assert parse_layers("0-3, 28 - 31,7") == {0, 1, 2, 3, 7, 28, 29, 30, 31}
    for text in ("", "3-1", "x", "1,,2", "-1", "0-999999999"):
        with pytest.raises(ConfigError, match="write ranges such as"):
            parse_layers(text)


def test_wrappers_of_a_language_model_are_taken_off():
    assert bare_name("transformer.h.0.attn.c_attn.weight") == "h.0.attn.c_attn.weight"
    assert bare_name("model.language_model.layers.0.mlp.up_proj.weight") == "layers.0.mlp.up_proj.weight"
    assert bare_name("language_model.model.layers.0.mlp.up_proj.weight") == "layers.0.mlp.up_proj.weight"
    assert bare_name("vision_tower.layers.0.w") == "vision_tower.layers.0.w"


def test_an_outline_draws_blocks_together():
    names = [f"model.layers.{n}.mlp.up_proj.weight" for n in range(4)] + ["model.norm.weight"]
    assert outline(names) == "model.layers.{0-3}.mlp.up_proj.weight, model.norm.weight"
    assert outline(f"t{n}" for n in range(30)).endswith(" and 6 more")
