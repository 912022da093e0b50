"""Semi-nonnegative factorisation over a cone, and networks of few neurons."""

import numpy as np
import pytest

from jaxcvxnn import LeakyReLU, PolynomialNetwork, TrainingProblem, TwoLayerReLU
from jaxcvxnn.improve import balance, reduce_width, semi_nonnegative_factorisation
from jaxcvxnn.improve.width import fewest_terms
from jaxcvxnn.networks import two_layer


def rotation(angle):
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def umbrella():
    """Five unit vectors of R^3, each orthogonal to two others: a cone with five facets."""
    cosine = (np.sqrt(5) - 1) / 2
    height = np.sqrt((cosine - np.cos(2 * np.pi / 5)) / (1 - np.cos(2 * np.pi / 5)))
    angles = 2 * np.pi * np.arange(5) / 5
    ring = np.sqrt(1 - height**2) * np.column_stack([np.cos(angles), np.sin(angles)])
    return np.column_stack([ring, np.full(5, height)])


def checked(V, sides, factors, tolerance=1e-8):
    """The factors are exact, in the cone, of the norm they say, and proven the shortest."""
    np.testing.assert_allclose(factors.first.T @ factors.second, V, atol=1e-13 * np.abs(V).max())
    np.testing.assert_allclose(np.linalg.norm(factors.first, axis=1), 1)
    assert np.min(factors.first @ sides.T) >= -1e-11
    lengths = np.linalg.norm(factors.second, axis=1)
    np.testing.assert_allclose(factors.norm, lengths.sum())
    assert factors.lower_bound <= factors.norm <= factors.lower_bound * (1 + 2 * tolerance)


@pytest.mark.parametrize("rank", [2, 3])
def test_any_matrix_has_exact_factors_of_least_norm(rng, rank):
    sides = rng.standard_normal((7, rank))
    sides *= np.sign(sides @ np.ones(rank))[:, None]
    V = rng.standard_normal((rank, 3))
    factors = semi_nonnegative_factorisation(V, sides)
    checked(V, sides, factors)
    assert factors.norm > np.linalg.norm(V, "nuc") * (1 + 1e-3)
    # Neither units nor coordinates count, and more constraints only cost.
    turn, _ = np.linalg.qr(rng.standard_normal((rank, rank)))
    turned = semi_nonnegative_factorisation(turn @ V * 1e5, sides @ turn.T * 1e-3)
    np.testing.assert_allclose(turned.norm, 1e5 * factors.norm, rtol=1e-7)
    assert semi_nonnegative_factorisation(V, sides[:5]).norm <= factors.norm * (1 + 1e-7)


def test_in_the_plane_against_a_grid_of_directions(rng):
    """The quadrant: as the least sum of v_j over many u_j, and e_1 for a single row."""
    factors = semi_nonnegative_factorisation(np.array([[3.0, 4.0], [0.0, 0.0]]), np.eye(2))
    np.testing.assert_allclose(factors.norm, 5, rtol=1e-8)
    # V = e_1 - e_2 for one output is no single neuron: |e_1| + |e_2|, where the nuclear norm is sqrt 2.
    factors = semi_nonnegative_factorisation(np.array([[1.0], [-1.0]]), np.eye(2))
    np.testing.assert_allclose(factors.norm, 2, rtol=1e-8)
    # A rank-one matrix u v' with u inside is a neuron.
    V = np.outer([1.0, 2.0], rng.standard_normal(3))
    factors = semi_nonnegative_factorisation(V, np.eye(2), directions=[[1.0, 2.0], [0.0, 0.0]])
    np.testing.assert_allclose(factors.norm, np.linalg.norm(V), rtol=1e-8)


def test_five_facets_are_more_than_a_doubly_nonnegative_moment_sees():
    """U = W = V = I is feasible in the relaxation, worth 3, and proven not to be made of neurons."""
    sides = umbrella()
    assert np.min(sides @ sides.T) >= -1e-15  # so that I is in the relaxed set
    np.testing.assert_allclose(np.diag(sides @ np.roll(sides, 2, axis=0).T), 0, atol=1e-15)
    factors = semi_nonnegative_factorisation(np.eye(3), sides, tolerance=1e-4)
    checked(np.eye(3), sides, factors, 1e-4)
    assert factors.lower_bound > 3.07
    four = semi_nonnegative_factorisation(np.eye(3), np.eye(3))
    np.testing.assert_allclose(four.norm, 3, rtol=1e-8)


