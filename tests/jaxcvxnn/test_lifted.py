"""(lifted) as a cone program: its operators, its equilibration, and its optimum against references."""

from typing import Any

import cvxpy as cp
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcone import Splitting, Status
from jaxcone.extend import advance, combine, inner, subtract
from jaxcvxnn import TrainingProblem, solve
from jaxcvxnn.conic import LiftedData
from jaxcvxnn.conic.lifted import lifted_program, pair_mask, pair_multipliers
from jaxcvxnn.programs import LiftedSolution, SDPRelaxation, full_moments
from jaxcvxnn.reduction import lifted_data, reduce
from jaxcvxnn.studies import critical_width, expected_kernel

from .. import oracles

SOLVER = Splitting(tolerance=1e-8, max_steps=20_000, penalty=100.0, adapt_penalty=False)


@eqx.filter_jit
def compiled(data: LiftedData, solver: Splitting) -> LiftedSolution:
    return solve(data, method=solver)


def solved(data: LiftedData, solver: Splitting = SOLVER) -> LiftedSolution:
    """`solve`, compiled once per shape."""
    arrays = jax.tree.map(jnp.asarray, (data, solver))
    return compiled(*arrays)


# ----------------------------------------------------------------------
# The operators


@pytest.fixture
def data(rng) -> LiftedData:
    """Three directions of rank 2, two outputs, and one row that is no pair."""
    data = reduce(
        TrainingProblem(rng.standard_normal((3, 2)), rng.standard_normal((3, 2)), 0.3)
    ).data
    extra = np.abs(rng.standard_normal((1, 5)))
    return eqx.tree_at(lambda d: d.rows, data, np.vstack([data.rows, extra]))


@pytest.fixture
def program(data):
    return lifted_program(jax.tree.map(jnp.asarray, data))


def symmetric(rng, side):
    root = rng.standard_normal((side, side))
    return jnp.asarray(root + root.T)


def random_x(rng, program):
    return symmetric(rng, program.rows.shape[1] + program.targets.shape[1])


def random_s(rng, program):
    return random_x(rng, program), symmetric(rng, program.rows.shape[0])


def pair_matrices(program) -> np.ndarray:
    """(k, side, side): <G_i, x> is the pair entry i of W."""
    side, size = program.rows.shape[1] + program.targets.shape[1], program.rows.shape[1]
    rows, k = np.asarray(program.rows), program.pairs
    matrices = np.zeros((k, side, side))
    for i in range(k):
        half = np.outer(rows[i], rows[k + i])
        matrices[i, :size, :size] = (half + half.T) / 2
    return matrices


def symmetric_basis(side) -> np.ndarray:
    """An orthonormal basis of the symmetric matrices, (side (side + 1) / 2, side, side)."""
    basis = []
    for i in range(side):
        for j in range(i + 1):
            matrix = np.zeros((side, side))
            matrix[i, j] = matrix[j, i] = 1 if i == j else 0.5**0.5
            basis.append(matrix)
    return np.stack(basis)


def into_subspace(program, x):
    """The nearest x whose pair entries vanish."""
    normals = pair_matrices(program).reshape(program.pairs, -1).T
    weights, *_ = np.linalg.lstsq(normals, np.ravel(x), rcond=None)
    return jnp.asarray(x - (normals @ weights).reshape(x.shape))


def objective(program, x):
    return float(inner(x, program.quadratic(x)) / 2 + inner(program.linear(), x))


def test_pair_mask_marks_alpha_i_with_omega_i():
    mask = np.zeros((5, 5), bool)
    mask[[0, 2, 1, 3], [2, 0, 3, 1]] = True
    np.testing.assert_array_equal(pair_mask(5, 2), mask)


def test_the_adjoint_is_the_adjoint(program, rng):
    for _ in range(5):
        x, y = random_x(rng, program), random_s(rng, program)
        left, right = inner(program.operator(x), y), inner(x, program.adjoint(y))
        np.testing.assert_allclose(left, right, rtol=1e-12)


