"""Programs in standard form with known answers: optima, proofs of none, degenerate and bad data."""

import dataclasses
import functools
import re
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

import jaxcone
from jaxcone import (
    PSD,
    AbstractCone,
    ConeProgram,
    InteriorPoint,
    Nonnegative,
    SecondOrder,
    Splitting,
    Status,
    Zero,
    dimacs_errors,
)

from ..helpers import (
    Known,
    block_scales,
    data,
    dimacs,
    gaussian_rows,
    known_program,
    lane,
    nearest,
    stack,
    to_vector,
)
from .test_splitting import assert_recomputed


@dataclasses.dataclass(frozen=True)
class Case:
    """The shape of a program; with `curvature` 0 it has no P."""

    size: int
    cones: Sequence[AbstractCone]
    curvature: float = 0.0


BLOCKS = [PSD(3), Zero(1), SecondOrder(1), Nonnegative(5), Zero(0), PSD(1), SecondOrder(4), PSD(0)]
CASES = {
    "zero": Case(4, [Zero(3)], 1.0),
    "second order": Case(5, [SecondOrder(5), SecondOrder(4)]),
    "psd": Case(6, [PSD(4)]),
    "blocks": Case(6, BLOCKS, 1.0),
    "middle": Case(20, [Zero(5), Nonnegative(20), SecondOrder(10), PSD(6)]),
}
DECADES = [0, 0, 0, 0, 2, 2, 4, 4, 4, 4]  # of the scales of rows and columns, one lane for each

solve = jaxcone.solve  # compiled inside, once for each shape
solve_batch = jax.jit(jax.vmap(jaxcone.solve, in_axes=(0, None)))
# Both methods keep to one contract.
ENGINES = {"splitting": Splitting(tolerance=1e-6), "interior point": InteriorPoint()}
of_both = pytest.mark.parametrize("engine", ENGINES)
KINDS = {
    int(getattr(Status, name)._value): name
    for name in (
        "running",
        "solved",
        "inaccurate",
        "max_steps",
        "primal_infeasible",
        "dual_infeasible",
        "stalled",
        "nonfinite",
    )
}


def lanes(solutions) -> list[Any]:
    """The solutions of a batch, in NumPy."""
    found = jax.tree.map(np.asarray, solutions)
    return [lane(found, k) for k in range(len(found.steps))]


def scaled(rng, P, c, A, b, cones, decades) -> ConeProgram:
    """Rows and columns times up to 10^decades or 10^-decades."""
    rows, columns = block_scales(rng, cones, decades), 10 ** rng.uniform(-decades, decades, len(c))
    P = None if P is None else columns[:, None] * P * columns
    return ConeProgram(P, columns * c, rows[:, None] * A * columns, rows * b, cones)


def dual_point(rng, cones) -> np.ndarray:
    """A random point of K*, well away from zero."""
    z = gaussian_rows(rng, cones, 1)[:, 0]
    return max((w + nearest(cones, -w) for w in (z, -z)), key=np.linalg.norm)


def orthogonal(matrix, vector) -> np.ndarray:
    """The matrix without what its columns have in common with the vector."""
    return matrix - np.outer(vector, vector @ matrix) / (vector @ vector)


def infeasible_program(rng, case: Case, decades: float) -> ConeProgram:
    """A'y = 0 and b'y < 0 for some y in K*; the dual has a feasible point."""
    y = dual_point(rng, case.cones)
    A = orthogonal(gaussian_rows(rng, case.cones, case.size), y)
    b = orthogonal(rng.standard_normal((len(y), 1)), y)[:, 0] - y / (y @ y)
    root = rng.standard_normal((case.size, case.size))
    P = root @ root.T if case.curvature else None
    return scaled(rng, P, -A.T @ dual_point(rng, case.cones), A, b, case.cones, decades)


