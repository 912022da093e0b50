"""(planar): training on samples of a plane, exactly, as one small semidefinite program.

For features F (l, 2) the lines p_i'u = 0 cut the circle into cells, in each of which relu(F u) is
linear. In frame coordinates u = T_k a a cell is {a : |a_2| <= a_1}, and with H_k = R' relu(F T_k) the
dual constraint |R' relu(F u)| <= wd |u| holds on all of the cell if and only if some mu_k >= 0 makes

    [[wd T_k'T_k - mu_k diag(1, -1),  H_k'],  [H_k,  wd I]]                                 (cell)

positive semidefinite (the S-lemma, which loses nothing here). So p* = -min 1/2 ||R||^2 + <R, Y> under
(cell) for all cells. Derivation: docs/math/patterns.md, "Samples in a plane".

Its interior-point form adds up the normal matrix cell by cell from the scaling matrices, without A: of
the rows of F each cell sees two combinations only.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcone import PSD, Nonnegative, ProductCone, smat, svec
from jaxcone.extend import (
    AbstractConeProgram,
    EntryScaling,
    Layout,
    MatrixScaling,
    NoScaling,
    matmul,
    norm,
    project_nonnegative,
    project_psd,
)

from .dual_form import AbstractDualForm, joined, reader_gram, residual_unit


class PlanarData(eqx.Module):
    """The numbers of (planar): l loss rows in two coordinates, c outputs.

    A loss row sees relu(`features` u). `rank` is how many of the two coordinates the problem has: of
    one, the second column is zero. `constant` is the loss of samples that no network can change.
    """

    features: Float[Any, "l 2"]
    targets: Float[Any, "l c"]
    weight_decay: Float[Any, ""]
    constant: Float[Any, ""]
    rank: int = eqx.field(static=True)


class Cells(eqx.Module):
    """The cells of the circle, counter-clockwise: u = T a with |a_2| <= a_1.

    The columns of T = `frames`[k] are the unit vector to the cell's middle times cos h and the one
    across times sin h, h half the cell's angle; so T (1, -1) and T (1, 1) are its unit rays. Every
    ray is the first of one cell.
    """

    frames: Float[Array, "k 2 2"]

    @property
    def rays(self) -> Float[Array, "k 2"]:
        """The first ray of each cell."""
        return self.frames[:, :, 0] - self.frames[:, :, 1]

    def readers(self, features: Float[Array, "l 2"]) -> Float[Array, "k l 2"]:
        """relu(F T_k), linear on cell k: the rows of F that are positive there, times T_k."""
        inner = jnp.einsum("ld,kde->kle", features, self.frames, precision="highest")
        return jnp.where(inner[:, :, :1] > 0, inner, 0)


def cells_of(features: Float[Array, "l 2"]) -> Cells:
    """The 2 (l + 1) cells between the lines of l rows, and one more line.

    That one, perpendicular to the first, keeps every cell within a right angle whatever the rows
    are. Parallel rows make empty cells, which are harmless; a zero row gets some line.
    """
    live = jnp.any(features != 0, axis=1, keepdims=True)
    rows = jnp.where(live, features, jnp.array([0, 1], features.dtype))
    angles = jnp.arctan2(rows[:, 0], -rows[:, 1])
    angles = jnp.append(angles, angles[0] + jnp.pi / 2)
    angles = jnp.sort(jnp.mod(angles, jnp.pi))
    following = jnp.append(angles[1:], angles[0] + jnp.pi)
    middle, half = (angles + following) / 2, (following - angles) / 2
    cosine, sine = jnp.cos(middle), jnp.sin(middle)
    along = jnp.cos(half)[:, None] * jnp.stack([cosine, sine], axis=1)
    across = jnp.sin(half)[:, None] * jnp.stack([-sine, cosine], axis=1)
    frames = jnp.stack([along, across], axis=2)
    return Cells(jnp.concatenate([frames, -frames]))


class PlanarFactor(eqx.Module):
    """Eigenbasis of A'A on the columns of R; on mu it is three times the identity."""

    values: Float[Array, " l"]
    basis: Float[Array, "l l"]


