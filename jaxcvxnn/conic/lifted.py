"""(lifted): the semidefinite relaxation of training, exactly reduced from Prakhya's (SDP-NN).

In the notation of docs/math/index.md: z = (alpha, u), S = E[(z, v)(z, v)'], V z = (alpha, omega).

    min  1/2 ||E S_zv - Y||^2 + weight_decay/2 (tr S_uu + tr S_vv)
    s.t. S PSD,  W = V S_zz V' >= 0 entrywise,  W_{i, k+i} = 0 for the k pairs (alpha_i, omega_i)

with E the read-out: row l of E z is the activation that loss row l sees.

As an interior-point form: the pair equalities K_ii = p_i'B_i (in blocks S_zz = [[K, B], [B', U]]) are
substituted: as equality rows they would be nearly dependent on the active inequalities, and a Schur
complement loses its definiteness. The normal matrix is formed from the entries of the scaling matrices,
without A: the PSD block gives a symmetric Kronecker product, each inequality touches at most
(1 + r)^2 entries. docs/math/lifted.md, "The normal matrix of (lifted)".
"""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxcone import PSD, Nonnegative, ProductCone, smat, svec
from jaxcone.extend import (
    AbstractConeProgram,
    AbstractInteriorForm,
    EntryScaling,
    Layout,
    MatrixScaling,
    Scaling,
    after,
    matmul,
    norm,
    project_nonnegative,
    project_psd,
)

from .kernels import relu_moments


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
        block = matmul(self.readout.T, matmul(self.readout, x[:size, size:])) / 2
        return _assemble(jnp.zeros_like(self.cost), block, jnp.zeros_like(x[size:, size:]))

    def linear(self):
        outputs = self.targets.shape[1]
        corner = self.cost_v * jnp.eye(outputs, dtype=self.cost.dtype)
        return _assemble(self.cost, -matmul(self.readout.T, self.targets) / 2, corner)

    def operator(self, x):
        size = self.rows.shape[1]
        return -x, -matmul(matmul(self.rows, x[:size, :size]), self.rows.T)

    def adjoint(self, y):
        moments, products = y
        size = self.rows.shape[1]
        pulled = matmul(matmul(self.rows.T, products), self.rows)
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
        values, basis = jnp.linalg.eigh(matmul(self.rows.T, self.rows))
        values = project_nonnegative(values)
        curvature = 1 + values[:, None] * values[None, :]
        alpha = matmul(self.rows[: self.pairs], basis)
        omega = matmul(self.rows[self.pairs : 2 * self.pairs], basis)

        def schur_row(a, o):
            return _pair_values(alpha, omega, _pair_matrix(a, o) / curvature)

        schur = jax.lax.map(lambda pair: schur_row(*pair), (alpha, omega), batch_size=64)
        # Parallel directions make two equalities alike; the ridge only decides how they share.
        ridge = 4 * jnp.finfo(schur.dtype).eps * jnp.trace(schur)
        identity = jnp.eye(self.pairs, dtype=schur.dtype)
        inverse = jnp.linalg.inv((schur + schur.T) / 2 + ridge * identity)
        gram = after(matmul(self.readout.T, self.readout), inverse)
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
        pulled = matmul(matmul(self.rows.T, products), self.rows)
        right = -(moments[:size, :size] + pulled) - self.cost / penalty
        rotated = matmul(matmul(factor.basis.T, right), factor.basis) / factor.curvature
        multipliers = matmul(
            factor.schur_inverse, _pair_values(factor.alpha, factor.omega, rotated)
        )
        bend = _pair_combination(factor.alpha, factor.omega, multipliers)
        rotated = rotated - bend / factor.curvature
        zz = matmul(matmul(factor.basis, rotated), factor.basis.T)
        wanted = matmul(self.readout.T, self.targets) - 2 * penalty * moments[:size, size:]
        divided = matmul(factor.readout_basis.T, wanted) / (
            factor.readout_values + 2 * penalty
        ).reshape(-1, 1)
        zv = matmul(factor.readout_basis, divided)
        vv = -moments[size:, size:] - self.cost_v / penalty * corner
        return _assemble((zz + zz.T) / 2, zv, (vv + vv.T) / 2)

    def tangent_factor(self):
        alpha, omega = self.rows[: self.pairs], self.rows[self.pairs : 2 * self.pairs]
        return jnp.linalg.inv(_pair_gram(alpha, omega))

    def tangent(self, factor, gradient):
        size = self.rows.shape[1]
        alpha, omega = self.rows[: self.pairs], self.rows[self.pairs : 2 * self.pairs]
        multipliers = matmul(factor, _pair_values(alpha, omega, gradient[:size, :size]))
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