def test_the_operator_is_what_the_docstring_says(program, rng):
    x = random_x(rng, program)
    moments, products = program.operator(x)
    rows = np.asarray(program.rows)
    np.testing.assert_array_equal(moments, -x)
    np.testing.assert_allclose(products, -rows @ x[:5, :5] @ rows.T, atol=1e-13)
    assert all(not np.any(block) for block in program.offset())


def test_the_objective_is_the_loss_plus_the_decay(program, data, rng):
    x = random_x(rng, program)
    residual = data.readout @ x[:5, 5:] - data.targets
    expected = np.sum(residual**2) / 2 + 0.15 * np.trace(x[3:, 3:]) - np.sum(data.targets**2) / 2
    np.testing.assert_allclose(objective(program, x), expected, rtol=1e-12)
    # P is symmetric and positive semidefinite.
    other = random_x(rng, program)
    left, right = inner(other, program.quadratic(x)), inner(x, program.quadratic(other))
    np.testing.assert_allclose(left, right, rtol=1e-12)
    assert float(inner(x, program.quadratic(x))) >= 0


def test_projection_splits_off_the_polar_part(program, rng):
    # Moreau: s = p + q with p in K, q in the polar cone and <p, q> = 0.
    for _ in range(3):
        s = random_s(rng, program)
        moments, products = program.project(s)
        mask = np.asarray(pair_mask(7, 3))
        assert np.linalg.eigvalsh(moments)[0] >= -1e-14
        assert np.min(products) >= 0 and not np.any(np.asarray(products)[mask])
        rest = subtract(s, (moments, products))
        assert np.linalg.eigvalsh(rest[0])[-1] <= 1e-13
        assert np.max(np.asarray(rest[1])[~mask]) <= 0
        np.testing.assert_allclose(inner(rest, (moments, products)), 0, atol=1e-12)


