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
    PSD,
    ConeProgram,
    InteriorPoint,
    Nonnegative,
    Residuals,
    Solution,
    Status,
    smat,
)

from ..networks import TwoLayerReLU
from ..problem import TrainingProblem
from .abstract import AbstractTrainingProgram
from .lifted import LiftedData


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


class PlanarSolution(eqx.Module):
    """The global optimum of training: a network's moments, and the residual that proves it.

    `residual` is R = f(X) - Y (l, c) in the coordinates of `data`. `moments`[k] is sum_j a_j a_j' over
    the neurons u_j = T_k a_j of cell k, balanced (|u_j| = |v_j|), with v_j = -R' relu(F u_j) / wd.
    `objective` comes from R and `dual_objective` from the moments, up to rounding an upper and a lower
    estimate of -p*'s negative; neither is a bound.
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


def planar_program(data: PlanarData) -> ConeProgram:
    """(planar) with R and mu in units of w, the weight decay over the longest feature.

    x = (R / w row by row, mu / w), s = (the cells' matrices / w, mu / w): only c depends on Y and the
    weight decay. The program's value is -(p* - `constant`) / w^2.
    """
    features, targets = jnp.asarray(data.features), jnp.asarray(data.targets)
    length, price = _units(data)
    cells = cells_of(features)
    readers = cells.readers(features / length)
    count, rows, _ = readers.shape
    outputs = targets.shape[1]
    side = 2 + outputs
    place = _places(side)
    output = jnp.arange(outputs)
    of_residual = jnp.zeros((count, PSD(side).rows, rows, outputs), features.dtype)
    for axis in range(2):
        image = -jnp.sqrt(2.0).astype(features.dtype) * readers[:, :, axis]
        of_residual = of_residual.at[:, place[axis][2:], :, output].set(image)
    own = jnp.eye(count, dtype=features.dtype)
    of_mu = jnp.zeros((count, PSD(side).rows, count), features.dtype)
    of_mu = of_mu.at[:, place[0][0]].set(own).at[:, place[1][1]].set(-own)
    flat = of_residual.reshape(-1, rows * outputs), of_mu.reshape(-1, count)
    A = jnp.block([[*flat], [jnp.zeros((count, rows * outputs), features.dtype), -own]])
    squares = jnp.sum(cells.frames**2, axis=1)
    diagonal = jnp.concatenate([squares, jnp.ones((count, outputs), features.dtype)], axis=1)
    offset = jnp.zeros((count, PSD(side).rows), features.dtype)
    offset = offset.at[:, [place[i][i] for i in range(side)]].set(diagonal)
    zero = jnp.zeros(count, features.dtype)
    curvature = jnp.concatenate([jnp.ones(rows * outputs, features.dtype), zero])
    return ConeProgram(
        jnp.diag(curvature),
        jnp.concatenate([targets.ravel() / price, zero]),
        A,
        jnp.concatenate([offset.ravel(), zero]),
        [PSD(side)] * count + [Nonnegative(count)],
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

    def default_solver(self):
        return InteriorPoint(tolerance=1e-9)

    def read_out(self, data, program, solution):
        rows, outputs = data.targets.shape
        length, price = _units(data)
        side = 2 + outputs
        count = 2 * (rows + 1)
        blocks = solution.y[: count * PSD(side).rows].reshape(count, -1)
        duals = jax.vmap(smat)(blocks)
        return PlanarSolution(
            data=data,
            residual=price * solution.x[: rows * outputs].reshape(rows, outputs),
            moments=2 * price / length * duals[:, :2, :2],
            objective=data.constant - price**2 * solution.dual_objective,
            dual_objective=data.constant - price**2 * solution.primal_objective,
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
    # E[(b b')] for u = b_1 g + b_2 g', g and g' the cell's rays: entrywise nonnegative.
    to_rays = jnp.array([[1, -1], [1, 1]], solution.moments.dtype) / 2
    nonnegative = to_rays @ solution.moments @ to_rays.T
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
    activations = jax.nn.relu(_dot(directions, jnp.asarray(data.features).T))
    outputs = -squares[:, None] * _dot(activations, solution.residual) / data.weight_decay
    return TwoLayerReLU(directions[:, : data.rank].T, outputs)


def _seen_features(data: LiftedData) -> Float[Array, "l r"]:
    """The features of which the loss rows see relu: s p for s alpha, -s p for s omega."""
    rows, readout = jnp.asarray(data.rows), jnp.asarray(data.readout)
    directions = -rows[data.pairs : 2 * data.pairs, data.pairs :]
    return _dot(readout[:, : data.pairs], directions) + 2 * readout[:, data.pairs :]


def _units(data: PlanarData) -> tuple[Array, Array]:
    """The longest feature, and the weight decay over it."""
    longest = jnp.max(jnp.linalg.norm(jax.lax.stop_gradient(jnp.asarray(data.features)), axis=1))
    length = jnp.where(longest > 0, longest, 1)
    return length, data.weight_decay / length


def _places(side: int) -> list[list[int]]:
    """Where entry (i, j) of a matrix stands in its `svec`."""
    place = [[0] * side for _ in range(side)]
    triangle = [(i, j) for j in range(side) for i in range(j, side)]
    for index, (i, j) in enumerate(triangle):
        place[i][j] = place[j][i] = index
    return place


def _dot(left: Array, right: Array) -> Array:
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)
