"""What a solve returns: points, a status decided from them, and residuals on the user's data."""

from typing import Any

import equinox as eqx
from jaxtyping import Array, Bool, Float, Int, PyTree

from .residuals import Residuals


class Status(eqx.Enumeration):
    """How good the returned point is. An int32 array per lane under `vmap`."""

    running = "The iteration has not ended yet."
    solved = "All residuals are within the tolerance."
    inaccurate = "The step limit was reached; the residuals are within 100 times the tolerance."
    max_steps = "The step limit was reached with residuals above 100 times the tolerance."
    nonfinite = "A NaN or an infinity appeared: in the data, or because the iteration diverged."


class Solution(eqx.Module):
    """Primal point x, slack s in K, dual point y in K*, and what they are worth.

    `residuals` and both objectives are recomputed from these arrays on the unscaled program. `state`
    belongs to the solver and can be passed back to continue or to warm-start a similar program.
    """

    x: PyTree
    s: PyTree
    y: PyTree
    status: Status
    steps: Int[Array, ""]
    residuals: Residuals
    state: Any

    @property
    def primal_objective(self) -> Float[Array, ""]:
        """1/2 <x, P x> + <c, x>."""
        return self.residuals.primal_objective

    @property
    def dual_objective(self) -> Float[Array, ""]:
        """-1/2 <x, P x> - <b, y>."""
        return self.residuals.dual_objective

    @property
    def solved(self) -> Bool[Array, ""]:
        """Whether the status is `solved`."""
        return self.status == Status.solved
