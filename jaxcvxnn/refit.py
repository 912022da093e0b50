"""The best output layer for the neurons of a network, and the residual that prices all others."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from .activations import LeakyReLU
from .columns import balanced_network, fit_outputs, unit_neurons
from .networks import AbstractTwoLayer
from .problem import TrainingProblem, in_float64


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
