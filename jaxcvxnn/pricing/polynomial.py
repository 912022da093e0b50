"""The price of polynomial neurons: a quadratic function's maximum on the sphere, with a proof.

For phi(t) = a t^2 + b t + c and one output, r' phi(X u) = (u, 1)' M (u, 1) with M = sum_i r_i C *
(x_i, 1)(x_i, 1)'. On |u| = 1 it is at most lambda wherever diag(rho I, lambda - rho) - M is positive
semidefinite for some rho, and by the S-procedure the best such lambda is the maximum itself: Bartan
and Pilanci (2021), corollary 1 and eq. (28). docs/math/spectrahedra.md, "Polynomial neurons".
"""

import math
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float

from jaxcone import verified

from ..activations import Polynomial
from ..arrays import Matrix, finite_matrix
from ..conic.spectrahedron import coefficient_matrix, sphere_maximum

# How often the slack of a proof may double, from a rounding to far beyond any matrix of size one.
DOUBLINGS = 60


class PolynomialPrice(eqx.Module):
    """`lowers`[k] <= max over |u| = 1 of |R_k' phi(X u)| <= `uppers`[k] for each output k.

    `neurons` (c, d) are unit vectors that attain the `lowers`, which are ordinary float64 values;
    the `uppers` are proven, with the rounding errors of their own computation included.
    """

    lowers: Float[np.ndarray, " c"]
    uppers: Float[np.ndarray, " c"]
    neurons: Float[np.ndarray, "c d"]

    @property
    def lower(self) -> float:
        """The largest over the outputs."""
        return float(np.max(self.lowers))

    @property
    def upper(self) -> float:
        """The largest over the outputs: with weight decay on sum |v_j|_1 it is what counts."""
        return float(np.max(self.uppers))

    @property
    def neuron(self) -> Float[np.ndarray, " d"]:
        """The neuron of the highest price."""
        return self.neurons[int(np.argmax(self.lowers))]


def polynomial_price(
    residual: Any,
    features: Any,
    activation: Polynomial,
    *,
    perturbation: Float[Any, " n"] | None = None,
) -> PolynomialPrice:
    """Prices of the best unit neurons for a residual R (n, c) or (n,) and features X (n, d).

    A neuron whose price for output k exceeds the weight decay lowers the objective of (20), if it is
    added with an output weight of the sign of -R_k' phi(X u). `perturbation` (n,) bounds the distance
    of the exact residual's rows from R; the `uppers` then hold for the exact one. On the host.

    **Raises** a `ValueError` for shapes that do not match, and entries that are not finite.
    """
    features = finite_matrix(features, "features")
    values = np.asarray(residual, np.float64)
    values = values[:, None] if values.ndim == 1 else values
    values = finite_matrix(values, "residual", rows=len(features))
    rows = np.column_stack([features, np.ones(len(features))])
    coefficients = coefficient_matrix(activation, rows.shape[1])
    lifted = [_quadratic_form(rows, column, coefficients) for column in values.T]
    found = [_price(matrix, error) for matrix, error in lifted]
    extra = 0.0
    if perturbation is not None:
        extra = float(perturbation @ _largest_activations(features, activation))
        extra *= verified.INFLATION
    return PolynomialPrice(
        lowers=np.array([lower for lower, _, _ in found]),
        uppers=np.array([verified.above(upper + extra) for _, upper, _ in found]),
        neurons=np.stack([neuron for _, _, neuron in found]),
    )


def pooled_price(
    residual: Matrix, pools: Matrix, activation: Polynomial, *, perturbation: Matrix
) -> PolynomialPrice:
    """Prices of filters in each of g pools of p patches, (g, p, n, f), for R (n, c).

    phi is the mean of phi(X_l u) over the patches l of a pool. One entry per pool and output, those
    of a pool in a row. Dense layers have one pool of one patch.
    """
    size = pools.shape[1]
    # 1/p sum_l R' phi(X_l u) is a price of all samples of the pool at once.
    repeated, slack = np.tile(residual, (size, 1)), np.tile(perturbation, size)
    found = [
        polynomial_price(repeated, pool.reshape(len(repeated), -1), activation, perturbation=slack)
        for pool in pools
    ]
    uppers = np.concatenate([price.uppers for price in found])
    return PolynomialPrice(
        lowers=np.concatenate([price.lowers for price in found]) / size,
        uppers=uppers if size == 1 else np.nextafter(uppers / size, np.inf),
        neurons=np.concatenate([price.neurons for price in found]),
    )


