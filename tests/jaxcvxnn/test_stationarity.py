"""Stationary points: recognised where they are, and optimal for the programs of their patterns."""

import cvxpy as cp
import numpy as np
import pytest

from jaxcvxnn import LeakyReLU, TrainingProblem, TwoLayerReLU
from jaxcvxnn.files import demo_data
from jaxcvxnn.improve import train_sgd
from jaxcvxnn.networks import two_layer
from jaxcvxnn.studies import pattern_prices, settle, stationarity

from ..helpers import PAPER_DATA

TRIALS = PAPER_DATA / "random_trials_00_49.npz"


def trained(problem, seed=0):
    """A network at the end of gradient descent, put on the kinks that it is near."""
    return settle(problem, train_sgd(problem, width=10, steps=5000, seed=seed)[0])


def program_value(problem, patterns, directions, held=None):
    """The subsampled program: one block w_j for each pattern D_j and output direction.

    Ergen and Pilanci (2023), eq. (7), where the directions are signs; with x_i'w_j = 0 where `held`,
    eq. (46).
    """
    features, Y = np.asarray(problem.features), np.asarray(problem.Y)
    weights, outputs, constraints = cp.Variable((len(patterns), features.shape[1])), 0, []
    for j, (pattern, direction) in enumerate(zip(patterns, directions, strict=True)):
        slopes = problem.activation.slopes(pattern)
        outputs += (
            cp.reshape((slopes[:, None] * features) @ weights[j], (-1, 1), "C") @ direction[None]
        )
        constraints.append((np.where(pattern, 1, -1)[:, None] * features) @ weights[j] >= 0)
        if held is not None and np.any(held[j]):
            constraints.append(features[held[j]] @ weights[j] == 0)
    penalty = float(problem.weight_decay) * cp.sum(cp.norm(weights, axis=1))
    program = cp.Problem(cp.Minimize(cp.sum_squares(outputs - Y) / 2 + penalty), constraints)
    return program.solve("CLARABEL", tol_gap_abs=1e-9, tol_gap_rel=1e-9, tol_feas=1e-9)


def random_trial(seed, outputs, **settings):
    X, Y = demo_data.random_trial(seed)
    return TrainingProblem(X, Y[:, :outputs], 0.1, **settings)


def assert_recognised(problem, network):
    found = stationarity(problem, network)
    assert found.stationary and found.optimal, found.violation
    objective = float(problem.objective(network))
    value = program_value(problem, found.patterns, found.directions)
    assert objective == pytest.approx(value, rel=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found.directions, axis=1), 1, rtol=1e-12)
    return found, value


@pytest.mark.parametrize(("seed", "slope"), [(0, 0.0), (1, 0.0), (0, -1.0)])
def test_trained_networks_with_one_output(seed, slope):
    problem = random_trial(seed, 1, activation=LeakyReLU(slope))
    network = trained(problem)
    found, value = assert_recognised(problem, network)
    # All blocks with these patterns, both signs: eq. (7) itself, where no other neuron pays.
    price = np.max(pattern_prices(problem, found.residual, found.patterns).upper)
    both = program_value(
        problem,
        np.concatenate([found.patterns, found.patterns]),
        np.concatenate([found.directions, -found.directions]),
    )
    pays = price > 0.1 * (1 + 1e-4)
    assert both <= value * (1 + 1e-7)
    assert pays or both == pytest.approx(value, rel=1e-6)
    moved = two_layer(network.U * 1.01, network.V, activation=problem.activation)
    moved = stationarity(problem, moved)
    assert not moved.stationary
    np.testing.assert_allclose(moved.balance, 0.01 / 1.01, atol=1e-5)
    shifted = network.U + 0.01 * np.random.default_rng(0).standard_normal(network.U.shape)
    shifted = stationarity(problem, two_layer(shifted, network.V, activation=problem.activation))
    assert not shifted.stationary
    assert not shifted.optimal


def test_trained_networks_with_several_outputs():
    problem = random_trial(0, 5)
    found, _ = assert_recognised(problem, trained(problem))
    # Not of all directions, eq. (29): other neurons with the same patterns pay.
    assert np.max(pattern_prices(problem, found.residual, found.patterns).lower) > 0.1 * 1.01


