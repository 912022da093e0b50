"""Proximal operators that are roots: of the logistic loss and of softmax."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float

# Newton's method for the softmax and the logistic prox: 7 and 4 steps reach 1e-12 on the worst found.
SOFTMAX_STEPS = 10
LOGISTIC_STEPS = 5
OMEGA_STEPS = 5


def logistic_prox(points: Float[Array, "n c"], step: Any) -> Float[Array, "n c"]:
    """The root m of m - a = step / (1 + exp(m)) for each of the `points` a.

    m -> -m, a -> -a - step maps the equation to itself, so only roots m >= 0 are sought. There
    m - step / (1 + exp(m)) is concave: Newton's method from below ascends to the root, and one
    step from anywhere, cut off at 0, leads below.
    """
    mirrored = points < -step / 2
    points = jnp.where(mirrored, -points - step, points)
    # Without the 1 the root is a + omega(log step - a), which is too large.
    start = points + wright_omega(jnp.log(step) - points)

    def newton(_, root):
        chance = jax.nn.sigmoid(-root)
        slope = 1 + step * chance * (1 - chance)
        return jnp.maximum(root - (root - points - step * chance) / slope, 0)

    root = jax.lax.fori_loop(0, LOGISTIC_STEPS, newton, jnp.maximum(start, 0))
    return jnp.where(mirrored, -root, root)


def softmax_prox(points: Float[Array, "n c"], steps: Float[Array, "n 1"]) -> Float[Array, "n c"]:
    """The rows w with w + step * softmax(w) = b for the rows b of `points`.

    With v = logsumexp(w), step * softmax(w)_k = omega(b_k - v + log step), Wright's function: omega +
    log omega = its argument. That these sum to step is one equation in v; its left side is convex
    and decreasing, so Newton's method ascends to the root from any start below.
    """
    mean = jnp.mean(points, axis=1, keepdims=True)
    count = points.shape[1]
    start = jnp.maximum(
        logsumexp(points, axis=1, keepdims=True) - steps, mean - steps / count + math.log(count)
    )

    def parts(level):
        return wright_omega(points - level + jnp.log(steps))

    def newton(_, level):
        omega = parts(level)
        return level + (row_sums(omega) - steps) / row_sums(omega / (1 + omega))

    return points - parts(jax.lax.fori_loop(0, SOFTMAX_STEPS, newton, start))


def wright_omega(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """omega > 0 with omega + log omega = x: Newton's method for log omega, from above, convex."""
    start = jnp.where(x > 1, jnp.log(jnp.maximum(x, 1)), jnp.minimum(x, 0))

    def newton(_, log):
        omega = jnp.exp(log)
        return log - (omega + log - x) / (1 + omega)

    log = jax.lax.fori_loop(0, OMEGA_STEPS, newton, start)
    return jnp.where(x > 1, x - log, jnp.exp(log))


def row_sums(weights: Any) -> Float[Array, "n 1"]:
    return jnp.sum(weights, axis=1, keepdims=True)
