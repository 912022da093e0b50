"""Derivatives of solutions and of optimal values, against differences and closed forms."""

import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

import jaxcone
import jaxcvxnn
from jaxcone import PSD, ConeProgram, Nonnegative, SecondOrder, Splitting, Status, Zero
from jaxcone.cones import svec_of_numpy

module = sys.modules["jaxcone.adjoint"]  # `jaxcone.adjoint` is the function of that name

# (cones, n, curved). Without P the number of unknowns lies where both points are unique.
FAMILIES = {
    "lp": ([Zero(1), Nonnegative(5)], 3, False),
    "qp": ([Zero(1), Nonnegative(5)], 4, True),
    "soc": ([SecondOrder(3), SecondOrder(3)], 3, False),
    "psd": ([PSD(3)], 3, False),
    "mixed": ([PSD(3), Nonnegative(3), Zero(1), SecondOrder(3)], 6, True),
}
CASES = [
    (name, field) for name in FAMILIES for field in "PcAb" if field != "P" or FAMILIES[name][2]
]
STEP = 1e-4


def complementary(rng, cone):
    """s in K and y in K*, strictly complementary and away from kinks."""
    if isinstance(cone, Nonnegative):
        size, of_y = rng.uniform(0.5, 1.5, cone.size), np.arange(cone.size) < 2
        return np.where(of_y, 0, size), np.where(of_y, size, 0)
    if isinstance(cone, SecondOrder):  # both on the boundary
        unit = rng.standard_normal(cone.size - 1)
        unit /= np.linalg.norm(unit)
        lengths = rng.uniform(0.5, 1.5, 2)
        return lengths[0] * np.append(1, unit), lengths[1] * np.append(1, -unit)
    if isinstance(cone, PSD):  # rank one for y, the rest for s
        vectors, values = rotation(rng, cone.side), rng.uniform(0.5, 1.5, cone.side)
        of_y = np.arange(cone.side) < 1
        return spectral(vectors, values * ~of_y), spectral(vectors, values * of_y)
    return np.zeros(cone.rows), rng.standard_normal(cone.rows)


def rotation(rng, side):
    return np.linalg.qr(rng.standard_normal((side, side)))[0]


def spectral(vectors, values):
    return svec_of_numpy((vectors * values) @ vectors.T)


def drawn(family, change=lambda A, s, y: None, seed=3):
    """(program, (x, s, y)) with that optimum, in NumPy; `change` may make it degenerate.

    The seed is one that gives all families a well-conditioned derivative (norm 2 to 30).
    """
    rng = np.random.default_rng(seed)
    cones, n, curved = FAMILIES[family]
    pairs = [complementary(rng, cone) for cone in cones]
    s, y = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    A, x = rng.standard_normal((len(s), n)), rng.standard_normal(n)
    change(A, s, y)
    root = rng.standard_normal((n, n))
    P = root @ root.T / n + np.eye(n) if curved else np.zeros((n, n))
    program = ConeProgram(P if curved else None, -P @ x - A.T @ y, A, A @ x + s, cones)
    # NumPy's arrays: with JAX's, each operation of a test on each shape would be compiled.
    return to(float, program), (x, s, y)


def to(dtype, tree):
    return jax.tree.map(lambda leaf: np.array(leaf, dtype), tree)


def arrays(program):
    """The program's data by name."""
    named = {"c": program.c, "A": program.A.entries, "b": program.b}
    return named if program.P is None else {"P": program.P.entries, **named}


def random_like(rng, tree):
    return jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(leaf.dtype), tree)


def direction_of(rng, program, field):
    """A program that holds a random direction in one field, symmetric for P, and zeros elsewhere."""
    zero = jax.tree.map(np.zeros_like, program)
    move = rng.standard_normal(arrays(program)[field].shape)
    if field == "P":
        move = (move + move.T) / 2
    return eqx.tree_at(lambda p: arrays(p)[field], zero, move)


def moved(program, direction, step):
    return jax.tree.map(lambda a, d: a + step * d, program, direction)


def inner(left, right):
    return sum(jax.tree.leaves(jax.tree.map(lambda a, b: float(np.sum(a * b)), left, right)))


def assert_close(left, right, rtol):
    """Every leaf agrees relative to the size of the whole."""
    size = max(float(np.max(np.abs(leaf))) for leaf in jax.tree.leaves(right))
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * size)


def plain(tolerance, max_steps=20_000):
    """Without acceleration it compiles faster."""
    return Splitting(tolerance=tolerance, max_steps=max_steps, memory=0)


def outputs(program):
    tolerance = 1e-12 if program.c.dtype == jnp.float64 else 1e-5
    found = jaxcone.solve(program, plain(tolerance))
    return found.x, found.s, found.y, found.primal_objective, found.dual_objective


