"""Residuals of a point on the user's own, unscaled program. Imports no method."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from .program import AbstractConeProgram, combine, dot, norm, subtract


class Residuals(eqx.Module):
    """Distances from optimality, absolute and relative.

    primal = ||A x + s - b||, dual = ||P x + c + A* y|| (its part in the subspace of x), gap =
    |primal objective - dual objective|. The relative ones divide by 1 + the largest norm among the
    terms of the sum. With s in K and y in K* by construction, three zeros mean optimality.
    """

    primal: Float[Array, ""]
    dual: Float[Array, ""]
    gap: Float[Array, ""]
    primal_relative: Float[Array, ""]
    dual_relative: Float[Array, ""]
    gap_relative: Float[Array, ""]
    primal_objective: Float[Array, ""]
    dual_objective: Float[Array, ""]

    @property
    def worst(self) -> Float[Array, ""]:
        """The largest of the three relative residuals; NaN if any is NaN."""
        return jnp.maximum(jnp.maximum(self.primal_relative, self.dual_relative), self.gap_relative)

    @property
    def finite(self) -> Bool[Array, ""]:
        """Whether every residual is a finite number."""
        return jnp.isfinite(self.primal + self.dual + self.gap)


def residuals(
    program: AbstractConeProgram, factor: PyTree, x: PyTree, s: PyTree, y: PyTree
) -> Residuals:
    """Residuals of (x, s, y) on `program`, in its own units; `factor` is `program.tangent_factor()`."""
    image, offset = program.operator(x), program.offset()
    curvature, linear, pull = program.quadratic(x), program.linear(), program.adjoint(y)
    primal = norm(subtract(combine(1, image, 1, s), offset))
    gradient = combine(1, combine(1, curvature, 1, linear), 1, pull)
    dual = norm(program.tangent(factor, gradient))
    quadratic = dot(x, curvature) / 2
    primal_objective = quadratic + dot(linear, x)
    dual_objective = -quadratic - dot(offset, y)
    gap = jnp.abs(primal_objective - dual_objective)
    largest_primal = jnp.maximum(jnp.maximum(norm(image), norm(s)), norm(offset))
    largest_dual = jnp.maximum(jnp.maximum(norm(curvature), norm(linear)), norm(pull))
    return Residuals(
        primal=primal,
        dual=dual,
        gap=gap,
        primal_relative=primal / (1 + largest_primal),
        dual_relative=dual / (1 + largest_dual),
        gap_relative=gap / (1 + jnp.abs(primal_objective) + jnp.abs(dual_objective)),
        primal_objective=primal_objective,
        dual_objective=dual_objective,
    )
