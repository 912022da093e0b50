"""The shell of the host's interior-point methods: the loop, the best pair, the end of a step, the end.

Directions, step lengths and what counts as progress are each method's own.
"""

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from .lorentz import row_norms

Array = NDArray[np.float64]
Point = TypeVar("Point")
Best = TypeVar("Best")
Primal = TypeVar("Primal")
Dual = TypeVar("Dual")

# The part of the way to the boundary that a step may take.
TO_BOUNDARY = 0.99
# Where rounding made a step too long, it is shortened by this factor, so often.
SHORTER, SHORTENINGS = 0.7, 20


class Pair(NamedTuple, Generic[Primal, Dual]):
    """The best primal and the best dual point that were seen, each by itself, and their values."""

    primal: Primal
    dual: Dual
    objective: float
    dual_objective: float
    steps: int = 0

    def with_primal(self, primal: Primal, objective: float) -> "Pair[Primal, Dual]":
        """With this primal point if it is better; NaN is not."""
        if objective < self.objective:
            return self._replace(primal=primal, objective=objective)
        return self

    def with_dual(self, dual: Dual, dual_objective: float) -> "Pair[Primal, Dual]":
        """With this dual point if it is better; NaN is not."""
        if dual_objective > self.dual_objective:
            return self._replace(dual=dual, dual_objective=dual_objective)
        return self


def iterate(
    point: Point,
    best: Best,
    *,
    advance: Callable[[Point], Point | None],
    learn: Callable[[Best, Point], tuple[Best, bool]],
    enough: Callable[[Best], bool],
    max_steps: int,
    patience: int = 0,
    other_way: Callable[[], bool] = lambda: False,
) -> tuple[Best, int]:
    """(The best that was seen, the steps taken from `point`) when it is enough or rounding ends them.

    **Arguments:**

    - `advance`: the next point; None or a `LinAlgError` where rounding leaves none.
    - `learn`: the best of before and of the new point, and whether there was progress.
    - `enough`: whether the best will do.
    - `patience`: steps in a row without progress, after which nothing more is expected.
    - `other_way`: asked where the steps would end by rounding; whether `advance` is now another.
    """
    idle = 0
    for step in range(1, max_steps + 1):
        moved = _moved(advance, point)
        if moved is None and other_way():
            moved = _moved(advance, point)
        if moved is None:
            return best, step - 1
        point = moved
        best, progress = learn(best, point)
        if enough(best):
            return best, step
        idle = 0 if progress else idle + 1
        if idle > patience:
            if not other_way():
                return best, step
            idle = 0
    return best, max_steps


def _moved(advance: Callable[[Point], Point | None], point: Point) -> Point | None:
    try:
        return advance(point)
    except np.linalg.LinAlgError:
        return None


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
