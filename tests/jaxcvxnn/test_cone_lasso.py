"""Ergen and Pilanci's convex programs against CVXPY, column generation and trained networks."""

import dataclasses
import functools
import math

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from jaxcone import InteriorPoint, Status
from jaxcvxnn import LeakyReLU, TrainingProblem, certify_residual, solve
from jaxcvxnn.geometry import sign_patterns
from jaxcvxnn.improve import prune, refit
from jaxcvxnn.programs import (
    ConeGroupLasso,
    ConeLassoSplitting,
    cone_lasso_network,
    cone_lasso_objective,
)
from jaxcvxnn.studies import is_spike_free, spike_free_program
from jaxcvxnn.training import generate_columns

from ..helpers import lane

ACCURATE = ConeLassoSplitting(tolerance=1e-8, max_steps=40_000)
EXAMPLE = np.array([[2.0, 2.0], [3.0, 3.0], [1.0, 0.0]])
TOY_X = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])[:, None]
TOY_Y = np.array([1.0, -1.0, 1.0, 1.0, -1.0])


def split_cone_lasso(problem, program=None, settings=None, *, warm_start=None):
    """By the splitting method, with its defaults where nothing is given."""
    program = ConeGroupLasso() if program is None else program
    settings = ConeLassoSplitting() if settings is None else settings
    return solve(problem, program, settings, warm_start=warm_start)


