"""The splitting method on dense programs with a known optimum, and how honest its answers are."""

import dataclasses
import sys
from typing import Any

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcone
from jaxcone import Splitting, Status

from .helpers import Cones, Known, join, known_program, lane, recomputed, stack, worst

POLYHEDRAL, MIXED = Cones(zero=1, nonnegative=9), Cones(zero=1, nonnegative=3, side=3)
FAMILIES: dict[str, dict[str, Any]] = {
    "lp": {"size": 4, "cones": POLYHEDRAL, "curvature": 0.0, "active": 3},
    "qp": {"size": 4, "cones": POLYHEDRAL},
    "sdp": {"size": 5, "cones": MIXED, "curvature": 0.0},
    "quadratic sdp": {"size": 5, "cones": MIXED},
}

# One compilation for each shape and each choice of static settings.
solve = jax.jit(jaxcone.solve)


def drawn(family: str, seed: int) -> Known:
    return known_program(np.random.default_rng(seed), **FAMILIES[family])


def with_number(program, field: str, number: float):
    return eqx.tree_at(
        lambda p: getattr(p, field), program, getattr(program, field).at[0].set(number)
    )


def points(solution):
    return solution.x, solution.s, solution.y


def assert_honest(program, solution, tolerance: float, max_steps: int):
    """Residuals are those of the returned arrays, the status follows from them, s in K, y in K*."""
    for name, value in recomputed(program, solution).items():
        size = 1e-10 * (1 + sum(float(jnp.linalg.norm(join(p))) ** 2 for p in points(solution)[1:]))
        np.testing.assert_allclose(getattr(solution.residuals, name), value, rtol=1e-9, atol=size)
    assert solution.primal_objective == solution.residuals.primal_objective
    assert solution.dual_objective == solution.residuals.dual_objective
    found = float(solution.residuals.worst)
    ended = int(solution.steps) >= max_steps
    if found <= tolerance:
        assert solution.status == Status.solved and solution.solved
    else:
        assert ended and not solution.solved
        near = found <= 100 * tolerance
        assert solution.status == (Status.inaccurate if near else Status.max_steps)
    s, y = solution.s, solution.y
    if "a zero" in s:
        np.testing.assert_array_equal(s["a zero"], 0)
    assert np.min(s["b nonnegative"]) >= 0 and np.min(y["b nonnegative"]) >= 0
    if "c psd" in s:
        for point in (s, y):
            matrix, size = point["c psd"], 1e-12 * float(1 + np.linalg.norm(join(point)))
            np.testing.assert_allclose(matrix, matrix.T, rtol=0, atol=size)
            assert np.linalg.eigvalsh(matrix)[0] >= -size


def assert_optimal(known: Known, solution, atol: float):
    np.testing.assert_allclose(solution.x, known.x, atol=atol)
    np.testing.assert_allclose(join(solution.s), known.s, atol=atol)
    np.testing.assert_allclose(solution.primal_objective, known.value, atol=atol)
    np.testing.assert_allclose(solution.dual_objective, known.value, atol=atol)


# --- optima ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2, 4])
@pytest.mark.parametrize("family", FAMILIES)
def test_finds_the_known_optimum(family, seed):
    known = drawn(family, seed)
    found = solve(known.program, Splitting(tolerance=1e-10))
    assert found.status == Status.solved
    assert_optimal(known, found, 1e-6)
    assert_honest(known.program, found, 1e-10, 5000)


@pytest.mark.parametrize(
    "settings",
    [
        {"relaxation": 1.0},
        {"relaxation": 1.9},
        {"penalty": 0.5},
        {"penalty": 40.0},
        {"memory": 0},
        {"adapt_penalty": False, "penalty": 0.5, "check_every": 7, "memory": 1},
    ],
    ids=str,
)
def test_all_settings_reach_the_same_optimum(settings):
    known = drawn("qp", 1)
    found = solve(known.program, Splitting(tolerance=1e-9, max_steps=20_000, **settings))
    assert found.status == Status.solved
    assert_optimal(known, found, 1e-6)
    assert_honest(known.program, found, 1e-9, 20_000)
    assert int(found.steps) % settings.get("check_every", 50) == 0


