"""Exact pricing for features of rank 3.

The planes x_i'u = 0 cut the sphere into cells. The best neuron lies inside a cell with active rows D,
and is then a top right singular vector of R'DF, or on a plane, where the problem is one on a circle.
Every cell has a facet, an arc of some plane's circle: so the cells are found by walking round each
plane's circle, and a check of the walk bounds what near-degenerate positions may hide. Proof:
docs/math/pricing.md, "Pricing by enumeration".
"""

from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxcone import verified

from ..arrays import Matrix, finite_matrix
from ..geometry.planes import distinct_patterns, on_plane, parallel_planes, plane_bases
from ..geometry.scaling import scaled_rows, scaled_weights
from .circle import (
    UNDERFLOW,
    Circle,
    arrange_circle,
    best_first,
    linear_maps,
    linear_maps_error,
    price_planar,
    scaled_price,
    unit_vectors,
)
from .price import Price


class Sphere(eqx.Module):
    """The cells of the unit sphere on which the same rows of F (n, 3) are active.

    `rows` are F with each row scaled to size one by 2^-`exponents`. Row i is a multiple of
    `normals[classes[i]]`, up to `spread[i]`, of sign `signs[i]`; zero rows have class -1. `patterns`
    say on which side of each normal's plane a cell lies. The plane of normal k is spanned by
    `bases[k]`, orthonormal to `tilt`, on which `circles[k]` has the arcs. Every point of a cell that
    is missing in `patterns` is within `hidden` of a plane.
    """

    rows: Float[np.ndarray, "n 3"]
    exponents: Int[np.ndarray, " n"]
    classes: Int[np.ndarray, " n"]
    signs: Float[np.ndarray, " n"]
    spread: Float[np.ndarray, " n"]
    normals: Float[np.ndarray, "k 3"]
    bases: Float[np.ndarray, "k 3 2"]
    tilt: float
    circles: tuple[Circle, ...]
    patterns: Bool[np.ndarray, "m k"]
    hidden: float

    @property
    def active(self) -> Bool[np.ndarray, "m n"]:
        """The active rows of each cell."""
        return _active_rows(self.patterns, self.classes, self.signs)

    def price(self, residual: Any) -> Price:
        """The price of the best new neuron for R (n, c); `neurons` are local maxima.

        **Raises** a `ValueError` unless R is finite and has a row per row of F.
        """
        residual = finite_matrix(residual, "residual", rows=len(self.rows))
        weights, exponent = scaled_weights(residual, self.rows, self.exponents)
        if not np.any(weights):
            return scaled_price(0.0, 0.0, 0, np.eye(1, 3), "cells", len(self.patterns))
        sizes = verified.vector_norm_bound(weights)
        lengths = verified.vector_norm_bound(self.rows)
        lipschitz = float(sizes @ lengths) * verified.INFLATION
        moved = float(sizes @ self.spread) * verified.INFLATION
        missed = linear_maps_error(len(self.rows)) * lipschitz * verified.INFLATION + moved

        found = [circle.price(weights) for circle in self.circles]
        on_planes = max(price.upper for price in found) * (1 + self.tilt)
        on_planes += 2 * self.tilt * lipschitz + moved
        boundary = on_planes + 2 * missed
        tops = top_vectors(
            linear_maps(weights, self.rows, self.active), self.patterns, self.normals
        )
        square = float(np.max(tops.bounds(boundary)))
        upper = max(float(np.sqrt(square)), boundary) + 2 * missed + self.hidden * lipschitz
        upper += weights.size * UNDERFLOW
        best = max(range(len(found)), key=lambda k: found[k].lower)
        candidates = [*tops.inside(), *self._maxima_on_planes(weights, found)]
        if found[best].lower ** 2 >= square:  # no rounding may lose it
            candidates.append(found[best].neurons[:1] @ self.bases[best].T)
        candidates = np.concatenate(candidates)
        values, neurons = best_first(weights, self.rows, candidates)
        return scaled_price(values[0], upper, exponent, neurons, "cells", len(self.patterns))

    def _maxima_on_planes(self, weights: Matrix, found: list[Price]) -> list[Matrix]:
        """The circles' maxima from which no step off the plane goes up."""
        kept = []
        for price, basis, normal in zip(found, self.bases, self.normals, strict=True):
            points = price.neurons @ basis.T
            kept.append(points[_no_ascent(weights, self.rows, points, normal)])
        return kept