def test_nothing_to_factor():
    factors = semi_nonnegative_factorisation(np.zeros((2, 3)), np.eye(2))
    assert factors.first.shape == (0, 2) and factors.second.shape == (0, 3)
    assert factors.norm == 0


@pytest.mark.parametrize(("features", "bias"), [(2, False), (3, True)])
def test_reduced_networks_do_the_same_for_less(rng, features, bias):
    n, c, m = 5, 2, 70
    problem = TrainingProblem(
        rng.standard_normal((n, features)), rng.standard_normal((n, c)), bias=bias
    )
    U, V = rng.standard_normal((features, m)), rng.standard_normal((m, c))
    U[:, 0], V[1] = 0, 0
    network = TwoLayerReLU(U, V, rng.standard_normal(m) if bias else None)
    reduced = reduce_width(problem, network)
    assert reduced.width <= n * c < n * c + 1
    expected = network.predict(problem.X)
    np.testing.assert_allclose(reduced.predict(problem.X), expected, atol=1e-11)
    assert float(reduced.penalty) <= float(balance(network).penalty) * (1 + 1e-12)
    again = reduce_width(problem, reduced)
    assert again.width == reduced.width
    np.testing.assert_allclose(again.penalty, reduced.penalty, rtol=1e-12)


def test_repeated_and_cancelling_neurons(rng):
    """Copies merge; what cancels goes."""
    X, Y = rng.standard_normal((4, 2)), rng.standard_normal((4, 1))
    u, v = rng.standard_normal((2, 1)), np.array([[1.0]])
    copies = TwoLayerReLU(np.tile(u, 6), np.tile(v, (6, 1)) * np.array([[1, 2, 3, 1, -1, 1e-9]]).T)
    reduced = reduce_width(TrainingProblem(X, Y), copies)
    assert reduced.width == 1
    np.testing.assert_allclose(reduced.predict(X), copies.predict(X), atol=1e-12)
    np.testing.assert_allclose(reduced.penalty, (6 + 1e-9) * np.linalg.norm(u))


def test_leaky_units_and_what_is_refused(rng):
    X, Y = rng.standard_normal((4, 2)), rng.standard_normal((4, 1))
    absolute = LeakyReLU(-1.0)
    network = two_layer(
        rng.standard_normal((2, 9)), rng.standard_normal((9, 1)), activation=absolute
    )
    reduced = reduce_width(TrainingProblem(X, Y, activation=absolute), network)
    assert reduced.width <= 4 and reduced.activation == absolute
    np.testing.assert_allclose(reduced.predict(X), network.predict(X), atol=1e-12)
    with pytest.raises(ValueError, match="the same in network and problem"):
        reduce_width(TrainingProblem(X, Y), network)
    polynomial = TrainingProblem(X, Y, activation="polynomial")
    with pytest.raises(ValueError, match="takes ReLU, leaky ReLU"):
        square = PolynomialNetwork(np.eye(2), np.ones((2, 1)), activation=polynomial.activation)
        reduce_width(polynomial, square)
    with pytest.raises(ValueError, match="2 features .* and 1 outputs; the network 3 and 1"):
        reduce_width(TrainingProblem(X, Y), TwoLayerReLU(np.ones((3, 2)), np.ones((2, 1))))


def test_fewest_terms_of_random_points(rng):
    points, strengths = rng.standard_normal((30, 4)), rng.random(30)
    kept = fewest_terms(points, strengths)
    assert np.count_nonzero(kept) <= 4 and kept.min() >= 0
    np.testing.assert_allclose(kept @ points, strengths @ points, atol=1e-12)
    assert kept.sum() <= strengths.sum()


def test_bad_input():
    V = np.ones((2, 1))
    with pytest.raises(ValueError, match=r"one column per row of V, 2.*\(3, 3\)"):
        semi_nonnegative_factorisation(V, np.eye(3))
    with pytest.raises(ValueError, match="of that rank.*their rank 1"):
        semi_nonnegative_factorisation(V, np.ones((3, 2)))
    with pytest.raises(ValueError, match="has no interior"):
        semi_nonnegative_factorisation(V, np.vstack([np.eye(2), -np.eye(2)]))
    with pytest.raises(ValueError, match="V must be finite"):
        semi_nonnegative_factorisation(np.full((2, 1), np.nan), np.eye(2))
    with pytest.raises(ValueError, match="directions must have 2 columns"):
        semi_nonnegative_factorisation(V, np.eye(2), directions=np.eye(3))
