"""Activation patterns: all of them against counts, sampling and linear programs; some, as promised."""

from itertools import combinations, product

import cvxpy as cp
import numpy as np
import pytest
from scipy.optimize import linprog

from jaxcvxnn import TwoLayerReLU
from jaxcvxnn.geometry import (
    convolutional_patterns,
    count_patterns,
    low_rank_guarantee,
    low_rank_patterns,
    network_patterns,
    sample_patterns,
    sample_size,
    sign_patterns,
    solid_angles,
)

# Ergen and Pilanci (2023), Example II.1.
EXAMPLE = np.array([[2.0, 2], [3, 3], [1, 0]])


def as_set(patterns):
    return {tuple(row) for row in patterns}


def realised(features, pattern):
    """Whether some u has x_i'u >= 1 where active, <= -1 elsewhere: a linear program says so."""
    sides = np.where(pattern, 1.0, -1.0)[:, None] * features
    found = linprog(np.zeros(features.shape[1]), -sides, -np.ones(len(sides)), bounds=(None, None))
    return found.status == 0


@pytest.mark.parametrize("rank", [1, 2, 3, 4, 5])
def test_counts_in_general_position(rank, rng):
    for count in (3, 8, 12 if rank > 3 else 25):
        features = rng.normal(size=(count, rank))
        patterns = sign_patterns(features)
        assert patterns.shape == (count_patterns(count, rank), count)
        assert len(as_set(patterns)) == len(patterns)
        seen = rng.normal(size=(2000, rank)) @ features.T > 0
        assert as_set(seen) <= as_set(patterns)


def test_counts():
    # Lines through the origin of the plane; all 2^n where the rows are independent; Cover (1965).
    assert [count_patterns(n, 2) for n in (1, 2, 7)] == [2, 4, 14]
    assert [count_patterns(5, r) for r in (1, 3, 5, 9)] == [2, 22, 32, 32]
    with pytest.raises(ValueError, match="must be positive"):
        count_patterns(3, 0)


@pytest.mark.parametrize("rank", [2, 3, 4])
def test_all_patterns_are_those_of_linear_programs(rank, rng):
    features = rng.integers(-1, 2, size=(7, rank)).astype(float)  # far from general position
    features[0] = np.arange(rank) == 0
    found = sign_patterns(features)
    alive = np.any(features != 0, axis=1)
    expected = {
        signs
        for signs in product([False, True], repeat=len(features))
        if not np.any(np.array(signs) & ~alive)
        and realised(features[alive], np.array(signs)[alive])
    }
    assert as_set(found) == expected
    assert len(found) == len(expected)


def test_awkward_rows(rng):
    base = rng.normal(size=(5, 4))
    features = np.concatenate([base, -2 * base, 1e-9 * base, np.zeros((1, 4))])
    patterns = sign_patterns(features)
    assert patterns.shape == (count_patterns(5, 4), 16)
    np.testing.assert_array_equal(patterns[:, 5:10], ~patterns[:, :5])
    np.testing.assert_array_equal(patterns[:, 10:15], patterns[:, :5])
    assert not np.any(patterns[:, 15])
    # Rank 3 in seven dimensions, rows in pairs 3e-11 apart: each wedge between two is found.
    rows = rng.normal(size=(6, 3))
    pairs = np.concatenate([rows, rows * (1 + 3e-11 * rng.normal(size=rows.shape))])
    assert len(sign_patterns(pairs)) == count_patterns(12, 3)
    embedded = rows @ np.linalg.qr(rng.normal(size=(7, 3)))[0].T
    assert as_set(sign_patterns(embedded)) == as_set(sign_patterns(rows))
    np.testing.assert_array_equal(sign_patterns(np.zeros((3, 2))), np.zeros((1, 3), bool))


@pytest.mark.parametrize("size", [3, 4, 5])
def test_braid_arrangement(size):
    # The planes x_i = x_j cut the space into size! cells; their rank is size - 1.
    pairs = list(combinations(range(size), 2))
    features = np.array([np.eye(size)[i] - np.eye(size)[j] for i, j in pairs])
    assert len(sign_patterns(features)) == [6, 24, 120][size - 3]


def test_invariances(rng):
    features = rng.normal(size=(9, 4))
    patterns = as_set(sign_patterns(features))
    turned = features @ np.linalg.qr(rng.normal(size=(4, 4)))[0]
    scaled = 10.0 ** rng.uniform(-6, 6, size=(9, 1)) * turned
    assert as_set(sign_patterns(scaled)) == patterns
    order = rng.permutation(9)
    assert as_set(sign_patterns(features[order])) == {tuple(np.array(p)[order]) for p in patterns}


