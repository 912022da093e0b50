"""Losses of a margin y z: logistic and hinge."""

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import xlog1py, xlogy

from ..arrays import Matrix
from . import conjugate_bounds as bounds
from .base import AbstractMarginLoss, QuadraticConjugate, margins_inside
from .proximal import logistic_prox


class Logistic(AbstractMarginLoss):
    """sum log(1 + exp(-y z)) for labels y = +-1: cross-entropy of two classes, entry by entry."""

    name: ClassVar[str] = "logistic"
    smooth: ClassVar[bool] = True
    curvature: ClassVar[float] = 0.25

    def value(self, Z, Y):
        return jnp.sum(jax.nn.softplus(-Y * Z))

    def gradient(self, Z, Y):
        return -Y * jax.nn.sigmoid(-Y * Z)

    def second_derivative(self, Z, Y):
        margins = Y * Z
        return jax.nn.sigmoid(margins) * jax.nn.sigmoid(-margins)

    def prox(self, Z, Y, step):
        return Y * logistic_prox(jnp.asarray(Y * Z), step)

    def conjugate(self, R, Y):
        chance = -Y * R
        inside = jnp.all((chance >= 0) & (chance <= 1))
        chance = jnp.clip(chance, 0, 1)
        return jnp.where(
            inside, jnp.sum(xlogy(chance, chance) + xlog1py(1 - chance, -chance)), jnp.inf
        )

    def _dual_value_below(self, R, Y, scale):
        if not margins_inside(R, Y, scale):
            return -math.inf
        return bounds.binary_entropy_below(-Y * R, scale)


class Hinge(AbstractMarginLoss):
    """sum max(0, 1 - y z) for labels y = +-1."""

    name: ClassVar[str] = "hinge"
    smooth: ClassVar[bool] = False
    curvature: ClassVar[float] = math.inf

    def value(self, Z, Y):
        return jnp.sum(jnp.maximum(0, 1 - Y * Z))

    def gradient(self, Z, Y):
        return jnp.where(Y * Z < 1, -Y, jnp.zeros_like(Z))

    def second_derivative(self, Z, Y):
        return jnp.zeros_like(Y * Z)

    def prox(self, Z, Y, step):
        return Z + Y * jnp.clip(1 - Y * Z, 0, step)

    def conjugate(self, R, Y):
        margins = Y * R
        inside = jnp.all((margins <= 0) & (margins >= -1))
        return jnp.where(inside, jnp.sum(margins), jnp.inf)

    def quadratic_conjugate(self, Y: Matrix) -> QuadraticConjugate:
        """Off its box the conjugate is infinite."""
        return Y, 0.0, (np.minimum(-Y, 0), np.maximum(-Y, 0))

    def _dual_value_below(self, R, Y, scale):
        return bounds.linear_below(R, Y, scale) if margins_inside(R, Y, scale) else -math.inf
