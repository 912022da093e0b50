"""Whether a trained network is a stationary point, and which convex program it is the optimum of.

Theorem II.2 of Ergen and Pilanci (2023): a Clarke stationary point of the training objective is a
global optimum of a convex program that has the patterns of its neurons only. The theorem needs care
where samples lie on the kink of a neuron; what holds there, and for several outputs, is in
docs/math/stationary_points.md, "Stationary points".
"""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import lsq_linear

from ..activations import LeakyReLU
from ..arrays import Matrix, finite_matrix
from ..geometry.directions import find_directions
from ..geometry.patterns import neuron_patterns
from ..losses.base import AbstractLoss
from ..networks import AbstractTwoLayer
from ..pricing.cone_pca import ConePrices, cone_pca
from ..pricing.slopes import stacked_features, stacked_residual
from ..problem import TrainingProblem, in_float64, require_leaky, require_same_activation


class Stationarity(eqx.Module):
    """How nearly a network is Clarke stationary, and the blocks of the program it belongs to.

    For each neuron that counts, `neurons` being their indices, three violations, relative, zero at a
    stationary point of positive size: `balance` of |u| = |v|; `outer`, the gradient in v of the
    balanced neuron over weight_decay |v|; `inner`, the same in u, for the best slopes in
    [negative_slope, 1] of the samples at `kinks`.

    `patterns` and `directions`, v / |v| (signs, where there is one output), are the blocks of the
    subsampled program

        min over w_j of  L(sum_j D_j X w_j directions_j', Y) + weight_decay sum_j |w_j|
        such that  (2 D_j - I) X w_j >= 0

    and `program` is by how much its optimality condition in w_j = |v_j| u_j is violated, over
    weight_decay. Ergen and Pilanci (2023), Theorem II.2 and eq. (7). `slopes` are those that make
    `inner` least; `residual` is the gradient of the loss at the outputs.
    """

    neurons: Int[np.ndarray, " m"]
    balance: Float[np.ndarray, " m"]
    outer: Float[np.ndarray, " m"]
    inner: Float[np.ndarray, " m"]
    program: Float[np.ndarray, " m"]
    patterns: Bool[np.ndarray, "m n"]
    kinks: Bool[np.ndarray, "m n"]
    slopes: Float[np.ndarray, "m n"]
    directions: Float[np.ndarray, "m c"]
    residual: Float[np.ndarray, "n c"]
    tolerance: float

    @property
    def violation(self) -> float:
        """The largest of `balance`, `outer` and `inner`."""
        return _largest(self.balance, self.outer, self.inner)

    @property
    def stationary(self) -> bool:
        """Whether `violation` is within the tolerance."""
        return self.violation <= self.tolerance

    @property
    def optimal(self) -> bool:
        """Whether the network is the global optimum of the subsampled program, to the tolerance."""
        return _largest(self.balance, self.program) <= self.tolerance


def stationarity(
    problem: TrainingProblem,
    network: AbstractTwoLayer,
    *,
    tolerance: float = 1e-5,
    kink: float = 1e-6,
    negligible: float = 1e-6,
) -> Stationarity:
    """Whether `network` is a Clarke stationary point of `problem.objective`; see `Stationarity`.

    **Arguments:**

    - `tolerance`: for the relative violations.
    - `kink`: sample i counts as being at the kink of neuron j if |x_i'u_j| <= kink |x_i| |u_j|: moving
      the neuron by that part of its length puts it there.
    - `negligible`: neurons with |u_j| |v_j| below this part of the largest count as zero. A zero
      neuron is stationary and has no pattern.

    Any (leaky) ReLU, any loss that is differentiable. Samples that are parallel share one slope at a
    kink; where others on it are linearly dependent, which needs rank 3 and degenerate data, their
    slopes are taken as independent, and `inner` is a lower bound.

    **Raises** a `ValueError` for other activations and losses, a network that does not fit the
    problem, and weights that are not finite.
    """
    activation = _require_supported(problem, network)
    problem, network = in_float64(problem), in_float64(network)
    _, residual = loss_and_residual(problem, network.predict(problem.X), problem.Y)
    residual = finite_matrix(residual, "The gradient at the network's outputs")
    features, weight_decay = np.asarray(problem.features), float(problem.weight_decay)

    hidden = np.linalg.norm(network.first_layer, axis=0)
    output = np.linalg.norm(network.V, axis=1)
    strength = hidden * output
    kept = np.flatnonzero(strength > negligible * np.max(strength, initial=0.0))
    neurons = network.first_layer.T[kept] / hidden[kept, None]
    directions = network.V[kept] / output[kept, None]
    sizes = np.linalg.norm(features, axis=1)
    kinks = (np.abs(neurons @ features.T) <= kink * sizes) & (sizes > 0)
    patterns = neuron_patterns(features, neurons)
    outer = np.linalg.norm(
        activation(neurons @ features.T) @ residual / weight_decay + directions, axis=1
    )

    inner, program = np.zeros(len(kept)), np.zeros(len(kept))
    slopes = activation.slopes(patterns)
    parallel = find_directions(features)
    for j, neuron in enumerate(neurons):
        at, pull = kinks[j], (residual @ directions[j] / weight_decay)[:, None] * features
        moved = pull[~at].T @ slopes[j, ~at] + neuron
        sides = np.where(patterns[j, at], -1.0, 1.0)[:, None] * features[at]
        program[j], _ = _nearest(sides, moved + pull[at].T @ slopes[j, at], (0, np.inf))
        inner[j], slopes[j, at] = _least_gradient(
            moved, pull[at], parallel.classes[at], parallel.signs[at], activation.negative_slope
        )
    return Stationarity(
        neurons=kept,
        balance=np.abs(hidden - output)[kept] / np.maximum(hidden, output)[kept],
        outer=outer,
        inner=inner,
        program=program,
        patterns=patterns,
        kinks=kinks,
        slopes=slopes,
        directions=directions,
        residual=residual,
        tolerance=tolerance,
    )


