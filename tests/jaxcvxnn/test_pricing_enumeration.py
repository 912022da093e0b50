"""Pricing at rank 3 and cone-constrained PCA, against sampling and ascent."""

from math import comb

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from jaxcvxnn.geometry import sign_patterns
from jaxcvxnn.pricing import cone_pca
from jaxcvxnn.pricing.circle import price_planar
from jaxcvxnn.pricing.price import prices
from jaxcvxnn.pricing.sphere import arrange_sphere, price_enumerated


def sphere(rng, count, rank=3):
    points = rng.normal(size=(count, rank))
    return points / np.linalg.norm(points, axis=1)[:, None]


def sampled(rng, residual, features, neurons=()):
    """The largest price found by sampling, near `neurons`, and by power ascent from the best."""
    rank = features.shape[1]
    points = [sphere(rng, 4000, rank)]
    points += [u + size * sphere(rng, 20, rank) for u in neurons for size in (1e-9, 1e-5, 1e-2)]
    points = np.concatenate(points)
    points /= np.linalg.norm(points, axis=1)[:, None]
    values = prices(residual, features, points)
    found, best = np.max(values), points[np.argsort(-values)[:50]]
    for _ in range(100):
        inputs = best @ features.T
        gradients = ((np.maximum(inputs, 0) @ residual @ residual.T) * (inputs > 0)) @ features
        lengths = np.linalg.norm(gradients, axis=1)[:, None]
        best = np.where(lengths > 0, gradients / np.where(lengths > 0, lengths, 1), best)
        best /= np.linalg.norm(best, axis=1)[:, None]
        found = max(found, np.max(prices(residual, features, best)))
    return found


def pattern_count(count, rank):
    return 2 * sum(comb(count - 1, k) for k in range(rank))


def awkward_rows(rng):
    """Named families of rows that are not in general position."""
    base = rng.normal(size=(8, 3))
    grid = np.stack(np.meshgrid(range(4), range(4), [1]), axis=-1).reshape(-1, 3).astype(float)
    cube = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3), axis=-1).reshape(-1, 3).astype(float)
    return {
        "grid": grid,
        "cube": cube,
        "duplicates": np.concatenate([base, base, -3 * base, np.zeros((2, 3)), base / 7]),
        "nearly parallel": np.concatenate(
            [base + size * rng.normal(size=base.shape) for size in (0, 1e-15, 1e-11, 1e-6)]
        ),
        "pairs": np.concatenate([base, -base * (1 + 3e-11 * rng.normal(size=base.shape))]),
        "plane": base[:, :2] @ rng.normal(size=(2, 3)),
        "line": base[:, :1] @ rng.normal(size=(1, 3)),
        "axes": np.concatenate([np.eye(3), -np.eye(3)]),
        "scales": base * 10.0 ** rng.uniform(-6, 6, size=(8, 1)),
        "thin": base * [1, 1e-3, 1e-6],
    }


@pytest.mark.parametrize("count", [1, 2, 3, 10, 30])
def test_random_data(count, rng):
    features, residual = rng.normal(size=(count, 3)), rng.normal(size=(count, 2))
    price = price_enumerated(residual, features)
    assert price.cells == pattern_count(count, 3)
    assert price.upper >= sampled(rng, residual, features, price.neurons)
    assert price.upper >= price.lower
    assert price.upper - price.lower <= 1e-11 * price.upper
    assert price.lower == pytest.approx(prices(residual, features, price.neurons)[0], rel=1e-13)


@pytest.mark.parametrize("name", sorted(awkward_rows(np.random.default_rng(0))))
def test_awkward_rows(name, rng):
    features = awkward_rows(rng)[name]
    for outputs in (1, 3):
        residual = rng.normal(size=(len(features), outputs))
        price = price_enumerated(residual, features)
        assert price.upper >= sampled(rng, residual, features, price.neurons)
        assert price.lower <= price.upper <= price.lower * (1 + 1e-10)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_bounds_on_integer_rows(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 10))
    features = rng.integers(-2, 3, size=(count, 3)).astype(float)
    residual = rng.integers(-3, 4, size=(count, 2)).astype(float)
    price = price_enumerated(residual, features)
    assert price.upper >= sampled(rng, residual, features, price.neurons)
    size = np.sum(np.linalg.norm(residual, axis=1) * np.linalg.norm(features, axis=1))
    assert 0 <= price.upper - price.lower <= 1e-11 * size