def test_residuals_and_warm_starts_are_in_the_units_of_the_user():
    known = drawn("quadratic sdp", 1)
    other = dataclasses.replace(known.program, units=(2.0**7, 2.0**-3))
    found = solve(other, Splitting(tolerance=1e-9))
    assert found.status == Status.solved
    assert_optimal(known, found, 1e-6)
    assert_honest(other, found, 1e-9, 5000)
    again = solve(other, Splitting(tolerance=1e-9), warm_start=(found.s, found.y))
    assert int(again.steps) == 50
    assert_optimal(known, again, 1e-6)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
@pytest.mark.parametrize("scaled", ["points", "variables"])
def test_scaled_data_keep_the_status_honest(scaled, scale):
    known = drawn("qp", 2)
    P, c, A, b = (getattr(known.program, name) for name in "PcAb")
    parts = {
        "points": (P, scale * c, A, scale * b),
        "variables": (scale**2 * P, scale * c, scale * A, b),
    }[scaled]
    program = eqx.tree_at(lambda p: (p.P, p.c, p.A, p.b), known.program, parts)
    for tolerance, max_steps in ((1e-6, 5000), (1e-9, 100)):
        found = solve(program, Splitting(tolerance=tolerance, max_steps=max_steps))
        assert_honest(program, found, tolerance, max_steps)
    value = known.value * (scale**2 if scaled == "points" else 1)
    if found.solved:
        np.testing.assert_allclose(found.primal_objective, value, atol=1e-7 * (1 + abs(value)))


def test_zero_sized_blocks_are_allowed():
    full = jnp.ones(2)
    np.testing.assert_array_equal(jaxcone.after(full, (jnp.zeros((0, 3)), full)), full)


# --- status ---------------------------------------------------------------------------------------


def test_the_status_follows_from_the_residuals_at_the_last_check():
    known = drawn("lp", 2)

    def stop_at_50(tolerance):
        found = solve(known.program, Splitting(tolerance=tolerance, max_steps=50, memory=0))
        assert int(found.steps) == 50
        assert_honest(known.program, found, tolerance, 50)
        return found.status

    reached = worst(known.program, solve(known.program, Splitting(max_steps=50, memory=0)))
    assert reached > 1e-4
    assert stop_at_50(reached / 101) == Status.max_steps
    assert stop_at_50(reached / 99) == Status.inaccurate
    assert stop_at_50(reached / 1.001) == Status.inaccurate
    assert stop_at_50(reached * 1.001) == Status.solved  # in the last block that was allowed


@pytest.mark.parametrize(("max_steps", "taken"), [(1, 50), (50, 50), (51, 100)])
def test_step_limits_are_rounded_up_to_blocks(max_steps, taken):
    known = drawn("lp", 2)
    found = solve(known.program, Splitting(tolerance=1e-14, max_steps=max_steps, memory=0))
    assert int(found.steps) == taken
    assert_honest(known.program, found, 1e-14, max_steps)


@pytest.mark.parametrize("number", [np.nan, np.inf])
@pytest.mark.parametrize("field", ["P", "c", "A", "b"])
def test_bad_data_stop_at_the_first_check(field, number):
    found = solve(with_number(drawn("qp", 1).program, field, number), Splitting(tolerance=1e-10))
    assert found.status == Status.nonfinite and not found.solved
    assert int(found.steps) == 50


def test_bad_data_are_not_hidden_by_a_good_warm_start():
    known = drawn("qp", 1)
    good = solve(known.program, Splitting())
    bad = with_number(known.program, "b", np.nan)
    found = solve(bad, Splitting(), warm_start=(good.s, good.y))
    assert found.status == Status.nonfinite and int(found.steps) == 50


# --- batches --------------------------------------------------------------------------------------


