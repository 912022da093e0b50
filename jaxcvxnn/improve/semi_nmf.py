"""Semi-nonnegative factorisation: from a local linear model to the neurons that it is made of.

    V = sum_j u_j v_j'  with A u_j >= 0,  sum_j |u_j| |v_j| as small as possible:

Sahiner et al. (2021), remark 5.1. The minimum is the norm of V that belongs to the neurons of a cone,
the cone-constrained nuclear norm. It is found by column generation: the best output weights of the
directions at hand, then the direction that violates the dual constraint most, by cone-constrained PCA.
On the host. See docs/math/patterns.md, "Copositive programs".
"""

from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Float

from ..arrays import Matrix, finite_matrix
from ..geometry.pattern_cones import cone_sides, interior_direction
from ..interior.group_lasso import solve_group_lasso
from ..interior.lorentz import row_norms
from ..losses.regression import Absolute
from ..pricing.cone_pca import cone_pca

# Rounds of column generation, each with one more direction.
ROUNDS = 60
# Rounds without progress after which it is rounding that is in the way.
PATIENCE = 4
# The weights' penalty against the entrywise error, relative to the least that could allow errors.
EXACT = 0.1
# Models, and neurons of one, below this part of the largest are rounding errors of the solver.
NEGLIGIBLE = 1e-6


class SemiNonnegativeFactors(eqx.Module):
    """V = `first`' `second` with A u_j >= 0 for the unit rows u_j of `first`.

    `norm` = sum_j |v_j|. Up to rounding no factorisation over the cone has a smaller one than
    `lower_bound`, which is as good as the prices of `cone_pca`: tight up to rank three, weaker above.
    """

    first: Float[np.ndarray, "m d"]
    second: Float[np.ndarray, "m c"]
    norm: float
    lower_bound: float


def semi_nonnegative_factorisation(
    V: Any, sides: Any, *, directions: Any = None, tolerance: float = 1e-8
) -> SemiNonnegativeFactors:
    """V (d, c) = sum_j u_j v_j' over the cone {u : A u >= 0}, with the least sum_j |u_j| |v_j|.

    Every V has such factors, since the cone has an interior: v_j may be any vectors.

    **Arguments:** `sides` A (k, d) of rank d; for a pattern D the rows of (2 D - I) X. `directions`
    (m, d), vectors to start with, of which those in the cone are used. `tolerance`, the relative gap
    between the norm and its lower bound at which it ends.

    **Raises** a `ValueError` for shapes that do not match, entries that are not finite, sides of a
    lower rank and a cone without an interior.
    """
    V, sides = finite_matrix(V, "V"), finite_matrix(sides, "sides")
    rank = len(V)
    if sides.shape[1] != rank or np.linalg.matrix_rank(sides) < rank:
        raise ValueError(
            f"sides must have one column per row of V, {rank}, and be of that rank; their shape is "
            f"{sides.shape} and their rank {np.linalg.matrix_rank(sides)}."
        )
    sides = cone_sides(sides, np.ones(len(sides), bool))
    first = _spanning_directions(sides)
    if directions is not None:
        offered = finite_matrix(directions, "directions")
        if offered.shape[1] != rank:
            raise ValueError(
                f"directions must have {rank} columns; their shape is {offered.shape}."
            )
        offered = _unit_rows(offered[np.any(offered != 0, axis=1)])
        first = np.concatenate([first, offered[np.all(offered @ sides.T >= 0, axis=1)]])
    size = float(np.linalg.norm(V))
    if size == 0:
        return SemiNonnegativeFactors(first[:0], np.zeros((0, V.shape[1])), 0.0, 0.0)
    target, lower, norms = V / size, 0.0, []
    second, found = np.zeros((len(first), V.shape[1])), first[:0]
    for _ in range(ROUNDS):
        first = np.concatenate([first, found])
        second, dual = _least_weights(first, target, tolerance / 10)
        price, found = _best_direction(dual, sides)
        norms.append(float(np.sum(row_norms(second))))
        lower = max(lower, float(np.sum(dual * target)) / price)
        stale = norms[-1] > (1 - tolerance / 10) * min(norms[:-PATIENCE], default=np.inf)
        if norms[-1] - lower <= tolerance * norms[-1] or stale or not np.any(found):
            break
    second = second + np.linalg.lstsq(first.T, target - first.T @ second)[0]
    lengths = row_norms(second)
    used = lengths > 0
    norm = size * float(np.sum(lengths))
    return SemiNonnegativeFactors(first[used], size * second[used], norm, min(size * lower, norm))


def _spanning_directions(sides: Matrix) -> Matrix:
    """Unit vectors inside the cone that span the space: the axis, moved along each coordinate."""
    inside = interior_direction(sides)
    if not np.any(inside):
        raise ValueError("sides: the cone {u : A u >= 0} has no interior.")
    step = 0.9 * float(np.min(sides @ inside)) * np.eye(len(inside))
    return _unit_rows(np.concatenate([inside + step, inside - step]))


def _least_weights(first: Matrix, target: Matrix, tolerance: float) -> tuple[Matrix, Matrix]:
    """The v_j of least sum |v_j| with V = sum_j u_j v_j', and the dual Lambda, |Lambda'u_j| <= 1.

    As a group lasso with the absolute loss: that is an exact penalty for penalties that are small, and
    Lambda is its residual over the penalty.
    """
    penalty = EXACT * float(np.linalg.svd(first, compute_uv=False)[-1])
    found = solve_group_lasso(
        first.T, target, np.full(len(first), penalty), loss=Absolute(), tolerance=tolerance
    )
    return found.V, -found.residual / penalty


def _best_direction(dual: Matrix, sides: Matrix) -> tuple[float, Matrix]:
    """An upper bound on max |Lambda'u| over unit u in the cone, and the best u (1, d) found."""
    lifted = np.linalg.lstsq(sides.T, dual)[0]  # A'R = Lambda
    prices = cone_pca(lifted, sides, np.ones((1, len(sides)), bool))
    return float(prices.upper[0]), prices.directions


def _unit_rows(vectors: Matrix) -> Matrix:
    return vectors / row_norms(vectors)[:, None]
