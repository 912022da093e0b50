"""Every reduction is exact: moments, residuals and multipliers go back and forth without loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvxnn import TrainingProblem, TwoLayerReLU
from jaxcvxnn.improve import selection_matrices
from jaxcvxnn.networks import from_first_layer
from jaxcvxnn.reduction import lifted_data, reduce

from .. import oracles


def generic(rng):
    return rng.standard_normal((6, 3)), rng.standard_normal((6, 2))


def zero_rows(rng):
    X, Y = generic(rng)
    X[[0, 4]] = 0
    return X, Y


def duplicates(rng):
    X, Y = generic(rng)
    return X[[0, 1, 2, 0, 0, 5]], Y


def antiparallel(rng):
    X, Y = generic(rng)
    X[3], X[4] = -X[0], -X[1]
    return X, Y


def lengths(rng):
    X, Y = generic(rng)
    X[3], X[4], X[5] = 2.5 * X[0], 0.1 * X[0], -3 * X[0]
    return X, Y


def first_of_class_is_negative(rng):
    X, Y = generic(rng)
    X[1], X[2] = -X[0], -2 * X[0]
    return X, Y


def thin_features(rng):
    X, Y = generic(rng)
    return X[:, :2] @ rng.standard_normal((2, 4)), Y


def thin_targets(rng):
    X, Y = generic(rng)
    return X, Y[:, :1] @ rng.standard_normal((1, 3))


def everything(rng):
    X = rng.standard_normal((9, 2)) @ rng.standard_normal((2, 4))
    X[1], X[2], X[3], X[4], X[6] = X[0], -X[0], 3 * X[0], 0, -0.2 * X[5]
    return X, rng.standard_normal((9, 2)) @ rng.standard_normal((2, 4))


def few_samples(rng):
    return rng.standard_normal((2, 5)), rng.standard_normal((2, 4))


def one_sample(rng):
    return rng.standard_normal((1, 3)), rng.standard_normal((1, 2))


def one_feature(rng):
    return rng.standard_normal((5, 1)), rng.standard_normal((5, 1))


def no_features(rng):
    return np.zeros((4, 3)), rng.standard_normal((4, 2))


def no_targets(rng):
    return rng.standard_normal((4, 3)), np.zeros((4, 2))


DATA = [
    generic,
    zero_rows,
    duplicates,
    antiparallel,
    lengths,
    first_of_class_is_negative,
    thin_features,
    thin_targets,
    everything,
    few_samples,
    one_sample,
    one_feature,
    no_features,
    no_targets,
]


@pytest.fixture(params=DATA, ids=lambda make: make.__name__)
def problem(request, rng):
    X, Y = request.param(rng)
    return TrainingProblem(X, Y, 0.3)


def objective(problem, network):
    """The objective in NumPy: eager JAX would compile for each of the shapes."""
    U, V = np.asarray(network.first_layer), np.asarray(network.V)
    return oracles.network_objective(np.asarray(problem.features), problem.Y, U, V, 0.3)


def a_network(problem, rng, *, width=7):
    """A random network with u in the row space of the features and v in that of the targets."""
    reduction = reduce(problem)
    u = reduction.directions.basis @ rng.standard_normal(
        (reduction.directions.basis.shape[1], width)
    )
    v = rng.standard_normal((width, reduction.output_basis.shape[1])) @ reduction.output_basis.T
    return from_first_layer(u, v, bias=problem.bias)  # NumPy's arrays all along


def reduced_neurons(reduction, network):
    """The columns (z, v), z = (alpha, u), of each neuron in reduced coordinates."""
    u = reduction.directions.basis.T @ np.asarray(network.first_layer)
    v = reduction.output_basis.T @ np.asarray(network.V).T
    return np.vstack([np.maximum(reduction.data.directions @ u, 0), u, v])


def reduced_moments(reduction, network):
    neurons = reduced_neurons(reduction, network)
    return neurons @ neurons.T


def reduced_objective(data, moments):
    size = data.rows.shape[1]
    residual = data.readout @ moments[:size, size:] - data.targets
    penalty = np.trace(moments[data.pairs :, data.pairs :])
    return data.constant + np.sum(residual**2) / 2 + data.weight_decay / 2 * penalty


def full_neurons(problem, network):
    """The columns (alpha, omega, u, v) of each neuron, on the samples themselves."""
    u = np.asarray(network.first_layer)
    hidden = np.asarray(problem.features) @ u
    return np.vstack([np.maximum(hidden, 0), np.maximum(-hidden, 0), u, np.asarray(network.V).T])


def test_objective_of_any_network(problem, rng):
    reduction = reduce(problem)
    for width in (1, 3, 9):
        network = a_network(problem, rng, width=width)
        ours = reduced_objective(reduction.data, reduced_moments(reduction, network))
        np.testing.assert_allclose(ours, objective(problem, network), rtol=1e-12)


def test_nothing_else_pays(problem, rng):
    # Weights outside the two row spaces change no prediction that matters and cost more.
    network = TwoLayerReLU(
        rng.standard_normal((problem.X.shape[1], 5)), rng.standard_normal((5, problem.Y.shape[1]))
    )
    reduction = reduce(problem)
    ours = reduced_objective(reduction.data, reduced_moments(reduction, network))
    assert ours <= objective(problem, network) * (1 + 1e-12)


def test_sizes_are_the_smallest(rng):
    reduction = reduce(TrainingProblem(*everything(rng), 0.3))
    data = reduction.data
    # Rows 0 to 3 are one class, 5 and 6 another, 4 is zero, 7 and 8 stand alone.
    assert (data.pairs, data.rank, data.targets.shape[1]) == (4, 2, 2)
    # Each class with both signs is read from alpha and from omega.
    assert data.targets.shape[0] == 6
    np.testing.assert_array_equal(reduction.directions.classes, [0, 0, 0, 0, -1, 1, 1, 2, 3])
    np.testing.assert_array_equal(
        reduction.directions.signs[[0, 1, 2, 3, 5, 6]], [1, 1, -1, 1, 1, -1]
    )
    np.testing.assert_allclose(np.linalg.norm(data.directions, axis=1), 1, rtol=1e-14)


def test_samples_are_rebuilt(problem):
    reduction = reduce(problem)
    alive = reduction.directions.classes >= 0
    scale = (reduction.directions.lengths * reduction.directions.signs)[alive, None]
    rebuilt = (
        scale
        * reduction.directions.units[reduction.directions.classes[alive]]
        @ reduction.directions.basis.T
    )
    np.testing.assert_allclose(rebuilt, problem.X[alive], rtol=0, atol=1e-13)
    np.testing.assert_array_equal(problem.X[~alive], 0)
    outputs = problem.Y @ reduction.output_basis
    np.testing.assert_allclose(outputs @ reduction.output_basis.T, problem.Y, rtol=0, atol=1e-13)
    for basis in (reduction.directions.basis, reduction.output_basis):
        np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-14)


def test_full_rank_keeps_its_coordinates(rng):
    reduction = reduce(TrainingProblem(*generic(rng), 0.3))
    np.testing.assert_array_equal(reduction.directions.basis, np.eye(3))
    np.testing.assert_array_equal(reduction.output_basis, np.eye(2))


def test_expanded_moments_are_those_of_the_neurons(problem, rng):
    reduction = reduce(problem)
    network = a_network(problem, rng)
    Lambda = reduction.expand_moments(reduced_moments(reduction, network))
    neurons = full_neurons(problem, network)
    np.testing.assert_allclose(Lambda, neurons @ neurons.T, rtol=0, atol=1e-11)
    value = oracles.paper_objective(problem.X, problem.Y, 0.3, Lambda)
    np.testing.assert_allclose(value, objective(problem, network), rtol=1e-12)


def test_expanded_moments_satisfy_the_printed_constraints(problem, rng):
    reduction = reduce(problem)
    Lambda = reduction.expand_moments(reduced_moments(reduction, a_network(problem, rng)))
    P = jax.tree.map(np.asarray, selection_matrices(problem.X, problem.Y.shape[1]))
    size = float(np.trace(Lambda))
    equality = np.trace(P.alpha @ Lambda @ P.omega.T) + np.trace(P.M @ Lambda @ P.M.T)
    assert abs(float(equality)) <= 1e-13 * size
    assert float(np.min(P.alpha_omega @ Lambda @ P.alpha_omega.T)) >= -1e-14 * size
    assert float(np.linalg.eigvalsh(Lambda)[0]) >= -1e-13 * size
    assert oracles.paper_violations(problem.X, Lambda).largest <= 1e-13 * size


def test_any_moments_stay_on_the_face(problem, rng):
    # M Lambda M' = 0 holds by construction, for points of no network too.
    reduction = reduce(problem)
    side = reduction.data.rows.shape[1] + reduction.data.targets.shape[1]
    root = rng.standard_normal((side, side))
    Lambda = reduction.expand_moments(root @ root.T)
    M = np.asarray(selection_matrices(problem.X, problem.Y.shape[1]).M)
    np.testing.assert_allclose(M @ Lambda @ M.T, 0, atol=1e-11)


def test_residuals_go_back_and_forth(problem, rng):
    reduction = reduce(problem)
    data = reduction.data
    network = a_network(problem, rng)
    moments = reduced_moments(reduction, network)
    size = data.rows.shape[1]
    residual = data.readout @ moments[:size, size:] - data.targets
    expanded = reduction.expand_residual(residual)
    predicted = np.maximum(problem.X @ np.asarray(network.first_layer), 0) @ np.asarray(network.V)
    expected = predicted - problem.Y
    np.testing.assert_allclose(expanded, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(reduction.reduce_residual(expanded), residual, rtol=0, atol=1e-12)
    noise = rng.standard_normal(data.targets.shape)
    again = reduction.reduce_residual(reduction.expand_residual(noise))
    np.testing.assert_allclose(again, noise, rtol=0, atol=1e-12)


def test_residuals_are_worth_the_same_in_both_coordinates(problem, rng):
    reduction = reduce(problem)
    data = reduction.data
    r = rng.standard_normal(data.targets.shape)
    R = reduction.expand_residual(r)
    reduced = data.constant - np.sum(r * data.targets) - np.sum(r**2) / 2
    np.testing.assert_allclose(reduced, -np.sum(R * problem.Y) - np.sum(R**2) / 2, rtol=1e-12)


def test_residuals_read_neurons_alike(problem, rng):
    # <R, alpha v'> is what the dual constraint sees: the same for R and its reduced form.
    reduction = reduce(problem)
    R = rng.standard_normal(problem.Y.shape)
    z = reduced_neurons(reduction, a_network(problem, rng))[: reduction.data.rows.shape[1]]
    u = reduction.directions.basis @ z[reduction.data.pairs :]
    full = reduction.output_basis.T @ R.T @ np.maximum(problem.X @ u, 0)
    ours = reduction.reduce_residual(R).T @ reduction.data.readout @ z
    np.testing.assert_allclose(ours, full, rtol=0, atol=1e-11)


def test_multipliers_see_the_same_moments(problem, rng):
    reduction = reduce(problem)
    count = len(problem.X)
    N = rng.standard_normal((2 * count, 2 * count))
    N = N + N.T
    network = a_network(problem, rng)
    neurons = full_neurons(problem, network)[: 2 * count]
    products = (
        reduction.data.rows @ reduced_neurons(reduction, network)[: reduction.data.rows.shape[1]]
    )
    reduced = reduction.reduce_multipliers(N)
    ours, full = np.sum(reduced * (products @ products.T)), np.sum(N * (neurons @ neurons.T))
    np.testing.assert_allclose(ours, full, rtol=0, atol=1e-11 * np.sum(np.abs(N)))


def test_the_rows_say_what_they_should(problem):
    data = reduce(problem).data
    k = data.pairs
    eye = np.eye(k)
    np.testing.assert_array_equal(data.rows[:k], np.hstack([eye, np.zeros((k, data.rank))]))
    np.testing.assert_array_equal(data.rows[k:], np.hstack([eye, -data.directions]))
    pairs = np.zeros((2 * k, 2 * k), bool)
    pairs[np.arange(k), k + np.arange(k)] = pairs[k + np.arange(k), np.arange(k)] = True
    np.testing.assert_array_equal(data.nonnegative, ~pairs)


def test_bias_is_one_more_feature(rng):
    X, Y = generic(rng)
    problem = TrainingProblem(X, Y, 0.3, bias=True)
    reduction = reduce(problem)
    network = a_network(problem, rng)
    ours = reduced_objective(reduction.data, reduced_moments(reduction, network))
    np.testing.assert_allclose(ours, objective(problem, network), rtol=1e-12)
    same = reduce(TrainingProblem(problem.features, Y, 0.3))
    np.testing.assert_array_equal(same.data.rows, reduction.data.rows)


def test_lifted_data_has_the_same_objective(problem, rng):
    network = a_network(problem, rng)
    data = jax.tree.map(np.asarray, jax.jit(lifted_data)(problem))
    u, v = np.asarray(network.U), np.asarray(network.V).T
    neurons = np.vstack([np.maximum(data.directions @ u, 0), u, v])
    ours = reduced_objective(data, neurons @ neurons.T)
    np.testing.assert_allclose(ours, objective(problem, network), rtol=1e-12)


def test_parallel_means_parallel_up_to_roundings(rng):
    X, Y = generic(rng)
    X[1] = X[0] * (1 + 1e-15)
    X[2] = 7 * X[0] + 1e-13
    assert reduce(TrainingProblem(X, Y, 0.3)).data.pairs == 4
    X[2] = 7 * X[0] + 1e-5
    assert reduce(TrainingProblem(X, Y, 0.3)).data.pairs == 5


@pytest.mark.parametrize("scale", [1e-100, 1e-6, 1e6, 1e100])
def test_scales_do_not_matter(rng, scale):
    X, Y = everything(rng)
    plain = reduce(TrainingProblem(X, Y, 0.3))
    scaled = reduce(TrainingProblem(scale * X, Y, 0.3))
    np.testing.assert_array_equal(scaled.directions.classes, plain.directions.classes)
    np.testing.assert_allclose(
        scaled.directions.lengths, scale * plain.directions.lengths, rtol=1e-12
    )
    np.testing.assert_allclose(scaled.data.targets, plain.data.targets, rtol=1e-10, atol=1e-13)


def test_float32_and_jax_arrays_are_read_in_float64(rng):
    X, Y = (a.astype(np.float32) for a in generic(rng))
    ours = reduce(TrainingProblem(jnp.asarray(X), jnp.asarray(Y), 0.25))
    wide = reduce(TrainingProblem(X.astype(np.float64), Y.astype(np.float64), 0.25))
    assert all(a.dtype == np.float64 for a in jax.tree.leaves(ours.data))
    for left, right in zip(jax.tree.leaves(ours.data), jax.tree.leaves(wide.data), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap], ids=["jit", "vmap"])
def test_it_needs_concrete_data(transform, rng):
    def pairs(X, Y):
        return reduce(TrainingProblem(X, Y, 0.3)).data.pairs

    X, Y = generic(rng)
    X, Y = (X[None], Y[None]) if transform is jax.vmap else (X, Y)
    with pytest.raises(ValueError, match="`reduce` needs concrete data: use `lifted_data`"):
        transform(pairs)(X, Y)
