"""`solve`: a training problem to the solution of one of its convex programs."""

from collections.abc import Callable
from typing import Any, TypeVar, overload

import equinox as eqx
import jax

from jaxcone import AbstractSolver, Status, solve as solve_cone
from jaxcone.extend import advance, prepare

from ..conic.lifted import LiftedData
from ..job import Job, Pace
from ..problem import TrainingProblem
from .abstract import AbstractConeFound, AbstractFound, AbstractMethod, AbstractProgram
from .relaxation import LiftedSolution, SDPRelaxation

Found = TypeVar("Found", bound=AbstractFound)


@overload
def solve(
    problem: TrainingProblem | LiftedData,
    program: None = None,
    method: AbstractSolver | None = None,
    *,
    warm_start: Any = None,
) -> LiftedSolution: ...


@overload
def solve(
    problem: eqx.Module,
    program: AbstractProgram[Any, Found],
    method: AbstractSolver | None = None,
    *,
    warm_start: Any = None,
) -> Found: ...


@overload
def solve(
    problem: eqx.Module,
    program: AbstractProgram[Any, Any],
    method: AbstractMethod,
    *,
    warm_start: Any = None,
) -> Any: ...


def solve(
    problem: eqx.Module,
    program: AbstractProgram[Any, Any] | None = None,
    method: AbstractSolver | AbstractMethod | None = None,
    *,
    warm_start: Any = None,
) -> Any:
    """Solve a convex program of a training problem.

    In pure JAX, for `jit` and `vmap`, with the solvers of `jaxcone` and the splitting methods; the
    methods whose names end in `Interior` run on the host.

    **Arguments:** `problem`, or what `program.data(problem)` gives; for the relaxation that is also
    the `data` of a `Reduction` (see `reduce`), which has fewer unknowns and an interior; `program`,
    by default the relaxation (docs/programs.md lists the others); `method`, a solver of `jaxcone` or
    a method of the program's own, by default its own choice; `warm_start`, an earlier solution of the
    same shape, for instance at another weight decay (an interior-point method makes no use of it).

    **Returns** the program's solution; read its `status`. Nothing is raised for a poor solve.

    **Raises** a `ValueError` for a problem that the program refuses, and one that the method does.
    """
    if program is None:
        return solve(problem, SDPRelaxation(), method, warm_start=warm_start)
    if isinstance(method, AbstractMethod) and method.precise:
        with jax.enable_x64(True):
            return method.solve(program, program.data(problem), warm_start)
    data = program.data(problem)
    method = program.default_method(data) if method is None else method
    if isinstance(method, AbstractMethod):
        return method.solve(program, data, warm_start)
    cone = program.to_cone(data)
    named = isinstance(warm_start, AbstractConeFound)
    earlier = warm_start.solution if named else warm_start
    return program.read_out(data, cone, solve_cone(cone, method, warm_start=earlier))


def solve_on_host(
    problem: Any,
    program: AbstractProgram[Any, Any],
    method: AbstractSolver | AbstractMethod | None,
    warm_start: Any,
    job: Job,
    watch: Callable[[Any], object],
) -> Any:
    """`solve` in pieces between which the job is asked and `watch` is told of the solution so far.

    Returns what is reached when the job is over; None where that is nothing.
    """
    data = job.chunk(lambda: program.data(problem))
    if data is None:
        return None
    method = program.default_method(data) if method is None else method
    if isinstance(method, AbstractMethod):
        return method.on_host(program, data, warm_start, job, watch)
    cone = job.chunk(lambda: jax.block_until_ready(_to_cone(program, data)))
    if cone is None:
        return None
    start = None if warm_start is None else (warm_start.solution.s, warm_start.solution.y)
    prepared = job.chunk(lambda: jax.block_until_ready(prepare(cone, method)))
    if prepared is None:
        return None
    solution, pace = None, Pace(job)

    def further(blocks: int) -> Any:
        nonlocal solution
        solution = advance(
            cone, method, solution, warm_start=start, blocks=blocks, prepared=prepared
        )
        return solution

    while solution is None or bool(solution.status == Status.running):
        if pace.run(pace.steps, further) is None:
            break
        if watch is not None:
            job.tell(lambda: watch(_read_out(program, data, cone, solution)))
    return None if solution is None else _read_out(program, data, cone, solution)


@eqx.filter_jit
def _to_cone(program, data):
    return program.to_cone(data)


@eqx.filter_jit
def _read_out(program, data, cone, solution):
    return program.read_out(data, cone, solution)
