"""Symmetric cones for interior-point methods: Jordan products, steps to the boundary, scaling.

The Nesterov-Todd scaling W of interior points s and z maps both to one point lam = W z = W^-T s
(Nesterov and Todd, 1997; formulas of Vandenberghe, 2010, "The CVXOPT linear and quadratic cone program
solvers", section 4). A `Blocks` is a list with one array per kind of cone: `(k,)` numbers for all
nonnegative rows together, `(k, size)` for second-order blocks of one size, `(k, side, side)` for PSD
blocks of one side. `Zero` rows have no interior and no part in this.
"""

import abc
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .cones import (
    PSD,
    Nonnegative,
    ProductCone,
    SecondOrder,
    Zero,
    put_back,
    side_of,
    smat,
    svec,
    taken,
)
from .pytrees import after

Blocks = list[Array]

# No step is longer than 1, but a long one is only taken in part.
LONGEST = 2.0
# Of the logarithm of a step's length: from a range of 1e4 there remains a hundredth.
HALVINGS = 10


class AbstractScaling(eqx.Module):
    """W for all blocks of one kind, and the scaled point lam."""

    @abc.abstractmethod
    def down(self, s: Array) -> Array:
        """W^-T s: from the primal to the scaled space."""

    @abc.abstractmethod
    def up(self, u: Array) -> Array:
        """W^T u: from the scaled to the primal space."""

    @abc.abstractmethod
    def to_dual(self, u: Array) -> Array:
        """W^-1 u: from the scaled to the dual space."""

    @abc.abstractmethod
    def point(self) -> Array:
        """lam as an element of the algebra."""

    @abc.abstractmethod
    def identity(self) -> Array:
        """The unit of the algebra."""

    @abc.abstractmethod
    def product(self, u: Array, v: Array) -> Array:
        """The Jordan product."""

    @abc.abstractmethod
    def divide(self, u: Array) -> Array:
        """The v with lam o v = u."""

    @abc.abstractmethod
    def least(self, ds: Array, dz: Array) -> Float[Array, ""]:
        """The t whose -1 / t is the longest step from lam along ds and dz inside the cone.

        It is not below zero if there is no longest. Of matrices it is a lower bound, and at most -1 /
        `LONGEST`: what is longer does not matter.
        """

    @abc.abstractmethod
    def moved(self, s: Array, z: Array) -> "AbstractScaling":
        """The scaling of two points given in the scaled space of this one."""


class EntryScaling(AbstractScaling):
    """Nonnegative rows: W = diag(w)."""

    w: Float[Array, " k"]
    lam: Float[Array, " k"]

    def down(self, s):
        return s / self.w

    def up(self, u):
        return self.w * u

    def to_dual(self, u):
        return u / self.w

    def point(self):
        return self.lam

    def identity(self):
        return jnp.ones_like(self.lam)

    def product(self, u, v):
        return u * v

    def divide(self, u):
        return u / self.lam

    def least(self, ds, dz):
        return jnp.min(jnp.minimum(ds, dz) / self.lam)

    def moved(self, s, z):
        return EntryScaling(self.w * jnp.sqrt(s / z), jnp.sqrt(s * z))


