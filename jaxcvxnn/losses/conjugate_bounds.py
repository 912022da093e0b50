"""Proven lower bounds on -L*(t R) for the conjugates of `losses`: linear, quadratic and entropies.

On the host, in NumPy float64 with all rounding errors accounted for. The floats R, Y and the scale
t in [0, 1] count as exact real numbers. Derivations: docs/math/problem.md, "Losses and their
conjugates".
"""

import math
from fractions import Fraction

import numpy as np

from jaxcone import verified

from ..arrays import Matrix

# NumPy's logarithms err by an ulp or two; eight are granted here (16 units), and 4 units cover the
# division, the difference and the product beside them. The rest is margin.
ENTROPY_ERROR = 32 * verified.UNIT
# Whatever underflows is wrong by less than this.
UNDERFLOW = 2.0**-1000


def linear_below(residual: Matrix, targets: Matrix, scale: float) -> float:
    """A float at most -t <R, Y>; -inf on overflow."""
    gain = -verified.dot_interval(residual, targets)[1]
    return verified.below(scale * gain) if math.isfinite(gain) else -math.inf


def quadratic_below(residual: Matrix, targets: Matrix, scale: float) -> float:
    """A float at most -t <R, Y> - t^2/2 ||R||^2; -inf on overflow."""
    square = verified.dot_interval(residual, residual)[1]
    if not math.isfinite(square):
        return -math.inf
    second = verified.above(verified.above(scale * scale) * square) / 2
    return verified.below(linear_below(residual, targets, scale) - second)


def at_most(scale: float, values: Matrix, limit: float) -> bool:
    """Whether t * max(values) <= limit >= 0, exactly; false for values that are not finite."""
    largest = float(np.max(values, initial=0.0))
    return math.isfinite(largest) and Fraction(scale) * Fraction(largest) <= Fraction(limit)


def binary_entropy_below(chances: Matrix, scale: float) -> float:
    """A float at most  sum -q log q - (1 - q) log(1 - q),  q = t * chance, if these are in [0, 1].

    The entropy is concave, so its least value between the neighbours of the rounded q is at one.
    """
    product = scale * chances
    ends = np.clip(np.stack([np.nextafter(product, -1), np.nextafter(product, 2)]), 0, 1)
    one = np.ones_like(ends)
    entropies = entropy_below(ends, 1 - ends, one) + entropy_below(1 - ends, ends, one)
    return _sum_below(np.nextafter(np.min(entropies, axis=0), -1))


@np.errstate(over="ignore", invalid="ignore")  # what overflows is not proven to be inside
def simplex_entropy_below(residual: Matrix, targets: Matrix, scale: float) -> float:
    """A float at most  sum_ik -q_ik log(q_ik / sum_k q_ik),  q = Y + t R~; -inf unless q >= 0 for sure.

    R~ is R, but for one entry of each row, the one where R + Y is largest: it is minus the exact sum
    of the others. So the rows of R~ sum to zero, and those of q and Y have the same sums.
    """
    bracket = _weight_bracket(residual, targets, scale)
    if bracket is None:
        return -math.inf
    return _row_entropies_below(*bracket, np.nextafter(exact_row_sums(targets), 0))


def entropy_below(part: Matrix, rest: Matrix, total: Matrix) -> Matrix:
    """Floats at most -part log(part / total), where part + rest = total > 0, none of them negative.

    The smaller of `part` and `rest` must be exact, the other may be rounded: the logarithm is read
    off the smaller one, which keeps its relative accuracy.
    """
    small = part <= rest
    with np.errstate(under="ignore"):
        ratio = np.minimum(part, rest) / total
        logarithm = np.log1p(-np.where(small, 0, ratio))
        np.log(ratio, out=logarithm, where=small & (ratio > 0))
        return part * -logarithm * (1 - ENTROPY_ERROR) - UNDERFLOW


def exact_row_sums(values: Matrix) -> Matrix:
    """Each row's sum, correctly rounded, so of the exact sum's sign; NaN where it overflows."""
    return np.array([_correctly_rounded_sum(row) for row in values])


def onto_simplex(points: Matrix, totals: Matrix) -> Matrix:
    """The nearest nonnegative rows with the sums `totals` (n, 1), up to rounding."""
    with np.errstate(over="ignore"):
        shifted = points - np.max(points, axis=1, keepdims=True)
    # What lies lower than the total below the largest becomes zero, however low.
    shifted = np.maximum(shifted, -totals)
    ordered = -np.sort(-shifted, axis=1)
    counts = np.arange(1, points.shape[1] + 1)
    thresholds = (np.cumsum(ordered, axis=1) - totals) / counts
    active = np.sum(ordered > thresholds, axis=1, keepdims=True)
    return np.maximum(shifted - np.take_along_axis(thresholds, active - 1, axis=1), 0)


def _weight_bracket(
    residual: Matrix, targets: Matrix, scale: float
) -> tuple[Matrix, Matrix] | None:
    """Floats 0 <= lower <= Y + t R~ <= upper, entrywise; None if that may be negative somewhere."""
    if not np.all(np.isfinite(residual)):
        return None
    rows = np.arange(len(residual))
    pivots = np.argmax(residual + targets, axis=1)
    others = residual.copy()
    others[rows, pivots] = 0
    changed = residual.copy()
    changed[rows, pivots] = -exact_row_sums(others)
    # At t = 1 all is decided exactly, and t < 1 lies between that and Y >= 0.
    inside = residual >= -targets
    inside[rows, pivots] = exact_row_sums(np.column_stack([-others, targets[rows, pivots]])) >= 0
    change = scale * changed
    weights = targets + change
    # Each has two roundings: the pivot's sum and the product; the sum and that of the ends below.
    error = 4 * verified.UNIT * (np.abs(change) + np.abs(weights)) + UNDERFLOW
    lower = weights - error
    if not np.all(inside | (lower >= 0)):
        return None
    return np.maximum(lower, 0), np.maximum(weights + error, 0)


def _row_entropies_below(lower: Matrix, upper: Matrix, totals: Matrix) -> float:
    """`simplex_entropy_below` for all q in the bracket whose row sums are at least `totals`.

    Each term is concave in its weight, so its least value in an interval is at an end. The largest
    weight of a row is what the others leave of the total: its term is a concave function of their
    sum. With the others fixed, the row's entropy increases in the total.
    """
    rows = np.arange(len(lower))
    largest = np.argmax(lower + upper, axis=1)
    ends = np.stack([lower, upper])
    ends[:, rows, largest] = 0
    rounding = verified.gamma(ends.shape[2] + 4) * np.array([[-1.0], [1.0]])
    rests = np.sum(ends, axis=2) * (1 + rounding)
    if not np.all(rests[1] < totals):
        return -math.inf
    whole = np.broadcast_to(totals[:, None], ends.shape)
    terms = np.min(entropy_below(ends, whole - ends, whole), axis=0)
    terms[rows, largest] = np.min(entropy_below(totals - rests, rests, totals), axis=0)
    return _sum_below(terms)


def _sum_below(terms: Matrix) -> float:
    return verified.below(math.fsum(np.ravel(terms)))


def _correctly_rounded_sum(values: Matrix) -> float:
    try:
        return math.fsum(values)
    except OverflowError:
        return math.nan
