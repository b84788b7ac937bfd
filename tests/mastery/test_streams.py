import numpy as np

from sftknow.mastery.streams import stream_key, uniforms


def test_a_sample_s_numbers_do_not_depend_on_the_company_it_is_drawn_in():
    keys = np.array([stream_key(0, name) for name in "abcd"], dtype=np.uint64)
    samples = np.array([0, 5, 9, 1])
    together = uniforms(keys, samples, 3)
    alone = [uniforms(keys[i : i + 1], samples[i : i + 1], 3)[0] for i in range(4)]
    assert together.tolist() == alone


def test_seed_name_sample_and_step_each_change_the_number():
    def number(seed, name, sample, step):
        return uniforms(np.array([stream_key(seed, name)], dtype=np.uint64), np.array([sample]), step)[0]

    numbers = [
        number(0, "a", 0, 0),
        number(1, "a", 0, 0),
        number(0, "b", 0, 0),
        number(0, "a", 1, 0),
        number(0, "a", 0, 1),
    ]
    assert len(set(numbers)) == 5


def test_numbers_are_uniform_and_neighbouring_steps_and_samples_unrelated():
    keys = np.repeat(np.array([stream_key(7, str(n)) for n in range(2000)], dtype=np.uint64), 10)
    samples = np.tile(np.arange(10), 2000)
    drawn = np.stack([uniforms(keys, samples, step) for step in range(5)])
    assert drawn.min() >= 0 and drawn.max() < 1
    counts, _ = np.histogram(drawn, bins=50, range=(0, 1))
    expected = drawn.size / 50
    assert ((counts - expected) ** 2 / expected).sum() < 49 + 5 * np.sqrt(2 * 49)
    assert abs(np.corrcoef(drawn[0], drawn[1])[0, 1]) < 5 / np.sqrt(20000)
    by_sample = drawn[0].reshape(2000, 10)
    assert abs(np.corrcoef(by_sample[:, 0], by_sample[:, 1])[0, 1]) < 5 / np.sqrt(2000)
