"""Products of traced arrays in their full precision."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array


def dot(left: Any, right: Any) -> Array:
    """left @ right; on a GPU float32 products would be rounded to TF32 otherwise."""
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)
