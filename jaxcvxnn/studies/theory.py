"""Quantities that the papers define, apart from any solve."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float


def critical_width(n: int, d: int, c: int) -> int:
    """max(p, 2 n^2 + n - 1) with p = 2 n + d + c: at this width training is the convex program.

    Prakhya et al. (2025), theorem 1: for n samples, d features and c outputs, wider networks reach
    no lower objective. **Raises** a `ValueError` unless all three are positive.
    """
    if min(n, d, c) < 1:
        raise ValueError(f"n, d and c must be positive; got {n}, {d}, {c}.")
    return max(2 * n + d + c, 2 * n * n + n - 1)


def expected_kernel(
    X0: Float[Any, "n0 d"], X1: Float[Any, "n1 d"], second_moment: Float[Any, "d d"]
) -> Float[Array, "n0 n1"]:
    """X0 E[u u'] X1', the kernel of the learned first layer; Prakhya et al. (2025), appendix D.

    `second_moment` is E[u u'] in the features' own coordinates: the u block of
    `reduction.expand_moments(solution.moments)`.
    """
    return jnp.asarray(X0) @ second_moment @ jnp.asarray(X1).T
