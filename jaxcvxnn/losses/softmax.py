"""The cross-entropy of a softmax."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import xlogy

from . import conjugate_bounds as bounds
from .base import AbstractLoss, diagonal_blocks
from .proximal import row_sums, softmax_prox
from .targets import ROW_SUM_TOLERANCE, real_array, require_rows, target_matrix

# What rounding may do to residuals, in units of the dtype per class.
DOMAIN_ROUNDING = 64


class SoftmaxCrossEntropy(AbstractLoss):
    """-sum_ik y_ik log softmax(z_i)_k for rows y_i of nonnegative weights that sum to one.

    One-hot rows are class labels, others soft labels. Rounding makes rows sum to almost one; the loss
    is then what this formula says, and all methods are those of the row's own sum.
    """

    name: ClassVar[str] = "softmax"
    smooth: ClassVar[bool] = True
    curvature: ClassVar[float] = 0.5

    def value(self, Z, Y):
        return -jnp.sum(Y * jax.nn.log_softmax(Z, axis=1))

    def gradient(self, Z, Y):
        return row_sums(Y) * jax.nn.softmax(Z, axis=1) - Y

    def hessian(self, Z, Y):
        chances = jax.nn.softmax(Z, axis=1)
        blocks = diagonal_blocks(chances) - chances[:, :, None] * chances[:, None, :]
        return row_sums(Y)[:, :, None] * blocks

    def prox(self, Z, Y, step):
        # Minimal where W + step * total * softmax(W) = Z + step * Y.
        return softmax_prox(jnp.asarray(Z + step * Y), step * row_sums(Y))

    def conjugate(self, R, Y):
        weights, totals = jnp.asarray(R + Y), row_sums(Y)
        tolerance = DOMAIN_ROUNDING * weights.shape[1] * jnp.finfo(weights.dtype).eps
        inside = jnp.all(weights >= -tolerance) & jnp.all(jnp.abs(row_sums(R)) <= tolerance)
        weights = jnp.maximum(weights, 0)
        return jnp.where(inside, jnp.sum(xlogy(weights, weights / totals)), jnp.inf)

    def minimum(self, Y):
        return -jnp.sum(xlogy(Y, Y / row_sums(Y)))

    def _dual_value_below(self, R, Y, scale):
        return bounds.simplex_entropy_below(R, Y, scale)

    def _perturbation(self, R, Y):
        sums = np.abs(bounds.exact_row_sums(R))
        rounded_up = np.where(sums > 0, np.nextafter(sums, np.inf), sums)
        return np.where(np.isnan(sums), np.inf, rounded_up)

    def _into_domain(self, R, Y):
        return bounds.onto_simplex(R + Y, np.sum(Y, axis=1, keepdims=True)) - Y

    def check_targets(self, Y):
        weights = target_matrix(self.name, Y)
        require_rows(self.name, weights, np.all(weights >= 0, axis=1), "nonnegative weights")
        sums_to_one = np.abs(np.sum(weights, axis=1) - 1) <= ROW_SUM_TOLERANCE
        require_rows(self.name, weights, sums_to_one, "weights that sum to one")

    def encode_targets(self, labels, classes: int | None = None):
        """One-hot rows from labels 0, 1, ..., classes - 1 (n,); rows of weights (n, c) pass through.

        Without `classes` the largest label is the last class.
        """
        array = real_array(self.name, labels)
        if array.ndim != 1:
            self.check_targets(labels)
            return array
        if np.any(array < 0) or np.any(array != np.round(array)):
            raise ValueError(
                f"The softmax loss takes class labels 0, 1, 2, ... of shape (n,); got {array}."
            )
        count = int(np.max(array)) + 1 if classes is None else classes
        if np.max(array) >= count:
            raise ValueError(
                f"`classes` = {classes} is too small: the labels go up to {int(np.max(array))}."
            )
        return np.eye(count)[array.astype(int)]