def test_lanes_keep_to_themselves():
    # The same lanes, once among good ones and once beside a NaN and one that never ends.
    known = [drawn("quadratic sdp", seed) for seed in (1, 2, 4, 5)]
    good = [k.program for k in known]
    parts = good[3].A.at[1].set(0), good[3].b.at[1].set(-1)  # 0'x + s = -1, s >= 0
    infeasible = eqx.tree_at(lambda p: (p.A, p.b), good[3], parts)
    mixed = [good[0], with_number(good[1], "c", np.nan), good[2], infeasible]
    solver = Splitting(tolerance=1e-10, max_steps=400)
    batch = jax.jit(jax.vmap(lambda program: jaxcone.solve(program, solver)))
    among_good, among_bad = batch(stack(*good)), batch(stack(*mixed))
    np.testing.assert_array_equal(among_bad.status == Status.nonfinite, [False, True, False, False])
    np.testing.assert_array_equal(among_bad.solved, [True, False, True, False])
    for k in range(4):
        one = lane(among_bad, k)
        alone = solve(mixed[k], solver)
        # Ended lanes keep their step counts while the last one goes on to the limit.
        assert int(one.steps) == int(alone.steps)
        assert one.status == alone.status
        if k != 1:
            assert_honest(mixed[k], one, 1e-10, 400)
    assert int(among_bad.steps[1]) == 50 and int(among_bad.steps[3]) == 400
    for k in (0, 2):
        assert int(among_bad.steps[k]) < 400
        chex.assert_trees_all_equal(lane(among_bad, k), lane(among_good, k))  # bit for bit
        # Against a solve outside a batch the last bits differ on CPUs with fused multiply-add: XLA
        # then emits other loops, which fuse other products. Without it (--xla_cpu_max_isa=AVX) they
        # agree.
        alone = solve(good[k], solver)
        chex.assert_trees_all_close(points(lane(among_bad, k)), points(alone), atol=1e-8)


def test_a_path_of_right_hand_sides_in_scan():
    known = drawn("qp", 1)
    shifts = jnp.linspace(0, 0.2, 4)

    def moved(shift):
        return eqx.tree_at(lambda p: p.b, known.program, known.program.b + shift)

    def step(last, shift):
        found = jaxcone.solve(moved(shift), Splitting(tolerance=1e-10), warm_start=last)
        return found, found

    cold = solve(known.program, Splitting(tolerance=1e-10))
    _, path = jax.jit(lambda start: jax.lax.scan(step, start, shifts))(cold)
    assert bool(jnp.all(path.solved)) and int(path.steps[0]) == 50
    for k, shift in enumerate(shifts):
        assert_honest(moved(shift), lane(path, k), 1e-10, 5000)
        alone = solve(moved(shift), Splitting(tolerance=1e-10))
        np.testing.assert_allclose(path.x[k], alone.x, atol=1e-7)


# --- compilation ----------------------------------------------------------------------------------


def test_numbers_do_not_recompile_solve():
    @jax.jit
    @eqx.debug.assert_max_traces(max_traces=1)
    def once(program, solver):
        return jaxcone.solve(program, solver)

    known = drawn("qp", 1)
    first = once(known.program, Splitting(tolerance=1e-6, memory=0))
    other = Splitting(tolerance=1e-9, max_steps=77, relaxation=1.1, penalty=3.0, memory=0)
    second = once(drawn("qp", 2).program, other)
    assert first.solved and second.steps <= 100


@pytest.fixture
def traces(monkeypatch):
    """Counts how often the method is traced by the host's driver."""
    driver, count = sys.modules["jaxcone.solve"], []
    block = driver.block
    monkeypatch.setattr(driver, "block", lambda *args: [count.append(1), block(*args)][1])
    return count


def test_numbers_do_not_recompile_advance(traces):
    program, static = drawn("qp", 1).program, dict[str, Any](check_every=3, memory=0)
    first = jaxcone.advance(program, Splitting(tolerance=1e-9, **static), blocks=2)
    assert len(traces) == 1 and int(first.steps) == 6
    other = Splitting(tolerance=1e-8, max_steps=99, penalty=0.5, relaxation=1.2, **static)
    jaxcone.advance(drawn("qp", 2).program, other, blocks=2)
    assert len(traces) == 1
    later = jaxcone.advance(program, Splitting(tolerance=1e-9, **static), first, blocks=5)
    assert int(later.steps) == 21
    assert len(traces) == 1  # as documented: once per program shape


