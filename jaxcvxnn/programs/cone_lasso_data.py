"""The numbers of (cone-lasso), which its program and its methods share."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..conic.gates import Gates
from ..losses.base import AbstractLoss


class ConeLassoData(eqx.Module):
    """The numbers of (cone-lasso): n samples, P cells, c outputs.

    `gates.rows` are the rows whose signs the cones fix: the features, or their low-rank approximation.
    """

    gates: Gates
    targets: Float[Array, "n c"]
    weight_decay: Float[Array, ""]
    loss: AbstractLoss
    norm: float = eqx.field(static=True)
    interpolate: bool = eqx.field(static=True)


def lengths(vectors: Float[Array, "*k d"], norm: float) -> Float[Array, "*k"]:
    """The norms |w|_1, |w|_2 or |w|_inf of the last axis."""
    return jnp.linalg.norm(vectors, ord=norm, axis=-1)


def require_data(method: Any, program: Any, data: Any) -> None:
    """Raise a `ValueError` for a method that is asked to solve another program than (cone-lasso)."""
    if not isinstance(data, ConeLassoData):
        raise ValueError(
            f"{type(method).__name__} takes the program ConeGroupLasso; got {type(program).__name__}."
        )
