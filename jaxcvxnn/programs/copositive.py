"""(copositive): training with given activation patterns, as one semidefinite program.

With the patterns D_i, E_i = D_i X and the sides a_ij of their cones {u : (2 D_i - I) X u >= 0},

    min  L(sum_i E_i V_i) + wd/2 sum_i (tr U_i + tr W_i)
    s.t. [[U_i, V_i], [V_i', W_i]] PSD,  a_ij' U_i a_ik >= 0                                (copositive)

which is Sahiner et al. (2021), eq. (19), with the inverse in it written as a minimum over V and W; with
the one pattern D = I it is their (20). What is solved is the dual,

    min  L*(R)  s.t.  [[wd I - sum_jk mu_ijk a_ij a_ik',  H_i'],  [H_i,  wd I]] PSD,  mu >= 0,

H_i = R' E_i, whose blocks have the U_i, V_i and W_i as multipliers. Derivation, and for which cones the
relaxation of completely positive matrices loses nothing: docs/math.md, section "Copositive programs".
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from jaxcone import (
    AbstractConeProgram,
    AbstractSolver,
    InteriorPoint,
    Residuals,
    Solution,
    Splitting,
    Status,
    after,
    norm,
    project_nonnegative,
    project_psd,
)

from ..activations import LeakyReLU
from ..arrangements import sign_patterns
from ..directions import row_space
from ..pattern_cones import pattern_cones
from ..problem import TrainingProblem
from ..products import dot
from .abstract import AbstractProgramSolution, AbstractTrainingProgram
from .copositive_interior import CopositiveForm
from .planar import NoScaling

# Unknowns up to which a dense matrix is factored in every step: about a second on one core.
LARGEST_INTERIOR = 2500
# All patterns are taken where there are no more than these.
MOST_PATTERNS = 5000


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


class CopositiveSolution(AbstractProgramSolution):
    """The program's optimum: a local linear model per pattern, and the residual that bounds p*.

    `models`[i] is V_i (d, c), which acts on the samples that are active in `data.patterns`[i]; their
    outputs add up. `moments`[i] is U_i, which is sum_j u_j u_j' over the neurons of that pattern where
    it is completely positive. `residual` is R (n, c), the gradient of the loss at these outputs.
    `objective` comes from the models and `dual_objective` from R: they enclose the program's value up
    to what `residuals` leaves.
    """

    data: CopositiveData
    residual: Float[Array, "n c"]
    moments: Float[Array, "p d d"]
    models: Float[Array, "p d c"]
    objective: Float[Array, ""]
    dual_objective: Float[Array, ""]
    status: Status
    steps: Int[Array, ""]
    residuals: Residuals
    solution: Solution


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
        values, basis = jnp.linalg.eigh(after(2 * dot(flat, flat.T), inverses))
        return CopositiveFactor(values, basis, inverses)

    def minimize(self, factor, penalty, target, guess):
        del guess  # solved exactly
        pulled, pulled_mu = self.adjoint(target)
        right = dot(factor.basis.T, penalty * pulled - self.targets)
        twice = 2.0 if len(self.lower) else 0.0  # both limits
        divisor = self.curvature + penalty * (factor.values + twice)
        residual = dot(factor.basis, right / divisor[:, None])
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
    unit = _unit(data)
    frames = jnp.asarray(data.frames)
    return CopositiveProgram(
        readers=jnp.asarray(data.readers) * (unit / data.weight_decay),
        squares=dot(jnp.swapaxes(frames, 1, 2), frames),
        products=jnp.asarray(data.products),
        owners=jnp.asarray(data.owners),
        targets=jnp.asarray(data.offsets) / unit,
        curvature=jnp.asarray(data.curvature),
        lower=jnp.asarray(data.lower) / unit,
        upper=jnp.asarray(data.upper) / unit,
    )


class AbstractPatternProgram(AbstractTrainingProgram[CopositiveData, CopositiveSolution]):
    """What the programs over given activation patterns share."""

    patterns: eqx.AbstractVar[Bool[np.ndarray, "p n"] | None]

    def cone_program(self, data):
        return copositive_program(data)

    def default_solver(self, program) -> AbstractSolver:
        """`jaxcone.InteriorPoint` up to 2500 unknowns (R and mu), else `jaxcone.Splitting`.

        The tolerance is 1e-9 where patterns have one product each, as for data of rank two, else 1e-6:
        products that depend on each other leave mu undetermined, and the last digits with it.
        """
        products, patterns = len(program.products), len(program.readers)
        if program.targets.size + products > LARGEST_INTERIOR:
            return Splitting()
        tolerance = 1e-9 if products == patterns else 1e-6
        if program.targets.dtype != jnp.float64:
            tolerance = None
        return InteriorPoint(tolerance=tolerance, max_steps=50, refinements=4)

    def read_out(self, data, program, solution):
        unit = _unit(data)
        residual, _ = solution.x
        duals = 2 * unit**2 / data.weight_decay * solution.y[0]
        rank = program.readers.shape[2]
        frames = jnp.einsum("dr,krs->kds", data.basis, data.frames, precision="highest")
        moments = dot(dot(frames, duals[:, :rank, :rank]), jnp.swapaxes(frames, 1, 2))
        return CopositiveSolution(
            data=data,
            residual=unit * residual,
            moments=moments,
            models=dot(frames, duals[:, :rank, rank:]),
            objective=-(unit**2) * solution.dual_objective,
            dual_objective=-(unit**2) * solution.primal_objective,
            status=solution.status,
            steps=solution.steps,
            residuals=solution.residuals,
            solution=solution,
        )


class CopositiveRelaxation(AbstractPatternProgram):
    """The copositive relaxation of training: Sahiner et al. (2021), eqs. (19) and (20).

    **Arguments:** `patterns` (p, n), booleans: the activation patterns that neurons may have; by
    default all of them, from `sign_patterns`, where there are not too many. With
    `np.ones((1, n), bool)` it is (20), for spike-free data. Patterns whose cone has no interior are
    left out: their neurons lie in the closure of other cells.

    **Value:** with all patterns a lower bound on p*, and p* itself where no pattern's cone has more
    than four facets: always for data of rank one and two. With some patterns it bounds from below the
    networks whose neurons have these patterns; with cones as above it is their optimum, at least p*.

    **Takes** the losses whose conjugate is quadratic between limits (squared, Huber, absolute, hinge);
    ReLU, leaky ReLU and the absolute value; any number of outputs; data of any rank if patterns are
    given. The samples must be concrete: where they are traced, inside `jit`, solve for
    `CopositiveRelaxation().data(problem)`, computed outside.
    """

    patterns: Bool[np.ndarray, "p n"] | None = None

    def data(self, problem: TrainingProblem | CopositiveData) -> CopositiveData:
        """The program's numbers; data of its own kind pass through. On the host.

        **Raises** a `ValueError` for another loss or activation, patterns of another shape or without
        an interior, data of rank four and more without patterns, and samples that are traced.
        """
        return _data(problem, self.patterns)


class NuclearNormRelaxation(AbstractPatternProgram):
    """min L(sum_i D_i X V_i) + wd sum_i |V_i|_*: no constraint ties a model V_i to its pattern.

    This is Sahiner et al. (2021), eq. (12), as printed: K_i of (13) holds all matrices wherever the
    cone has an interior, since g and -g are both allowed (docs/math.md). With all patterns its value is
    a lower bound on that of `CopositiveRelaxation`, hence on p*, often a poor one; it has no unknowns
    but R. Its models V_i are a gated network, no ReLU network. Arguments, losses and activations as for
    `CopositiveRelaxation`.
    """

    patterns: Bool[np.ndarray, "p n"] | None = None

    def data(self, problem: TrainingProblem | CopositiveData) -> CopositiveData:
        """The program's numbers, on the host. **Raises** as `CopositiveRelaxation.data` does."""
        data = _data(problem, self.patterns)
        rank = data.frames.shape[-1]
        return eqx.tree_at(
            lambda d: (d.products, d.owners),
            data,
            (np.zeros((0, rank, rank), data.products.dtype), np.zeros(0, int)),
        )