@eqx.filter_jit
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
# 0 leaves the program as it is, 1 whitens it. Why 1/4: docs/math/lifted.md, "Equilibration".
WHITENING = 0.25


def _equilibrate(program: LiftedProgram) -> tuple[LiftedProgram, LiftedScaling]:
    """A congruence by a power of the Gaussian moments, row scales, and units of size one.

    All cones survive: congruence keeps PSD, positive row scales keep W >= 0.
    """
    mean, scale_primal, _ = _gaussian_scale(program)
    values, basis = jnp.linalg.eigh(after(mean, scale_primal))
    floor = 100 * jnp.finfo(values.dtype).eps * values[-1]
    values = jnp.maximum(values, floor) / values[-1]
    root = matmul(basis * values ** (WHITENING / 2), basis.T)
    inverse_root = matmul(basis * values ** (-WHITENING / 2), basis.T)
    rows = matmul(program.rows, root)
    lengths = jnp.linalg.norm(rows, axis=1)
    rowscale = jnp.where(lengths > 0, lengths, 1) ** -0.5
    scale_dual = 2 * program.cost_v
    scaled = LiftedProgram(
        rows=rowscale[:, None] * rows,
        readout=matmul(program.readout, root) * jnp.sqrt(scale_primal / scale_dual),
        targets=program.targets / jnp.sqrt(scale_primal * scale_dual),
        cost=_congruence(root.T, program.cost) / scale_dual,
        cost_v=program.cost_v / scale_dual,
        pairs=program.pairs,
    )
    return scaled, LiftedScaling(root, inverse_root, rowscale, scale_primal, scale_dual)


def gaussian_start(program: LiftedProgram):
    """(s, y) from the best multiple of Gaussian moments, with v by kernel ridge regression."""
    mean, scale, dual = _gaussian_scale(program)
    zv = scale * matmul(mean, matmul(program.readout.T, dual))
    vv = matmul(matmul(dual.T, program.readout), zv)
    moments = _assemble(scale * mean, zv, (vv + vv.T) / 2)
    products = scale * matmul(matmul(program.rows, mean), program.rows.T)
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
    kernel = matmul(matmul(program.readout, mean), program.readout.T)
    values, basis = jnp.linalg.eigh((kernel + kernel.T) / 2)
    values = project_nonnegative(values)
    coefficients = matmul(basis.T, program.targets)
    energy = jnp.sum(coefficients**2, axis=1)
    slope = jnp.trace(matmul(program.cost, mean)) / program.cost_v
    tiny = jnp.finfo(values.dtype).tiny
    # t beyond |Y|^2 / (wd slope) costs more in u than fitting Y exactly saves.
    high = jnp.sum(energy) / (weight_decay * slope)
    grid = high * jnp.logspace(-8, 0, 161, dtype=values.dtype)
    loss = jnp.sum(energy / (grid[:, None] * values + weight_decay), axis=1) + grid * slope
    # Where the best multiple is none, the unit stays the one at which the kernel meets the ridge.
    floor = weight_decay / jnp.maximum(values[-1], jnp.sqrt(tiny) * weight_decay)
    scale = jnp.maximum(grid[jnp.argmin(loss)], floor)
    dual = matmul(basis, coefficients / (scale * values + weight_decay)[:, None])
    return mean, scale, dual


