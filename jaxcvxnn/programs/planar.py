"""(planar): training on samples of a plane, exactly, as one small semidefinite program.

For features F (l, 2) the lines p_i'u = 0 cut the circle into cells, in each of which relu(F u) is
linear. In frame coordinates u = T_k a a cell is {a : |a_2| <= a_1}, and with H_k = R' relu(F T_k) the
dual constraint |R' relu(F u)| <= wd |u| holds on all of the cell if and only if some mu_k >= 0 makes

    [[wd T_k'T_k - mu_k diag(1, -1),  H_k'],  [H_k,  wd I]]                                 (cell)

positive semidefinite (the S-lemma, which loses nothing here). So p* = -min 1/2 ||R||^2 + <R, Y> under
(cell) for all cells. Derivation: docs/math.md, section "Samples in a plane".
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxcone import (
    AbstractConeProgram,
    InteriorPoint,
    Residuals,
    Scaling,
    Solution,
    Status,
    norm,
    project_nonnegative,
    project_psd,
)

from ..networks import TwoLayerReLU
from ..problem import TrainingProblem, require_relu, require_squared
from ..products import dot
from .abstract import AbstractProgramSolution, AbstractTrainingProgram
from .lifted import LiftedData
from .planar_interior import PlanarForm


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


class PlanarSolution(AbstractProgramSolution):
    """The global optimum of training: a network's moments, and the residual that proves it.

    `residual` is R = f(X) - Y (l, c) in the coordinates of `data`. `moments`[k] is sum_j a_j a_j' over
    the neurons u_j = T_k a_j of cell k, balanced (|u_j| = |v_j|), with v_j = -R' relu(F u_j) / wd.
    `objective` comes from the moments and `dual_objective` from R. They enclose p* up to what
    `residuals` leaves, so neither is a bound in the strict sense.
    """

    data: PlanarData
    residual: Float[Array, "l c"]
    moments: Float[Array, "k 2 2"]
    objective: Float[Array, ""]
    dual_objective: Float[Array, ""]
    status: Status
    steps: Int[Array, ""]
    residuals: Residuals
    solution: Solution


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
        return PlanarFactor(*jnp.linalg.eigh(2 * dot(flat, flat.T)))

    def minimize(self, factor, penalty, target, guess):
        del guess  # solved exactly
        pulled, pulled_mu = self.adjoint(target)
        right = dot(factor.basis.T, penalty * pulled - self.targets)
        residual = dot(factor.basis, right / (1 + penalty * factor.values)[:, None])
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


class NoScaling(Scaling):
    """The units of the program itself, in which its constraints are of size one."""

    def scale(self, s, y):
        return s, y

    def unscale(self, x, s, y):
        return x, s, y


def planar_program(data: PlanarData) -> PlanarProgram:
    """The cone program of some planar data."""
    unit = _unit(data)
    cells = cells_of(jnp.asarray(data.features))
    return PlanarProgram(
        readers=cells.readers(jnp.asarray(data.features)) * (unit / data.weight_decay),
        squares=jnp.sum(cells.frames**2, axis=1),
        targets=jnp.asarray(data.targets) / unit,
    )


class ExactPlanar(AbstractTrainingProgram[PlanarData, PlanarSolution]):
    """The program (planar): the global optimum of training, for samples of rank one or two."""

    def data(self, problem: TrainingProblem | LiftedData | PlanarData) -> PlanarData:
        """The program's numbers; data of its own kind pass through.

        **Raises** a `ValueError` for more than two features; where those have rank two, pass
        `reduce(problem).data` instead of the problem.
        """
        if isinstance(problem, PlanarData):
            return problem
        if isinstance(problem, LiftedData):
            features = _seen_features(problem)
            constant = jnp.asarray(problem.constant)
        else:
            require_relu(problem)
            require_squared(problem)
            features = jnp.asarray(problem.features)
            constant = jnp.zeros((), features.dtype)
        targets = problem.targets if isinstance(problem, LiftedData) else problem.Y
        rank = features.shape[1]
        if rank > 2:
            raise ValueError(
                f"problem: ExactPlanar takes at most two features; got {rank}. If their rank is at "
                "most two, pass `reduce(problem).data`."
            )
        return PlanarData(
            features=jnp.pad(features, ((0, 0), (0, 2 - rank))),
            targets=jnp.asarray(targets),
            weight_decay=jnp.asarray(problem.weight_decay),
            constant=constant,
            rank=rank,
        )

    def cone_program(self, data):
        return planar_program(data)

    def default_solver(self, program):
        # In float64 the values settle at 1e-10 to 1e-9; more refinements take all lanes there.
        tolerance = 1e-9 if program.targets.dtype == jnp.float64 else None
        return InteriorPoint(tolerance=tolerance, max_steps=50, refinements=4)

    def read_out(self, data, program, solution):
        unit = _unit(data)
        residual, _ = solution.x
        duals, _ = solution.y
        return PlanarSolution(
            data=data,
            residual=unit * residual,
            moments=2 * unit**2 / data.weight_decay * duals[:, :2, :2],
            objective=data.constant - unit**2 * solution.dual_objective,
            dual_objective=data.constant - unit**2 * solution.primal_objective,
            status=solution.status,
            steps=solution.steps,
            residuals=solution.residuals,
            solution=solution,
        )


def planar_network(solution: PlanarSolution) -> TwoLayerReLU:
    """A network of 4 (l + 1) neurons from the moments, in the coordinates of the solution's data.

    The neurons have unit length: one per ray, in the cells' order, then one per cell inside it; many
    are zero, in the second layer. At an exact solution the network is a global optimum.
    """
    data = solution.data
    cells = cells_of(jnp.asarray(data.features))
    # sum b b' over the neurons u = b_1 g + b_2 g', g and g' the cell's rays: entrywise nonnegative,
    # hence completely positive.
    to_rays = jnp.array([[1, -1], [1, 1]], solution.moments.dtype) / 2
    nonnegative = dot(dot(to_rays, solution.moments), to_rays.T)
    first = jnp.maximum(nonnegative[:, 0, 0], 0)
    second = jnp.maximum(nonnegative[:, 1, 1], 0)
    both = jnp.maximum(nonnegative[:, 0, 1], 0)
    # = correlation * (a rank-one matrix) + (1 - correlation) * (a diagonal one): inside, on the rays.
    tiny = jnp.finfo(first.dtype).tiny
    roots = jnp.sqrt(jnp.stack([first, second], axis=1))
    correlation = jnp.minimum(both / jnp.maximum(roots[:, 0] * roots[:, 1], tiny), 1)
    rays = cells.rays
    inside = roots[:, :1] * rays + roots[:, 1:] * jnp.roll(rays, -1, axis=0)
    length = jnp.linalg.norm(inside, axis=1)
    inside = jnp.where(length[:, None] > 0, inside / jnp.maximum(length, tiny)[:, None], rays)
    on_rays = (1 - correlation) * first + jnp.roll((1 - correlation) * second, 1)
    directions = jnp.concatenate([rays, inside])
    squares = jnp.concatenate([on_rays, correlation * length**2])
    activations = jax.nn.relu(dot(jnp.asarray(data.features), directions.T))
    weighted = activations * squares
    # The best output layer for these strengths |u_j| |v_j| (docs/math.md, "Growing and refitting").
    ridge = data.weight_decay * jnp.eye(len(activations), dtype=activations.dtype)
    delta = jnp.linalg.solve(dot(weighted, activations.T) + ridge, jnp.asarray(data.targets))
    outputs = dot(weighted.T, delta)
    return TwoLayerReLU(directions[:, : data.rank].T, outputs)


def _seen_features(data: LiftedData) -> Float[Array, "l r"]:
    """The features of which the loss rows see relu: s p for s alpha, -s p for s omega."""
    rows, readout = jnp.asarray(data.rows), jnp.asarray(data.readout)
    directions = -rows[data.pairs : 2 * data.pairs, data.pairs :]
    return dot(readout[:, : data.pairs], directions) + 2 * readout[:, data.pairs :]


def _unit(data: PlanarData) -> Array:
    """The unit of R: the weight decay over the longest feature, but |Y| where that is less.

    In either case p* is not small against its square, so that a relative gap means something. The
    value does not depend on the unit; so no derivative passes through it.
    """
    features, targets = jnp.asarray(data.features), jnp.asarray(data.targets)
    longest = jnp.max(jnp.linalg.norm(jax.lax.stop_gradient(features), axis=1))
    price = data.weight_decay / jnp.where(longest > 0, longest, 1)
    size = norm(jax.lax.stop_gradient(targets))
    return jax.lax.stop_gradient(jnp.where(size > 0, jnp.minimum(price, size), price))
