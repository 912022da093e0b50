"""(cone-lasso): training with one output as a group lasso over the cells of an arrangement.

Ergen and Pilanci (2023), eq. (7): with the slopes D_i and the signs S_i of cell i of the hyperplanes
x_k'u = 0,

    min  L(sum_i D_i X (w_i - w_i'), y) + weight_decay sum_i (|w_i| + |w_i'|)
    s.t. S_i X w_i >= 0,  S_i X w_i' >= 0

is the optimum of training where the patterns are those of all cells, and that of training with neurons
of the given cells otherwise. Settings give their eqs. (10), (23), (25), (26) and (31). Derivations:
docs/math/lasso.md, "The cone-constrained group lasso".
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float

from jaxcone import InteriorPoint, Solution

from ..activations import LeakyReLU
from ..conic.cone_lasso import ConeLassoProgram
from ..conic.gates import Gates
from ..geometry.patterns import sign_patterns
from ..losses.base import AbstractEntrywiseLoss, AbstractRegressionLoss
from ..losses.regression import Squared
from ..networks import AbstractTwoLayer, from_first_layer
from ..problem import TrainingProblem, require_leaky
from .abstract import AbstractConeFound, AbstractProgram, refusal, require
from .cone_lasso_data import ConeLassoData, lengths
from .cone_lasso_splitting import ConeLassoSplitting


class ConeLassoSolution(AbstractConeFound):
    """The blocks of (cone-lasso), from its cone program.

    `weights` (c, 2, P, d): for each output w_i, then w_i'. `residual` (n, c) is the gradient of the
    loss at the fitted outputs; of (25), which has no loss, the multiplier of the fit. `objective` and
    `dual_objective` are the values of this program; neither is a bound on training: see
    `certify_residual`.
    """

    weights: Float[Array, "c 2 p d"]
    residual: Float[Array, "n c"]
    objective: Float[Array, ""]
    dual_objective: Float[Array, ""]
    solution: Solution
    norm: float = eqx.field(static=True)


class ConeGroupLasso(AbstractProgram[ConeLassoData, ConeLassoSolution]):
    """The program (cone-lasso): ReLU, leaky ReLU and absolute value, with or without a bias.

    Several outputs are c programs of one output each, which is training with |v_j|_1 in place of
    |v_j|_2 (eq. 31). As a cone program it takes the squared loss, and with `interpolate` every
    regression loss; `ConeLassoInterior` is for data of some size, and `ConeLassoSplitting` takes all
    losses that are sums over outputs.

    **Arguments:**

    - `patterns`: (P, n), true where x_k'u >= 0 in the cell; by default those of all cells, which are
      found on the host.
    - `cone_features`: (n, d), the rows whose signs the cones fix: for eq. (10) the low-rank
      approximation whose `patterns` are given. By default the problem's features, with which every
      solution is a network of the same objective.
    - `norm`: 1, 2 or inf, of the regularisation of the first layer (eq. 23).
    - `interpolate`: the least sum of norms of an exact fit (eq. 25); the weight decay has no part in
      it. Where there is none the status is `primal_infeasible`.

    For spike-free features (`is_spike_free`) one pattern, all true, suffices for ReLU (eq. 26).

    **Raises** a `ValueError` for another norm and patterns of another shape, and in `solve` for other
    losses and activations.
    """

    patterns: Bool[Any, "p n"] | None = None
    cone_features: Float[Any, "n d"] | None = None
    norm: float = eqx.field(static=True, default=2)
    interpolate: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        if self.norm not in (1, 2, math.inf):
            raise ValueError(f"norm must be 1, 2 or inf; got {self.norm!r}.")
        patterns = self.patterns
        if patterns is not None and (np.ndim(patterns) != 2 or 0 in np.shape(patterns)):
            raise ValueError(
                f"patterns must have shape (P, n); their shape is {np.shape(patterns)}."
            )

    def refuses(self, problem):
        reason = refusal(problem, TrainingProblem, require_leaky)
        if reason:
            return reason
        loss = problem.loss
        if not isinstance(loss, AbstractEntrywiseLoss):
            return f"takes losses that are sums over outputs; got {loss.name!r}."
        if self.interpolate and not isinstance(loss, AbstractRegressionLoss):
            return f"an exact fit needs numbers as targets, not those of {loss.name!r}."
        return ""

    def data(self, problem: TrainingProblem | ConeLassoData) -> ConeLassoData:
        """The program's numbers; data of its own kind pass through.

        **Raises** a `ValueError` for an activation that is not piecewise linear, a loss that is not a
        sum over outputs, arrays whose shapes do not fit the problem's, and patterns that would have
        to be found under `jit`.
        """
        if isinstance(problem, ConeLassoData):
            return problem
        require(self, problem)
        activation = require_leaky(problem)
        features = jnp.asarray(problem.features)
        rows = features if self.cone_features is None else jnp.asarray(self.cone_features)
        if rows.shape != features.shape:
            raise ValueError(
                f"cone_features must have the features' shape {features.shape}; theirs is {rows.shape}."
            )
        if self.patterns is not None:
            patterns = self.patterns
        elif self.cone_features is not None:
            raise ValueError("patterns must be given with cone_features: they belong together.")
        else:
            patterns = _all_patterns(problem)
        if patterns.shape[1] != len(features) or patterns.dtype != bool:
            raise ValueError(
                f"patterns must be booleans of shape (P, {len(features)}); they are "
                f"{patterns.dtype} of shape {patterns.shape}."
            )
        dtype = features.dtype
        signs = jnp.where(patterns, 1, -1).astype(dtype)
        slopes = jnp.asarray(activation.slopes(jnp.asarray(patterns)), dtype)
        return ConeLassoData(
            gates=Gates(features, rows.astype(dtype), slopes, signs),
            targets=jnp.asarray(problem.Y),
            weight_decay=jnp.asarray(problem.weight_decay),
            loss=problem.loss,
            norm=self.norm,
            interpolate=self.interpolate,
        )

    def to_cone(self, data):
        if not _has_cone(data):
            raise ValueError(
                "ConeGroupLasso: its cone program takes the squared loss; got "
                f"{data.loss.name!r}, which `ConeLassoSplitting` takes."
            )
        return ConeLassoProgram(
            gates=data.gates,
            targets=data.targets.T,
            weight_decay=jnp.ones_like(data.weight_decay)
            if data.interpolate
            else data.weight_decay,
            norm=data.norm,
            interpolate=data.interpolate,
        )

    def default_method(self, data):
        return InteriorPoint() if _has_cone(data) else ConeLassoSplitting()

    def network(self, problem, found):
        return cone_lasso_network(problem, found)

    def read_out(self, data, cone, solution):
        weights = cone.weights(solution.x)
        if data.interpolate:
            residual, fixed = solution.y[2].T, 0.0
        else:
            residual = jax.vmap(data.gates.fitted)(weights).T - data.targets
            fixed = jnp.sum(data.targets**2) / 2
        return ConeLassoSolution(
            weights=weights,
            residual=residual,
            objective=solution.primal_objective + fixed,
            dual_objective=solution.dual_objective + fixed,
            solution=solution,
            norm=data.norm,
        )


def _has_cone(data: ConeLassoData) -> bool:
    """Whether there is a cone program: the loss is squared, or has no part in it."""
    return data.interpolate or isinstance(data.loss, Squared)


def cone_lasso_network(problem: TrainingProblem, solution: Any) -> AbstractTwoLayer:
    """The network of a solution: Ergen and Pilanci (2023), Proposition II.1. Pure JAX.

    u_j = w / sqrt|w| and v_j = +-sqrt|w|, of which a block that vanishes is a neuron of zeros: 2 P c
    neurons in all, each with one output (`prune` drops the idle ones). Where every block is in its
    cell, the network's outputs are the fitted ones and its `cone_lasso_objective` is the program's
    value.

    **Arguments:** what was solved, and a `ConeLassoSolution`, `ConeLassoSplit` or `ConeLassoOptimum`,
    of which the last one's network is in float64, whatever JAX's precision.
    """
    weights = solution.weights
    if isinstance(weights, np.ndarray):
        with jax.enable_x64(True):
            return jax.tree.map(np.asarray, _network(problem, jnp.asarray(weights), solution.norm))
    return _network(problem, weights, solution.norm)


def _network(problem: TrainingProblem, weights: Array, norm: float) -> AbstractTwoLayer:
    outputs, _, cells, features = weights.shape
    roots = jnp.sqrt(lengths(weights, norm))
    first = weights / jnp.where(roots > 0, roots, 1)[..., None]
    signed = roots * jnp.array([1, -1], roots.dtype)[:, None]
    second = signed[..., None] * jnp.eye(outputs, dtype=roots.dtype)[:, None, None, :]
    width = 2 * cells * outputs
    first, second = first.reshape(width, features).T, second.reshape(width, outputs)
    return from_first_layer(first, second, bias=problem.bias, activation=problem.activation)


def cone_lasso_objective(
    problem: TrainingProblem, network: AbstractTwoLayer, norm: float = 2
) -> Float[Array, ""]:
    """The training objective that (cone-lasso) minimises: eq. (21), with |v_j|_1 as in eq. (30).

    L(f(X), Y) + weight_decay/2 sum_j (|u_j|_norm^2 + |v_j|_1^2). For norm 2 and networks whose neurons
    have one output each it is `problem.objective(network)`.
    """
    first, second = jnp.asarray(network.first_layer).T, jnp.asarray(network.V)
    penalty = jnp.sum(lengths(first, norm) ** 2) + jnp.sum(jnp.sum(jnp.abs(second), axis=1) ** 2)
    return problem.training_loss(network) + problem.weight_decay / 2 * penalty


def _all_patterns(problem: TrainingProblem) -> np.ndarray:
    """The patterns of all cells; for ReLU without the one in which no neuron does anything."""
    features = problem.features
    if isinstance(features, Tracer):
        raise ValueError("patterns must be given where the data are traced.")
    found = sign_patterns(np.asarray(features, np.float64))
    assert isinstance(problem.activation, LeakyReLU)
    if problem.activation.negative_slope != 0:
        return found
    alive = found[np.any(found, axis=1)]
    return alive if len(alive) else found[:1]