class PlanarProgram(AbstractConeProgram[PlanarFactor]):
    """(planar) in the standard form, with R in some unit t.

    x = (R / t, mu / wd), s = (the matrices of (cell) / wd, mu / wd), and the value is
    -(p* - `constant`) / t^2.
    """

    readers: Float[Array, "k l 2"]  # t / wd times E_k, with relu(F T_k a) = E_k a in cell k
    squares: Float[Array, "k 2"]  # diagonals of T_k'T_k
    targets: Float[Array, "l c"]  # Y / t

    @property
    def solvable(self):
        return True  # R = 0 is strictly inside, and the objective is strongly convex in R

    def quadratic(self, x):
        residual, mu = x
        return residual, jnp.zeros_like(mu)

    def linear(self):
        return self.targets, jnp.zeros_like(self.squares[:, 0])

    def operator(self, x):
        residual, mu = x
        heights = jnp.einsum("kla,lc->kac", self.readers, residual, precision="highest")
        corner = mu[:, None, None] * jnp.diag(jnp.array([1, -1], mu.dtype))
        empty = jnp.zeros((len(mu), residual.shape[1], residual.shape[1]), mu.dtype)
        return jnp.block([[corner, -heights], [-jnp.swapaxes(heights, 1, 2), empty]]), -mu

    def adjoint(self, y):
        duals, multipliers = y
        across = jnp.einsum("kla,kac->lc", self.readers, duals[:, :2, 2:], precision="highest")
        return -2 * across, duals[:, 0, 0] - duals[:, 1, 1] - multipliers

    def offset(self):
        count, outputs = len(self.squares), self.targets.shape[1]
        ones = jnp.ones((count, outputs), self.squares.dtype)
        diagonal = jnp.concatenate([self.squares, ones], axis=1)
        identity = jnp.eye(2 + outputs, dtype=self.squares.dtype)
        return diagonal[:, :, None] * identity, jnp.zeros_like(self.squares[:, 0])

    def project(self, s):
        matrices, mu = s
        return jax.vmap(project_psd)(matrices), project_nonnegative(mu)

    def factor(self):
        count, rows, _ = self.readers.shape
        flat = jnp.swapaxes(self.readers, 0, 1).reshape(rows, 2 * count)
        return PlanarFactor(*jnp.linalg.eigh(2 * matmul(flat, flat.T)))

    def minimize(self, factor, penalty, target, guess):
        del guess  # solved exactly
        pulled, pulled_mu = self.adjoint(target)
        right = matmul(factor.basis.T, penalty * pulled - self.targets)
        residual = matmul(factor.basis, right / (1 + penalty * factor.values)[:, None])
        return residual, pulled_mu / 3

    def tangent_factor(self):
        return ()

    def tangent(self, factor, gradient):
        return gradient

    def initial(self):
        """R = 0 and the mu in the middle of what it leaves; y = 0."""
        mu = self.squares[:, 0] / 2
        matrices = self.offset()[0] - self.operator((jnp.zeros_like(self.targets), mu))[0]
        return (matrices, mu), (jnp.zeros_like(matrices), jnp.zeros_like(mu))

    def equilibrate(self):
        return self, NoScaling()

    def interior(self):
        return PlanarForm(self)


def planar_program(data: PlanarData) -> PlanarProgram:
    """The cone program of some planar data."""
    unit = planar_unit(data)
    cells = cells_of(jnp.asarray(data.features))
    return PlanarProgram(
        readers=cells.readers(jnp.asarray(data.features)) * (unit / data.weight_decay),
        squares=jnp.sum(cells.frames**2, axis=1),
        targets=jnp.asarray(data.targets) / unit,
    )


def planar_unit(data: PlanarData) -> Array:
    """The unit of R (`residual_unit`)."""
    longest = jnp.max(jnp.linalg.norm(jax.lax.stop_gradient(jnp.asarray(data.features)), axis=1))
    return residual_unit(data.weight_decay, longest, data.targets)


class PlanarForm(AbstractDualForm):
    """(planar) in coordinates: x = (R, mu), s = (the cells' matrices as `svec`, mu).

    `unit` divides the objective and multiplies y.
    """

    program: PlanarProgram
    unit: Float[Array, ""]
    layout: Layout

    def __init__(self, program: PlanarProgram):
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
        metric = matmul(jnp.swapaxes(of_cells.inverse, 1, 2), of_cells.inverse)
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
