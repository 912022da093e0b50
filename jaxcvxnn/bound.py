"""What is proven: a lower bound with its proof, and how far an upper bound is from it."""

from typing import Any, Generic, TypeVar

import equinox as eqx
import numpy as np
from jaxtyping import Float

Proof = TypeVar("Proof")


class Bound(eqx.Module, Generic[Proof]):
    """A proven statement: no network of any width, with the activation of the problem, has an objective
    below `lower_bound`.

    `scale` * `residual` (n, c) satisfies the dual constraint of training, as `proof` shows: a `Price`
    or `PolynomialPrice` whose `upper` no neuron's price exceeds, or the multipliers of a `LiftedProof`.
    """

    lower_bound: float
    scale: float
    residual: Float[np.ndarray, "n c"]
    proof: Proof


class AbstractBounded(eqx.Module):
    """What has a proven lower bound on the optimum, and the objective of a network as the upper one."""

    lower_bound: eqx.AbstractVar[float]
    upper_bound: eqx.AbstractVar[float]

    @property
    def relative_gap(self) -> float:
        """(upper_bound - lower_bound) / |upper_bound|."""
        return relative_gap(self.lower_bound, self.upper_bound)


class AbstractCertified(eqx.Module):
    """A network with its objective and the bound that `certificate` proves."""

    certificate: eqx.AbstractVar[Bound[Any]]
    upper_bound: eqx.AbstractVar[float]

    @property
    def lower_bound(self) -> float:
        """The certified lower bound."""
        return self.certificate.lower_bound

    @property
    def relative_gap(self) -> float:
        """(upper_bound - lower_bound) / |upper_bound|."""
        return relative_gap(self.lower_bound, self.upper_bound)


def relative_gap(lower: float, upper: float) -> float:
    """(upper - lower) / |upper|."""
    return (upper - lower) / max(abs(upper), float(np.finfo(float).tiny))
