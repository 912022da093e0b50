"""(copositive) in coordinates, for interior-point methods.

The normal matrix is formed pattern by pattern from the scaling matrices, without A. Derivation:
docs/math.md, sections "Samples in a plane" (the same with one product per cell) and "Copositive
programs".
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
    from .copositive import CopositiveProgram


class CopositiveForm(AbstractDualForm):
    """(copositive) in coordinates: x = (R, mu), s = (the matrices as `svec`, mu, R's limits).

    `unit` divides the objective and multiplies y.
    """

    program: "CopositiveProgram"
    unit: Float[Array, ""]
    layout: Layout

    def __init__(self, program: "CopositiveProgram"):
        count, _, rank = program.readers.shape
        side = rank + program.targets.shape[1]
        signs = len(program.products) + 2 * program.lower.size
        self.program = program
        self.unit = jnp.maximum(norm(program.targets), 1)
        self.layout = Layout(ProductCone([PSD(side)] * count + [Nonnegative(signs)]))

    def normal(self, scaling):
        of_patterns, *of_signs = scaling
        assert isinstance(of_patterns, MatrixScaling)
        program = self.program
        readers, products, owners = program.readers, program.products, program.owners
        _, rows, rank = readers.shape
        outputs = program.targets.shape[1]
        signs = [jnp.zeros(0, readers.dtype)]
        for entries in of_signs:
            assert isinstance(entries, EntryScaling)
            signs = [entries.w**-2]
        of_mu, of_limits = jnp.split(signs[0], [len(products)])
        # <W^-1 S, W^-1 S'> = tr(S G S' G) with the inverse metric G = [[a, b], [b', d]].
        metric = dot(jnp.swapaxes(of_patterns.inverse, 1, 2), of_patterns.inverse)
        a, b, d = metric[:, :rank, :rank], metric[:, :rank, rank:], metric[:, rank:, rank:]
        square = reader_gram(readers, a, b, d)
        curvature = jnp.broadcast_to(program.curvature / self.unit, rows * outputs)
        for half_limits in jnp.split(of_limits, 2) if len(of_limits) else []:
            curvature = curvature + half_limits
        square = square + jnp.diag(curvature)
        # Of mu: S = B in the first block, where that of R has -H.
        left = jnp.einsum("mpq,mqs->mps", products, a[owners], precision="highest")
        bent = jnp.einsum("mps,msi->mpi", jnp.swapaxes(left, 1, 2), b[owners], precision="highest")
        cross = -2 * jnp.einsum("mlp,mpi->lim", readers[owners], bent, precision="highest")
        cross = cross.reshape(rows * outputs, -1)
        around = jnp.einsum("mpq,mqs->mps", a[owners], left, precision="highest")
        own = dot(around.reshape(-1, rank**2), products.reshape(-1, rank**2).T)
        own = jnp.where(owners[:, None] == owners[None, :], own, 0) + jnp.diag(of_mu)
        return jnp.block([[square, cross], [cross.T, own]])

    def initial(self):
        (matrices, *signs), _ = self.program.initial()
        gap = self.first_gap()
        entries = joined(signs)
        primal, dual = [matrices], [gap * jnp.linalg.inv(matrices)]
        if entries.size:
            primal, dual = [*primal, entries], [*dual, gap / entries]
        return joined((jnp.zeros_like(self.program.targets), signs[0])), primal, dual

    @property
    def size(self):
        return self.program.targets.size + len(self.program.products)

    def cost(self):
        count, rows, rank = self.program.readers.shape
        outputs, products = self.program.targets.shape[1], len(self.program.products)
        held = 1.0 * count * rows * rank * outputs**2 + 2.0 * products * rows * (rank + outputs)
        return held + 10.0 * count * (rank + outputs) ** 2, 2.0 * rows * held + products**2 * rank

    def parts(self, x: Array) -> tuple[Array, Array]:
        targets = self.program.targets
        return x[: targets.size].reshape(targets.shape), x[targets.size :]

    def rows(self, s: tuple[Array, Array, Array, Array]) -> Array:
        matrices, *signs = s
        return joined((jax.vmap(svec)(matrices), *signs))

    def blocks(self, s: Array) -> tuple[Array, Array, Array, Array]:
        count, lower = len(self.program.readers), self.program.lower
        limits = len(s) - 2 * lower.size
        ends = [limits - len(self.program.products), limits, limits + lower.size]
        matrices, mu, below, above = jnp.split(s, ends)
        matrices = jax.vmap(smat)(matrices.reshape(count, -1))
        return matrices, mu, below.reshape(lower.shape), above.reshape(lower.shape)
