"""`solve`: a training problem to the solution of one of its convex programs."""

from typing import Any, TypeVar, overload

import equinox as eqx

from jaxcone import AbstractSolver, solve as solve_cone

from ..conic.lifted import LiftedData
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

    **Arguments:** `problem`, or what `program.data(problem)` gives; for the relaxation that is also the
    `data` of a `Reduction` (see `reduce`), which has fewer unknowns and an interior; `program`, by
    default the relaxation (docs/programs.md lists the others); `method`, a solver of `jaxcone` or a
    method of the program's own, by default its own choice; `warm_start`, an earlier solution of the same
    shape, for instance at another weight decay (an interior-point method makes no use of it).

    **Returns** the program's solution; read its `status`. Nothing is raised for a poor solve.

    **Raises** a `ValueError` for a problem that the program refuses, and one that the method does.
    """
    if program is None:
        return solve(problem, SDPRelaxation(), method, warm_start=warm_start)
    data = program.data(problem)
    method = program.default_method(data) if method is None else method
    if isinstance(method, AbstractMethod):
        return method.solve(program, data, warm_start)
    cone = program.to_cone(data)
    named = isinstance(warm_start, AbstractConeFound)
    earlier = warm_start.solution if named else warm_start
    return program.read_out(data, cone, solve_cone(cone, method, warm_start=earlier))
