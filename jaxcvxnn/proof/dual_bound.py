"""From a proven price to a lower bound on the global optimum, for any loss.

With sigma >= max over |u| <= 1 of ||R' relu(X u)||, every t R with 0 <= t <= weight_decay / sigma
satisfies the dual constraint, and p* >= -L*(t R) (Sahiner et al., 2021, eq. 11;
docs/math/problem.md, "The problem and its dual").
"""

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np

from jaxcone import verified

from ..arrays import Matrix

GOLDEN = (math.sqrt(5) - 1) / 2


class HasDualValue(Protocol):
    """A loss, as far as the bound asks it."""

    def dual_value_below(self, R: Matrix, Y: Matrix, scale: float) -> float:
        """-L*(t R), rounded down."""
        ...


def dual_bound(
    loss: HasDualValue, residual: Matrix, targets: Matrix, weight_decay: float, price: float
) -> tuple[float, float]:
    """(lower bound, scale t) of -L*(t R), rounded down.

    `price` is an upper bound on max over |u| <= 1 of ||R' relu(X u)||. Where R itself proves nothing,
    t = 0 does: no network has a loss below the loss's own infimum.
    """

    def value(scale):
        return loss.dual_value_below(residual, targets, scale)

    nothing = max(value(0.0), 0.0)  # no loss is negative
    if not (math.isfinite(price) and np.all(np.isfinite(residual))):
        return nothing, 0.0
    scale = 1.0
    if price > weight_decay:
        scale = verified.below(verified.below(weight_decay / price))
    bound = value(scale)
    # Near an optimum the concave function of t still rises at the largest t allowed.
    if value(scale * (1 - 1e-6)) > bound:
        scale = _maximise(value, scale)
        bound = value(scale)
    return (bound, scale) if bound > nothing else (nothing, 0.0)


def _maximise(value: Callable[[float], float], end: float) -> float:
    """Where a concave function on [0, end] is largest, nearly: by golden section."""
    left, right = 0.0, end
    for _ in range(60):
        first, second = right - GOLDEN * (right - left), left + GOLDEN * (right - left)
        if value(first) < value(second):
            left = first
        else:
            right = second
    return (left + right) / 2
