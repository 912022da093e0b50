"""Losses of z - y: squared, Huber, absolute."""

import math
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from ..arrays import Matrix
from . import conjugate_bounds as bounds
from .base import AbstractRegressionLoss, QuadraticConjugate


class Squared(AbstractRegressionLoss):
    """1/2 ||Z - Y||^2."""

    name: ClassVar[str] = "squared"
    smooth: ClassVar[bool] = True
    curvature: ClassVar[float] = 1.0

    # Methods of arrays: what is given in NumPy is computed there, and nothing is compiled.
    def value(self, Z, Y):
        return ((Z - Y) ** 2).sum() / 2

    def gradient(self, Z, Y):
        return Z - Y

    def second_derivative(self, Z, Y):
        return jnp.ones_like(self.gradient(Z, Y))

    def prox(self, Z, Y, step):
        return Z - step / (1 + step) * self.gradient(Z, Y)

    def conjugate(self, R, Y):
        return (R * Y).sum() + (R**2).sum() / 2

    def quadratic_conjugate(self, Y: Matrix) -> QuadraticConjugate:
        """Everywhere."""
        return Y, 1.0, None

    def _dual_value_below(self, R, Y, scale):
        return bounds.quadratic_below(R, Y, scale)

    def _into_domain(self, R, Y):
        return R


class Huber(AbstractRegressionLoss):
    """sum h(z - y), h(e) = e^2 / 2 where |e| <= `delta`, delta |e| - delta^2 / 2 elsewhere."""

    name: ClassVar[str] = "huber"
    smooth: ClassVar[bool] = True
    curvature: ClassVar[float] = 1.0
    delta: float = 1.0

    def __check_init__(self):
        if isinstance(self.delta, float | int) and not 0 < self.delta < math.inf:
            raise ValueError(f"Huber: `delta` must be positive and finite; got {self.delta}.")

    def value(self, Z, Y):
        size = jnp.abs(Z - Y)
        near = jnp.minimum(size, self.delta)
        return jnp.sum(near * (size - near / 2))

    def gradient(self, Z, Y):
        return jnp.clip(Z - Y, -self.delta, self.delta)

    def second_derivative(self, Z, Y):
        error = jnp.asarray(Z - Y)
        return jnp.where(jnp.abs(error) <= self.delta, jnp.ones_like(error), jnp.zeros_like(error))

    def prox(self, Z, Y, step):
        return Z - step * jnp.clip((Z - Y) / (1 + step), -self.delta, self.delta)

    def conjugate(self, R, Y):
        inside = jnp.all(jnp.abs(R) <= self.delta)
        return jnp.where(inside, jnp.sum(R * Y) + jnp.sum(jnp.square(R)) / 2, jnp.inf)

    def quadratic_conjugate(self, Y: Matrix) -> QuadraticConjugate:
        """Off its box the conjugate is infinite."""
        limit = np.full(Y.shape, float(self.delta))
        return Y, 1.0, (-limit, limit)

    def _dual_value_below(self, R, Y, scale):
        inside = bounds.at_most(scale, np.abs(R), float(self.delta))
        return bounds.quadratic_below(R, Y, scale) if inside else -math.inf

    def _into_domain(self, R, Y):
        return np.clip(R, -float(self.delta), float(self.delta))


class Absolute(AbstractRegressionLoss):
    """sum |z - y|."""

    name: ClassVar[str] = "absolute"
    smooth: ClassVar[bool] = False
    curvature: ClassVar[float] = math.inf

    def value(self, Z, Y):
        return jnp.sum(jnp.abs(Z - Y))

    def gradient(self, Z, Y):
        return jnp.sign(Z - Y)

    def second_derivative(self, Z, Y):
        return jnp.zeros_like(Z - Y)

    def prox(self, Z, Y, step):
        return Z - jnp.clip(Z - Y, -step, step)

    def conjugate(self, R, Y):
        return jnp.where(jnp.all(jnp.abs(R) <= 1), jnp.sum(R * Y), jnp.inf)

    def quadratic_conjugate(self, Y: Matrix) -> QuadraticConjugate:
        """Off its box the conjugate is infinite."""
        return Y, 0.0, (-np.ones(Y.shape), np.ones(Y.shape))

    def _dual_value_below(self, R, Y, scale):
        inside = bounds.at_most(scale, np.abs(R), 1.0)
        return bounds.linear_below(R, Y, scale) if inside else -math.inf

    def _into_domain(self, R, Y):
        return np.clip(R, -1, 1)