@np.errstate(over="ignore", invalid="ignore")  # what overflows has no finite price
def _quadratic_form(rows: Matrix, weights: Matrix, coefficients: Matrix) -> tuple[Matrix, Matrix]:
    """M = C * sum_i r_i f_i f_i', entry by entry, and a bound on its error."""
    gram, size, error = _weighted_gram(rows, weights)
    matrix = coefficients * gram
    error = np.abs(coefficients) * (error + 2 * verified.UNIT * size) * verified.INFLATION
    return matrix, error + verified.SMALLEST_NORMAL


def _weighted_gram(rows: Matrix, weights: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    """F' diag(r) F, the same of all absolute values, and a bound on the former's error.

    Summed in blocks of about sqrt(n) rows, so that the bound grows like sqrt(n).
    """
    count, side = rows.shape
    block = math.isqrt(count - 1) + 1
    blocks = -(-count // block)
    padding = ((0, block * blocks - count), (0, 0))
    left = np.pad(rows, padding).reshape(blocks, block, side)
    right = np.pad(weights[:, None] * rows, padding).reshape(blocks, block, side)
    gram = np.sum(left.swapaxes(1, 2) @ right, axis=0)
    size = np.sum(np.abs(left).swapaxes(1, 2) @ np.abs(right), axis=0)
    error = verified.gamma(block + blocks + 6) * size * verified.INFLATION
    error = error + count * verified.SMALLEST_NORMAL * (1 + np.max(np.abs(rows)))
    return (gram + gram.T) / 2, np.maximum(size, size.T), np.maximum(error, error.T)


def _price(matrix: Matrix, error: Matrix) -> tuple[float, float, Matrix]:
    """(value, proven bound, neuron) of max over |u| = 1 of |(u, 1)' M (u, 1)|."""
    size = float(np.max(np.abs(matrix) + error))
    if not math.isfinite(size):
        return 0.0, math.inf, np.eye(1, len(matrix) - 1)[0]
    if not np.any(matrix):  # of rounding alone, and of |(u, 1)|^2 = 2
        bound = 2 * verified.norm_bound(error) * verified.INFLATION
        return 0.0, verified.above(bound), np.eye(1, len(matrix) - 1)[0]
    # Units of size one by a power of two: exact, but for what underflows.
    exponent = int(np.frexp(size)[1])
    matrix = np.ldexp(matrix, -exponent)
    error = np.ldexp(error, -exponent) + verified.SMALLEST_NORMAL
    with jax.enable_x64(True):
        found = _both_maxima(np.stack([matrix, -matrix]))
    values, neurons, multipliers = (np.asarray(part) for part in found)
    bounds = [
        _proven_maximum(signed, error, float(value), float(multiplier))
        for signed, value, multiplier in zip((matrix, -matrix), values, multipliers, strict=True)
    ]
    best = int(np.argmax(values))
    upper = verified.above(float(np.ldexp(max(*bounds, 0.0), exponent)))
    lower = float(np.ldexp(max(values[best], 0.0), exponent))
    return min(lower, upper), upper, neurons[best]


_both_maxima = jax.jit(jax.vmap(sphere_maximum))


def _proven_maximum(matrix: Matrix, error: Matrix, value: float, multiplier: float) -> float:
    """A proven upper bound on (u, 1)' A (u, 1), |u| = 1, for every A within `error` of `matrix`.

    With s the slack that the proof needs it is 2 s above `value`. Infinite if there is none.
    """
    slack = max(verified.norm_bound(error), len(matrix) * verified.UNIT)
    for _ in range(DOUBLINGS):
        rho, bound = multiplier + slack, value + 2 * slack
        diagonal = np.append(np.full(len(matrix) - 1, rho), bound - rho)
        rounding = 4 * verified.UNIT * (abs(rho) + abs(bound) + np.abs(np.diag(matrix)))
        if verified.is_positive_definite(np.diag(diagonal) - matrix, error + np.diag(rounding)):
            return bound
        slack *= 2
    return math.inf


def _largest_activations(features: Matrix, activation: Polynomial) -> Matrix:
    """Bounds on |phi(x_i'u)|, |u| = 1: |a| |x_i|^2 + |b| |x_i| + |c|."""
    lengths = verified.vector_norm_bound(features)
    sizes = (abs(activation.a) * lengths + abs(activation.b)) * lengths + abs(activation.c)
    return sizes * verified.INFLATION
