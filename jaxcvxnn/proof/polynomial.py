"""Certificates for polynomial networks: from any residual, or any network, to a proven lower bound.

By strong duality (Bartan and Pilanci, 2021, theorem 1) the residual of an optimal network closes the
gap; that of another one proves less, and never too much.
"""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float

from ..arrays import Matrix, finite_residual
from ..convolution import ConvolutionalPolynomialNetwork, ConvolutionalProblem
from ..networks import AbstractTwoLayer, PolynomialNetwork, with_unit_neurons
from ..pricing.polynomial import PolynomialPrice, polynomial_price
from ..problem import TrainingProblem, in_float64, require_polynomial
from .dual_bound import dual_bound
from .network import NetworkCertificate

# How far the length of a neuron may be from one: rounding in float32, and some.
UNIT_LENGTH = 1e-5


class PolynomialCertificate(eqx.Module):
    """A proven statement: no polynomial network of any width has an objective below `lower_bound`.

    The proof: `scale` * `residual` (n, c) is feasible for the dual (Bartan and Pilanci, 2021, eq. 26),
    since no unit neuron has a price above `price.upper` for any output (in any pool).
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
    activation = require_polynomial(problem)
    problem = in_float64(problem)
    usable = _into_domain(problem, residual)
    slack = problem.loss.perturbation(usable, problem.Y)
    price = polynomial_price(usable, problem.features, activation, perturbation=slack)
    return _bounded(problem, usable, price)


def certify_polynomial(
    problem: TrainingProblem, network: AbstractTwoLayer, *, residual: Any = None
) -> NetworkCertificate:
    """How far a polynomial network can be from the global optimum of its problem, with proof.

    The lower bound is what the network's own residual proves: for an optimal network that is its
    objective. Another `residual` (n, c) may prove more, best that of a solution of the convex program:
    it is nearer to the dual optimum than that of a network, whose price is as far above the weight
    decay as the root of what its objective lacks. `neuron`, in the certificate, is the unit neuron that
    would improve the network most.

    **Raises** a `ValueError` for another activation than the problem's, weights that do not fit the
    data or are not finite, and neurons that are not of unit length, to which the problem and its bounds
    do not refer.
    """
    if require_polynomial(problem) != network.activation or not isinstance(
        network, PolynomialNetwork
    ):
        raise ValueError(
            f"The network's activation is {network.activation}, the problem's {problem.activation}."
        )
    problem, exact = in_float64(problem), in_float64(network)
    first = np.asarray(exact.first_layer)
    expected = (problem.features.shape[1], problem.Y.shape[1])
    biased = exact.b is not None
    if (len(first), exact.out_features) != expected or biased != problem.bias:
        raise ValueError(
            f"The network has {len(first)} weights per neuron, bias included, and "
            f"{exact.out_features} outputs; the problem has {expected[0]} and {expected[1]}."
        )
    _require_unit(first, np.asarray(exact.V))
    unit = with_unit_neurons(exact)
    with jax.enable_x64(True):
        upper = float(problem.objective(unit))
        own = np.asarray(problem.loss.gradient(unit.predict(problem.X), problem.Y))
    proofs = [certify_polynomial_residual(problem, R) for R in (own, residual) if R is not None]
    return _certificate(upper, problem, own, proofs)


def certify_convolutional_residual(
    problem: ConvolutionalProblem, residual: Any
) -> PolynomialCertificate:
    """`certify_polynomial_residual` for a convolutional problem; `price` has one entry per pool and
    output, those of a pool in a row.

    **Raises** a `ValueError` for a residual of another shape than Y (n, c), or not finite.
    """
    problem = in_float64(problem)
    usable = _into_domain(problem, residual)
    # 1/P sum_l R' phi(X_l u) is a price of all samples of the pool at once.
    repeated = np.tile(usable, (problem.pool, 1))
    slack = np.tile(problem.loss.perturbation(usable, problem.Y), problem.pool)
    found = [
        polynomial_price(
            repeated,
            pool.reshape(len(repeated), -1),
            problem.activation,
            perturbation=slack,
        )
        for pool in problem.pools
    ]
    uppers = np.concatenate([price.uppers for price in found])
    price = PolynomialPrice(
        lowers=np.concatenate([price.lowers for price in found]) / problem.pool,
        uppers=np.nextafter(uppers / problem.pool, np.inf),
        neurons=np.concatenate([price.neurons for price in found]),
    )
    return _bounded(problem, usable, price)


def certify_convolutional(
    problem: ConvolutionalProblem, network: ConvolutionalPolynomialNetwork, *, residual: Any = None
) -> NetworkCertificate:
    """`certify_polynomial` for a convolutional network; `neuron` is the best new filter (f,).

    **Raises** a `ValueError` for a network of another activation, pooling or shape, weights that are
    not finite, and filters that are not of unit length.
    """
    problem, network = in_float64(problem), in_float64(network)
    expected = (problem.patches.shape[2], len(problem.pools), problem.Y.shape[1])
    given = (len(network.filters), *network.weights.shape[1:])
    if given != expected:
        raise ValueError(
            f"The network has filters of {given[0]} entries, {given[1]} pools and {given[2]} outputs; "
            f"the problem has {expected[0]}, {expected[1]} and {expected[2]}."
        )
    _require_unit(network.filters, network.weights)
    network = ConvolutionalPolynomialNetwork(
        network.filters / np.linalg.norm(network.filters, axis=0),
        network.weights,
        network.activation,
        network.pool,
    )
    with jax.enable_x64(True):
        upper = float(problem.objective(network))
        outputs = network.predict(problem.patches)
        own = np.asarray(problem.loss.gradient(outputs, problem.Y))
    proofs = [certify_convolutional_residual(problem, R) for R in (own, residual) if R is not None]
    return _certificate(upper, problem, own, proofs)


def _bounded(problem: Any, residual: Matrix, price: PolynomialPrice) -> PolynomialCertificate:
    """What a residual in the loss's domain proves with this price."""
    weight_decay = float(problem.weight_decay)
    bound, scale = dual_bound(problem.loss, residual, problem.Y, weight_decay, price.upper)
    return PolynomialCertificate(bound, scale, residual, price)


def _certificate(
    upper: float, problem: Any, residual: Matrix, proofs: list[PolynomialCertificate]
) -> NetworkCertificate:
    """From the proof by the network's own residual, the first, and perhaps one by another."""
    own, best = proofs[0], max(proofs, key=lambda proof: proof.lower_bound)
    return NetworkCertificate(
        upper_bound=upper,
        lower_bound=best.lower_bound,
        weight_decay=float(problem.weight_decay),
        neuron=own.price.neuron,
        price=own.price.lower,
        price_bound=own.price.upper,
        bound_source="the network's own residual" if best is own else "the residual given",
        residual=residual,
    )


def _into_domain(problem: Any, residual: Any) -> Matrix:
    """The residual, checked, where the conjugate of the loss is finite."""
    return problem.loss.into_domain(finite_residual(residual, problem.Y), problem.Y)


def _require_unit(first: Matrix, second: Matrix) -> None:
    """A `ValueError` unless all weights are finite, and the columns of `first` of length one."""
    if not (np.all(np.isfinite(first)) and np.all(np.isfinite(second))):
        raise ValueError("The network's weights must be finite; they hold NaN or infinite entries.")
    lengths = np.linalg.norm(first, axis=0)
    if not np.all(np.abs(lengths - 1) <= UNIT_LENGTH):
        raise ValueError(
            "The network's neurons must be unit vectors, bias included; their lengths are "
            f"{lengths.min():.6g} to {lengths.max():.6g}."
        )
