import pytest

from sftknow.errors import ConfigError
from sftknow.tuning.recipe import Recipe, check_options
from sftknow.tuning.settings import check_settings, parse_settings, split_batch


def test_values_are_read_as_what_they_look_like():
    pairs = ["warmup_steps=10", "weight_decay=1e-3", "packing=true", "optim=adafactor", "lr_scheduler_kwargs={a: 1}"]
    assert parse_settings(pairs) == {
        "warmup_steps": 10,
        "weight_decay": 0.001,
        "packing": True,
        "optim": "adafactor",
        "lr_scheduler_kwargs": {"a": 1},
    }


@pytest.mark.parametrize("text", ["warmup_steps", "=3", "a={"])
def test_texts_that_are_no_setting_are_refused(text):
    with pytest.raises(ConfigError, match="--set"):
        parse_settings([text])


def test_unknown_names_are_answered_with_the_nearest_right_ones_all_at_once():
    with pytest.raises(ConfigError) as caught:
        check_settings({"warmup_stpes": 3, "wieght_decay": 0, "max_length": 5})
    assert str(caught.value) == (
        "training settings cannot be used: warmup_stpes is no field of TRL's SFTConfig, did you mean warmup_steps?; "
        "wieght_decay is no field of TRL's SFTConfig, did you mean weight_decay?."
    )


def test_names_that_sftknow_sets_are_sent_to_their_option():
    with pytest.raises(ConfigError, match=r"output_dir is set by the OUT folder; bf16 is set by --precision"):
        check_settings({"output_dir": "x", "bf16": True})


def test_remote_code_cannot_be_switched_on():
    with pytest.raises(ConfigError, match="trust_remote_code cannot be set: code from a model folder is never run"):
        check_settings({"trust_remote_code": True})


@pytest.mark.parametrize(
    ("batch", "processes", "micro", "expected"),
    [(8, 1, None, (8, 1)), (8, 2, None, (4, 1)), (8, 2, 1, (1, 4)), (8, 1, 16, (8, 1))],
)
def test_a_batch_is_split_over_processes_and_steps(batch, processes, micro, expected):
    assert split_batch(batch, processes, micro) == expected


@pytest.mark.parametrize(("batch", "processes", "micro"), [(8, 3, None), (0, 1, None), (8, 1, 3), (8, 1, -1)])
def test_batches_that_do_not_divide_are_refused(batch, processes, micro):
    with pytest.raises(ConfigError, match="divide"):
        split_batch(batch, processes, micro)


def test_all_problems_of_a_recipe_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        Recipe((0,), 60, 0, learning_rate=0, precision="fp8", kl_weight=-1, drift_stop=0.5)
    text = str(caught.value)
    assert all(part in text for part in ("fp8", "learning_rate", "kl_weight", "drift_stop needs drift_every"))


def test_unknown_options_of_train_are_answered():
    with pytest.raises(ConfigError, match=r"learning_rat \(did you mean learning_rate\?\)"):
        check_options({"learning_rat": 1})
