"""A convex program as a layer of a model."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float

from .cone_program import ConeProgram
from .methods.abstract import AbstractSolver
from .methods.splitting import Splitting
from .solution import Solution
from .solve import solve


class ConeLayer(eqx.Module):
    """Parameters in, the optimal x of a convex program out, with derivatives (module `adjoint`).

    **Arguments:** `build` maps the layer's inputs to a `ConeProgram`; as an equinox module it may hold
    weights of its own, which are trained with the model. `solver` are the settings of the solve:
    `Splitting()` or `InteriorPoint()`.

    Acts on one example; `jax.vmap` it over a batch. Where a program has no solution, x is NaN: call
    `solution` to read its `status`.
    """

    build: Callable[..., ConeProgram]
    solver: AbstractSolver = Splitting()

    def solution(self, *inputs: Any) -> Solution:
        """The whole `Solution` for these inputs."""
        return solve(self.build(*inputs), self.solver)

    def __call__(self, *inputs: Any) -> Float[Array, " n"]:
        """The optimal x, shape `(n,)`."""
        return self.solution(*inputs).x