def unbounded_program(rng, case: Case, decades: float) -> ConeProgram:
    """A x + s = 0, s in K, P x = 0 and c'x < 0 for some x; the primal has a feasible point."""
    n, x = case.size, rng.standard_normal(case.size)
    s, inside = (nearest(case.cones, gaussian_rows(rng, case.cones, 1)[:, 0]) for _ in range(2))
    A = orthogonal(gaussian_rows(rng, case.cones, n).T, x).T - np.outer(s, x) / (x @ x)
    c = orthogonal(rng.standard_normal((n, 1)), x)[:, 0] - x / (x @ x)
    root = orthogonal(rng.standard_normal((n, n)), x)
    P = root @ root.T if case.curvature else None
    return scaled(rng, P, c, A, A @ rng.standard_normal(n) + inside, case.cones, decades)


@dataclasses.dataclass(frozen=True)
class Group:
    """Programs of one kind and shape with their solutions."""

    known: list[Known]
    programs: list[ConeProgram]
    solutions: list[Any]


@functools.cache
def groups(name: str) -> dict[str, Group]:
    """Solvable, infeasible and unbounded programs of one shape, all solved as one batch."""
    case, known = CASES[name], []
    programs = {"infeasible": [], "unbounded": []}
    for seed, decades in enumerate(DECADES):
        rng = np.random.default_rng(seed)
        settings = {"curvature": case.curvature, "decades": decades}
        known.append(known_program(rng, case.size, case.cones, **settings))
        programs["infeasible"].append(infeasible_program(rng, case, decades))
        programs["unbounded"].append(unbounded_program(rng, case, decades))
    programs = {"known": [k.program for k in known], **programs}
    batch = stack(*(p for kind in programs.values() for p in kind))
    solutions = lanes(solve_batch(batch, ENGINES["splitting"]))
    count = len(DECADES)
    return {
        kind: Group(known, listed, solutions[k * count : (k + 1) * count])
        for k, (kind, listed) in enumerate(programs.items())
    }


def kind(solution) -> str:
    """The status by name."""
    return KINDS[int(solution.status._value)]


def kinds(solutions) -> list[str]:
    return [kind(solution) for solution in solutions]


def assert_no_ray(solution):
    for part in jax.tree.leaves(solution.ray):
        assert np.all(np.isnan(part))


def assert_no_point(solution, *, value: float):
    """What belongs to a program without a solution, besides its ray."""
    assert solution.primal_objective == solution.dual_objective == value
    for part in (solution.x, solution.s, solution.y, *jax.tree.leaves(solution.residuals)):
        assert np.all(np.isnan(part))


def assert_farkas(program, solution, miss=1e-6):
    """`ray.y` proves that there is no feasible point."""
    _, _, A, b = data(program)
    y, eps = np.asarray(solution.ray.y, float), 100 * np.finfo(solution.ray.y.dtype).eps
    size = np.linalg.norm(y)
    assert np.linalg.norm(A.T @ y) <= miss * (1 + 1e-6)
    np.testing.assert_allclose(b @ y, -1, atol=eps * (1 + np.linalg.norm(b) * size))
    assert np.linalg.norm(b) * size <= 1e-3 / eps  # else -1 could be rounding
    assert np.linalg.norm(nearest(program.cones.cones, -y)) <= eps * size
    assert np.all(np.isnan(solution.ray.x)) and np.all(np.isnan(solution.ray.s))


def assert_descent(program, solution, miss=1e-6):
    """`ray.x` shows that the objective falls without end from any feasible point."""
    P, c, A, _ = data(program)
    x, s = np.asarray(solution.ray.x, float), np.asarray(solution.ray.s, float)
    eps = 100 * np.finfo(solution.ray.x.dtype).eps
    assert np.linalg.norm(A @ x + s) <= miss * (1 + 1e-6)
    assert np.linalg.norm(P @ x) <= miss * (1 + 1e-6)
    size = np.linalg.norm(c) * np.linalg.norm(x)
    np.testing.assert_allclose(c @ x, -1, atol=eps * (1 + size))
    assert size <= 1e-3 / eps  # else -1 could be rounding
    outside = s - nearest(program.cones.cones, s)
    assert np.linalg.norm(outside) <= eps * np.linalg.norm(s)
    assert np.all(np.isnan(solution.ray.y))