@pytest.mark.parametrize("penalty", [1e-3, 1.0, 1e3])
def test_minimize_against_dense_equations(program, rng, penalty):
    """x from the KKT system in an explicit basis of the symmetric matrices."""
    target = random_s(rng, program)
    x = program.minimize(program.factor(), penalty, target, None)
    basis = symmetric_basis(7)
    flat = jax.vmap(lambda b: jnp.concatenate([jnp.ravel(a) for a in program.operator(b)]))(basis)
    A = np.asarray(flat).T
    P = np.einsum("aij,bij->ab", basis, np.asarray(jax.vmap(program.quadratic)(basis)))
    c = np.einsum("aij,ij->a", basis, np.asarray(program.linear()))
    G = np.einsum("aij,kij->ka", basis, pair_matrices(program))
    t = np.concatenate([np.ravel(block) for block in target])
    system = np.block([[P + penalty * A.T @ A, G.T], [G, np.zeros((3, 3))]])
    right = np.concatenate([penalty * A.T @ t - c, np.zeros(3)])
    expected = np.einsum("a,aij->ij", np.linalg.solve(system, right)[: len(basis)], basis)
    np.testing.assert_allclose(x, expected, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(x, x.T, rtol=0, atol=1e-12)


def test_minimize_is_stationary_in_its_subspace(program, rng):
    factor, target = program.factor(), random_s(rng, program)
    x = program.minimize(factor, 0.7, target, None)
    np.testing.assert_allclose(
        np.sum(pair_matrices(program) * np.asarray(x), (1, 2)), 0, atol=1e-11
    )
    pull = program.adjoint(subtract(program.operator(x), target))
    gradient = combine(1, combine(1, program.quadratic(x), 1, program.linear()), 0.7, pull)
    np.testing.assert_allclose(program.tangent(program.tangent_factor(), gradient), 0, atol=1e-10)


def test_tangent_is_the_orthogonal_projection(program, rng):
    gradient = random_x(rng, program)
    ours = program.tangent(program.tangent_factor(), gradient)
    np.testing.assert_allclose(ours, into_subspace(program, gradient), atol=1e-12)


def test_pair_multipliers_are_the_least_squares_ones(program, rng):
    rows, k = np.asarray(program.rows), program.pairs
    nu = rng.standard_normal(k)
    half = (rows[:k].T * nu) @ rows[k : 2 * k]
    gradient = jnp.asarray(half + half.T)
    np.testing.assert_allclose(pair_multipliers(program.rows, k, gradient), nu, rtol=1e-10)


def test_the_start_is_inside_the_cones(program):
    (moments, products), y = program.initial()
    assert np.linalg.eigvalsh(moments)[0] >= -1e-12 * float(jnp.trace(moments))
    mask = np.asarray(pair_mask(7, 3))
    assert np.min(products) >= 0 and not np.any(np.asarray(products)[mask])
    assert np.min(np.linalg.eigvalsh(moments[:5, :5])) > 0
    assert not any(np.any(block) for block in y)


# ----------------------------------------------------------------------
# Equilibration: the same program in other units


def test_scale_and_unscale_are_inverse(program, rng):
    scaled, scaling = program.equilibrate()
    x, s, y = random_x(rng, program), random_s(rng, program), random_s(rng, program)
    there = scaling.scale(s, y)
    _, *back = scaling.unscale(x, *there)
    for ours, given in zip(jax.tree.leaves(back), jax.tree.leaves((s, y)), strict=True):
        np.testing.assert_allclose(ours, given, rtol=1e-10, atol=1e-11)
    assert jax.tree.structure(scaled) == jax.tree.structure(program)


def test_equilibration_keeps_the_objective_and_the_equation(program, rng):
    scaled, scaling = program.equilibrate()
    x_scaled = random_x(rng, program)
    s_scaled = combine(-1, scaled.operator(x_scaled), 0, scaled.offset())
    x, s, _ = scaling.unscale(x_scaled, s_scaled, random_s(rng, program))
    # s = b - A x in one system of units is s = b - A x in the other.
    for ours, theirs in zip(s, program.operator(x), strict=True):
        np.testing.assert_allclose(ours, -theirs, rtol=1e-9, atol=1e-10)
    unit = float(scaling.scale_primal * scaling.scale_dual)
    np.testing.assert_allclose(objective(program, x), unit * objective(scaled, x_scaled), rtol=1e-9)


def test_equilibration_keeps_the_cones_and_the_pairs(program, rng):
    scaled, scaling = program.equilibrate()
    inside = scaled.project(random_s(rng, program))
    _, s, y = scaling.unscale(random_x(rng, program), inside, inside)
    for moments, products in (s, y):
        assert np.linalg.eigvalsh(moments)[0] >= -1e-12 * float(jnp.trace(moments))
        assert np.min(products) >= 0
    # A point whose pairs vanish in the scaled program has vanishing pairs in the user's.
    x, *_ = scaling.unscale(into_subspace(scaled, random_x(rng, program)), inside, inside)
    pairs = np.sum(pair_matrices(program) * np.asarray(x), (1, 2))
    np.testing.assert_allclose(pairs, 0, atol=1e-11 * float(jnp.max(jnp.abs(x))))


def test_equilibration_keeps_inner_products(program, rng):
    _, scaling = program.equilibrate()
    s, y = random_s(rng, program), random_s(rng, program)
    there = scaling.scale(s, y)
    unit = float(scaling.scale_primal * scaling.scale_dual)
    np.testing.assert_allclose(unit * inner(*there), inner(s, y), rtol=1e-9)


# ----------------------------------------------------------------------
# The optimum. The reduced data of all cases have one of two shapes: three directions of rank 2, two
# outputs, and three loss rows, or four where some direction occurs with both signs.


def plain(rng):
    return rng.standard_normal((3, 2)), 2 * rng.standard_normal((3, 2))


def duplicates(rng):
    X, Y = rng.standard_normal((5, 2)), 2 * rng.standard_normal((5, 2))
    X[3], X[4] = X[0], 2 * X[1]
    return X, Y


def zero_rows(rng):
    X, Y = rng.standard_normal((5, 2)), 2 * rng.standard_normal((5, 2))
    X[1] = X[3] = 0
    return X, Y


def antiparallel(rng):
    X, Y = rng.standard_normal((4, 2)), 2 * rng.standard_normal((4, 2))
    X[3] = -1.5 * X[0]
    return X, Y


def everything(rng):
    X, Y = rng.standard_normal((6, 2)), 2 * rng.standard_normal((6, 2))
    X[1], X[2], X[4] = X[0], -2 * X[0], 0
    return X, Y


@pytest.mark.slow
@pytest.mark.parametrize("make", [plain, duplicates, zero_rows, antiparallel, everything])
@pytest.mark.parametrize("weight_decay", [0.1, 0.02])
def test_optimum_of_the_printed_program(make, weight_decay, rng):
    X, Y = make(rng)
    reduction = reduce(TrainingProblem(X, Y, weight_decay))
    solution = solved(reduction.data)
    printed = oracles.paper_form(X, Y, weight_decay)
    options = {"tol_gap_abs": 1e-10, "tol_gap_rel": 1e-10, "tol_feas": 1e-10}
    reference = printed.solve(cp.CLARABEL, **options)
    assert bool(solution.status == Status.solved)
    np.testing.assert_allclose(float(solution.objective), reference, rtol=1e-4)
    np.testing.assert_allclose(float(solution.dual_objective), reference, rtol=1e-4)
    # The point itself: its printed objective, and the printed constraints to the solver's residual.
    Lambda = reduction.expand_moments(solution.moments)
    value = oracles.paper_objective(X, Y, weight_decay, Lambda)
    np.testing.assert_allclose(value, float(solution.objective), rtol=1e-9)
    residual = float(solution.residuals.primal) * np.linalg.norm(reduction.lift, 2) ** 2
    violations = oracles.paper_violations(X, Lambda)
    assert violations.semidefinite <= residual + 1e-12
    assert violations.nonnegative <= residual + 1e-12
    assert violations.equality <= 1e-9
    # And what it proves.
    bound = SDPRelaxation().certify(reduction, solution).lower_bound
    assert bound <= oracles.exact_rank2(X, Y, weight_decay)
    assert bound >= reference * (1 - 1e-4)


def test_solution_blocks_fit_together(rng):
    X, Y = plain(rng)
    reduction = reduce(TrainingProblem(X, Y, 0.1))
    data, solution = reduction.data, solved(reduction.data)
    moments = np.asarray(solution.moments)
    residual = data.readout @ moments[:5, 5:] - data.targets
    np.testing.assert_allclose(solution.residual, residual, atol=1e-13)
    penalty = 0.05 * np.trace(moments[3:, 3:])
    value = data.constant + np.sum(residual**2) / 2 + penalty
    np.testing.assert_allclose(float(solution.objective), value, rtol=1e-12)
    dual = data.constant - np.sum(residual * data.targets) - np.sum(residual**2) / 2
    np.testing.assert_allclose(float(solution.dual_objective), dual, rtol=1e-10)
    np.testing.assert_array_equal(solution.second_moment, moments[3:5, 3:5])
    N = np.asarray(solution.multipliers)
    np.testing.assert_allclose(N, N.T, atol=1e-10)
    assert N[np.asarray(data.nonnegative)].min() >= -1e-10
    M = oracles.dual_matrix(data.directions, residual, N, 0.1)
    # The oracle's M is for R on the samples themselves; these have unit length in `data`.
    reader = data.readout[:, :3].T @ residual
    M[:3, :3] += (residual @ residual.T - reader @ reader.T) / 0.2
    assert np.linalg.eigvalsh(M)[0] >= -1e-5


def test_kernel_of_the_learned_first_layer(rng):
    X, Y = plain(rng)
    reduction = reduce(TrainingProblem(X, Y, 0.1))
    Lambda = reduction.expand_moments(solved(reduction.data).moments)
    second = Lambda[6:8, 6:8]  # u follows three alpha and three omega
    X1 = rng.standard_normal((4, 2))
    kernel = expected_kernel(X, X1, second)
    np.testing.assert_allclose(kernel, X @ second @ X1.T, rtol=1e-13, atol=1e-13)
    # X u = alpha - omega on the samples.
    alpha, omega = Lambda[:3], Lambda[3:6]
    on_samples = (alpha - omega)[:, :3] - (alpha - omega)[:, 3:6]
    np.testing.assert_allclose(expected_kernel(X, X, second), on_samples, atol=1e-12)


@pytest.mark.parametrize(
    ("sizes", "width"), [((25, 2, 5), 1274), ((1, 50, 3), 55), ((1, 1, 1), 4), ((60, 2, 3), 7259)]
)
def test_critical_width(sizes, width):
    assert critical_width(*sizes) == width


@pytest.mark.parametrize("sizes", [(0, 1, 1), (1, -1, 1), (1, 1, 0)])
def test_critical_width_of_nothing(sizes):
    with pytest.raises(ValueError, match="must be positive"):
        critical_width(*sizes)


def test_the_default_program_is_the_relaxation(rng):
    problem = TrainingProblem(*plain(rng), 0.1)
    reduced = reduce(problem).data
    assert SDPRelaxation().data(reduced) is reduced
    np.testing.assert_array_equal(SDPRelaxation().data(problem).rows, lifted_data(problem).rows)


@pytest.mark.slow
def test_optimum_just_above_the_zero_network():
    # Two orthogonal samples decouple: p* = sum_i wd |y_i| - wd^2 / 2 = 2 where the zero network has
    # 2.25. No multiple of Gaussian moments does better than nothing here.
    reduction = reduce(TrainingProblem(np.eye(2), [1.5, -1.5], 1.0))
    solution = solved(reduction.data)
    assert SDPRelaxation().certify(reduction, solution).lower_bound <= 2
    np.testing.assert_allclose(float(solution.objective), 2, rtol=1e-4)
    np.testing.assert_allclose(
        SDPRelaxation().certify(reduction, solution).lower_bound, 2, rtol=1e-4
    )


def test_reduced_data_without_64_bits(rng):
    """`solve(reduce(problem).data)` in JAX's default precision: float32 throughout, no warning."""
    data = reduce(TrainingProblem(*plain(rng), 0.1)).data
    with jax.enable_x64(False):
        program = jax.tree.map(jnp.asarray, lifted_program(data))
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(program))