def _data(
    problem: TrainingProblem | CopositiveData, patterns: Bool[np.ndarray, "p n"] | None
) -> CopositiveData:
    if isinstance(problem, CopositiveData):
        return problem
    activation = problem.activation
    if not isinstance(activation, LeakyReLU):
        raise ValueError(
            "problem: this program takes ReLU, leaky ReLU and the absolute value; the activation is "
            f"{activation}."
        )
    if isinstance(problem.X, Tracer) or isinstance(patterns, Tracer):
        raise ValueError(
            "problem: activation patterns need concrete samples; inside jit or vmap solve for "
            "`CopositiveRelaxation(...).data(problem)`, computed before."
        )
    on_host = eqx.tree_at(lambda p: p.X, problem, np.asarray(problem.X, np.float64))
    features = np.asarray(on_host.features)
    basis = row_space(features)
    coordinates = features @ basis
    cones = pattern_cones(coordinates, _patterns(patterns, coordinates))
    if not len(cones.patterns):
        raise ValueError(
            "patterns: no cone {u : (2 D - I) X u >= 0} of these patterns has an interior."
        )
    slopes = np.asarray(activation.slopes(cones.patterns))
    readers = (slopes[:, :, None] * coordinates) @ cones.frames
    dtype = problem.Y.dtype
    offsets, curvature, limits = _conjugate(problem)
    nothing = np.zeros((0, problem.Y.shape[1]))
    lower, upper = (nothing, nothing) if limits is None else limits
    return CopositiveData(
        patterns=cones.patterns,
        basis=basis.astype(dtype),
        frames=cones.frames.astype(dtype),
        readers=readers.astype(dtype),
        products=cones.products.astype(dtype),
        owners=cones.owners,
        offsets=offsets,
        curvature=np.asarray(curvature, dtype),
        lower=lower.astype(dtype),
        upper=upper.astype(dtype),
        weight_decay=problem.weight_decay,
    )


