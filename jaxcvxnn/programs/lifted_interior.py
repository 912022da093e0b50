"""(lifted) in coordinates, for interior-point methods.

The pair equalities K_ii = p_i'B_i (in blocks S_zz = [[K, B], [B', U]]) are substituted: as equality
rows they would be nearly dependent on the active inequalities, and a Schur complement loses its
definiteness. The normal matrix is formed from the entries of the scaling matrices, without A: the PSD
block gives a symmetric Kronecker product, each inequality touches at most (1 + r)^2 entries.
Derivation: docs/math.md, section "The normal matrix of (lifted)".
"""

import functools
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcone import (
    PSD,
    AbstractInteriorForm,
    EntryScaling,
    Layout,
    MatrixScaling,
    Nonnegative,
    ProductCone,
    smat,
    svec,
)

from ..products import dot

if TYPE_CHECKING:
    from .lifted import LiftedProgram

# The start: Gaussian moments moved into the interior by this part of their mean eigenvalue, and duality
# gap over objective there. A hundred halves the number of steps that one takes.
INWARDS = 0.1
FIRST_GAP = 100.0


class LiftedForm(AbstractInteriorForm):
    """x = (K_ij for i < j, B, U_ab for a <= b, S_zv, S_vv), s = (S, W_kl for k < l but the pairs).

    `program` has units in which its Gaussian start is of size one; `primal` and `dual` lead back.
    """

    program: "LiftedProgram"
    primal: Float[Array, ""]
    dual: Float[Array, ""]
    layout: Layout

    def __init__(self, program: "LiftedProgram", primal: Array, dual: Array):
        if program.rows.shape[0] != 2 * program.pairs:
            raise NotImplementedError("(lifted) with further rows has no form in coordinates.")
        self.program, self.primal, self.dual = program, primal, dual
        index = _index(*self._sizes)
        cones = PSD(sum(self._sizes)), Nonnegative(len(index.above))
        self.layout = Layout(ProductCone(cones))

    @property
    def _sizes(self) -> tuple[int, int, int]:
        """k directions of rank r, c outputs."""
        pairs = self.program.pairs
        return pairs, self.program.rows.shape[1] - pairs, self.program.targets.shape[1]

    @property
    def _directions(self) -> Float[Array, "k r"]:
        pairs = self.program.pairs
        return -self.program.rows[pairs:, pairs:]

    def linear(self):
        return self._gradient(self.program.linear())

    def offset(self):
        return jnp.zeros(self.layout.cones.rows, self.program.rows.dtype)

    def quadratic(self, x):
        return self._gradient(self.program.quadratic(self._moments(x)))

    def operator(self, x):
        moments, products = self.program.operator(self._moments(x))
        index = _index(*self._sizes)
        return jnp.concatenate([svec(moments), products[index.above, index.beside]])

    def adjoint(self, y):
        return self._gradient(self.program.adjoint(self._dual(y)))

    def equality_rows(self):
        return jnp.zeros((0, len(_index(*self._sizes).rows)), self.program.rows.dtype)

    def normal(self, scaling):
        of_moments, of_products = scaling
        assert isinstance(of_moments, MatrixScaling) and isinstance(of_products, EntryScaling)
        index = _index(*self._sizes)
        pairs, rank, outputs = self._sizes
        inverse = dot(of_moments.inverse[0].T, of_moments.inverse[0])
        # Of all entries of S, those on the diagonal of K first: they are then folded into B.
        first = np.concatenate([np.arange(pairs), index.rows])
        second = np.concatenate([np.arange(pairs), index.columns])
        straight = inverse[first][:, first] * inverse[second][:, second]
        crossed = inverse[first][:, second] * inverse[second][:, first]
        half = jnp.where(first == second, 0.5, 1.0).astype(inverse.dtype)
        full = 2 * half[:, None] * (straight + crossed) * half
        weights = self._directions.reshape(-1, 1)
        owner, on_b = np.repeat(np.arange(pairs), rank), pairs + index.on_b
        full = full.at[on_b].add(weights * full[owner])
        full = full.at[:, on_b].add(weights.T * full[:, owner])
        matrix = full[pairs:, pairs:]
        gram = dot(self.program.readout.T, self.program.readout)
        for output in range(outputs):
            place = index.on_zv[output::outputs]
            matrix = matrix.at[place[:, None], place].add(gram)
        size = index.on_zz
        return matrix.at[:size, :size].add(self._of_products(1 / of_products.w**2))

    def _of_products(self, theta: Float[Array, " p"]) -> Float[Array, "a a"]:
        """sum theta_kl g_kl g_kl', g_kl the gradient of W_kl with respect to (K, B, U)."""
        index = _index(*self._sizes)
        pairs, rank, _ = self._sizes
        points = self._directions
        spread = jnp.zeros((2 * pairs, 2 * pairs), theta.dtype)
        spread = spread.at[index.above, index.beside].set(theta)
        spread = spread + spread.T
        aa, ao, oo = spread[:pairs, :pairs], spread[:pairs, pairs:], spread[pairs:, pairs:]
        both = ao + oo  # [i, j]: on K_ij - x_j'B_i + ...
        low, high = np.triu_indices(rank)
        outer = points[:, None, low] * points[None, :, high]
        outer = jnp.where(low == high, outer, outer + jnp.swapaxes(outer, 0, 1))
        i, j = np.triu_indices(pairs, 1)
        count = np.arange(len(i))
        k_k = jnp.diag((aa + ao + ao.T + oo)[i, j])
        k_b = jnp.zeros((len(i), pairs, rank), theta.dtype)
        k_b = k_b.at[count, i].set(-both[i, j][:, None] * points[j])
        k_b = k_b.at[count, j].set(-both[j, i][:, None] * points[i]).reshape(len(i), -1)
        k_u = oo[i, j][:, None] * outer[i, j]
        b_b = jnp.einsum("ij,ja,ib->iajb", oo, points, points, precision="highest")
        own = jnp.einsum("ij,ja,jb->iab", both, points, points, precision="highest")
        diagonal = np.arange(pairs)
        b_b = b_b.at[diagonal, :, diagonal].add(own).reshape(pairs * rank, pairs * rank)
        b_u = -jnp.einsum("ij,ja,iju->iau", oo, points, outer, precision="highest")
        b_u = b_u.reshape(pairs * rank, -1)
        u_u = jnp.einsum("ij,iju,ijv->uv", oo, outer, outer, precision="highest") / 2
        return jnp.block([[k_k, k_b, k_u], [k_b.T, b_b, b_u], [k_u.T, b_u.T, u_u]])

    def initial(self):
        (moments, products), _ = self.program.initial()
        x = self.coordinates(moments)
        value = jnp.sum(self.quadratic(x) * x) / 2 + jnp.sum(self.linear() * x)
        value = value + jnp.sum(self.program.targets**2) / 2
        return self.inwards(moments, products, FIRST_GAP * value)

    def coordinates(self, moments: Float[Array, "p p"]) -> Float[Array, " n"]:
        """The free entries of S."""
        index = _index(*self._sizes)
        return moments[index.rows, index.columns]

    def inwards(
        self, moments: Float[Array, "p p"], products: Float[Array, "m m"], gap: Float[Array, ""]
    ) -> tuple[Array, list[Array], list[Array]]:
        """A start with this duality gap from a pair (S, W), moved into the interior."""
        index = _index(*self._sizes)
        x = self.coordinates(moments)
        products = products[index.above, index.beside]
        size = moments.shape[0]
        inner = INWARDS * jnp.trace(moments) / size
        moments = moments + inner * jnp.eye(size, dtype=moments.dtype)
        products = jnp.maximum(products, 0) + INWARDS * jnp.mean(products)
        mu = gap / self.layout.degree
        inverse = mu * jnp.linalg.inv(moments)
        return x, [moments[None], products], [((inverse + inverse.T) / 2)[None], mu / products]

    def points(self, x, s, y):
        moments = self._moments(x)
        index = _index(*self._sizes)
        side = sum(self._sizes)
        rows = side * (side + 1) // 2
        products = jnp.diag(jnp.maximum(jnp.diagonal(-self.program.operator(moments)[1]), 0))
        products = products.at[index.above, index.beside].set(s[rows:])
        products = products.at[index.beside, index.above].set(s[rows:])
        slack, multipliers = self._dual(y)
        return (
            self.primal * moments,
            (self.primal * smat(s[:rows]), self.primal * products),
            (self.dual * slack, self.dual * multipliers),
        )

    def twin(self):
        return None  # always solvable

    @property
    def size(self):
        return len(_index(*self._sizes).rows)

    def cost(self):
        n = self.size + self.program.pairs
        return 5.0 * n**2, 12.0 * n**2

    def _moments(self, x: Array) -> Array:
        """S from its free entries."""
        index = _index(*self._sizes)
        pairs, rank, _ = self._sizes
        side = sum(self._sizes)
        moments = jnp.zeros((side, side), x.dtype)
        moments = moments.at[index.rows, index.columns].set(x)
        moments = moments.at[index.columns, index.rows].set(x)
        diagonal = jnp.sum(x[index.on_b].reshape(pairs, rank) * self._directions, axis=1)
        return moments.at[np.arange(pairs), np.arange(pairs)].set(diagonal)

    def _gradient(self, matrix: Array) -> Array:
        """The adjoint of `_moments` at a symmetric matrix."""
        index = _index(*self._sizes)
        double = jnp.where(index.rows == index.columns, 1.0, 2.0).astype(matrix.dtype)
        gradient = double * matrix[index.rows, index.columns]
        folded = jnp.diagonal(matrix)[: self.program.pairs, None] * self._directions
        return gradient.at[index.on_b].add(folded.ravel())

    def _dual(self, y: Array) -> tuple[Array, Array]:
        """The program's (slack, multipliers) from a vector."""
        index = _index(*self._sizes)
        pairs, rank, outputs = self._sizes
        side = pairs + rank + outputs
        rows = side * (side + 1) // 2
        half = jnp.zeros((2 * pairs, 2 * pairs), y.dtype)
        half = half.at[index.above, index.beside].set(y[rows:] / 2)
        return smat(y[:rows]), half + half.T


