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
        best, measured = choose(better, (triple, found), (self.triple, self.residuals))
        return Record(
            triple=best,
            residuals=measured,
            suspicion=kind,
            confirmed=Status.where(kind == self.suspicion, kind, Status.running),
            ray=ray,
            history=jnp.concatenate([self.history, last[None]])[-len(self.history) or 1 :],
        )


def begin(yardstick: Yardstick, triple: Triple, checks: int) -> Record:
    """The record before the first check, which remembers that many, for points like `triple`.

    It holds NaN: every method takes its first check for the best, and to measure the start as well is
    to compile that twice.
    """
    found = jax.eval_shape(yardstick.measure, *triple)
    nothing, unmeasured = _nan((triple, found))
    return Record(
        triple=nothing,
        residuals=unmeasured,
        suspicion=Status.running,
        confirmed=Status.running,
        ray=nothing,
        history=jnp.full((checks, 3), jnp.nan, found.primal.dtype),
    )


def choose(condition: Bool[Array, ""], new: PyTree, old: PyTree) -> PyTree:
    """`new` where the condition holds, else `old`.

    A branch only copies, where `jnp.where` would be one loop to compile per leaf.
    """
    return jax.lax.cond(condition, lambda new, _: new, lambda _, old: old, new, old)


def _nan(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.full(leaf.shape, jnp.nan, leaf.dtype), tree)


@eqx.filter_jit
def conclude(state: Any) -> Solution:
    """The solution that a method's state holds: its best point, or a ray if there is no solution.

    `state` has a `record`, a `status` and `steps`.
    """
    record, status = state.record, state.status
    none = (status == Status.primal_infeasible) | (status == Status.dual_infeasible)

    found = record.triple, record.residuals
    (x, s, y), measured = choose(none, _nan(found), found)
    ray = choose(none, record.ray, _nan(record.ray))
    return Solution(
        x=x,
        s=s,
        y=y,
        status=status,
        steps=state.steps,
        residuals=measured,
        ray=Ray(*ray),
        history=record.history,
        state=state,
    )
