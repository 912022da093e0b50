"""(spectrahedra): networks with polynomial activations to the global optimum, squared loss.

The dual (28) of Bartan and Pilanci (2021), with the forms' parts orthogonal to G = diag(1, ..., 1, -1):

    -p* = min  1/2 ||R||^2 + <R, Y>
    s.t. wd/2 I + sum_i R_ik F_i - rho_k G,  wd/2 I - sum_i R_ik F_i - rho'_k G  PSD

for every output k; for the square activation with wd I and without rho. The multipliers are the
matrices Z_k and Z'_k of their program (21).
Derivation: docs/math/spectrahedra.md, "Neural spectrahedra".

Its interior-point form has, per output, a normal matrix of order k + 2, k the number of loss rows,
which is at most the number of coordinates of a symmetric matrix.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcone import PSD, ProductCone, smat, svec
from jaxcone.extend import (
    AbstractConeProgram,
    Layout,
    MatrixScaling,
    NoScaling,
    matmul,
    norm,
    project_psd,
)

from .dual_form import AbstractDualForm
from .quadratic_forms import Compressed


class RowFactor(eqx.Module):
    """Eigenbasis of A'A on the columns of R; on the multipliers it is s times the identity."""

    values: Float[Array, " k"]
    basis: Float[Array, "k k"]


class SpectrahedraProgram(AbstractConeProgram[RowFactor]):
    """(spectrahedra) in the standard form, with R in some unit t.

    x = (R / t, rho / wd), s = the matrices / wd, those with +R and those with -R, and the value is
    -(p* - `constant`) / t^2. `signs` is G's diagonal, None where there is no such multiplier.
    """

    rows: Float[Array, "k D"]  # t / wd times the forms
    targets: Float[Array, "k c"]  # Y / t
    loss: Compressed  # the loss that both are of
    unit: Float[Array, ""]  # t
    signs: Float[Array, " s"] | None
    side: int = eqx.field(static=True)
    trace_price: float = eqx.field(static=True)

    @property
    def solvable(self):
        return True  # R = 0 is strictly inside, and the objective is strongly convex in R

    @property
    def multipliers(self) -> int:
        """Multipliers rho per output."""
        return 0 if self.signs is None else 2

    def quadratic(self, x):
        residual, multipliers = x
        return residual, jnp.zeros_like(multipliers)

    def linear(self):
        outputs = self.targets.shape[1]
        return self.targets, jnp.zeros((self.multipliers, outputs), self.targets.dtype)

    def operator(self, x):
        residual, multipliers = x
        pulled = jax.vmap(smat)(matmul(residual.T, self.rows))
        if self.signs is None:
            return -pulled, pulled
        shifts = multipliers[:, :, None, None] * jnp.diag(self.signs)
        return shifts[0] - pulled, shifts[1] + pulled

    def adjoint(self, y):
        positive, negative = y
        across = matmul(self.rows, jax.vmap(svec)(positive - negative).T)
        return -across, self._on_signs(y)

    def offset(self):
        price = self.trace_price * jnp.eye(self.side, dtype=self.rows.dtype)
        matrices = jnp.broadcast_to(price, (self.targets.shape[1], self.side, self.side))
        return matrices, matrices

    def project(self, s):
        return jax.vmap(project_psd)(s[0]), jax.vmap(project_psd)(s[1])

    def factor(self):
        return RowFactor(*jnp.linalg.eigh(2 * matmul(self.rows, self.rows.T)))

    def minimize(self, factor, penalty, target, guess):
        del guess  # solved exactly
        pulled, multipliers = self.adjoint(target)
        right = matmul(factor.basis.T, penalty * pulled - self.targets)
        residual = matmul(factor.basis, right / (1 + penalty * factor.values)[:, None])
        return residual, multipliers / self.side

    def tangent_factor(self):
        return ()

    def tangent(self, factor, gradient):
        return gradient

    def initial(self):
        """R = 0 and rho = 0, strictly inside; y = 0."""
        matrices = self.offset()
        return matrices, jax.tree.map(jnp.zeros_like, matrices)

    def equilibrate(self):
        return self, NoScaling()

    def interior(self):
        return SpectrahedraForm(self)

    def _on_signs(self, matrices: tuple[Array, Array]) -> Float[Array, "m c"]:
        """<G, S> of the matrices of both kinds and all outputs."""
        outputs = self.targets.shape[1]
        if self.signs is None:
            return jnp.zeros((0, outputs), self.rows.dtype)
        diagonals = jnp.diagonal(jnp.stack(matrices), axis1=2, axis2=3)
        return jnp.sum(self.signs * diagonals, axis=2)


