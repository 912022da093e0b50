"""Algorithm 1 of Sahiner et al.: known optima, the rate, both bounds; appendix A.5's cutting planes."""

import numpy as np
import pytest

import jaxcvxnn
from jaxcvxnn import Job, TrainingProblem
from jaxcvxnn.interior import solve_group_lasso
from jaxcvxnn.pricing.pricer import Pricer
from jaxcvxnn.problem import in_float64
from jaxcvxnn.studies import frank_wolfe
from jaxcvxnn.training import generate_columns

from ..helpers import PAPER_DATA


def decoupled() -> tuple[np.ndarray, np.ndarray, float, float]:
    """Samples +-e_i with orthogonal targets: X, Y, p* at 0.5, and the optimal penalty."""
    X, lengths = np.vstack([np.eye(2), -np.eye(2)]), np.array([1.0, 2.0, 3.0, 1.5])
    return X, np.diag(lengths), float(np.sum(0.5 * lengths - 0.125)), float(np.sum(lengths - 0.5))


def test_known_optimum():
    X, Y, optimum, radius = decoupled()
    found = frank_wolfe(TrainingProblem(X, Y, 0.5), tolerance=2e-2, max_steps=2000)
    assert found.status == "solved" and found.relative_gap <= 2e-2
    assert found.lower_bound <= optimum <= found.upper_bound < optimum * (1 + 2e-3)
    assert abs(found.radius - radius) < 0.3 * radius
    network, problem = found.network, TrainingProblem(X, Y, 0.5)
    assert float(problem.objective(network)) == found.upper_bound
    # Combining parallel atoms can only help.
    assert found.upper_bound <= np.min(found.history[:, 1]) * (1 + 1e-12)


def test_gap_and_rate_at_the_optimal_radius():
    """Jaggi (2013), theorem 1: the error after k steps is at most 2 C / (k + 2), with a curvature of
    at most the squared diameter of the outputs; and the gap bounds it at every step."""
    X, Y, optimum, radius = decoupled()
    found = frank_wolfe(TrainingProblem(X, Y, 0.5), radius=radius, max_steps=400, tolerance=1e-6)
    radii, objective, gap = found.history[1:].T  # after the first step the penalty is the radius
    assert np.all(radii == radius)
    assert np.all(objective - gap <= optimum) and np.all(objective >= optimum)
    longest = np.max([np.linalg.norm(np.maximum(X @ u, 0)) for u in ([1, 1], [1, -1])]) / 2**0.5
    steps = np.arange(1, len(gap) + 1)
    assert np.all(objective - optimum <= 2 * (2 * radius * longest) ** 2 / (steps + 2))


def test_small_radius_is_a_program_of_its_own():
    X, Y = np.array([[3.0, 4.0]]), np.array([[1.2, 1.6]])
    found = frank_wolfe(TrainingProblem(X, Y, 0.1), radius=0.2, tolerance=1e-9)
    # One neuron along x of outputs 5 * 0.2 along y: a loss of (2 - 1)^2 / 2.
    assert found.status == "converged" and found.network.width == 1
    np.testing.assert_allclose(found.upper_bound, 0.5 + 0.1 * 0.2, rtol=1e-12)
    assert found.lower_bound <= 0.02 * 2 - 0.02**2 / 2  # p*, see test_columns


def test_patterns_given_are_the_patterns_found(rng):
    X, Y = rng.standard_normal((9, 2)), rng.standard_normal((9, 2))
    problem, every = TrainingProblem(X, Y, 0.3), jaxcvxnn.geometry.sign_patterns(X)
    default = frank_wolfe(problem, max_steps=40)
    given = frank_wolfe(problem, patterns=every[::-1], max_steps=40)
    np.testing.assert_allclose(given.history, default.history, rtol=1e-9)
    # In four coordinates that span two: the reduction of their appendix A.2.
    lift = np.linalg.qr(rng.standard_normal((4, 2)))[0].T
    lifted = frank_wolfe(TrainingProblem(X @ lift, Y, 0.3), max_steps=40)
    np.testing.assert_allclose(lifted.history, default.history, rtol=1e-9)
    some = frank_wolfe(problem, patterns=every[:3], max_steps=500, tolerance=3e-2)
    best = generate_columns(in_float64(problem))
    assert some.status == "converged"  # to the optimum of fewer patterns, which is not training's
    assert some.upper_bound > best.upper_bound * (1 + 1e-2)
    assert some.lower_bound <= best.upper_bound


@pytest.mark.parametrize("loss", ["squared", "logistic", "softmax", "huber"])
def test_smooth_losses(rng, loss):
    X = rng.standard_normal((8, 2))
    Y = {
        "squared": rng.standard_normal((8, 2)),
        "huber": 3 * rng.standard_normal((8, 2)),
        "logistic": np.sign(rng.standard_normal((8, 1))),
        "softmax": np.array([0, 1, 2, 0, 1, 2, 1, 1]),
    }[loss]
    problem = TrainingProblem(X, Y, 0.5, loss=loss)
    found = frank_wolfe(problem, max_steps=100, tolerance=1e-4)
    assert 0 <= found.relative_gap < 0.15