def oracle(X, y, weight_decay, patterns, *, slope=0.0, norm=2, loss="squared", cones=None):
    """The printed program by CVXPY and Clarabel; `loss` "exact" is eq. (25)."""
    slopes, signs = np.where(patterns, 1.0, slope), np.where(patterns, 1.0, -1.0)
    cones = X if cones is None else cones
    blocks = [cp.Variable((X.shape[1], len(patterns))) for _ in range(2)]
    fitted = cp.sum(cp.multiply(slopes.T, X @ (blocks[0] - blocks[1])), axis=1)
    constraints = [cp.multiply(signs.T, cones @ w) >= 0 for w in blocks]
    penalty = sum(cp.sum(cp.norm(w, "inf" if norm == math.inf else norm, axis=0)) for w in blocks)
    if loss == "exact":
        goal = penalty
        constraints.append(fitted == y)
    else:
        margins = cp.multiply(y, fitted)
        value = {
            "squared": lambda: cp.sum_squares(fitted - y) / 2,
            "hinge": lambda: cp.sum(cp.pos(1 - margins)),
            "logistic": lambda: cp.sum(cp.logistic(-margins)),
            "absolute": lambda: cp.norm1(fitted - y),
        }[loss]()
        goal = value + weight_decay * penalty
    problem = cp.Problem(cp.Minimize(goal), constraints)
    problem.solve(solver="CLARABEL", tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
    return float(problem.value)


def draw(rng, n=8, d=2):
    """Data whose arrangements have 2n or so cells, one compiled shape for most tests."""
    return rng.standard_normal((n, d)), rng.standard_normal(n)


def split(problem, program=None, settings=ACCURATE, **options):
    found = split_cone_lasso(problem, program, settings, **options)
    assert found.status == Status.solved, Status[found.status]
    return found


def trained(problem, width, rng):
    """The objective of a network that L-BFGS trains from a random start."""
    features, y = np.asarray(problem.features), np.asarray(problem.Y)[:, 0]
    weight_decay, d = float(problem.weight_decay), features.shape[1]

    def value(flat):
        U, v = flat[: d * width].reshape(d, width), flat[d * width :]
        hidden = features @ U
        error = np.maximum(hidden, 0) @ v - y
        of_U = features.T @ ((hidden > 0) * np.outer(error, v)) + weight_decay * U
        of_v = np.maximum(hidden, 0).T @ error + weight_decay * v
        penalty = weight_decay / 2 * np.sum(flat**2)
        return error @ error / 2 + penalty, np.concatenate([of_U.ravel(), of_v])

    start = rng.standard_normal((d + 1) * width)
    options = {"maxiter": 3000, "maxfun": 6000, "ftol": 1e-15, "gtol": 1e-10}
    return scipy.optimize.minimize(value, start, jac=True, method="L-BFGS-B", options=options).fun


# ----------------------------------------------------------------------
# Known examples


def test_the_papers_example(rng):
    """Example II.1: four arrangements, of which one does nothing, and the program as it is printed."""
    patterns = sign_patterns(EXAMPLE)
    assert {tuple(p) for p in patterns.astype(int)} == {(1, 1, 1), (1, 1, 0), (0, 0, 1), (0, 0, 0)}
    y = np.array([1.0, -1.0, 2.0])
    w = [cp.Variable(2) for _ in range(6)]
    x, beta = EXAMPLE, 0.1
    gates = [[1, 1, 1], [1, 1, 0], [0, 0, 1]]
    fitted = sum(cp.multiply(g, x @ (w[i] - w[i + 3])) for i, g in enumerate(gates))
    cells = [
        cp.multiply(2 * np.array(g) - 1, x @ w[i + k]) >= 0
        for i, g in enumerate(gates)
        for k in (0, 3)
    ]
    printed = cp.Problem(
        cp.Minimize(cp.sum_squares(fitted - y) / 2 + beta * sum(cp.norm(v) for v in w)), cells
    )
    printed.solve(solver="CLARABEL")
    problem = TrainingProblem(EXAMPLE, y, beta)
    found = split(problem)
    assert found.weights.shape == (1, 2, 3, 2)
    np.testing.assert_allclose(found.objective, printed.value, rtol=1e-6)
    np.testing.assert_allclose(found.objective, generate_columns(problem).upper_bound, rtol=1e-7)


def test_the_papers_toy(rng):
    """Section IX: n = 5, a bias, 1e-3: (7) meets the best of many trainings, and the proof closes."""
    problem = TrainingProblem(TOY_X, TOY_Y, 1e-3, bias=True)
    found = split(problem)
    network, residual = refit(problem, cone_lasso_network(problem, found))
    upper = float(problem.objective(network))
    np.testing.assert_allclose(found.objective, upper, rtol=1e-7)
    runs = [trained(problem, 15, rng) for _ in range(10)]
    assert min(runs) >= upper * (1 - 1e-9)
    np.testing.assert_allclose(min(runs), upper, rtol=1e-3)
    assert max(runs) > upper * 1.001  # some get stuck
    np.testing.assert_allclose(generate_columns(problem).upper_bound, upper, rtol=1e-8)
    lower = certify_residual(problem, residual).lower_bound
    assert upper * (1 - 1e-7) <= lower <= upper


@pytest.mark.parametrize("slope", [0.0, 0.1, -1.0])
def test_all_patterns_are_the_global_optimum(rng, slope):
    """At rank 2 the price is known in closed form, and the gap closes to 1e-8."""
    X, y = draw(rng)
    problem = TrainingProblem(X, y, 0.1, activation=LeakyReLU(slope))
    found = split(problem, ConeGroupLasso(patterns=sign_patterns(X)))
    network = cone_lasso_network(problem, found)
    np.testing.assert_allclose(problem.objective(network), found.objective, rtol=1e-7)
    fitted, residual = refit(problem, network)
    upper = float(problem.objective(fitted))
    np.testing.assert_allclose(upper, found.objective, rtol=1e-7)
    assert fitted.width <= prune(network).width
    for R in (residual, found.residual):
        lower = certify_residual(problem, R).lower_bound
        assert upper * (1 - 1e-7) <= lower <= upper
    if slope == 0:
        np.testing.assert_allclose(upper, generate_columns(problem).upper_bound, rtol=1e-8)
    # Nothing near is better, whatever its patterns.
    for _ in range(20):
        other = jax.tree.map(lambda a: a * (1 + 0.1 * rng.standard_normal(a.shape)), fitted)
        assert float(problem.objective(other)) >= lower


def test_at_rank_three(rng):
    X, y = draw(rng, 7, 3)
    problem = TrainingProblem(X, y, 0.1)
    found = split(problem, settings=ConeLassoSplitting(tolerance=1e-7, max_steps=60_000))
    network, residual = refit(problem, cone_lasso_network(problem, found))
    upper = float(problem.objective(network))
    np.testing.assert_allclose(upper, found.objective, rtol=1e-6)
    best = generate_columns(problem, tolerance=1e-7)
    np.testing.assert_allclose(upper, best.upper_bound, rtol=1e-6)
    assert best.lower_bound <= upper


# ----------------------------------------------------------------------
# Settings, against CVXPY


@pytest.mark.parametrize(
    "loss, slope", [("squared", 0.1), ("squared", -1.0), ("hinge", 0.1), ("logistic", -1.0)]
)
def test_losses_and_slopes(rng, loss, slope):
    X, y = draw(rng)
    y = np.sign(y) if loss in ("hinge", "logistic") else y
    problem = TrainingProblem(X, y, 0.1, loss=loss, activation=LeakyReLU(slope))
    found = split(problem, settings=ConeLassoSplitting(tolerance=1e-7, max_steps=40_000))
    expected = oracle(X, y, 0.1, sign_patterns(X), slope=slope, loss=loss)
    np.testing.assert_allclose(found.objective, expected, rtol=1e-6)
    np.testing.assert_allclose(found.dual_objective, expected, rtol=1e-6)
    network = cone_lasso_network(problem, found)
    np.testing.assert_allclose(problem.objective(network), expected, rtol=1e-6)


@pytest.mark.parametrize("norm", [1, math.inf])
def test_other_norms_of_the_first_layer(rng, norm):
    X, y = draw(rng)
    problem = TrainingProblem(X, y, 0.1, activation=LeakyReLU(0.1))
    found = split(problem, ConeGroupLasso(norm=norm))
    expected = oracle(X, y, 0.1, sign_patterns(X), slope=0.1, norm=norm)
    np.testing.assert_allclose(found.objective, expected, rtol=1e-7)
    network = cone_lasso_network(problem, found)
    np.testing.assert_allclose(cone_lasso_objective(problem, network, norm), expected, rtol=1e-6)


def test_an_exact_fit_of_least_norm_and_none(rng):
    X, _ = draw(rng)
    y = np.asarray(LeakyReLU(0.1)(X @ rng.standard_normal((2, 4))) @ rng.standard_normal(4))
    problem = TrainingProblem(X, y, 0.1, activation=LeakyReLU(0.1))
    program = ConeGroupLasso(interpolate=True)
    found = split(problem, program, ConeLassoSplitting(max_steps=40_000))
    expected = oracle(X, y, 1.0, sign_patterns(X), slope=0.1, loss="exact")
    np.testing.assert_allclose(found.objective, expected, rtol=1e-5)
    network = cone_lasso_network(problem, found)
    np.testing.assert_allclose(network.predict(X)[:, 0], y, atol=1e-4)
    np.testing.assert_allclose(network.penalty, expected, rtol=1e-5)
    # The limit of vanishing weight decay, from below.
    path = split(TrainingProblem(X, y, 1e-5, activation=LeakyReLU(0.1)))
    assert 0.99 < path.objective / 1e-5 / expected < 1
    X = np.tile(X[:1], (8, 1))
    patterns = np.stack([np.ones(8, bool), np.zeros(8, bool)])[np.arange(16) % 2]
    problem = TrainingProblem(X, y, 0.1, activation=LeakyReLU(0.1))
    program = ConeGroupLasso(patterns=patterns, interpolate=True)
    assert split_cone_lasso(problem, program).status == Status.primal_infeasible


def test_patterns_of_a_low_rank_approximation(rng):
    """Eq. (10): the cones are those of the approximation, the outputs those of the data."""
    X, y = draw(rng)
    left, values, right = np.linalg.svd(X, full_matrices=False)
    near = values[0] * np.outer(left[:, 0], right[0])
    patterns = np.tile(sign_patterns(near @ right[:1].T), (8, 1))
    problem = TrainingProblem(X, y, 0.1)
    found = split(problem, ConeGroupLasso(patterns=patterns, cone_features=near))
    expected = oracle(X, y, 0.1, patterns[:2], cones=near)
    np.testing.assert_allclose(found.objective, expected, rtol=1e-6)
    objective = problem.objective(cone_lasso_network(problem, found))
    assert generate_columns(problem).lower_bound <= float(objective)


def test_outputs_are_programs_of_their_own(rng):
    """Eq. (31): the value is the sum, and the network's objective is the value."""
    X, y = draw(rng)
    Y = np.stack([y, rng.standard_normal(8)], axis=1)
    problem = TrainingProblem(X, Y, 0.1, activation=LeakyReLU(0.1))
    both = split(problem)
    each = [split(TrainingProblem(X, Y[:, k], 0.1, activation=LeakyReLU(0.1))) for k in (0, 1)]
    np.testing.assert_allclose(both.objective, sum(e.objective for e in each), rtol=1e-9)
    np.testing.assert_allclose(both.weights, np.concatenate([e.weights for e in each]), atol=1e-9)
    network = cone_lasso_network(problem, both)
    np.testing.assert_allclose(problem.objective(network), both.objective, rtol=1e-7)
    np.testing.assert_allclose(cone_lasso_objective(problem, network), both.objective, rtol=1e-7)
    shared, _ = refit(problem, network)  # neurons may have both outputs in training proper
    assert float(problem.objective(shared)) <= both.objective * (1 + 1e-9)


def test_samples_in_another_order_and_turned(rng):
    X, y = draw(rng)
    problem = TrainingProblem(X, y, 0.1, activation=LeakyReLU(0.1))
    expected = split(problem).objective
    turn, order = np.array([[0.6, -0.8], [0.8, 0.6]]), rng.permutation(8)
    moved = TrainingProblem(X[order] @ turn, y[order], 0.1, activation=LeakyReLU(0.1))
    np.testing.assert_allclose(split(moved).objective, expected, rtol=1e-7)
    scaled = TrainingProblem(1e3 * X, 10 * y, 1e4 * 0.1, activation=LeakyReLU(0.1))
    np.testing.assert_allclose(split(scaled).objective, 100 * expected, rtol=1e-7)


# ----------------------------------------------------------------------
# Methods


def test_the_cone_program_is_the_same(rng):
    X, y = draw(rng)
    problem = TrainingProblem(X, y, 0.1, activation=LeakyReLU(0.1))
    program = ConeGroupLasso(patterns=sign_patterns(X))
    expected = split(problem, program)

    def value(weight_decay):
        at = TrainingProblem(X, y, weight_decay, activation=LeakyReLU(0.1))
        found = solve(at, program)
        return found.objective, found

    (objective, found), slope = jax.jit(jax.value_and_grad(value, has_aux=True))(0.1)
    assert found.status == Status.solved
    np.testing.assert_allclose(objective, expected.objective, rtol=1e-7)
    np.testing.assert_allclose(found.dual_objective, expected.objective, rtol=1e-7)
    np.testing.assert_allclose(found.residual, expected.residual, atol=1e-4)
    np.testing.assert_allclose(slope, np.linalg.norm(found.weights, axis=-1).sum(), rtol=1e-6)
    network = cone_lasso_network(problem, found)
    np.testing.assert_allclose(problem.objective(network), objective, rtol=1e-7)
    lower = certify_residual(problem, found.residual).lower_bound
    assert objective * (1 - 1e-6) <= lower <= objective * (1 + 1e-9)


@pytest.mark.slow
def test_an_exact_fit_and_none_by_the_cone_program():
    """Three equal samples: targets of 1 need one neuron of norm 1, different ones have a ray."""
    X, program = np.ones((3, 1)), ConeGroupLasso(interpolate=True)
    found = solve(TrainingProblem(X, np.ones(3), 0.1), program)
    assert found.status == Status.solved
    np.testing.assert_allclose(found.objective, 1, rtol=1e-7)
    np.testing.assert_allclose(-np.sum(found.residual), 1, rtol=1e-7)
    np.testing.assert_allclose(found.weights[0, :, 0, 0], [1, 0], atol=1e-6)
    none = solve(TrainingProblem(X, np.arange(3.0), 0.1), program)
    assert none.status == Status.primal_infeasible


@pytest.mark.parametrize("norm", [1, 2, math.inf])
@pytest.mark.parametrize("interpolate", [False, True])
def test_the_cone_programs_own_algebra(rng, norm, interpolate):
    """Adjoint, the linear solve, equilibration and the normal matrix, against plain products."""
    problem = TrainingProblem(*draw(rng), 0.1, activation=LeakyReLU(0.1))
    setting = ConeGroupLasso(norm=norm, interpolate=interpolate)
    program = setting.to_cone(setting.data(problem))
    shape = program.linear().shape
    x, other = jnp.asarray(rng.standard_normal((2, *shape)))
    y = jax.tree.map(lambda a: jnp.asarray(rng.standard_normal(a.shape)), program.offset())

    def inner(a, b):
        return sum(jnp.sum(p * q) for p, q in zip(a, b, strict=True))

    np.testing.assert_allclose(
        inner(program.operator(x), y), jnp.sum(x * program.adjoint(y)), rtol=1e-10
    )
    np.testing.assert_allclose(
        jnp.sum(other * program.quadratic(x)), jnp.sum(x * program.quadratic(other)), atol=1e-9
    )
    best = program.minimize(program.factor(), jnp.asarray(0.7), y, x)
    misfit = jax.tree.map(jnp.subtract, program.operator(best), y)
    gradient = program.quadratic(best) + program.linear() + 0.7 * program.adjoint(misfit)
    np.testing.assert_allclose(gradient, 0, atol=1e-9)
    twin, scaling = program.equilibrate()
    back, s, _ = scaling.unscale(x, twin.operator(x), y)
    for found, expected in zip(s, program.operator(back), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-10)
    form = program.interior()
    flat = rng.standard_normal(form.layout.cones.rows)
    np.testing.assert_allclose(form.operator(x.ravel()) @ flat, x.ravel() @ form.adjoint(flat))


def test_decays_in_a_batch_and_warm_starts(rng):
    X, y = draw(rng)
    program = ConeGroupLasso(patterns=sign_patterns(X))
    traces = []

    def at(weight_decay, warm_start=None):
        problem = TrainingProblem(X, y, weight_decay, activation=LeakyReLU(0.1))
        traces.append(None)
        return split_cone_lasso(problem, program, ACCURATE, warm_start=warm_start)

    decays = np.array([1.0, 0.3, 0.1])
    batch = jax.jit(jax.vmap(at))(decays)
    before = None
    for k, weight_decay in enumerate(decays):
        alone = at(weight_decay)
        assert lane(batch.status, k) == alone.status == Status.solved
        np.testing.assert_allclose(batch.objective[k], alone.objective, rtol=1e-9)
        np.testing.assert_allclose(batch.weights[k], alone.weights, atol=1e-7)
        if before is not None:
            warm = at(weight_decay, before)
            np.testing.assert_allclose(warm.objective, alone.objective, rtol=1e-7)
        before = alone
    again = at(decays[-1], before)
    assert again.status == Status.solved and again.steps < before.steps / 2


def test_unfinished_solutions_are_bounds_and_say_so(rng):
    X, y = draw(rng)
    problem = TrainingProblem(X, y, 0.1, activation=LeakyReLU(0.1))
    best = split(problem).objective
    for steps in (50, 100, 200, 400):
        settings = ConeLassoSplitting(tolerance=1e-12, max_steps=steps)
        found = split_cone_lasso(problem, settings=settings)
        assert found.steps == steps and found.status != Status.solved
        assert found.dual_objective <= best * (1 + 1e-8)
    broken = TrainingProblem(X, y, 0.1, activation=LeakyReLU(0.1))
    setting = ConeGroupLasso()
    data = setting.data(broken)
    data = jax.tree.map(lambda a: a * math.nan if a.ndim == 0 else a, data)
    assert split_cone_lasso(data).status == Status.nonfinite


# ----------------------------------------------------------------------
# Spike-free data


def spikes(X, rng):
    """How far relu(X u) leaves {X z : |z| <= 1}, over many u: 0 for spike-free data."""
    # Besides random ones, those that activate one row and hardly pass zero at another.
    rows = np.eye(len(X))
    pairs = [rows - size * rows[:, [k]] for size in (1e-3, 1e-1) for k in range(len(X))]
    u = np.linalg.pinv(X) @ np.hstack(pairs)
    u = np.hstack([rng.standard_normal((X.shape[1], 1000)), u])
    u = u[:, np.linalg.norm(u, axis=0) > 1e-9]
    u /= np.linalg.norm(u, axis=0)
    wanted = np.maximum(X @ u, 0)
    z = np.linalg.pinv(X) @ wanted
    outside = np.linalg.norm(X @ z - wanted, axis=0)
    return max(outside.max(), np.linalg.norm(z, axis=0).max() - 1)


def test_spike_free_data_are_recognised(rng):
    orthogonal = np.linalg.qr(rng.standard_normal((5, 5)))[0][:3]
    cases = {
        "whitened": (orthogonal, True),
        "scaled rows": (np.diag([1.0, 5.0, 0.1]) @ orthogonal, True),
        "zero and repeated rows": (np.vstack([orthogonal, 2 * orthogonal, np.zeros(5)]), True),
        "rank one": (np.outer([1.0, 2.0, 0.0], [1.0, -1.0]), True),
        "antiparallel": (np.outer([1.0, -1.0], [1.0, -1.0]), False),
        "acute": (np.array([[1.0, 0.0], [1.0, 1.0]]), True),
        "obtuse": (np.array([[1.0, 0.0], [-1.0, 1.0]]), False),
        "dependent": (rng.standard_normal((4, 3)), False),
    }
    for name, (X, expected) in cases.items():
        assert is_spike_free(X) == expected, name
        assert (spikes(X, rng) < 1e-9) == expected, name
    decided = []
    for _ in range(40):
        X = rng.standard_normal((3, 4)) + 0.7
        decided.append(is_spike_free(X))
        assert decided[-1] == (spikes(X, rng) < 1e-9)
    assert 0 < sum(decided) < 40


def test_one_pattern_suffices_for_spike_free_data(rng):
    """Eq. (26) is the global optimum there, which the sum over all patterns confirms."""
    X = rng.random((8, 1)) * np.eye(2)[rng.permutation(8) % 2]
    y = rng.standard_normal(8)
    problem = TrainingProblem(X, y, 0.1)
    patterns = np.tile(sign_patterns(X), (4, 1))
    one, every = (
        split(problem, spike_free_program(problem)),
        split(problem, ConeGroupLasso(patterns=patterns)),
    )
    assert one.weights.shape == (1, 2, 1, 2)
    np.testing.assert_allclose(one.objective, every.objective, rtol=1e-7)
    w = [cp.Variable(2) for _ in range(2)]
    printed = cp.sum_squares(X @ (w[0] - w[1]) - y) / 2 + 0.1 * (cp.norm(w[0]) + cp.norm(w[1]))
    expected = cp.Problem(cp.Minimize(printed), [X @ v >= 0 for v in w]).solve(solver="CLARABEL")
    np.testing.assert_allclose(one.objective, expected, rtol=1e-6)


# ----------------------------------------------------------------------
# What is refused


def test_bad_input(rng):
    X, y = draw(rng)
    plain = TrainingProblem(X, y, 0.1)
    labels = TrainingProblem(X, np.arange(8) % 3, 0.1, loss="softmax")
    cubic = TrainingProblem(X, y, 0.1, activation="polynomial")
    hinge = TrainingProblem(X, np.sign(y), 0.1, loss="hinge")
    half = ConeGroupLasso(patterns=np.ones((2, 7), bool))
    numbers = ConeGroupLasso(patterns=np.ones((2, 8)))
    kept = split(TrainingProblem(X, y, 0.1, activation=LeakyReLU(0.1)))
    short = dataclasses.replace(kept, weights=kept.weights[:, :, 1:])
    cases = [
        (lambda: ConeGroupLasso(norm=3), "norm must be 1, 2 or inf; got 3"),
        (lambda: ConeGroupLasso(patterns=np.ones(8, bool)), r"patterns must have shape \(P, n\)"),
        (lambda: solve(labels, ConeGroupLasso()), "losses that are sums over outputs.*softmax"),
        (lambda: solve(cubic, ConeGroupLasso()), "takes ReLU, leaky ReLU.*Polynomial"),
        (
            lambda: solve(hinge, ConeGroupLasso(), InteriorPoint()),
            "takes the squared loss; got 'hinge'",
        ),
        (lambda: solve(hinge, ConeGroupLasso(interpolate=True)), "numbers as targets"),
        (
            lambda: solve(plain, half),
            r"booleans of shape \(P, 8\); they are bool of shape \(2, 7\)",
        ),
        (lambda: solve(plain, numbers), "booleans .* they are float64"),
        (lambda: solve(plain, ConeGroupLasso(cone_features=X)), "patterns must be given with"),
        (
            lambda: solve(plain, ConeGroupLasso(patterns=np.ones((2, 8), bool), cone_features=y)),
            r"shape \(8, 2\); theirs is \(8,\)",
        ),
        (lambda: split_cone_lasso(plain, warm_start=short), "warm_start: expected"),
        (lambda: ConeLassoSplitting(tolerance=0.0), "`tolerance` must be > 0"),
        (lambda: ConeLassoSplitting(relaxation=2.0), r"`relaxation` must be in \(0, 2\)"),
        (lambda: ConeLassoSplitting(max_steps=0), "`max_steps` must be a positive integer"),
        (lambda: ConeLassoSplitting(max_steps=9.5), "`max_steps` must be a positive integer"),
        (lambda: ConeLassoSplitting(check_every=0), "`check_every` must be a positive integer"),
        (lambda: ConeLassoSplitting(tolerance="small"), "`tolerance` must be > 0"),
        (lambda: certify_residual(plain, y), "residual"),
        (lambda: refit(cubic, None), "refit takes a LeakyReLU"),
        (lambda: spike_free_program(plain), "not spike-free"),
        (lambda: is_spike_free(np.array([[np.nan]])), "finite"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()
    traced = functools.partial(TrainingProblem, Y=y, weight_decay=0.1)
    with pytest.raises(ValueError, match="patterns must be given where the data are traced"):
        jax.jit(lambda X: split_cone_lasso(traced(X)).objective)(X)