# ----------------------------------------------------------------------
# Many at once


def rotation(angle):
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


@eqx.filter_jit
def batch(X: Any, Y: Any, weight_decay: Any) -> LiftedSolution:
    def one(X, Y, weight_decay):
        return solve(TrainingProblem(X, Y, weight_decay), method=SOLVER)

    return jax.vmap(one)(X, Y, weight_decay)


@pytest.fixture(scope="module")
def lanes():
    """(X, Y, weight decay, factor of the optimum): one problem, five disguises, and another."""
    rng = np.random.default_rng(20250801)
    X, Y = plain(rng)
    order = [2, 0, 1]
    variants = [
        (X, Y, 0.1, 1.0),
        (7 * X, Y, 0.7, 1.0),
        (X, 3 * Y, 0.3, 9.0),
        (X[order], Y[order], 0.1, 1.0),
        (X @ rotation(0.7), Y, 0.1, 1.0),
        (X, Y @ rotation(-1.1), 0.1, 1.0),
        (*plain(rng), 0.02, np.nan),
    ]
    return tuple(np.stack([np.asarray(v[i]) for v in variants]) for i in range(4))


@pytest.mark.slow
def test_optimum_is_invariant(lanes):
    *data, factor = lanes
    found = batch(*data)
    assert np.all(found.status == Status.solved)
    expected = factor[:6] * float(found.objective[0])
    np.testing.assert_allclose(found.objective[:6], expected, rtol=1e-5)
    expected = factor[:6] * float(found.dual_objective[0])
    np.testing.assert_allclose(found.dual_objective[:6], expected, rtol=1e-5)