@jax.jit
def differentiate(program, direction, cotangent):
    """(outputs, their jvp, their vjp): one compilation, and one solve, for each shape."""
    values, push = jax.linearize(outputs, program)
    (pulled,) = jax.linear_transpose(push, program)(cotangent)
    return values, push(direction), pulled


adjoint = jax.jit(jaxcone.adjoint)


def cotangent_of(program, x=0.0, s=0.0, y=0.0, primal=0.0, dual=0.0):
    """Cotangents of `outputs`; a number stands for all entries."""
    n, m = program.c.shape, program.b.shape
    pairs = zip((x, s, y, primal, dual), (n, m, m, (), ()), strict=True)
    return tuple(np.broadcast_to(np.asarray(value, float), shape) for value, shape in pairs)


def zeros(program):
    return cotangent_of(program)


def tangent_of(program, direction):
    return differentiate(program, direction, zeros(program))[1]


def central_differences(program, direction):
    ends = [
        differentiate(moved(program, direction, h), direction, zeros(program))[0]
        for h in (STEP, -STEP)
    ]
    return jax.tree.map(lambda a, b: (np.asarray(a) - b) / (2 * STEP), *ends)


# --- first derivatives ----------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "field"), CASES)
def test_jvp_is_the_limit_of_differences(rng, family, field):
    program, points = drawn(family)
    direction = direction_of(rng, program, field)
    values, tangent, _ = differentiate(program, direction, zeros(program))
    assert_close(values[:3], points, 1e-9)
    differences = central_differences(program, direction)
    assert inner(differences, differences) > 1e-4  # something moves
    assert_close(tangent[:3], differences[:3], 1e-5)
    assert_close(tangent[3:], differences[3:], 1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_vjp_is_the_transpose_of_jvp(rng, family):
    program, _ = drawn(family)
    direction, cotangent = random_like(rng, program), random_like(rng, zeros(program))
    _, tangent, gradient = differentiate(program, direction, cotangent)
    size = np.sqrt(inner(gradient, gradient) * inner(direction, direction))
    assert abs(inner(cotangent, tangent) - inner(gradient, direction)) <= 1e-10 * size


@pytest.mark.parametrize("which", ["primal", "dual"])
@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_of_the_value_is_read_off_the_points(rng, family, which):
    program, (x, _, y) = drawn(family)
    cotangent = cotangent_of(program, **{which: 1.0})
    gradient = differentiate(program, random_like(rng, program), cotangent)[2]
    expected = {"P": np.outer(x, x) / 2, "c": x, "A": np.outer(y, x), "b": -y}
    for name, found in arrays(gradient).items():
        np.testing.assert_allclose(found, expected[name], atol=1e-9)


@pytest.mark.parametrize("family", ["lp", "mixed"])
def test_adjoint_is_the_vjp_with_a_small_residual(rng, family):
    program, points = drawn(family)
    cotangents = random_like(rng, points)
    gradient, residual = adjoint(program, points, cotangents)
    cotangent = cotangent_of(program, *cotangents)
    assert_close(gradient, differentiate(program, program, cotangent)[2], 1e-8)
    assert float(residual) < 1e-11


def test_jacobian_under_jit_is_the_inverse_of_the_active_rows(rng):
    program, (_, _, y) = drawn("lp")

    @jax.jit
    @jax.jacrev
    def jacobian(b):
        return jaxcone.solve(eqx.tree_at(lambda p: p.b, program, b), plain(1e-10)).x

    active = np.flatnonzero(y)
    expected = np.zeros((3, 6))
    expected[:, active] = np.linalg.inv(np.asarray(program.A.entries)[active])
    np.testing.assert_allclose(jacobian(program.b), expected, atol=1e-7)


def test_vmapped_gradients_are_those_of_a_loop_and_infeasible_lanes_are_nan(rng):
    programs = [drawn("qp", seed=seed)[0] for seed in (2, 3, 4)]
    A, b = programs[1].A.entries, programs[1].b
    # a'x <= -1 and -a'x <= -1
    A[2], b[1:3] = -A[1], -1
    weights = rng.standard_normal(4)

    def loss(program):
        found = jaxcone.solve(program, plain(1e-12))
        return weights @ found.x + found.primal_objective, found.status

    batch = jax.tree.map(lambda *leaves: np.stack(leaves), *programs)
    gradients, status = jax.jit(jax.vmap(jax.grad(loss, has_aux=True)))(batch)
    assert list(status == Status.solved) == [True, False, True]
    assert (status == Status.primal_infeasible)[1]
    for name, lanes in arrays(gradients).items():
        assert np.all(np.isnan(lanes[1])), name
    for lane in (0, 2):
        cotangent = cotangent_of(programs[lane], x=weights, primal=1.0)
        expected = differentiate(programs[lane], programs[lane], cotangent)[2]
        assert_close(jax.tree.map(lambda leaf, i=lane: leaf[i], gradients), expected, 1e-8)


# --- second derivatives ---------------------------------------------------------------------------


def test_second_derivatives_of_points_and_value(rng):
    program, _ = drawn("qp")
    first, second = (random_like(rng, program) for _ in range(2))
    # A P that is not symmetric is no program: both directions keep it symmetric.
    first, second = (
        eqx.tree_at(lambda p: p.P.entries, d, (d.P.entries + d.P.entries.T) / 2)
        for d in (first, second)
    )

    @jax.jit
    def twice(program):
        def once(program):
            return jax.jvp(outputs, (program,), (first,))[1]

        return jax.jvp(once, (program,), (second,))[1]

    ends = [
        differentiate(moved(program, second, h), first, zeros(program))[1] for h in (STEP, -STEP)
    ]
    differences = jax.tree.map(lambda a, b: (np.asarray(a) - b) / (2 * STEP), *ends)
    assert_close(twice(program)[:3], differences[:3], 1e-5)
    assert_close(twice(program)[3:], differences[3:], 1e-5)


# --- degenerate points ----------------------------------------------------------------------------

# Rows of "mixed": 0-5 PSD, 6-8 Nonnegative (6 and 7 active), 9 Zero, 10-12 SecondOrder.


def same_active_rows(A, s, y):
    A[7] = A[6]


def weakly_active(A, s, y):
    y[6] = 0


def shared_kernel(A, s, y):
    vectors = rotation(np.random.default_rng(0), 3)
    s[:6], y[:6] = spectral(vectors, [1, 0, 0]), spectral(vectors, [0, 0, 1])


def apex(A, s, y):
    s[10:] = y[10:] = 0


@pytest.mark.parametrize("change", [same_active_rows, weakly_active, shared_kernel, apex])
def test_derivatives_are_finite_at_degenerate_points(rng, change):
    program, points = drawn("mixed", change)
    direction = random_like(rng, program)
    cotangent = random_like(rng, zeros(program))
    values, tangent, gradient = differentiate(program, direction, cotangent)
    np.testing.assert_allclose(values[0], points[0], atol=1e-6)
    exact, _ = adjoint(program, points, cotangent[:3])  # at the kink itself
    for leaf in jax.tree.leaves((tangent, gradient, exact)):
        assert np.all(np.isfinite(leaf))
        assert np.max(np.abs(leaf)) < 1e4
    size = np.sqrt(inner(gradient, gradient) * inner(direction, direction))
    assert abs(inner(cotangent, tangent) - inner(gradient, direction)) <= 1e-10 * size


def test_at_a_weakly_active_row_the_jvp_is_one_of_the_one_sided_derivatives(rng):
    program, _ = drawn("mixed", weakly_active)
    direction = direction_of(rng, program, "b")
    centre, tangent, _ = differentiate(program, direction, zeros(program))
    sides = [
        differentiate(moved(program, direction, h), direction, zeros(program))[0][0]
        for h in (STEP, -STEP)
    ]
    slopes = [(end - centre[0]) / h for end, h in zip(sides, (STEP, -STEP), strict=True)]
    gaps = [float(np.max(np.abs(tangent[0] - slope))) for slope in slopes]
    assert min(gaps) < 1e-2 * max(gaps)


def test_the_residual_of_adjoint_shows_an_undetermined_direction(rng):
    program, (x, s, y) = drawn("mixed", same_active_rows)
    toward = np.zeros(13)
    toward[6:8] = 1, -1  # y may move along this: the rows are the same
    _, along = adjoint(program, (x, s, y), (0 * x, 0 * s, toward))
    _, across = adjoint(program, (x, s, y), (0 * x, 0 * s, np.abs(toward)))
    _, primal = adjoint(program, (x, s, y), (x, s, 0 * y))
    np.testing.assert_allclose(along, 1, atol=1e-6)
    assert max(float(across), float(primal)) < 1e-8


# --- structured maps, large programs, precision ---------------------------------------------------


def structured_case(rng):
    """A dense QP with diagonal P, weights w, and the gradient of w'x."""
    lp, (x, s, y) = drawn("lp")
    P = np.diag([1.0, 2.0, 3.0])
    program = ConeProgram(P, lp.c - P @ x, lp.A.entries, lp.b, lp.cones)  # the same optimum
    weights = rng.standard_normal(3)
    return program, weights, adjoint(program, (x, s, y), (weights, 0 * s, 0 * y))[0]


def weighted(weights, program):
    return weights @ jaxcone.solve(program, plain(1e-11)).x


def test_lineax_operators_have_the_gradient_of_the_dense_program(rng):
    dense, weights, expected = structured_case(rng)
    P = lx.DiagonalLinearOperator(jnp.asarray(np.diag(dense.P.entries)))
    A = lx.MatrixLinearOperator(jnp.asarray(dense.A.entries))
    program = ConeProgram(P, dense.c, A, dense.b, dense.cones)
    found = jax.jit(jax.grad(lambda p: weighted(weights, p)))(program)
    np.testing.assert_allclose(found.c, expected.c, atol=1e-7)
    np.testing.assert_allclose(found.b, expected.b, atol=1e-7)
    np.testing.assert_allclose(found.A.operator.matrix, expected.A.entries, atol=1e-7)
    np.testing.assert_allclose(found.P.operator.diagonal, np.diag(expected.P.entries), atol=1e-7)


def test_callables_have_the_gradient_of_the_dense_program(rng):
    dense, weights, expected = structured_case(rng)
    P, A = dense.P.entries, dense.A.entries

    @jax.jit
    @jax.grad
    def gradient(vectors):
        pair = (lambda x: A @ x, lambda y: A.T @ y)
        return weighted(
            weights, ConeProgram(lambda x: P @ x, vectors[0], pair, vectors[1], dense.cones)
        )

    found = gradient((dense.c, dense.b))
    np.testing.assert_allclose(found[0], expected.c, atol=1e-7)
    np.testing.assert_allclose(found[1], expected.b, atol=1e-7)


def test_large_programs_have_the_same_derivatives(rng, monkeypatch):
    program, points = drawn("mixed")
    direction, cotangents = random_like(rng, program), random_like(rng, points)
    monkeypatch.setattr(module, "LARGEST_DENSE", 0)

    @jax.jit  # a new function: nothing is cached of it from before the change
    def by_products(program):
        tangent = jax.jvp(lambda p: module.attach(p, points), (program,), (direction,))[1]
        return tangent, *jaxcone.adjoint(program, points, cotangents)

    tangent, gradient, residual = by_products(program)
    _, *expected = differentiate(program, direction, cotangent_of(program, *cotangents))
    assert_close(tangent, expected[0][:3], 1e-8)
    assert_close(gradient, expected[1], 1e-8)
    assert float(residual) < 1e-10


def test_float32_stays_float32(rng):
    program, _ = drawn("qp")
    direction = to(np.float32, direction_of(rng, program, "b"))
    cotangent = to(np.float32, random_like(rng, zeros(program)))
    found = differentiate(to(np.float32, program), direction, cotangent)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype(np.float32)}
    expected = differentiate(program, to(float, direction), to(float, cotangent))
    assert_close(found[1], expected[1], 1e-2)
    assert_close(found[2], expected[2], 1e-2)


