"""What a residual proves: the price of the best new neuron bounds the optimum from below.

Sahiner et al. (2021), eq. (11), and for polynomials, in each pool of a convolutional network too,
Bartan and Pilanci (2021), eq. (26): by strong duality the residual of an optimal network closes the
gap; that of another one proves less, and never too much.
"""

import math
from typing import Any

import numpy as np

from ..activations import Polynomial
from ..arrays import Matrix, finite_residual
from ..bound import Bound
from ..convolution import ConvolutionalProblem
from ..pricing.budget import Budget
from ..pricing.polynomial import PolynomialPrice, pooled_price
from ..pricing.price import Price
from ..pricing.pricer import Pricer
from ..pricing.slopes import stacked_features, stacked_price
from ..problem import TrainingProblem, in_float64
from .dual_bound import dual_bound


def trivial_bound(problem: TrainingProblem) -> Bound[Price]:
    """What holds without any work: no network has a loss below the loss's own infimum."""
    nothing = np.zeros(problem.Y.shape)
    bound, scale = dual_bound(problem.loss, nothing, problem.Y, 1.0, math.inf)
    unknown = Price(0.0, math.inf, np.zeros((0, problem.features.shape[1])), "none", 0)
    return Bound(bound, scale, nothing, unknown)


def certify_residual(
    problem: TrainingProblem | ConvolutionalProblem,
    residual: Any,
    pricer: Pricer | None = None,
    budget: Budget | None = None,
    *,
    method: str = "auto",
    neurons: Matrix | None = None,
) -> Bound[Price | PolynomialPrice]:
    """The lower bound that a residual proves: any R (n, c), best the gradient of the loss at a good
    network's outputs, which is f(X) - Y for the squared one. Any activation and any loss.

    The `proof` is a `Price`; for polynomials a `PolynomialPrice`, whose entries are those of the
    outputs, of each pool in turn for a convolutional problem.

    **Arguments:** `pricer`, one of `stacked_features(problem)`, which for ReLU are the features, saves
    its set-up; `budget` limits the search for neurons and `method` names it (see `best_neuron`), from
    `neurons` (k, d) on, if there are any; polynomials need none of these.

    **Raises** a `ValueError` for a residual of another shape than Y or with entries not finite.
    """
    problem = in_float64(problem)
    residual = finite_residual(residual, problem.Y)
    usable = problem.loss.into_domain(residual, problem.Y)
    slack = problem.loss.perturbation(usable, problem.Y)
    if isinstance(problem, ConvolutionalProblem):
        price = pooled_price(usable, problem.pools, problem.activation, perturbation=slack)
    elif isinstance(problem.activation, Polynomial):
        features = problem.features[None, None]
        price = pooled_price(usable, features, problem.activation, perturbation=slack)
    else:
        pricer = Pricer(stacked_features(problem)) if pricer is None else pricer
        price = stacked_price(
            problem, usable, slack, pricer, method=method, neurons=neurons, budget=budget
        )
    weight_decay = float(problem.weight_decay)
    bound, scale = dual_bound(problem.loss, usable, problem.Y, weight_decay, price.upper)
    return Bound(bound, scale, usable, price)
