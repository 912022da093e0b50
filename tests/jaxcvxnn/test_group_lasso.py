"""The group lasso: optima known by construction, invariances, hard geometry, honest certificates."""

import numpy as np
import pytest

from jaxcvxnn import Absolute, Hinge, Huber, Logistic, Squared
from jaxcvxnn.interior import solve_group_lasso

HUBER, ABSOLUTE, HINGE = Huber(0.3), Absolute(), Hinge()


def relu_data(rng, n, m, c, rank=3):
    features = rng.standard_normal((n, rank)) * 8.0 ** -np.arange(rank)
    return np.maximum(features @ rng.standard_normal((rank, m)), 0), rng.standard_normal((n, c))


def planted(rng, n, m, c, used, loss=None):
    """(A, Y, w, V): the optimum V has `used` rows that are not zero, for penalties w made to fit.

    Where |R'a_j| = w_j with v_j parallel to -R'a_j, and |R'a_j| < w_j elsewhere, R = AV - Y proves
    that V is optimal.
    """
    A, R = np.abs(rng.standard_normal((n, m))), rng.standard_normal((n, c))
    pulls = A.T @ R
    w = np.linalg.norm(pulls, axis=1)
    V = -rng.uniform(0.1, 3, (m, 1)) * pulls / w[:, None]
    V[used:] = 0
    w[used:] *= rng.uniform(1.01, 3, m - used)
    return A, A @ V - R, w, V


def certified_gap(A, Y, w, found, loss):
    """The relative gap of the returned arrays, for the loss's own formulas; R is made feasible."""
    primal = float(loss.value(A @ found.V, Y)) + np.sum(w * np.linalg.norm(found.V, axis=1))
    excess = np.max(np.linalg.norm(A.T @ found.residual, axis=1) / w, initial=1.0)
    assert excess <= 1 + 1e-12
    dual = -float(loss.conjugate(found.residual / excess, Y))
    assert found.objective == pytest.approx(primal, rel=1e-13)
    assert found.dual_objective == pytest.approx(dual, rel=1e-11)
    assert found.relative_gap == (found.objective - found.dual_objective) / found.objective
    return (primal - dual) / abs(primal)


@pytest.mark.parametrize(
    "n, m, c, used",
    [(20, 8, 1, 5), (20, 60, 1, 12), (12, 9, 3, 9), (10, 80, 4, 6), (60, 30, 2, 20), (1, 1, 1, 1)],
)
def test_finds_a_planted_optimum(rng, n, m, c, used):
    A, Y, w, V = planted(rng, n, m, c, used)
    found = solve_group_lasso(A, Y, w, loss=Squared())
    assert certified_gap(A, Y, w, found, Squared()) <= 1e-10
    np.testing.assert_allclose(found.V, V, atol=2e-3 * np.abs(V).max())
    np.testing.assert_array_equal(found.V[used:], 0)
    assert np.all(np.any(found.V[:used] != 0, axis=1))
    np.testing.assert_allclose(found.residual, A @ V - Y, atol=1e-4)
    value = Squared().value(A @ V, Y) + np.sum(w * np.linalg.norm(V, axis=1))
    assert found.objective == pytest.approx(value, rel=1e-10)
    assert found.dual_objective <= value * (1 + 1e-14)


@pytest.mark.parametrize("n, m, c", [(40, 15, 2), (15, 60, 3), (30, 30, 1)])
@pytest.mark.parametrize("w", [1e-3, 0.1, 3.0])
def test_agrees_with_clarabel(rng, n, m, c, w):
    cvxpy = pytest.importorskip("cvxpy")
    A, Y = relu_data(rng, n, m, c)
    variable = cvxpy.Variable((m, c))
    penalty = cvxpy.sum(cvxpy.norm(variable, 2, axis=1))
    problem = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(A @ variable - Y) / 2 + w * penalty))
    problem.solve(solver="CLARABEL", tol_gap_rel=1e-10, tol_gap_abs=1e-11, tol_feas=1e-10)
    found = solve_group_lasso(A, Y, w, loss=Squared())
    assert certified_gap(A, Y, w, found, Squared()) <= 1e-10
    assert found.objective == pytest.approx(problem.value, rel=1e-6)


@pytest.mark.parametrize("distance", [1e-3, 1e-6, 1e-9, 1e-12, 0.0])
@pytest.mark.parametrize("n, m, c", [(60, 30, 2), (25, 20, 5)])
def test_nearly_parallel_columns_cost_no_accuracy(rng, distance, n, m, c):
    A, Y = relu_data(rng, n, m, c)
    copies = [A * (1 + distance * rng.standard_normal(A.shape)) for _ in range(3)]
    A = np.concatenate([A, *copies], axis=1)
    found = solve_group_lasso(A, Y, 0.01, loss=Squared())
    assert certified_gap(A, Y, 0.01, found, Squared()) <= 1e-10


