import math

import pytest
import torch

from sftknow.lab import checkpoint
from sftknow.lab.checkpoint import Checkpoint
from sftknow.lab.pretrain import as_tensors, batches_of, learning_rate_at, pretrain


class InterruptedAt(Checkpoint):
    """A checkpoint whose training is interrupted right after some step."""

    def __init__(self, step, *args):
        super().__init__(*args)
        self.step = step

    def save(self, losses, *args):
        super().save(losses, *args)
        if len(losses) == self.step:
            raise KeyboardInterrupt


@pytest.fixture
def train(micro, micro_rows):
    tokenizer, phases = micro_rows
    return lambda kept=None: pretrain(phases, tokenizer, micro, seed=0, checkpoint=kept)


def weights(trained):
    return {name: weight.clone() for name, weight in trained.model.state_dict().items()}


def test_batches_are_of_equal_length_and_hold_every_row_once():
    rows = [[number] * length for number, length in enumerate([3, 5, 3, 3, 5, 9, 3, 3])]
    batches = batches_of(rows, 2)
    assert sorted(row for batch in batches for row in batch) == sorted(rows)
    assert sum(len({len(row) for row in batch}) == 1 for batch in batches) == len(batches) - 1


def test_the_learning_rate_rises_then_falls_to_a_twentieth():
    rates = [learning_rate_at(step, 1000, 2.0) for step in range(1000)]
    assert rates[0] == pytest.approx(2.0 / 30)
    assert rates[29] == rates[30] == 2.0
    assert rates[515] == pytest.approx(2.0 * (0.05 + 0.95 / 2))
    assert rates[-1] == pytest.approx(0.1, rel=1e-3)
    assert rates[30:] == sorted(rates[30:], reverse=True)


def test_padded_places_have_no_target():
    ids, targets = as_tensors([[7, 8, 9], [7, 9]], 0, "cpu")
    assert ids.tolist() == [[7, 8], [7, 9]]
    assert targets.tolist() == [[8, 9], [9, -100]]


def test_pretraining_learns_and_counts_its_tokens(train, micro_rows):
    trained = train()
    rows = [row for phase in micro_rows[1] for row in phase]
    assert trained.tokens == sum(map(len, rows))
    assert trained.final_loss < 0.9 * math.log(len(micro_rows[0]))
    assert all(weight.dtype == torch.float32 for weight in trained.model.parameters())


def test_an_interrupted_training_goes_on_to_the_same_weights(train, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "EVERY", 10)
    path, said = tmp_path / "state", []
    with pytest.raises(KeyboardInterrupt):
        train(InterruptedAt(35, path, "this build"))
    resumed = train(Checkpoint(path, "this build", said.append))
    assert said == ["going on with the interrupted pretraining at step 30"]
    whole = train()
    assert resumed.final_loss == whole.final_loss
    assert all(torch.equal(weight, weights(resumed)[name]) for name, weight in weights(whole).items())


@pytest.mark.parametrize("fault", ["of another build", "cut short"])
def test_a_state_that_does_not_fit_is_passed_over(train, tmp_path, monkeypatch, fault):
    monkeypatch.setattr(checkpoint, "EVERY", 10)
    path = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        train(InterruptedAt(10, path, "this build"))
    if fault == "cut short":
        path.write_bytes(path.read_bytes()[:-100])
    identity = "another build" if fault == "of another build" else "this build"
    assert train(Checkpoint(path, identity)).final_loss == train().final_loss
