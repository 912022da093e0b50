"""The best output layer for the neurons of a network, and the residual that prices all others."""

from typing import Any, NamedTuple, cast

import numpy as np
from jaxtyping import Float

from .activations import LeakyReLU
from .columns import unit_neurons
from .group_lasso import solve_group_lasso
from .networks import AbstractTwoLayer, two_layer
from .problem import TrainingProblem, in_float64


class Refit(NamedTuple):
    """The refitted network without idle neurons, and the dual point (n, c) of its fit."""

    network: AbstractTwoLayer
    residual: Float[np.ndarray, "n c"]


def refit(problem: TrainingProblem, network: AbstractTwoLayer, tolerance: float = 1e-12) -> Refit:
    """The network of least objective whose neurons have the directions of `network`'s. On the host.

    A group lasso (`solve_group_lasso`) in the output weights: errors in the strengths of the neurons,
    and neurons that should be idle, are gone; an error in the directions counts squared. The residual
    belongs to it: give it to `certify_leaky`.

    **Raises** a `ValueError` for activations that are not a `LeakyReLU`, and losses that the group
    lasso does not take.
    """
    if not isinstance(problem.activation, LeakyReLU):
        raise ValueError(f"problem: refit takes a LeakyReLU; it has {problem.activation}.")
    problem = in_float64(problem)
    first, second = unit_neurons(cast(Any, network))
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    activations = np.asarray(problem.activation(problem.features @ first.T))
    found = solve_group_lasso(
        activations,
        problem.Y,
        float(problem.weight_decay),
        loss=problem.loss,
        start=second,
        tolerance=tolerance,
    )
    strengths = np.linalg.norm(found.V, axis=1)
    alive = strengths > 0
    roots = np.sqrt(strengths[alive])[:, None]
    weights, outputs = (first[alive] * roots).T, found.V[alive] / roots
    bias = weights[-1] if problem.bias else None
    weights = weights[:-1] if problem.bias else weights
    fitted = two_layer(weights, outputs, bias, activation=problem.activation)
    return Refit(fitted, found.residual)
