"""What every method keeps of the points that it checked, and the solution made of that."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from ..program import AbstractConeProgram
from ..residuals import Residuals, residuals
from ..solution import Ray, Solution, Status

Triple = tuple[PyTree, PyTree, PyTree]

# Times the tolerance: up to there a point is `inaccurate`.
NEARLY = 100


class Yardstick(eqx.Module):
    """The user's program, with all that measuring a point on it needs."""

    program: AbstractConeProgram
    tangent_factor: PyTree
    units: tuple[Float[Array, ""], Float[Array, ""]]

    def measure(self, x: PyTree, s: PyTree, y: PyTree) -> Residuals:
        """Residuals in the units of the user."""
        return residuals(self.program, self.tangent_factor, self.units, x, s, y)


class Record(eqx.Module):
    """The best checked triple in the units of the user, and the rays that checks have seen."""

    triple: Triple
    residuals: Residuals
    suspicion: Status  # which kind of ray the last check saw
    confirmed: Status  # the same, if the check before saw it too
    ray: Triple  # (x, s, y) of that ray
    history: Float[Array, "checks 3"]

    def extended(
        self, triple: Triple, found: Residuals, better: Bool[Array, ""], kind: Status, ray: Triple
    ) -> "Record":
        """The record after one more check; `better` says whether its triple is the best by now."""
        last = jnp.stack([found.primal_relative, found.dual_relative, found.gap_relative])
        best, measured = jax.tree.map(
            lambda new, old: jnp.where(better, new, old),
            (triple, found),
            (self.triple, self.residuals),
        )
        return Record(
            triple=best,
            residuals=measured,
            suspicion=kind,
            confirmed=Status.where(kind == self.suspicion, kind, Status.running),
            ray=ray,
            history=jnp.concatenate([self.history, last[None]])[-len(self.history) or 1 :],
        )


def begin(yardstick: Yardstick, triple: Triple, checks: int) -> Record:
    """The record before the first check, which remembers that many."""
    found = yardstick.measure(*triple)
    return Record(
        triple=triple,
        residuals=found,
        suspicion=Status.running,
        confirmed=Status.running,
        ray=jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), triple),
        history=jnp.full((checks, 3), jnp.nan, found.primal.dtype),
    )


def verdict(
    found: Residuals, tolerance: Float[Array, ""], end: Status, ray: Status, sound: Bool[Array, ""]
) -> Status:
    """Status of the best triple so far: from its residuals, never from the step counter alone.

    `end` says why the iteration ends, or `running`; `ray` which kind of ray is certain, or `running`;
    `sound` whether the iteration has only finite numbers.
    """
    nearly = (end != Status.running) & (found.worst <= NEARLY * tolerance)
    status = Status.where(nearly, Status.inaccurate, end)
    status = Status.where(ray == Status.running, status, ray)
    status = Status.where(found.worst <= tolerance, Status.solved, status)
    return Status.where(found.finite & sound, status, Status.nonfinite)


def conclude(state: Any) -> Solution:
    """The solution that a method's state holds: its best point, or a ray if there is no solution.

    `state` has a `record`, a `status` and `steps`.
    """
    record, status = state.record, state.status
    none = (status == Status.primal_infeasible) | (status == Status.dual_infeasible)

    def blank(tree):
        return jax.tree.map(lambda leaf: jnp.where(none, jnp.nan, leaf), tree)

    x, s, y = blank(record.triple)
    ray = jax.tree.map(lambda leaf: jnp.where(none, leaf, jnp.nan), record.ray)
    return Solution(
        x=x,
        s=s,
        y=y,
        status=status,
        steps=state.steps,
        residuals=blank(record.residuals),
        ray=Ray(*ray),
        history=record.history,
        state=state,
    )
