"""What a solve returns: points, a status decided from them, and residuals on the user's data."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from .residuals import Residuals


class Status(eqx.Enumeration):
    """How good the returned point is. An int32 array per lane under `vmap`."""

    running = "The iteration has not ended yet."
    solved = "All residuals are within the tolerance."
    inaccurate = "It ended before its tolerance; the residuals are within 100 times the tolerance."
    max_steps = "The step limit was reached with residuals above 100 times the tolerance."
    primal_infeasible = "No point satisfies the constraints; `ray.y` proves it."
    dual_infeasible = (
        "The dual has no feasible point: along `ray.x` the objective falls without end."
    )
    stalled = "No further progress was possible, with residuals above 100 times the tolerance."
    nonfinite = "A NaN or an infinity appeared: in the data, or because the iteration diverged."


class Ray(eqx.Module):
    """A proof that there is no solution; NaN where there is none.

    Primal infeasible: y in K* with A* y = 0 and <b, y> = -1. Dual infeasible: A x + s = 0, s in K,
    P x = 0 and <c, x> = -1.
    """

    x: PyTree
    s: PyTree
    y: PyTree


class Solution(eqx.Module):
    """Primal point x, slack s in K, dual point y in K*, and what they are worth.

    `residuals` and both objectives are recomputed from these arrays on the unscaled program. If the
    program is infeasible or unbounded, x, s, y and residuals are NaN and `ray` is the proof.
    `history`, shape (`Splitting.history`, 3), holds the relative primal and dual residuals and gap at
    the last checks, oldest first, NaN where there was none. `state` belongs to the solver and can be
    passed back to continue or to warm-start a similar program.
    """

    x: PyTree
    s: PyTree
    y: PyTree
    status: Status
    steps: Int[Array, ""]
    residuals: Residuals
    ray: Ray
    history: Float[Array, "checks 3"]
    state: Any

    @property
    def primal_objective(self) -> Float[Array, ""]:
        """1/2 <x, P x> + <c, x>; inf if primal infeasible, -inf if dual infeasible."""
        return self._or_infinite(self.residuals.primal_objective)

    @property
    def dual_objective(self) -> Float[Array, ""]:
        """-1/2 <x, P x> - <b, y>; inf if primal infeasible, -inf if dual infeasible."""
        return self._or_infinite(self.residuals.dual_objective)

    def _or_infinite(self, value: Array) -> Array:
        value = jnp.where(self.status == Status.primal_infeasible, jnp.inf, value)
        return jnp.where(self.status == Status.dual_infeasible, -jnp.inf, value)

    @property
    def solved(self) -> Bool[Array, ""]:
        """Whether the status is `solved`."""
        return self.status == Status.solved
