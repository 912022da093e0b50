"""The interior-point method for (cone-lasso) against CVXPY, column generation and algebra."""

import math

import chex
import cvxpy as cp
import jax
import numpy as np
import pytest

from jaxcone import Status
from jaxcvxnn import LeakyReLU, TrainingProblem, certify_residual, solve
from jaxcvxnn.geometry import sign_patterns
from jaxcvxnn.interior.cone_lasso_systems import CellEquations, CellRows
from jaxcvxnn.programs import ConeGroupLasso, ConeLassoInterior, cone_lasso_network
from jaxcvxnn.training import generate_columns


def solve_cone_lasso(problem, program=None, **settings):
    """By the interior-point method on the host."""
    program = ConeGroupLasso() if program is None else program
    return solve(problem, program, ConeLassoInterior(**settings))


def draw(rng, n=8, d=2):
    return rng.standard_normal((n, d)), rng.standard_normal(n)


def sampled(rng, X, count):
    """Patterns that Gaussian directions meet."""
    return np.unique(rng.standard_normal((count, X.shape[1])) @ X.T > 0, axis=0)


def oracle(X, y, weight_decay, patterns, *, slope=0.0, loss="squared", cones=None):
    """The printed program by CVXPY and Clarabel."""
    blocks = [cp.Variable((X.shape[1], len(patterns))) for _ in range(2)]
    slopes, signs = np.where(patterns, 1, slope), np.where(patterns, 1, -1)
    fitted = cp.sum(cp.multiply(slopes.T, X @ (blocks[0] - blocks[1])), axis=1)
    rows = X if cones is None else cones
    inside = [cp.multiply(signs.T, rows @ w) >= 0 for w in blocks]
    norms = sum(cp.sum(cp.norm(w, axis=0)) for w in blocks)
    value = {
        "squared": lambda: cp.sum_squares(fitted - y) / 2,
        "hinge": lambda: cp.sum(cp.pos(1 - cp.multiply(y, fitted))),
        "huber": lambda: cp.sum(cp.huber(fitted - y)) / 2,
        "absolute": lambda: cp.norm1(fitted - y),
    }[loss]()
    problem = cp.Problem(cp.Minimize(value + weight_decay * norms), inside)
    problem.solve(solver="CLARABEL", tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
    return float(problem.value)


def optimum(problem, program=None, **options):
    found = solve_cone_lasso(problem, program, **options)
    assert found.status == Status.solved, Status[found.status]
    assert found.violation == 0
    return found


@pytest.mark.parametrize("slope", [0.0, 0.1, -1.0])
def test_all_patterns_are_the_global_optimum(rng, slope):
    """At rank 2 the price is known in closed form, and the gap closes to 1e-8."""
    X, y = draw(rng)
    problem = TrainingProblem(X, y, 0.1, activation=LeakyReLU(slope))
    program = ConeGroupLasso(patterns=sign_patterns(X))
    found = optimum(problem, program, tolerance=1e-9)
    network = cone_lasso_network(problem, found)
    np.testing.assert_allclose(problem.objective(network), found.objective, rtol=1e-12)
    with jax.enable_x64(False):
        chex.assert_trees_all_equal(cone_lasso_network(problem, found), network)
    lower = certify_residual(problem, found.residual).lower_bound
    assert found.objective * (1 - 2e-8) <= lower <= found.objective
    assert found.objective >= found.dual_objective
    if slope == 0:
        np.testing.assert_allclose(
            found.objective, generate_columns(problem, tolerance=1e-9).upper_bound, rtol=1e-8
        )
    # What is not used is exactly zero, and by Caratheodory's theorem not all cells are needed.
    assert 0 < np.sum(np.any(found.weights, axis=-1)) < found.weights[..., 0].size


@pytest.mark.parametrize("count", [4, 40])
def test_against_cvxpy(rng, count):
    """Few patterns and many: the two forms of the equations."""
    X, y = draw(rng, 12, 3)
    X[3], X[5] = 0, X[4]
    program = ConeGroupLasso(patterns=sampled(rng, X, count))
    found = optimum(TrainingProblem(X, y, 0.2), program)
    np.testing.assert_allclose(found.objective, oracle(X, y, 0.2, program.patterns), rtol=1e-7)


@pytest.mark.parametrize("loss, slope", [("hinge", 0.1), ("huber", -1.0), ("absolute", 0.0)])
def test_other_losses(rng, loss, slope):
    """R is in a box; hinge and absolute value have kinks."""
    X, y = draw(rng)
    y = np.sign(y) if loss == "hinge" else y
    problem = TrainingProblem(X, y, 0.1, loss=loss, activation=LeakyReLU(slope))
    program = ConeGroupLasso(patterns=sign_patterns(X))
    found = optimum(problem, program)
    expected = oracle(X, y, 0.1, program.patterns, slope=slope, loss=loss)
    np.testing.assert_allclose(found.objective, expected, rtol=1e-7)
    network = cone_lasso_network(problem, found)
    np.testing.assert_allclose(problem.objective(network), found.objective, rtol=1e-12)
    lower = certify_residual(problem, found.residual).lower_bound
    assert found.objective * (1 - 2e-8) <= lower <= found.objective


def test_bounds_hold_however_early_it_ends(rng):
    """Every iterate is inside its cells and its dual point feasible, so that both are bounds."""
    X, y = draw(rng, 30, 4)
    problem = TrainingProblem(X, y, 0.5)
    program = ConeGroupLasso(patterns=sampled(rng, X, 10))
    best, gaps = optimum(problem, program), []
    for steps in (1, 3, 6, 9):
        found = solve_cone_lasso(problem, program, max_steps=steps)
        assert found.steps == steps
        assert found.violation == 0
        assert found.dual_objective <= best.objective
        assert best.dual_objective <= found.objective
        network = cone_lasso_network(problem, found)
        np.testing.assert_allclose(problem.objective(network), found.objective, rtol=1e-12)
        slack = X.T @ (program.patterns * found.residual[:, 0]).T
        bent = X.T @ (np.where(program.patterns, 1, -1) * found.multipliers[0]).swapaxes(1, 2)
        prices = np.linalg.norm(np.stack([slack, -slack]) - bent, axis=1)
        assert prices.max() <= 0.5 * (1 + 1e-12)
        assert found.multipliers.min() >= 0
        gaps.append(found.relative_gap)
    assert solve_cone_lasso(problem, program, max_steps=1).status == Status.max_steps
    assert gaps == sorted(gaps, reverse=True)


def test_samples_in_another_order_turned_and_scaled(rng):
    X, y = draw(rng, 12, 3)
    patterns = sampled(rng, X, 8)
    expected = optimum(TrainingProblem(X, y, 0.1), ConeGroupLasso(patterns=patterns))
    turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    order = rng.permutation(12)
    moved = TrainingProblem(1e3 * X[order] @ turn, 10 * y[order], 1e4 * 0.1)
    found = optimum(moved, ConeGroupLasso(patterns=patterns[:, order]))
    np.testing.assert_allclose(found.objective, 100 * expected.objective, rtol=1e-7)
    np.testing.assert_allclose(found.residual, 10 * expected.residual[order], atol=1e-3)


def test_outputs_are_programs_of_their_own(rng):
    """Eq. (31): the value is the sum."""
    X, y = draw(rng, 12, 3)
    program = ConeGroupLasso(patterns=sampled(rng, X, 8))
    Y = np.stack([y, np.zeros(12), rng.standard_normal(12)], axis=1)
    problem = TrainingProblem(X, Y, 0.1)
    both = optimum(problem, program)
    each = [optimum(TrainingProblem(X, Y[:, k], 0.1), program) for k in range(3)]
    np.testing.assert_allclose(both.objective, sum(e.objective for e in each), rtol=1e-12)
    np.testing.assert_array_equal(both.weights, np.concatenate([e.weights for e in each]))
    assert each[1].objective == 0
    assert not np.any(both.weights[1])
    network = cone_lasso_network(problem, both)
    np.testing.assert_allclose(problem.objective(network), both.objective, rtol=1e-12)


def test_where_no_neuron_pays(rng):
    X, y = draw(rng)
    found = optimum(TrainingProblem(X, y, 1e3), ConeGroupLasso(patterns=sign_patterns(X)))
    assert not np.any(found.weights)
    np.testing.assert_allclose(found.objective, y @ y / 2, rtol=1e-12)


def test_low_rank_cones_and_float32(rng):
    """Eq. (10), of which only the constraints differ; data in float32 are solved in float64."""
    X, y = draw(rng)
    X, y = X.astype(np.float32), y.astype(np.float32)
    left, values, right = np.linalg.svd(X, full_matrices=False)
    near = values[0] * np.outer(left[:, 0], right[0])
    program = ConeGroupLasso(patterns=sign_patterns(near @ right[:1].T), cone_features=near)
    found = optimum(TrainingProblem(X, y, np.float32(0.1)), program)
    X, y, near = (np.float64(a) for a in (X, y, near))
    expected = oracle(X, y, float(np.float32(0.1)), program.patterns, cones=near)
    np.testing.assert_allclose(found.objective, expected, rtol=1e-7)


@pytest.mark.parametrize("count", [3, 12])
def test_the_equations_of_a_step(rng, count):
    """Both forms against the assembled matrix, with weights that vary by six powers of ten."""
    X = rng.standard_normal((7, 4))
    signs = np.where(rng.random((count, 7)) < 0.5, 1.0, -1.0)
    slopes = np.where(signs > 0, 1.0, 0.1)
    cells = CellRows(X, X / np.linalg.norm(X, axis=1, keepdims=True), slopes, signs)
    equations = CellEquations(cells)
    assert equations.by_samples == (count == 12)
    roots = rng.standard_normal((2, count, 4, 4))
    blocks = roots @ roots.swapaxes(2, 3)
    ratios, curvature = 10 ** rng.uniform(-3, 3, (2, count, 7)), rng.random(7)
    right = rng.standard_normal((2, count, 4))
    basis = np.eye(right.size).reshape(-1, *right.shape)
    columns = [
        np.matvec(blocks, e)
        + cells.margins_adjoint(ratios * cells.margins(e))
        + cells.pulled(curvature * cells.fitted(e))
        for e in basis
    ]
    matrix = np.stack([c.ravel() for c in columns], axis=1)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-9)
    found = equations.factor(blocks, ratios, curvature)(right)
    np.testing.assert_allclose(matrix @ found.ravel(), right.ravel(), atol=1e-9)


def test_what_is_refused(rng):
    X, y = draw(rng)
    problem = TrainingProblem(X, y, 0.1)
    logistic = TrainingProblem(X, np.sign(y), 0.1, loss="logistic")
    opposite = np.stack([X[0], -X[0]])
    flat = TrainingProblem(opposite, y[:2], 0.1)
    both = ConeGroupLasso(patterns=np.array([[True, False], [True, True]]))
    cases = [
        (lambda: solve_cone_lasso(logistic), "conjugate is quadratic, which 'logistic' is not"),
        (lambda: solve_cone_lasso(problem, ConeGroupLasso(norm=math.inf)), "norm 2.*got norm inf"),
        (lambda: solve_cone_lasso(problem, ConeGroupLasso(interpolate=True)), "interpolate=True"),
        (lambda: solve_cone_lasso(flat, both), r"patterns\[1\] belongs to no cell.* 1 of 2 do not"),
        (lambda: solve_cone_lasso(problem, tolerance=0.0), "tolerance must be positive"),
        (lambda: solve_cone_lasso(problem, max_steps=0), "max_steps must be a positive"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(jax.errors.TracerArrayConversionError):
        jax.jit(lambda wd: solve_cone_lasso(TrainingProblem(X, y, wd)).objective)(0.1)
