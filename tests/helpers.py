"""Programs and checks that the tests of the conic solver share."""

import dataclasses
from fractions import Fraction
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcone import (
    AbstractConeProgram,
    Scaling,
    Solution,
    project_nonnegative,
    project_psd,
)


@dataclasses.dataclass(frozen=True)
class Cones:
    """K: `zero` equalities, `nonnegative` entries and one PSD matrix of this side, in that order."""

    zero: int = 0
    nonnegative: int = 0
    side: int = 0

    @property
    def rows(self) -> int:
        return self.zero + self.nonnegative + self.side**2

    def split(self, rows: Any) -> dict[str, Any]:
        """Rows by their cones; cones that are not there have no entry."""
        cut = self.zero + self.nonnegative
        parts = {
            "a zero": rows[: self.zero],
            "b nonnegative": rows[self.zero : cut],
            "c psd": rows[cut:].reshape(self.side, self.side),
        }
        return {name: part for name, part in parts.items() if part.size}


class Units(Scaling):
    """s = primal s', y = dual y': the simplest equilibration that is not the identity."""

    primal: float = eqx.field(static=True)
    dual: float = eqx.field(static=True)

    def scale(self, s, y):
        return _times(1 / self.primal, s), _times(1 / self.dual, y)

    def unscale(self, x, s, y):
        return _times(self.primal, x), _times(self.primal, s), _times(self.dual, y)


class DenseFactor(eqx.Module):
    """T and d with T'(P + A'A) T = I and T' A'A T = diag(d)."""

    basis: Float[Array, "n n"]
    weights: Float[Array, " n"]


class DenseProgram(AbstractConeProgram[DenseFactor]):
    """Dense P, c, A, b; s = {cone: its rows}. P + A'A is to be invertible.

    `units` are those of the equilibrated program; powers of two and (1, 1) round nothing.
    """

    P: Float[Array, "n n"]
    c: Float[Array, " n"]
    A: Float[Array, "m n"]
    b: Float[Array, " m"]
    cones: Cones = eqx.field(static=True)
    units: tuple[float, float] = eqx.field(static=True, default=(1.0, 1.0))

    def quadratic(self, x):
        return _dot(self.P, x)

    def linear(self):
        return self.c

    def operator(self, x):
        return self.cones.split(_dot(self.A, x))

    def adjoint(self, y):
        return _dot(self.A.T, join(y))

    def offset(self):
        return self.cones.split(self.b)

    def project(self, s):
        onto = {
            "a zero": jnp.zeros_like,
            "b nonnegative": project_nonnegative,
            "c psd": project_psd,
        }
        return {name: onto[name](part) for name, part in s.items()}

    def factor(self):
        gram = _dot(self.A.T, self.A)
        root = jnp.linalg.cholesky(self.P + gram)
        inverse = jax.scipy.linalg.solve_triangular(
            root, jnp.eye(len(root), dtype=root.dtype), lower=True
        )
        weights, vectors = jnp.linalg.eigh(_dot(_dot(inverse, gram), inverse.T))
        return DenseFactor(_dot(inverse.T, vectors), weights)

    def minimize(self, factor, penalty, target, guess):
        right = penalty * _dot(self.A.T, join(target)) - self.c
        curvature = (1 - factor.weights) + penalty * factor.weights
        return _dot(factor.basis, _dot(factor.basis.T, right) / curvature)

    def tangent_factor(self):
        return ()

    def tangent(self, factor, gradient):
        return gradient

    def initial(self):
        zero = self.cones.split(jnp.zeros_like(self.b))
        return zero, zero

    def equilibrate(self):
        primal, dual = self.units
        parts = (self.P * (primal / dual), self.c / dual, self.A, self.b / primal)
        return DenseProgram(*parts, self.cones), Units(primal, dual)


@dataclasses.dataclass(frozen=True)
class Known:
    """A program together with its optimal points and value, in NumPy."""

    program: DenseProgram
    x: np.ndarray
    s: np.ndarray
    y: np.ndarray

    @property
    def value(self) -> float:
        P, c = np.asarray(self.program.P), np.asarray(self.program.c)
        return float(self.x @ P @ self.x / 2 + c @ self.x)


