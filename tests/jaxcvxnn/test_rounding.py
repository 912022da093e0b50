"""From moments to a network: the two projections, and moments that belong to a network."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvxnn import TrainingProblem
from jaxcvxnn.improve import prune, round_moments, selection_matrices
from jaxcvxnn.improve.rounding import null_space_projector, project_complementary


def test_selection_matrices_select(rng):
    X = rng.standard_normal((3, 2))
    P = selection_matrices(X, 4)
    u, v = rng.standard_normal((2, 5)), rng.standard_normal((4, 5))
    alpha, omega = np.maximum(X @ u, 0), np.maximum(-X @ u, 0)
    stacked = np.vstack([alpha, omega, u, v])
    np.testing.assert_array_equal(P.alpha @ stacked, alpha)
    np.testing.assert_array_equal(P.omega @ stacked, omega)
    np.testing.assert_array_equal(P.u @ stacked, u)
    np.testing.assert_array_equal(P.v @ stacked, v)
    np.testing.assert_array_equal(P.alpha_omega @ stacked, stacked[:6])
    np.testing.assert_allclose(P.M @ stacked, 0, atol=1e-14)
    np.testing.assert_allclose(P.M, -P.alpha + P.omega + X @ P.u, rtol=1e-15)
    assert P.M.shape == (3, 12)


@pytest.mark.parametrize(
    ("alpha", "omega", "expected"),
    [
        (2.0, 1.0, (2, 0)),
        (1.0, 2.0, (0, 2)),
        (2.0, -1.0, (2, 0)),
        (-1.0, 2.0, (0, 2)),
        (-1.0, -2.0, (0, 0)),
        (0.0, 0.0, (0, 0)),
        (0.0, 3.0, (0, 3)),
        (3.0, 0.0, (3, 0)),
        (-1.0, 0.0, (0, 0)),
        (1.0, 1.0, (1, 0)),  # the one case where eq. (6) as printed leaves D1
    ],
)
def test_the_cases_of_equation_6(alpha, omega, expected):
    factor = jnp.array([[alpha], [omega], [-5.0], [7.0]])
    np.testing.assert_array_equal(project_complementary(factor, 1)[:, 0], [*expected, -5, 7])


def test_project_complementary_finds_the_nearest_point(rng):
    factor = rng.standard_normal((9, 6))  # three samples, three rows of u and v
    factor[0], factor[4] = factor[3], 0  # ties and zeros
    ours = np.asarray(project_complementary(jnp.asarray(factor), 3))
    np.testing.assert_array_equal(project_complementary(jnp.asarray(ours), 3), ours)
    np.testing.assert_array_equal(ours[6:], factor[6:])
    alpha, omega = ours[:3], ours[3:6]
    assert np.all(alpha >= 0) and np.all(omega >= 0) and not np.any(alpha * omega)
    # Nearest of all points of D1: on a fine grid of both half-axes.
    grid = np.linspace(0, 4, 4001)
    for i, j in itertools.product(range(3), range(6)):
        a, o = factor[i, j], factor[3 + i, j]
        best = min(np.min((grid - a) ** 2) + o**2, np.min((grid - o) ** 2) + a**2)
        distance = (alpha[i, j] - a) ** 2 + (omega[i, j] - o) ** 2
        assert distance <= best + 1e-14


@pytest.mark.parametrize("kind", ["plain", "tall", "rank 1", "zero rows", "copies"])
def test_null_space_projector_is_the_printed_one(rng, kind):
    X = rng.standard_normal((4, 3) if kind != "tall" else (6, 2))
    if kind == "rank 1":
        X = X[:, :1] @ rng.standard_normal((1, 3))
    if kind == "zero rows":
        X[1:3] = 0
    if kind == "copies":
        X[1], X[2] = X[0], -X[0]
    M = np.asarray(selection_matrices(X, 2).M)
    project = null_space_projector(jnp.asarray(X))
    factor = rng.standard_normal((M.shape[1], 5))
    ours = project(factor)
    np.testing.assert_allclose(ours, factor - np.linalg.pinv(M) @ M @ factor, atol=1e-12)
    np.testing.assert_allclose(M @ ours, 0, atol=1e-12)
    np.testing.assert_allclose(project(ours), ours, atol=1e-12)


def moments_of(X, U, V):
    neurons = np.vstack([np.maximum(X @ U, 0), np.maximum(-X @ U, 0), U, V.T])
    return neurons @ neurons.T


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("relative_step", [0.25, 0.1])
def test_moments_of_a_network_give_it_back(rng, bias, relative_step):
    """Lambda of rank two, from two neurons: its only factors in D1 and D2 are those neurons."""
    X, U, V = rng.standard_normal((6, 2)), rng.standard_normal((3, 2)), rng.standard_normal((2, 1))
    U = U if bias else U[:2]
    # Balanced, as at an optimum.
    scale = np.sqrt(np.linalg.norm(V, axis=1) / np.linalg.norm(U, axis=0))
    U, V = U * scale, V / scale[:, None]
    Y = rng.standard_normal((6, 1))
    problem = TrainingProblem(X, Y, 0.1, bias=bias)
    features = np.asarray(problem.features)
    expected = np.sum((np.maximum(features @ U, 0) @ V - Y) ** 2) / 2
    expected += 0.05 * (np.sum(U**2) + np.sum(V**2))
    network = round_moments(
        jnp.asarray(moments_of(features, U, V)),
        jnp.asarray(features),
        width=4,
        bias=bias,
        relative_step=relative_step,
        max_steps=4000,
    )
    assert network.width == 4 and (network.b is not None) == bias
    assert float(problem.objective(network)) == pytest.approx(expected, rel=0.02)


def test_width_cuts_and_pads(rng):
    X = rng.standard_normal((4, 2))
    moments = moments_of(X, rng.standard_normal((2, 3)), rng.standard_normal((3, 2)))
    for width in (1, 3, 30):
        network = round_moments(moments, X, width=width, max_steps=5, relative_step=0.25)
        assert network.width == width and network.U.shape == (2, width)
        assert prune(network).width <= width


def test_zero_moments_give_the_zero_network(rng):
    X = rng.standard_normal((4, 2))
    network = round_moments(jnp.zeros((12, 12)), X, width=3, max_steps=5)
    np.testing.assert_array_equal(network.U, 0)
    np.testing.assert_array_equal(network.V, 0)


def test_precision_and_vmap(rng):
    X = rng.standard_normal((4, 2))
    moments = moments_of(X, rng.standard_normal((2, 3)), rng.standard_normal((3, 1)))
    small = round_moments(
        jnp.asarray(moments, jnp.float32), jnp.asarray(X, jnp.float32), width=3, max_steps=5
    )
    assert small.U.dtype == small.V.dtype == jnp.float32
    scales = jnp.array([1.0, 4.0])
    # Lambda scales as the square of the neurons: the step is relative, so the path scales too.
    both = jax.vmap(lambda s: round_moments(s * moments, X, width=3, max_steps=5).V)(scales)
    np.testing.assert_allclose(both[1], 2 * both[0], rtol=1e-8, atol=1e-12)
