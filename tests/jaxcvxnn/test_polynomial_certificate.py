"""Certificates of polynomial networks: never above the optimum, and at the optimum equal to it."""

import jax
import numpy as np
import pytest

from jaxcvxnn import (
    Polynomial,
    PolynomialNetwork,
    TrainingProblem,
    TwoLayerReLU,
    certify_residual,
    solve,
)
from jaxcvxnn.improve import spectrahedron_network
from jaxcvxnn.losses.named import LOSSES
from jaxcvxnn.programs import NeuralSpectrahedron, SpectrahedronSplitting
from jaxcvxnn.proof import certify_network

from ..polynomial_oracle import polynomial_program

PHI = Polynomial.relu()


def program(problem):
    """(Z, Z', value)."""
    name, weight_decay = problem.loss.name, float(problem.weight_decay)
    return polynomial_program(problem.features, problem.Y, weight_decay, problem.activation, name)


def draw(rng, loss, n=20, d=3):
    X = rng.standard_normal((n, d))
    target = X[:, 0] * X[:, 1] - X[:, 2]
    match loss:
        case "softmax":
            Y = np.digitize(target, [-0.5, 0.7])
        case "hinge" | "logistic":
            Y = np.where(target > 0, 1, -1)
        case _:
            Y = np.column_stack([target, np.abs(X[:, 0])]) + 0.1 * rng.standard_normal((n, 2))
    return X, Y


@pytest.mark.parametrize("bias", [False, True])
def test_the_optimal_network_closes_the_gap(rng, bias):
    X, Y = draw(rng, "squared")
    problem = TrainingProblem(X, Y, 0.3, bias=bias, activation="polynomial")
    positive, negative, value = program(problem)
    network = spectrahedron_network(problem, positive, negative)
    found = certify_network(problem, network)
    assert 0 <= found.relative_gap < 1e-6
    assert found.lower_bound <= value * (1 + 1e-9)
    np.testing.assert_allclose(found.upper_bound, value, rtol=1e-8)
    np.testing.assert_allclose([found.price, found.price_bound], 0.3, rtol=1e-4)
    assert np.shape(found.neuron) == (3 + bias,)


@pytest.mark.parametrize("loss", list(LOSSES))
def test_every_loss_and_any_residual(rng, loss):
    X, Y = draw(rng, loss)
    problem = TrainingProblem(X, Y, 0.2, loss=loss, activation=Polynomial.swish())
    positive, negative, value = program(problem)
    if problem.loss.smooth:
        # A network's own residual is as exact as the root of its value. Clarabel gives up at 1e-8 of
        # that where the loss has exponentials; ours goes on.
        found = solve(problem, NeuralSpectrahedron(), SpectrahedronSplitting(tolerance=1e-9))
        np.testing.assert_allclose(found.objective, value, rtol=1e-6)
        positive, negative = found.positive, found.negative
    network = spectrahedron_network(problem, positive, negative)
    optimal = certify_network(problem, network)
    assert optimal.lower_bound <= value * (1 + 1e-8)
    # At a kink the gradient taken need not be the one that proves the optimum.
    assert optimal.relative_gap < 1e-6 or not problem.loss.smooth
    for size in (0.01, 0.3, 10):
        noise = size * rng.standard_normal(problem.Y.shape)
        found = certify_residual(problem, optimal.residual + noise)
        assert 0 <= found.lower_bound <= value * (1 + 1e-8)
        assert found.proof.upper >= found.proof.lower > 0
        # A residual that proves less than the network's own changes nothing.
        given = certify_network(problem, network, residual=optimal.residual + noise)
        assert given.lower_bound == max(optimal.lower_bound, found.lower_bound)


def test_a_poor_network_is_told_what_to_add(rng):
    """The best neuron lowers the objective, at the rate that the price says."""
    X, Y = draw(rng, "squared")
    problem = TrainingProblem(X, Y, 0.3, activation="polynomial")
    empty = PolynomialNetwork(np.zeros((3, 0)), np.zeros((0, 2)), activation=PHI)
    found = certify_network(problem, empty)
    np.testing.assert_allclose(found.upper_bound, np.sum(Y**2) / 2)
    assert found.price > 0.3 and found.lower_bound < found.upper_bound
    neuron = np.asarray(found.neuron)
    slopes = PHI(X @ neuron) @ found.residual
    output, step = np.argmax(np.abs(slopes)), 1e-6
    V = np.zeros((1, 2))
    V[0, output] = -step * np.sign(slopes[output])
    better = PolynomialNetwork(neuron[:, None], V, activation=PHI)
    gain = (found.upper_bound - problem.objective(better)) / step
    np.testing.assert_allclose(gain, found.price - 0.3, rtol=1e-3)


def test_float32_networks_and_units(rng):
    X, Y = draw(rng, "squared")
    problem = TrainingProblem(X, Y, 0.3, activation="polynomial")
    first = rng.standard_normal((3, 4))
    first /= np.linalg.norm(first, axis=0)
    network = PolynomialNetwork(first, rng.standard_normal((4, 2)), activation=PHI)
    found = certify_network(problem, network)
    single = jax.tree.map(lambda leaf: leaf.astype(np.float32), network)
    np.testing.assert_allclose(
        certify_network(problem, single).lower_bound, found.lower_bound, rtol=1e-5
    )
    # Y, V and weight decay in other units.
    scaled = TrainingProblem(X, 10 * Y, 3.0, activation="polynomial")
    other = PolynomialNetwork(first, 10 * network.V, activation=PHI)
    bound = certify_network(scaled, other).lower_bound
    np.testing.assert_allclose(bound, 100 * found.lower_bound, rtol=1e-10)


def test_bad_input(rng):
    X, Y = draw(rng, "squared")
    problem = TrainingProblem(X, Y, activation="polynomial")
    first, V = np.eye(3), np.ones((3, 2))
    with pytest.raises(ValueError, match="unit vectors, bias included; their lengths are 1 to 2"):
        certify_network(problem, PolynomialNetwork(np.diag([1, 2, 1]), V, activation=PHI))
    with pytest.raises(ValueError, match="maps 3 features to 1 outputs; the data have 3 features"):
        certify_network(problem, PolynomialNetwork(first, V[:, :1], activation=PHI))
    with pytest.raises(ValueError, match="weights must be finite"):
        certify_network(problem, PolynomialNetwork(first, V + np.inf, activation=PHI))
    with pytest.raises(ValueError, match="network's activation"):
        other = PolynomialNetwork(first, V, activation=Polynomial.swish())
        certify_network(problem, other)
    with pytest.raises(ValueError, match="residual must have the shape of Y"):
        certify_residual(problem, np.ones((20, 1)))
    with pytest.raises(ValueError, match="network's activation"):
        certify_network(problem, TwoLayerReLU(first, V))
    with pytest.raises(ValueError, match="The network has biases, the problem no biases"):
        certify_network(problem, PolynomialNetwork(first, V, np.ones(3), activation=PHI))