def test_equal_and_zero_columns_change_nothing(rng):
    A, Y = relu_data(rng, 30, 12, 3)
    once = solve_group_lasso(A, Y, 0.1, loss=Squared())
    more = np.concatenate([A, np.zeros((30, 2)), A[:, ::-1]], axis=1)
    twice = solve_group_lasso(more, Y, 0.1, loss=Squared())
    assert twice.objective == pytest.approx(once.objective, rel=2e-10)
    np.testing.assert_array_equal(twice.V[12:14], 0)
    merged = twice.V[:12] + twice.V[14:][::-1]
    value = Squared().value(A @ merged, Y) + 0.1 * np.sum(np.linalg.norm(merged, axis=1))
    assert value == pytest.approx(once.objective, rel=2e-10)


@pytest.mark.parametrize("A", [np.zeros((5, 0)), np.zeros((5, 3))])
def test_no_neuron_to_use(rng, A):
    Y = rng.standard_normal((5, 2))
    found = solve_group_lasso(A, Y, 0.1, loss=Squared())
    assert found.V.shape == (A.shape[1], 2) and not np.any(found.V)
    np.testing.assert_array_equal(found.residual, -Y)
    assert found.objective == pytest.approx(np.sum(Y**2) / 2, rel=1e-15)
    assert found.relative_gap <= 1e-15 and found.steps == 0


def test_large_penalties_leave_zeros_without_a_step(rng):
    A, Y = relu_data(rng, 20, 7, 2)
    needed = np.max(np.linalg.norm(A.T @ Y, axis=1))
    found = solve_group_lasso(A, Y, needed * (1 + 1e-9), loss=Squared())
    assert not np.any(found.V) and found.steps == 0
    np.testing.assert_array_equal(found.residual, -Y)
    below = solve_group_lasso(A, Y, needed * (1 - 1e-3), loss=Squared())
    assert np.count_nonzero(np.any(below.V != 0, axis=1)) == 1


def test_targets_of_zeros():
    found = solve_group_lasso(np.ones((4, 2)), np.zeros((4, 3)), 1.0, loss=Squared())
    assert found.objective == 0 and found.relative_gap == 0 and not np.any(found.V)


def test_small_penalties_approach_least_squares(rng):
    A, Y = np.abs(rng.standard_normal((30, 10))), rng.standard_normal((30, 2))
    least, *_ = np.linalg.lstsq(A, Y)
    found = solve_group_lasso(A, Y, 1e-6, loss=Squared())
    assert found.relative_gap <= 1e-10
    np.testing.assert_allclose(found.V, least, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-5, 7.0, 1e6])
def test_scaling_invariances(rng, scale):
    A, Y = relu_data(rng, 25, 12, 2)
    w = rng.uniform(0.02, 0.3, 12)
    base = solve_group_lasso(A, Y, w, loss=Squared())
    units = solve_group_lasso(scale * A, Y, scale * w, loss=Squared())
    np.testing.assert_allclose(scale * units.V, base.V, atol=1e-3 * np.abs(base.V).max())
    assert units.objective == pytest.approx(base.objective, rel=2e-10)
    one = A * np.where(np.arange(12) == 3, scale, 1.0)
    weights = w * np.where(np.arange(12) == 3, scale, 1.0)
    assert solve_group_lasso(one, Y, weights, loss=Squared()).objective == pytest.approx(
        base.objective, rel=2e-10
    )
    larger = solve_group_lasso(A, scale * Y, scale * w, loss=Squared())
    assert larger.objective == pytest.approx(scale**2 * base.objective, rel=2e-10)
    assert larger.relative_gap <= 1e-10 and larger.steps <= base.steps + 2


def test_permutations_and_rotated_outputs(rng):
    A, Y = relu_data(rng, 25, 12, 3)
    base = solve_group_lasso(A, Y, 0.05, loss=Squared())
    columns, rows = rng.permutation(12), rng.permutation(25)
    shuffled = solve_group_lasso(A[rows][:, columns], Y[rows], 0.05, loss=Squared())
    rotation = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    rotated = solve_group_lasso(A, Y @ rotation, 0.05, loss=Squared())
    size = np.abs(base.V).max()
    np.testing.assert_allclose(shuffled.V, base.V[columns], atol=1e-3 * size)
    np.testing.assert_allclose(rotated.V, base.V @ rotation, atol=1e-3 * size)
    assert rotated.objective == pytest.approx(base.objective, rel=2e-10)


