"""The cones {u: (2 D - I) X u >= 0} of activation patterns D: interior, facets, coordinates.

On the host, in NumPy float64. A cone is given by its `sides` A (k, r), {u: A u >= 0}. See
docs/math/patterns.md, "Copositive programs".
"""

from itertools import combinations
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import nnls

from ..arrays import Matrix

# Cones that hold no ball of this radius about a unit vector count as having no interior.
NO_INTERIOR = 1e-10
# A unit row that is within this of the cone of others adds no constraint.
REDUNDANT = 1e-12


class PatternCones(eqx.Module):
    """Cones with an interior, each in coordinates a of its own, u = T a.

    `patterns` are those of the p cones kept, `frames` the T. In its cone's coordinates a product of two
    facets is the quadratic form `products`[q], which is nonnegative on the cone `owners`[q]; owners
    ascend.
    """

    patterns: Bool[np.ndarray, "p n"]
    frames: Float[np.ndarray, "p r r"]
    products: Float[np.ndarray, "q r r"]
    owners: Int[np.ndarray, " q"]


def cone_sides(features: Matrix, pattern: Any) -> Matrix:
    """The unit rows A of {u: (2 D - I) F u >= 0} for F (n, r) and D's diagonal; zero rows left out."""
    lengths = np.linalg.norm(features, axis=1)
    alive = lengths > 0
    signs = np.where(np.asarray(pattern), 1.0, -1.0)
    return (signs[alive] / lengths[alive])[:, None] * features[alive]


def interior_direction(sides: Matrix) -> Matrix:
    """The unit u with the largest least entry of A u, for unit rows A; zero if A u > 0 has no solution.

    It is parallel to the shortest u with A u >= 1, a nonnegative least-squares problem (Lawson and
    Hanson, 1974, chapter 23, problem LDP).
    """
    count, rank = sides.shape
    if count == 0:
        return np.eye(rank)[0]
    target = np.append(np.zeros(rank), 1.0)
    weights, _ = nnls(np.vstack([sides.T, np.ones(count)]), target, maxiter=30 * (count + rank))
    inside = weights @ sides
    length = np.linalg.norm(inside)
    if length <= NO_INTERIOR or np.min(sides @ inside) <= NO_INTERIOR * length:
        return np.zeros(rank)
    return inside / length


def facets(sides: Matrix) -> Int[np.ndarray, " f"]:
    """Which of the unit rows A define {u: A u >= 0} alone: no row is a nonnegative sum of others."""
    kept = list(range(len(sides)))
    for row in range(len(sides)):
        others = [k for k in kept if k != row]
        if not others:
            break
        _, distance = nnls(sides[others].T, sides[row], maxiter=30 * len(sides))
        if distance <= REDUNDANT:
            kept = others
    return np.array(kept, int)


def pattern_cones(features: Matrix, patterns: Any) -> PatternCones:
    """The cones of some patterns (m, n) of F (n, r), without those that have no interior.

    T = (I + sum_j p_j p_j')^(-1/2) over the facets p_j'u >= 0 with p_j'u_0 = 1 at the unit u_0 deepest
    inside: in these coordinates even thin cones are about as wide as they are long.
    """
    rank = features.shape[1]
    kept, frames, products, owners = [], [], [np.zeros((0, rank, rank))], []
    for number, pattern in enumerate(patterns):
        sides = cone_sides(features, pattern)
        inside = interior_direction(sides)
        if not np.any(inside):
            continue
        sides = sides[facets(sides)]
        sides = sides / (sides @ inside)[:, None]
        values, vectors = np.linalg.eigh(np.eye(rank) + sides.T @ sides)
        frame = (vectors / np.sqrt(values)) @ vectors.T
        rows = sides @ frame
        rows /= np.linalg.norm(rows, axis=1)[:, None]
        for j, k in combinations(range(len(rows)), 2):
            outer = np.outer(rows[j], rows[k])
            products.append((outer + outer.T)[None] / 2)
            owners.append(len(kept))
        kept.append(number)
        frames.append(frame)
    return PatternCones(
        patterns=np.asarray(patterns)[kept],
        frames=np.array(frames).reshape(-1, rank, rank),
        products=np.concatenate(products),
        owners=np.array(owners, int),
    )
