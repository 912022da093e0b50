"""The linear maps of the cone-constrained group lasso, and the one matrix that solves with them.

With slopes D_i (the diagonal of phi' on cell i), signs S_i, features X and rows G, a pair of blocks
(w_i, w_i') per cell has

    A w = sum_i D_i X (w_i - w_i')   (n,)       and the margins   S_i G w_i, S_i G w_i'   (n,).

Since S_i^2 = I, all blocks share B = nu I + G'G, and A B^-1 A' = 2 (X B^-1 X') o (Delta'Delta), where
the slopes are the rows of Delta: n x n, however many cells there are. docs/math/lasso.md, "The
cone-constrained group lasso".
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcone.extend import after, matmul


class Gates(eqx.Module):
    """Features X, the rows G whose signs the cones fix, slopes and signs of P cells.

    Weights w have shape (2, P, d): the blocks of positive output weights, then the negative ones.
    """

    features: Float[Array, "n d"]
    rows: Float[Array, "n d"]
    slopes: Float[Array, "p n"]
    signs: Float[Array, "p n"]

    def fitted(self, weights: Float[Array, "2 p d"]) -> Float[Array, " n"]:
        """A w."""
        return jnp.sum(self.slopes * matmul(weights[0] - weights[1], self.features.T), axis=0)

    def pulled(self, residual: Float[Array, " n"]) -> Float[Array, "2 p d"]:
        """A'r."""
        half = matmul(self.slopes * residual, self.features)
        return jnp.stack([half, -half])

    def margins(self, weights: Float[Array, "2 p d"]) -> Float[Array, "2 p n"]:
        """S_i G w_i: nonnegative for weights in their cells."""
        return self.signs * matmul(weights, self.rows.T)

    def margins_adjoint(self, multipliers: Float[Array, "2 p n"]) -> Float[Array, "2 p d"]:
        """G'S_i m_i."""
        return matmul(self.signs * multipliers, self.rows)

    def factor(self, identity: float) -> "GatesFactor":
        """B^-1 for nu = `identity`, and the eigenbasis of A B^-1 A'."""
        eye = jnp.eye(self.rows.shape[1], dtype=self.rows.dtype)
        inverse = jnp.linalg.inv(identity * eye + matmul(self.rows.T, self.rows))
        inverse = (inverse + inverse.T) / 2
        kernel = matmul(matmul(self.features, inverse), self.features.T)
        overlap = matmul(self.slopes.T, self.slopes)
        values, basis = jnp.linalg.eigh(after(2 * kernel * overlap, inverse))
        return GatesFactor(inverse, jnp.maximum(values, 0), basis)


class GatesFactor(eqx.Module):
    """B^-1 (d, d), and M = A B^-1 A' by its eigenvalues and eigenvectors."""

    inverse: Float[Array, "d d"]
    values: Float[Array, " n"]
    basis: Float[Array, "n n"]

    def solve(
        self,
        gates: Gates,
        shift: Float[Array, ""],
        blocks: Float[Array, "2 p d"],
        residual: Float[Array, " n"],
    ) -> tuple[Float[Array, "2 p d"], Float[Array, " n"]]:
        """w with (shift B + A'A) w = blocks + A'residual, by Woodbury's identity, and A w."""
        spread = matmul(blocks, self.inverse)
        start = matmul(self.basis.T, gates.fitted(spread))
        seen = matmul(self.basis.T, residual)
        left = seen - (start + self.values * seen) / (self.values + shift)
        pulled = gates.pulled(matmul(self.basis, left))
        weights = (spread + matmul(pulled, self.inverse)) / shift
        return weights, matmul(self.basis, start + self.values * left) / shift
