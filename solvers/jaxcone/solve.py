"""The doors of a solve: one traced, one from the host in chunks. The loops are in `iteration`."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import PyTree

from . import iteration
from .adjoint import attach, attach_value
from .methods.abstract import AbstractSolver
from .methods.splitting import Splitting
from .program import AbstractConeProgram
from .solution import Solution, Status


def solve(
    program: AbstractConeProgram,
    solver: AbstractSolver | None = None,
    *,
    warm_start: Solution | tuple[PyTree, PyTree] | None = None,
    throw: bool = False,
) -> Solution:
    """Solve a program; pure JAX, so it runs under `jit`, `vmap`, `scan`, `jvp` and `grad`.

    **Arguments:** `warm_start` is a solution of a program of the same shape, or its (s, y). With
    `throw` a status other than `solved` raises; that needs concrete numbers, so not under `jit`.

    **Returns** a `Solution`, whatever happened: read its `status`. Under `vmap` each lane has its
    own status, steps and residuals; a lane that has ended keeps its state while others go on.

    x, s and y have derivatives with respect to the program's data (module `adjoint`), and so have
    both objectives, whose derivatives are those of the optimal value and need no linear system. The
    other fields, and the warm start, pass no derivative on.

    **Raises** `NotSolved` (which holds the solution) with `throw`, and a `ValueError` for `throw`
    under a transformation.
    """
    solver = _traced(solver)
    solution = _solve(program, solver, _points(program, warm_start))
    if throw:
        _raise_unless_solved(solution)
    return solution


class NotSolved(RuntimeError):
    """Raised by `solve(..., throw=True)`; `.solution` is what was found."""

    def __init__(self, solution: Solution):
        found = solution.residuals
        super().__init__(
            f"{Status[solution.status]} Relative residuals: primal "
            f"{float(found.primal_relative):.1e}, dual {float(found.dual_relative):.1e}, gap "
            f"{float(found.gap_relative):.1e}, after {int(solution.steps)} steps."
        )
        self.solution = solution


def _raise_unless_solved(solution: Solution) -> None:
    if isinstance(solution.steps, Tracer):
        raise ValueError("throw: expected False under jit, vmap or grad; read `status` instead.")
    if not bool(solution.solved):
        raise NotSolved(solution)


@eqx.filter_jit
def _solve(program, solver, points):
    fixed, solver, points = _constant((program, solver, points))
    prepared = solver.prepare(fixed)
    start = solver.init(prepared, points)
    end = iteration.run(lambda state: solver.block(prepared, state), start)
    return _differentiable(program, solver.finish(end))


def _differentiable(program: AbstractConeProgram, solution: Solution) -> Solution:
    points = solution.x, solution.s, solution.y
    found = solution.residuals
    x, s, y = attach(program, points)
    residuals = dataclasses.replace(
        found,
        primal_objective=attach_value(program, points, found.primal_objective),
        dual_objective=attach_value(program, points, found.dual_objective),
    )
    return dataclasses.replace(solution, x=x, s=s, y=y, residuals=residuals)


def _constant(tree):
    def stop(leaf):
        return jax.lax.stop_gradient(leaf) if eqx.is_inexact_array(leaf) else leaf

    return jax.tree.map(stop, tree)


def solve_in_chunks(
    program: AbstractConeProgram,
    solver: AbstractSolver | None = None,
    *,
    warm_start: Solution | tuple[PyTree, PyTree] | None = None,
    state: Any | None = None,
    blocks_per_chunk: int = 10,
    watch: Callable[[Solution], bool | None] | None = None,
) -> Solution:
    """Solve from the host, a few blocks at a time, with the iterates of `solve` up to rounding.

    **Arguments:** `warm_start` as in `solve`; `state` continues an earlier solution (its `.state`)
    instead, bit for bit. `watch` (for instance `report()`) is called with the solution so far after
    every chunk; returning True ends the solve. A KeyboardInterrupt during a chunk, or raised by
    `watch`, ends it too: the result so far is returned, with status `running` (before the first
    chunk there is none, and it propagates).
    """
    solver = Splitting() if solver is None else solver

    def further(solution: Solution | None) -> Solution:
        return advance(program, solver, solution, warm_start=warm_start, blocks=blocks_per_chunk)

    return iteration.chunks(further, None if state is None else solver.finish(state), watch)


def advance(
    program: AbstractConeProgram,
    solver: AbstractSolver | None = None,
    solution: Solution | None = None,
    *,
    warm_start: Solution | tuple[PyTree, PyTree] | None = None,
    blocks: int = 10,
    prepared: Any = None,
) -> Solution:
    """Some blocks of steps from the host, from where `solution` stopped, or from the (warm) start.

    Compiled once per program shape. A solution that has ended by the settings of `solver` is
    returned as it is; with more steps or a smaller tolerance than before it goes on. `prepared`, what
    `prepare(program, solver)` returns, saves the set-up of each call.
    """
    solver = _traced(solver)
    prepared = prepare(program, solver) if prepared is None else prepared
    if solution is None:
        state = _begin(solver, prepared, _points(program, warm_start))
    else:
        state = solution.state
    following = _blocks(solver, prepared, state, jnp.asarray(blocks))
    return solver.finish(jax.block_until_ready(following))


def prepare(program: AbstractConeProgram, solver: AbstractSolver | None = None) -> Any:
    """What does not change during an iteration, for `advance`: equilibration and factors."""
    return _prepare(program, _traced(solver))


# Three programs, so that going on from a state compiles nothing that starting has compiled already.
@eqx.filter_jit
def _prepare(program, solver):
    return solver.prepare(program)


@eqx.filter_jit
def _begin(solver, prepared, points):
    return solver.init(prepared, points)


@eqx.filter_jit
def _blocks(solver, prepared, state, blocks):
    start = solver.judge_again(state)
    return iteration.advance(lambda state: solver.block(prepared, state), start, blocks)


def _traced(solver: AbstractSolver | None) -> AbstractSolver:
    """The settings as arrays: new numbers compile nothing."""
    return jax.tree.map(jnp.asarray, Splitting() if solver is None else solver)


def _points(program, warm_start):
    """(s, y) of a warm start, if it fits the program."""
    if warm_start is None:
        return None
    points = warm_start
    if isinstance(warm_start, Solution):
        points = warm_start.s, warm_start.y
    like = jax.eval_shape(program.offset)
    wanted = jax.tree.map(lambda leaf: leaf.shape, (like, like))
    try:
        found = jax.tree.map(jnp.shape, points)
    except TypeError:
        found = None
    if found != wanted:
        raise ValueError(f"warm_start: expected (s, y) of shapes {wanted}, got {found}.")
    return points