class TopVectors(eqx.Module):
    """Top right singular vectors of maps L_k, and whether they may lie in the cells of k.

    `squares` are the computed |L_k|_2^2, true to `errors`, and `gaps` their distances to the second
    largest. `forward` says that no cell's side excludes `vectors[k]`, `backward` the same for its
    negative: where both are False, the cell is proven to hold no exact top vector in its interior.
    """

    squares: Float[np.ndarray, " m"]
    gaps: Float[np.ndarray, " m"]
    errors: Float[np.ndarray, " m"]
    vectors: Float[np.ndarray, "m r"]
    forward: Bool[np.ndarray, " m"]
    backward: Bool[np.ndarray, " m"]

    def bounds(self, boundary: Any) -> Float[np.ndarray, " m"]:
        """Bounds on |L_k u|^2 at maxima inside cell k; `boundary` bounds |L_k u| on its boundary.

        Where the second singular value is near, moving u towards its vector meets the boundary, so
        that boundary^2 plus the gap is a bound too.
        """
        squares = np.minimum(self.squares, np.square(boundary) + self.gaps) + 4 * self.errors
        return np.where(self.forward | self.backward, np.maximum(squares, 0), 0)

    def inside(self) -> tuple[Matrix, Matrix]:
        """The vectors that may lie in their cells."""
        return self.vectors[self.forward], -self.vectors[self.backward]


def top_vectors(maps: Matrix, patterns: np.ndarray, normals: Matrix) -> TopVectors:
    """The top right singular vectors of `maps` (m, c, r), r > 1, against cells between planes.

    Cell k has x_j'u >= 0 where `patterns[k, j]`, else x_j'u <= 0, for each x_j of `normals`.
    """
    forms = np.swapaxes(maps, 1, 2) @ maps
    values, vectors = np.linalg.eigh(forms)
    defect = np.linalg.norm(forms @ vectors - vectors * values[:, None, :], axis=(1, 2))
    gram = np.swapaxes(vectors, 1, 2) @ vectors
    skew = np.linalg.norm(gram - np.eye(maps.shape[2]), axis=(1, 2))
    rounding = verified.gamma(4 * maps.shape[1] + 16 * maps.shape[2] ** 2 + 128)
    errors = 2 * defect + (4 * skew + rounding) * np.trace(forms, axis1=1, axis2=2)
    gaps = values[:, -1] - values[:, -2]
    # Davis-Kahan: the sine of the angle between both eigenvectors is at most error / (gap - error).
    with np.errstate(divide="ignore", invalid="ignore"):
        turn = np.where(gaps > 2 * errors, 4 * errors / gaps + verified.gamma(32), np.inf)
    units = normals / np.linalg.norm(normals, axis=1)[:, None]
    signed = np.where(patterns, 1.0, -1.0) * (vectors[:, :, -1] @ units.T)
    return TopVectors(
        squares=values[:, -1],
        gaps=gaps,
        errors=errors,
        vectors=vectors[:, :, -1],
        forward=np.all(signed >= -turn[:, None], axis=1),
        backward=np.all(signed <= turn[:, None], axis=1),
    )


def arrange_sphere(features: Any) -> Sphere:
    """The cells of F (n, 3), which serve every R: about n^2 of them, with n bits each.

    Zero, parallel and antiparallel rows, and rows that span less than three dimensions, are allowed.

    **Raises** a `ValueError` for another shape or entries that are not finite.
    """
    features = finite_matrix(features, "features")
    if features.shape[1] != 3:
        raise ValueError(f"features must have 3 columns; they have {features.shape[1]}.")
    rows, exponents = scaled_rows(features)
    classes, signs, normals, spread = parallel_planes(rows)
    bases, tilt = plane_bases(normals)
    circles, patterns, hidden = [], [np.ones((1, 0), bool)] if not len(normals) else [], 0.0
    for k, basis in enumerate(bases):
        flat = np.where((classes == k)[:, None], 0, rows @ basis)
        circles.append(arrange_circle(flat))
        others = np.delete(np.arange(len(normals)), k)
        around, width = _walk(*on_plane(normals[others], normals[k], basis, tilt))
        hidden += width
        sides = np.zeros((2 * len(around), len(normals)), bool)
        sides[:, others] = np.concatenate([around, around])
        sides[: len(around), k] = True
        patterns.append(distinct_patterns(sides))
    # A disc inside a convex cell has at most the cell's perimeter:
    # docs/math/pricing.md, "Pricing by enumeration".
    hidden = min(hidden / 4, 1.5)
    patterns = distinct_patterns(np.concatenate(patterns))
    return Sphere(
        rows,
        exponents,
        classes,
        signs,
        spread,
        normals,
        bases,
        tilt,
        tuple(circles),
        patterns,
        hidden,
    )


