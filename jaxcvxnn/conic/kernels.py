"""Closed-form moments of ReLU activations under a Gaussian neuron (the arc-cosine kernel)."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float


def relu_moments(directions: Float[Any, "k r"]) -> Float[Array, "q q"]:
    """E[z z'] for z = (relu(P u), u), u ~ N(0, I_r), P the (k, r) `directions`; q = k + r.

    The activation block is the arc-cosine kernel of degree 1 (Cho and Saul, 2009, eq. 3 and 6),
    halved to an expectation; the cross block is P / 2.
    """
    norms = jnp.linalg.norm(directions, axis=1)
    scale = norms[:, None] * norms[None, :]
    inner = jnp.matmul(directions, directions.T, precision="highest")
    cosine = jnp.clip(inner / jnp.where(scale > 0, scale, 1), -1, 1)
    angle = jnp.arccos(cosine)
    activations = scale * (jnp.sin(angle) + (jnp.pi - angle) * cosine) / (2 * jnp.pi)
    identity = jnp.eye(directions.shape[1], dtype=directions.dtype)
    return jnp.block([[activations, directions / 2], [directions.T / 2, identity]])
