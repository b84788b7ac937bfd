from sftknow.models import load_model, load_tokenizer


def test_a_laboratory_is_an_ordinary_model_folder(tiny_lab):
    tokenizer = load_tokenizer(tiny_lab.folder)
    model = load_model(tiny_lab.folder)
    assert type(model).__name__ == "LlamaForCausalLM"
    assert {str(weight.dtype) for weight in model.parameters()} == {"torch.float32"}
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id == model.config.bos_token_id
