"""The loop of block methods, by a toy one (Newton's square root), and the table of statuses."""

import itertools

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcone import Status
from jaxcone.extend import iteration

PER_BLOCK, MAX_STEPS, TOLERANCE = 2, 12, 1e-12


class Root(eqx.Module):
    """Where the search for the square root of `square` stands."""

    square: jax.Array
    x: jax.Array
    steps: jax.Array
    status: Status


def start(square) -> Root:
    square = jnp.asarray(square, float)
    return Root(square, jnp.ones_like(square), jnp.zeros((), jnp.int32), Status.running)


def block(state: Root) -> Root:
    x = jax.lax.fori_loop(0, PER_BLOCK, lambda _, x: (x + state.square / x) / 2, state.x)
    steps, miss = state.steps + PER_BLOCK, jnp.abs(x**2 / state.square - 1)
    status = iteration.status_of(miss, TOLERANCE, steps, MAX_STEPS, sound=jnp.isfinite(x))
    return Root(state.square, x, steps, status)


run = jax.jit(lambda state: iteration.run(block, state))
advance = jax.jit(lambda state, blocks: iteration.advance(block, state, blocks))


def further(blocks: int, square: float = 1e4):
    return lambda last: advance(start(square) if last is None else last, blocks)


def test_run_ends_by_the_status():
    found = run(start(1e4))
    assert found.status == Status.solved and found.steps == 12
    np.testing.assert_allclose(found.x, 100, rtol=1e-12)
    assert run(start(1e12)).status == Status.max_steps
    assert run(start(np.nan)).status == Status.nonfinite
    chex.assert_trees_all_equal(run(found), found)


def test_advance_takes_so_many_blocks_or_fewer():
    for blocks, steps in ((0, 0), (1, 2), (3, 6), (6, 12), (9, 12)):
        found = advance(start(1e4), blocks)
        assert found.steps == steps and (found.status == Status.running) == (steps < 12)


@pytest.mark.parametrize("blocks", [1, 2, 4, 100])
def test_chunks_are_a_run_bit_for_bit(blocks):
    seen = []
    found = iteration.chunks(further(blocks), watch=lambda state: seen.append(int(state.steps)))
    chex.assert_trees_all_equal(found, run(start(1e4)))
    assert seen == [min(2 * blocks * k, 12) for k in range(1, len(seen) + 1)]
    assert len(seen) == -(-6 // blocks)


def test_what_watch_stops_goes_on_bit_for_bit():
    part = iteration.chunks(further(1), watch=lambda state: int(state.steps) == 4)
    assert part.steps == 4 and part.status == Status.running
    chex.assert_trees_all_equal(iteration.chunks(further(2), part), run(start(1e4)))


def test_an_interrupt_returns_the_last_state():
    def interrupted(last):
        if last is not None and int(last.steps) == 6:
            raise KeyboardInterrupt
        return further(1)(last)

    def watch(state):
        if int(state.steps) == 4:
            raise KeyboardInterrupt

    during, between = iteration.chunks(interrupted), iteration.chunks(further(1), watch=watch)
    for found, steps in ((during, 6), (between, 4)):
        assert found.steps == steps and found.status == Status.running
        chex.assert_trees_all_equal(iteration.chunks(further(3), found), run(start(1e4)))


def test_an_interrupt_before_the_first_state():
    def interrupted(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        iteration.chunks(interrupted)
    earlier = further(1)(None)
    assert iteration.chunks(interrupted, earlier) is earlier


def test_other_errors_are_not_caught():
    with pytest.raises(ZeroDivisionError):
        iteration.chunks(further(1), watch=lambda _: bool(1 / 0))


def test_lanes_end_independently():
    squares = jnp.asarray([1.0, 4.0, 1e4, 1e12, jnp.nan])
    found = jax.jit(jax.vmap(lambda square: iteration.run(block, start(square))))(squares)
    assert found.steps.tolist() == [2, 6, 12, 12, 2]
    names = ("solved", "solved", "solved", "max_steps", "nonfinite")
    for lane, (square, name) in enumerate(zip(squares, names, strict=True)):
        alone = run(start(square))
        chex.assert_trees_all_equal(jax.tree.map(lambda a, k=lane: a[k], found), alone)
        assert alone.status == getattr(Status, name)


# --- statuses -------------------------------------------------------------------------------------

GOOD, NEAR, FAR, TOL = 0.5e-6, 50e-6, 200e-6, 1e-6


def expected(worst, late, stalled, infeasible, sound) -> Status:
    """The rule in the order in which one would tell it."""
    if not sound:
        return Status.nonfinite
    if worst <= TOL:
        return Status.solved
    if infeasible:
        return Status.primal_infeasible
    if not (late or stalled):
        return Status.running
    if worst <= 100 * TOL:
        return Status.inaccurate
    return Status.stalled if stalled else Status.max_steps


@jax.jit
def judged(worst, steps, stalled, infeasible, sound):
    proof = Status.where(infeasible, Status.primal_infeasible, Status.running)
    return iteration.status_of(worst, TOL, steps, 10, stalled=stalled, proof=proof, sound=sound)


def test_the_table_of_statuses():
    flags = itertools.product((False, True), repeat=3)
    for worst, steps, flag in itertools.product(
        (GOOD, NEAR, FAR, np.nan), (9, 10, 11), list(flags)
    ):
        found = judged(worst, steps, *flag)
        assert found == expected(worst, steps >= 10, *flag), (worst, steps, flag, Status[found])


@pytest.mark.parametrize(
    "worst, steps, name",
    [
        (TOL, 1, "solved"),
        (100 * TOL, 10, "inaccurate"),
        (np.inf, 10, "max_steps"),
        (np.inf, 9, "running"),
    ],
)
def test_status_at_its_limits(worst, steps, name):
    found = iteration.status_of(jnp.asarray(worst), TOL, jnp.asarray(steps), 10)
    assert found == getattr(Status, name)