@pytest.mark.slow
def test_a_batch_is_a_loop(lanes):
    *data, _ = lanes
    found = batch(*data)
    for lane in (0, 6):
        alone = solved(lifted_data(TrainingProblem(*(part[lane] for part in data))))
        np.testing.assert_allclose(alone.objective, found.objective[lane], rtol=1e-6)
        np.testing.assert_allclose(alone.moments, found.moments[lane], atol=1e-3)
        assert bool(alone.status == Status.solved) == bool((found.status == Status.solved)[lane])
        # What a lane proves is certified for its own problem.
        problem = TrainingProblem(*(part[lane] for part in data))
        bound = SDPRelaxation().certify(problem, alone).lower_bound
        exact = oracles.exact_rank2(problem.X, problem.Y, float(problem.weight_decay))
        assert 0.999 * float(alone.objective) <= bound <= exact
    # Lanes end on their own.
    assert len(set(np.asarray(found.steps).tolist())) > 1


@pytest.mark.slow
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_a_bad_lane_is_alone(lanes, bad):
    X, Y, weight_decay, _ = lanes
    clean = batch(X, Y, weight_decay)
    spoiled = X.copy()
    spoiled[3, 1, 0] = bad
    found = batch(spoiled, Y, weight_decay)
    others = [0, 1, 2, 4, 5, 6]
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(clean), strict=True):
        np.testing.assert_array_equal(ours[np.array(others)], theirs[np.array(others)])
    if not np.isfinite(bad):
        assert bool((found.status == Status.nonfinite)[3])
        assert int(found.steps[3]) < 1000
    assert not bool((found.status == Status.solved)[3])


