"""The interior-point method: the contract of the splitting method, at higher accuracy."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.optimize

import jaxcone
from jaxcone import PSD, ConeProgram, InteriorPoint, Nonnegative, SecondOrder, Zero

from ..helpers import Known, data, dimacs, known_program, lane, nearest, recomputed, stack
from .test_adjoint import (
    STEP,
    arrays,
    assert_close,
    cotangent_of,
    direction_of,
    drawn as curved,
    inner,
    moved,
    random_like,
    zeros,
)
from .test_bounds import integer_program
from .test_cone_program import (
    CASES,
    DECADES,
    INFEASIBLE,
    SOLVED,
    UNBOUNDED,
    Case,
    Group,
    assert_descent,
    assert_farkas,
    assert_no_point,
    assert_no_ray,
    infeasible_program,
    kind,
    kinds,
    lanes,
    single,
    unbounded_program,
)
from .test_splitting import points, replaced, traces as traces, with_number

# One compilation for each shape.
solve = jaxcone.solve  # compiled inside, as the tests that call it by that name are
solve_batch = jax.jit(jax.vmap(jaxcone.solve, in_axes=(0, None)))
SEEDS = len(DECADES)


def assert_honest(program, solution, tolerance=1e-8):
    """Residuals are those of the returned arrays, the status follows from them, s in K, y in K*."""
    size = 1e-10 * (1 + sum(float(np.linalg.norm(part)) ** 2 for part in points(solution)[1:]))
    for name, value in recomputed(program, solution).items():
        np.testing.assert_allclose(getattr(solution.residuals, name), value, rtol=1e-9, atol=size)
    assert solution.primal_objective == solution.residuals.primal_objective
    assert solution.dual_objective == solution.residuals.dual_objective
    found = float(solution.residuals.worst)
    if found <= tolerance:
        assert kind(solution) == "solved"
    elif found <= 100 * tolerance:
        assert kind(solution) == "inaccurate"
    else:
        assert kind(solution) in ("max_steps", "stalled")
    assert_no_ray(solution)
    cones, s, y = program.cones.cones, np.asarray(solution.s), np.asarray(solution.y)
    size = 1e-12 * float(1 + np.linalg.norm(s) + np.linalg.norm(y))
    np.testing.assert_allclose(s, nearest(cones, s), rtol=0, atol=size)
    np.testing.assert_allclose(nearest(cones, -y), 0, atol=size)
    entries = np.repeat([isinstance(k, Nonnegative) for k in cones], [k.rows for k in cones])
    assert np.all(s[program.cones.equalities()] == 0)  # to the last bit, like these:
    assert np.min(s[entries], initial=0) >= 0 and np.min(y[entries], initial=0) >= 0


def assert_optimal(known: Known, solution, tolerance=1e-8):
    assert kind(solution) == "solved"
    assert_honest(known.program, solution, tolerance)
    errors = dimacs(known.program, solution.x, solution.s, solution.y)
    assert np.max(np.abs(errors[:5])) <= tolerance * (1 + 1e-6)
    # Complementarity is the gap, plus what the residuals take from it: they are relative to the data.
    assert abs(errors[5]) <= 100 * tolerance
    error = abs(float(solution.primal_objective) - known.value)
    assert error <= 100 * tolerance * (1 + abs(known.value))


# --- optima, and programs without ----------------------------------------------------------------

SIXTY = [Zero(6), Nonnegative(60), SecondOrder(20), SecondOrder(20), PSD(10), PSD(10)]
# Programs of the splitting method's contract, the largest of them replaced by a larger one.
OWN_CASES = {name: case for name, case in CASES.items() if name != "middle"} | {
    "nonnegative": Case(5, [Nonnegative(9)]),
    "one unknown": Case(1, [SecondOrder(3)]),
    "sixty": Case(60, SIXTY),
}


@functools.cache
def groups(name: str) -> dict[str, Group]:
    """Solvable, infeasible and unbounded programs of one shape, all solved as one batch."""
    case, known = OWN_CASES[name], []
    infeasible, unbounded = [], []
    for seed, decades in enumerate(DECADES):
        rng = np.random.default_rng(seed)
        settings = {"curvature": case.curvature, "decades": decades}
        known.append(known_program(rng, case.size, case.cones, **settings))
        infeasible.append(infeasible_program(rng, case, decades))
        unbounded.append(unbounded_program(rng, case, decades))
    programs = [k.program for k in known] + infeasible + unbounded
    found = lanes(solve_batch(stack(*programs), InteriorPoint()))
    return {
        name: Group(known, programs[k * SEEDS :][:SEEDS], found[k * SEEDS :][:SEEDS])
        for k, name in enumerate(["known", "infeasible", "unbounded"])
    }


@pytest.mark.parametrize("name", OWN_CASES)
def test_finds_the_known_optimum(name):
    group = groups(name)["known"]
    for known, solution in zip(group.known, group.solutions, strict=True):
        assert_optimal(known, solution)
        assert int(solution.steps) < 15


@pytest.mark.parametrize("name", OWN_CASES)
def test_infeasible_programs_come_with_a_proof(name):
    group = groups(name)["infeasible"]
    assert kinds(group.solutions) == ["primal_infeasible"] * SEEDS
    for program, solution in zip(group.programs, group.solutions, strict=True):
        assert_farkas(program, solution)
        assert_no_point(solution, value=np.inf)


@pytest.mark.parametrize("name", OWN_CASES)
def test_unbounded_programs_come_with_a_ray(name):
    group = groups(name)["unbounded"]
    assert kinds(group.solutions) == ["dual_infeasible"] * SEEDS
    for program, solution in zip(group.programs, group.solutions, strict=True):
        assert_descent(program, solution)
        assert_no_point(solution, value=-np.inf)


# --- precision ----------------------------------------------------------------------


def test_float32():
    group = groups("blocks")
    programs = [p for name in group for p in group[name].programs[:4]]
    found = solve_batch(stack(*(single(program) for program in programs)), InteriorPoint())
    floats = [a.dtype for a in jax.tree.leaves(found) if jnp.issubdtype(a.dtype, jnp.floating)]
    assert set(floats) == {np.dtype(np.float32)}
    found = lanes(found)
    assert kinds(found) == [SOLVED] * 4 + [INFEASIBLE] * 4 + [UNBOUNDED] * 4
    for k in range(4):
        errors = dimacs(programs[k], *points(found[k]))
        assert np.max(np.abs(errors[:5])) <= 1.1e-4
        assert_farkas(programs[4 + k], found[4 + k], miss=1.1e-3)
        assert_descent(programs[8 + k], found[8 + k], miss=1.1e-3)


# --- batches --------------------------------------------------------------------------------------

MIXED = [Zero(1), Nonnegative(3), PSD(3)]


def drawn(seed: int) -> Known:
    return known_program(np.random.default_rng(seed), 5, MIXED)


@functools.cache
def batch():
    """Sixteen programs, and the same with three spoilt; the solutions of both."""
    good = stack(*(drawn(seed).program for seed in range(16)))
    A = good.A.entries.at[3, 1].set(0).at[4, :, 0].set(0)
    P = good.P.entries.at[4, 0].set(0).at[4, :, 0].set(0)
    b = good.b.at[3, 1].set(-1)  # 0'x + s = -1, s >= 0
    c = good.c.at[4, 0].set(1).at[1, 0].set(jnp.nan)  # min x_0 where x_0 is free
    bad = replaced(good, P=P, A=A, b=b, c=c)
    return bad, lanes(solve_batch(good, InteriorPoint())), lanes(solve_batch(bad, InteriorPoint()))


BAD = {1: "nonfinite", 3: "primal_infeasible", 4: "dual_infeasible"}


def test_lanes_keep_to_themselves():
    _, among_good, among_bad = batch()
    assert {k: kind(among_bad[k]) for k in BAD} == BAD
    assert int(among_bad[1].steps) == 1
    others = [k for k in range(16) if k not in BAD]
    assert len({int(among_good[k].steps) for k in others}) > 1  # some are frozen while others go on
    for k in others:
        chex.assert_trees_all_equal(among_bad[k], among_good[k])  # bit for bit


def test_a_batch_is_a_loop():
    # Fused multiply-adds differ between a batch and a single program, as for `Splitting`.
    bad, _, among_bad = batch()
    for k in range(6):
        one, alone = among_bad[k], solve(lane(bad, k), InteriorPoint())
        assert kind(one) == kind(alone) and int(one.steps) == int(alone.steps)
        if k not in BAD:
            chex.assert_trees_all_close(points(one), points(alone), atol=1e-10, rtol=1e-10)


FACTORISATIONS = {"cholesky", "eigh", "triangular_solve", "lu", "qr", "svd"}
LOOPS = {"while", "scan", "cond"}


def unordered(jaxpr) -> list[str]:
    """The factorisations in a jaxpr that do not depend, by data, on all that stand before them.

    Bodies of loops are looked at on their own; a loop with factorisations counts as one.
    """
    alone: list[str] = []

    def inner(equation):
        for value in equation.params.values():
            for part in value if isinstance(value, tuple | list) else [value]:
                body = getattr(part, "jaxpr", part)
                if hasattr(body, "eqns"):
                    yield body

    def walk(jaxpr, given, every):
        """What each output depends on; `every` collects all factorisations."""
        depends = dict(zip(jaxpr.invars, given, strict=True))

        def of(variables):
            # Literals, which have a value, depend on nothing.
            return [set() if hasattr(v, "val") else depends.get(v, set()) for v in variables]

        for equation in jaxpr.eqns:
            bodies, name = list(inner(equation)), equation.primitive.name
            given = of(equation.invars)
            before = set().union(*given)
            if len(bodies) == 1 and len(bodies[0].invars) == len(given) and name not in LOOPS:
                results = walk(bodies[0], given, every)
            else:
                inside = set()
                for body in bodies:
                    walk(body, [set() for _ in body.invars], inside)
                if inside or name in FACTORISATIONS:
                    if every - before:
                        alone.append(f"{name} after {sorted(every - before)}")
                    before = before | {f"{name} {len(every)}"}
                    every |= before
                results = [before] * len(equation.outvars)
            depends.update(zip(equation.outvars, results, strict=True))
        return of(jaxpr.outvars)

    walk(jaxpr, [set() for _ in jaxpr.invars], set())
    return alone


def test_the_guard_sees_two_factorisations_side_by_side():
    def twice(a, order):
        left = jnp.linalg.cholesky(a)
        return left + jnp.linalg.eigvalsh(jaxcone.extend.after(a, left) if order else a)

    for order in (True, False):
        found = unordered(jax.make_jaxpr(lambda a, o=order: twice(a, o))(jnp.eye(2)).jaxpr)
        assert bool(found) is not order


def test_all_factorisations_stand_in_one_line():
    # In batches on CPU, two that may start at once wait for each other for ever (`after`).
    cones = [Zero(1), SecondOrder(3), PSD(2), Nonnegative(2), PSD(3), PSD(4)]
    for curvature in (0.0, 1.0):
        known = [
            known_program(np.random.default_rng(s), 8, cones, curvature=curvature) for s in (0, 1)
        ]
        programs = stack(*(k.program for k in known))
        run = jax.make_jaxpr(lambda p: jax.vmap(lambda q: jaxcone.solve(q, InteriorPoint()))(p))
        assert unordered(run(programs).jaxpr) == []


# --- invariances ----------------------------------------------------------------------------------


def test_the_units_of_the_objective_and_of_the_points_do_not_matter():
    known = drawn(7)
    P, c, A, b = data(known.program)
    base = solve(known.program, InteriorPoint())
    for scale, size in ((1e3, 1.0), (1e-3, 1.0), (1.0, 1e2), (1.0, 1e-2)):
        program = ConeProgram(scale * P, scale * size * c, A, size * b, MIXED)
        found = solve(program, InteriorPoint(tolerance=1e-9))
        assert_honest(program, found, 1e-9)
        assert found.solved and abs(int(found.steps) - int(base.steps)) <= 3
        # The objective grows by at least |x - x*|^2 / 2.
        np.testing.assert_allclose(found.x, size * known.x, atol=1e-4 * size)


def test_the_order_of_unknowns_and_rows_does_not_matter(rng):
    known = drawn(8)
    P, c, A, b = data(known.program)
    columns, rows = rng.permutation(5), np.arange(len(b))
    rows[1:4] = 1 + rng.permutation(3)
    base = solve(known.program, InteriorPoint())
    program = ConeProgram(P[columns][:, columns], c[columns], A[rows][:, columns], b[rows], MIXED)
    found = solve(program, InteriorPoint())
    assert int(found.steps) == int(base.steps)
    np.testing.assert_allclose(found.x, base.x[columns], atol=1e-9)
    np.testing.assert_allclose(found.y, base.y[rows], atol=1e-9)


# --- status ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [np.nan, np.inf])
@pytest.mark.parametrize("field", ["P", "c", "A", "b"])
def test_bad_data_stop_at_the_first_step(field, number):
    found = solve(with_number(drawn(1).program, field, number), InteriorPoint())
    assert kind(found) == "nonfinite" and not found.solved
    assert int(found.steps) == 1


def test_the_status_follows_from_the_residuals():
    known = drawn(2)

    def stop_at_4(tolerance):
        found = solve(known.program, InteriorPoint(tolerance=tolerance, max_steps=4))
        assert int(found.steps) == 4
        assert_honest(known.program, found, tolerance)
        return kind(found)

    full = solve(known.program, InteriorPoint(tolerance=1e-14, max_steps=4))
    reached = float(full.residuals.worst)
    assert reached > 1e-7
    assert stop_at_4(reached / 101) == "max_steps"
    assert stop_at_4(reached / 99) == "inaccurate"
    assert stop_at_4(reached / 1.001) == "inaccurate"
    assert stop_at_4(reached * 1.001) == "solved"  # in the last step that was allowed


def test_an_impossible_tolerance_ends_with_the_best_that_rounding_allows():
    for seed in range(6):
        found = solve(drawn(seed).program, InteriorPoint(tolerance=1e-30))
        assert kind(found) == "stalled" and int(found.steps) < 60
        assert float(found.residuals.worst) < 1e-10
        assert_honest(drawn(seed).program, found, 1e-30)


def test_the_history_holds_the_last_steps():
    program = drawn(11).program
    early, late = (
        solve(program, InteriorPoint(tolerance=1e-14, max_steps=k, history=8)) for k in (5, 7)
    )
    assert early.history.shape == late.history.shape == (8, 3)
    assert np.all(np.isnan(early.history[:3])) and not np.any(np.isnan(early.history[3:]))
    np.testing.assert_array_equal(early.history[3:], late.history[1:6])  # oldest first
    for found in (early, late):
        best = np.nanargmin(np.max(found.history, axis=1))
        names = ["primal_relative", "dual_relative", "gap_relative"]
        relative = [getattr(found.residuals, name) for name in names]
        np.testing.assert_array_equal(found.history[best], relative)


def test_throw_raises_with_the_solution():
    program = drawn(1).program
    with pytest.raises(jaxcone.NotSolved, match="after 2 steps") as caught:
        jaxcone.solve(program, InteriorPoint(tolerance=1e-30, max_steps=2), throw=True)
    assert kind(caught.value.solution) == "max_steps"
    assert bool(jaxcone.solve(program, InteriorPoint(), throw=True).solved)


# --- chunks and interruptions ---------------------------------------------------------------------

CHUNKED = InteriorPoint(tolerance=1e-10)


@functools.cache
def whole():
    """A program and its solution in one chunk."""
    program = drawn(2).program
    solution = jaxcone.solve_in_chunks(program, CHUNKED, blocks_per_chunk=100)
    assert int(solution.steps) >= 6
    return program, solution


@pytest.mark.parametrize("blocks", [1, 4])
def test_the_size_of_chunks_changes_nothing(blocks):
    program, solution = whole()
    chunked = jaxcone.solve_in_chunks(program, CHUNKED, blocks_per_chunk=blocks)
    chex.assert_trees_all_equal(chunked, solution)


def test_chunks_make_the_iterates_of_solve():
    program, solution = whole()
    alone = solve(program, CHUNKED)
    assert int(alone.steps) == int(solution.steps)
    # Two compilations round differently.
    chex.assert_trees_all_close(points(alone), points(solution), rtol=1e-9, atol=1e-9)


def test_what_watch_stopped_resumes_bit_for_bit():
    program, solution = whole()
    seen = []

    def watch(so_far):
        seen.append(int(so_far.steps))
        assert kind(so_far) == "running"
        return len(seen) == 3

    part = jaxcone.solve_in_chunks(program, CHUNKED, blocks_per_chunk=1, watch=watch)
    assert seen == [1, 2, 3]
    rest = jaxcone.solve_in_chunks(program, CHUNKED, state=part.state, blocks_per_chunk=2)
    chex.assert_trees_all_equal(rest, solution)


@pytest.mark.parametrize("settings", [{"max_steps": 3}, {"tolerance": 1e-2}], ids=str)
def test_what_ended_goes_on_with_other_settings(settings):
    program, solution = whole()
    part = jaxcone.solve_in_chunks(program, InteriorPoint(**{"tolerance": 1e-10} | settings))
    assert kind(part) == ("max_steps" if "max_steps" in settings else "solved")
    assert int(part.steps) < int(solution.steps)
    rest = jaxcone.solve_in_chunks(program, CHUNKED, state=part.state, blocks_per_chunk=2)
    chex.assert_trees_all_equal(rest, solution)


def test_what_ended_stays_as_it_is():
    program, solution = whole()
    again = jaxcone.solve_in_chunks(program, CHUNKED, state=solution.state)
    chex.assert_trees_all_equal(again, solution)


def test_an_interrupt_in_watch_returns_the_solution_so_far():
    program, solution = whole()
    calls = []

    def watch(so_far):
        calls.append(so_far)
        if len(calls) == 2:
            raise KeyboardInterrupt

    part = jaxcone.solve_in_chunks(program, CHUNKED, blocks_per_chunk=1, watch=watch)
    assert kind(part) == "running" and int(part.steps) == 2
    rest = jaxcone.extend.advance(program, CHUNKED, part, blocks=100)
    chex.assert_trees_all_equal(rest, solution)


# --- compilation, memory, settings ----------------------------------------------------------------


def test_numbers_do_not_recompile(traces):
    first, second = (
        known_program(np.random.default_rng(seed), 3, [Nonnegative(4)]).program for seed in (1, 2)
    )
    first = jaxcone.solve(first, InteriorPoint())
    other = InteriorPoint(tolerance=1e-12, max_steps=4, ray_tolerance=1e-4)
    second = jaxcone.solve(second, other)
    assert first.solved and int(second.steps) == 4
    assert len(traces) == 1


def test_a_program_that_needs_more_memory_than_there_is_is_refused_before_anything_runs(traces):
    program = drawn(1).program
    needed, operations = jaxcone.extend.step_cost(program)
    assert 8 * 3 * 5**2 < needed < 1e5 and 0 < operations < 1e6
    for run in (jaxcone.solve, jaxcone.extend.advance, jaxcone.solve_in_chunks):
        with pytest.raises(ValueError, match=r"InteriorPoint: .* 0\.19 GB, .* 0\.10 GB") as caught:
            run(large_program(), InteriorPoint(memory_limit=1e8))
        assert "Splitting" in str(caught.value)
    assert len(traces) == 0


def large_program() -> ConeProgram:
    n = 2000
    return ConeProgram(None, jnp.ones(n), jnp.ones((n, n)), jnp.ones(n), Nonnegative(n))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("tolerance", [0.0, -1e-3, np.nan, np.inf, "1e-8"]),
        ("max_steps", [0, -1, np.nan, np.inf, 0.5, True, None, "10"]),
        ("refinements", [-1, np.nan, 1.5, "2", None]),
        ("ray_tolerance", [0.0, -1e-3, np.nan, np.inf, "1e-6"]),
        ("history", [-1, np.nan, np.inf, 1.5]),
        ("memory_limit", [0.0, -1.0, np.nan, np.inf, "1 GB"]),
    ],
)
def test_settings_out_of_range_are_named(name, values):
    for value in values:
        with pytest.raises(ValueError, match=f"InteriorPoint: `{name}`"):
            InteriorPoint(**{name: value})


def test_settings_at_the_edges_are_taken():
    InteriorPoint(tolerance=1e-300, max_steps=1, refinements=0, ray_tolerance=1e-300, history=0)
    InteriorPoint(max_steps=jnp.asarray(10), tolerance=jnp.asarray(0.1), memory_limit=1.0)


# --- derivatives and bounds -----------------------------------------------------------------------


def outputs(program):
    found = jaxcone.solve(program, InteriorPoint(tolerance=1e-13))
    return found.x, found.s, found.y, found.primal_objective, found.dual_objective


@jax.jit
def differentiate(program, direction, cotangent):
    """(outputs, their jvp, their vjp)."""
    values, push = jax.linearize(outputs, program)
    (pulled,) = jax.linear_transpose(push, program)(cotangent)
    return values, push(direction), pulled


OF_DERIVATIVES = ["qp", "mixed"]


@pytest.mark.parametrize("field", "PcAb")
@pytest.mark.parametrize("family", OF_DERIVATIVES)
def test_derivatives_are_the_limits_of_differences(rng, family, field):
    program, expected = curved(family)
    direction = direction_of(rng, program, field)
    cotangent = random_like(rng, zeros(program))
    values, tangent, gradient = differentiate(program, direction, cotangent)
    assert_close(values[:3], expected, 1e-8)
    ends = [
        differentiate(moved(program, direction, h), direction, cotangent)[0] for h in (STEP, -STEP)
    ]
    differences = jax.tree.map(lambda a, b: (np.asarray(a) - b) / (2 * STEP), *ends)
    assert inner(differences, differences) > 1e-4  # something moves
    assert_close(tangent[:3], differences[:3], 1e-5)
    assert_close(tangent[3:], differences[3:], 1e-5)
    size = np.sqrt(inner(gradient, gradient) * inner(direction, direction))
    assert abs(inner(cotangent, tangent) - inner(gradient, direction)) <= 1e-10 * size


@pytest.mark.parametrize("family", OF_DERIVATIVES)
def test_gradient_of_the_value_is_read_off_the_points(rng, family):
    program, (x, _, y) = curved(family)
    for which in ("primal", "dual"):
        cotangent = cotangent_of(program, **{which: 1.0})
        gradient = differentiate(program, random_like(rng, program), cotangent)[2]
        expected = {"P": np.outer(x, x) / 2, "c": x, "A": np.outer(y, x), "b": -y}
        for name, found in arrays(gradient).items():
            np.testing.assert_allclose(found, expected[name], atol=1e-7)


def test_bounds_from_its_points_are_tight():
    exact = [integer_program(seed) for seed in range(8)]
    found = lanes(solve_batch(stack(*(program for program, *_ in exact)), InteriorPoint()))
    for (program, x, _, value), solution in zip(exact, found, strict=True):
        for x_bound in (2 * np.abs(x) + 1, 10.0):
            bound = jaxcone.safe_dual_bound(program, solution.y, x_bound=x_bound, z=solution.x)
            assert value - 1e-7 * (1 + abs(value)) <= bound <= value


# --- matrix inequalities of control, where splitting methods struggle -----------------------------


def sdpa(c, blocks) -> jaxcone.SDPAProblem:
    """The problem with matrices F[k][block]."""
    found = [
        (k, b, i, j, matrix[i, j])
        for k, matrices in enumerate(blocks)
        for b, matrix in enumerate(matrices)
        for i, j in zip(*np.nonzero(np.triu(matrix)), strict=True)
    ]
    k, b, i, j, value = (np.array(part) for part in zip(*found, strict=True))
    sizes = tuple(len(matrix) for matrix in blocks[0])
    return jaxcone.SDPAProblem(np.array(c, float), sizes, k, b, i, j, value)


def symmetric_units(n: int) -> list[np.ndarray]:
    units = []
    for i in range(n):
        for j in range(i, n):
            unit = np.zeros((n, n))
            unit[i, j] = unit[j, i] = 1
            units.append(unit)
    return units


def stable(rng, n: int, inputs: int = 2):
    """(A, B, C) with all eigenvalues of A left of -0.2."""
    A = rng.standard_normal((n, n)) / np.sqrt(n)
    A -= (np.max(np.linalg.eigvals(A).real) + 0.2) * np.eye(n)
    return A, rng.standard_normal((n, inputs)), rng.standard_normal((inputs, n))


def lyapunov(rng, n):
    """min tr X such that A'X + X A + I <= 0 and X >= 0; the value is that of the equation."""
    A, _, _ = stable(rng, n)
    units = symmetric_units(n)
    blocks = [(np.eye(n), np.zeros((n, n)))]
    blocks += [(-A.T @ E - E @ A, E) for E in units]
    X = scipy.linalg.solve_continuous_lyapunov(A.T, -np.eye(n))
    return sdpa([np.trace(E) for E in units], blocks), float(np.trace(X))