def test_too_many_are_refused_with_their_number(rng):
    features = rng.normal(size=(60, 8))
    with pytest.raises(
        ValueError, match=f"60 directions of rank 8 may have {count_patterns(60, 8)}"
    ):
        sign_patterns(features)
    with pytest.raises(ValueError, match="may have 16 patterns, more than limit = 15"):
        sign_patterns(features[:8, :2], limit=15)
    assert len(sign_patterns(features[:8, :2], limit=16)) == 16


def test_samples_are_patterns(rng):
    features = rng.normal(size=(8, 3))
    some = sample_patterns(features, 30, seed=3)
    assert as_set(some) < as_set(sign_patterns(features))
    np.testing.assert_array_equal(some, sample_patterns(features, 30, seed=3))
    assert len(as_set(some)) == len(some)
    assert as_set(sample_patterns(np.eye(3), 200)) == as_set(sign_patterns(np.eye(3)))


def miss_probability(angles, draws):
    """Of meeting not all cells: inclusion and exclusion over all sets of cells."""
    sets = [subset for k in range(1, len(angles) + 1) for subset in combinations(angles, k)]
    return sum((-1) ** (len(s) + 1) * max(1 - sum(s), 0.0) ** draws for s in sets)


def test_example_of_ergen_and_pilanci():
    patterns, angles = solid_angles(EXAMPLE)
    assert as_set(patterns) == as_set(sign_patterns(EXAMPLE))
    assert len(patterns) == 4
    np.testing.assert_allclose(np.sort(angles), [1 / 8, 1 / 8, 3 / 8, 3 / 8], rtol=1e-14)
    # The count keeps its promise with probabilities ...
    draws = sample_size(4, 1 / 8, 0.05)
    assert draws == 36
    assert miss_probability(angles, draws) <= 0.05
    # ... and not with the angles in radians of Remark III.2, a factor 2 pi too large.
    assert miss_probability(angles, np.ceil(draws / (2 * np.pi))) > 0.5


def test_solid_angles_are_frequencies_and_the_sample_size_suffices(rng):
    features = np.concatenate([rng.normal(size=(5, 2)), np.zeros((1, 2))])
    embedded = features @ np.linalg.qr(rng.normal(size=(4, 2)))[0].T
    patterns, angles = solid_angles(embedded)
    assert as_set(patterns) == as_set(sign_patterns(features))
    assert np.sum(angles) == pytest.approx(1, abs=1e-14)
    draws = rng.normal(size=(20_000, 4)) @ embedded.T > 0
    draws[:, 5] = False
    frequencies = np.mean(np.all(draws[:, None] == patterns, axis=2), axis=0)
    np.testing.assert_allclose(frequencies, angles, atol=4 * np.sqrt(0.25 / 20_000))
    count, epsilon = sample_size(len(patterns), float(np.min(angles)), 0.1), 0.1
    assert miss_probability(angles, count) <= epsilon
    complete = [len(sample_patterns(features, count, seed=s)) == len(patterns) for s in range(200)]
    assert np.mean(complete) >= 1 - epsilon


def test_solid_angles_of_a_line():
    patterns, angles = solid_angles(np.array([[2.0, 4], [-1, -2]]))
    assert as_set(patterns) == {(True, False), (False, True)}
    np.testing.assert_array_equal(angles, [0.5, 0.5])


def program_value(features, patterns, y, weight_decay, cones=None):
    """Ergen and Pilanci, eq. (7), with the loss ||f - y||: value, and the network's rows and signs.

    In eq. (10) the `cones` are those of other data.
    """
    cones = features if cones is None else cones
    blocks = cp.Variable((2 * len(patterns), features.shape[1]))
    signs = np.repeat([1.0, -1.0], len(patterns))
    outputs, constraints = 0, []
    for w, sign, pattern in zip(blocks, signs, np.concatenate([patterns, patterns]), strict=True):
        outputs = outputs + sign * (pattern[:, None] * features) @ w
        constraints.append(((2.0 * pattern - 1)[:, None] * cones) @ w >= 0)
    loss = cp.norm(outputs - y) + weight_decay * cp.sum(cp.norm(blocks, axis=1))
    value = cp.Problem(cp.Minimize(loss), constraints).solve("CLARABEL")
    return value, blocks.value, signs