# --- starts, chunks and interruptions -------------------------------------------------------------


def test_a_warm_start_takes_fewer_steps():
    known, solver = drawn("lp", 2), Splitting(tolerance=1e-8)
    cold = solve(known.program, solver)
    assert cold.solved and int(cold.steps) > 50
    warm = solve(known.program, solver, warm_start=(cold.s, cold.y))
    assert warm.solved and int(warm.steps) == 50
    assert_optimal(known, warm, 1e-6)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_warm_start_that_is_not_finite_is_a_cold_start(number):
    known, solver = drawn("lp", 2), Splitting(tolerance=1e-8)
    cold = solve(known.program, solver)
    s, y = jax.tree.map(jnp.array, (cold.s, cold.y))
    y["a zero"] = y["a zero"].at[0].set(number)
    chex.assert_trees_all_equal(solve(known.program, solver, warm_start=(s, y)), cold)


def test_the_same_input_gives_the_same_bits():
    known = drawn("lp", 2)
    chex.assert_trees_all_equal(*(solve(known.program, Splitting()) for _ in range(2)))


CHUNKED = Splitting(tolerance=1e-10, memory=0, penalty=0.2, max_steps=600)


@pytest.fixture(scope="module")
def whole():
    """A program that takes many blocks and changes its penalty on the way, with its solution."""
    program = drawn("lp", 2).program
    solution = solve(program, CHUNKED)
    assert int(solution.steps) >= 300 and float(solution.state.penalty) > 0.2
    return program, solution


@pytest.mark.parametrize("blocks", [1, 2, 100])
def test_chunks_make_the_iterates_of_solve(whole, blocks):
    program, solution = whole
    chunked = jaxcone.solve_in_chunks(program, CHUNKED, blocks_per_chunk=blocks)
    chex.assert_trees_all_equal(chunked, solution)


@pytest.mark.parametrize("stop_after", [1, 3])
def test_what_watch_stopped_resumes_bit_for_bit(whole, stop_after):
    program, solution = whole
    seen = []

    def watch(so_far):
        seen.append(int(so_far.steps))
        assert_running(program, so_far)
        return len(seen) == stop_after

    part = jaxcone.solve_in_chunks(program, CHUNKED, blocks_per_chunk=1, watch=watch)
    assert seen == [50 * k for k in range(1, stop_after + 1)]
    rest = jaxcone.solve_in_chunks(program, CHUNKED, state=part.state, blocks_per_chunk=2)
    chex.assert_trees_all_equal(rest, solution)


@pytest.mark.parametrize("ended_by", ["max_steps", "tolerance"])
def test_what_ended_resumes_bit_for_bit(whole, ended_by):
    program, solution = whole
    limits: dict[str, Any] = {"max_steps": 50} if ended_by == "max_steps" else {"tolerance": 1e3}
    shorter = Splitting(**{"tolerance": 1e-10, "memory": 0, "penalty": 0.2} | limits)
    part = jaxcone.solve_in_chunks(program, shorter, blocks_per_chunk=2)
    assert part.status == (Status.max_steps if ended_by == "max_steps" else Status.solved)
    assert int(part.steps) == 50
    rest = jaxcone.solve_in_chunks(program, CHUNKED, state=part.state, blocks_per_chunk=2)
    chex.assert_trees_all_equal(points(rest), points(solution))
    assert int(rest.steps) == int(solution.steps)


def test_what_ended_stays_as_it_is(whole):
    program, solution = whole
    again = jaxcone.solve_in_chunks(program, CHUNKED, state=solution.state, blocks_per_chunk=2)
    chex.assert_trees_all_equal(again, solution)