def _patterns(patterns: Any, coordinates: np.ndarray) -> np.ndarray:
    """The patterns to take, checked."""
    count = len(coordinates)
    if patterns is None:
        return sign_patterns(coordinates, limit=MOST_PATTERNS)
    patterns = np.asarray(patterns)
    fits = patterns.dtype == bool and patterns.ndim == 2 and patterns.shape[1] == count
    if not fits or not len(patterns):
        raise ValueError(
            f"patterns must be booleans of shape (p, {count}), p > 0; they are {patterns.dtype} of "
            f"shape {patterns.shape}."
        )
    return np.unique(patterns, axis=0)


def _conjugate(problem: TrainingProblem) -> Any:
    """B, k and limits with L*(R) = <R, B> + k/2 ||R||^2 between the limits."""
    found = problem.loss.quadratic_conjugate(problem.Y)
    if found is None:
        raise ValueError(
            f"problem: the {problem.loss.name} loss has no quadratic conjugate, which this program "
            'needs: it takes "squared", "huber", "absolute" and "hinge".'
        )
    return found


def _unit(data: CopositiveData) -> Array:
    """The unit of R: the weight decay over the longest sample, but the offsets' size where that is
    less.

    The value does not depend on it; so no derivative passes through it.
    """
    readers, inverses = jnp.asarray(data.readers), jnp.linalg.inv(jnp.asarray(data.frames))
    samples = dot(readers, inverses)
    longest = jnp.max(jnp.linalg.norm(jax.lax.stop_gradient(samples), axis=2))
    price = data.weight_decay / jnp.where(longest > 0, longest, 1)
    size = norm(jax.lax.stop_gradient(jnp.asarray(data.offsets)))
    return jax.lax.stop_gradient(jnp.where(size > 0, jnp.minimum(price, size), price))
