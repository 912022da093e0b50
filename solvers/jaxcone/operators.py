"""Linear maps given as arrays, as lineax operators or as pairs of functions, behind one interface."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float

from .pytrees import matmul


class AbstractMap(eqx.Module):
    """A linear map A from vectors of length n to vectors of length m."""

    @abc.abstractmethod
    def apply(self, x: Float[Array, " n"]) -> Float[Array, " m"]:
        """A x."""

    @abc.abstractmethod
    def adjoint(self, y: Float[Array, " m"]) -> Float[Array, " n"]:
        """A'y."""


class Matrix(AbstractMap):
    """A dense array."""

    entries: Float[Array, "m n"]

    def apply(self, x):
        return matmul(self.entries, x)

    def adjoint(self, y):
        return matmul(self.entries.T, y)


class Lineax(AbstractMap):
    """A lineax operator; it is never turned into a matrix."""

    operator: lx.AbstractLinearOperator

    def apply(self, x):
        return self.operator.mv(x)

    def adjoint(self, y):
        return self.operator.transpose().mv(y)


class Pair(AbstractMap):
    """x -> A x and y -> A'y as functions; as equinox modules they may hold arrays."""

    matvec: Callable[[Any], Any]
    rmatvec: Callable[[Any], Any]

    def apply(self, x):
        return self.matvec(x)

    def adjoint(self, y):
        return self.rmatvec(y)


class Scaled(AbstractMap):
    """diag(rows) A diag(columns)."""

    inner: AbstractMap
    rows: Float[Array, " m"]
    columns: Float[Array, " n"]

    def apply(self, x):
        return self.rows * self.inner.apply(self.columns * x)

    def adjoint(self, y):
        return self.columns * self.inner.adjoint(self.rows * y)


def scaled(
    operator: AbstractMap, rows: Float[Array, " m"], columns: Float[Array, " n"]
) -> AbstractMap:
    """diag(rows) A diag(columns); of a matrix, a matrix."""
    if isinstance(operator, Matrix):
        return Matrix(rows[:, None] * operator.entries * columns)
    return Scaled(operator, rows, columns)


def norm_estimate(operator: AbstractMap, size: int, dtype: Any, steps: int = 20) -> Array:
    """A lower estimate of ||A||_2 by `steps` steps of the power method on A'A."""

    def step(_, x):
        image = operator.adjoint(operator.apply(x))
        length = jnp.linalg.norm(image)
        return image / jnp.where(length > 0, length, 1)

    start = jnp.cos(jnp.arange(size, dtype=dtype))  # no eigenvector of anything in particular
    start = start / jnp.maximum(jnp.linalg.norm(start), jnp.finfo(dtype).tiny)
    return jnp.linalg.norm(operator.apply(jax.lax.fori_loop(0, steps, step, start)))