class LorentzScaling(AbstractScaling):
    """Second-order blocks of one size: W = beta times the boost of an axis by a stretch.

    W is beta * stretch along (1, axis), beta / stretch along (1, -axis), and beta across them. These
    numbers, unlike the matrix or the determinants of s and z, do not cancel near the boundary: an
    error of the axis turns s and z alike.
    """

    beta: Float[Array, " k"]
    stretch: Float[Array, " k"]
    axis: Float[Array, "k size-1"]  # a unit vector, or zero where the stretch is 1
    lam: Float[Array, "k size"]

    def down(self, s):
        return self._boost(1 / self.stretch, s) / self.beta[:, None]

    def up(self, u):
        return self._boost(self.stretch, u) * self.beta[:, None]

    def to_dual(self, u):
        return self.down(u)

    def _boost(self, stretch, u):
        along = jnp.sum(self.axis * u[:, 1:], axis=1)
        ahead, behind = (u[:, 0] + along) / 2 * stretch, (u[:, 0] - along) / 2 / stretch
        tail = u[:, 1:] + (ahead - behind - along)[:, None] * self.axis
        return jnp.concatenate([(ahead + behind)[:, None], tail], axis=1)

    def point(self):
        return self.lam

    def identity(self):
        return jnp.zeros_like(self.lam).at[:, 0].set(1)

    def product(self, u, v):
        head = jnp.sum(u * v, axis=1, keepdims=True)
        return jnp.concatenate([head, u[:, :1] * v[:, 1:] + v[:, :1] * u[:, 1:]], axis=1)

    def divide(self, u):
        lam = self.lam
        head = (u[:, :1] * lam[:, :1] - jnp.sum(u[:, 1:] * lam[:, 1:], axis=1, keepdims=True)) / (
            _determinant(lam)[:, None]
        )
        return jnp.concatenate([head, (u[:, 1:] - head * lam[:, 1:]) / lam[:, :1]], axis=1)

    def least(self, ds, dz):
        root = jnp.sqrt(_determinant(self.lam))[:, None]
        unit = self.lam / root

        def of(u):
            head = jnp.sum(_flip(unit) * u, axis=1, keepdims=True)
            tail = u[:, 1:] - (head + u[:, :1]) / (unit[:, :1] + 1) * unit[:, 1:]
            return jnp.min((head[:, 0] - jnp.linalg.norm(tail, axis=1)) / root[:, 0])

        return jnp.minimum(of(ds), of(dz))

    def moved(self, s, z):
        beta, v, lam = _lorentz(s, z)
        # W_+ is symmetric, with W_+^2 = W M^2 W for the scaling M of both points.
        start = self.identity()
        inner = self._boost(self.stretch, start)
        for _ in range(2):
            inner = 2 * v * jnp.sum(v * inner, axis=1, keepdims=True) - _flip(inner)
        square = self._boost(self.stretch, inner)
        length = jnp.linalg.norm(square[:, 1:], axis=1, keepdims=True)
        axis = square[:, 1:] / jnp.where(length > 0, length, 1)
        stretch = jnp.sqrt(square[:, 0] + length[:, 0])
        # M W = Q W_+ with the rotation Q of the plane of both axes (Wigner's): two reflections.
        first = v[:, 1:] / v[:, :1]
        half = (self.stretch - 1) / (self.stretch + 1)
        square_first = jnp.sum(first**2, axis=1, keepdims=True)
        second = first + half[:, None] * square_first * self.axis
        tail = _reflected(second, _reflected(first, lam[:, 1:]))
        lam = jnp.concatenate([lam[:, :1], tail], axis=1)
        return LorentzScaling(beta * self.beta, stretch, axis, lam)


def _reflected(normal: Array, x: Array) -> Array:
    """x after the reflection at the hyperplane of each normal; itself where that is zero."""
    size = jnp.sum(normal**2, axis=1, keepdims=True)
    part = jnp.sum(normal * x, axis=1, keepdims=True) / jnp.where(size > 0, size, 1)
    return x - 2 * part * normal


def _lorentz(s: Array, z: Array) -> tuple[Array, Array, Array]:
    """beta, v and lam of the symmetric scaling beta (2 v v' - J) of two interior points."""
    det_s, det_z = _determinant(s), _determinant(z)
    s, z = s / jnp.sqrt(det_s)[:, None], z / jnp.sqrt(det_z)[:, None]
    gamma = jnp.sqrt((1 + jnp.sum(s * z, axis=1, keepdims=True)) / 2)
    w = (s + _flip(z)) / (2 * gamma)
    v = (w.at[:, 0].add(1)) / jnp.sqrt(2 * (w[:, :1] + 1))
    tail = (gamma + z[:, :1]) * s[:, 1:] + (gamma + s[:, :1]) * z[:, 1:]
    lam = jnp.concatenate([gamma, tail / (s[:, :1] + z[:, :1] + 2 * gamma)], axis=1)
    return (det_s / det_z) ** 0.25, v, lam * ((det_s * det_z) ** 0.25)[:, None]


