"""What every pricing method returns: an interval for the price of the best new neuron."""

from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


class Price(eqx.Module):
    """`lower` <= max over |u| <= 1 of ||R' relu(F u)||_2 <= `upper` for R (n, c) and F (n, r).

    `neurons` (k, r) are unit directions of high price, the best first: it attains `lower`. `upper` is
    proven, with the rounding errors of its own computation included. `cells` counts the pieces of
    the sphere that were looked at; `interrupted` tells of a Ctrl-C that ended the search.
    """

    lower: float
    upper: float
    neurons: Float[np.ndarray, "k r"]
    method: str
    cells: int
    interrupted: bool = False


def prices(residual: Matrix, features: Matrix, neurons: Matrix) -> Matrix:
    """||R' relu(F u)||_2 of each row u of `neurons` (k, r)."""
    return np.linalg.norm(np.maximum(neurons @ features.T, 0) @ residual, axis=1)


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
