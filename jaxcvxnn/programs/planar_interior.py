"""(planar) in coordinates, for interior-point methods.

The normal matrix is formed cell by cell from the scaling matrices, without A: of the rows of F each
cell sees two combinations only. Derivation: docs/math.md, section "Samples in a plane".
"""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcone import (
    PSD,
    EntryScaling,
    Layout,
    MatrixScaling,
    Nonnegative,
    ProductCone,
    norm,
    smat,
    svec,
)

from ..products import dot
from .dual_form import AbstractDualForm, joined, reader_gram

if TYPE_CHECKING:
    from .planar import PlanarProgram


class PlanarForm(AbstractDualForm):
    """(planar) in coordinates: x = (R, mu), s = (the cells' matrices as `svec`, mu).

    `unit` divides the objective and multiplies y.
    """

    program: "PlanarProgram"
    unit: Float[Array, ""]
    layout: Layout

    def __init__(self, program: "PlanarProgram"):
        count, _, _ = program.readers.shape
        side = 2 + program.targets.shape[1]
        self.program = program
        self.unit = jnp.maximum(norm(program.targets), 1)
        self.layout = Layout(ProductCone([PSD(side)] * count + [Nonnegative(count)]))

    def normal(self, scaling):
        of_cells, of_mu = scaling
        assert isinstance(of_cells, MatrixScaling) and isinstance(of_mu, EntryScaling)
        readers = self.program.readers
        rows, outputs = self.program.targets.shape
        # <W^-1 S, W^-1 S'> = tr(S G S' G) with the inverse metric G = [[a, b], [b', d]].
        metric = dot(jnp.swapaxes(of_cells.inverse, 1, 2), of_cells.inverse)
        a, b, d = metric[:, :2, :2], metric[:, :2, 2:], metric[:, 2:, 2:]
        square = reader_gram(readers, a, b, d)
        square = square + jnp.eye(rows * outputs, dtype=square.dtype) / self.unit
        # Of mu: S = J = diag(-1, 1, 0).
        bent = a[:, :, 1:] * b[:, 1:] - a[:, :, :1] * b[:, :1]
        cross = 2 * jnp.einsum("klp,kpi->lik", readers, bent, precision="highest")
        cross = cross.reshape(rows * outputs, -1)
        own = a[:, 0, 0] ** 2 + a[:, 1, 1] ** 2 - 2 * a[:, 0, 1] ** 2 + of_mu.w**-2
        return jnp.block([[square, cross], [cross.T, jnp.diag(own)]])

    def initial(self):
        (matrices, mu), _ = self.program.initial()
        gap = self.first_gap()
        inverse = gap * jnp.linalg.inv(matrices)
        x = joined((jnp.zeros_like(self.program.targets), mu))
        return x, [matrices, mu], [inverse, gap / mu]

    @property
    def size(self):
        return self.program.targets.size + len(self.program.squares)

    def cost(self):
        count, rows, _ = self.program.readers.shape
        outputs = self.program.targets.shape[1]
        held = 2.0 * count * rows * outputs**2
        return held + 10.0 * count * (2 + outputs) ** 2, 2.0 * rows * held

    def parts(self, x: Array) -> tuple[Array, Array]:
        targets = self.program.targets
        return x[: targets.size].reshape(targets.shape), x[targets.size :]

    def rows(self, s: tuple[Array, Array]) -> Array:
        return joined((jax.vmap(svec)(s[0]), s[1]))

    def blocks(self, s: Array) -> tuple[Array, Array]:
        count = len(self.program.squares)
        return jax.vmap(smat)(s[:-count].reshape(count, -1)), s[-count:]
