"""Targets, checked at the door."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import Matrix

# Rows of soft labels have to sum to one within this: enough for float32. It costs no rigour, as the
# loss is defined for any sums.
ROW_SUM_TOLERANCE = 1e-5


def real_array(loss: str, values: Any) -> Matrix:
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"The targets of the {loss} loss: {error}") from None
    if array.dtype.kind not in "fiub":
        raise ValueError(
            f"The targets of the {loss} loss must be real numbers; their dtype is {array.dtype}."
        )
    array = array.astype(np.float64)
    if array.size == 0:
        raise ValueError(f"The targets of the {loss} loss are empty: shape {array.shape}.")
    if not np.all(np.isfinite(array)):
        raise ValueError(f"The targets of the {loss} loss must be finite.")
    return array


def target_matrix(loss: str, targets: Any) -> Matrix:
    array = real_array(loss, targets)
    if array.ndim != 2:
        raise ValueError(
            f"The targets of the {loss} loss must have shape (n, c); their shape is {array.shape}."
        )
    return array


def column(array: Matrix) -> Matrix:
    return array[:, None] if array.ndim == 1 else array


def require_rows(loss: str, targets: Matrix, holds: NDArray[np.bool_], expected: str):
    bad = np.flatnonzero(~holds)
    if bad.size:
        raise ValueError(
            f"The {loss} loss takes rows of {expected}; row {bad[0]} is {targets[bad[0]]} "
            f"({bad.size} of {len(targets)} rows do not fit)."
        )
