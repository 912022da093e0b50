"""(copositive): training with given activation patterns, as one semidefinite program.

With the patterns D_i, E_i = D_i X and the sides a_ij of their cones {u : (2 D_i - I) X u >= 0},

    min  L(sum_i E_i V_i) + wd/2 sum_i (tr U_i + tr W_i)
    s.t. [[U_i, V_i], [V_i', W_i]] PSD,  a_ij' U_i a_ik >= 0                                (copositive)

which is Sahiner et al. (2021), eq. (19), with the inverse in it written as a minimum over V and W; with
the one pattern D = I it is their (20). What is solved is the dual,

    min  L*(R)  s.t.  [[wd I - sum_jk mu_ijk a_ij a_ik',  H_i'],  [H_i,  wd I]] PSD,  mu >= 0,

H_i = R' E_i, whose blocks have the U_i, V_i and W_i as multipliers. Derivation, and for which cones the
relaxation of completely positive matrices loses nothing: docs/math/patterns.md, "Copositive programs".

Its interior-point form adds up the normal matrix pattern by pattern from the scaling matrices, without
A, as that of (planar) does.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxcone import PSD, Nonnegative, ProductCone, smat, svec
from jaxcone.extend import (
    AbstractConeProgram,
    EntryScaling,
    Layout,
    MatrixScaling,
    NoScaling,
    after,
    matmul,
    norm,
    project_nonnegative,
    project_psd,
)

from .dual_form import AbstractDualForm, joined, reader_gram, residual_unit


class CopositiveData(eqx.Module):
    """The numbers of (copositive): p patterns, rank r, n samples, c outputs, q products of sides.

    In pattern i a neuron is u = `basis` T_i a with T_i = `frames`[i], and the samples see
    `readers`[i] a, linear in a. `products`[k] is a form a_ij a_ik' of two sides, symmetric and in the
    coordinates of the pattern `owners`[k]. The conjugate of the loss is <R, `offsets`> +
    `curvature`/2 ||R||^2 between `lower` and `upper`, which have no rows where R is free.
    """

    patterns: Bool[Any, "p n"]
    basis: Float[Any, "d r"]
    frames: Float[Any, "p r r"]
    readers: Float[Any, "p n r"]
    products: Float[Any, "q r r"]
    owners: Int[Any, " q"]
    offsets: Float[Any, "n c"]
    curvature: Float[Any, ""]
    lower: Float[Any, "b c"]
    upper: Float[Any, "b c"]
    weight_decay: Float[Any, ""]


class CopositiveFactor(eqx.Module):
    """Eigenbasis of A'A on the columns of R, and per pattern (I + sum_k b_k b_k')^-1 for its mu."""

    values: Float[Array, " n"]
    basis: Float[Array, "n n"]
    inverses: Float[Array, "p s s"]


class CopositiveProgram(AbstractConeProgram[CopositiveFactor]):
    """The dual of (copositive) in the standard form, with R in some unit t.

    x = (R / t, mu / wd), s = (the matrices / wd, mu / wd, (R - lower) / t, (upper - R) / t), and the
    value is minus that of (copositive) over t^2.
    """

    readers: Float[Array, "p n r"]  # t / wd times E_i T_i
    squares: Float[Array, "p r r"]  # T_i'T_i
    products: Float[Array, "q r r"]
    owners: Int[Array, " q"]
    targets: Float[Array, "n c"]
    curvature: Float[Array, ""]
    lower: Float[Array, "b c"]
    upper: Float[Array, "b c"]

    @property
    def solvable(self):
        # A small R within the limits is strictly feasible, and L* is strongly convex or has limits.
        return True

    def quadratic(self, x):
        residual, mu = x
        return self.curvature * residual, jnp.zeros_like(mu)

    def linear(self):
        return self.targets, jnp.zeros(len(self.products), self.targets.dtype)

    def operator(self, x):
        residual, mu = x
        heights = jnp.einsum("kla,lc->kac", self.readers, residual, precision="highest")
        corner = self._by_pattern(mu[:, None, None] * self.products)
        outputs = residual.shape[1]
        empty = jnp.zeros((len(corner), outputs, outputs), mu.dtype)
        matrices = jnp.block([[corner, -heights], [-jnp.swapaxes(heights, 1, 2), empty]])
        limited = residual[: len(self.lower)]
        return matrices, -mu, -limited, limited

    def adjoint(self, y):
        duals, multipliers, below, above = y
        rank = self.readers.shape[2]
        across = jnp.einsum(
            "kla,kac->lc", self.readers, duals[:, :rank, rank:], precision="highest"
        )
        on_mu = jnp.sum(self.products * duals[self.owners, :rank, :rank], axis=(1, 2))
        gradient = (-2 * across).at[: len(self.lower)].add(above - below)
        return gradient, on_mu - multipliers

    def offset(self):
        (count, _, rank), outputs = self.readers.shape, self.targets.shape[1]
        matrices = jnp.zeros((count, rank + outputs, rank + outputs), self.readers.dtype)
        matrices = matrices.at[:, :rank, :rank].set(self.squares)
        matrices = matrices.at[:, rank:, rank:].set(jnp.eye(outputs, dtype=matrices.dtype))
        return matrices, jnp.zeros(len(self.products), matrices.dtype), -self.lower, self.upper

    def project(self, s):
        matrices, *signs = s
        return jax.vmap(project_psd)(matrices), *map(project_nonnegative, signs)

    def factor(self):
        count, rows, rank = self.readers.shape
        flat = jnp.swapaxes(self.readers, 0, 1).reshape(rows, count * rank)
        forms = self.products.reshape(-1, rank**2)
        # (I + B'B)^-1 = I - B'(I + B B')^-1 B: of the side r^2, however many products there are.
        grams = self._by_pattern(forms[:, :, None] * forms[:, None, :])
        inverses = jnp.linalg.inv(jnp.eye(rank**2, dtype=grams.dtype) + grams)
        values, basis = jnp.linalg.eigh(after(2 * matmul(flat, flat.T), inverses))
        return CopositiveFactor(values, basis, inverses)

    def minimize(self, factor, penalty, target, guess):
        del guess  # solved exactly
        pulled, pulled_mu = self.adjoint(target)
        right = matmul(factor.basis.T, penalty * pulled - self.targets)
        twice = 2.0 if len(self.lower) else 0.0  # both limits
        divisor = self.curvature + penalty * (factor.values + twice)
        residual = matmul(factor.basis, right / divisor[:, None])
        forms = self.products.reshape(len(self.products), -1)
        seen = self._by_pattern(pulled_mu[:, None] * forms)
        bent = jnp.einsum("kst,kt->ks", factor.inverses, seen, precision="highest")
        return residual, pulled_mu - jnp.sum(forms * bent[self.owners], axis=1)

    def tangent_factor(self):
        return ()

    def tangent(self, factor, gradient):
        return gradient

    def initial(self):
        """R = 0 and equal mu in a pattern, in the middle of what the matrix allows; y = 0."""
        lower = jnp.linalg.cholesky(self.squares)
        total = self._by_pattern(self.products)
        half = jax.scipy.linalg.solve_triangular(lower, total, lower=True)
        scaled = jax.scipy.linalg.solve_triangular(lower, jnp.swapaxes(half, 1, 2), lower=True)
        mu = 0.5 / jnp.linalg.eigvalsh(after(scaled, half))[self.owners, -1]
        corner, _, _, _ = self.operator((jnp.zeros_like(self.targets), mu))
        # Limits may be zero on one side.
        room = (self.upper - self.lower) / 10
        matrices, _, below, above = self.offset()
        s = matrices - corner, mu, jnp.maximum(below, room), jnp.maximum(above, room)
        return s, jax.tree.map(jnp.zeros_like, s)

    def equilibrate(self):
        return self, NoScaling()

    def interior(self):
        return CopositiveForm(self)

    def _by_pattern(self, terms: Float[Array, "q ..."]) -> Float[Array, "p ..."]:
        """Sums over the products of each pattern."""
        return jax.ops.segment_sum(terms, self.owners, len(self.readers))


def copositive_program(data: CopositiveData) -> CopositiveProgram:
    """The cone program of some data."""
    unit = copositive_unit(data)
    frames = jnp.asarray(data.frames)
    return CopositiveProgram(
        readers=jnp.asarray(data.readers) * (unit / data.weight_decay),
        squares=matmul(jnp.swapaxes(frames, 1, 2), frames),
        products=jnp.asarray(data.products),
        owners=jnp.asarray(data.owners),
        targets=jnp.asarray(data.offsets) / unit,
        curvature=jnp.asarray(data.curvature),
        lower=jnp.asarray(data.lower) / unit,
        upper=jnp.asarray(data.upper) / unit,
    )


def copositive_unit(data: CopositiveData) -> Array:
    """The unit of R (`residual_unit`), by the offsets' size."""
    readers, inverses = jnp.asarray(data.readers), jnp.linalg.inv(jnp.asarray(data.frames))
    samples = jax.lax.stop_gradient(matmul(readers, inverses))
    longest = jnp.max(jnp.linalg.norm(samples, axis=2))
    return residual_unit(data.weight_decay, longest, data.offsets)


class CopositiveForm(AbstractDualForm):
    """(copositive) in coordinates: x = (R, mu), s = (the matrices as `svec`, mu, R's limits).

    `unit` divides the objective and multiplies y.
    """

    program: CopositiveProgram
    unit: Float[Array, ""]
    layout: Layout

    def __init__(self, program: CopositiveProgram):
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
        metric = matmul(jnp.swapaxes(of_patterns.inverse, 1, 2), of_patterns.inverse)
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
        own = matmul(around.reshape(-1, rank**2), products.reshape(-1, rank**2).T)
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
