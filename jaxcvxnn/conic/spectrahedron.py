"""Neural spectrahedra (Bartan and Pilanci, 2021): projection, distance and support function.

    +M(t) = t conv({(u, 1)(u, 1)' : |u| = 1} and 0) = {Z PSD, tr Z_1 = Z_4 <= t}          (18), (19)
    M(t)  = {Z - Z' : Z in +M(r), Z' in +M(t - r), 0 <= r <= t}                                 (14)

for Z = [[Z_1, Z_2], [Z_2', Z_4]] of order d + 1. With G = diag(I, -1) the constraints of (19) are
<G, Z> = 0 and, given that, tr Z <= 2 t. A neuron of weight w is w (u, 1)(u, 1)', and a network's
output is a linear function of Z - Z'. Derivations: docs/math/spectrahedra.md, "Projection onto
neural spectrahedra".
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, ScalarLike

from jaxcone.extend import matmul

from ..activations import Polynomial

# Newton's methods below double their digits; the rest is for the way there.
PROJECTION_STEPS = 80
SPHERE_STEPS = 50


def symmetric_part(matrix: Any) -> Float[Array, "side side"]:
    """(W + W') / 2."""
    matrix = jnp.asarray(matrix)
    return (matrix + matrix.T) / 2


def lorentz_form(side: int, dtype: Any = float) -> Float[Array, "side side"]:
    """G = diag(1, ..., 1, -1), whose null vectors are the multiples of (u, 1) with |u| = 1."""
    return jnp.diag(jnp.ones(side, dtype).at[-1].set(-1))


def coefficient_matrix(activation: Polynomial, side: int) -> Float[np.ndarray, "side side"]:
    """C with phi(x'u) = (u, 1)' (C * (x, 1)(x, 1)') (u, 1), entry by entry: a, b/2 and c."""
    coefficients = np.full((side, side), activation.a)
    coefficients[:, -1] = coefficients[-1, :] = activation.b / 2
    coefficients[-1, -1] = activation.c
    return coefficients


def project_neural_spectrahedron(
    matrix: Float[Array, "side side"], bound: ScalarLike = np.inf
) -> Float[Array, "side side"]:
    """The nearest point of +M(t), t = `bound` >= 0, in the Frobenius norm; infinity is no bound.

    Only the symmetric part of `matrix` counts. With multipliers mu of <G, Z> = 0 and nu of tr Z <= 2 t
    the point is the positive part of W - mu G - nu I. For given mu, nu is found by sorting the
    eigenvalues; mu is the root of a monotone function, by Newton's method kept inside a bracket, each
    step one eigendecomposition. Pure JAX, for `jit` and `vmap`; not differentiable.
    """
    target = symmetric_part(matrix)
    dtype, side = target.dtype, target.shape[0]
    form = lorentz_form(side, dtype)
    size = jnp.sqrt(jnp.sum(target**2))
    unit = jnp.where(size > 0, size, 1)
    target, trace_bound = target / unit, 2 * jnp.asarray(bound, dtype) / unit
    eps = jnp.finfo(dtype).eps

    def at(mu):
        return _truncated(target - mu * form, trace_bound, form)

    def unsettled(state):
        low, high, _, value, slope, trace, _, steps = state
        # Below a rounding of mu, or of the terms of the value.
        settled = jnp.abs(value) <= 4 * eps * jnp.maximum(trace, -slope)
        return (steps < PROJECTION_STEPS) & (high - low > 2 * eps) & ~settled

    def step(state):
        low, high, mu, value, slope, _, previous, steps = state
        low, high = jnp.where(value > 0, mu, low), jnp.where(value > 0, high, mu)
        newton = mu - value / jnp.where(slope < 0, slope, -1)
        # At kinks Newton's method may go to and fro: if it did not halve the value, halve the bracket.
        usable = (slope < 0) & (newton >= low) & (newton <= high)
        usable &= jnp.abs(value) <= previous / 2
        mu = jnp.where(usable, newton, (low + high) / 2)
        previous = jnp.where(usable, jnp.abs(value), jnp.inf)
        _, value, slope, trace = at(mu)
        return low, high, mu, value, slope, trace, previous, steps + 1

    start, infinity = jnp.zeros((), dtype), jnp.full((), jnp.inf, dtype)
    _, value, slope, trace = at(start)
    # Beyond twice the norm of W the eigenvectors that count are on one side of the cone.
    state = (start - 2, start + 2, start, value, slope, trace, infinity, jnp.zeros((), jnp.int32))
    mu = jax.lax.while_loop(unsettled, step, state)[2]
    return unit * at(mu)[0]


def neural_spectrahedron_distance(
    matrix: Float[Array, "side side"], bound: ScalarLike = np.inf
) -> Float[Array, ""]:
    """The Frobenius distance of a symmetric matrix from +M(`bound`)."""
    matrix = symmetric_part(matrix)
    return jnp.linalg.norm(matrix - project_neural_spectrahedron(matrix, bound))


def sphere_maximum(
    matrix: Float[Array, "side side"],
) -> tuple[Float[Array, ""], Float[Array, " d"], Float[Array, ""]]:
    """(max over |u| = 1 of (u, 1)' M (u, 1), a maximiser u, the multiplier rho of |u|^2 = 1).

    By the S-procedure with equality (Bartan and Pilanci, 2021, corollary 1) the maximum is the least
    lambda for which some rho makes diag(rho I, lambda - rho) - M positive semidefinite. With M =
    [[A, g], [g', c]] rho solves |(rho I - A)^-1 g| = 1 above the largest eigenvalue of A, or is that
    eigenvalue where no such root exists (the hard case). The value has a derivative, (u, 1)(u, 1)';
    u and rho have none. Pure JAX, for `jit` and `vmap`.
    """
    matrix = symmetric_part(matrix)
    u, multiplier = _maximiser(jax.lax.stop_gradient(matrix))
    lifted = jnp.append(u, jnp.ones((), u.dtype))
    return matmul(lifted, matmul(matrix, lifted)), u, multiplier


def support_function(matrix: Float[Array, "side side"]) -> Float[Array, ""]:
    """max of <M, Z - Z'> over M(1): the largest |(u, 1)' M (u, 1)| with |u| = 1.

    Of M(t) it is t times that. For M = sum_i r_i C * (x_i, 1)(x_i, 1)' this is the price
    max |r' phi(X u)| of Bartan and Pilanci (2021), eq. (26).
    """
    return jnp.maximum(sphere_maximum(matrix)[0], sphere_maximum(-jnp.asarray(matrix))[0])


def _truncated(matrix: Array, trace_bound: Array, form: Array):
    """(P, <G, P>, the latter's derivative in mu, tr P), P the nearest PSD matrix of bounded trace.

    `matrix` is W - mu G. P = Q (Lambda - nu)_+ Q'; d P is the divided differences' formula, less the
    change of nu where the bound is active.
    """
    values, basis = jnp.linalg.eigh(matrix, symmetrize_input=False)
    shift = _shift(values, trace_bound)
    kept = jnp.maximum(values - shift, 0)
    turned = matmul(basis.T, matmul(form, basis))
    value = jnp.sum(kept * jnp.diag(turned))
    above = values > shift
    mixed = above[:, None] != above[None, :]
    larger = jnp.maximum(kept[:, None], kept[None, :])
    gaps = jnp.abs(values[:, None] - values[None, :])
    quotients = jnp.where(mixed, larger / jnp.where(gaps > 0, gaps, 1), 0)
    quotients = jnp.where(above[:, None] & above[None, :], 1, quotients)
    slope = -jnp.sum(quotients * turned**2)
    along = jnp.sum(jnp.where(above, jnp.diag(turned), 0))
    slope = slope + jnp.where(shift > 0, along**2 / jnp.maximum(jnp.sum(above), 1), 0)
    return matmul(basis * kept, basis.T), value, slope, jnp.sum(kept)


def _shift(values: Array, bound: Array) -> Array:
    """The least nu >= 0 with sum (values - nu)_+ <= `bound`; `values` ascend."""
    descending = jnp.flip(values)
    counts = jnp.arange(1, len(values) + 1)
    candidates = (jnp.cumsum(descending) - bound) / counts
    # The candidates rise while the next value is above them: the largest is the right one.
    return jnp.maximum(jnp.max(candidates), 0)


def _maximiser(matrix: Array) -> tuple[Array, Array]:
    """u and rho of `sphere_maximum`."""
    values, basis = jnp.linalg.eigh(matrix[:-1, :-1])
    slope = matmul(basis.T, matrix[:-1, -1])
    gaps = values[-1] - values
    squares = slope**2

    def safe_divide(top, bottom):
        return jnp.where(bottom > 0, top / jnp.where(bottom > 0, bottom, 1), 0)

    # delta = rho - lambda_max: |slope_top| <= delta <= |slope|. 1 / |(delta + gaps)^-1 slope| is
    # concave, so that from the left Newton's method ascends to where it is one.
    def newton(_, delta):
        length = jnp.sqrt(jnp.sum(safe_divide(squares, (delta + gaps) ** 2)))
        fall = jnp.sum(safe_divide(squares, (delta + gaps) ** 3))
        step = safe_divide(length**2 * (length - 1), fall)
        return jnp.minimum(delta + jnp.maximum(step, 0), highest)

    highest = jnp.sqrt(jnp.sum(squares))
    top = jnp.sqrt(jnp.sum(jnp.where(gaps == 0, squares, 0)))
    delta = jax.lax.fori_loop(0, SPHERE_STEPS, newton, top)
    inner = safe_divide(slope, delta + gaps)
    # In the hard case the top eigenvector makes up what is missing of the length.
    rest = 1 - jnp.sum(inner[:-1] ** 2)
    sign = jnp.where(slope[-1] < 0, -1, 1).astype(slope.dtype)
    inner = inner.at[-1].set(sign * jnp.sqrt(jnp.maximum(rest, inner[-1] ** 2)))
    u = matmul(basis, inner)
    return u / jnp.linalg.norm(u), values[-1] + delta
