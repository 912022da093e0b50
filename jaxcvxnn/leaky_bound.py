"""Certified bounds for every `LeakyReLU`: the price of a unit is that of a ReLU on stacked data.

With slope k, phi(t) = relu(t) - k relu(-t), so that R'phi(X u) = (R; -k R)'relu((X; -X) u).
"""

from typing import Any

import numpy as np

from jaxcone import verified

from .activations import LeakyReLU
from .columns import PricedCertificate
from .dual_bound import dual_bound
from .pricing.price import finite_matrix
from .pricing.pricer import Pricer
from .problem import TrainingProblem, in_float64


def leaky_pricer(problem: TrainingProblem) -> Pricer:
    """What `certify_leaky` prices with: the features, and for slopes other than 0 their negatives."""
    features = np.asarray(problem.features, np.float64)
    if _slope(problem) == 0:
        return Pricer(features)
    return Pricer(np.vstack([features, -features]))


def certify_leaky(
    problem: TrainingProblem, residual: Any, pricer: Pricer | None = None, **budget: Any
) -> PricedCertificate:
    """The lower bound on training with any LeakyReLU that a residual R (n, c) proves.

    For ReLU this is `certify_residual`. The bound is on networks of any width; best is the gradient of
    the loss at a good network's outputs.

    **Arguments:** `pricer`, of `leaky_pricer(problem)`, saves its set-up; `budget` goes to branch and
    bound, which prices data of rank 3 and more.

    **Raises** a `ValueError` for other activations, and a residual of another shape than Y or with
    entries not finite.
    """
    slope, problem = _slope(problem), in_float64(problem)
    residual = finite_matrix(residual, "residual", rows=len(problem.Y))
    if residual.shape != problem.Y.shape:
        raise ValueError(
            f"residual must have the shape of Y, {problem.Y.shape}; its shape is {residual.shape}."
        )
    usable = problem.loss.into_domain(residual, problem.Y)
    slack = problem.loss.perturbation(usable, problem.Y)
    stacked, moved = usable, slack
    if slope != 0:
        other = -slope * usable
        # The product is rounded, and R may be moved.
        rounded = verified.UNIT * verified.vector_norm_bound(other) + abs(slope) * slack
        stacked = np.vstack([usable, other])
        moved = np.concatenate([slack, rounded * verified.INFLATION])
    pricer = leaky_pricer(problem) if pricer is None else pricer
    price = pricer.price(stacked, perturbation=moved, **budget)
    weight_decay = float(problem.weight_decay)
    bound, scale = dual_bound(problem.loss, usable, problem.Y, weight_decay, price.upper)
    return PricedCertificate(bound, scale, usable, price)


def _slope(problem: TrainingProblem) -> float:
    if not isinstance(problem.activation, LeakyReLU):
        raise ValueError(
            f"problem: this bound is for LeakyReLU; the activation is {problem.activation}."
        )
    return problem.activation.negative_slope