def gain(rng, n):
    """min g such that [[-A'X - X A - C'C, -X B], [-B'X, g I]] >= 0: the H-infinity norm squared."""
    A, B, C = stable(rng, n)
    k = B.shape[1]
    top, zero = np.zeros((n, n)), np.zeros((k, k))
    blocks = [(np.block([[C.T @ C, np.zeros((n, k))], [np.zeros((k, n)), zero]]),)]
    for E in symmetric_units(n):
        blocks.append((np.block([[-A.T @ E - E @ A, -E @ B], [-B.T @ E, zero]]),))
    blocks.append((np.block([[top, np.zeros((n, k))], [np.zeros((k, n)), np.eye(k)]]),))

    def largest(w):
        response = C @ np.linalg.solve(1j * w * np.eye(n) - A, B)
        return np.linalg.norm(response, 2)

    grid = np.linspace(0, 20, 4001)
    peak = grid[np.argmax([largest(w) for w in grid])]
    inside = (max(peak - 0.01, 0), peak + 0.01)
    refined = scipy.optimize.minimize_scalar(
        lambda w: -largest(w), bounds=inside, method="bounded", options={"xatol": 1e-10}
    )
    norm = max(largest(refined.x), largest(0.0))
    return sdpa([0.0] * len(symmetric_units(n)) + [1.0], blocks), float(norm**2)


