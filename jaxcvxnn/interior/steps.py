"""What the host's interior-point methods share at the end of a step, and at the end."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from .lorentz import row_norms

Array = NDArray[np.float64]
Point = TypeVar("Point")

# The part of the way to the boundary that a step may take.
TO_BOUNDARY = 0.99
# Where rounding made a step too long, it is shortened by this factor, so often.
SHORTER, SHORTENINGS = 0.7, 20


def take_step(
    after: Callable[[float], Point], inside: Callable[[Point], bool], longest: float
) -> Point | None:
    """The point `after` a step that stays inside, at most one; None if rounding leaves none."""
    length = min(1.0, TO_BOUNDARY * longest)
    for _ in range(SHORTENINGS):
        point = after(length)
        if inside(point):
            return point
        length *= SHORTER
    return None


def without_unused(
    weights: Array,
    room: Array,
    reached: float,
    objective: Callable[[Array], float],
    enough: Callable[[float], bool],
) -> tuple[Array, float]:
    """Weights that complementarity wants to be zero, set to zero, unless that costs accuracy.

    Strictly inside no weight vector (..., d) is zero: |w| times its `room`, 1 less the relative length
    of its dual vector, is about mu for all. Returns the weights and their objective, which was
    `reached`; a larger one must be good `enough`.
    """
    lengths = row_norms(weights)
    relative = lengths / max(np.max(lengths), np.finfo(float).tiny)
    for factor in (1.0, 1e-2, 1e-4):
        sparser = np.where((relative < factor * room)[..., None], 0.0, weights)
        value = objective(sparser)
        if value <= reached or enough(value):
            return sparser, value
    return weights, reached