def _pair_values(alpha: Array, omega: Array, matrix: Array) -> Array:
    """<G_i, matrix> for G_i = (a_i o_i' + o_i a_i') / 2 and a symmetric matrix."""
    return jnp.sum(matmul(alpha, matrix) * omega, axis=1)


def _pair_combination(alpha: Array, omega: Array, weights: Array) -> Array:
    """sum_i weights_i G_i."""
    half = matmul(alpha.T * weights, omega)
    return (half + half.T) / 2


def _pair_matrix(a: Array, o: Array) -> Array:
    half = a[:, None] * o[None, :]
    return (half + half.T) / 2


def _pair_gram(alpha: Array, omega: Array) -> Array:
    """<G_i, G_j>, with a ridge of rounding size: parallel directions make two of them alike."""
    straight = matmul(alpha, alpha.T) * matmul(omega, omega.T)
    crossed = matmul(alpha, omega.T)
    gram = (straight + crossed * crossed.T) / 2
    ridge = 4 * jnp.finfo(gram.dtype).eps * jnp.trace(gram)
    return gram + ridge * jnp.eye(gram.shape[0], dtype=gram.dtype)


def _assemble(zz: Array, zv: Array, vv: Array) -> Array:
    return jnp.block([[zz, zv], [zv.T, vv]])


def _congruence(factor: Array, moments: Array) -> Array:
    """diag(factor, I) moments diag(factor, I)', for moments of (z, v)."""
    size = factor.shape[0]
    zz = matmul(matmul(factor, moments[:size, :size]), factor.T)
    if moments.shape[0] == size:
        return zz
    return _assemble(zz, matmul(factor, moments[:size, size:]), moments[size:, size:])


def activation_rows(library: Any, directions: Any) -> Any:
    """V of (lifted): (alpha, u) to (alpha, omega) = (alpha, alpha - P u), by NumPy or `jax.numpy`."""
    count, rank = directions.shape
    eye = library.eye(count, dtype=directions.dtype)
    zero = library.zeros((count, rank), dtype=directions.dtype)
    return library.block([[eye, zero], [eye, -directions]])


# The start: Gaussian moments moved into the interior by this part of their mean eigenvalue, and duality
# gap over objective there. A hundred halves the number of steps that one takes.
INWARDS = 0.1
FIRST_GAP = 100.0


