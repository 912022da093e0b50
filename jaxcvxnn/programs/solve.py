"""`solve`: a training problem to the solution of one of its convex programs, in pure JAX."""

from typing import Any, TypeVar, overload

import equinox as eqx

from jaxcone import AbstractSolver, solve as solve_cone

from ..conic.lifted import LiftedData
from ..problem import TrainingProblem
from .abstract import AbstractProgramSolution, AbstractTrainingProgram
from .relaxation import LiftedSolution, SDPRelaxation

Found = TypeVar("Found")


@overload
def solve(
    problem: TrainingProblem | LiftedData,
    program: None = None,
    solver: AbstractSolver | None = None,
    *,
    warm_start: Any = None,
) -> LiftedSolution: ...


@overload
def solve(
    problem: TrainingProblem | eqx.Module,
    program: AbstractTrainingProgram[Any, Found],
    solver: AbstractSolver | None = None,
    *,
    warm_start: Any = None,
) -> Found: ...


def solve(
    problem: TrainingProblem | eqx.Module,
    program: AbstractTrainingProgram[Any, Any] | None = None,
    solver: AbstractSolver | None = None,
    *,
    warm_start: AbstractProgramSolution | Any = None,
) -> Any:
    """Solve a convex program of a training problem; runs under `jit` and `vmap`.

    **Arguments:** `problem`, or what `program.data(problem)` gives; for the relaxation that is also the
    `data` of a `Reduction` (see `reduce`), which has fewer unknowns and an interior; `program`, by
    default the relaxation (docs/programs.md lists the others); `solver`, by default the program's own
    choice; `warm_start`, an earlier solution of the same shape, for
    instance at another weight decay (an interior-point method makes no use of it).

    **Returns** the program's solution; read its `status`. Nothing is raised for a poor solve.
    """
    if program is None:
        return solve(problem, SDPRelaxation(), solver, warm_start=warm_start)
    data = program.data(problem)
    cone_program = program.cone_program(data)
    solver = program.default_solver(cone_program) if solver is None else solver
    named = isinstance(warm_start, AbstractProgramSolution)
    earlier = warm_start.solution if named else warm_start
    solution = solve_cone(cone_program, solver, warm_start=earlier)
    return program.read_out(data, cone_program, solution)
