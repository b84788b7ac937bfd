import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sftknow.kl.arrays import jensen_shannon, kl_rows, kl_top_k, top_ids

LOGITS = arrays(np.float64, (3, 12), elements=st.floats(-20, 20, width=32))


def oracle(first, second):
    """KL in float64, from the definition, one row."""
    p, q = (np.exp(row) / np.exp(row).sum() for row in (first, second))
    return float((p * np.log(p / q)).sum())


def test_known_answers():
    even, skewed = [[0.0, 0.0]], [[math.log(3), 0.0]]
    assert kl_rows(even, skewed)[0] == pytest.approx(0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25))
    assert kl_rows(skewed, even)[0] == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert jensen_shannon([[800.0, 0.0]], [[0.0, 800.0]])[0] == pytest.approx(math.log(2))


def test_the_paper_s_kl_by_hand():
    """Tuned keeps ids 2 and 0; the base's logits there are 1 and 1, so KL is that of (e/(1+e), 1/(1+e)) to even."""
    tuned, base = [[2.0, -5.0, 3.0, 1.0]], [[1.0, 9.0, 1.0, 9.0]]
    share = math.e / (1 + math.e)
    expected = share * math.log(2 * share) + (1 - share) * math.log(2 * (1 - share))
    assert kl_top_k(tuned, base, k=2)[0] == pytest.approx(expected)


@settings(max_examples=60, deadline=None)
@given(LOGITS, LOGITS)
def test_divergences_match_the_definition_and_are_never_negative(first, second):
    expected = [oracle(*rows) for rows in zip(first, second, strict=True)]
    np.testing.assert_allclose(kl_rows(first, second), expected, atol=1e-9)
    middles = []
    for left, right in zip(first, second, strict=True):
        p, q = (np.exp(row) / np.exp(row).sum() for row in (left, right))
        middle = (p + q) / 2
        middles.append(0.5 * (p * np.log(p / middle)).sum() + 0.5 * (q * np.log(q / middle)).sum())
    np.testing.assert_allclose(jensen_shannon(first, second), middles, atol=1e-9)
    assert (kl_rows(first, second) >= 0).all()


@settings(max_examples=30, deadline=None)
@given(LOGITS)
def test_equal_rows_diverge_by_exactly_nothing(rows):
    assert (kl_rows(rows, rows) == 0).all()
    assert (jensen_shannon(rows, rows) == 0).all()
    assert (kl_top_k(rows, rows, 4) == 0).all()


@settings(max_examples=60, deadline=None)
@given(arrays(np.float32, (4, 9), elements=st.sampled_from([-1.0, 0.0, 0.5, 2.0])), st.integers(1, 9))
def test_the_highest_are_found_with_ties_to_the_lower_id(rows, k):
    expected = [sorted(range(9), key=lambda token: (-row[token], token))[:k] for row in rows]
    assert top_ids(rows, k).tolist() == expected


def test_impossible_tokens_do_not_spoil_a_row():
    rows = kl_rows([[0.0, -np.inf]], [[0.0, 0.0]])
    assert rows[0] == pytest.approx(math.log(2))
