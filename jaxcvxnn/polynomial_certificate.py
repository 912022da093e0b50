"""Certificates for polynomial networks: from any residual, or any network, to a proven lower bound.

By strong duality (Bartan and Pilanci, 2021, theorem 1) the residual of an optimal network closes the
gap; that of another one proves less, and never too much.
"""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float

from .activations import Polynomial
from .dual_bound import dual_bound
from .network_certificate import NetworkCertificate
from .networks import PolynomialNetwork, two_layer
from .pricing.price import finite_matrix
from .pricing.sphere import PolynomialPrice, polynomial_price
from .problem import TrainingProblem, in_float64

# How far the length of a neuron may be from one: rounding in float32, and some.
UNIT_LENGTH = 1e-5


class PolynomialCertificate(eqx.Module):
    """A proven statement: no polynomial network of any width has an objective below `lower_bound`.

    The proof: `scale` * `residual` (n, c) is feasible for the dual (Bartan and Pilanci, 2021, eq. 26),
    since no unit neuron has a price above `price.upper` for any output.
    """

    lower_bound: float
    scale: float
    residual: Float[np.ndarray, "n c"]
    price: PolynomialPrice


def certify_polynomial_residual(problem: TrainingProblem, residual: Any) -> PolynomialCertificate:
    """The lower bound that a residual proves: any R (n, c), best the gradient of the loss at a good
    network's outputs.

    **Raises** a `ValueError` for another activation than a polynomial, a residual of another shape
    than Y or with entries that are not finite.
    """
    _require_polynomial(problem)
    problem = in_float64(problem)
    residual = finite_matrix(residual, "residual", rows=len(problem.Y))
    if residual.shape != problem.Y.shape:
        raise ValueError(
            f"residual must have the shape of Y, {problem.Y.shape}; its shape is {residual.shape}."
        )
    usable = problem.loss.into_domain(residual, problem.Y)
    slack = problem.loss.perturbation(usable, problem.Y)
    price = polynomial_price(usable, problem.features, problem.activation, perturbation=slack)
    weight_decay = float(problem.weight_decay)
    bound, scale = dual_bound(problem.loss, usable, problem.Y, weight_decay, price.upper)
    return PolynomialCertificate(bound, scale, usable, price)


def certify_polynomial(problem: TrainingProblem, network: PolynomialNetwork) -> NetworkCertificate:
    """How far a polynomial network can be from the global optimum of its problem, with proof.

    The lower bound is what the network's own residual proves: for an optimal network that is its
    objective. `neuron`, in the certificate, is the unit neuron that would improve the network most.

    **Raises** a `ValueError` for another activation than the problem's, weights that do not fit the
    data or are not finite, and neurons that are not of unit length, to which the problem and its bounds
    do not refer.
    """
    _require_polynomial(problem)
    problem = in_float64(problem)
    network = _with_unit_neurons(problem, network)
    with jax.enable_x64(True):
        upper = float(problem.objective(network))
        residual = np.asarray(problem.loss.gradient(network.predict(problem.X), problem.Y))
    proof = certify_polynomial_residual(problem, residual)
    return NetworkCertificate(
        upper_bound=upper,
        lower_bound=proof.lower_bound,
        weight_decay=float(problem.weight_decay),
        neuron=proof.price.neuron,
        price=proof.price.lower,
        price_bound=proof.price.upper,
        bound_source="the network's own residual",
        residual=residual,
    )


def _with_unit_neurons(problem: TrainingProblem, network: PolynomialNetwork) -> Any:
    """The network in float64, its neurons' lengths 1 up to rounding."""
    exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), network)
    for name, part in (("U", exact.U), ("V", exact.V), ("b", exact.b)):
        if part is not None and not np.all(np.isfinite(part)):
            raise ValueError(
                f"The network's {name} must be finite; it holds NaN or infinite entries."
            )
    first = np.asarray(exact.first_layer)
    expected = (problem.features.shape[1], problem.Y.shape[1])
    if (len(first), exact.out_features) != expected or (exact.b is not None) != problem.bias:
        raise ValueError(
            f"The network has {len(first)} weights per neuron, bias included, and "
            f"{exact.out_features} outputs; the problem has {expected[0]} and {expected[1]}."
        )
    lengths = np.linalg.norm(first, axis=0)
    if not np.all(np.abs(lengths - 1) <= UNIT_LENGTH):
        raise ValueError(
            "The network's neurons must be unit vectors, bias included; their lengths are "
            f"{lengths.min():.6g} to {lengths.max():.6g}."
        )
    bias = None if exact.b is None else exact.b / lengths
    return two_layer(exact.U / lengths, exact.V, bias, activation=network.activation)


def _require_polynomial(problem: TrainingProblem) -> None:
    if not isinstance(problem.activation, Polynomial):
        raise ValueError(
            f"This takes polynomial activations; the problem's activation is {problem.activation}."
        )