def test_low_rank_guarantee(rng):
    left, right = np.linalg.qr(rng.normal(size=(7, 3)))[0], np.linalg.qr(rng.normal(size=(3, 3)))[0]
    features, y, weight_decay = (left * [3.0, 2.0, 0.1]) @ right, rng.normal(size=7), 0.2
    found = low_rank_guarantee(features, 2, weight_decay=weight_decay)
    assert found.singular_value == pytest.approx(0.1, rel=1e-12)
    assert found.factor == pytest.approx((1 + 0.1 / 0.2) ** 2, rel=1e-12)
    assert len(found.patterns) == count_patterns(7, 2)
    near = (left * [3.0, 2.0, 0]) @ right
    np.testing.assert_array_equal(found.patterns, low_rank_patterns(near, 2))
    # Lemma F.1: train on the approximation. Eq. (10): on the data, with its patterns and cones.
    optimum, _, _ = program_value(features, sign_patterns(features), y, weight_decay)
    for samples in (near, features):
        _, neurons, signs = program_value(samples, found.patterns, y, weight_decay, cones=near)
        outputs = np.maximum(features @ neurons.T, 0) @ signs
        penalty = weight_decay * np.sum(np.linalg.norm(neurons, axis=1))
        reached = np.linalg.norm(outputs - y) + penalty
        assert optimum * (1 - 1e-7) <= reached <= optimum * found.factor
    assert low_rank_guarantee(features, 3, weight_decay=1.0).factor == 1


def test_rows_lost_by_the_approximation_are_never_active(rng):
    features = np.diag([3.0, 2.0, 1e-3]) @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    patterns = low_rank_patterns(features, 2)
    assert len(patterns) == 4
    assert not np.any(patterns[:, 2])


def test_network_patterns(rng):
    U, b = rng.normal(size=(2, 5)), rng.normal(size=5)
    U[:, 3], b[3] = 2 * U[:, 1], 2 * b[1]
    U[:, 4], b[4] = 0, 0
    network, X = TwoLayerReLU(U, np.ones((5, 1)), b), rng.normal(size=(30, 2))
    patterns = network_patterns(network, X)
    assert as_set(patterns) == as_set((X @ U[:, :3] + b[:3]).T >= 0)
    assert len(patterns) == 3
    # Eq. (5): a sample on the plane is active.
    on_plane = network_patterns(TwoLayerReLU(np.array([[1.0], [0]]), np.ones((1, 1))), np.eye(2))
    np.testing.assert_array_equal(on_plane, [[True, True]])
    with pytest.raises(ValueError, match="neurons must have 4 columns"):
        network_patterns(network, np.ones((3, 3)))


def test_convolutional_patterns(rng):
    signals, width = rng.normal(size=(4, 6)), 2
    patches = np.stack([signals[:, k : k + width] for k in range(0, 6, 2)])
    patterns = convolutional_patterns(patches)
    assert patterns.shape == (count_patterns(12, 2), 4, 3)
    for pattern in sample_patterns(np.eye(2), 50):
        weights = np.where(pattern, 1.0, -1.0) * rng.uniform(size=2)
        active = np.stack([patches[k] @ weights > 0 for k in range(3)], axis=1)
        assert np.any(np.all(patterns == active, axis=(1, 2)))
    some = convolutional_patterns(patches, count=10, seed=1)
    assert {p.tobytes() for p in some} <= {p.tobytes() for p in patterns}
    with pytest.raises(ValueError, match=r"patches must have shape \(K, n, d\)"):
        convolutional_patterns(signals)


def test_bad_input():
    good = np.ones((3, 3))
    with pytest.raises(ValueError, match="features must be finite"):
        sign_patterns(good * np.nan)
    with pytest.raises(ValueError, match="count must be at least 1"):
        sample_patterns(good, 0)
    with pytest.raises(ValueError, match="rank 1 or 2; theirs is 3"):
        solid_angles(np.eye(3))
    with pytest.raises(ValueError, match="rank must be at least 1"):
        low_rank_patterns(good, 0)
    with pytest.raises(ValueError, match="weight_decay must be positive"):
        low_rank_guarantee(good, 1, weight_decay=0)
    with pytest.raises(ValueError, match="a probability of at most 1 / 4"):
        sample_size(4, np.pi / 4, 0.1)
    with pytest.raises(ValueError, match="patterns must be at least 1"):
        sample_size(0, 0.1, 0.1)
    with pytest.raises(ValueError, match="epsilon must lie between"):
        sample_size(4, 0.1, 0)