class SpectrahedraForm(AbstractDualForm):
    """(spectrahedra) in coordinates: x = (R, rho) row by row, s = the matrices as `svec`.

    `unit` divides the objective and multiplies y.
    """

    program: SpectrahedraProgram
    unit: Float[Array, ""]
    layout: Layout

    def __init__(self, program: SpectrahedraProgram):
        outputs = program.targets.shape[1]
        self.program = program
        self.unit = jnp.maximum(norm(program.targets), 1)
        self.layout = Layout(ProductCone([PSD(program.side)] * (2 * outputs)))

    def normal(self, scaling):
        (of_all,) = scaling
        assert isinstance(of_all, MatrixScaling)
        program = self.program
        count, outputs = program.targets.shape
        side = program.side
        inverses = of_all.inverse.reshape(2, outputs, side, side)
        forms = jax.vmap(smat)(program.rows)
        if program.signs is not None:
            forms = jnp.concatenate([forms, jnp.diag(program.signs)[None]])

        def gram(inverse):
            left = matmul(forms.reshape(-1, side), inverse.T).reshape(forms.shape)
            left = jnp.swapaxes(left, 1, 2).reshape(-1, side)
            scaled = jax.vmap(svec)(matmul(left, inverse.T).reshape(forms.shape))
            return matmul(scaled, scaled.T)

        def of_output(pair):
            above, below = gram(pair[0]), gram(pair[1])
            square = (above + below)[:count, :count]
            square = square + jnp.eye(count, dtype=square.dtype) / self.unit
            if program.signs is None:
                return square
            # The forms enter with opposite signs, each G with its own multiplier.
            cross = jnp.stack([-above[:count, count], below[:count, count]], axis=1)
            corner = jnp.diag(jnp.stack([above[count, count], below[count, count]]))
            return jnp.block([[square, cross], [cross.T, corner]])

        blocks = jax.lax.map(of_output, jnp.swapaxes(inverses, 0, 1))
        if outputs == 1:
            return blocks[0]
        identity = jnp.eye(outputs, dtype=blocks.dtype)
        full = jnp.swapaxes(blocks, 0, 1)[:, :, :, None] * identity[None, :, None, :]
        return full.reshape(self.size, self.size)

    def initial(self):
        (positive, negative), _ = self.program.initial()
        matrices = jnp.concatenate([positive, negative])
        gap = self.first_gap()
        x = jnp.zeros(self.size, matrices.dtype)
        return x, [matrices], [gap * jnp.linalg.inv(matrices)]

    @property
    def size(self):
        return self.program.targets.size + self.program.multipliers * self.program.targets.shape[1]

    def cost(self):
        count, outputs = self.program.targets.shape
        side = self.program.side
        held = 4.0 * count * side**2
        formed = count * side**3 * 4.0 + count**2 * side**2
        return held, 2.0 * outputs * formed

    def parts(self, x: Array) -> tuple[Array, Array]:
        targets = self.program.targets
        flat, multipliers = x[: targets.size], x[targets.size :]
        return flat.reshape(targets.shape), multipliers.reshape(-1, targets.shape[1])

    def rows(self, s: tuple[Array, Array]) -> Array:
        return jax.vmap(svec)(jnp.concatenate(s)).ravel()

    def blocks(self, s: Array) -> tuple[Array, Array]:
        outputs = self.program.targets.shape[1]
        matrices = jax.vmap(smat)(s.reshape(2 * outputs, -1))
        return matrices[:outputs], matrices[outputs:]