def assert_optimal(known: Known, solution, tolerance=1e-6):
    found = dimacs(known.program, solution.x, solution.s, solution.y)
    assert np.all(np.abs(found) <= tolerance * (1 + 1e-6))
    assert abs(solution.primal_objective - known.value) <= 2 * tolerance * (1 + abs(known.value))
    assert_no_ray(solution)


# --- optima known by construction -----------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_finds_the_known_optimum(name):
    group = groups(name)["known"]
    assert kinds(group.solutions) == ["solved"] * len(DECADES)
    for known, solution in zip(group.known, group.solutions, strict=True):
        assert_optimal(known, solution)


@pytest.mark.slow
@pytest.mark.parametrize("decades", [0, 4])
@pytest.mark.parametrize(
    "case",
    [
        Case(120, [PSD(16), PSD(16), Nonnegative(40)]),
        Case(200, [Zero(10), Nonnegative(150), SecondOrder(50), SecondOrder(50), PSD(12)], 1.0),
    ],
    ids=["sdp", "all and P"],
)
def test_finds_the_known_optimum_of_large_programs(rng, case, decades):
    known = known_program(rng, case.size, case.cones, curvature=case.curvature, decades=decades)
    found = solve(known.program, Splitting(tolerance=1e-6))
    assert kinds([found]) == ["solved"]
    assert_optimal(known, found)


@pytest.mark.parametrize("name", ["blocks", "psd"])
def test_dimacs_errors(rng, name):
    case = CASES[name]
    program = groups(name)["known"].programs[0]
    errors = jax.jit(lambda *points: dimacs_errors(program, *points))
    m = program.b.shape[0]
    for _ in range(5):  # points outside of the cones too
        points = [rng.standard_normal(length) for length in (case.size, m, m)]
        np.testing.assert_allclose(errors(*points), dimacs(program, *points), rtol=1e-10)
    for solution in groups(name)["known"].solutions[:3]:
        points = solution.x, solution.s, solution.y
        np.testing.assert_allclose(errors(*points), dimacs(program, *points), rtol=1e-6, atol=1e-12)


# --- programs without a solution ------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_infeasible_programs_come_with_a_proof(name):
    group = groups(name)["infeasible"]
    assert_found(kinds(group.solutions), "primal_infeasible")
    for program, solution in zip(group.programs, group.solutions, strict=True):
        if solution.status == Status.primal_infeasible:
            assert_farkas(program, solution)
            assert_no_point(solution, value=np.inf)


@pytest.mark.parametrize("name", CASES)
def test_unbounded_programs_come_with_a_ray(name):
    group = groups(name)["unbounded"]
    assert_found(kinds(group.solutions), "dual_infeasible")
    for program, solution in zip(group.programs, group.solutions, strict=True):
        if solution.status == Status.dual_infeasible:
            assert_descent(program, solution)
            assert_no_point(solution, value=-np.inf)


def assert_found(found: list[str], wanted: str):
    """Some may need more steps, badly scaled ones above all, but none gets another answer."""
    assert set(found) <= {wanted, "max_steps"}
    well = [kind for kind, decades in zip(found, DECADES, strict=True) if decades == 0]
    assert well.count(wanted) >= len(well) - 1
    assert found.count(wanted) >= 0.6 * len(found)


# --- degenerate programs --------------------------------------------------------------------------

BOX = np.array([[1.0, 1], [1, 2], [-1, 0], [0, -1], [1, 0]])  # two equalities, three inequalities
SOLVED, INFEASIBLE, UNBOUNDED = "solved", "primal_infeasible", "dual_infeasible"


def row(k, numbers):
    return BOX[:k].tolist() + [numbers] + BOX[k + 1 :].tolist()