@pytest.mark.slow
def test_float32(rng):
    X, Y = (a.astype(np.float32) for a in plain(rng))
    reduction = reduce(TrainingProblem(X, Y, 0.125))
    small = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), reduction.data)
    solver = Splitting(penalty=100.0, adapt_penalty=False, max_steps=5000)
    solution = solved(small, solver)
    assert all(
        leaf.dtype == jnp.float32
        for leaf in jax.tree.leaves((solution.moments, solution.multipliers, solution.objective))
    )
    wide = solved(reduction.data)
    assert bool(solution.status == Status.solved)
    np.testing.assert_allclose(solution.objective, wide.objective, rtol=1e-2)
    bound = SDPRelaxation().certify(reduction, solution).lower_bound
    assert bound <= oracles.exact_rank2(X, Y, 0.125)
    assert bound >= 0.98 * float(wide.objective)


def test_more_blocks_need_no_new_compilation(rng, caplog):
    """The chunk of a solve is compiled once per program shape, whatever its length."""
    program = lifted_program(
        jax.tree.map(jnp.asarray, reduce(TrainingProblem(*plain(rng), 0.1)).data)
    )
    solver = Splitting(memory=0, check_every=10)
    solution = advance(program, solver, blocks=2)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        advance(program, solver, solution, blocks=3)
    again = [
        r.getMessage()[:60] for r in caplog.records if "Compiling jit(_chunk" in r.getMessage()
    ]
    assert again == []


@pytest.mark.slow
def test_full_moments_of_an_unreduced_solution(rng):
    X, Y = plain(rng)
    problem = TrainingProblem(X, Y, 0.1)
    solution = solved(lifted_data(problem))
    Lambda = np.asarray(full_moments(problem, solution))
    assert Lambda.shape == (10, 10)
    value = oracles.paper_objective(X, Y, 0.1, Lambda)
    np.testing.assert_allclose(value, float(solution.objective), rtol=1e-10)
    violations = oracles.paper_violations(X, Lambda)
    assert violations.largest <= 1e-5
    assert violations.equality <= 1e-10
    reduced = reduce(problem)
    theirs = reduced.expand_moments(solved(reduced.data).moments)
    np.testing.assert_allclose(Lambda, theirs, atol=1e-3)
