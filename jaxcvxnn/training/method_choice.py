"""Which method solves (lifted): the rule behind `solver="auto"`."""

from typing import Any

import jax
import numpy as np

from jaxcone import AbstractSolver, InteriorPoint, Splitting
from jaxcone.extend import available_memory, step_cost

from ..conic.lifted import LiftedProgram

# Unknowns at most, on a CPU and elsewhere: a step costs n^3 / 3 operations. On two CPU cores a step at
# 3,247 unknowns takes seconds, and 40 of them certify what splitting does not reach at all
# (docs/math/lifted.md, "Which method").
LARGEST_ON_CPU, LARGEST_ELSEWHERE = 4000, 25000
# A tolerance of 1e-8 leaves 1e-5 of the bound on some data; below 3e-9 some stall.
INTERIOR_POINT = InteriorPoint(tolerance=5e-9, max_steps=60, refinements=1)
IN_FLOAT32 = InteriorPoint(max_steps=60, refinements=1)


def choose_solver(program: LiftedProgram) -> AbstractSolver | None:
    """The interior-point method where it fits, None where splitting has to find its penalty.

    Interior point for float64 data with at most `LARGEST_ON_CPU` unknowns (on an accelerator,
    `LARGEST_ELSEWHERE`) if its matrices fit into the memory that is free. Its number of steps is the
    same for all data, and its duals certify; a float32 dual is too coarse for it.
    """
    if np.dtype(program.rows.dtype) != np.float64:
        return None
    try:
        needed, _ = step_cost(program)
    except NotImplementedError:
        return None
    unknowns = jax.eval_shape(lambda p: p.interior().linear(), program).shape[0]
    elsewhere = jax.devices()[0].platform != "cpu"
    small = unknowns <= (LARGEST_ELSEWHERE if elsewhere else LARGEST_ON_CPU)
    return INTERIOR_POINT if small and needed <= available_memory() else None


def named_solver(solver: Any, program: LiftedProgram) -> AbstractSolver | None:
    """The settings that `solver` names: a name, settings, or None for "auto".

    None is returned for splitting with penalties to be tried. **Raises** a `ValueError` for any other
    name or object.
    """
    if isinstance(solver, AbstractSolver):
        return solver
    if solver is None:
        return choose_solver(program)
    if isinstance(solver, str) and solver in ("auto", "interior_point", "splitting"):
        double = np.dtype(program.rows.dtype) == np.float64
        fixed = {"interior_point": INTERIOR_POINT if double else IN_FLOAT32, "splitting": None}
        return fixed[solver] if solver in fixed else choose_solver(program)
    raise ValueError(
        'solver must be "auto", "splitting", "interior_point", or settings such as '
        f"jaxcone.InteriorPoint(); got {solver!r}."
    )


def describe_cost(program: LiftedProgram) -> str:
    """What one interior-point step needs, for people to read."""
    needed, operations = step_cost(program)
    return f"{needed / 1e9:.2f} GB and {operations / 1e9:.1f}e9 operations per step"


def method_name(solver: AbstractSolver) -> str:
    """The method in words."""
    return "splitting" if isinstance(solver, Splitting) else "interior-point"
