"""What lower bounds at some weight decays prove at others."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from jaxcone import verified


def transfer(
    weight_decays: Sequence[float] | np.ndarray, lower_bounds: Sequence[float] | np.ndarray
) -> list[float]:
    """What lower bounds at some weight decays (k,) prove at these weight decays; never less.

    p* is concave and nondecreasing, and nonnegative at zero: at least the least function of this kind
    above the given bounds. Evaluated exactly and rounded down, so it is nondecreasing too.
    """
    points = sorted(zip(map(Fraction, weight_decays), map(Fraction, lower_bounds), strict=True))
    hull = [(Fraction(0), Fraction(0))]
    for weight_decay, bound in points:
        # A larger weight decay only adds to every objective.
        corner = weight_decay, max(bound, hull[-1][1])
        while hull[-1][0] == weight_decay or (
            len(hull) > 1 and _chord(hull[-2], corner, hull[-1][0]) >= hull[-1][1]
        ):
            hull.pop()
        hull.append(corner)
    proven = []
    for weight_decay in map(Fraction, weight_decays):
        after = next(i for i, (position, _) in enumerate(hull) if position >= weight_decay)
        proven.append(_rounded_down(_chord(hull[after - 1], hull[after], weight_decay)))
    return proven


def _chord(
    left: tuple[Fraction, Fraction], right: tuple[Fraction, Fraction], position: Fraction
) -> Fraction:
    """The height at `position` of the line through two points."""
    slope = (right[1] - left[1]) / (right[0] - left[0])
    return left[1] + slope * (position - left[0])


def _rounded_down(value: Fraction) -> float:
    nearest = float(value)
    return nearest if Fraction(nearest) <= value else verified.below(nearest)
