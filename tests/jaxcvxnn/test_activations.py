"""Activations, and what a problem and its network must agree on."""

import jax
import numpy as np
import pytest

from jaxcvxnn import (
    LeakyReLU,
    Polynomial,
    PolynomialNetwork,
    TrainingProblem,
    TwoLayerLeakyReLU,
    TwoLayerReLU,
)
from jaxcvxnn.activations import RELU, activation_named
from jaxcvxnn.improve import train_sgd
from jaxcvxnn.networks import two_layer
from jaxcvxnn.reduction import reduce
from jaxcvxnn.training import generate_columns


@pytest.mark.parametrize(
    ("name", "at_minus_two", "at_three"),
    [("relu", 0, 3), ("leaky_relu", -0.02, 3), ("absolute", 2, 3), ("polynomial", -0.17, 2.78)],
)
def test_values(name, at_minus_two, at_three):
    points = np.array([-2.0, 3.0])
    for values in (points, jax.numpy.asarray(points)):
        np.testing.assert_allclose(activation_named(name)(values), [at_minus_two, at_three])


def test_the_fits_are_near_relu_and_swish():
    points = np.linspace(-4, 4, 100)
    swish = points / (1 + np.exp(-points))
    assert np.abs(Polynomial.relu()(points) - np.maximum(points, 0)).max() < 0.5
    assert np.abs(Polynomial.swish()(points) - swish).max() < 0.25


def test_a_pattern_gives_the_activation(rng):
    points = rng.normal(size=20)
    for activation in (RELU, LeakyReLU(0.3), LeakyReLU(-1)):
        np.testing.assert_allclose(
            activation.slopes(points >= 0) * points, activation(points), atol=1e-15
        )


@pytest.mark.parametrize("activation", ["relu", "absolute", LeakyReLU(0.2), "polynomial"])
def test_network_and_objective(rng, activation):
    X, Y = rng.normal(size=(7, 3)), rng.normal(size=(7, 2))
    U, V, b = rng.normal(size=(3, 4)), rng.normal(size=(4, 2)), rng.normal(size=4)
    problem = TrainingProblem(X, Y, 0.3, bias=True, activation=activation)
    phi = problem.activation
    network = two_layer(U, V, b, activation=phi)
    predicted = sum(phi(X @ U[:, j] + b[j])[:, None] * V[j] for j in range(4))
    np.testing.assert_allclose(network.predict(X), predicted, rtol=1e-12)
    traced = jax.jit(lambda network, X: network.predict(X))(network, X)
    np.testing.assert_allclose(traced, predicted, rtol=1e-12)
    np.testing.assert_allclose(network(X[2]), predicted[2], rtol=1e-12)
    penalty = (U**2).sum() + (b**2).sum() + (V**2).sum()
    penalty = np.abs(V).sum() if isinstance(phi, Polynomial) else penalty / 2
    expected = ((predicted - Y) ** 2).sum() / 2 + 0.3 * penalty
    np.testing.assert_allclose(problem.objective(network), expected, rtol=1e-12)


def test_absolute_value_trains_by_descent(rng):
    X = rng.normal(size=(12, 2))
    problem = TrainingProblem(X, np.abs(X[:, 0]), 1e-3, activation="absolute")
    network, losses, _ = train_sgd(problem, width=4, steps=300)
    assert isinstance(network, TwoLayerLeakyReLU)
    # One neuron, |x_1| itself, has the objective 1e-3.
    assert 9e-4 < float(problem.objective(network)) <= losses.min() < 0.1 * losses[0]


def test_bad_settings():
    with pytest.raises(ValueError, match="below 1"):
        LeakyReLU(1.0)
    with pytest.raises(ValueError, match="finite"):
        LeakyReLU(float("nan"))
    with pytest.raises(ValueError, match="affine"):
        Polynomial(0, 1, 1)
    with pytest.raises(ValueError, match="finite"):
        Polynomial(1, float("inf"), 1)
    with pytest.raises(ValueError, match="relu, absolute, leaky_relu, polynomial"):
        TrainingProblem(np.ones((2, 2)), np.ones(2), activation="tanh")
    with pytest.raises(ValueError, match="AbstractActivation"):
        TrainingProblem(np.ones((2, 2)), np.ones(2), activation=jax.nn.relu)
    with pytest.raises(ValueError, match="PolynomialNetwork takes U"):
        PolynomialNetwork(np.ones((2, 3)), np.ones((2, 1)), activation=Polynomial())


def test_what_needs_relu_says_so():
    problem = TrainingProblem(np.eye(2), np.ones(2), activation="absolute")
    with pytest.raises(ValueError, match="ReLU only"):
        reduce(problem)
    with pytest.raises(ValueError, match="takes ReLU, leaky ReLU"):
        generate_columns(TrainingProblem(np.eye(2), np.ones(2), activation="polynomial"))
    with pytest.raises(ValueError, match="network's activation"):
        problem.objective(TwoLayerReLU(np.ones((2, 1)), np.ones((1, 1))))
