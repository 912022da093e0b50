"""NumPy matrices in float64, checked at the door."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


def finite_matrix(values: Any, name: str, *, rows: int | None = None, least: int = 1) -> Matrix:
    """`values` as a float64 matrix of at least `least` rows, or of `rows`; a `ValueError` otherwise."""
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be an array of real numbers: {error}") from None
    if array.ndim != 2 or array.shape[1] == 0 or len(array) < least:
        raise ValueError(f"{name} must be a matrix that is not empty; its shape is {array.shape}.")
    if rows is not None and len(array) != rows:
        raise ValueError(f"{name} must have {rows} rows, one per sample; it has {len(array)}.")
    if not np.all(np.isfinite(array)):
        raise ValueError(f"{name} must be finite; it holds NaN or infinite entries.")
    return array


def finite_residual(values: Any, targets: Any) -> Matrix:
    """`values` as a residual of `targets` (n, c), in float64; a `ValueError` for another shape."""
    residual = finite_matrix(values, "residual", rows=len(targets))
    if residual.shape != targets.shape:
        raise ValueError(
            f"residual must have the shape of Y, {targets.shape}; its shape is {residual.shape}."
        )
    return residual
