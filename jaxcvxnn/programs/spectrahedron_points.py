"""Points of Bartan and Pilanci's convex program (21), and what they are worth.

    min  L(<F_i, Z - Z'>, Y) + weight_decay (Z_4 + Z'_4)
    s.t. Z, Z' PSD, tr Z_1 = Z_4, tr Z'_1 = Z'_4

for every output a pair (Z, Z') of its own, and for every pool of a convolutional network; the F_i are
in `quadratic_forms`. Any pair of PSD matrices becomes feasible by `balanced`, and any R in the domain
of L* a dual point by scaling: an upper and a lower bound on the optimum, up to rounding.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from jaxcone.extend import matmul

from ..conic.quadratic_forms import AbstractForms, QuadraticForms, pooled_forms
from ..convolution import ConvolutionalProblem
from ..losses.base import AbstractLoss
from ..losses.regression import Squared
from ..problem import TrainingProblem, require_polynomial

# By how many units of rounding a residual is shrunk.
DOMAIN_ROUNDING = 64


class Samples(eqx.Module):
    """Samples with weights: the loss is sum_i weights_i l(z_i, y_i). A weight 0 leaves one out."""

    forms: AbstractForms
    targets: Float[Array, "n c"]
    weights: Float[Array, " n"] | None
    loss: AbstractLoss

    def value(self, outputs: Float[Array, "n c"]) -> Float[Array, ""]:
        """L(outputs)."""
        if self.weights is None:
            return self.loss.value(outputs, self.targets)
        return jnp.sum(self.weights * self._each(self.loss.value, outputs))

    def gradient(self, outputs: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """The gradient of L, or a subgradient."""
        found = self.loss.gradient(outputs, self.targets)
        return found if self.weights is None else self.weights[:, None] * found

    def dual_value(self, residual: Float[Array, "n c"]) -> Float[Array, ""]:
        """-L*(residual)."""
        if self.weights is None:
            return -self.loss.conjugate(residual, self.targets)
        used = self.weights > 0
        weights = jnp.where(used, self.weights, 1)
        values = weights * self._each(self.loss.conjugate, residual / weights[:, None])
        return -jnp.sum(jnp.where(used, values, 0))

    def prox(self, points: Float[Array, "n c"], step: Float[Array, ""]) -> Float[Array, "n c"]:
        """argmin over z of step L(z) + 1/2 |z - points|^2."""
        if self.weights is None:
            return self.loss.prox(points, self.targets, step)
        used = (self.weights > 0)[:, None]
        steps = step * jnp.where(used, self.weights[:, None], 1)
        return jnp.where(used, self.loss.prox(points, self.targets, steps), points)

    def lower_bound(
        self, residual: Float[Array, "n c"], weight_decay: Float[Array, ""]
    ) -> Float[Array, ""]:
        """max over feasible multiples t R, 0 <= t <= 1 (for the squared loss, any t), of -L*(t R)."""
        price = self.forms.price(residual)
        tiny = jnp.finfo(price.dtype).tiny
        largest = weight_decay / jnp.maximum(price, tiny)
        if isinstance(self.loss, Squared):
            weights = 1 if self.weights is None else jnp.maximum(self.weights, tiny)[:, None]
            best = -jnp.sum(residual * self.targets) / (jnp.sum(residual**2 / weights) + tiny)
            return self.dual_value(jnp.clip(best, 0, largest) * residual)
        # Rounding may have put R a little outside the domain of L*.
        inside = 1 - DOMAIN_ROUNDING * float(jnp.finfo(price.dtype).eps)
        return self.dual_value(jnp.minimum(inside, largest) * residual)

    def better_dual(
        self, first: Float[Array, "n c"], second: Float[Array, "n c"], weight_decay: Any
    ) -> tuple[Float[Array, "n c"], Float[Array, ""]]:
        """Which of two residuals has the larger lower bound, and that bound."""
        both = jnp.stack([first, second])
        bounds = jax.vmap(lambda residual: self.lower_bound(residual, weight_decay))(both)
        # A bound that is NaN loses.
        other = (bounds[1] > bounds[0]) | jnp.isnan(bounds[0])
        return jnp.where(other, second, first), jnp.where(other, bounds[1], bounds[0])

    def _each(self, function: Any, points: Float[Array, "n c"]) -> Float[Array, " n"]:
        return jax.vmap(lambda z, y: function(z[None], y[None]))(points, self.targets)


def samples_of(problem: TrainingProblem | ConvolutionalProblem, weights: Any = None) -> Samples:
    """The samples of a problem whose activation is a polynomial.

    **Raises** a `ValueError` for another activation, and for weights that are not (n,), finite and
    nonnegative.
    """
    forms = _forms_of(problem)
    if weights is not None:
        if not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(weights)):
            # In NumPy: inside `jit`, JAX would trace the check of a constant.
            weights = np.asarray(weights)
            if not np.all(np.isfinite(weights) & (weights >= 0)):
                raise ValueError("sample_weights must be finite and nonnegative.")
        weights = jnp.asarray(weights, forms.features.dtype)
        if weights.shape != forms.features.shape[:1]:
            raise ValueError(
                f"sample_weights must have shape ({len(forms.features)},), one per sample; got "
                f"{weights.shape}."
            )
    return Samples(forms, jnp.asarray(problem.Y), weights, problem.loss)


def _forms_of(problem: TrainingProblem | ConvolutionalProblem) -> AbstractForms:
    if isinstance(problem, ConvolutionalProblem):
        return pooled_forms(jnp.asarray(problem.pools), problem.activation)
    activation = require_polynomial(problem)
    return QuadraticForms(jnp.asarray(problem.features), activation)


def balanced(forms: AbstractForms, matrices: Float[Array, "*k s s"]) -> Float[Array, "*k s s"]:
    """PSD matrices with tr Z_1 = Z_4 from any PSD ones: D Z D with D = diag(r, ..., r, 1/r).

    A congruence, so it keeps the rank; where Z is nearly balanced r is nearly one. Matrices for the
    square activation have no Z_4 and stay as they are.
    """
    if forms.square:
        return matrices
    corner = matrices[..., -1, -1]
    trace = jnp.trace(matrices[..., :-1, :-1], axis1=-2, axis2=-1)
    usable = (corner > 0) & (trace > 0)
    ratio = jnp.where(usable, corner / jnp.where(usable, trace, 1), 1) ** 0.25
    diagonal = jnp.broadcast_to(ratio[..., None], matrices.shape[:-1]).at[..., -1].set(1 / ratio)
    moved = diagonal[..., :, None] * matrices * diagonal[..., None, :]
    # A matrix with a zero corner or trace has no balanced multiple but zero.
    moved = jnp.where(usable[..., None, None], moved, 0)
    trace = jnp.trace(moved[..., :-1, :-1], axis1=-2, axis2=-1)
    return moved.at[..., -1, -1].set(jnp.maximum(trace, moved[..., -1, -1]))


def mass(forms: AbstractForms, matrices: Float[Array, "*k s s"]) -> Float[Array, ""]:
    """What the weight decay multiplies: the sum of Z_4, of balanced matrices."""
    if forms.square:
        return jnp.sum(jnp.trace(matrices, axis1=-2, axis2=-1))
    return jnp.sum(matrices[..., -1, -1])


def bordered(forms: AbstractForms, matrices: Float[Array, "*k s s"]) -> Float[Array, "*k f1 f1"]:
    """Z of order f + 1 of the same rank; for the square activation from Z_1 = sum_j l_j u_j u_j'.

    Then Z = sum_j l_j (u_j, 1)(u_j, 1)', for which b = c = 0 leaves Z_2 and Z_4 without effect.
    """
    if not forms.square:
        return matrices

    def border(matrix):
        values, vectors = jnp.linalg.eigh(matrix)
        values = jnp.maximum(values, 0)
        lifted = jnp.concatenate([vectors, jnp.ones_like(values)[None, :]])
        return matmul(lifted * values, lifted.T)

    return jnp.vectorize(border, signature="(s,s)->(t,t)")(matrices)


def effective_width(
    positive: Float[Any, "*k s s"], negative: Float[Any, "*k s s"], tolerance: Any = None
) -> Any:
    """m* = the sum of the ranks of all Z and Z', Bartan and Pilanci (2021), eq. (22).

    An eigenvalue counts if it exceeds `tolerance` times the largest of all matrices; by default 1e-6
    in float64, 1e-3 in float32.
    """
    values = jnp.linalg.eigvalsh(jnp.stack([jnp.asarray(positive), jnp.asarray(negative)]))
    if tolerance is None:
        tolerance = 1e-6 if values.dtype == jnp.float64 else 1e-3
    return jnp.sum(values > tolerance * jnp.max(values))
