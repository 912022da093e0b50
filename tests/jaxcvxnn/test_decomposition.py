"""Neural Decomposition: every matrix of the neural spectrahedron is a sum of few neurons."""

import jax
import numpy as np
import pytest

from jaxcvxnn import Polynomial, TrainingProblem
from jaxcvxnn.conic.spectrahedron import coefficient_matrix
from jaxcvxnn.improve import decompose, spectrahedron_network

from ..polynomial_oracle import polynomial_program

decomposed = jax.jit(decompose)


def draw(rng, d, rank, decades=0.0):
    """A matrix of that rank and its neurons' weights, over that many powers of ten."""
    u = rng.standard_normal((rank, d))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    weights = 10 ** rng.uniform(-decades, 0, rank)
    return assembled(u, weights)


def assembled(neurons, weights):
    rows = np.column_stack([neurons, np.ones(len(neurons))])
    return (rows.T * np.asarray(weights)) @ rows


def check(Z, rank):
    neurons, weights = (np.asarray(part) for part in decomposed(Z))
    np.testing.assert_allclose(np.linalg.norm(neurons, axis=1), 1, rtol=1e-13)
    assert np.all(weights >= 0) and np.all(np.diff(weights) <= 0)
    assert np.count_nonzero(weights) <= rank
    np.testing.assert_allclose(assembled(neurons, weights), Z, atol=1e-13 * np.abs(Z).max())
    return neurons, weights


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e6])
@pytest.mark.parametrize("d", [1, 4])
def test_matrices_of_every_rank_and_scale(rng, d, scale):
    for rank in range(1, d + 2):
        for decades in (0, 4, 12):
            for _ in range(4):
                Z = scale * draw(rng, d, rank, decades)
                # What is below rounding does not count: of 12 decades some neurons are.
                check(Z, np.sum(np.linalg.eigvalsh(Z) > 1e-14 * np.trace(Z)))


def test_one_neuron_is_found_itself(rng):
    for sign in (1, -1):
        u = sign * np.array([0.6, 0, -0.8, 0])
        neurons, weights = check(3 * assembled(u[None], [1.0]), 1)
        np.testing.assert_allclose(neurons[0], u, atol=1e-14)
        np.testing.assert_allclose(weights, [3, 0, 0, 0, 0], rtol=1e-14)
    check(draw(rng, 4, 1) + 1e-9 * draw(rng, 4, 5), 5)


def test_diagonal_and_zero_matrices():
    neurons, weights = check(np.diag([0.25, 0.25, 0.25, 0.25, 1]), 5)
    np.testing.assert_allclose(weights.sum(), 1)
    _, weights = check(np.zeros((5, 5)), 0)
    # Nothing of these is on the cone.
    for diagonal in ([1, 1, 1, 1, 0], [0, 0, 0, 0, 1], [-1, -1, -1, -1, -1]):
        neurons, weights = decomposed(np.diag(np.array(diagonal, float)))
        assert not np.any(weights) and np.all(np.isfinite(neurons))


@pytest.mark.parametrize("error", [1e-12, 1e-9, 1e-3])
def test_unequal_traces_are_repaired_by_a_congruence(rng, error):
    """The network is that of D Z D, exactly: nothing is left over, and the rank stays."""
    for rank in (1, 3, 5):
        Z = draw(rng, 4, rank)
        Z[-1, -1] *= 1 + error
        ratio = (Z[-1, -1] / np.trace(Z[:-1, :-1])) ** 0.25
        D = np.array([ratio] * 4 + [1 / ratio])
        neurons, weights = decomposed(Z)
        np.testing.assert_allclose(assembled(neurons, weights), D[:, None] * Z * D, atol=1e-13)
        np.testing.assert_allclose(np.sum(weights), np.sqrt(Z[-1, -1] * np.trace(Z[:-1, :-1])))
        assert np.count_nonzero(weights) <= np.sum(np.linalg.eigvalsh(Z) > 1e-13)