# min c'x with A x + s = b, s in Zero(2) x Nonnegative(3): (A, b, c, status, x).
DEGENERATE = {
    "regular": (BOX, [1, 1.5, 0, 0, 9], [1, 2], SOLVED, [0.5, 0.5]),
    "redundant equality": (row(1, [2, 2]), [1, 2, 0, 0, 9], [1, 2], SOLVED, [1, 0]),
    "inconsistent equality": (row(1, [2, 2]), [1, 3, 0, 0, 9], [1, 2], INFEASIBLE, None),
    "equality 0 = 0": (row(0, [0, 0]), [0, 1.5, 0, 0, 9], [1, 0], SOLVED, [0, 0.75]),
    "equality 0 = 1": (row(0, [0, 0]), [1, 1.5, 0, 0, 9], [1, 0], INFEASIBLE, None),
    "equality 0 = -1": (row(0, [0, 0]), [-1, 1.5, 0, 0, 9], [1, 0], INFEASIBLE, None),
    "inequality 0 <= 0": (row(4, [0, 0]), [1, 1.5, 0, 0, 0], [1, 2], SOLVED, [0.5, 0.5]),
    "inequality 0 <= 2": (row(4, [0, 0]), [1, 1.5, 0, 0, 2], [1, 2], SOLVED, [0.5, 0.5]),
    "inequality 0 <= -1": (row(4, [0, 0]), [1, 1.5, 0, 0, -1], [1, 2], INFEASIBLE, None),
    "infeasible both ways": (
        [[0, 0], [0, 0], [-1, 0], [0, 0], [1, 0]],
        [0, 0, -2, 0, 1],
        [1, 1],
        INFEASIBLE,
        None,
    ),
    "variable in nothing": (BOX * [1, 0], [1, 1, 0, 0, 9], [1, 0], SOLVED, [1, None]),
    "variable in c only": (BOX * [1, 0], [1, 1, 0, 0, 9], [1, 1], UNBOUNDED, None),
    "no constraint": (0 * BOX, [0, 0, 0, 1, 9], [0, 0], SOLVED, [None, None]),
    "no constraint but c": (0 * BOX, [0, 0, 0, 1, 9], [0, -3], UNBOUNDED, None),
    "one point": (
        [[1, 0], [0, 1], [1, 1], [-1, -1], [0, 0]],
        [1, 2, 3, -3, 0],
        [0, 0],
        SOLVED,
        [1, 2],
    ),
}


@functools.cache
def degenerate(engine):
    arrays = [[np.array(part, float) for part in case[:3]] for case in DEGENERATE.values()]
    programs = [ConeProgram(None, c, A, b, [Zero(2), Nonnegative(3)]) for A, b, c in arrays]
    found = lanes(solve_batch(stack(*programs), ENGINES[engine]))
    return dict(zip(DEGENERATE, zip(programs, found, strict=True), strict=True))


def assert_proof(program, solution):
    """The ray that belongs to the status, and nothing else."""
    check, value = {
        INFEASIBLE: (assert_farkas, np.inf),
        UNBOUNDED: (assert_descent, -np.inf),
    }[kind(solution)]
    check(program, solution)
    assert_no_point(solution, value=value)


@of_both
@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate(engine, name):
    program, found = degenerate(engine)[name]
    *_, status, x = DEGENERATE[name]
    if name == "infeasible both ways":  # then either proof will do
        assert kind(found) in (INFEASIBLE, UNBOUNDED)
    else:
        assert kind(found) == status
    if status == SOLVED:
        for value, wanted in zip(found.x, x, strict=True):
            assert wanted is None or abs(value - wanted) <= 1e-5
        assert np.max(np.abs(dimacs(program, found.x, found.s, found.y))) <= 1e-6
        assert_recomputed(program, found)
        assert_no_ray(found)
    else:
        assert_proof(program, found)


