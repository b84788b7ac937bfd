"""Stored values are decoded exactly and encoded to the nearest, as NumPy and torch do."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sftknow.restoration.values import BF16, F16, F32, convert, decode, encode, has_non_finite

EVERY_HALF = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16)


def decoded(words, kind):
    out = np.empty(words.size, np.float32)
    decode(words.view(np.uint8), kind, out)
    return out


def encoded(values, kind):
    out = np.empty(values.size * (4 if kind == F32 else 2), np.uint8)
    encode(values, kind, out)
    return out.view(np.uint32 if kind == F32 else np.uint16)


def test_every_float16_is_decoded_as_numpy_does():
    expected = EVERY_HALF.view(np.float16).astype(np.float32)
    found = decoded(EVERY_HALF, F16)
    number = ~np.isnan(expected)
    assert np.array_equal(found.view(np.uint32)[number], expected.view(np.uint32)[number])
    assert np.isnan(found[~number]).all()


def test_every_bfloat16_is_decoded_as_torch_does():
    expected = torch.from_numpy(EVERY_HALF).view(torch.bfloat16).float().numpy()
    assert np.array_equal(decoded(EVERY_HALF, BF16).view(np.uint32), expected.view(np.uint32))


@given(arrays.arrays(np.uint32, st.integers(1, 300)))
def test_float32_is_encoded_to_the_nearest_as_numpy_and_torch_do(bits):
    values = bits.view(np.float32)
    values = values[~np.isnan(values)]
    with np.errstate(over="ignore"):
        assert np.array_equal(encoded(values, F16), values.astype(np.float16).view(np.uint16))
    bfloat = torch.from_numpy(values).bfloat16().view(torch.uint16).numpy()
    assert np.array_equal(encoded(values, BF16), bfloat)
    assert np.array_equal(encoded(values, F32), values.view(np.uint32))


@pytest.mark.parametrize("kind", [BF16, F16])
def test_values_halfway_between_two_neighbours_go_to_the_even_one(kind):
    neighbours = decoded(EVERY_HALF[1:0x7BFF], kind).astype(np.float64)
    halfway = ((neighbours[:-1] + neighbours[1:]) / 2).astype(np.float32)
    assert (encoded(halfway, kind) % 2 == 0).all()


@pytest.mark.parametrize("kind", [BF16, F16])
def test_encoding_what_was_decoded_gives_the_same_words(kind):
    words = EVERY_HALF[~np.isnan(decoded(EVERY_HALF, kind))]
    assert np.array_equal(encoded(decoded(words, kind), kind), words)


def test_converting_to_the_same_kind_copies_nothing():
    raw = EVERY_HALF.view(np.uint8)
    assert convert(raw, BF16, BF16) is raw


@pytest.mark.parametrize("kind", [BF16, F16, F32])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_non_finite_value_is_found_anywhere(kind, value):
    for at in (0, 17, 99):
        values = np.linspace(-6e4, 6e4, 100, dtype=np.float32)
        raw = encoded(values, kind).view(np.uint8)
        assert not has_non_finite(raw, kind)
        values[at] = value
        words = encoded(np.where(np.isnan(values), np.float32(0), values), kind)
        if np.isnan(value):
            words[at] = {BF16: 0x7FC0, F16: 0x7E00, F32: 0x7FC00000}[kind]
        assert has_non_finite(words.view(np.uint8), kind)