def decay(rng, n):
    """max t: [[-A'X - X A - C'D C, -X B], [-B'X, D]] >= t I, X <= I, as in SDPLIB's control."""
    A, B, C = stable(rng, n)
    k = B.shape[1]
    blocks = [(np.zeros((n + k, n + k)), -np.eye(n))]
    for E in symmetric_units(n):
        blocks.append((np.block([[-A.T @ E - E @ A, -E @ B], [-B.T @ E, np.zeros((k, k))]]), -E))
    for i in range(k):
        D = np.zeros((k, k))
        D[i, i] = 1
        wide = np.block([[-C.T @ D @ C, np.zeros((n, k))], [np.zeros((k, n)), D]])
        blocks.append((wide, np.zeros((n, n))))
    blocks.append((-np.eye(n + k), np.zeros((n, n))))
    return sdpa([0.0] * (len(blocks) - 2) + [-1.0], blocks), None


@pytest.mark.parametrize("build", [lyapunov, gain, decay])
def test_matrix_inequalities_of_control(build, tmp_path):
    built = [build(np.random.default_rng(seed), 5) for seed in range(8)]
    programs = []
    for problem, _ in built:
        jaxcone.write_sdpa(problem, tmp_path / "lmi.dat-s")
        programs.append(jaxcone.read_sdpa(tmp_path / "lmi.dat-s").cone_program())
    found = lanes(solve_batch(stack(*programs), InteriorPoint()))
    for (_, value), program, solution in zip(built, programs, found, strict=True):
        errors = dimacs(program, *points(solution))
        assert np.max(np.abs(errors)) <= 1e-7
        assert kind(solution) in ("solved", "inaccurate")
        if value is not None:
            assert abs(solution.primal_objective - value) <= 1e-6 * (1 + value)
