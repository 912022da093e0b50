"""Safeguarded Anderson acceleration (type II) of a fixed-point iteration u <- T(u).

Walker and Ni (2011): among the affine combinations of the last images, take the one whose residuals
combine to the least norm. The differences live in a ring buffer whose Gram matrix is updated one row
at a time, so that a step costs two passes over the buffer and a solve of the memory's size.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class AndersonState(eqx.Module):
    """Ring buffer of differences and what the safeguard compares with."""

    residual_steps: Float[Array, "memory size"]
    image_steps: Float[Array, "memory size"]
    gram: Float[Array, "memory memory"]
    filled: Int[Array, ""]  # differences written since the last restart
    residual: Float[Array, " size"]  # T(u) - u at the last accepted point
    image: Float[Array, " size"]  # T(u) there: where the safeguard falls back to
    norm: Float[Array, ""]  # norm of that residual; infinite before the first point
    rejected: Int[Array, ""]


def start(point: Float[Array, " size"], memory: int) -> AndersonState:
    """An empty memory for iterates shaped like `point`."""
    buffer = jnp.zeros((memory, point.size), point.dtype)
    zero = jnp.zeros((), jnp.int32)
    return AndersonState(
        residual_steps=buffer,
        image_steps=buffer,
        gram=jnp.zeros((memory, memory), point.dtype),
        filled=zero,
        residual=jnp.zeros_like(point),
        image=point,
        norm=jnp.full((), jnp.inf, point.dtype),
        rejected=zero,
    )


def restart(state: AndersonState) -> AndersonState:
    """Forget the differences: the map has changed."""
    fresh = start(state.image, state.gram.shape[0])
    return eqx.tree_at(lambda s: s.rejected, fresh, state.rejected)


def accelerate(
    state: AndersonState,
    point: Float[Array, " size"],
    image: Float[Array, " size"],
    *,
    regularization: float,
    growth: float,
) -> tuple[Float[Array, " size"], AndersonState]:
    """The next point after `image` = T(`point`), and the updated memory.

    **Arguments:** `regularization` is relative to the trace of the Gram matrix; `growth` is how far
    the residual may grow over the last accepted one. A point that exceeds it (or is not finite) is
    thrown away: the iteration goes back to the last accepted image and forgets its differences. A
    proposal that is farther away than 1 / sqrt(eps) residuals is not made.
    """
    memory = state.gram.shape[0]
    residual = image - point
    norm = jnp.linalg.norm(residual)
    accepted = (norm <= growth * state.norm) & jnp.isfinite(norm)

    first = jnp.isinf(state.norm)
    slot = jnp.mod(state.filled, memory)
    residual_step = residual - state.residual
    image_step = image - state.image
    use = accepted & ~first
    residual_steps = _write(state.residual_steps, slot, residual_step, use)
    image_steps = _write(state.image_steps, slot, image_step, use)
    filled = state.filled + use
    live = jnp.arange(memory) < filled
    products = jnp.where(live, _dot(residual_steps, residual_step), 0)
    gram = _write(state.gram, slot, products, use)
    gram = _write(gram.T, slot, products, use)

    ridge = regularization * jnp.trace(gram)
    dead_diagonal = jnp.where(live, ridge, 1.0)  # keeps the empty slots out of the solve
    system = gram + jnp.diag(dead_diagonal)
    weights = jnp.linalg.solve(system, jnp.where(live, _dot(residual_steps, residual), 0.0))
    extrapolated = image - _dot(weights, image_steps)
    # Where the iterates drift for ever, all residuals are the same but for rounding, and differences of
    # them point anywhere.
    jump, farthest = jnp.linalg.norm(extrapolated - image), norm / jnp.finfo(norm.dtype).eps ** 0.5
    usable = (filled > 0) & jnp.all(jnp.isfinite(weights)) & (jump <= farthest)
    proposal = jnp.where(usable, extrapolated, image)

    def keep(new: Array, old: Array) -> Array:
        return jnp.where(accepted, new, old)

    forget = jnp.where(accepted, 1, 0).astype(gram.dtype)
    following = AndersonState(
        residual_steps=residual_steps,
        image_steps=image_steps,
        gram=gram * forget,
        filled=keep(filled, jnp.zeros_like(filled)),
        residual=keep(residual, jnp.zeros_like(residual)),
        image=keep(image, state.image),
        norm=keep(norm, jnp.full_like(norm, jnp.inf)),
        rejected=state.rejected + ~accepted,
    )
    return keep(proposal, state.image), following


def _write(buffer: Array, slot: Int[Array, ""], row: Array, use: Bool[Array, ""]) -> Array:
    old = jax.lax.dynamic_index_in_dim(buffer, slot, keepdims=False)
    return jax.lax.dynamic_update_index_in_dim(buffer, jnp.where(use, row, old), slot, 0)


def _dot(left: Array, right: Array) -> Array:
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)
