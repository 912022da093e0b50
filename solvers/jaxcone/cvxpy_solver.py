"""CVXPY models on this solver.

    import jaxcone.cvxpy_solver

    problem.solve(solver=jaxcone.cvxpy_solver.CVXPYSolver(), tolerance=1e-9, max_steps=50000)
    problem.solve(solver=jaxcone.cvxpy_solver.CVXPYSolver("interior_point"), tolerance=1e-9)
    problem.solver_stats.extra_stats.residuals  # of the jaxcone.Solution

Linear, second-order and PSD constraints with linear or convex quadratic objectives, in float64. CVXPY
is an optional package (the extra `cvxpy`), so only this module imports it and `jaxcone` does not import
this module.
"""

import dataclasses
import time
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal

import cvxpy.settings as names
import jax
import numpy as np
import scipy.sparse
from cvxpy.constraints.psd import PSD as MatrixPSD
from cvxpy.constraints.second_order import SOC
from cvxpy.reductions.solution import Solution as CVXPYSolution
from cvxpy.reductions.solvers import utilities
from cvxpy.reductions.solvers.conic_solvers.conic_solver import ConicSolver

from .cone_program import ConeProgram
from .cones import PSD, AbstractCone, Nonnegative, SecondOrder, Zero
from .methods.abstract import AbstractSolver
from .methods.interior_point import InteriorPoint
from .methods.splitting import Splitting
from .solution import Solution, Status
from .solve import solve_in_chunks

# Since 1.9 CVXPY turns the matrices of PSD constraints into vectors and their duals into matrices, by
# these names. Earlier versions leave both to the solver: `psd_format_mat` and `_dual_value` below.
try:
    from cvxpy.constraints.psd import SvecPSD
    from cvxpy.utilities.psd_utils import TriangleKind
except ImportError:
    SvecPSD = TriangleKind = None


@dataclasses.dataclass(frozen=True)
class Method:
    """Settings of a solver, those that differ from its own here, and blocks of steps per chunk."""

    settings: type[AbstractSolver]
    defaults: dict[str, Any]
    chunk: int
    verbose_chunk: int


METHODS = {
    # Users of models expect an answer rather than a limit: proofs of infeasibility often take longer
    # than the 5000 steps of `Splitting`.
    "splitting": Method(Splitting, {"max_steps": 20000}, 10, 10),
    # Most programs end within the first chunk, and going on would be a second compilation.
    "interior_point": Method(InteriorPoint, {}, 30, 1),
}
# CVXPY reads this one itself, but hands it on.
IGNORED = ("use_quad_obj",)

# USER_LIMIT makes CVXPY keep the point and warn; SOLVER_ERROR makes it raise.
LABELS = (
    (Status.solved, names.OPTIMAL),
    (Status.inaccurate, names.OPTIMAL_INACCURATE),
    (Status.max_steps, names.USER_LIMIT),
    (Status.stalled, names.USER_LIMIT),
    (Status.primal_infeasible, names.INFEASIBLE),
    (Status.dual_infeasible, names.UNBOUNDED),
    (Status.nonfinite, names.SOLVER_ERROR),
)


@dataclasses.dataclass(frozen=True)
class Instance:
    """A program and how its rows lie among those that CVXPY gave: `kept[i]` says if row i is there."""

    program: ConeProgram
    kept: np.ndarray


@dataclasses.dataclass(frozen=True)
class Answer:
    """A solution, the same with CVXPY's rows, and seconds spent before and in the iteration."""

    solution: Solution
    x: np.ndarray
    y: np.ndarray
    value: float
    setup_time: float
    solve_time: float


