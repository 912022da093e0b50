"""What is proven about one network: its objective, and a bound that no other one can beat."""

import equinox as eqx
import numpy as np
from jaxtyping import Float

from ..bound import relative_gap


class NetworkCertificate(eqx.Module):
    """A proven statement about a network: its objective is `upper_bound`, and no two-layer
    network of any width with the same activation has one below `lower_bound`.

    `neuron` (d,), a unit vector (with its bias last, where there are biases), is the direction in
    which a new neuron would improve the network most; `price` its gain per unit of weight, so that
    it pays exactly if `price` > weight decay; `price_bound` is proven for all neurons. `bound_source`
    tells what proved the lower bound.
    """

    upper_bound: float
    lower_bound: float
    weight_decay: float
    neuron: Float[np.ndarray, " d"] | None
    price: float
    price_bound: float
    bound_source: str
    residual: Float[np.ndarray, "n c"]

    @property
    def relative_gap(self) -> float:
        """(upper_bound - lower_bound) / |upper_bound|."""
        return relative_gap(self.lower_bound, self.upper_bound)

    def __str__(self) -> str:
        ratio = self.price / self.weight_decay
        verdict = f"a new neuron pays {ratio:.6g} times its weight decay"
        if self.price_bound <= self.weight_decay * (1 + 1e-9):
            verdict = "no new neuron pays"
        return "\n".join(
            [
                f"upper bound    {self.upper_bound:.9g}  (objective of this network)",
                f"lower bound    {self.lower_bound:.9g}  (certified: {self.bound_source})",
                f"relative gap   {100 * self.relative_gap:.3g} %",
                f"best neuron    {verdict}",
            ]
        )