@pytest.mark.skipif(not TRIALS.exists(), reason="needs the papers' data")
@pytest.mark.parametrize("trial", [0, 1])
def test_random_trials_of_the_paper(trial):
    with np.load(TRIALS) as data:
        problem = TrainingProblem(data["X"][trial], data["Y"][trial], 0.1)
    assert_recognised(problem, trained(problem, seed=1))


def test_a_concave_kink_is_stationary_but_not_optimal():
    # x_1 is on the kink of u = e_1, and leaving it to either side lowers the loss: slope 1/2 makes
    # the gradient zero, so the point is Clarke stationary, and no local minimum.
    X, gradient = np.array([[0.0, 1], [1, 0], [1, 1]]), np.array([-1.0, -0.6, 0.5])
    problem = TrainingProblem(X, np.array([0.0, 1, 1]) - gradient, 0.1)
    network = TwoLayerReLU(np.array([[1.0], [0]]), np.ones((1, 1)))
    found = stationarity(problem, network)
    np.testing.assert_array_equal(found.kinks, [[True, False, False]])
    np.testing.assert_allclose(found.slopes, [[0.5, 1, 1]], atol=1e-12)
    assert found.stationary
    assert not found.optimal
    np.testing.assert_allclose(found.program, 0.5 / 0.1, rtol=1e-12)
    objective = float(problem.objective(network))
    assert program_value(problem, found.patterns, found.directions) < objective * 0.95
    # Eq. (46), with the sample held on the kink, does have it as its optimum.
    held = program_value(problem, found.patterns, found.directions, found.kinks)
    assert held == pytest.approx(objective, rel=1e-7)
    held = program_value(
        problem, np.tile(found.patterns, (2, 1)), np.array([[1.0], [-1]]), found.kinks[[0, 0]]
    )
    assert held == pytest.approx(objective, rel=1e-7)


def test_a_convex_kink_is_optimal_for_its_sign_only():
    # The neuron keeps off x_1, whose output is too large: a negative one on its side would pay.
    X, gradient = np.array([[0.0, 1], [1, 0], [1, -1]]), np.array([1.0, -0.6, 0.5])
    problem = TrainingProblem(X, np.array([0.0, 1, 1]) - gradient, 0.1)
    network = TwoLayerReLU(np.array([[1.0], [0]]), np.ones((1, 1)))
    found, value = assert_recognised(problem, network)
    np.testing.assert_allclose(found.slopes, [[0.5, 1, 1]], atol=1e-12)
    prices = pattern_prices(problem, found.residual, found.patterns)
    assert prices.lower[0] > 0.1 * 1.1
    both = program_value(problem, np.tile(found.patterns, (2, 1)), np.array([[1.0], [-1]]))
    assert both < value * 0.99


def test_several_outputs_may_hide_a_better_neuron():
    # R'X = diag(wd, 10 wd): u = e_1 is a singular vector, hence stationary, and not the largest.
    X, weight_decay = np.array([[1.0, 0.1], [1, -0.1]]), 0.1
    gradient = np.linalg.inv(X.T) @ np.diag([weight_decay, 10 * weight_decay])
    U, V = np.array([[1.0], [0]]), np.array([[-1.0, 0]])
    problem = TrainingProblem(X, np.maximum(X @ U, 0) @ V - gradient, weight_decay)
    found, _ = assert_recognised(problem, TwoLayerReLU(U, V))
    assert not np.any(found.kinks)
    # Within the cone the best is on its edge, u ~ (0.1, 1).
    expected = np.hypot(0.1, 10) / np.hypot(0.1, 1) * weight_decay
    prices = pattern_prices(problem, found.residual, found.patterns)
    np.testing.assert_allclose(prices.lower, expected, rtol=1e-9)