class _Index:
    """Where the coordinates stand: entry (rows[t], columns[t]) of S for x_t; W's entries for s."""

    def __init__(self, pairs: int, rank: int, outputs: int):
        size = pairs + rank
        k_rows, k_columns = np.triu_indices(pairs, 1)
        b_rows, b_columns = np.divmod(np.arange(pairs * rank), max(rank, 1))
        u_rows, u_columns = np.triu_indices(rank)
        z_rows, z_columns = np.divmod(np.arange(size * outputs), max(outputs, 1))
        v_rows, v_columns = np.triu_indices(outputs)
        self.rows = np.concatenate([k_rows, b_rows, pairs + u_rows, z_rows, size + v_rows])
        self.columns = np.concatenate(
            [k_columns, pairs + b_columns, pairs + u_columns, size + z_columns, size + v_columns]
        )
        self.on_b = len(k_rows) + np.arange(len(b_rows))
        self.on_zz = len(k_rows) + len(b_rows) + len(u_rows)
        self.on_zv = self.on_zz + np.arange(len(z_rows))
        above, beside = np.triu_indices(2 * pairs, 1)
        free = beside - above != pairs
        self.above, self.beside = above[free], beside[free]


@functools.lru_cache(maxsize=16)
def _index(pairs: int, rank: int, outputs: int) -> _Index:
    return _Index(pairs, rank, outputs)