@of_both
def test_one_row_of_any_kind_is_one_inequality(engine):
    program, one = degenerate(engine)["regular"]
    cones = [Zero(1), Zero(1), PSD(1), SecondOrder(1), Nonnegative(1)]
    alike = ConeProgram(None, program.c, program.A.entries, program.b, cones)
    found = solve(alike, ENGINES[engine])
    assert found.solved and int(found.steps) == int(one.steps)
    for name in ("x", "s", "y"):
        np.testing.assert_allclose(getattr(found, name), getattr(one, name), atol=1e-9)


@of_both
@pytest.mark.parametrize("cones", [[], [Zero(0), PSD(0)]], ids=["no cones", "empty cones"])
@pytest.mark.parametrize("curved", [True, False])
def test_no_constraints_at_all(engine, curved, cones):
    cases = {
        True: [
            (np.eye(2), [1, 2], SOLVED, [-1, -2]),
            (np.diag([1e4, 1e-4]), [1, 2], SOLVED, [-1e-4, -2e4]),
            (np.diag([1.0, 0]), [1, 0], SOLVED, [-1, None]),
            (np.diag([1.0, 0]), [1, 2], UNBOUNDED, None),
        ],
        False: [(None, [0, 0], SOLVED, [None, None]), (None, [1, 2], UNBOUNDED, None)],
    }[curved]
    programs = [
        ConeProgram(P, np.array(c, float), np.zeros((0, 2)), np.zeros(0), cones)
        for P, c, *_ in cases
    ]
    found = lanes(solve_batch(stack(*programs), ENGINES[engine]))
    for program, solution, (_, _, status, x) in zip(programs, found, cases, strict=True):
        assert kind(solution) == status
        if status == SOLVED:
            for value, wanted in zip(solution.x, x, strict=True):
                assert wanted is None or abs(value - wanted) <= 1e-6 * (1 + abs(wanted))
        else:
            assert_descent(program, solution)


@of_both
def test_no_variables_at_all(engine):
    b = [np.array([1.0, 0]), np.array([1.0, -2])]
    programs = [
        ConeProgram(None, np.zeros(0), np.zeros((2, 0)), part, Nonnegative(2)) for part in b
    ]
    found = lanes(solve_batch(stack(*programs), ENGINES[engine]))
    assert kinds(found) == [SOLVED, INFEASIBLE]
    np.testing.assert_allclose(found[0].s, b[0], atol=1e-6)
    assert_farkas(programs[1], found[1])


@of_both
def test_directions_that_neither_objective_nor_constraints_see(rng, engine):
    # Least squares with fewer data than variables: in six directions P and A are zero but for
    # rounding, which makes some eigenvalues of P negative.
    X, targets = rng.standard_normal((8, 4, 10)), rng.standard_normal((8, 4))
    programs = [
        ConeProgram(D.T @ D, -D.T @ t, np.vstack([D, -D]), np.full(8, 0.5), Nonnegative(8))
        for D, t in zip(X, targets, strict=True)
    ]
    found = solve_batch(stack(*programs), ENGINES[engine])
    assert kinds(lanes(found)) == [SOLVED] * 8
    fits = np.einsum("kij,kj->ki", X, found.x)
    np.testing.assert_allclose(fits, np.clip(targets, -0.5, 0.5), atol=1e-4)
    assert np.max(np.abs(found.x)) < 1e3


# --- programs without a strictly feasible point ---------------------------------------------------


