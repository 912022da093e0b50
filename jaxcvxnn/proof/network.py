"""What is proven about one network: its objective, and a bound that no other one can beat."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float

from ..bound import AbstractBounded
from ..convolution import ConvolutionalPolynomialNetwork, ConvolutionalProblem
from ..networks import AbstractTwoLayer, PolynomialNetwork, with_unit_neurons
from ..pricing.budget import Budget
from ..pricing.pricer import Pricer
from ..problem import TrainingProblem, in_float64, require_same_activation
from .residual import certify_residual

# How far the length of a polynomial neuron may be from one: rounding in float32, and some.
UNIT_LENGTH = 1e-5


class NetworkCertificate(AbstractBounded):
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

    def better(self, lower_bound: float, source: str) -> "NetworkCertificate":
        """With this lower bound, if it is the larger one."""
        if lower_bound <= self.lower_bound:
            return self
        return eqx.tree_at(lambda c: (c.lower_bound, c.bound_source), self, (lower_bound, source))

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


def certify_network(
    problem: TrainingProblem | ConvolutionalProblem,
    network: AbstractTwoLayer | ConvolutionalPolynomialNetwork,
    *,
    residual: Any = None,
    pricer: Pricer | None = None,
    budget: Budget | None = None,
    method: str = "auto",
) -> NetworkCertificate:
    """How far a network can be from the global optimum of its problem, by its own residual.

    For an optimal network the lower bound is its objective. Another `residual` (n, c) may prove more,
    best that of a solution of a convex program: it is nearer to the dual optimum than that of a
    network, whose price is as far above the weight decay as the root of what its objective lacks.
    `neuron`, in the certificate, is the one that would improve the network most; a filter (f,) where
    the problem is convolutional. `jaxcvxnn.certify` goes on where this leaves a gap.

    **Arguments:** `pricer`, `budget` and `method` as in `certify_residual`.

    **Raises** a `ValueError` for another activation than the problem's, weights that do not fit the
    data or are not finite, and neurons of polynomials that are not of unit length, to which the problem
    and its bounds do not refer.
    """
    problem, network = in_float64(problem), _fitting(problem, in_float64(network))
    with jax.enable_x64(True):
        upper = float(problem.objective(network))  # pyright: ignore[reportArgumentType]
        samples = problem.patches if isinstance(problem, ConvolutionalProblem) else problem.X
        own = np.asarray(problem.loss.gradient(network.predict(samples), problem.Y))
    first = None
    if isinstance(network, AbstractTwoLayer):
        first = np.asarray(network.first_layer).T
    proof = certify_residual(problem, own, pricer, budget, method=method, neurons=first)
    found = NetworkCertificate(
        upper_bound=upper,
        lower_bound=proof.lower_bound,
        weight_decay=float(problem.weight_decay),
        neuron=proof.proof.neuron,
        price=proof.proof.lower,
        price_bound=proof.proof.upper,
        bound_source="the network's own residual",
        residual=own,
    )
    if residual is None:
        return found
    other = certify_residual(problem, residual, pricer, budget, method=method)
    return found.better(other.lower_bound, "the residual given")


def _fitting(problem: Any, network: Any) -> Any:
    """The network, with unit neurons if it is of polynomials; a `ValueError` where it does not fit."""
    if isinstance(problem, ConvolutionalProblem):
        return _fitting_filters(problem, network)
    require_same_activation(problem, network)
    given = network.in_features, network.out_features
    expected = problem.X.shape[1], problem.Y.shape[1]
    if given != expected:
        raise ValueError(
            f"The network maps {given[0]} features to {given[1]} outputs; the data have {expected[0]} "
            f"features and {expected[1]} outputs (U has shape (d, m), V (m, c))."
        )
    if (network.b is not None) != problem.bias:
        have = ["no biases", "biases"]
        raise ValueError(
            f"The network has {have[network.b is not None]}, the problem {have[problem.bias]}."
        )
    _require_finite(network.first_layer, network.V)
    if isinstance(network, PolynomialNetwork):
        _require_unit(np.asarray(network.first_layer))
        return with_unit_neurons(network)
    return network


def _fitting_filters(
    problem: ConvolutionalProblem, network: ConvolutionalPolynomialNetwork
) -> ConvolutionalPolynomialNetwork:
    expected = (problem.patches.shape[2], len(problem.pools), problem.Y.shape[1])
    given = (len(network.filters), *network.weights.shape[1:])
    if given != expected:
        raise ValueError(
            f"The network has filters of {given[0]} entries, {given[1]} pools and {given[2]} outputs; "
            f"the problem has {expected[0]}, {expected[1]} and {expected[2]}."
        )
    _require_finite(network.filters, network.weights)
    _require_unit(network.filters)
    return ConvolutionalPolynomialNetwork(
        network.filters / np.linalg.norm(network.filters, axis=0),
        network.weights,
        network.activation,
        network.pool,
    )


def _require_finite(*weights: Any) -> None:
    if not all(np.all(np.isfinite(part)) for part in weights):
        raise ValueError("The network's weights must be finite; they hold NaN or infinite entries.")


def _require_unit(first: np.ndarray) -> None:
    """A `ValueError` unless the columns of `first` have length one."""
    lengths = np.linalg.norm(first, axis=0)
    if not np.all(np.abs(lengths - 1) <= UNIT_LENGTH):
        raise ValueError(
            "The network's neurons must be unit vectors, bias included; their lengths are "
            f"{lengths.min():.6g} to {lengths.max():.6g}."
        )