def pattern_prices(problem: TrainingProblem, residual: Any, patterns: Any) -> ConePrices:
    """max ||R' D X u|| over |u| <= 1, (2 D - I) X u >= 0 for patterns (m, n) and R (n, c).

    If none is above the weight decay, a stationary network with residual R is the global optimum of
    the program that has *all* blocks of these patterns: both signs in Ergen and Pilanci (2023),
    eq. (7), all directions in eq. (29). D has the slopes of the problem's activation, phi(t) =
    relu(t) - slope relu(-t), so that this is cone-constrained PCA of the samples and their negatives.

    **Raises** a `ValueError` for an activation that is not a (leaky) ReLU, and as `cone_pca` does.
    """
    features = stacked_features(problem)
    residual = finite_matrix(residual, "residual", rows=len(problem.Y))
    if len(features) > len(residual):
        below = ~np.asarray(patterns, bool)
        patterns = np.concatenate([~below, below], axis=1)
    return cone_pca(stacked_residual(problem, residual), features, patterns)


def loss_and_residual(
    problem: TrainingProblem, outputs: Matrix, targets: Matrix
) -> tuple[float, Matrix]:
    """The loss at `outputs` and its gradient R there, in NumPy float64."""
    with jax.enable_x64(True):
        value, gradient = _loss_and_gradient(problem.loss, outputs, targets)
    return float(value), np.asarray(gradient)


@eqx.filter_jit
def _loss_and_gradient(loss: AbstractLoss, outputs: Matrix, targets: Matrix):
    return loss.value(outputs, targets), loss.gradient(outputs, targets)


def _least_gradient(
    moved: Matrix, pull: Matrix, classes: np.ndarray, signs: Matrix, negative_slope: float
) -> tuple[float, Matrix]:
    """min |moved + sum_i slope_i pull_i| over the slopes of the samples at the kink, and the slopes.

    Parallel samples have one t in [negative_slope, 1], the slope on the side where their direction is
    active: those against it have 1 + negative_slope - t.
    """
    against = signs < 0
    moved = moved + (1 + negative_slope) * np.sum(pull[against], axis=0)
    distinct, shared = np.unique(classes, return_inverse=True)
    rows = np.zeros((len(distinct), len(moved)))
    np.add.at(rows, shared, signs[:, None] * pull)
    distance, slopes = _nearest(rows, moved, (negative_slope, 1))
    return distance, np.where(against, 1 + negative_slope - slopes[shared], slopes[shared])


def _nearest(rows: Matrix, point: Matrix, bounds: tuple[float, float]) -> tuple[float, Matrix]:
    """min |point + rows' t| over t within `bounds`, and t."""
    if not len(rows):
        return float(np.linalg.norm(point)), np.zeros(0)
    found = lsq_linear(rows.T, -point, bounds, method="bvls")
    return float(np.linalg.norm(found.fun)), found.x


def _require_supported(problem: TrainingProblem, network: AbstractTwoLayer) -> LeakyReLU:
    activation = require_leaky(problem)
    require_same_activation(problem, network)
    if not problem.loss.smooth:
        raise ValueError(
            f"This takes differentiable losses only; the problem's is {problem.loss.name!r}."
        )
    expected = (problem.X.shape[1], problem.Y.shape[1], problem.bias)
    given = (network.in_features, network.out_features, network.b is not None)
    if given != expected:
        raise ValueError(
            "The network's features, outputs and bias must be those of the problem, "
            f"{expected}; they are {given}."
        )
    return activation


def _largest(*violations: Matrix) -> float:
    """The largest entry; zero for a network without neurons."""
    return float(np.max(np.concatenate(violations), initial=0.0))
