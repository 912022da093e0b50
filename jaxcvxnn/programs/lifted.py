"""(lifted): the semidefinite relaxation of training, exactly reduced from Prakhya's (SDP-NN).

In the notation of `docs/math.md`: z = (alpha, u), S = E[(z, v)(z, v)'], V z = (alpha, omega).

    min  1/2 ||E S_zv - Y||^2 + weight_decay/2 (tr S_uu + tr S_vv)
    s.t. S PSD,  W = V S_zz V' >= 0 entrywise,  W_{i, k+i} = 0 for the k pairs (alpha_i, omega_i)

with E the read-out: row l of E z is the activation that loss row l sees.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxcone import (
    AbstractConeProgram,
    Scaling,
    after,
    norm,
    project_nonnegative,
    project_psd,
)

from ..kernels import relu_moments
from ..products import dot
from .lifted_interior import LiftedForm


class LiftedData(eqx.Module):
    """The numbers of (lifted): k directions of rank r, l loss rows, c outputs.

    `rows` is V: rows i and k + i, for i < k, are alpha_i and omega_i; further rows are any that are
    nonnegative for every neuron. `constant` is the loss of samples that no network can change. The
    arrays are NumPy's or JAX's.
    """

    rows: Float[Any, "m q"]
    readout: Float[Any, "l q"]
    targets: Float[Any, "l c"]
    weight_decay: Float[Any, ""]
    constant: Float[Any, ""]
    pairs: int = eqx.field(static=True)

    @property
    def rank(self) -> int:
        """r, the size of u."""
        return self.rows.shape[1] - self.pairs

    @property
    def directions(self) -> Float[Any, "k r"]:
        """The directions p_i whose activations are relu(p_i'u)."""
        return -self.rows[self.pairs : 2 * self.pairs, self.pairs :]

    @property
    def nonnegative(self) -> Bool[Array, "m m"]:
        """Which entries of W are only nonnegative; the others, the pairs, are zero."""
        return ~pair_mask(self.rows.shape[0], self.pairs)


class LiftedFactor(eqx.Module):
    """Eigenbases of V'V and E'E and the Schur complement of the pair equalities."""

    basis: Float[Array, "q q"]
    curvature: Float[Array, "q q"]
    alpha: Float[Array, "k q"]
    omega: Float[Array, "k q"]
    schur_inverse: Float[Array, "k k"]
    readout_values: Float[Array, " q"]
    readout_basis: Float[Array, "q q"]


class LiftedProgram(AbstractConeProgram[LiftedFactor]):
    """(lifted) in the standard form: x = S, s = (S, W), A S = -(S, V S_zz V'), b = 0.

    x is restricted to the symmetric matrices whose pair entries of W vanish. The constant
    1/2 ||Y||^2 of the loss is left out; `objective_offset` gives it.
    """

    rows: Float[Array, "m q"]
    readout: Float[Array, "l q"]
    targets: Float[Array, "l c"]
    cost: Float[Array, "q q"]
    cost_v: Float[Array, ""]
    pairs: int = eqx.field(static=True)

    @property
    def solvable(self):
        return True  # Gaussian moments are feasible, and the objective is bounded below by zero

    def quadratic(self, x):
        size = self.rows.shape[1]
        block = dot(self.readout.T, dot(self.readout, x[:size, size:])) / 2
        return _assemble(jnp.zeros_like(self.cost), block, jnp.zeros_like(x[size:, size:]))

    def linear(self):
        outputs = self.targets.shape[1]
        corner = self.cost_v * jnp.eye(outputs, dtype=self.cost.dtype)
        return _assemble(self.cost, -dot(self.readout.T, self.targets) / 2, corner)

    def operator(self, x):
        size = self.rows.shape[1]
        return -x, -dot(dot(self.rows, x[:size, :size]), self.rows.T)

    def adjoint(self, y):
        moments, products = y
        size = self.rows.shape[1]
        pulled = dot(dot(self.rows.T, products), self.rows)
        return -moments.at[:size, :size].add(pulled)

    def offset(self):
        sides = sum(self.targets.shape[1:], self.rows.shape[1])
        rows = self.rows.shape[0]
        dtype = self.cost.dtype
        return jnp.zeros((sides, sides), dtype), jnp.zeros((rows, rows), dtype)

    def project(self, s):
        moments, products = s
        kept = jnp.where(pair_mask(products.shape[0], self.pairs), 0, products)
        return project_psd(moments), project_nonnegative((kept + kept.T) / 2)

    def factor(self):
        values, basis = jnp.linalg.eigh(dot(self.rows.T, self.rows))
        values = project_nonnegative(values)
        curvature = 1 + values[:, None] * values[None, :]
        alpha = dot(self.rows[: self.pairs], basis)
        omega = dot(self.rows[self.pairs : 2 * self.pairs], basis)

        def schur_row(a, o):
            return _pair_values(alpha, omega, _pair_matrix(a, o) / curvature)

        schur = jax.lax.map(lambda pair: schur_row(*pair), (alpha, omega), batch_size=64)
        # Parallel directions make two equalities alike; the ridge only decides how they share.
        ridge = 4 * jnp.finfo(schur.dtype).eps * jnp.trace(schur)
        identity = jnp.eye(self.pairs, dtype=schur.dtype)
        inverse = jnp.linalg.inv((schur + schur.T) / 2 + ridge * identity)
        gram = after(dot(self.readout.T, self.readout), inverse)
        readout_values, readout_basis = jnp.linalg.eigh(gram)
        return LiftedFactor(
            basis=basis,
            curvature=curvature,
            alpha=alpha,
            omega=omega,
            schur_inverse=(inverse + inverse.T) / 2,
            readout_values=project_nonnegative(readout_values),
            readout_basis=readout_basis,
        )

    def minimize(self, factor, penalty, target, guess):
        del guess  # solved exactly
        moments, products = target
        size = self.rows.shape[1]
        corner = jnp.eye(self.targets.shape[1], dtype=moments.dtype)
        pulled = dot(dot(self.rows.T, products), self.rows)
        right = -(moments[:size, :size] + pulled) - self.cost / penalty
        rotated = dot(dot(factor.basis.T, right), factor.basis) / factor.curvature
        multipliers = dot(factor.schur_inverse, _pair_values(factor.alpha, factor.omega, rotated))
        bend = _pair_combination(factor.alpha, factor.omega, multipliers)
        rotated = rotated - bend / factor.curvature
        zz = dot(dot(factor.basis, rotated), factor.basis.T)
        wanted = dot(self.readout.T, self.targets) - 2 * penalty * moments[:size, size:]
        divided = dot(factor.readout_basis.T, wanted) / (
            factor.readout_values + 2 * penalty
        ).reshape(-1, 1)
        zv = dot(factor.readout_basis, divided)
        vv = -moments[size:, size:] - self.cost_v / penalty * corner
        return _assemble((zz + zz.T) / 2, zv, (vv + vv.T) / 2)

    def tangent_factor(self):
        alpha, omega = self.rows[: self.pairs], self.rows[self.pairs : 2 * self.pairs]
        return jnp.linalg.inv(_pair_gram(alpha, omega))

    def tangent(self, factor, gradient):
        size = self.rows.shape[1]
        alpha, omega = self.rows[: self.pairs], self.rows[self.pairs : 2 * self.pairs]
        multipliers = dot(factor, _pair_values(alpha, omega, gradient[:size, :size]))
        bend = _pair_combination(alpha, omega, multipliers)
        return gradient.at[:size, :size].add(-bend)

    def units(self):
        """b is zero here: the sizes of the terms at the Gaussian start stand for those at the end."""
        moments, products = gaussian_start(self)[0]
        terms = norm(self.linear()) + norm(self.quadratic(moments))
        return 1 + norm((moments, products)), 1 + terms

    def initial(self):
        """Moments of a Gaussian u, scaled and read out at best: strictly inside all cones."""
        return gaussian_start(self)

    def equilibrate(self):
        return _equilibrate(self)

    def interior(self):
        _, primal, _ = _gaussian_scale(self)
        dual = 2 * self.cost_v
        scaled = LiftedProgram(
            rows=self.rows,
            readout=self.readout * jnp.sqrt(primal / dual),
            targets=self.targets / jnp.sqrt(primal * dual),
            cost=self.cost / dual,
            cost_v=self.cost_v / dual,
            pairs=self.pairs,
        )
        return LiftedForm(scaled, primal, dual)


def lifted_program(data: LiftedData) -> LiftedProgram:
    """The cone program of some lifted data."""
    rank, size = data.rank, data.rows.shape[1]
    half = jnp.asarray(data.weight_decay) / 2
    on_u = jnp.arange(size) >= size - rank
    return LiftedProgram(
        rows=data.rows,
        readout=data.readout,
        targets=data.targets,
        cost=jnp.diag(jnp.where(on_u, half, 0)),
        cost_v=half,
        pairs=data.pairs,
    )


def pair_mask(rows: int, pairs: int) -> Bool[Array, "m m"]:
    """True at the entries (i, k + i) and (k + i, i) of W, i < k = `pairs`."""
    index = jnp.arange(rows)
    low = jnp.minimum(index[:, None], index[None, :])
    high = jnp.maximum(index[:, None], index[None, :])
    return (high - low == pairs) & (low < pairs)


def pair_multipliers(
    rows: Float[Array, "m q"], pairs: int, gradient: Float[Array, "q q"]
) -> Float[Array, " k"]:
    """Least-squares nu with `gradient` = sum_i nu_i (a_i o_i' + o_i a_i'), a and o the pairs' rows."""
    alpha, omega = rows[:pairs], rows[pairs : 2 * pairs]
    return jnp.linalg.solve(_pair_gram(alpha, omega), _pair_values(alpha, omega, gradient)) / 2


class LiftedScaling(Scaling):
    """S = scale * T S' T' with T = diag(root, I), W = scale * W' / (rowscale rowscale')."""

    root: Float[Array, "q q"]
    inverse_root: Float[Array, "q q"]
    rowscale: Float[Array, " m"]
    scale_primal: Float[Array, ""]
    scale_dual: Float[Array, ""]

    def scale(self, s, y):
        (moments, products), (slack, multipliers) = s, y
        spread = self.rowscale[:, None] * self.rowscale[None, :]
        moments = _congruence(self.inverse_root, moments) / self.scale_primal
        slack = _congruence(self.root.T, slack) / self.scale_dual
        return (
            (moments, products * spread / self.scale_primal),
            (slack, multipliers / spread / self.scale_dual),
        )

    def unscale(self, x, s, y):
        (moments, products), (slack, multipliers) = s, y
        spread = self.rowscale[:, None] * self.rowscale[None, :]
        return (
            _congruence(self.root, x) * self.scale_primal,
            (
                _congruence(self.root, moments) * self.scale_primal,
                products / spread * self.scale_primal,
            ),
            (
                _congruence(self.inverse_root.T, slack) * self.scale_dual,
                multipliers * spread * self.scale_dual,
            ),
        )


# How much of the mean kernel's conditioning the equilibration removes, as a power of its spectrum:
# 0 leaves the program as it is, 1 whitens it. See docs/math.md for the measurement behind 1/4.
WHITENING = 0.25


def _equilibrate(program: LiftedProgram) -> tuple[LiftedProgram, LiftedScaling]:
    """A congruence by a power of the Gaussian moments, row scales, and units of size one.

    All cones survive: congruence keeps PSD, positive row scales keep W >= 0.
    """
    mean, scale_primal, _ = _gaussian_scale(program)
    values, basis = jnp.linalg.eigh(after(mean, scale_primal))
    floor = 100 * jnp.finfo(values.dtype).eps * values[-1]
    values = jnp.maximum(values, floor) / values[-1]
    root = dot(basis * values ** (WHITENING / 2), basis.T)
    inverse_root = dot(basis * values ** (-WHITENING / 2), basis.T)
    rows = dot(program.rows, root)
    lengths = jnp.linalg.norm(rows, axis=1)
    rowscale = jnp.where(lengths > 0, lengths, 1) ** -0.5
    scale_dual = 2 * program.cost_v
    scaled = LiftedProgram(
        rows=rowscale[:, None] * rows,
        readout=dot(program.readout, root) * jnp.sqrt(scale_primal / scale_dual),
        targets=program.targets / jnp.sqrt(scale_primal * scale_dual),
        cost=_congruence(root.T, program.cost) / scale_dual,
        cost_v=program.cost_v / scale_dual,
        pairs=program.pairs,
    )
    return scaled, LiftedScaling(root, inverse_root, rowscale, scale_primal, scale_dual)


def gaussian_start(program: LiftedProgram):
    """(s, y) from the best multiple of Gaussian moments, with v by kernel ridge regression."""
    mean, scale, dual = _gaussian_scale(program)
    zv = scale * dot(mean, dot(program.readout.T, dual))
    vv = dot(dot(dual.T, program.readout), zv)
    moments = _assemble(scale * mean, zv, (vv + vv.T) / 2)
    products = scale * dot(dot(program.rows, mean), program.rows.T)
    zeros = jnp.zeros_like(moments), jnp.zeros_like(products)
    return program.project((moments, products)), zeros


def _gaussian_scale(program: LiftedProgram):
    """(mean, t, (t K + wd I)^-1 Y): t mean are the moments of least objective among multiples.

    With K = E mean E', v eliminated, the objective is wd/2 (tr Y'(t K + wd I)^-1 Y + t tr U).
    """
    rows, pairs = program.rows, program.pairs
    directions = -rows[pairs : 2 * pairs, pairs:]
    mean = relu_moments(directions)
    weight_decay = 2 * program.cost_v
    kernel = dot(dot(program.readout, mean), program.readout.T)
    values, basis = jnp.linalg.eigh((kernel + kernel.T) / 2)
    values = project_nonnegative(values)
    coefficients = dot(basis.T, program.targets)
    energy = jnp.sum(coefficients**2, axis=1)
    slope = jnp.trace(dot(program.cost, mean)) / program.cost_v
    tiny = jnp.finfo(values.dtype).tiny
    # t beyond |Y|^2 / (wd slope) costs more in u than fitting Y exactly saves.
    high = jnp.sum(energy) / (weight_decay * slope)
    grid = high * jnp.logspace(-8, 0, 161, dtype=values.dtype)
    loss = jnp.sum(energy / (grid[:, None] * values + weight_decay), axis=1) + grid * slope
    # Where the best multiple is none, the unit stays the one at which the kernel meets the ridge.
    floor = weight_decay / jnp.maximum(values[-1], jnp.sqrt(tiny) * weight_decay)
    scale = jnp.maximum(grid[jnp.argmin(loss)], floor)
    dual = dot(basis, coefficients / (scale * values + weight_decay)[:, None])
    return mean, scale, dual


def _pair_values(alpha: Array, omega: Array, matrix: Array) -> Array:
    """<G_i, matrix> for G_i = (a_i o_i' + o_i a_i') / 2 and a symmetric matrix."""
    return jnp.sum(dot(alpha, matrix) * omega, axis=1)


def _pair_combination(alpha: Array, omega: Array, weights: Array) -> Array:
    """sum_i weights_i G_i."""
    half = dot(alpha.T * weights, omega)
    return (half + half.T) / 2


def _pair_matrix(a: Array, o: Array) -> Array:
    half = a[:, None] * o[None, :]
    return (half + half.T) / 2


def _pair_gram(alpha: Array, omega: Array) -> Array:
    """<G_i, G_j>, with a ridge of rounding size: parallel directions make two of them alike."""
    straight = dot(alpha, alpha.T) * dot(omega, omega.T)
    crossed = dot(alpha, omega.T)
    gram = (straight + crossed * crossed.T) / 2
    ridge = 4 * jnp.finfo(gram.dtype).eps * jnp.trace(gram)
    return gram + ridge * jnp.eye(gram.shape[0], dtype=gram.dtype)


def _assemble(zz: Array, zv: Array, vv: Array) -> Array:
    return jnp.block([[zz, zv], [zv.T, vv]])


def _congruence(factor: Array, moments: Array) -> Array:
    """diag(factor, I) moments diag(factor, I)', for moments of (z, v)."""
    size = factor.shape[0]
    zz = dot(dot(factor, moments[:size, :size]), factor.T)
    if moments.shape[0] == size:
        return zz
    return _assemble(zz, dot(factor, moments[:size, size:]), moments[size:, size:])
