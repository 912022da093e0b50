"""Pricing at ranks 1 and 2: closed forms, dense sampling, invariances, awkward rows and scales."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from jaxcvxnn.pricing.circle import arrange_circle, price_planar
from jaxcvxnn.pricing.price import prices

from ..helpers import PAPER_DATA


def circle(count):
    angles = np.linspace(0, 2 * np.pi, count)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def sampled(residual, features, neurons):
    """The largest price on a dense grid and in the neighbourhood of `neurons`."""
    steps = np.concatenate([[0], np.logspace(-16, -3, 14)])
    angles = np.arctan2(neurons[:, 1], neurons[:, 0])[:, None] + np.concatenate([steps, -steps])
    near = np.stack([np.cos(angles.ravel()), np.sin(angles.ravel())], axis=1)
    return max(np.max(prices(residual, features, u)) for u in (circle(5001), near))


def awkward(rng, count):
    """Rows with zeros, duplicates, antiparallel and nearly parallel ones, on a grid or at random."""
    rows = rng.normal(size=(count, 2)) if rng.random() < 0.5 else rng.integers(-2, 3, (count, 2))
    rows = rows * 10.0 ** rng.integers(-4, 5, size=(count, 1))
    copies = [rows, rows, -3 * rows, rows * (1 + 1e-15), rows + 1e-12 * rng.normal(size=(count, 2))]
    return np.concatenate(copies[: rng.integers(1, 6)])


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 4))
def test_bounds_enclose_the_maximum(seed, count, outputs):
    rng = np.random.default_rng(seed)
    features = awkward(rng, count)
    residual = rng.normal(size=(len(features), outputs)) * 10.0 ** rng.integers(-4, 5)
    price = price_planar(residual, features)
    assert price.upper >= sampled(residual, features, price.neurons)
    assert price.upper >= price.lower >= 0
    size = np.sum(np.linalg.norm(residual, axis=1) * np.linalg.norm(features, axis=1))
    assert price.upper - price.lower <= 1e-13 * size
    assert price.lower == pytest.approx(prices(residual, features, price.neurons)[0], rel=1e-12)
    np.testing.assert_allclose(np.linalg.norm(price.neurons, axis=1), 1, rtol=1e-14)


@pytest.mark.parametrize("count", [25, 60, 300])
def test_gap_on_random_data(count, rng):
    features, residual = rng.normal(size=(count, 2)), rng.normal(size=(count, 3))
    price = price_planar(residual, features)
    assert price.upper - price.lower <= 1e-12 * price.upper
    assert price.lower <= price.upper
    assert price.lower >= sampled(residual, features, price.neurons) * (1 - 1e-14)


def test_one_sample():
    price = price_planar([[3.0, 4.0]], [[1.0, -2.0]])
    assert price.lower == pytest.approx(5 * np.sqrt(5), rel=1e-15)
    assert price.lower <= price.upper <= price.lower * (1 + 1e-13)
    np.testing.assert_allclose(price.neurons, [[1 / np.sqrt(5), -2 / np.sqrt(5)]], atol=1e-15)


def test_orthogonal_samples_are_separate_maxima():
    # relu(e_i'u) r_i: on the quarter between both, |(2 cos t, sin t)|, at most 2; alone, 2 and 1.
    price = price_planar([[2.0, 0], [0, 1]], np.eye(2))
    assert price.lower == 2
    np.testing.assert_allclose(price.neurons, [[1, 0]], atol=1e-15)
    price = price_planar([[2.0], [-1.0]], np.eye(2))  # |2 cos t - sin t| is 0 in between
    np.testing.assert_allclose(price.neurons, [[1, 0], [0, 1]], atol=1e-9)


def test_one_feature():
    features, residual = (
        np.array([[2.0], [-1], [0], [3]]),
        np.array([[1.0, 0], [0, 5], [9, 9], [1, 1]]),
    )
    price = price_planar(residual, features)
    # u = 1: 2 (1, 0) + 3 (1, 1) = (5, 3); u = -1: (0, 5).
    assert price.lower == pytest.approx(np.hypot(5, 3), rel=1e-15)
    np.testing.assert_array_equal(price.neurons, [[1], [-1]])
    assert price.lower <= price.upper <= price.lower * (1 + 1e-13)


@pytest.mark.parametrize("residual, features", [(0, 1), (1, 0), (0, 0)])
def test_nothing_to_gain(residual, features):
    price = price_planar(np.full((3, 2), residual), np.full((3, 2), features))
    assert price.lower == price.upper == 0
    assert price.neurons.shape == (1, 2)


def test_cancelling_duplicates_cost_no_more_than_rounding():
    features = np.array([[1.0, 2.0], [1.0, 2.0]])
    price = price_planar([[1.0], [-1.0]], features)
    assert 0 <= price.lower <= price.upper <= 1e-13


@pytest.mark.parametrize("scales", [(1e-100, 1e-100), (1e100, 1e100), (1e-290, 1.0), (1e250, 1e-9)])
def test_scales(scales, rng):
    features, residual = rng.normal(size=(8, 2)), rng.normal(size=(8, 3))
    plain = price_planar(residual, features)
    scaled = price_planar(residual * scales[1], features * scales[0])
    product = scales[0] * scales[1]
    np.testing.assert_allclose(scaled.lower, plain.lower * product, rtol=1e-13)
    np.testing.assert_allclose(scaled.upper, plain.upper * product, rtol=1e-13)
    np.testing.assert_allclose(scaled.neurons, plain.neurons, atol=1e-12)


def test_invariances(rng):
    features, residual = rng.normal(size=(20, 2)), rng.normal(size=(20, 3))
    price = price_planar(residual, features)
    turn = np.linalg.qr(rng.normal(size=(2, 2)))[0]
    order, scale = rng.permutation(20), 10.0 ** rng.uniform(-5, 5, size=(20, 1))
    others = [
        price_planar(residual, features @ turn.T),
        price_planar(residual[order], features[order]),
        price_planar(residual / scale, features * scale),
        price_planar(residual @ np.linalg.qr(rng.normal(size=(3, 3)))[0], features),
        price_planar(np.vstack([residual / 2] * 2), np.vstack([features] * 2)),
    ]
    for other in others:
        assert other.lower == pytest.approx(price.lower, rel=1e-13)
        assert other.upper == pytest.approx(price.upper, rel=1e-12)
        assert len(other.neurons) == len(price.neurons)
    np.testing.assert_allclose(others[0].neurons, price.neurons @ turn.T, atol=1e-12)


def test_neurons_are_all_local_maxima(rng):
    grid = circle(200_001)[:-1]
    for _ in range(5):
        features, residual = rng.normal(size=(15, 2)), rng.normal(size=(15, 2))
        neurons = price_planar(residual, features).neurons
        values = prices(residual, features, grid)
        peaks = grid[(values > np.roll(values, 1)) & (values > np.roll(values, -1))]
        assert len(neurons) == len(peaks)
        distances = np.linalg.norm(neurons[:, None] - peaks[None], axis=2)
        assert np.max(np.min(distances, axis=1)) < 1e-4  # each is one ...
        assert np.max(np.min(distances, axis=0)) < 1e-4  # ... and none is missing
        assert np.all(np.diff(prices(residual, features, neurons)) <= 0)


def test_one_circle_serves_every_residual(rng):
    features = rng.normal(size=(12, 2))
    arranged = arrange_circle(features)
    for outputs in (1, 4):
        residual = rng.normal(size=(12, outputs))
        again = price_planar(residual, features)
        assert arranged.price(residual).upper == again.upper
        assert again.cells == 2 * 12 + 4


@pytest.mark.parametrize("name", ["spiral.npz", "random_trials_00_49.npz"])
@pytest.mark.skipif(not PAPER_DATA.is_dir(), reason=f"no data of the papers: {PAPER_DATA}")
def test_paper_data(name):
    if not (PAPER_DATA / name).exists():
        pytest.skip(f"{name} is not there")
    with np.load(PAPER_DATA / name) as arrays:
        features, targets = arrays["X"], arrays["Y"]
    if features.ndim == 3:
        features, targets = features[0], targets[0]
    optimum = 16.592977235 if name == "spiral.npz" else 8.902057867  # at weight decay 0.1
    price = price_planar(-targets, features)
    assert price.upper >= sampled(-targets, features, price.neurons)
    assert price.upper - price.lower <= 1e-12 * price.upper
    # The dual bound of R = -t Y, t = wd / upper: (t - t^2 / 2) |Y|^2.
    scale = min(1, 0.1 / price.upper)
    assert 0 < (scale - scale**2 / 2) * np.sum(targets**2) <= optimum


def test_bad_input():
    good = np.ones((3, 2))
    with pytest.raises(ValueError, match="features must have 1 or 2 columns"):
        price_planar(good, np.ones((3, 3)))
    with pytest.raises(ValueError, match="residual must have 3 rows"):
        price_planar(np.ones((2, 2)), good)
    with pytest.raises(ValueError, match="residual must be finite"):
        price_planar(good * np.nan, good)
    with pytest.raises(ValueError, match="features must be finite"):
        price_planar(good, good * np.inf)
    with pytest.raises(ValueError, match="features must be a matrix"):
        price_planar(good, np.ones(3))
