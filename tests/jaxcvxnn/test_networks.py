"""Networks as pytrees, and the two operations that keep their function: balance and prune."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvxnn import TrainingProblem, TwoLayerReLU
from jaxcvxnn.improve import balance, prune
from jaxcvxnn.networks import from_first_layer


@pytest.fixture(params=[False, True], ids=["no bias", "bias"])
def network(request, rng):
    b = rng.standard_normal(6) if request.param else None
    return TwoLayerReLU(rng.standard_normal((3, 6)), rng.standard_normal((6, 2)), b)


def in_numpy(network, X):
    hidden = X @ np.asarray(network.U) + (0 if network.b is None else np.asarray(network.b))
    return np.maximum(hidden, 0) @ np.asarray(network.V)


def test_call_predict_and_numpy_agree(network, rng):
    X = rng.standard_normal((9, 3))
    expected = in_numpy(network, X)
    np.testing.assert_allclose(network.predict(X), expected, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(network(X[4]), expected[4], rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(jax.vmap(network)(X), expected, rtol=1e-13, atol=1e-14)


def test_relu_is_zero_at_and_below_zero():
    network = TwoLayerReLU([[1.0]], [[1.0]])
    np.testing.assert_array_equal(
        network.predict(np.array([[-2.0], [0.0], [3.0]])), [[0], [0], [3]]
    )


def test_sizes_and_norm(network):
    assert (network.in_features, network.width, network.out_features) == (3, 6, 2)
    squares = sum(float(np.sum(np.asarray(leaf) ** 2)) for leaf in jax.tree.leaves(network))
    np.testing.assert_allclose(network.squared_norm, squares, rtol=1e-14)
    rows = 3 if network.b is None else 4
    assert network.first_layer.shape == (rows, 6)
    again = from_first_layer(network.first_layer, network.V, bias=network.b is not None)
    for ours, theirs in zip(jax.tree.leaves(again), jax.tree.leaves(network), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("b", [None, np.zeros(0)], ids=["no bias", "bias"])
def test_zero_neurons(b):
    network = TwoLayerReLU(np.zeros((3, 0)), np.zeros((0, 2)), b)
    assert network.width == 0 and float(network.squared_norm) == 0
    np.testing.assert_array_equal(network.predict(np.ones((4, 3))), np.zeros((4, 2)))
    np.testing.assert_array_equal(network(np.ones(3)), np.zeros(2))
    assert balance(network).width == prune(network).width == 0


@pytest.mark.parametrize(
    ("U", "V", "b", "message"),
    [
        (np.ones((3, 2)), np.ones((4, 1)), None, r"U \(3, 2\), V \(4, 1\), b None"),
        (np.ones(3), np.ones((3, 1)), None, r"U \(3,\), V \(3, 1\)"),
        (np.ones((3, 2)), np.ones(2), None, r"U \(3, 2\), V \(2,\)"),
        (np.ones((3, 2)), np.ones((2, 1)), np.ones(3), r"b \(3,\)"),
        (np.ones((3, 2)), np.ones((2, 1)), np.ones((2, 1)), r"b \(2, 1\)"),
        (np.ones((3, 2)), np.ones((2, 1)), 0.0, r"b \(\)"),
    ],
)
def test_wrong_shapes_are_named(U, V, b, message):
    with pytest.raises(ValueError, match=message):
        TwoLayerReLU(U, V, b)


def test_integer_weights_become_floats():
    network = TwoLayerReLU([[1, -1]], [[2], [3]])
    assert network.U.dtype == network.V.dtype == np.float64
    assert TwoLayerReLU(np.ones((1, 1), np.float32), [[1.0]]).U.dtype == np.float32


def test_it_is_a_pytree_with_a_gradient(network, rng):
    problem = TrainingProblem(rng.standard_normal((5, 3)), rng.standard_normal((5, 2)), 0.2)
    slope = jax.grad(problem.objective)(network)
    assert jax.tree.structure(slope) == jax.tree.structure(network)
    direction = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape), network)
    step = 1e-6
    ahead, behind = (
        jax.tree.map(lambda w, d, sign=sign: w + sign * step * d, network, direction)
        for sign in (1, -1)
    )
    central = (problem.objective(ahead) - problem.objective(behind)) / (2 * step)
    dots = jax.tree.map(lambda s, d: jnp.sum(s * d), slope, direction)
    np.testing.assert_allclose(sum(jax.tree.leaves(dots)), central, rtol=1e-7)


def test_the_dtype_decides_the_precision(network):
    small = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), network)
    assert small.predict(jnp.ones((2, 3), jnp.float32)).dtype == jnp.float32


def test_balance_keeps_the_function_and_lowers_the_norm(network, rng):
    X = rng.standard_normal((9, 3))
    level = balance(network)
    np.testing.assert_allclose(level.predict(X), network.predict(X), rtol=1e-12, atol=1e-13)
    assert float(level.squared_norm) < float(network.squared_norm)
    first = np.linalg.norm(level.first_layer, axis=0)
    np.testing.assert_allclose(first, np.linalg.norm(level.V, axis=1), rtol=1e-13)
    product = np.linalg.norm(network.first_layer, axis=0) * np.linalg.norm(network.V, axis=1)
    np.testing.assert_allclose(level.squared_norm, 2 * product.sum(), rtol=1e-13)


def test_balance_clears_neurons_that_compute_nothing():
    network = TwoLayerReLU(
        np.array([[1.0, 0, 4]]), np.array([[0.0], [2], [1]]), np.array([1.0, 0, 0])
    )
    level = balance(network)
    np.testing.assert_array_equal(level.first_layer[:, :2], np.zeros((2, 2)))
    np.testing.assert_array_equal(level.V[:2], np.zeros((2, 1)))
    np.testing.assert_allclose([level.U[0, 2], level.V[2, 0]], [2, 2], rtol=1e-15)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(level))


def test_prune_drops_the_weak_and_keeps_the_order():
    U, V = np.array([[1.0, 3, 0, 2]]), np.array([[1.0], [1], [5], [1e-3]])
    network = TwoLayerReLU(U, V, np.array([0.0, 0, 0, 1]))
    assert prune(network).width == 3  # the third never fires
    kept = prune(network, threshold=0.01)
    np.testing.assert_array_equal(kept.U, [[1, 3]])
    np.testing.assert_array_equal(kept.V, [[1], [1]])
    np.testing.assert_array_equal(kept.b, [0, 0])
    x = np.array([[0.7], [-2.0]])
    np.testing.assert_allclose(prune(network).predict(x), network.predict(x), rtol=1e-15)


def test_prune_leaves_nothing_of_zeros():
    assert prune(TwoLayerReLU(np.zeros((2, 3)), np.ones((3, 1)))).width == 0