class MatrixScaling(AbstractScaling):
    """PSD blocks, padded to one side: W Z = R'Z R, with R and its inverse, and lam = diag(values).

    Blocks of smaller `sides` stand in the upper left corner. On the padding all points and directions
    are zero, so that it needs a thought only where matrices are factored: there R is orthogonal.
    """

    root: Float[Array, "k side side"]
    inverse: Float[Array, "k side side"]
    values: Float[Array, "k side"]
    sides: tuple[int, ...] | None = eqx.field(static=True, default=None)  # None: all are whole

    def down(self, s):
        return _congruence(self.inverse, s)

    def up(self, u):
        return _congruence(self.root, u)

    def to_dual(self, u):
        return _congruence(jnp.swapaxes(self.inverse, -1, -2), u)

    def point(self):
        return self.values[:, :, None] * self._inside

    def identity(self):
        return jnp.asarray(self._inside)

    def product(self, u, v):
        half = _dot(u, v)
        return (half + jnp.swapaxes(half, -1, -2)) / 2

    def divide(self, u):
        return 2 * u / (self.values[:, :, None] + self.values[:, None, :])

    def least(self, ds, dz):
        roots = jnp.sqrt(self.values)
        unit = roots[:, :, None] * roots[:, None, :]
        return _least_eigenvalue(jnp.stack([ds / unit, dz / unit]), self.sides)

    def moved(self, s, z):
        # Only well-conditioned matrices are factored: S and Z themselves never are.
        whole = s if self.sides is None else s + self._outside
        lower = _each_of(self.sides, jnp.linalg.cholesky, whole)
        squares, vectors = self._eigh(after(_congruence(jnp.swapaxes(lower, -1, -2), z), lower))
        values = jnp.sqrt(squares)
        spread = jnp.sqrt(values)
        root = _dot(_dot(self.root, lower), vectors) / spread[:, None, :]
        solve = functools.partial(jax.scipy.linalg.solve_triangular, lower=True)
        back = _each_of(self.sides, solve, after(lower, vectors), self.inverse)
        inverse = spread[:, :, None] * _dot(jnp.swapaxes(vectors, -1, -2), back)
        return MatrixScaling(root, inverse, values, self.sides)

    def _eigh(self, matrices: Array) -> tuple[Array, Array]:
        """Eigenvalues and vectors; 1 and unit vectors on the padding, which comes last."""
        if self.sides is None:
            return jnp.linalg.eigh(matrices)
        beyond = 1 + jnp.linalg.norm(matrices, axis=(1, 2), keepdims=True)
        squares, vectors = _each_of(
            self.sides, lambda m: tuple(jnp.linalg.eigh(m)), matrices + beyond * self._outside
        )
        return jnp.where(self._outside.any(axis=1), 1, squares), vectors

    @property
    def _outside(self) -> Float[np.ndarray, "k side side"]:
        return _padding(self.sides, self.values.shape[-1], self.values.dtype)

    @property
    def _inside(self) -> Float[np.ndarray, "k side side"]:
        eye = np.eye(self.values.shape[-1], dtype=self.values.dtype)
        return np.broadcast_to(eye - self._outside, (*self.values.shape, len(eye)))


class Layout(eqx.Module):
    """The blocks of a vector of a product cone, and its equality rows."""

    cones: ProductCone

    def __check_init__(self):
        for cone in self.cones.cones:
            if not isinstance(cone, Zero | Nonnegative | SecondOrder | PSD):
                raise ValueError(
                    f"InteriorPoint: it has no scaling of {cone!r}; Splitting takes it."
                )

    @property
    def equalities(self) -> np.ndarray:
        """The numbers of the `Zero` rows."""
        return np.flatnonzero(self.cones.equalities())

    @property
    def degree(self) -> int:
        """How many eigenvalues a point has: the parameter of the barrier."""
        return sum(
            sum(self._sides(cone, rows) or [cone.side] * len(rows))
            if isinstance(cone, PSD)
            else len(rows)
            for cone, rows in self._kinds()
        )

    def split(self, point: Float[Array, " m"]) -> Blocks:
        """The blocks of a vector, without its equality rows."""
        return [_natural(cone, taken(point, rows)) for cone, rows in self._kinds()]

    def join(self, blocks: Blocks, equalities: Float[Array, " e"]) -> Float[Array, " m"]:
        """The vector with these blocks and these equality rows."""
        kinds = self._kinds()
        parts = [_vectors(cone, block) for (cone, _), block in zip(kinds, blocks, strict=True)]
        places = [self.equalities, *(rows for _, rows in kinds)]
        return put_back([equalities, *parts], places, self.cones.rows)

    def vectors(self, blocks: Blocks, dtype: Any) -> Float[Array, " i"]:
        """All blocks in one vector with the inner product of the cones, kind after kind."""
        parts = [
            _vectors(cone, block) for (cone, _), block in zip(self._kinds(), blocks, strict=True)
        ]
        return jnp.concatenate(parts) if parts else jnp.zeros(0, dtype)

    def unit(self, dtype: Any) -> list[AbstractScaling]:
        """The scaling of the identity with itself, W = I."""
        found: list[AbstractScaling] = []
        for cone, rows in self._kinds():
            one = jnp.ones(len(rows), dtype)
            if isinstance(cone, PSD):
                eye, sides = jnp.eye(cone.side, dtype=dtype), self._sides(cone, rows)
                eye = jnp.broadcast_to(eye, (len(rows), *eye.shape))
                found.append(MatrixScaling(eye, eye, jnp.ones(eye.shape[:2], dtype), sides))
            elif isinstance(cone, SecondOrder):
                identity = jnp.broadcast_to(jnp.asarray(cone.identity(), dtype), rows.shape)
                found.append(LorentzScaling(one, one, jnp.zeros_like(identity[:, 1:]), identity))
            else:
                found.append(EntryScaling(one, one))
        return found

    def scaling(self, s: Blocks, z: Blocks) -> list[AbstractScaling]:
        """The scaling of two interior points."""
        found: list[AbstractScaling] = []
        for unit, a, b in zip(self.unit(s[0].dtype if s else float), s, z, strict=True):
            found.append(unit.moved(after(a, found), b))
        return found

    def extremes(self, point: Blocks) -> list[tuple[Array, Array]]:
        """The least and the largest eigenvalue of each kind of blocks."""
        found: list[tuple[Array, Array]] = []
        for (cone, rows), block in zip(self._kinds(), point, strict=True):
            if isinstance(cone, PSD):
                # Padded with an entry of the diagonal, which lies between both extremes.
                sides = self._sides(cone, rows)
                block = block + block[:, :1, :1] * _padding(sides, cone.side, block.dtype)
                values = _each_of(sides, jnp.linalg.eigvalsh, after(block, found))
                found.append((jnp.min(values), jnp.max(values)))
            elif isinstance(cone, SecondOrder):
                length = jnp.linalg.norm(block[:, 1:], axis=1)
                found.append((jnp.min(block[:, 0] - length), jnp.max(block[:, 0] + length)))
            else:
                found.append((jnp.min(block), jnp.max(block)))
        return found

    def _sides(self, cone: PSD, places: np.ndarray) -> tuple[int, ...] | None:
        """The sides of a kind's matrices without their padding; None if there is none."""
        if np.all(places < self.cones.rows):
            return None
        return tuple(side_of(int(count)) for count in np.sum(places < self.cones.rows, axis=1))

    def _kinds(self):
        return [(cone, rows) for cone, rows in self.cones.batches() if not isinstance(cone, Zero)]


