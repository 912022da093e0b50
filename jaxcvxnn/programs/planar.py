"""(planar) as a program of training: samples of rank one or two, to the global optimum.

Derivation: docs/math/patterns.md, "Samples in a plane".
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from jaxcone import InteriorPoint, Solution
from jaxcone.extend import matmul

from ..conic.lifted import LiftedData
from ..conic.planar import PlanarData, cells_of, planar_program, planar_unit
from ..geometry.directions import row_space
from ..improve.polish import balance, prune
from ..networks import AbstractTwoLayer, TwoLayerReLU, from_first_layer
from ..problem import TrainingProblem, require_relu, require_squared
from ..reduction import reduce
from .abstract import AbstractConeFound, AbstractProgram, refusal, require


class PlanarSolution(AbstractConeFound):
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
    solution: Solution


class ExactPlanar(AbstractProgram[PlanarData, PlanarSolution]):
    """The program (planar): the global optimum of training, for samples of rank one or two.

    For ReLU and the squared loss. Under `jit` it takes at most two features, bias included; outside,
    any number of them whose rank is at most two.
    """

    def refuses(self, problem):
        reason = refusal(problem, TrainingProblem, require_relu, require_squared)
        if reason or problem.features.shape[1] <= 2:
            return reason
        if isinstance(problem.features, Tracer):
            return (
                "problem must have at most two features under jit, and concrete samples for more."
            )
        rank = row_space(np.asarray(problem.features, np.float64)).shape[1]
        return "" if rank <= 2 else f"problem must have samples of rank 1 or 2; theirs is {rank}."

    def data(self, problem: TrainingProblem | LiftedData | PlanarData) -> PlanarData:
        """The program's numbers; data of its own kind pass through, and those of a `Reduction`.

        **Raises** a `ValueError` for samples of a higher rank, another loss and another activation.
        """
        if isinstance(problem, PlanarData):
            return problem
        source: Any = problem
        if not isinstance(source, LiftedData):
            require(self, source)
            if source.features.shape[1] > 2:
                source = jax.tree.map(jnp.asarray, reduce(source).data)
        if isinstance(source, LiftedData):
            features, targets = _seen_features(source), source.targets
            constant = jnp.asarray(source.constant)
        else:
            features, targets = jnp.asarray(source.features), source.Y
            constant = jnp.zeros((), features.dtype)
        rank = features.shape[1]
        if rank > 2:
            raise ValueError(f"ExactPlanar: data must have rank 1 or 2; theirs is {rank}.")
        return PlanarData(
            features=jnp.pad(features, ((0, 0), (0, 2 - rank))),
            targets=jnp.asarray(targets),
            weight_decay=jnp.asarray(source.weight_decay),
            constant=constant,
            rank=rank,
        )

    def to_cone(self, data):
        return planar_program(data)

    def default_method(self, data):
        # In float64 the values settle at 1e-10 to 1e-9; more refinements take all lanes there.
        tolerance = 1e-9 if data.targets.dtype == jnp.float64 else None
        return InteriorPoint(tolerance=tolerance, max_steps=50, refinements=4)

    def read_out(self, data, cone, solution):
        unit = planar_unit(data)
        residual, _ = solution.x
        duals, _ = solution.y
        return PlanarSolution(
            data=data,
            residual=unit * residual,
            moments=2 * unit**2 / data.weight_decay * duals[:, :2, :2],
            objective=data.constant - unit**2 * solution.dual_objective,
            dual_objective=data.constant - unit**2 * solution.primal_objective,
            solution=solution,
        )

    def network(self, problem: TrainingProblem, found: PlanarSolution) -> AbstractTwoLayer:
        """The optimal network, balanced, without idle neurons; on the host."""
        own = planar_network(found)
        first = np.asarray(own.first_layer, np.float64)
        if problem.features.shape[1] > 2:
            first = reduce(problem).directions.basis @ first
            outputs = np.asarray(own.V, np.float64) @ reduce(problem).output_basis.T
        else:
            outputs = np.asarray(own.V, np.float64)
        return prune(balance(from_first_layer(first, outputs, bias=problem.bias)))

    def residual(self, problem, found):
        if problem.features.shape[1] > 2:
            return reduce(problem).expand_residual(found.residual)
        return np.asarray(found.residual, np.float64)


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
    nonnegative = matmul(matmul(to_rays, solution.moments), to_rays.T)
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
    activations = jax.nn.relu(matmul(jnp.asarray(data.features), directions.T))
    weighted = activations * squares
    # The best output layer for these strengths |u_j| |v_j|: docs/math/columns.md,
    # "Growing and refitting".
    ridge = data.weight_decay * jnp.eye(len(activations), dtype=activations.dtype)
    delta = jnp.linalg.solve(matmul(weighted, activations.T) + ridge, jnp.asarray(data.targets))
    outputs = matmul(weighted.T, delta)
    return TwoLayerReLU(directions[:, : data.rank].T, outputs)


def _seen_features(data: LiftedData) -> Float[Array, "l r"]:
    """The features of which the loss rows see relu: s p for s alpha, -s p for s omega."""
    rows, readout = jnp.asarray(data.rows), jnp.asarray(data.readout)
    directions = -rows[data.pairs : 2 * data.pairs, data.pairs :]
    return matmul(readout[:, : data.pairs], directions) + 2 * readout[:, data.pairs :]
