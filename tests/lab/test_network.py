import pytest
import torch

from sftknow.lab.network import Network
from sftknow.lab.pretrain import as_tensors, new_model


@pytest.fixture
def model(micro, micro_rows):
    model = new_model(micro_rows[0], micro, seed=4)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    return model


@pytest.fixture
def batch(micro_rows):
    tokenizer, phases = micro_rows
    return as_tensors(phases[1][:6], tokenizer.pad_token_id, "cpu")


def test_loss_and_gradients_are_those_of_transformers(model, batch):
    ids, targets = batch
    logits = model(input_ids=ids).logits
    theirs = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    theirs.backward()
    network = Network(model)
    ours = network.backward(ids, targets)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    layer = model.model.layers[1]
    expected = [
        model.model.embed_tokens.weight.grad,
        model.model.norm.weight.grad,
        torch.cat([getattr(layer.self_attn, f"{name}_proj").weight.grad for name in "qkv"]),
        torch.cat([layer.mlp.gate_proj.weight.grad, layer.mlp.up_proj.weight.grad]),
        layer.mlp.down_proj.weight.grad,
    ]
    parameters = network.parameters()
    found = [parameters[place].grad for place in (0, 1, 2 + 6 + 1, 2 + 6 + 4, 2 + 6 + 5)]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_writing_back_returns_every_weight_to_its_place(model):
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    network = Network(model)
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(2)
    after = network.write_back().state_dict()
    assert all(torch.equal(after[name], 2 * weight) for name, weight in before.items())
