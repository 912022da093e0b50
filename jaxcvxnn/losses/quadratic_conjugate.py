"""Losses whose conjugate is a quadratic on a box, as the host's interior-point methods see them.

    L(Z) = sup over R of <R, Z - B> - k/2 |R|^2   subject to   lower <= R <= upper

With k = 1 and no box it is the square 1/2 |Z - B|^2; boxes make it Huber's function, with k = 0 the
hinge or the absolute value.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# The part of its distance from the middle of the box that a first R keeps.
INTERIOR = 0.7


class QuadraticLoss(NamedTuple):
    """B, k and the box, all of one shape, of which the first axis is that of the samples."""

    targets: Array  # B
    stiffness: float = 1.0  # k, 1 or 0; 0 needs a box
    box: tuple[Array, Array] | None = None  # lower and upper, finite, 0 inside or on it

    @property
    def limits(self) -> Array:
        """upper and -lower (2, ...), or nothing (0, ...): `signs` R <= limits."""
        if self.box is None:
            return np.zeros((0, *self.targets.shape))
        return np.stack([self.box[1], -self.box[0]])

    @property
    def signs(self) -> Array:
        """1 and -1, for the first axis of `limits`."""
        count = 0 if self.box is None else 2
        return np.array([1.0, -1.0])[:count].reshape(count, *[1] * self.targets.ndim)

    def gradient(self, outputs: Array) -> Array:
        """The R that attains the supremum."""
        error = outputs - self.targets
        if self.box is None:
            return error
        return np.clip(error, *self.box) if self.stiffness else np.where(error > 0, *self.box[::-1])

    def interior(self, residual: Array) -> Array:
        """R pulled towards the middle of the box, if there is one."""
        if self.box is None:
            return residual
        middle = (self.box[0] + self.box[1]) / 2
        return middle + INTERIOR * (residual - middle)

    def ridge(self, relative: float) -> float:
        """The least curvature in R that the linear systems see; `relative` in the units of B over R.

        Where k is 0 and R is inside its box there is none. A proximal term about each iterate adds
        some, and vanishes with the steps.
        """
        if self.box is None or self.stiffness:
            return 0.0
        return relative * float(
            np.linalg.norm(self.targets) / np.linalg.norm(self.box[1] - self.box[0])
        )

    def value(self, outputs: Array) -> float:
        """L."""
        residual = self.gradient(outputs)
        return float(np.sum(residual * (outputs - self.targets - self.stiffness / 2 * residual)))

    def dual_value(self, residual: Array) -> float:
        """-L* inside the box."""
        return float(-np.sum(residual * (self.targets + self.stiffness / 2 * residual)))