def test_three_dimensions(rng):
    X, Y = rng.standard_normal((5, 3)), rng.standard_normal((5, 1))
    problem = TrainingProblem(X, Y, 1.0)
    found = frank_wolfe(problem, max_steps=30)
    best = generate_columns(in_float64(problem), tolerance=1e-4)
    assert found.lower_bound <= best.upper_bound and found.upper_bound >= best.lower_bound
    assert found.relative_gap < 0.1


def test_nothing_pays(rng):
    X, Y = rng.standard_normal((5, 2)), rng.standard_normal((5, 2))
    found = frank_wolfe(TrainingProblem(X, Y, 100.0))
    assert found.status == "solved" and len(found.history) == 1 and found.network.width == 0
    np.testing.assert_allclose([found.lower_bound, found.upper_bound], np.sum(Y**2) / 2, rtol=1e-9)
    zero = frank_wolfe(TrainingProblem(0 * X, Y, 0.1))
    assert zero.status == "solved" and zero.network.width == 0


def test_limits(rng):
    X, Y = rng.standard_normal((5, 2)), rng.standard_normal((5, 2))
    late = frank_wolfe(TrainingProblem(X, Y, 0.1), job=Job(1e-9))
    assert late.status == "time_limit" and late.history.shape == (0, 3)
    assert 0 <= late.lower_bound <= late.upper_bound
    short = frank_wolfe(TrainingProblem(X, Y, 0.1), max_steps=3)
    assert short.status == "max_steps" and len(short.history) == 3


def test_refusals(rng):
    X, Y = rng.standard_normal((6, 4)), np.ones((6, 1))
    flat = TrainingProblem(X[:, :2], Y)
    for settings, message in [
        (dict(radius=0.0), "radius must be positive"),
        (dict(tolerance=-1.0), "tolerance must be positive"),
        (dict(max_steps=0), "max_steps must be at least 1"),
        (dict(patterns=np.ones((2, 5), bool)), "patterns must be booleans of shape"),
    ]:
        with pytest.raises(ValueError, match=message):
            frank_wolfe(flat, **settings)
    for problem, message in [
        (TrainingProblem(X, Y), "patterns must be given for data of rank 4"),
        (TrainingProblem(X, Y, loss="hinge"), "smooth losses only"),
        (TrainingProblem(X, Y, activation="absolute"), "ReLU only"),
    ]:
        with pytest.raises(ValueError, match=message):
            frank_wolfe(problem)


@pytest.mark.skipif(not (PAPER_DATA / "spiral.npz").exists(), reason="no data of the papers")
def test_spiral():
    """Published: 16.593 (Prakhya et al., table 5); the optimum is 16.592977."""
    with np.load(PAPER_DATA / "spiral.npz") as data:
        found = frank_wolfe(TrainingProblem(data["X"], data["Y"], 0.1), max_steps=400)
    assert found.lower_bound <= 16.592978
    assert 16.592977 <= found.upper_bound < 16.60
    assert found.relative_gap < 5e-2


def test_cutting_planes_are_column_generation(rng):
    """Appendix A.5: max -L*(R) under the constraints of the neurons so far is the dual of their group
    lasso, so that cutting planes are column generation. The values fall to p* from above, while the
    scaled residuals prove bounds from below."""
    X, Y = rng.standard_normal((6, 2)), rng.standard_normal((6, 2))
    problem, weight_decay = in_float64(TrainingProblem(X, Y, 0.4)), 0.4
    best, pricer = generate_columns(problem), Pricer(problem.features)
    cuts, values = np.zeros((6, 0)), []
    for _ in range(40):
        master = solve_group_lasso(cuts, Y, weight_decay, loss=problem.loss)
        R = master.residual
        # Feasible, and of the value that no feasible matrix exceeds: the relaxed dual's solution.
        assert np.max(np.linalg.norm(R.T @ cuts, axis=0), initial=0) <= weight_decay * (1 + 1e-12)
        np.testing.assert_allclose(-np.sum(R * Y) - np.sum(R**2) / 2, master.objective, rtol=1e-9)
        assert master.objective >= best.lower_bound
        assert jaxcvxnn.certify_residual(problem, R, pricer).lower_bound <= best.upper_bound
        values.append(master.objective)
        price = pricer.price(R)
        if price.upper <= weight_decay * (1 + 1e-7):
            break
        cuts = np.column_stack([cuts, np.maximum(X @ price.neurons[0], 0)])
    assert np.all(np.diff(values) <= 1e-9)
    np.testing.assert_allclose(values[-1], best.upper_bound, rtol=1e-6)
