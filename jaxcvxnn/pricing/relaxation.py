"""The price of the best new neuron for any rank: a semidefinite relaxation, proven on the host.

The cone of (lifted) holds E[z z'] for z = (relu(P u), u) of every distribution of u, so that the
largest <C C', S> over it is an upper bound on the squared price (`programs.relaxed_price`). The
solver's N is only a suggestion: shifted by the least multiple of an interior one that makes it
feasible, and verified with all rounding errors accounted for.

Derivation: docs/math/pricing.md, "The price, relaxed".
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxcone import AbstractSolver, Splitting, Status, solve, verified

from ..arrays import Matrix
from ..conic.lifted import activation_rows
from ..conic.relaxed_price import RelaxedPrice
from ..geometry.directions import Directions, find_directions, neglected_price
from ..interior.dual_repair import clean_multipliers
from .branch_and_bound import price_branch_and_bound
from .budget import Budget
from .lifted_constraint import constraint_holds, interior_multipliers, reader
from .price import Price

METHOD = "relaxation"
# Directions at most that "auto" takes it for: the steps between two proofs take seconds then.
LARGEST = 100
# Where the relaxation is not tight, both methods prove the same, and splitting compiles much faster.
# Its steps are those between two proofs; it ends after PATIENCE proofs that gain less than STALL.
SPLITTING = Splitting(max_steps=1000, tolerance=1e-7)
STALL, PATIENCE = 1e-4, 2
# Relative: by how much a bound is raised before rounding is found not to matter.
MARGINS = (1e-12, 1e-10, 1e-8, 1e-6, 1e-4, 1e-2)


def price_relaxed(
    residual: Any,
    features: Any,
    budget: Budget | None = None,
    *,
    neurons: Any = None,
    solver: AbstractSolver = SPLITTING,
) -> Price:
    """An interval for max over |u| <= 1 of ||R' relu(F u)||_2.

    The lower end and the neurons come from ascent, the upper one from the relaxation, or from the root
    bound of branch and bound where that is better. Nothing closes the gap between them.

    **Arguments:**

    - `residual`, `features`: R (n, c) and F (n, r).
    - `budget`: when it may end; a chunk of steps that has begun is not cut short.
    - `neurons` (k, r): directions from which the local search starts, beside random ones.
    - `solver`: settings of `jaxcone`; by default splitting. Its `max_steps` are those between proofs.

    **Raises** a `ValueError` as `price_branch_and_bound` does.
    """
    budget = Budget() if budget is None else budget
    search = dataclasses.replace(budget, max_boxes=0)
    found = price_branch_and_bound(residual, features, search, neurons=neurons)
    enough = max(found.lower * (1 + budget.relative), budget.enough)
    if found.upper <= enough or not found.lower > 0:
        return dataclasses.replace(found, method=METHOD)
    upper = found.upper
    relaxation = _Relaxation(np.asarray(residual, float), np.asarray(features, float), found.lower)
    bounds = relaxation.bounds(solver)
    while upper > enough:
        bound = budget.job.chunk(lambda: next(bounds, None))
        if bound is None:
            break
        upper = min(upper, bound)
    return dataclasses.replace(found, upper=upper, method=METHOD)


def fits(directions: Directions) -> bool:
    """Whether the relaxation is small enough to be taken where nobody asked for it."""
    return len(directions.units) <= LARGEST


class _Relaxation:
    """The relaxation for one residual, in units 2^`exponent` in which the price is about one."""

    def __init__(self, residual: Matrix, features: Matrix, price: float):
        self.exponent = int(np.frexp(price)[1])
        self.residual = np.ldexp(residual, -self.exponent)
        self.directions = find_directions(features)
        self.distances = self.directions.approximation(features)
        self.rows = activation_rows(np, self.directions.units)
        self.pairs = len(self.directions.units)
        self.reader = reader(self.directions, self.rows, self.residual)

    def bounds(self, solver: AbstractSolver) -> Iterator[float]:
        """Proven bounds on the price, one after each chunk of steps, until there is no gain."""
        with jax.enable_x64(True):
            program = RelaxedPrice(jnp.asarray(self.rows), jnp.asarray(self.reader[0]), self.pairs)
            points, best, stale = program.initial(), math.inf, 0
            while stale < PATIENCE:
                solved, points, multipliers, square = _some_steps(program, solver, points)
                bound = self.proven(np.asarray(multipliers), float(square))
                stale = 0 if bound < best * (1 - STALL) else stale + 1
                best = min(best, bound)
                yield best
                if solved:
                    return

    def proven(self, multipliers: Matrix, square: float) -> float:
        """A bound on the price that N (m, m) proves; inf if rounding leaves none.

        `square` s is about the squared price that N should prove. The matrix s I_u - C C' - V'NV is
        made positive definite by adding d (I_u - V'N_s V), N_s the interior multipliers: the least such
        d is an eigenvalue, and s + d the squared bound.
        """
        if not (np.all(np.isfinite(multipliers)) and math.isfinite(square)):
            return math.inf
        shape = clean_multipliers(multipliers, self.pairs, keep_pairs=True)
        interior = interior_multipliers(self.rows, self.pairs, 2.0)
        on_u = np.diag((np.arange(self.rows.shape[1]) >= self.pairs).astype(float))
        matrix = square * on_u - self.reader[0] @ self.reader[0].T - _pulled(shape, self.rows)
        inverse = np.linalg.inv(np.linalg.cholesky(on_u - _pulled(interior, self.rows)))
        added = -float(np.linalg.eigvalsh(inverse @ matrix @ inverse.T)[0])
        for margin in MARGINS:
            raised = added + margin * abs(square)
            if square + raised > 0:
                bound = math.sqrt(square + raised)
                complete = (shape + raised * interior) / (2 * bound)
                if constraint_holds(self.rows, self.pairs, self.reader, complete, bound):
                    return self._in_features(bound)
        return math.inf

    def _in_features(self, bound: float) -> float:
        """From a bound for the directions to one for the features, in the caller's units."""
        price = bound * self.directions.basis_norm()
        price += neglected_price(self.residual, self.distances)
        return float(np.ldexp(verified.above(price * (1 + 4 * verified.UNIT)), self.exponent))


@eqx.filter_jit
def _some_steps(
    program: RelaxedPrice, solver: AbstractSolver, points: Any
) -> tuple[Array, Any, Array, Array]:
    """(whether it is solved, s and y, N, tr S_uu) after the solver's steps from s and y."""
    solution = solve(program, solver, warm_start=points)
    solved = solution.status == Status.solved
    square = jnp.sum(program.on_u * solution.x)
    return solved, (solution.s, solution.y), program.multipliers(solution), square


def _pulled(multipliers: Matrix, rows: Matrix) -> Matrix:
    """V'NV, symmetric."""
    product = rows.T @ multipliers @ rows
    return (product + product.T) / 2
