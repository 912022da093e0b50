"""Three-operator splitting (Davis and Yin, 2017): min f(x) + g(x) + h(x).

f and g are given by their proximal operators (for indicator functions: projections), h by its
gradient. One iteration from z:

    x = prox_f(z),   w = prox_g(2 x - z - step grad h(x)),   z <- z + relaxation (w - x)

which for relaxation 1 is Davis and Yin (2017), algorithm 1, and Prakhya et al. (2025), eq. (TOS). For
convex f, g, h and a step below 2 / (Lipschitz constant of grad h) it converges; otherwise it is a
heuristic, and the residual says what was reached.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from ..pytrees import combine, norm, subtract


class DavisYinSolution(eqx.Module):
    """x = prox_f(z) in the domain of f, w in the domain of g; they agree at a solution.

    `residual` is ||w - x|| / (1 + ||x||).
    """

    x: PyTree
    w: PyTree
    z: PyTree
    residual: Float[Array, ""]
    steps: Int[Array, ""]


def davis_yin(
    prox_f: Callable[[PyTree], PyTree],
    prox_g: Callable[[PyTree], PyTree],
    gradient_h: Callable[[PyTree], PyTree],
    start: PyTree,
    *,
    step: float | Float[Array, ""],
    max_steps: int = 1000,
    tolerance: float = 0.0,
    relaxation: float = 1.0,
) -> DavisYinSolution:
    """Run the iteration from z = `start` until the residual is within `tolerance` or `max_steps`.

    `prox_f` and `prox_g` are the proximal operators for the step size that is used. Pure JAX: it
    runs under `jit` and `vmap`.
    """

    def advance(z):
        x = prox_f(z)
        w = prox_g(combine(1, combine(2, x, -1, z), -step, gradient_h(x)))
        return x, w

    def residual(x, w):
        return norm(subtract(w, x)) / (1 + norm(x))

    def go_on(carry):
        _, gap, count = carry
        return (count < max_steps) & (gap > tolerance)  # stops at NaN

    def iterate(carry):
        z, _, count = carry
        x, w = advance(z)
        return combine(1, z, relaxation, subtract(w, x)), residual(x, w), count + 1

    infinity = jnp.full((), jnp.inf, jnp.result_type(*jax.tree.leaves(start)))
    z, _, steps = jax.lax.while_loop(go_on, iterate, (start, infinity, 0))
    x, w = advance(z)
    return DavisYinSolution(x, w, z, residual(x, w), jnp.asarray(steps))
