"""Checks of a method's settings, where they come in."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float


def inside(value: Any, low: float, high: float) -> bool:
    """low < value < high for a number or every entry; true for traced values: nobody can look."""
    if isinstance(value, Tracer):
        return True
    try:
        numbers = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        return False
    return not isinstance(value, str) and bool(np.all((low < numbers) & (numbers < high)))


def whole(value: Any, low: int) -> bool:
    """An integer above `low`; true for traced values."""
    if isinstance(value, Tracer):
        return True
    try:
        kind = np.asarray(value).dtype
    except (TypeError, ValueError):
        return False
    return np.issubdtype(kind, np.integer) and bool(np.all(np.asarray(value) > low))


def require(holds: bool, owner: Any, name: str, expected: str) -> None:
    """Raise a `ValueError` that names the setting and its owner unless `holds`."""
    if not holds:
        raise ValueError(f"{type(owner).__name__}: `{name}` must be {expected}.")


def given_or(value: Any, dtype: Any, float64: float, float32: float) -> Float[Array, ""]:
    """The setting in this dtype; where it is None, the default of that precision."""
    default = float64 if dtype == jnp.float64 else float32
    return jnp.asarray(default if value is None else value, dtype)