def known_program(
    rng: np.random.Generator,
    size: int,
    cones: Cones,
    *,
    curvature: float = 1.0,
    active: int | None = None,
) -> Known:
    """Draw z, put y = proj_K*(z), s = y - z, then b = A x + s and c = -P x - A'y.

    `active` is how many of the nonnegative entries have y > 0 (a random number by default); with
    `curvature` 0 and `active` = `size` - `cones.zero` the program is an LP with a single solution.
    """
    z = rng.standard_normal(cones.rows)
    first, last = cones.zero, cones.zero + cones.nonnegative
    if active is not None:
        sign = np.where(np.arange(cones.nonnegative) < active, 1, -1)
        z[first:last] = sign * (0.5 + np.abs(z[first:last]))
    matrix = symmetric(z[last:].reshape(cones.side, cones.side))
    z[last:] = matrix.ravel()
    y = z.copy()
    y[first:last] = np.maximum(z[first:last], 0)
    values, vectors = np.linalg.eigh(matrix) if cones.side else (np.zeros(0), matrix)
    y[last:] = ((vectors * values.clip(0)) @ vectors.T).ravel()
    s = y - z
    A = rng.standard_normal((cones.rows, size))
    for column in A.T:  # the adjoint of a map into the symmetric matrices
        column[last:] = symmetric(column[last:].reshape(cones.side, cones.side)).ravel()
    root = rng.standard_normal((size, size))
    P = curvature * (root @ root.T / size + np.eye(size))
    x = rng.standard_normal(size)
    P, c, A, b = (jnp.asarray(part) for part in (P, -P @ x - A.T @ y, A, A @ x + s))
    return Known(DenseProgram(P, c, A, b, cones), x, s, y)


def stack(*trees: Any) -> Any:
    """A batch from trees of one structure, for `jax.vmap`."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def lane(tree: Any, index: int) -> Any:
    """One lane of a batch."""
    return jax.tree.map(lambda leaf: leaf[index], tree)


def join(parts: dict[str, Array]) -> Array:
    """The rows that `Cones.split` takes apart."""
    return jnp.concatenate([jnp.ravel(parts[name]) for name in sorted(parts)])


def recomputed(program: DenseProgram, solution: Solution) -> dict[str, float]:
    """Residuals and objectives of the returned arrays, by NumPy, from the program's numbers alone."""
    P, c, A, b = (np.asarray(a, float) for a in (program.P, program.c, program.A, program.b))
    x = np.asarray(solution.x, float)
    s, y = (np.asarray(join(part), float) for part in (solution.s, solution.y))
    norm = np.linalg.norm
    primal, dual = norm(A @ x + s - b), norm(P @ x + c + A.T @ y)
    quadratic = x @ P @ x / 2
    objectives = quadratic + c @ x, -quadratic - b @ y
    gap = abs(objectives[0] - objectives[1])
    found = {
        "primal": primal,
        "dual": dual,
        "gap": gap,
        "primal_relative": primal / (1 + max(norm(A @ x), norm(s), norm(b))),
        "dual_relative": dual / (1 + max(norm(P @ x), norm(c), norm(A.T @ y))),
        "gap_relative": gap / (1 + abs(objectives[0]) + abs(objectives[1])),
        "primal_objective": objectives[0],
        "dual_objective": objectives[1],
    }
    return {name: float(value) for name, value in found.items()}


def worst(program: DenseProgram, solution: Solution) -> float:
    """The largest relative residual, by NumPy; NaN if any is NaN."""
    found = recomputed(program, solution)
    return float(np.max([v for k, v in found.items() if k.endswith("_relative")]))


def symmetric(matrix: np.ndarray) -> np.ndarray:
    """The symmetric part."""
    return (matrix + matrix.T) / 2


def exact_dot(left: np.ndarray, right: np.ndarray) -> Fraction:
    """The sum of products, in rational arithmetic."""
    pairs = zip(np.ravel(left).tolist(), np.ravel(right).tolist(), strict=True)
    return sum((Fraction(a) * Fraction(b) for a, b in pairs), Fraction(0))


def exactly_positive_definite(matrix: np.ndarray) -> bool:
    """Whether a symmetric float matrix is positive definite, by rational elimination."""
    rows = [[Fraction(value) for value in row] for row in matrix.tolist()]
    for k, pivot in enumerate(rows):
        if pivot[k] <= 0:
            return False
        for i in range(k + 1, len(rows)):
            ratio = rows[i][k] / pivot[k]
            rows[i] = [a - ratio * b for a, b in zip(rows[i], pivot, strict=True)]
    return True


def _times(factor: float, tree: Any) -> Any:
    return jax.tree.map(lambda leaf: factor * leaf, tree)


def _dot(left: Array, right: Array) -> Array:
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)
