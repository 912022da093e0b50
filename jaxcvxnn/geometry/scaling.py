"""Data brought to size one by powers of two, which is exact: relu(s t) = s relu(t) for s > 0."""

import numpy as np

from ..arrays import Matrix


def scaled_rows(features: Matrix) -> tuple[Matrix, np.ndarray]:
    """Rows scaled by 2^-exponents, exactly but for underflow, to a largest entry in [1/2, 1)."""
    exponents = np.frexp(np.max(np.abs(features), axis=1, initial=0.0))[1]
    return np.ldexp(features, -exponents[:, None]), exponents


def scaled_weights(residual: Matrix, rows: Matrix, exponents: np.ndarray) -> tuple[Matrix, int]:
    """R with the rows' scales moved into it, and the exponent that brings its size to one.

    The residuals of zero rows count as zero.
    """
    residual = np.where(np.any(rows != 0, axis=1)[:, None], residual, 0)
    sizes = np.frexp(np.max(np.abs(residual), axis=1))[1] + exponents
    alive = np.any(residual != 0, axis=1)
    exponent = int(np.max(sizes[alive])) if np.any(alive) else 0
    return np.ldexp(residual, (exponents - exponent)[:, None]), exponent
