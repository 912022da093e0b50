"""What a residual proves: the price of the best new neuron bounds the optimum from below."""

from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Float

from ..arrays import Matrix, finite_residual
from ..pricing.price import Price
from ..pricing.pricer import Pricer
from ..pricing.slopes import stacked_features, stacked_price
from ..problem import TrainingProblem, in_float64
from .dual_bound import dual_bound


class PricedCertificate(eqx.Module):
    """A proven statement: no two-layer ReLU network of any width has an objective below
    `lower_bound`.

    The proof: `scale` * `residual` (n, c) satisfies the dual constraint, since no neuron has a price
    above `price.upper`. `price.neurons[0]` is the neuron that would pay best.
    """

    lower_bound: float
    scale: float
    residual: Float[np.ndarray, "n c"]
    price: Price


def certify_residual(
    problem: TrainingProblem, residual: Any, pricer: Pricer | None = None, **budget: Any
) -> PricedCertificate:
    """The lower bound that a residual proves: any R (n, c), best the gradient of the loss at a good
    network's outputs, which is f(X) - Y for the squared one.

    **Arguments:** `pricer`, one of `stacked_features(problem)`, which for ReLU are the features, saves
    its set-up; `budget` (`seconds`, `max_boxes`, `relative`, ...) goes to branch and bound, which
    prices data of rank 3 and more.

    **Raises** a `ValueError` for a polynomial activation, and a residual of another shape than Y or
    with entries not finite.
    """
    problem = in_float64(problem)
    residual = finite_residual(residual, problem.Y)
    pricer = Pricer(stacked_features(problem)) if pricer is None else pricer
    return certify_checked(problem, residual, pricer, budget)


def certify_checked(
    problem: TrainingProblem, residual: Matrix, pricer: Pricer, budget: dict[str, Any]
) -> PricedCertificate:
    """`certify_residual` for arrays that are checked."""
    usable = problem.loss.into_domain(residual, problem.Y)
    slack = problem.loss.perturbation(usable, problem.Y)
    price = stacked_price(problem, usable, slack, pricer, **budget)
    weight_decay = float(problem.weight_decay)
    bound, scale = dual_bound(problem.loss, usable, problem.Y, weight_decay, price.upper)
    return PricedCertificate(bound, scale, usable, price)