def test_a_start_near_the_optimum_saves_steps(rng):
    A, Y = relu_data(rng, 60, 60, 3)
    some = solve_group_lasso(A[:, :50], Y, 0.05, loss=Squared())
    start = np.concatenate([some.V, np.zeros((10, 3))])
    cold = solve_group_lasso(A, Y, 0.05, loss=Squared())
    warm = solve_group_lasso(A, Y, 0.05, loss=Squared(), start=start)
    assert warm.relative_gap <= 1e-10 and cold.relative_gap <= 1e-10
    assert warm.objective == pytest.approx(cold.objective, rel=2e-10)
    assert warm.steps < cold.steps
    assert solve_group_lasso(A, Y, 0.05, loss=Squared(), start=cold.V).steps < cold.steps
    far = solve_group_lasso(A, Y, 0.05, loss=Squared(), start=1e3 * rng.standard_normal((60, 3)))
    assert far.relative_gap <= 1e-10


def test_bounds_hold_after_any_number_of_steps(rng):
    A, Y = relu_data(rng, 20, 30, 2)
    best = solve_group_lasso(A, Y, 0.05, loss=Squared())
    for steps in range(best.steps):
        found = solve_group_lasso(A, Y, 0.05, loss=Squared(), max_steps=steps)
        assert found.steps <= steps
        assert found.dual_objective <= best.objective
        assert found.objective >= best.dual_objective
        assert np.all(np.linalg.norm(A.T @ found.residual, axis=1) <= 0.05 * (1 + 1e-14))


@pytest.mark.parametrize("n, m, c", [(40, 15, 1), (15, 50, 2)])
@pytest.mark.parametrize("w", [0.01, 0.3])
def test_logistic_loss(rng, n, m, c, w):
    A, Y = relu_data(rng, n, m, c)
    Y = np.sign(Y)
    found = solve_group_lasso(A, Y, w, loss=Logistic())
    assert certified_gap(A, Y, w, found, Logistic()) <= 1e-10
    R = Logistic().gradient(A @ found.V, Y)
    np.testing.assert_allclose(found.residual, R, atol=1e-4)
    warm = solve_group_lasso(A, Y, w, loss=Logistic(), start=found.V * 1.01)
    assert warm.steps < found.steps
    assert warm.objective == pytest.approx(found.objective, rel=2e-10)


@pytest.mark.parametrize("loss", [HUBER, ABSOLUTE, HINGE], ids=["huber", "absolute", "hinge"])
@pytest.mark.parametrize("n, m, c", [(40, 15, 1), (15, 50, 2)])
def test_losses_with_kinks(rng, loss, n, m, c):
    cvxpy = pytest.importorskip("cvxpy")
    A, Y = relu_data(rng, n, m, c)
    Y = np.sign(Y) if loss is HINGE else Y
    variable = cvxpy.Variable((m, c))
    Z = A @ variable
    terms = {
        HUBER: cvxpy.sum(cvxpy.huber(Z - Y, 0.3)) / 2,
        ABSOLUTE: cvxpy.sum(cvxpy.abs(Z - Y)),
        HINGE: cvxpy.sum(cvxpy.pos(1 - cvxpy.multiply(Y, Z))),
    }
    penalty = cvxpy.sum(cvxpy.norm(variable, 2, axis=1))
    problem = cvxpy.Problem(cvxpy.Minimize(terms[loss] + 0.1 * penalty))
    problem.solve(solver="CLARABEL")
    found = solve_group_lasso(A, Y, 0.1, loss=loss)
    assert certified_gap(A, Y, 0.1, found, loss) <= 1e-9
    assert found.objective == pytest.approx(problem.value, rel=1e-6)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"activations": np.ones(4)}, "activations must be a matrix"),
        ({"activations": np.full((4, 2), np.nan)}, "activations must be finite"),
        ({"targets": np.ones((3, 2))}, "one row per sample"),
        ({"targets": np.ones((4, 0))}, "at least"),
        ({"targets": np.full((4, 1), np.inf)}, "targets must be finite"),
        ({"penalties": 0.0}, "penalties must be positive"),
        ({"penalties": np.array([1.0, np.nan])}, "penalties must be positive"),
        ({"penalties": np.ones(3)}, "penalties must be a number or have shape"),
        ({"start": np.ones((2, 2))}, "start must have shape"),
        ({"start": np.full((2, 1), np.nan)}, "start must be finite"),
        ({"tolerance": 0.0}, "tolerance must be positive"),
        ({"tolerance": np.nan}, "tolerance must be positive"),
    ],
)
def test_bad_input_is_refused(change, message):
    good = {"activations": np.ones((4, 2)), "targets": np.ones((4, 1)), "penalties": 0.1}
    with pytest.raises(ValueError, match=message):
        solve_group_lasso(**(good | change), loss=Squared())


def test_a_loss_with_kinks_must_know_its_conjugate():
    class Kinked(Logistic):
        curvature = np.inf

    with pytest.raises(ValueError, match="must be smooth"):
        solve_group_lasso(np.ones((4, 2)), np.ones((4, 1)), 0.1, loss=Kinked())
