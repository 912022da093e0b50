"""Residuals of a point on the user's own, unscaled program. Imports no method."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from .program import AbstractConeProgram
from .pytrees import combine, inner, norm, subtract


class Residuals(eqx.Module):
    """Distances from optimality, absolute and relative.

    primal = ||A x + s - b||, dual = ||P x + c + A* y|| (its part in the subspace of x), gap =
    |primal objective - dual objective|. The relative ones divide by the program's `units`, which
    depend on the data alone, and the gap by 1 + |primal objective| + |dual objective|: with the
    default units they are the DIMACS errors 1, 3 and 5 (see `dimacs_errors`). With s in K and y in K*
    by construction, three zeros mean optimality.
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
    program: AbstractConeProgram,
    factor: PyTree,
    units: tuple[Array, Array],
    x: PyTree,
    s: PyTree,
    y: PyTree,
) -> Residuals:
    """Residuals of (x, s, y) on `program` with its `tangent_factor()` and `units()`."""
    image, offset = program.operator(x), program.offset()
    curvature, linear, pull = program.quadratic(x), program.linear(), program.adjoint(y)
    primal = norm(subtract(combine(1, image, 1, s), offset))
    gradient = combine(1, combine(1, curvature, 1, linear), 1, pull)
    dual = norm(program.tangent(factor, gradient))
    quadratic = inner(x, curvature) / 2
    primal_objective = quadratic + inner(linear, x)
    dual_objective = -quadratic - inner(offset, y)
    gap = jnp.abs(primal_objective - dual_objective)
    return Residuals(
        primal=primal,
        dual=dual,
        gap=gap,
        primal_relative=primal / units[0],
        dual_relative=dual / units[1],
        gap_relative=gap / (1 + jnp.abs(primal_objective) + jnp.abs(dual_objective)),
        primal_objective=primal_objective,
        dual_objective=dual_objective,
    )


def dimacs_errors(
    program: AbstractConeProgram, x: PyTree, s: PyTree, y: PyTree
) -> Float[Array, " 6"]:
    """The six error measures of the DIMACS challenge (Mittelmann, 2003), from the data alone.

    In order: primal equations, distance of s from K, dual equations, distance of y from K*, relative
    gap (with its sign), complementarity <s, y>. Distances are Euclidean norms, which are at least the
    largest eigenvalues that the challenge uses.
    """
    outside_dual = program.project(combine(-1, y, 0, y))
    found = residuals(program, program.tangent_factor(), program.units(), x, s, y)
    gap = found.primal_objective - found.dual_objective
    size = 1 + jnp.abs(found.primal_objective) + jnp.abs(found.dual_objective)
    unit_primal, unit_dual = program.units()
    return jnp.stack(
        [
            found.primal_relative,
            norm(subtract(s, program.project(s))) / unit_primal,
            found.dual_relative,
            norm(outside_dual) / unit_dual,
            gap / size,
            inner(s, y) / size,
        ]
    )
