"""Clipping bounds what anybody can move; noise is normal, and nobody's to repeat."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy import stats

from rayfed_hn.privacy.clipping import clip_factor, clipped
from rayfed_hn.privacy.randomness import Entropy, Randomness, Seeded

VECTORS = npst.arrays(
    np.float32,
    st.integers(1, 40),
    elements=st.floats(width=32, allow_nan=True, allow_infinity=True),
)


@given(vector=VECTORS, limit=st.floats(1e-3, 1e3))
def test_no_vector_whatever_is_longer_than_the_limit(vector: np.ndarray, limit: float) -> None:
    short, norm = clipped(torch.from_numpy(vector), limit)
    length = float(short.double().norm())
    assert length <= limit
    assert torch.isfinite(short).all()
    if norm <= limit:
        assert torch.equal(short, torch.from_numpy(vector))


@given(vector=VECTORS.filter(lambda v: bool(np.isfinite(v).all())), limit=st.floats(0.1, 10))
def test_direction_and_what_is_short_enough_stay(vector: np.ndarray, limit: float) -> None:
    long = torch.from_numpy(vector).double()
    if not 1e-3 < float(long.norm()) < 1e30:
        return
    short, _ = clipped(long, limit)
    cosine = float(short @ long / (short.norm() * long.norm()))
    assert cosine == pytest.approx(1, abs=1e-9)
    assert float(short.norm()) == pytest.approx(min(limit, float(long.norm())), rel=1e-5)


def test_several_tensors_are_clipped_as_one() -> None:
    parts = [torch.full((4,), 3.0), torch.full((9,), 2.0)]  # norms 6 and 6
    factor, norm = clip_factor(parts, 1.0)
    assert norm == pytest.approx(72**0.5)
    assert factor == pytest.approx(1 / 72**0.5, rel=1e-5)


@pytest.mark.parametrize("source", [Entropy(), Seeded(3)])
@pytest.mark.parametrize("size", [1, 2, 7, 100_000])
def test_noise_is_standard_normal(source: Randomness, size: int) -> None:
    drawn = source.normal(size)
    assert drawn.shape == (size,)
    assert np.isfinite(drawn).all()
    if size > 1000:  # once in a million runs, chance fails this
        assert stats.kstest(drawn, "norm").pvalue > 1e-6
        halves = drawn.reshape(2, -1)  # Box and Muller's pairs
        assert abs(np.corrcoef(halves)[0, 1]) < 5 / (size / 2) ** 0.5


def test_seeded_noise_repeats_and_the_machines_does_not() -> None:
    np.testing.assert_array_equal(Seeded(1).normal(50), Seeded(1).normal(50))
    assert not np.array_equal(Seeded(1).normal(50), Seeded(2).normal(50))
    assert not np.array_equal(Entropy().normal(50), Entropy().normal(50))
    assert Seeded(1).secret() == Seeded(1).secret()
    assert Entropy().secret() != Entropy().secret()
