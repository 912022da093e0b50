"""Arithmetic with proofs, on the host: NumPy float64, round to nearest, no directed rounding.

JAX on CPU flushes denormal numbers, so nothing here may run inside it. Every function returns a
statement about exact real numbers: the floats it is given count as exact.
"""

import math

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

UNIT = 2.0**-53
SMALLEST_NORMAL = 2.0**-1022
# Bounds below are themselves computed in floating point, in far fewer than 1e5 operations each.
INFLATION = 1 + 1e-10


def gamma(operations: int) -> float:
    """n u / (1 - n u): the relative error of a sum of products of n operations, in any order."""
    if operations * UNIT >= 0.5:
        raise ValueError(f"{operations} operations are too many for an error bound.")
    return operations * UNIT / (1 - operations * UNIT)


def product_error(left: Matrix, right: Matrix) -> Matrix:
    """Entrywise bound on |fl(left @ right) - left @ right|."""
    inner = left.shape[-1]
    bound = gamma(inner + 2) * (np.abs(left) @ np.abs(right))
    return bound * INFLATION + inner * SMALLEST_NORMAL


def norm_bound(symmetric_bound: Matrix) -> float:
    """An upper bound on the 2-norm of every symmetric E with |E| <= `symmetric_bound`."""
    return float(np.max(np.sum(symmetric_bound, axis=1), initial=0.0)) * INFLATION


def vector_norm_bound(values: Matrix) -> Matrix:
    """Upper bounds on the Euclidean norms of the rows of `values`."""
    return np.sqrt(np.sum(values**2, axis=-1)) * INFLATION + values.shape[-1] * 1e-150


def is_positive_definite(matrix: Matrix, error: Matrix) -> bool:
    """Whether every symmetric A with |A - `matrix`| <= `error` entrywise is proven positive definite.

    A Cholesky factorisation that runs to its end in floating point belongs exactly to a matrix whose
    distance from the one factored is at most gamma_{n+1} / (1 - gamma_{n+1}) times its trace (Rump,
    BIT 46, 2006, theorem 2.3, in a simpler and weaker form). So the same with the diagonal lowered
    by that distance and the error's norm is a proof. Rows and columns are scaled by powers of two
    first, which is exact. A False says nothing.
    """
    size = matrix.shape[0]
    diagonal = np.diag(matrix)
    if not (np.all(np.isfinite(matrix)) and np.all(np.isfinite(error)) and np.all(diagonal > 0)):
        return False
    exponents = np.round(-np.log2(diagonal) / 2)
    if np.max(np.abs(exponents)) > 400:
        return False
    equilibrated = 2.0**exponents
    # Unit diagonals suit graded matrices; where small diagonals come from cancellation, their error
    # grows with the scale, and the matrix as it is has the smaller one.
    return any(
        _cholesky_proves(matrix, np.maximum(error, error.T), scale)
        for scale in (np.ones(size), equilibrated)
    )


def _cholesky_proves(matrix: Matrix, error: Matrix, scale: Matrix) -> bool:
    size = len(matrix)
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = matrix * scale[:, None] * scale[None, :]
        spread = error * scale[:, None] * scale[None, :]
    if not (np.all(np.isfinite(scaled)) and np.all(np.isfinite(spread))):
        return False
    factor = gamma(size + 2)
    shift = factor / (1 - factor) * float(np.trace(scaled)) + norm_bound(spread)
    shift += size * (size + 2) * 8 * SMALLEST_NORMAL
    shift = shift * INFLATION + 4 * UNIT * float(np.max(np.diag(scaled)))  # rounding of the shift
    try:
        np.linalg.cholesky(scaled - shift * np.eye(size))
    except np.linalg.LinAlgError:
        return False
    return True


def dot_interval(left: Matrix, right: Matrix) -> tuple[float, float]:
    """Floats below and above the exact sum of products of two arrays; infinite on overflow."""
    left, right = np.ravel(left), np.ravel(right)
    with np.errstate(over="ignore", invalid="ignore"):
        product = left * right
        parts = np.concatenate([product, _product_remainder(left, right, product)])
    if not np.all(np.isfinite(parts)):
        return -math.inf, math.inf
    try:
        value = math.fsum(parts)
    except OverflowError:
        return -math.inf, math.inf
    # The remainder is exact unless it underflows; each such term is below 2^-1000.
    slack = left.size * 2.0**-1000
    return below(value - slack), above(value + slack)


def below(value: float) -> float:
    """The next float down: a lower bound on a result of one correctly rounded operation."""
    return math.nextafter(value, -math.inf)


def above(value: float) -> float:
    """The next float up."""
    return math.nextafter(value, math.inf)


def _product_remainder(left: Matrix, right: Matrix, product: Matrix) -> Matrix:
    """left * right - product exactly, by Veltkamp's splitting and Dekker's product."""
    left_high, left_low = _split(left)
    right_high, right_low = _split(right)
    first = left_high * right_high - product
    return ((first + left_high * right_low) + left_low * right_high) + left_low * right_low


def _split(values: Matrix) -> tuple[Matrix, Matrix]:
    scaled = values * (2.0**27 + 1)
    high = scaled - (scaled - values)
    return high, values - high