def price_enumerated(residual: Any, features: Any) -> Price:
    """max over |u| <= 1 of ||R' relu(F u)|| for R (n, c) and F (n, r), r <= 3, with proof.

    At rank 3 the work grows as n^3. `neurons` are local maxima on the sphere, the best first. For
    many R with one F, build `arrange_sphere(features)` once and call its `price`.

    **Raises** a `ValueError` for shapes that do not match or entries that are not finite.
    """
    features = finite_matrix(features, "features")
    if features.shape[1] < 3:
        return price_planar(residual, features)
    return arrange_sphere(features).price(residual)


def _active_rows(patterns: np.ndarray, classes: np.ndarray, signs: Matrix) -> np.ndarray:
    """Patterns of the rows from patterns of their classes."""
    padded = np.concatenate([patterns, np.zeros((len(patterns), 1), bool)], axis=1)
    return (padded[:, classes] == (signs > 0)) & (classes >= 0)


def _walk(rows: Matrix, threshold: Matrix) -> tuple[np.ndarray, float]:
    """Signs of x_i'u along the unit circle, and the length of its longest stretch that may hide more.

    Products with `rows` (k, 2) above `threshold` have a certain sign. Only points with certain signs
    are returned, in order. Between two where at most one sign changes, there is no other pattern.
    """
    normals = np.arctan2(rows[:, 1], rows[:, 0])
    breaks = np.mod(np.concatenate([normals + np.pi / 2, normals - np.pi / 2]), 2 * np.pi)
    # On each side of a break, as near as its own row's sign is certain.
    lengths = np.maximum(np.linalg.norm(rows, axis=1), threshold)
    step = np.minimum(2 * threshold / lengths, 0.1)
    step = np.concatenate([step, step])
    ordered = np.sort(breaks)
    middles = ordered + np.diff(ordered, append=ordered[:1] + 2 * np.pi) / 2
    spaced = np.arange(16) * np.pi / 8 + 0.1
    angles = np.concatenate([breaks - step, breaks + step, middles, spaced])
    angles = np.sort(np.mod(angles, 2 * np.pi))
    products = unit_vectors(angles) @ rows.T
    certain = np.all(np.abs(products) > threshold, axis=1)
    angles, signs = angles[certain], products[certain] > 0
    if len(angles) == 0:
        return signs, 2 * np.pi
    changes = np.sum(signs != np.roll(signs, -1, axis=0), axis=1)
    gaps = np.diff(angles, append=angles[0] + 2 * np.pi)
    if np.max(gaps) > np.pi / 2:
        return signs, 2 * np.pi
    longest = float(np.max(gaps, where=changes > 1, initial=0.0))
    return signs, longest + 1e-15 if longest > 0 else 0.0


def _no_ascent(weights: Matrix, rows: Matrix, points: Matrix, normal: Matrix) -> np.ndarray:
    """Whether the price falls, to first order, from `points` in the directions of +-`normal`."""
    inputs = points @ rows.T
    normal = normal / np.linalg.norm(normal)
    on_plane = np.abs(inputs) <= 1e-12
    value = np.maximum(inputs, 0) @ weights
    falls = np.ones(len(points), bool)
    for direction in (normal, -normal):
        speed = rows @ direction
        moves = np.where(on_plane, np.maximum(speed, 0), np.where(inputs > 0, speed, 0))
        slope = np.sum(value * (moves @ weights), axis=1)
        falls &= slope <= 1e-9 * np.sum(value**2, axis=1)
    return falls
