"""The best output layer for given neurons, and networks as unit neurons with their strengths."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ..activations import LeakyReLU
from ..arrays import Matrix
from ..interior.group_lasso import GroupLassoSolution, solve_group_lasso
from ..job import Job
from ..networks import AbstractTwoLayer, from_first_layer
from ..problem import TrainingProblem, in_float64
from .polish import merge

# Angles (1 - cosine) up to which neurons are merged where a network must become narrower.
MERGES = (1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)


def narrow(problem: TrainingProblem, network: AbstractTwoLayer, width: int) -> AbstractTwoLayer:
    """A network of at most `width` neurons: parallel ones merged, then the weakest dropped, and the
    output weights fitted again. The problem's arrays are NumPy's."""
    for tolerance in MERGES:
        if network.width <= width:
            break
        network = merge(network, tolerance=tolerance)
    first, second = unit_neurons(network)
    kept = np.argsort(-np.linalg.norm(second, axis=1), kind="stable")[:width]
    found = fit_outputs(problem, first[kept], second[kept])
    return balanced_network(problem, first[kept], found.V)


def fit_outputs(
    problem: TrainingProblem,
    first: Matrix,
    start: Matrix,
    tolerance: float = 1e-10,
    job: Job | None = None,
) -> GroupLassoSolution:
    """The best output weights of unit neurons (m, d), or what is reached when `job` is over."""
    activations = problem.activation(problem.features @ first.T)
    penalties = np.full(len(first), float(problem.weight_decay))
    return solve_group_lasso(
        activations,
        problem.Y,
        penalties,
        loss=problem.loss,
        start=start,
        tolerance=tolerance,
        job=job,
    )


def unit_neurons(network: AbstractTwoLayer) -> tuple[Matrix, Matrix]:
    """The same function by unit neurons (m, d) with output weights (m, c), without idle neurons."""
    first, second = np.asarray(network.first_layer).T, np.asarray(network.V)
    lengths = np.linalg.norm(first, axis=1)
    alive = lengths > 0
    return first[alive] / lengths[alive, None], second[alive] * lengths[alive, None]


def balanced_network(problem: TrainingProblem, first: Matrix, second: Matrix) -> AbstractTwoLayer:
    """Unit neurons (m, d) with output weights (m, c) as the network that weight decay likes best."""
    strength = np.linalg.norm(second, axis=1)
    alive = strength > 0
    root = np.sqrt(strength[alive])[:, None]
    weights, outputs = (first[alive] * root).T, second[alive] / root
    return from_first_layer(weights, outputs, bias=problem.bias, activation=problem.activation)


class Refit(NamedTuple):
    """The refitted network without idle neurons, and the dual point (n, c) of its fit."""

    network: AbstractTwoLayer
    residual: Float[np.ndarray, "n c"]


def refit(problem: TrainingProblem, network: AbstractTwoLayer, tolerance: float = 1e-12) -> Refit:
    """The network of least objective whose neurons have the directions of `network`'s. On the host.

    A group lasso (`solve_group_lasso`) in the output weights: errors in the strengths of the neurons,
    and neurons that should be idle, are gone; an error in the directions counts squared. The residual
    belongs to it: give it to `certify_residual`.

    **Raises** a `ValueError` for activations that are not a `LeakyReLU`, and losses that the group
    lasso does not take.
    """
    if not isinstance(problem.activation, LeakyReLU):
        raise ValueError(f"problem: refit takes a LeakyReLU; it has {problem.activation}.")
    problem = in_float64(problem)
    first, second = (np.asarray(part, np.float64) for part in unit_neurons(network))
    found = fit_outputs(problem, first, second, tolerance)
    return Refit(balanced_network(problem, first, found.V), found.residual)