@pytest.mark.parametrize("slope", [0.0, -1.0, 0.3])
def test_inner_is_the_distance_to_the_segment_between_both_gradients(slope, rng):
    # Rank 2, with parallel and antiparallel samples on the kink: the subdifferential in u is the
    # segment between the gradients on either side.
    normal = rng.normal(size=2)
    on_kink = np.outer([1, 2, -1, -0.5], [-normal[1], normal[0]])
    X = np.concatenate([on_kink, rng.normal(size=(6, 2)), np.zeros((1, 2))])
    U, V = normal[:, None], rng.normal(size=(1, 3))
    V *= np.linalg.norm(U) / np.linalg.norm(V)
    activation = LeakyReLU(slope)
    problem = TrainingProblem(X, rng.normal(size=(11, 3)), 0.2, activation=activation)
    network = two_layer(U, V, activation=activation)

    def objective(u, v):
        loss = np.sum((activation(X @ u)[:, None] * v - np.asarray(problem.Y)) ** 2) / 2
        return loss + 0.1 * (u @ u + v @ v)

    def gradient(function, point):
        steps = 1e-6 * np.eye(len(point))
        return np.array([function(point + e) - function(point - e) for e in steps]) / 2e-6

    def hidden(side):
        return gradient(lambda u: objective(u, V[0]), U[:, 0] + side * 1e-5 * on_kink[0])

    one, other = hidden(1), hidden(-1)
    step = other - one
    part = np.clip(-(one @ step) / (step @ step), 0, 1)
    expected = np.linalg.norm(one + part * step) / (0.2 * np.linalg.norm(U))
    found = stationarity(problem, network)
    assert np.sum(found.kinks) == 4
    np.testing.assert_allclose(found.inner, expected, rtol=1e-3)
    outer = gradient(lambda v: objective(U[:, 0], v), V[0]) / (0.2 * np.linalg.norm(V))
    np.testing.assert_allclose(found.outer, np.linalg.norm(outer), rtol=1e-6)


def test_invariances(rng):
    X, Y = rng.normal(size=(9, 2)), rng.normal(size=(9, 2))
    U, V, b = rng.normal(size=(2, 4)), rng.normal(size=(4, 2)), rng.normal(size=4)
    problem = TrainingProblem(X, Y, 0.3, bias=True, loss="huber")
    found = stationarity(problem, TwoLayerReLU(U, V, b))
    ones = TrainingProblem(np.column_stack([X, np.ones(9)]), Y, 0.3, loss="huber")
    same = stationarity(ones, TwoLayerReLU(np.vstack([U, b]), V))
    np.testing.assert_allclose(same.inner, found.inner, rtol=1e-12)
    np.testing.assert_array_equal(same.patterns, found.patterns)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turned = TrainingProblem(np.asarray(ones.X) @ turn, Y, 0.3, loss="huber")
    order = [2, 0, 3, 1]
    other = stationarity(turned, TwoLayerReLU((turn.T @ np.vstack([U, b]))[:, order], V[order]))
    for name in ("balance", "outer", "inner", "program"):
        np.testing.assert_allclose(
            getattr(other, name), getattr(found, name)[order], rtol=1e-9, err_msg=name
        )


def test_zero_networks_are_stationary():
    problem = TrainingProblem(np.eye(2), np.ones(2), 0.1)
    found = stationarity(problem, TwoLayerReLU(np.zeros((2, 3)), np.zeros((3, 1))))
    assert found.stationary
    assert found.patterns.shape == (0, 2)
    network = TwoLayerReLU(np.array([[1.0, 1e-9], [0, 0]]), np.array([[1.0], [1e-9]]))
    np.testing.assert_array_equal(stationarity(problem, network).neurons, [0])


def test_bad_input():
    network = TwoLayerReLU(np.ones((2, 1)), np.ones((1, 1)))
    with pytest.raises(ValueError, match="differentiable losses only; the problem's is 'hinge'"):
        stationarity(TrainingProblem(np.eye(2), np.array([1, -1]), loss="hinge"), network)
    with pytest.raises(ValueError, match="takes ReLU, leaky ReLU and the absolute value"):
        stationarity(TrainingProblem(np.eye(2), np.ones(2), activation="polynomial"), network)
    with pytest.raises(ValueError, match="The network's activation is"):
        stationarity(TrainingProblem(np.eye(2), np.ones(2), activation="absolute"), network)
    with pytest.raises(ValueError, match=r"those of the problem, \(3, 1, False\); they are \(2, 1"):
        stationarity(TrainingProblem(np.eye(3), np.ones(3)), network)
    with pytest.raises(ValueError, match="must be finite"):
        stationarity(
            TrainingProblem(np.eye(2), np.ones(2)), TwoLayerReLU(np.nan * network.U, network.V)
        )