class LiftedForm(AbstractInteriorForm):
    """x = (K_ij for i < j, B, U_ab for a <= b, S_zv, S_vv), s = (S, W_kl for k < l but the pairs).

    `program` has units in which its Gaussian start is of size one; `primal` and `dual` lead back.
    """

    program: LiftedProgram
    primal: Float[Array, ""]
    dual: Float[Array, ""]
    layout: Layout

    def __init__(self, program: LiftedProgram, primal: Array, dual: Array):
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
        inverse = matmul(of_moments.inverse[0].T, of_moments.inverse[0])
        # Of all entries of S, those on the diagonal of K first: they are then folded into B.
        first = np.concatenate([np.arange(pairs), index.rows])
        second = np.concatenate([np.arange(pairs), index.columns])
        straight = inverse[first][:, first] * inverse[second][:, second]
        crossed = inverse[first][:, second] * inverse[second][:, first]
        half = jnp.where(first == second, 0.5, 1.0).astype(inverse.dtype)
        full = 2 * half[:, None] * (straight + crossed) * half
        weights = self._directions.reshape(-1, 1)
        owner, first_b = np.repeat(np.arange(pairs), rank), pairs + index.first_b
        full = _add_block(full, weights * full[owner], first_b, 0)
        full = _add_block(full, weights.T * full[:, owner], 0, first_b)
        gram = matmul(self.program.readout.T, self.program.readout)
        each = jnp.kron(gram, jnp.eye(outputs, dtype=gram.dtype))
        matrix = _add_block(full[pairs:, pairs:], each, index.on_zz, index.on_zz)
        return _add_block(matrix, self._of_products(1 / of_products.w**2), 0, 0)

    def _of_products(self, theta: Float[Array, " p"]) -> Float[Array, "a a"]:
        """sum theta_kl g_kl g_kl', g_kl the gradient of W_kl with respect to (K, B, U)."""
        index = _index(*self._sizes)
        pairs, rank, _ = self._sizes
        points = self._directions
        spread = index.symmetric(theta, jnp.zeros(2 * pairs, theta.dtype))
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
        diagonal = jnp.maximum(jnp.diagonal(-self.program.operator(moments)[1]), 0)
        products = index.symmetric(s[rows:], diagonal)
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
        diagonal = jnp.sum(x[index.on_b].reshape(pairs, rank) * self._directions, axis=1)
        return jnp.concatenate([x, diagonal])[index.of_moments]

    def _gradient(self, matrix: Array) -> Array:
        """The adjoint of `_moments` at a symmetric matrix."""
        index = _index(*self._sizes)
        double = jnp.where(index.rows == index.columns, 1.0, 2.0).astype(matrix.dtype)
        gradient = double * matrix[index.rows, index.columns]
        folded = jnp.diagonal(matrix)[: self.program.pairs, None] * self._directions
        return _add_block(gradient, folded.ravel(), index.first_b)

    def _dual(self, y: Array) -> tuple[Array, Array]:
        """The program's (slack, multipliers) from a vector."""
        index = _index(*self._sizes)
        side = sum(self._sizes)
        rows = side * (side + 1) // 2
        return smat(y[:rows]), index.symmetric(
            y[rows:] / 2, jnp.zeros(len(self.program.rows), y.dtype)
        )


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
        self.first_b = len(k_rows)
        self.on_b = self.first_b + np.arange(len(b_rows))
        self.on_zz = len(k_rows) + len(b_rows) + len(u_rows)
        self.on_zv = self.on_zz + np.arange(len(z_rows))
        above, beside = np.triu_indices(2 * pairs, 1)
        free = beside - above != pairs
        self.above, self.beside = above[free], beside[free]
        # Where each entry of S, and of W, stands among coordinates: gathers compile and run faster
        # than scatters.
        side, diagonal = size + outputs, np.arange(pairs)
        self.of_moments = np.zeros((side, side), int)
        self.of_moments[self.rows, self.columns] = np.arange(len(self.rows))
        self.of_moments[self.columns, self.rows] = np.arange(len(self.rows))
        self.of_moments[diagonal, diagonal] = len(self.rows) + diagonal
        count, diagonal = len(self.above), np.arange(2 * pairs)
        self.of_products = np.full((2 * pairs, 2 * pairs), count + 2 * pairs)
        self.of_products[self.above, self.beside] = np.arange(count)
        self.of_products[self.beside, self.above] = np.arange(count)
        self.of_products[diagonal, diagonal] = count + diagonal

    def symmetric(self, free: Array, diagonal: Array) -> Array:
        """W from its free entries above the diagonal, the diagonal, and zeros for the pairs."""
        return jnp.concatenate([free, diagonal, jnp.zeros(1, free.dtype)])[self.of_products]


def _add_block(array: Array, block: Array, *start: int) -> Array:
    """The array with a block added from `start` on."""
    stop = [first + size for first, size in zip(start, block.shape, strict=True)]
    old = jax.lax.slice(array, start, stop)
    return jax.lax.dynamic_update_slice(array, old + block, start)


@functools.lru_cache(maxsize=16)
def _index(pairs: int, rank: int, outputs: int) -> _Index:
    return _Index(pairs, rank, outputs)