def flat_programs() -> dict[str, tuple[ConeProgram, float]]:
    """min c'x such that x_0 F_0 + x_1 F_1 + G is positive semidefinite, with the value."""

    def matrix(*entries):
        return to_vector(np.array(entries, float).reshape(2, 2))

    zero = np.zeros(3)

    def program(c, F, G):
        A = -np.stack(F, axis=1)
        return ConeProgram(None, np.array(c, float), A, G, [PSD(2)])

    return {
        # [[x0, x1], [x1, 0]]: x1 = 0 and x0 >= 0; no interior.
        "a face": (program([1, 1], [matrix(1, 0, 0, 0), matrix(0, 1, 1, 0)], zero), 0.0),
        # [[x0, 1], [1, x1]]: the infimum 0 of x0 is not attained.
        "not attained": (
            program([1, 0], [matrix(1, 0, 0, 0), matrix(0, 0, 0, 1)], matrix(0, 1, 1, 0)),
            0.0,
        ),
        # [[0, x0], [x0, x1]]: x0 = 0 is forced, and no dual point proves it.
        "no dual point": (program([1, 0], [matrix(0, 1, 1, 0), matrix(0, 0, 0, 1)], zero), 0.0),
        # [[1, x0], [x0, 0]] says x0^2 <= 0.
        "a square": (program([1, 0], [matrix(0, 1, 1, 0), zero], matrix(1, 0, 0, 0)), 0.0),
        # [[x0, 1], [1, 0]]: no point, but some come as near as one likes.
        "weakly infeasible": (
            program([1, 0], [matrix(1, 0, 0, 0), zero], matrix(0, 1, 1, 0)),
            np.inf,
        ),
    }


@of_both
def test_programs_without_an_interior_end_with_an_honest_status(engine):
    named, tolerance = flat_programs(), {"splitting": 1e-6, "interior point": 1e-8}[engine]
    found = lanes(solve_batch(stack(*(p for p, _ in named.values())), ENGINES[engine]))
    ends = dict(zip(named, found, strict=True))
    for (program, _), solution in zip(named.values(), found, strict=True):
        if kind(solution) in (INFEASIBLE, UNBOUNDED):
            assert_proof(program, solution)
            continue
        assert_recomputed(program, solution)
        assert_no_ray(solution)
        worst = float(solution.residuals.worst)
        if worst <= tolerance:
            assert kind(solution) == SOLVED
        else:
            near = worst <= 100 * tolerance
            assert kind(solution) in (["inaccurate"] if near else ["max_steps", "stalled"])
    if engine == "interior point":
        # The third has no dual point: that is no wrong word on the primal.
        wanted = [SOLVED, SOLVED, UNBOUNDED, SOLVED, INFEASIBLE]
        assert {name: kind(end) for name, end in ends.items()} == dict(
            zip(named, wanted, strict=True)
        )
        for name in ("a face", "not attained", "a square"):
            assert abs(ends[name].primal_objective - named[name][1]) <= 1e-6


# --- operators ------------------------------------------------------------------------------------


class Times(eqx.Module):
    """A function that holds an array, as an equinox module."""

    matrix: jax.Array

    def __call__(self, x):
        return self.matrix @ x


def as_operator(matrix):
    return lx.MatrixLinearOperator(jnp.asarray(matrix))


FORMS = {
    "lineax": (as_operator, as_operator),
    "functions": (lambda P: lambda x: P @ x, lambda A: (lambda x: A @ x, lambda y: A.T @ y)),
    "dense P, lineax of a function": (
        lambda P: P,
        lambda A: lx.FunctionLinearOperator(
            lambda x: jnp.asarray(A) @ x, jax.ShapeDtypeStruct((A.shape[1],), A.dtype)
        ),
    ),
}


@of_both
@pytest.mark.parametrize("form", FORMS)
def test_structured_maps_give_the_solution_of_dense_ones(engine, form):
    # The interior form holds the maps as arrays, whatever the cones: linear rows are enough.
    cones = [Zero(1), Nonnegative(6)] if engine == "interior point" else CASES["blocks"].cones
    known = known_program(np.random.default_rng(5), 4, cones, decades=1)
    P, c, A, b = data(known.program)
    of_P, of_A = FORMS[form]
    program = ConeProgram(of_P(P), c, of_A(A), b, cones)
    assert not program.dense
    solver = Splitting(tolerance=1e-8) if engine == "splitting" else InteriorPoint()
    found = jaxcone.solve(program, solver)
    assert kinds([found]) == [SOLVED]
    assert_optimal(known, found, tolerance=1e-8)
    np.testing.assert_allclose(found.x, known.x, rtol=1e-4)