def test_data_in_a_plane_agree_with_planar_pricing(rng):
    flat, residual = rng.normal(size=(20, 2)), rng.normal(size=(20, 3))
    basis = np.linalg.qr(rng.normal(size=(3, 3)))[0][:, :2]
    planar, price = price_planar(residual, flat), price_enumerated(residual, flat @ basis.T)
    assert price.lower == pytest.approx(planar.lower, rel=1e-13)
    assert planar.lower <= price.upper <= planar.upper * (1 + 1e-10)
    assert abs(price.neurons[0] @ basis @ planar.neurons[0]) == pytest.approx(1, abs=1e-12)
    assert price_enumerated(residual, flat).upper == planar.upper


def test_one_sample():
    price = price_enumerated([[3.0, 4.0]], [[1.0, 2.0, -2.0]])
    assert price.lower == pytest.approx(15, rel=1e-15)
    np.testing.assert_allclose(price.neurons[0], [1 / 3, 2 / 3, -2 / 3], atol=1e-15)


def test_orthogonal_samples():
    # Orthogonal rows and residuals: |(a_i relu(u_i))|, whose maximum is the largest a_i.
    price = price_enumerated(np.diag([1.0, 3.0, 2.0]), np.eye(3))
    assert price.lower == pytest.approx(3, rel=1e-15)
    assert price.upper == pytest.approx(3, rel=1e-12)
    np.testing.assert_allclose(price.neurons[0], [0, 1, 0], atol=1e-14)


def test_equal_residuals_give_the_zonotope():
    # c = 1, R = 1: the largest sum_i relu(x_i'u) is the longest sum of a subset of the rows.
    rows = np.array([[1.0, 0, 0], [0, 2, 0], [-1, 1, 0], [0, 0, 1], [1, 1, -1]])
    subsets = (np.arange(32)[:, None] >> np.arange(5)) & 1
    longest = np.max(np.linalg.norm(subsets @ rows, axis=1))
    price = price_enumerated(np.ones((5, 1)), rows)
    assert price.lower == pytest.approx(longest, rel=1e-14)
    assert longest <= price.upper <= longest * (1 + 1e-11)


def test_invariances(rng):
    features, residual = rng.normal(size=(12, 3)), rng.normal(size=(12, 2))
    price = price_enumerated(residual, features)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    order, scale = rng.permutation(12), 10.0 ** rng.uniform(-5, 5, size=(12, 1))
    for other in (
        price_enumerated(residual, features @ turn.T),
        price_enumerated(residual[order], features[order]),
        price_enumerated(residual / scale, features * scale),
        price_enumerated(np.vstack([residual / 2] * 2), np.vstack([features] * 2)),
    ):
        assert other.lower == pytest.approx(price.lower, rel=1e-13)
        assert other.upper == pytest.approx(price.upper, rel=1e-11)
        assert other.cells == price.cells
    large = price_enumerated(residual * 1e-100, features * 1e200)
    np.testing.assert_allclose(
        [large.lower, large.upper], np.multiply(1e100, [price.lower, price.upper])
    )


def test_nothing_to_gain():
    for residual, features in ((0, 1), (1, 0)):
        price = price_enumerated(np.full((3, 2), residual), np.full((3, 3), features))
        assert price.lower == price.upper == 0
        assert price.neurons.shape == (1, 3)


def test_one_sphere_serves_every_residual(rng):
    features = rng.normal(size=(6, 3))
    arranged = arrange_sphere(features)
    for outputs in (1, 4):
        residual = rng.normal(size=(6, outputs))
        assert arranged.price(residual).upper == price_enumerated(residual, features).upper


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_cone_pca_is_exact_to_rank_three(rank, rng):
    features, residual = rng.normal(size=(12, rank)), rng.normal(size=(12, 2))
    patterns = sign_patterns(features)
    found = cone_pca(residual, features, patterns)
    price = price_enumerated(residual, features)
    # Sahiner et al. (2021), eqs. (74) and (75): the largest over all cones is the price.
    assert np.max(found.lower) == pytest.approx(price.lower, rel=1e-13)
    assert np.max(found.upper) >= price.lower
    assert np.all(found.upper - found.lower <= 1e-11 * price.upper)
    signs = np.where(patterns, 1, -1)
    assert np.min(signs * (found.directions @ features.T)) >= -1e-11
    np.testing.assert_allclose(
        prices(residual, features, found.directions), found.lower, atol=1e-10
    )
    points = sphere(rng, 5000, rank)
    index = {row.tobytes(): k for k, row in enumerate(patterns)}
    cells = [index[row.tobytes()] for row in points @ features.T > 0]
    assert np.all(found.upper[cells] >= prices(residual, features, points))


