"""Proofs that a program has no feasible or no bounded point, found along the way of an iteration.

    primal infeasible:  y in K*,  A* y = 0,  <b, y> = -1          (Farkas)
    dual infeasible:    A x + s = 0,  s in K,  P x = 0,  <c, x> = -1   (a ray of descent)

Where there is no solution, differences of a splitting method's iterates converge to such a point
(Banjac, Goulart, Stellato and Boyd, 2019), and so do the directions of the iterates. A candidate
counts only if its equations hold both against its own size in equilibrated units and against its
objective in the user's units: each test alone has been seen to certify feasible programs.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..program import AbstractConeProgram, Scaling
from ..pytrees import after, combine, inner, norm
from ..solution import Status
from .record import choose

Triple = tuple[PyTree, PyTree, PyTree]


def find_ray(
    program: AbstractConeProgram,
    tangent_factor: PyTree,
    scaled: AbstractConeProgram,
    scaling: Scaling,
    tolerance: Float[Array, ""],
    primal: list[PyTree],
    dual: list[PyTree],
) -> tuple[Status, Triple, Float[Array, ""]]:
    """The kind of the best ray among candidates x, and y in K*, in equilibrated units; and that ray.

    Third, by how much the nearest candidate of either kind misses being a proof; inf if none is one.

    The status is `running` if no candidate passes. The ray has its x and s, or its y, in the user's
    units with objective -1; all else is NaN.
    """
    y_miss, (y,) = _least(lambda y: _farkas(program, scaled, scaling, tangent_factor, y), dual)
    x_miss, (x, s) = _least(
        lambda x: _descent(program, scaled, scaling, x), [after(x, dual) for x in primal]
    )
    infeasible, unbounded = y_miss <= tolerance, x_miss <= tolerance
    kind = Status.where(unbounded, Status.dual_infeasible, Status.running)
    kind = Status.where(infeasible, Status.primal_infeasible, kind)
    rays = (
        _nan_unless(unbounded & ~infeasible, x),
        _nan_unless(unbounded & ~infeasible, s),
        _nan_unless(infeasible, y),
    )
    return kind, rays, jnp.minimum(y_miss, x_miss)


def _farkas(program, scaled, scaling, tangent_factor, y):
    own = norm(scaled.adjoint(y)) / norm(y)
    _, _, y = scaling.unscale(_zero_like(scaled.linear()), _zero_like(y), y)
    gain = -inner(program.offset(), y)
    pull = program.tangent(tangent_factor, program.adjoint(y))
    miss = jnp.maximum(own, norm(pull) / gain)
    return _finite(miss, gain), (jax.tree.map(lambda leaf: leaf / gain, y),)


def _descent(program, scaled, scaling, candidate):
    image = scaled.operator(candidate)
    s = scaled.project(combine(-1, image, 0, image))
    off = jnp.maximum(norm(combine(1, image, 1, s)), norm(scaled.quadratic(candidate)))
    own = off / norm(candidate)
    x, s, _ = scaling.unscale(candidate, s, _zero_like(s))
    gain = -inner(program.linear(), x)
    off = jnp.maximum(norm(combine(1, program.operator(x), 1, s)), norm(program.quadratic(x)))
    miss = jnp.maximum(own, off / gain)
    return _finite(miss, gain), tuple(
        jax.tree.map(lambda leaf: leaf / gain, part) for part in (x, s)
    )


def onto_dual(program: AbstractConeProgram, point: PyTree) -> PyTree:
    """The nearest point of K*, by Moreau's decomposition."""
    return combine(1, point, 1, program.project(combine(-1, point, 0, point)))


def _finite(miss: Array, gain: Array) -> Array:
    sound = (gain > 0) & jnp.isfinite(gain) & jnp.isfinite(miss)
    return jnp.where(sound, miss, jnp.inf)


def _least(rate: Callable, candidates: list[PyTree]) -> tuple[Array, Any]:
    """The least miss and its point; in a loop, since each may factor, and is compiled."""
    if len(candidates) == 1:
        return rate(candidates[0])
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *candidates)
    first = jax.tree.map(
        lambda leaf: jnp.full(leaf.shape, jnp.inf, leaf.dtype), jax.eval_shape(rate, candidates[0])
    )

    def nearer(best, candidate):
        found = rate(candidate)
        return choose(found[0] < best[0], found, best), None

    return jax.lax.scan(nearer, first, stacked)[0]


def _nan_unless(condition: Array, tree: PyTree) -> PyTree:
    return choose(condition, tree, jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), tree))


def _zero_like(tree: PyTree) -> PyTree:
    return jax.tree.map(jnp.zeros_like, tree)
