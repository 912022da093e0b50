"""(spectrahedra) in coordinates, for interior-point methods.

The normal matrix is formed from the scaled forms: per output one of order k + 2, k the number of
loss rows, which is at most the number of coordinates of a symmetric matrix.
"""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcone import (
    PSD,
    Layout,
    MatrixScaling,
    ProductCone,
    norm,
    smat,
    svec,
)

from ..products import dot
from .dual_form import AbstractDualForm

if TYPE_CHECKING:
    from .spectrahedra import SpectrahedraProgram


class SpectrahedraForm(AbstractDualForm):
    """(spectrahedra) in coordinates: x = (R, rho) row by row, s = the matrices as `svec`.

    `unit` divides the objective and multiplies y.
    """

    program: "SpectrahedraProgram"
    unit: Float[Array, ""]
    layout: Layout

    def __init__(self, program: "SpectrahedraProgram"):
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
            left = dot(forms.reshape(-1, side), inverse.T).reshape(forms.shape)
            left = jnp.swapaxes(left, 1, 2).reshape(-1, side)
            scaled = jax.vmap(svec)(dot(left, inverse.T).reshape(forms.shape))
            return dot(scaled, scaled.T)

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
