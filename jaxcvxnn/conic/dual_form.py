"""What the interior-point forms of the dual programs share: R and multipliers as one vector."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcone.extend import AbstractInteriorForm, Layout, matmul, norm


class AbstractDualForm(AbstractInteriorForm):
    """A program in x = (R, multipliers) in coordinates, always solvable and without equalities.

    `unit` divides the objective and multiplies y.
    """

    program: eqx.AbstractVar[Any]
    unit: eqx.AbstractVar[Float[Array, ""]]
    layout: eqx.AbstractVar[Layout]

    @abc.abstractmethod
    def parts(self, x: Array) -> tuple[Array, Array]:
        """The program's x."""

    @abc.abstractmethod
    def rows(self, s: Any) -> Array:
        """The program's s, or its y, as a vector; matrices as `svec`."""

    @abc.abstractmethod
    def blocks(self, s: Array) -> Any:
        """The inverse of `rows`."""

    def linear(self):
        return joined(self.program.linear()) / self.unit

    def offset(self):
        return self.rows(self.program.offset())

    def quadratic(self, x):
        return joined(self.program.quadratic(self.parts(x))) / self.unit

    def operator(self, x):
        return self.rows(self.program.operator(self.parts(x)))

    def adjoint(self, y):
        return joined(self.program.adjoint(self.blocks(y)))

    def equality_rows(self):
        return jnp.zeros((0, self.size), self.program.targets.dtype)

    def points(self, x, s, y):
        scaled = jax.tree.map(lambda part: self.unit * part, self.blocks(y))
        return self.parts(x), self.blocks(s), scaled

    def twin(self):
        return None  # always solvable

    def first_gap(self) -> Float[Array, ""]:
        """The complementarity per dimension to start from: what R = 0 is worth."""
        value = norm(self.program.targets) ** 2 / 2 / self.unit
        return (1 + value) / self.layout.degree


def residual_unit(weight_decay: Any, longest: Any, targets: Any) -> Array:
    """The unit of R: the weight decay over the longest sample or form, but |targets| where that is
    less.

    In either case p* is not small against its square, so that a relative gap means something. The value
    does not depend on the unit; so no derivative passes through it.
    """
    longest = jax.lax.stop_gradient(jnp.asarray(longest))
    price = weight_decay / jnp.where(longest > 0, longest, 1)
    size = norm(jax.lax.stop_gradient(jnp.asarray(targets)))
    return jax.lax.stop_gradient(jnp.where(size > 0, jnp.minimum(price, size), price))


def joined(parts: Any) -> Array:
    """All entries of some arrays in one vector."""
    return jnp.concatenate([part.ravel() for part in parts])


def reader_gram(
    readers: Float[Array, "p n r"],
    a: Float[Array, "p r r"],
    b: Float[Array, "p r c"],
    d: Float[Array, "p c c"],
) -> Float[Array, "nc nc"]:
    """sum over p of 2 (a_pq d_ij + b_pj b_qi) on H_ip H_jq, H the readers, for R (n, c) row by row.

    These are the inner products of S = [[0, H'], [H, 0]] in the metric [[a, b], [b', d]], as plain
    products of matrices, which are fast in a batch too.
    """
    _, rows, rank = readers.shape
    outputs = d.shape[1]
    inner = a[:, :, :, None, None] * d[:, None, None] + (
        b[:, :, None, None, :] * b[:, None, :, :, None]
    )
    half = matmul(readers, 2 * jnp.swapaxes(inner, 1, 2).reshape(-1, rank, rank * outputs**2))
    half = jnp.swapaxes(half.reshape(-1, rows, rank, outputs**2), 1, 2)
    flat = jnp.swapaxes(readers, 0, 1).reshape(rows, -1)
    square = matmul(flat, half.reshape(-1, rows * outputs**2))
    square = jnp.swapaxes(square.reshape(rows, rows, outputs, outputs), 1, 2)
    return square.reshape(rows * outputs, rows * outputs)