def assert_running(program, solution):
    """An unfinished solution tells the truth as well."""
    assert solution.status in (Status.running, Status.max_steps)
    np.testing.assert_allclose(solution.residuals.worst, worst(program, solution), rtol=1e-9)


def test_an_interrupt_in_watch_returns_the_solution_so_far(whole):
    program, solution = whole
    calls = []

    def watch(so_far):
        calls.append(so_far)
        if len(calls) == 2:
            raise KeyboardInterrupt

    part = jaxcone.solve_in_chunks(program, CHUNKED, blocks_per_chunk=1, watch=watch)
    assert part.status == Status.running and int(part.steps) == 100
    assert_running(program, part)
    rest = jaxcone.solve_in_chunks(program, CHUNKED, state=part.state, blocks_per_chunk=2)
    chex.assert_trees_all_equal(rest, solution)


@pytest.mark.parametrize("before", [0, 2])
def test_an_interrupt_during_a_chunk(whole, before, monkeypatch):
    program, _ = whole
    driver, calls = sys.modules["jaxcone.solve"], []
    advance = driver.advance

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) > before:
            raise KeyboardInterrupt
        return advance(*args, **kwargs)

    monkeypatch.setattr(driver, "advance", interrupted)
    if not before:  # nothing to return yet
        with pytest.raises(KeyboardInterrupt):
            jaxcone.solve_in_chunks(program, CHUNKED, blocks_per_chunk=1)
        return
    part = jaxcone.solve_in_chunks(program, CHUNKED, blocks_per_chunk=1)
    assert part.status == Status.running and int(part.steps) == 50 * before


# --- precision and settings -----------------------------------------------------------------------


def assert_float32(solution):
    floats = [a for a in jax.tree.leaves(solution) if jnp.issubdtype(a.dtype, jnp.floating)]
    assert {a.dtype for a in floats} == {jnp.dtype("float32")}


@pytest.mark.parametrize("start", ["chunks", "warm"])
def test_float32_stays_float32(start):
    known = drawn("qp", 1)
    program = jax.tree.map(lambda a: a.astype(jnp.float32), known.program)
    if start == "chunks":
        found = jaxcone.solve_in_chunks(program, Splitting())
    else:  # NumPy's own dtype is float64; precision is that of the program
        cones = known.program.cones
        found = solve(program, Splitting(), warm_start=(cones.split(known.s), cones.split(known.y)))
    assert found.status == Status.solved
    assert_float32(found)
    assert worst(program, found) <= 1.01e-3
    np.testing.assert_allclose(found.x, known.x, atol=0.02)


@pytest.mark.parametrize("kind", [np.float64, np.float32, jnp.asarray])
def test_settings_of_another_precision_leave_float32_alone(kind):
    program = jax.tree.map(lambda a: a.astype(jnp.float32), drawn("qp", 1).program)
    solver = Splitting(
        tolerance=kind(1e-3), relaxation=kind(1.5), penalty=kind(5.0), memory=0, check_every=10
    )
    assert_float32(jax.eval_shape(jaxcone.solve, program, solver))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("tolerance", [0.0, -1e-3, np.nan, np.inf]),
        ("max_steps", [0, -1, np.nan, np.inf, 0.5]),
        ("check_every", [0, -1, np.nan, np.inf, 2.5]),
        ("relaxation", [0.0, 2.0, -1.0, np.nan, np.inf]),
        ("memory", [-1, np.nan, np.inf, 1.5]),
        ("penalty", [0.0, -1.0, np.nan, np.inf]),
    ],
)
def test_settings_out_of_range_are_named(name, values):
    for value in values:
        with pytest.raises(ValueError, match=f"`{name}`"):
            Splitting(**{name: value})


def test_settings_at_the_edges_are_taken():
    Splitting(tolerance=1e-300, max_steps=1, check_every=1, relaxation=1e-9, memory=0, penalty=1e-9)
    Splitting(max_steps=jnp.asarray(10), relaxation=jnp.asarray(1.99), tolerance=jnp.asarray(0.1))
