"""From what the caller asks for to the route that does it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..activations import RELU, Polynomial
from ..geometry.directions import row_space
from ..losses.regression import Squared
from ..pricing.pricer import LARGEST_RANK
from ..problem import TrainingProblem, require_relu, require_squared
from ..programs.abstract import AbstractProgram
from ..programs.cone_lasso import ConeGroupLasso
from ..programs.copositive import CopositiveRelaxation, NuclearNormRelaxation
from ..programs.planar import ExactPlanar
from ..programs.relaxation import SDPRelaxation
from .checkpoint import Checkpoint
from .columns_route import ColumnsRoute
from .lifted_route import LiftedRoute
from .program_route import ProgramRoute
from .route import AbstractRoute
from .spectrahedron_route import SpectrahedronRoute

# Short forms of program objects; a program is added to `train` and `path` by its line here.
NAMED_PROGRAMS: dict[str, Callable[[], AbstractProgram[Any, Any]]] = {
    "planar": ExactPlanar,
    "copositive": CopositiveRelaxation,
    "nuclear_norm": NuclearNormRelaxation,
    "cone_lasso": ConeGroupLasso,
    "sdp": SDPRelaxation,
}


class Settings(NamedTuple):
    """What the caller asks of a route; each takes what it uses."""

    solver: Any
    tolerance: float | None
    width: int
    polish: bool
    seed: int
    checkpoint: Checkpoint | None
    dtype: Any


# Training that is more than one program; a route is added to `train` and `path` by its line here.
ROUTES: dict[str, Callable[[Settings], AbstractRoute]] = {
    "columns": lambda s: ColumnsRoute(
        width=s.width, tolerance=s.tolerance, seed=s.seed, checkpoint=s.checkpoint
    ),
    "lifted": lambda s: LiftedRoute(
        width=s.width,
        solver=s.solver,
        improve=s.polish,
        seed=s.seed,
        dtype=s.dtype,
        checkpoint=s.checkpoint,
    ),
    "spectrahedron": lambda s: SpectrahedronRoute(
        width=s.width, tolerance=s.tolerance, checkpoint=s.checkpoint
    ),
}
PROGRAMS = ("auto", *ROUTES, *NAMED_PROGRAMS)


def choose_route(
    program: str | AbstractProgram[Any, Any],
    problem: TrainingProblem,
    *,
    solver: Any = None,
    tolerance: float | None = None,
    width: int = 300,
    polish: bool = True,
    seed: int = 0,
    checkpoint: Checkpoint | None = None,
    dtype: Any = np.float64,
) -> AbstractRoute:
    """The route of a program, by its name or the program itself, with the settings that it uses.

    **Raises** a `ValueError` for another name, and for a program that does not take the problem.
    """
    if not isinstance(program, str):
        return _program_route(program, problem, solver, tolerance, width, polish)
    named = choose_program(
        program, problem, for_lifted=solver not in (None, "auto") or not polish, saved=checkpoint
    )
    if named in NAMED_PROGRAMS:
        own = NAMED_PROGRAMS[named]()
        return _program_route(own, problem, solver, tolerance, width, polish, named)
    return ROUTES[named](Settings(solver, tolerance, width, polish, seed, checkpoint, dtype))


def choose_program(
    program: str,
    problem: TrainingProblem,
    *,
    for_lifted: bool = False,
    saved: Checkpoint | None = None,
) -> str:
    """The name of a program; "auto" by the activation, the loss and the rank of the data, by whether
    the caller has given arguments that make sense `for_lifted` only, and by what is `saved`.

    **Raises** a `ValueError` for another name, and for a program that does not take the problem's loss
    or activation.
    """
    if program not in PROGRAMS:
        raise ValueError(f"program must be one of {PROGRAMS} or a program; got {program!r}.")
    polynomial = isinstance(problem.activation, Polynomial)
    if program in NAMED_PROGRAMS:
        return program
    if program == "auto" and saved is not None and saved.exists:
        return choose_program(saved.program(), problem)
    if program != "auto" and polynomial != (program == "spectrahedron"):
        raise ValueError(
            f"program={program!r} does not take the activation {problem.activation}: "
            '"spectrahedron" is for polynomials, the others for ReLU and its kin.'
        )
    if polynomial:
        return "spectrahedron"
    if program == "auto":
        if not isinstance(problem.loss, Squared) or problem.activation != RELU:
            return "columns"
        low = row_space(problem.features).shape[1] <= LARGEST_RANK
        return "columns" if low and not for_lifted else "lifted"
    if program == "lifted":
        require_relu(problem)
        require_squared(problem)
    return program


def _program_route(
    program: AbstractProgram[Any, Any],
    problem: TrainingProblem,
    solver: Any,
    tolerance: float | None,
    width: int,
    polish: bool,
    name: str = "",
) -> ProgramRoute:
    reason = program.refuses(problem)
    if reason:
        raise ValueError(f"{type(program).__name__}: {reason}")
    return ProgramRoute(
        name=name or type(program).__name__,
        width=width,
        program=program,
        method=None if solver in (None, "auto") else solver,
        tolerance=tolerance,
        improve=polish,
    )