@pytest.mark.parametrize(
    "dtype",
    [
        np.float32,
        np.float64,
    ],
)
def test_a_zero_cotangent_has_a_zero_gradient_and_no_residual(dtype):
    program, points = to(dtype, drawn("lp"))
    gradient, residual = adjoint(program, points, jax.tree.map(np.zeros_like, points))
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(gradient))
    assert residual.dtype == dtype and float(residual) == 0


# --- training problems, and solves that fail ------------------------------------------------------


def test_derivatives_of_a_training_problem(rng):
    # The value by its weight decay and its data; the subspace of x depends on X.
    @jax.jit
    def value_and_slope(problem, direction):
        def value(problem):
            given = jaxcvxnn.TrainingProblem(*problem)
            solver = Splitting(tolerance=1e-9, max_steps=20_000)
            return jaxcvxnn.solve(given, method=solver).objective

        return jax.jvp(value, (problem,), (direction,))

    problem = rng.standard_normal((3, 2)), rng.standard_normal(3), np.array(0.1)
    for part in range(3):
        direction = [np.zeros_like(array) for array in problem]
        direction[part] = np.asarray(rng.standard_normal(problem[part].shape))
        direction = tuple(direction)
        _, slope = value_and_slope(problem, direction)
        (above, _), (below, _) = (
            value_and_slope(moved(problem, direction, h), direction) for h in (STEP, -STEP)
        )
        np.testing.assert_allclose(slope, (above - below) / (2 * STEP), rtol=1e-4)


def test_throw_raises_with_the_solution_and_only_outside_jit(rng):
    program, (x, _, _) = drawn("lp")
    with pytest.raises(jaxcone.NotSolved, match="after 50 steps") as caught:
        jaxcone.solve(program, plain(1e-30, max_steps=1), throw=True)
    assert caught.value.solution.status != Status.solved
    assert int(caught.value.solution.steps) == 50
    found = jaxcone.solve(program, plain(1e-10), throw=True)
    np.testing.assert_allclose(found.x, x, atol=1e-7)
    with pytest.raises(ValueError, match="throw"):
        jax.eval_shape(lambda p: jaxcone.solve(p, throw=True), program)