def test_eigenvalues_below_the_tolerance_are_noise(rng):
    noise = 1e-8 * rng.standard_normal((5, 5))
    Z = draw(rng, 4, 2) + noise @ noise.T + 1e-9 * np.diag([1, -1, 0.5, -1, 0])
    neurons, weights = jax.jit(decompose)(Z, 1e-7)
    assert np.count_nonzero(weights) == 2
    np.testing.assert_allclose(assembled(neurons, weights), Z, atol=1e-7)


def test_a_batch_is_its_lanes_and_float32_stays(rng):
    batch = np.stack([draw(rng, 4, rank) for rank in (5, 1, 3)] + [np.zeros((5, 5))])
    together = jax.jit(jax.vmap(decompose))(batch)
    for k, Z in enumerate(batch):
        neurons, weights = decomposed(Z)
        rank = np.count_nonzero(weights)
        np.testing.assert_allclose(together[1][k], weights, atol=1e-13)
        np.testing.assert_allclose(
            assembled(together[0][k], together[1][k]), assembled(neurons, weights), atol=1e-13
        )
        assert np.count_nonzero(together[1][k]) == rank
    neurons, weights = decomposed(batch[0].astype(np.float32))
    assert weights.dtype == np.float32
    np.testing.assert_allclose(assembled(neurons, weights), batch[0], atol=1e-5)


# ----------------------------------------------------------------------
# Networks


@pytest.mark.parametrize("bias", [False, True])
def test_network_of_matrices(rng, bias):
    X, Y = rng.standard_normal((9, 4 - bias)), rng.standard_normal((9, 2))
    problem = TrainingProblem(X, Y, 0.3, bias=bias, activation=Polynomial(0.3, -0.5, 0.2))
    positive = np.stack([draw(rng, 4, 2), draw(rng, 4, 5)])
    negative = np.stack([draw(rng, 4, 1), np.zeros((5, 5))])
    network = spectrahedron_network(problem, positive, negative)
    assert network.width == 8 and np.all(np.count_nonzero(network.V, axis=1) == 1)
    np.testing.assert_allclose(np.linalg.norm(network.first_layer, axis=0), 1, rtol=1e-13)
    rows = np.column_stack([problem.features, np.ones(9)])
    forms = coefficient_matrix(problem.activation, 5) * rows[:, :, None] * rows[:, None, :]
    fitted = np.einsum("nij,kij->nk", forms, positive - negative)
    np.testing.assert_allclose(network.predict(X), fitted, atol=1e-13)
    mass = positive[:, -1, -1].sum() + negative[:, -1, -1].sum()
    value = np.sum((fitted - Y) ** 2) / 2 + 0.3 * mass
    np.testing.assert_allclose(problem.objective(network), value, rtol=1e-13)
    with jax.enable_x64(False):
        same = spectrahedron_network(problem, positive, negative)
    np.testing.assert_array_equal(same.U, network.U)


def test_the_network_is_worth_the_program(rng):
    """(21) by a conic solver: the network's objective is its value."""
    X, y = rng.standard_normal((20, 3)), rng.standard_normal(20)
    problem = TrainingProblem(X, y, 0.2, activation="polynomial")
    Z, W, value = polynomial_program(X, y[:, None], 0.2, problem.activation)
    exact = spectrahedron_network(problem, Z, W)
    np.testing.assert_allclose(problem.objective(exact), value, rtol=1e-8)
    narrow = spectrahedron_network(problem, Z, W, tolerance=1e-6)
    np.testing.assert_allclose(problem.objective(narrow), value, rtol=1e-6)
    assert narrow.width < exact.width <= 8


def test_bad_input(rng):
    X, Y = rng.standard_normal((5, 3)), rng.standard_normal((5, 2))
    problem = TrainingProblem(X, Y, activation="polynomial")
    good = np.zeros((2, 4, 4))
    with pytest.raises(ValueError, match=r"positive must have shape \(2, 4, 4\)"):
        spectrahedron_network(problem, good[:, :3, :3], good)
    with pytest.raises(ValueError, match="negative must be finite"):
        spectrahedron_network(problem, good, good + np.nan)
    with pytest.raises(ValueError, match=r"takes activation=Polynomial\(a, b, c\)"):
        spectrahedron_network(TrainingProblem(X, Y), good, good)