class CVXPYSolver(ConicSolver):
    """jaxcone as a solver of CVXPY: `problem.solve(solver=CVXPYSolver(method), **options)`.

    **Methods**: `"splitting"` and `"interior_point"`, `jaxcone.Splitting` and `jaxcone.InteriorPoint`.
    (CVXPY's `solve` has a `method` of its own, so ours is named here.)

    **Options** are the fields of the method's class; the splitting's `max_steps` is 20000 unless given.
    `warm_start=True`, CVXPY's default, starts from the last solution of the same problem, except that
    the interior-point method always starts afresh. `verbose=True` prints a line with the residuals
    every ten blocks of steps, or at each step of the interior-point method.

    **Results**: values of variables and constraints (at an infeasible problem the latter are a proof
    of it), and in `problem.solver_stats` the number of steps, the seconds (with those of compilation,
    once per shape of program) and, as `extra_stats`, the `jaxcone.Solution` of the program that CVXPY
    made of the problem. Its arrays are float64: compute with them under `jax.enable_x64(True)`.

    **Status**: optimal if solved, optimal_inaccurate if it ended near the tolerance, user_limit if it
    ended far from it (at the step limit, or because no progress was possible), infeasible, unbounded.
    CVXPY raises its `SolverError` for a point that is not finite, and for exponential and power cones
    and integers.

    A is stored as a dense array, 8 m n bytes, whatever its sparsity.

    Raises a `ValueError` for a method or an option that does not exist or is out of range, for a
    constraint that equates with infinity or asks for more, for a quadratic objective that is not
    convex, and for a problem too large for the interior-point method (`InteriorPoint.memory_limit`).
    Ctrl-C is a `KeyboardInterrupt`, after ten blocks of steps (30 of the interior-point method).
    """

    MIP_CAPABLE = False
    SUPPORTED_CONSTRAINTS = [*ConicSolver.SUPPORTED_CONSTRAINTS, SOC, SvecPSD or MatrixPSD]
    REQUIRES_CONSTR = False
    PSD_TRIANGLE_KIND = TriangleKind and TriangleKind.LOWER
    PSD_SQRT2_SCALING = True

    def __init__(self, method: Literal["splitting", "interior_point"] = "splitting"):
        super().__init__()
        if method not in METHODS:
            known = ", ".join(map(repr, METHODS))
            raise ValueError(f"CVXPYSolver: `method` must be one of {known}, got {method!r}.")
        self.method = method

    # CVXPY keeps what it compiled, and the warm start, as long as a problem's solver stays the same:
    # two of one method are the same, so `solver=CVXPYSolver()` may be written in a loop.
    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), self.method))

    def name(self) -> str:
        """How CVXPY's messages call it."""
        return "JAXCONE"

    def import_solver(self) -> None:
        """Nothing to do: whoever has this class has the solver."""

    def supports_quad_obj(self) -> bool:
        """Quadratic objectives stay quadratic, instead of becoming second-order cones."""
        return True

    def cite(self, data: Any) -> str:
        """A BibTeX entry."""
        return "@misc{jaxcone, title = {jaxcone: conic optimisation in pure JAX}}"

    @staticmethod
    def psd_format_mat(constr: Any) -> scipy.sparse.csc_array:
        """The map from a matrix, column by column, to the `svec` of its symmetric part.

        For CVXPY before 1.9.
        """
        side = constr.shape[0]
        columns, rows = np.triu_indices(side)
        entry = np.arange(rows.size)
        weight = np.where(rows == columns, 0.5, np.sqrt(0.5))
        weights = np.concatenate([weight, weight])  # of (i, j) and of (j, i); they add up if i = j
        place = np.concatenate([rows + side * columns, columns + side * rows])
        shape = (rows.size, side * side)
        return scipy.sparse.csc_array((weights, (np.tile(entry, 2), place)), shape)

    def solve_via_data(
        self,
        data: Mapping[str, Any],
        warm_start: bool,
        verbose: bool,
        solver_opts: Mapping[str, Any],
        solver_cache: MutableMapping[str, Any] | None = None,
    ) -> Answer:
        """Solve what `apply` made of a problem. For CVXPY, which calls `invert` with the result."""
        started = time.perf_counter()
        with jax.enable_x64(True):
            method = METHODS[self.method]
            settings = _settings(self.method, solver_opts)
            instance = _instance(data, data[self.DIMS])
            known = solver_cache.get(self.name()) if solver_cache and warm_start else None
            points = _points(known, instance.program)
            prepared = time.perf_counter()
            solution = solve_in_chunks(
                instance.program,
                settings,
                warm_start=points,
                blocks_per_chunk=method.verbose_chunk if verbose else method.chunk,
                watch=_print if verbose else None,
            )
            if solution.status == Status.running:  # the only way to end early is Ctrl-C
                raise KeyboardInterrupt
            answer = _answer(instance, solution, started, prepared)
        if solver_cache is not None:
            solver_cache[self.name()] = (instance, solution)
        return answer

    def invert(self, solution: Answer, inverse_data: Mapping[str, Any]) -> CVXPYSolution:
        """CVXPY's solution from that of `solve_via_data`."""
        found = solution.solution
        label = next(label for status, label in LABELS if found.status == status)
        attributes = {
            names.SETUP_TIME: solution.setup_time,
            names.SOLVE_TIME: solution.solve_time,
            names.NUM_ITERS: int(found.steps),
            names.EXTRA_STATS: found,
        }
        x, duals, value = {}, {}, solution.value + inverse_data[names.OFFSET]
        if label in names.SOLUTION_PRESENT:
            x = {inverse_data[self.VAR_ID]: solution.x}
        if label in names.SOLUTION_PRESENT or label == names.INFEASIBLE:
            duals = self._duals(solution.y, inverse_data)
        return CVXPYSolution(label, value, x, duals, attributes)

    def _duals(self, y: np.ndarray, inverse_data: Mapping[str, Any]) -> dict[Any, Any]:
        first = inverse_data[self.DIMS].zero
        parts = (
            (y[:first], inverse_data[self.EQ_CONSTR]),
            (y[first:], inverse_data[self.NEQ_CONSTR]),
        )
        duals = {}
        for values, constraints in parts:
            duals |= utilities.get_dual_values(values, _dual_value, constraints)
        return duals


