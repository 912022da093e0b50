"""`certify`: networks from anywhere, their bounds and their best new neuron."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvxnn
from jaxcvxnn import TrainingProblem, TwoLayerReLU, certify
from jaxcvxnn.training.certify import as_network


def random_weights(rng, features=2, width=4, outputs=3):
    return rng.standard_normal((features, width)), rng.standard_normal((width, outputs))


@pytest.fixture
def data(rng):
    return rng.standard_normal((12, 2)), rng.standard_normal((12, 3))


def test_an_optimal_network_is_recognised(data):
    trained = jaxcvxnn.train(*data, 0.05)
    found = certify(trained.network, *data, 0.05)
    assert found.bound_source == "the network's own residual"
    assert 0 <= found.relative_gap <= 1e-6
    assert found.upper_bound == trained.upper_bound
    assert found.price_bound <= 0.05 * (1 + 1e-6)
    assert "no new neuron pays" in str(found) or found.price > 0.05


def test_a_poor_network_gets_the_bound_of_the_global_problem(rng, data):
    network = random_weights(rng)
    found = certify(network, *data, 0.05)
    optimum = jaxcvxnn.train(*data, 0.05)
    objective = float(TrainingProblem(*data, 0.05).objective(TwoLayerReLU(*network)))
    np.testing.assert_allclose(found.upper_bound, objective, rtol=1e-14)
    assert found.lower_bound <= optimum.upper_bound
    assert found.lower_bound >= optimum.lower_bound * (1 - 1e-6)
    assert "column generation" in found.bound_source


def test_the_bound_is_never_above_the_optimum(rng, data):
    optimum = jaxcvxnn.train(*data, 0.05).upper_bound
    for scale in (0.01, 1.0, 100.0):
        weights = tuple(scale * part for part in random_weights(rng))
        assert certify(weights, *data, 0.05, time_limit=1e-6).lower_bound <= optimum


def test_the_best_neuron_improves_the_network(rng, data):
    X, Y = data
    U, V = random_weights(rng)
    found = certify((U, V), X, Y, 0.05)
    residual = np.maximum(X @ U, 0) @ V - Y
    u = found.neuron
    reading = np.maximum(X @ u, 0) @ residual
    np.testing.assert_allclose(np.linalg.norm(u), 1)
    np.testing.assert_allclose(np.linalg.norm(reading), found.price, rtol=1e-12)
    sampled = rng.standard_normal((2, 5000))
    sampled /= np.linalg.norm(sampled, axis=0)
    prices = np.linalg.norm(residual.T @ np.maximum(X @ sampled, 0), axis=0)
    assert prices.max() <= found.price_bound
    # Added with a little weight it lowers the objective by its price less the weight decay.
    weight = 1e-6
    more = TwoLayerReLU(
        np.c_[U, np.sqrt(weight) * u],
        np.r_[V, -np.sqrt(weight) * reading[None] / np.linalg.norm(reading)],
    )
    gain = found.upper_bound - float(TrainingProblem(X, Y, 0.05).objective(more))
    np.testing.assert_allclose(gain, weight * (found.price - 0.05), rtol=1e-2)


def test_other_forms_of_a_network(rng, data):
    U, V = random_weights(rng)
    plain = certify((U, V), *data, time_limit=1e-6)
    lists = certify([U.tolist(), V.tolist()], *data, time_limit=1e-6)
    arrays = certify((jnp.asarray(U), jnp.asarray(V)), *data, time_limit=1e-6)
    network = certify(TwoLayerReLU(U, V), *data, time_limit=1e-6)
    for other in (lists, arrays, network):
        assert other.upper_bound == plain.upper_bound
        assert other.lower_bound == plain.lower_bound


def test_equinox_networks(rng, data):
    key = jax.random.key(0)
    mlp = eqx.nn.MLP(2, 3, 5, 1, jax.nn.relu, use_final_bias=False, key=key)
    network = as_network(mlp)
    X = np.asarray(data[0])
    np.testing.assert_allclose(network.predict(X), jax.vmap(mlp)(jnp.asarray(X)), rtol=1e-12)
    found = certify(mlp, *data, 0.05)
    assert found.lower_bound <= found.upper_bound
    assert found.neuron is not None and found.neuron.shape == (3,)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"depth": 2}, "depth 1"),
        ({"activation": jnp.tanh}, "relu"),
        ({"use_final_bias": True}, "output layer has a bias"),
    ],
)
def test_other_architectures_are_refused(data, options, message):
    settings = {"depth": 1, "activation": jax.nn.relu, "use_final_bias": False, **options}
    mlp = eqx.nn.MLP(2, 3, 5, key=jax.random.key(1), **settings)
    with pytest.raises(ValueError, match=message):
        certify(mlp, *data)


@pytest.mark.parametrize(
    "network, message",
    [
        ("a network", "got str"),
        ((np.ones((2, 3)),), "got tuple"),
        ((np.ones((3, 4)), np.ones((4, 3))), "3 features"),
        ((np.ones((2, 4)), np.ones((4, 2))), "2 outputs"),
        ((np.ones((2, 4)), np.full((4, 3), np.nan)), "V must be finite"),
        ((np.ones((2, 4)), np.ones((3, 3))), "shape"),
    ],
)
def test_weights_that_do_not_fit(data, network, message):
    with pytest.raises(ValueError, match=message):
        certify(network, *data)


def test_no_neurons_at_all(data):
    nothing = TwoLayerReLU(np.zeros((2, 0)), np.zeros((0, 3)))
    found = certify(nothing, *data, 1e3)
    assert found.upper_bound == found.lower_bound * (1 + 1e-15) or found.relative_gap <= 1e-12
    assert found.price <= 1e3


def test_a_network_with_another_loss(rng):
    X = rng.standard_normal((14, 2))
    labels = (X[:, 0] > 0.2).astype(int)
    trained = jaxcvxnn.train(X, labels, 0.2, loss="softmax")
    found = certify(trained.network, X, labels, 0.2, loss="softmax")
    assert 0 <= found.relative_gap <= 1e-6


def test_data_of_high_rank_fall_back_on_the_relaxation(rng):
    X, Y = np.vstack([np.eye(7), -np.eye(7)])[:9], np.eye(9)
    found = certify((np.eye(7), rng.standard_normal((7, 9))), X, Y, 0.5, time_limit=120)
    # The samples decouple (see tests/test_columns.py), and here the relaxation is exact.
    optimum = 9 * (0.5 - 0.5**2 / 2)
    assert found.bound_source == "the semidefinite relaxation"
    assert 0.99 * optimum <= found.lower_bound <= optimum


def test_bad_data(data):
    with pytest.raises(ValueError, match="one row per sample"):
        certify((np.ones((2, 4)), np.ones((4, 3))), data[0], data[1][:-1])