@pytest.mark.parametrize("name", sorted(awkward_rows(np.random.default_rng(0))))
def test_cone_pca_of_awkward_rows(name, rng):
    features = awkward_rows(rng)[name]
    residual = rng.normal(size=(len(features), 2))
    points = sphere(rng, 500)
    patterns = points @ features.T > 0
    found = cone_pca(residual, features, patterns)
    assert np.all(found.upper >= prices(residual, features, points))
    size = np.sum(np.linalg.norm(residual, axis=1) * np.linalg.norm(features, axis=1))
    assert np.all(found.upper - found.lower <= 1e-10 * size)
    violation = -np.where(patterns, 1, -1) * (found.directions @ features.T)
    assert np.all(violation <= 2e-12 * np.linalg.norm(features, axis=1))


@pytest.mark.parametrize("rank", [4, 5])
def test_cone_pca_of_higher_rank(rank, rng):
    features, residual = rng.normal(size=(12, rank)), rng.normal(size=(12, 2))
    starts = sphere(rng, 4, rank)
    patterns = starts @ features.T > 0
    found = cone_pca(residual, features, patterns)
    points = sphere(rng, 200_000, rank)
    inside = points @ features.T > 0
    for k, pattern in enumerate(patterns):
        linear = residual.T @ (pattern[:, None] * features)
        assert found.upper[k] == pytest.approx(np.linalg.norm(linear, 2), rel=1e-12)
        assert found.upper[k] >= np.linalg.norm(linear, 2)
        assert found.lower[k] == pytest.approx(np.linalg.norm(linear @ found.directions[k]))
        assert np.min(np.where(pattern, 1, -1) * (features @ found.directions[k])) >= -1e-11
        own = np.concatenate([starts[k : k + 1], points[np.all(inside == pattern, axis=1)]])
        assert found.lower[k] >= np.max(np.linalg.norm(own @ linear.T, axis=1))


def test_cone_pca_ascent_agrees_with_the_exact_method(rng):
    # Rank 3 in four dimensions: the fourth adds a free direction that no map sees.
    features, residual = rng.normal(size=(10, 3)), rng.normal(size=(10, 2))
    patterns = sign_patterns(features)[::7]
    exact = cone_pca(residual, features, patterns)
    basis = np.linalg.qr(rng.normal(size=(4, 4)))[0][:, :3]
    found = cone_pca(residual, features @ basis.T, patterns)
    np.testing.assert_allclose(found.lower, exact.lower, rtol=1e-9)
    assert np.all(found.upper >= exact.upper * (1 - 1e-12))


def test_cone_pca_of_special_cones():
    # x and -x both active: the cone is part of a plane.
    rows = np.array([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, 0, 1]])
    found = cone_pca(np.diag([5.0, 5, 1, 2]), rows, np.ones((1, 4), bool))
    assert found.lower[0] == pytest.approx(2, rel=1e-14)
    assert found.upper[0] == pytest.approx(2, rel=1e-12)
    np.testing.assert_allclose(found.directions, [[0, 0, 1]], atol=1e-12)
    # All of +-e_i active: only the origin is left.
    found = cone_pca(
        np.ones((6, 1)), np.concatenate([np.eye(3), -np.eye(3)]), np.ones((1, 6), bool)
    )
    np.testing.assert_array_equal(found.directions, 0)
    assert found.lower[0] == 0 and 0 <= found.upper[0] < 1e-12
    # No rows at all.
    found = cone_pca(np.ones((2, 1)), np.zeros((2, 4)), np.ones((3, 2), bool))
    np.testing.assert_array_equal(found.upper, np.zeros(3))


def test_bad_input():
    good = np.ones((3, 3))
    with pytest.raises(ValueError, match="residual must have 3 rows"):
        price_enumerated(np.ones((2, 2)), good)
    with pytest.raises(ValueError, match="features must have 3 columns"):
        price_enumerated(good, np.ones((3, 4)))
    for patterns in (np.ones((2, 3)), np.ones((2, 4), bool), np.ones((0, 3), bool)):
        with pytest.raises(ValueError, match="patterns must be booleans"):
            cone_pca(good, good, patterns)
