"""What every pricing method returns: an interval for the price of the best new neuron."""

import equinox as eqx
import numpy as np
from jaxtyping import Float

from ..arrays import Matrix


class Price(eqx.Module):
    """`lower` <= max over |u| <= 1 of ||R' relu(F u)||_2 <= `upper` for R (n, c) and F (n, r).

    `neurons` (k, r) are unit directions of high price, the best first: it attains `lower`. `upper` is
    proven, with the rounding errors of its own computation included. `cells` counts the pieces of
    the sphere that were looked at.
    """

    lower: float
    upper: float
    neurons: Float[np.ndarray, "k r"]
    method: str
    cells: int

    @property
    def neuron(self) -> Float[np.ndarray, " r"] | None:
        """The best of the neurons; None if there are none."""
        return self.neurons[0] if len(self.neurons) else None


def prices(residual: Matrix, features: Matrix, neurons: Matrix) -> Matrix:
    """||R' relu(F u)||_2 of each row u of `neurons` (k, r)."""
    return np.linalg.norm(np.maximum(neurons @ features.T, 0) @ residual, axis=1)
