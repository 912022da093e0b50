"""Euclidean projections onto the cones, with derivatives that stay finite everywhere."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def symmetrize(matrix: Float[Array, "side side"]) -> Float[Array, "side side"]:
    """The symmetric part (A + A') / 2."""
    return (matrix + matrix.T) / 2


def project_nonnegative(values: Float[Array, "..."]) -> Float[Array, "..."]:
    """Nearest entrywise nonnegative array. The derivative at 0 is 0; a NaN stays one."""
    return jnp.where(values <= 0, jnp.zeros_like(values), values)


@jax.custom_jvp
def project_second_order(point: Float[Array, " size"]) -> Float[Array, " size"]:
    """Nearest point of {(t, u): ||u||_2 <= t}, for `point` = (t, u) of shape `(size,)`.

    (t, u) itself inside the cone, 0 inside its polar, else (||u|| + t)/2 (1, u/||u||) (Parikh and
    Boyd, 2014, section 6.3.2). The derivative is finite everywhere: on the cone's boundary it is the
    identity, on the polar's boundary and at the apex it is 0; both are elements of the generalised
    Jacobian. Of one number it is `project_nonnegative`. A NaN spreads.
    """
    if point.shape[0] == 0:
        return point
    value, _ = _second_order_parts(point, jnp.zeros_like(point))
    return value


@project_second_order.defjvp
def _project_second_order_jvp(primals, tangents):
    (point,), (direction,) = primals, tangents
    if point.shape[0] == 0:
        return point, direction
    return _second_order_parts(point, direction)


def _second_order_parts(point: Array, direction: Array) -> tuple[Array, Array]:
    head, tail = point[0], point[1:]
    length = _safe_norm(tail)
    unit = tail / jnp.where(length > 0, length, 1)
    inside, polar = (length <= head) & (head > 0), length <= -head
    half = (head + length) / 2
    value = jnp.concatenate([half[None], half * unit])
    value = jnp.where(inside, point, jnp.where(polar, jnp.zeros_like(point), value))

    slope = head / jnp.where(length > 0, length, 1)
    along = jnp.sum(unit * direction[1:])
    rest = direction[1:] - along * unit
    both = (direction[0] + along) / 2
    tangent = jnp.concatenate([both[None], both * unit + (1 + slope) / 2 * rest])
    tangent = jnp.where(inside, direction, jnp.where(polar, jnp.zeros_like(direction), tangent))
    return value, tangent


def _safe_norm(values: Array) -> Array:
    """||values||_2 whose derivative at 0 is 0."""
    square = jnp.sum(values**2)
    zero = square == 0
    return jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, square)))


@jax.custom_jvp
def project_psd(matrix: Float[Array, "side side"]) -> Float[Array, "side side"]:
    """Nearest positive semidefinite matrix in the Frobenius norm.

    Only the symmetric part of `matrix` (shape `(side, side)`) counts. The derivative is the
    divided-difference formula (Lewis and Sendov, 2001): in the eigenbasis, entry (i, j) of the
    direction is multiplied by `(max(l_i, 0) - max(l_j, 0)) / (l_i - l_j)`. It is finite for every
    input, repeated and zero eigenvalues included. Where the projection is not differentiable (some
    eigenvalue is 0) the multiplier of two eigenvalues <= 0 is taken as 0, which is an element of
    the generalised Jacobian.
    """
    return _clip_spectrum(*jnp.linalg.eigh(symmetrize(matrix), symmetrize_input=False))


def _clip_spectrum(eigenvalues: Array, vectors: Array) -> Array:
    return _dot(vectors * project_nonnegative(eigenvalues), vectors.T)


@project_psd.defjvp
def _project_psd_jvp(primals, tangents):
    (matrix,), (direction,) = primals, tangents
    eigenvalues, vectors = jnp.linalg.eigh(symmetrize(matrix), symmetrize_input=False)
    rotated = _dot(_dot(vectors.T, symmetrize(direction)), vectors)
    tangent = _dot(_dot(vectors, _divided_differences(eigenvalues) * rotated), vectors.T)
    return _clip_spectrum(eigenvalues, vectors), tangent


def _divided_differences(eigenvalues: Float[Array, " side"]) -> Float[Array, "side side"]:
    """Slopes of t -> max(t, 0) between all pairs of eigenvalues, without any subtraction.

    Of two eigenvalues of one sign the slope is 1 or 0; of opposite signs it is p / (p - m), p > 0 >=
    m, whose denominator cannot cancel. No case divides by a difference of nearly equal numbers.
    """
    positive = eigenvalues > 0
    larger = jnp.maximum(eigenvalues[:, None], eigenvalues[None, :])
    smaller = jnp.minimum(eigenvalues[:, None], eigenvalues[None, :])
    mixed = positive[:, None] != positive[None, :]
    both = positive[:, None] & positive[None, :]
    slope = jnp.where(mixed, larger, 0) / jnp.where(mixed, larger - smaller, 1)
    return jnp.where(both, jnp.ones_like(slope), slope)


def _dot(left: Array, right: Array) -> Array:
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)