def test_structured_maps_without_P_in_a_batch():
    case = CASES["psd"]
    known = [known_program(np.random.default_rng(s), case.size, case.cones) for s in range(3)]
    programs = []
    for k in known:
        P, c, A, b = (jnp.asarray(part) for part in data(k.program))
        programs.append(ConeProgram(Times(P), c, (Times(A), Times(A.T)), b, case.cones))
    infeasible = infeasible_program(np.random.default_rng(0), case, 0)
    _, c, A, b = (jnp.asarray(part) for part in data(infeasible))
    zero = jnp.zeros((case.size, case.size))
    programs.append(ConeProgram(Times(zero), c, (Times(A), Times(A.T)), b, case.cones))
    found = solve_batch(stack(*programs), Splitting(tolerance=1e-8))
    assert kinds([lane(found, k) for k in range(4)]) == [SOLVED] * 3 + [INFEASIBLE]
    for k, one in enumerate(known):
        np.testing.assert_allclose(found.x[k], one.x, atol=1e-5)
    assert_farkas(infeasible, lane(found, 3))


# --- precision ------------------------------------------------------------------------------------


def single(program: ConeProgram) -> ConeProgram:
    P, c, A, b = data(program)
    P = None if program.P is None else P.astype(np.float32)
    arrays = (part.astype(np.float32) for part in (c, A, b))
    return ConeProgram(P, *arrays, program.cones)


def test_float32():
    group = groups("blocks")
    programs = [group[kind].programs[0] for kind in ("known", "infeasible", "unbounded")]
    found = solve_batch(stack(*(single(program) for program in programs)), Splitting())
    floats = [a.dtype for a in jax.tree.leaves(found) if jnp.issubdtype(a.dtype, jnp.floating)]
    assert set(floats) == {np.dtype(np.float32)}
    lanes = [lane(found, k) for k in range(3)]
    assert kinds(lanes) == [SOLVED, INFEASIBLE, UNBOUNDED]
    assert_optimal(group["known"].known[0], lanes[0], tolerance=1.1e-3)
    assert_farkas(programs[1], lanes[1], miss=1.1e-3)
    assert_descent(programs[2], lanes[2], miss=1.1e-3)


def test_the_largest_precision_is_used_for_all():
    _, c, A, b = data(groups("psd")["known"].programs[0])
    mixed = ConeProgram(None, c.astype(np.float32), A, b.astype(np.float32), PSD(4))
    assert {leaf.dtype for leaf in jax.tree.leaves(mixed)} == {np.dtype(np.float64)}
    operator = as_operator(A.astype(np.float32))
    mixed = ConeProgram(None, c, operator, b.astype(np.float32), PSD(4))
    assert {leaf.dtype for leaf in jax.tree.leaves(mixed)} == {np.dtype(np.float64)}


# --- bad input ------------------------------------------------------------------------------------

GOOD = {
    "P": np.eye(3),
    "c": np.ones(3),
    "A": np.arange(12.0).reshape(4, 3),
    "b": np.ones(4),
    "cones": [Nonnegative(3), Zero(1)],
}


def with_entry(name: str, number: float):
    array = np.array(GOOD[name])
    array[(1,) * array.ndim] = number
    return array


