"""From a trained network to a stationary point near by: descent along the kinks.

Where a sample lies on the plane x_i'u_j = 0 of a neuron, the objective has a kink, and many neurons of
trained networks end on some. Gradient descent and L-BFGS come near and no further. With the samples
held there the objective is smooth.
"""

import numpy as np
from scipy.optimize import minimize

from ..arrays import Matrix
from ..networks import AbstractTwoLayer, from_first_layer
from ..problem import TrainingProblem, in_float64, require_leaky
from .stationarity import loss_and_residual, stationarity

# How near a kink a neuron must be, relative to |x_i| |u_j|, to be put there, and how weak, relative to
# the strongest |u_j| |v_j|, to be left out.
NEAR = 1e-3


def settle(
    problem: TrainingProblem,
    network: AbstractTwoLayer,
    *,
    tolerance: float = 1e-6,
    rounds: int = 20,
) -> AbstractTwoLayer:
    """A stationary point near `network`, a trained one: descent along the kinks that it is near.

    Samples near a kink are held on it while BFGS minimises over the rest; then those whose slope is
    not strictly between its bounds are let go, and so on, until `violation` is at most `tolerance` or
    the rounds are used up. Returns the network of the least violation, in NumPy and without its weak
    neurons; its objective need not be lower.

    **Raises** a `ValueError` as `stationarity` does.
    """
    problem, lowest = in_float64(problem), require_leaky(problem).negative_slope
    found = stationarity(problem, network, kink=NEAR, negligible=NEAR)
    best, violation, held = network, np.inf, found.kinks
    for _ in range(rounds):
        if violation <= tolerance or not len(found.neurons):
            break
        network = _descend_along(problem, network, found.neurons, held)
        reached = stationarity(problem, network).violation
        if reached < violation:
            best, violation = network, reached
        found = stationarity(problem, network, kink=NEAR, negligible=NEAR)
        held = found.kinks & (found.slopes > lowest) & (found.slopes < 1)
    return best


def _descend_along(
    problem: TrainingProblem, network: AbstractTwoLayer, kept: np.ndarray, held: np.ndarray
) -> AbstractTwoLayer:
    """The network of the neurons `kept` that BFGS ends at with x_i'u_j = 0 where `held` (m, n)."""
    features, targets = np.asarray(problem.features), np.asarray(problem.Y)
    activation, weight_decay = require_leaky(problem), float(problem.weight_decay)
    width, inputs = len(kept), features.shape[1]
    free = np.stack([np.eye(inputs)] * width)
    for j, samples in enumerate(held):
        if np.any(samples):
            free[j] -= np.linalg.pinv(features[samples]) @ features[samples]

    def parts(weights: Matrix) -> tuple[Matrix, Matrix]:
        rows = weights.reshape(width, -1)
        return rows[:, :inputs], rows[:, inputs:]

    def objective(weights: Matrix) -> tuple[float, Matrix]:
        hidden, output = parts(weights)
        products = hidden @ features.T
        active = activation(products)
        value, residual = loss_and_residual(problem, active.T @ output, targets)
        pulled = activation.slopes(products >= 0) * (output @ residual.T)
        along = np.einsum("jab,jb->ja", free, pulled @ features + weight_decay * hidden)
        slope = np.hstack([along, active @ residual + weight_decay * output])
        return value + weight_decay * float(weights @ weights) / 2, slope.ravel()

    hidden = np.asarray(network.first_layer, np.float64).T[kept]
    output = np.asarray(network.V, np.float64)[kept]
    hidden = np.einsum("jab,jb->ja", free, hidden)
    start = np.hstack([hidden, output])
    found = minimize(objective, start.ravel(), jac=True, method="BFGS", options={"gtol": 1e-12})
    hidden, output = parts(found.x)
    return from_first_layer(hidden.T, output, bias=problem.bias, activation=activation)