def _padding(
    sides: tuple[int, ...] | None, side: int, dtype: Any
) -> Float[np.ndarray, "k side side"]:
    """The identity on the padding of matrices of these sides; zero where they are None."""
    outside = np.arange(side) >= np.array(sides or [side])[:, None]
    return (outside[:, :, None] * np.eye(side)).astype(dtype)


def _natural(cone, block):
    if isinstance(cone, PSD):
        return jax.vmap(smat)(block)
    return block if isinstance(cone, SecondOrder) else block[:, 0]


def _vectors(cone, block):
    return (jax.vmap(svec)(block) if isinstance(cone, PSD) else block).ravel()


def _flip(x: Array) -> Array:
    return jnp.concatenate([x[:, :1], -x[:, 1:]], axis=1)


def _determinant(x: Array) -> Array:
    length = jnp.linalg.norm(x[:, 1:], axis=1)
    return (x[:, 0] - length) * (x[:, 0] + length)


def _each_of(sides: tuple[int, ...] | None, factor: Callable[..., Any], *arrays: Array) -> Any:
    """A factorisation of all: in turn where no two have one side, as in `ProductCone.project`."""
    if sides is not None and len(set(sides)) == len(sides):
        return jax.lax.map(lambda parts: factor(*parts), arrays)
    return factor(*arrays)


def _least_eigenvalue(
    matrices: Float[Array, "two k side side"], sides: tuple[int, ...] | None
) -> Float[Array, ""]:
    """A lower bound of all eigenvalues, at most -1 / `LONGEST` and else about a hundredth too low.

    With t I added the matrices have Cholesky factors if their least eigenvalue exceeds -t. The factors
    for all t, many of which fail early, cost a quarter of what eigenvalues do. A NaN stays one.
    """
    size = jnp.max(jnp.linalg.norm(matrices, axis=(2, 3)))
    identity = jnp.eye(matrices.shape[-1], dtype=size.dtype)
    low = jnp.full_like(size, -np.log(LONGEST))

    def pivot(matrix):
        return jax.lax.linalg.cholesky(matrix, symmetrize_input=False)[..., -1, -1]

    def halve(_, bracket):
        low, high = bracket
        middle = (low + high) / 2
        shifted = matrices + jnp.exp(middle) * identity
        pivots = jax.lax.map(lambda half: _each_of(sides, pivot, half), shifted)
        definite = jnp.all(jnp.isfinite(pivots))  # the last is NaN without a factor
        return jnp.where(definite, low, middle), jnp.where(definite, middle, high)

    _, high = jax.lax.fori_loop(0, HALVINGS, halve, (low, jnp.maximum(jnp.log(size), low)))
    return -jnp.exp(high)


def _congruence(factor: Array, matrix: Array) -> Array:
    half = _dot(_dot(factor, matrix), jnp.swapaxes(factor, -1, -2))
    return (half + jnp.swapaxes(half, -1, -2)) / 2


def _dot(left: Array, right: Array) -> Array:
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)
