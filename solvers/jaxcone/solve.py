"""The driver loops: one traced, one from the host in chunks. No mathematics."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from .program import AbstractConeProgram
from .solution import Solution, Status
from .splitting import Splitting, SplittingState, block, finish, init, judge_again, prepare


def solve(
    program: AbstractConeProgram,
    solver: Splitting | None = None,
    *,
    warm_start: Solution | tuple[PyTree, PyTree] | None = None,
) -> Solution:
    """Solve a program; pure JAX, so it runs under `jit`, `vmap` and `scan`.

    **Arguments:** `warm_start` is a solution of a program of the same shape, or its (s, y).

    **Returns** a `Solution`, whatever happened: read its `status`. Under `vmap` each lane has its
    own status, steps and residuals; a lane that has ended keeps its state while others go on.
    """
    solver = Splitting() if solver is None else solver
    prepared = prepare(program)
    start = init(solver, prepared, _points(warm_start))
    end = jax.lax.while_loop(_running, lambda state: block(solver, prepared, state), start)
    return finish(end)


def solve_in_chunks(
    program: AbstractConeProgram,
    solver: Splitting | None = None,
    *,
    state: SplittingState | None = None,
    blocks_per_chunk: int = 10,
    watch: Callable[[Solution], bool | None] | None = None,
) -> Solution:
    """Solve from the host, a few blocks at a time, with the same iterates as `solve`.

    **Arguments:** `state` continues an earlier solution (its `.state`), bit for bit. `watch` is
    called with the solution so far after every chunk; returning True ends the solve. A
    KeyboardInterrupt during a chunk, or raised by `watch`, ends it too: the result so far is
    returned, with status `running` (before the first chunk there is none, and it propagates).
    """
    solution = None if state is None else finish(state)
    try:
        while True:
            solution = advance(program, solver, solution, blocks=blocks_per_chunk)
            stop = watch is not None and watch(solution)
            if stop or not bool(solution.status == Status.running):
                break
    except KeyboardInterrupt:
        if solution is None:
            raise
    return solution


def advance(
    program: AbstractConeProgram,
    solver: Splitting | None = None,
    solution: Solution | None = None,
    *,
    blocks: int = 10,
) -> Solution:
    """Some blocks of steps from the host, from the start or from where `solution` stopped.

    Compiled once per program shape. A solution that has ended by the settings of `solver` is
    returned as it is; with more steps or a smaller tolerance than before it goes on.
    """
    solver = jax.tree.map(jnp.asarray, Splitting() if solver is None else solver)
    state = _start(program, solver) if solution is None else solution.state
    return finish(jax.block_until_ready(_chunk(program, solver, state, jnp.asarray(blocks))))


@eqx.filter_jit
def _start(program, solver):
    return init(solver, prepare(program))


@eqx.filter_jit
def _chunk(program, solver, state, blocks):
    prepared = prepare(program)
    state = judge_again(solver, state)

    def go_on(carry):
        done, state = carry
        return (done < blocks) & _running(state)

    def advance(carry):
        done, state = carry
        return done + 1, block(solver, prepared, state)

    return jax.lax.while_loop(go_on, advance, (0, state))[1]


def _running(state: SplittingState):
    return state.status == Status.running


def _points(warm_start):
    if isinstance(warm_start, Solution):
        return warm_start.s, warm_start.y
    return warm_start