def _settings(method: str, options: Mapping[str, Any]) -> AbstractSolver:
    kind = METHODS[method]
    fields = tuple(field.name for field in dataclasses.fields(kind.settings))
    unknown = [name for name in options if name not in fields and name not in IGNORED]
    if unknown:
        raise ValueError(
            f"jaxcone has no option {', '.join(map(repr, unknown))} with the method {method!r}; its "
            f"options are {', '.join(fields)}."
        )
    given = {name: value for name, value in options.items() if name in fields}
    # As arrays: other numbers must not mean another compilation.
    return jax.tree.map(np.asarray, kind.settings(**(kind.defaults | given)))


def _instance(data: Mapping[str, Any], dims: Any) -> Instance:
    """The program min 1/2 x'P x + c'x, A x + s = b, with CVXPY's order of cones."""
    A, b, c = data[names.A], np.asarray(data[names.B], float), np.asarray(data[names.C], float)
    # A bound of +inf, which CVXPY allows, is none: the program goes without that row.
    kept = np.ones(b.size, bool)
    inequalities = slice(dims.zero, dims.zero + dims.nonneg)
    kept[inequalities] = b[inequalities] != np.inf
    if not np.all(np.isfinite(b[kept])):
        raise ValueError("jaxcone: some constraint asks for an infinite value.")
    cones = _cones(dims, int(np.sum(kept[inequalities])))
    P = _symmetric(data[names.P]) if names.P in data else None
    return Instance(ConeProgram(P, c, A.toarray()[kept].astype(float), b[kept], cones), kept)


def _cones(dims: Any, inequalities: int) -> list[AbstractCone]:
    return [
        Zero(int(dims.zero)),
        Nonnegative(inequalities),
        *(SecondOrder(int(size)) for size in dims.soc),
        *(PSD(int(side)) for side in dims.psd),
    ]


def _symmetric(P: Any) -> np.ndarray:
    """P as an array. CVXPY gives all of it; a triangle, should it come, stands for all too."""
    dense = P.toarray().astype(float)
    if not np.any(np.tril(dense, -1)):
        dense = dense + np.triu(dense, 1).T
    return (dense + dense.T) / 2


def _points(known: tuple[Instance, Solution] | None, program: ConeProgram) -> Any:
    """(s, y) of the last solution if it is of a program with the same cones, else the usual start."""
    if known is None or known[0].program.cones != program.cones:
        return program.initial()
    return known[1].s, known[1].y


def _print(solution: Solution) -> None:
    """One line of progress, and at the end the reason for it."""
    found, ended = solution.residuals, bool(solution.status != Status.running)
    print(
        f"jaxcone  step {int(solution.steps):6d}  primal {float(found.primal_relative):.1e}"
        f"  dual {float(found.dual_relative):.1e}  gap {float(found.gap_relative):.1e}"
        f"  objective {float(solution.primal_objective):+.6e}",
        f"  {Status[solution.status]}" if ended else "",
        flush=True,
    )


def _answer(instance: Instance, solution: Solution, started: float, prepared: float) -> Answer:
    infeasible = bool(solution.status == Status.primal_infeasible)
    y = np.zeros(instance.kept.size)
    y[instance.kept] = solution.ray.y if infeasible else solution.y
    return Answer(
        solution=solution,
        x=np.asarray(solution.x),
        y=y,
        value=float(solution.primal_objective),
        setup_time=prepared - started,
        solve_time=time.perf_counter() - prepared,
    )


def _dual_value(values: np.ndarray, start: int, constraint: Any) -> tuple[Any, int]:
    """The dual of the constraint whose rows begin at `start`, and where the next one begins."""
    if type(constraint) is MatrixPSD:
        side = constraint.shape[0]
        end = start + PSD(side).rows
        # `svec` keeps inner products, so that its adjoint is its inverse.
        flat = CVXPYSolver.psd_format_mat(constraint).T @ values[start:end]
        return flat.reshape(side, side), end
    return utilities.extract_dual_value(values, start, constraint)
