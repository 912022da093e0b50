"""The loop of any block method, and the rule that gives its status. No mathematics.

A block is a function from a state to the one some steps later. A state is a pytree with a `status`
and nothing hidden; the iteration goes on while that is `running`.
"""

from collections.abc import Callable
from typing import Protocol, TypeVar

import jax
from jaxtyping import Array, Bool, Float, Int

from .solution import Status


class HasStatus(Protocol):
    """A state, or what is shown of one."""

    @property
    def status(self) -> Status: ...


State = TypeVar("State", bound=HasStatus)
Block = Callable[[State], State]


# A point within so many tolerances is nearly one: `inaccurate`.
NEARLY = 100


def running(state: HasStatus) -> Bool[Array, ""]:
    """Whether the iteration goes on."""
    return state.status == Status.running


def run(block: Block[State], state: State) -> State:
    """Blocks until the status ends it. Under `vmap` a lane that has ended keeps its state."""
    return jax.lax.while_loop(running, block, state)


def advance(block: Block[State], state: State, blocks: int | Int[Array, ""]) -> State:
    """So many blocks, or fewer if the status ends it: a part of `run`, bit for bit."""

    def go_on(carry):
        done, state = carry
        return (done < blocks) & running(state)

    def further(carry):
        done, state = carry
        return done + 1, block(state)

    return jax.lax.while_loop(go_on, further, (0, state))[1]


def chunks(
    further: Callable[[State | None], State],
    last: State | None = None,
    watch: Callable[[State], bool | None] | None = None,
) -> State:
    """From the host: `further(last)` again and again, until the status of what it returns ends it.

    `last` is None where nothing is done yet. `watch` is called with the state after every chunk;
    returning True ends the loop. So does a KeyboardInterrupt, during a chunk or raised by `watch`: the
    last state is returned, as it is (before the first one there is none, and it propagates).
    """
    try:
        while True:
            last = further(last)
            stop = watch is not None and watch(last)
            if stop or not bool(running(last)):
                return last
    except KeyboardInterrupt:
        if last is None:
            raise
        return last


def status_of(
    worst: float | Float[Array, ""],
    tolerance: float | Float[Array, ""],
    steps: int | Int[Array, ""],
    max_steps: int | Int[Array, ""],
    *,
    stalled: bool | Bool[Array, ""] = False,
    proof: Status = Status.running,
    sound: bool | Bool[Array, ""] = True,
) -> Status:
    """The status of the best point so far: from what is measured there, never from the steps alone.

    **Arguments:** `worst` is what must fall to `tolerance`, the largest of residuals and gap;
    `stalled`, whether no progress is expected; `proof`, which kind of infeasibility is certain, or
    `running`; `sound`, whether the numbers are finite.
    """
    late = Status.where(steps >= max_steps, Status.max_steps, Status.running)
    end = Status.where(stalled, Status.stalled, late)
    nearly = (end != Status.running) & (worst <= NEARLY * tolerance)
    status = Status.where(nearly, Status.inaccurate, end)
    status = Status.where(proof == Status.running, status, proof)
    status = Status.where(worst <= tolerance, Status.solved, status)
    return Status.where(sound, status, Status.nonfinite)
