"""Units with a slope on the negative side are priced as ReLU units on stacked samples.

With slope k, phi(t) = relu(t) - k relu(-t), so that R'phi(X u) = (R; -k R)'relu((X; -X) u).
"""

import numpy as np

from jaxcone import verified

from ..arrays import Matrix
from ..problem import TrainingProblem, require_leaky
from .budget import Budget
from .price import Price
from .pricer import Pricer


def stacked_features(problem: TrainingProblem) -> Matrix:
    """The features, and for slopes other than zero their negatives below: what ReLU units see."""
    features = np.asarray(problem.features, np.float64)
    return (
        features if require_leaky(problem).negative_slope == 0 else np.vstack([features, -features])
    )


def stacked_residual(problem: TrainingProblem, residual: Matrix) -> Matrix:
    """The residual R (n, c) of `stacked_features`."""
    slope = require_leaky(problem).negative_slope
    return residual if slope == 0 else np.vstack([residual, -slope * residual])


def stacked_price(
    problem: TrainingProblem,
    residual: Matrix,
    perturbation: Matrix,
    pricer: Pricer,
    *,
    method: str = "auto",
    neurons: Matrix | None = None,
    budget: Budget | None = None,
) -> Price:
    """The proven price of the best unit, for R (n, c) or any matrix within `perturbation` (n,) of it.

    `pricer` is one of `stacked_features`; `method`, `neurons` and `budget` go to it.
    """
    stacked, moved = stacked_residual(problem, residual), perturbation
    if len(stacked) > len(residual):
        # The product with the slope is rounded too.
        rounded = verified.UNIT * verified.vector_norm_bound(stacked[len(residual) :])
        slope = abs(require_leaky(problem).negative_slope)
        below = (rounded + slope * perturbation) * verified.INFLATION
        moved = np.concatenate([perturbation, below])
    return pricer.price(stacked, method=method, neurons=neurons, perturbation=moved, budget=budget)