BAD = {
    **{f"{n} is NaN": (n, with_entry(n, np.nan), "some are NaN") for n in "PcAb"},
    **{f"{n} is infinite": (n, with_entry(n, -np.inf), "some are infinite") for n in "PcAb"},
    **{f"{n} of integers": (n, GOOD[n].astype(int), "float64 entries, got int64") for n in "PcAb"},
    **{f"{n} is complex": (n, GOOD[n] + 0j, "got complex128") for n in "PcAb"},
    **{f"{n} of objects": (n, GOOD[n].astype(object), "got object") for n in "PcAb"},
    **{f"{n} is boolean": (n, GOOD[n] > 1, "got bool") for n in "PcAb"},
    **{f"{n} is ragged": (n, [[1.0, 2.0], [1.0]], "not an array of numbers") for n in "PcAb"},
    "c is missing": ("c", None, "got object"),
    "A is missing": ("A", None, "got object"),
    "c has two axes": ("c", np.ones((3, 1)), "expected one axis, got shape (3, 1)"),
    "b has no axis": ("b", 1.0, "expected one axis, got shape ()"),
    "A is too wide": ("A", np.ones((4, 4)), "expected shape (4, 3) from the lengths of b and c"),
    "A is transposed": ("A", np.ones((3, 4)), "got (3, 4)"),
    "A has one axis": ("A", np.ones(12), "got (12,)"),
    "A has three axes": ("A", np.ones((1, 4, 3)), "got (1, 4, 3)"),
    "A as an operator": ("A", as_operator(np.ones((3, 4))), "map of shape (4, 3), got (3, 4)"),
    "A as functions": ("A", (lambda x: x, lambda y: y), "functions onto shapes (4,) and (3,)"),
    "P is too large": ("P", np.eye(4), "expected shape (3, 3)"),
    "P has one axis": ("P", np.ones(3), "got (3,)"),
    "P as a function": ("P", lambda x: x[:2], "functions onto shapes (3,)"),
    "P is not symmetric": ("P", np.eye(3) + np.eye(3, k=1), "symmetric matrix, but |P - P'|"),
    "P is hardly symmetric": ("P", np.eye(3) + 1e-9 * np.eye(3, k=1), "up to 1e-09"),
    "P is not convex": ("P", np.diag([1.0, 2, -0.5]), "an eigenvalue is -0.5"),
    "P is hardly convex": ("P", np.diag([1.0, 2, -1e-9]), "an eigenvalue is -1e-09"),
    "too few cones": ("cones", [Nonnegative(3)], "add up to 3, but b has 4 entries"),
    "too many cones": ("cones", [PSD(2), Zero(2)], "add up to 5, but b has 4 entries"),
    "no cones": ("cones", [], "add up to 0"),
    "sizes for cones": ("cones", [3, 1], "expected Zero, Nonnegative"),
}


@pytest.mark.parametrize(("name", "value", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_named(name, value, message):
    ConeProgram(**GOOD)
    with pytest.raises(ValueError, match=f"^{name}: .*{re.escape(message)}"):
        ConeProgram(**GOOD | {name: value})


# So far these end in other errors, or in none.
UNNAMED = {
    "cones is a number": ("cones", 4),
    "cones is missing": ("cones", None),
    "A as functions that fail": ("A", (lambda x: jnp.ones(7) @ x, lambda y: y)),
    "A as an operator with NaN": ("A", as_operator(with_entry("A", np.nan))),
}


@pytest.mark.parametrize(("name", "value"), UNNAMED.values(), ids=UNNAMED.keys())
def test_more_bad_input_is_named(name, value):
    with pytest.raises(ValueError, match=f"^{name}: "):
        ConeProgram(**GOOD | {name: value})


@pytest.mark.parametrize(
    "start",
    [
        (1.0, 1.0),
        (np.ones(1), np.ones(1)),
        (np.ones(3), np.ones(4)),
        (np.ones((4, 1)),) * 2,
        np.ones(4),
    ],
    ids=["numbers", "one entry", "too short", "columns", "one array"],
)
def test_bad_warm_starts_are_named(start):
    with pytest.raises(ValueError, match="^warm_start: "):
        jaxcone.solve(ConeProgram(**GOOD), warm_start=start)


@pytest.mark.parametrize(
    "changed",
    [
        {"P": np.diag([1.0, 1, -1])},
        {"P": np.diag([1.0, 1, -1e-3])},
        *({name: with_entry(name, np.nan)} for name in "PcAb"),
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_where_values_cannot_be_looked_at_the_status_tells(changed):
    arrays = {name: GOOD[name] for name in "PcAb"} | changed
    build = jax.jit(lambda arrays: ConeProgram(**arrays, cones=GOOD["cones"]))
    found = solve(build(arrays), Splitting(tolerance=1e-6))
    assert found.status == Status.nonfinite and int(found.steps) == 50
