"""Cone-constrained PCA: the best neuron with a given activation pattern.

For a pattern D this is the subproblem of Sahiner et al. (2021), section 3.2, Algorithm 1, step 2(a),
in the form of their appendix A.4.2 (last display), with residual R:

    max u'(D X)' R R' (D X) u   over |u| <= 1, (2 D - I) X u >= 0.

Its maximum over all patterns is the price of the best neuron: their eqs. (74) and (75). They solve it
by enumeration in O(n^r), Asteris et al. (2014), Lemma 7. Here it is exact up to rank 3, by the faces
of the cone; above that an ascent from several starts, and the spectral norm as upper bound. See
docs/math/pricing.md, "Cone-constrained PCA".
"""

from itertools import combinations
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Float
from scipy.optimize import nnls

from jaxcone import verified

from ..arrays import Matrix, finite_matrix
from ..geometry.planes import on_plane, plane_bases
from ..geometry.scaling import scaled_rows, scaled_weights
from .circle import UNDERFLOW, linear_maps, linear_maps_error, unit_vectors
from .sphere import top_vectors

# Constraints may be violated by this, relative to |x_i|, at a returned direction.
FEASIBILITY = 1e-12
ASCENT_STEPS = 50
# Bounds the memory: the ends of all arcs are tested against all patterns at once.
PATTERNS_AT_ONCE = 512


class ConePrices(eqx.Module):
    """For each pattern, `lower` <= max over its cone of ||R' D F u|| <= `upper`, the latter proven.

    `directions` attain `lower`: unit vectors that satisfy the constraints up to 1e-12 |x_i|; zero
    where none with a positive price was found, or the cone is the origin.
    """

    lower: Float[np.ndarray, " m"]
    upper: Float[np.ndarray, " m"]
    directions: Float[np.ndarray, "m r"]


def cone_pca(residual: Any, features: Any, patterns: Any) -> ConePrices:
    """max ||R' D F u|| over |u| <= 1, (2 D - I) F u >= 0 for R (n, c), F (n, r) and m patterns.

    **Arguments:** `patterns` (m, n), the diagonals of D as booleans, for instance from
    `sign_patterns`; a pattern that no u has is allowed, its cone being part of some planes.

    Both bounds agree up to rounding at ranks 1 to 3, where the work is O(m n^2) and O(m n^3). Above,
    `lower` is the best of several ascents, and `upper` the spectral norm of R' D F.

    **Raises** a `ValueError` for shapes that do not match or entries that are not finite.
    """
    features = finite_matrix(features, "features")
    residual = finite_matrix(residual, "residual", rows=len(features))
    patterns = np.asarray(patterns)
    if (
        patterns.dtype != bool
        or patterns.ndim != 2
        or patterns.shape[1] != len(features)
        or len(patterns) == 0
    ):
        raise ValueError(
            f"patterns must be booleans of shape (m, {len(features)}), m > 0; they are "
            f"{patterns.dtype} of shape {patterns.shape}."
        )
    rows, exponents = scaled_rows(features)
    weights, exponent = scaled_weights(residual, rows, exponents)
    if not np.any(weights):
        nothing = np.zeros(len(patterns))
        return ConePrices(nothing, nothing, np.zeros((len(patterns), rows.shape[1])))
    alive = np.any(rows != 0, axis=1)
    rows, weights, patterns = rows[alive], weights[alive], patterns[:, alive]
    parts = [
        _bounds(linear_maps(weights, rows, part), rows, part)
        for part in np.split(patterns, range(PATTERNS_AT_ONCE, len(patterns), PATTERNS_AT_ONCE))
    ]
    lower, norms, directions = (np.concatenate(part) for part in zip(*parts, strict=True))
    directions = directions * (lower > 0)[:, None]
    sizes = verified.vector_norm_bound(weights) * verified.vector_norm_bound(rows)
    missed = linear_maps_error(len(rows)) * float(np.sum(sizes)) * verified.INFLATION
    missed += weights.size * UNDERFLOW
    upper = (norms + missed) * (1 + 1e-15)
    with np.errstate(over="ignore"):
        lower, upper = np.ldexp(lower, exponent), np.ldexp(upper, exponent)
    upper = np.where(upper > 0, np.nextafter(upper, np.inf), 0)
    return ConePrices(np.minimum(lower, upper), upper, directions)


def _bounds(maps: Matrix, rows: Matrix, patterns: np.ndarray) -> tuple[Matrix, Matrix, Matrix]:
    """Values reached, bounds on the maxima, and directions, for some of the patterns."""
    rank = rows.shape[1]
    if rank == 1:
        bounds, directions = _on_line(maps, rows, patterns)
    elif rank == 2:
        bounds, directions = _on_circle(maps, rows, np.zeros(len(rows)), patterns)
    elif rank == 3:
        bounds, directions = _on_sphere(maps, rows, patterns)
    else:
        tops = top_vectors(maps, patterns, rows)
        bounds = np.sqrt(np.maximum(tops.squares + 4 * tops.errors, 0))
        sides = _unit_rows(rows) * np.where(patterns, 1.0, -1.0)[:, :, None]
        pairs = zip(maps, sides, strict=True)
        directions = np.stack([_ascend(linear, side) for linear, side in pairs])
    return _values(maps, directions), bounds, directions


def _values(maps: Matrix, directions: Matrix) -> Matrix:
    """|L_k u_k| for each k."""
    return np.linalg.norm((maps @ directions[:, :, None])[:, :, 0], axis=1)


def _unit_rows(rows: Matrix) -> Matrix:
    return rows / np.linalg.norm(rows, axis=1)[:, None]


def _on_line(maps: Matrix, rows: Matrix, patterns: np.ndarray) -> tuple[Matrix, Matrix]:
    """Bounds on |L_k| for each cone that is a half line, and its direction; zero for the others."""
    sides = np.where(patterns, 1.0, -1.0) * np.sign(rows[:, 0])
    forward, backward = np.all(sides > 0, axis=1), np.all(sides < 0, axis=1)
    norms = np.linalg.norm(maps[:, :, 0], axis=1) * (1 + verified.gamma(maps.shape[1] + 8))
    directions = forward.astype(np.float64) - backward
    return norms * (forward | backward), directions[:, None]


def _on_circle(
    maps: Matrix, rows: Matrix, tolerance: Matrix, patterns: np.ndarray
) -> tuple[Matrix, Matrix]:
    """Bounds on max |L_k u| over the unit u whose constraints hold up to `tolerance`; such u.

    The maximum is at a top right singular vector of L_k, or at an end of the feasible arcs, where one
    constraint holds with equality. Both are tested with margins that cover their errors, so nothing
    feasible is missed; where nothing is feasible, both results are zero.
    """
    sizes = verified.vector_norm_bound(rows)
    forms = np.swapaxes(maps, 1, 2) @ maps
    mean = (forms[:, 0, 0] + forms[:, 1, 1]) / 2
    half = (forms[:, 0, 0] - forms[:, 1, 1]) / 2
    tops = unit_vectors(np.arctan2(forms[:, 0, 1], half) / 2)
    signed = np.where(patterns, 1.0, -1.0) * (tops @ rows.T)
    margin = tolerance + FEASIBILITY * sizes
    forward, backward = np.all(signed >= -margin, axis=1), np.all(signed <= margin, axis=1)

    holds_top = np.logical_or(forward, backward)
    radius, rounding = np.hypot(half, forms[:, 0, 1]), verified.gamma(4 * maps.shape[1] + 64)

    ends, shift = _arc_ends(rows, tolerance)
    margins = tolerance + np.outer(shift, sizes)
    feasible = _may_hold(ends @ rows.T, margins, patterns)
    values = np.linalg.norm(ends @ np.swapaxes(maps, 1, 2), axis=2)
    norms = np.sqrt(2 * mean)[:, None]
    at_ends = np.max(values + (shift + rounding) * norms, axis=1, where=feasible, initial=0.0)
    # What the form's rounding adds to the square, and need not where the top's angle is certain.
    added = np.where(
        holds_top | (FEASIBILITY * radius < rounding * 2 * mean), rounding * 2 * mean, 0
    )
    possible = holds_top | np.any(feasible, axis=1)
    squares = np.where(holds_top, mean + radius, at_ends**2) + added
    bounds = np.where(possible, np.sqrt(squares), 0)

    directions = np.zeros((len(maps), 2))
    if len(ends):
        best = np.argmax(np.where(feasible, values, -1), axis=1)
        directions = np.any(feasible, axis=1)[:, None] * ends[best]
    directions[backward] = -tops[backward]
    directions[forward] = tops[forward]
    return bounds, directions


def _arc_ends(rows: Matrix, tolerance: Matrix) -> tuple[Matrix, Matrix]:
    """Unit u with x_i'u = 0, and how far away x_i'u = +-`tolerance` is; none where none exist."""
    lengths = np.linalg.norm(rows, axis=1)
    binding = tolerance < lengths
    rows, ratios = rows[binding], tolerance[binding] / lengths[binding]
    shift = 1.6 * ratios + verified.gamma(16)  # arcsin(t) <= 1.6 t
    normals = np.arctan2(rows[:, 1], rows[:, 0])
    angles = np.concatenate([normals + np.pi / 2, normals - np.pi / 2])
    return unit_vectors(angles), np.concatenate([shift, shift])


def _may_hold(products: Matrix, margins: Matrix, patterns: np.ndarray) -> np.ndarray:
    """(m, p): whether no side of pattern k excludes point p by more than its margin."""
    above = (products > margins).astype(np.float32)  # counts below 2^24 are exact
    below = (products < -margins).astype(np.float32)
    inside = patterns.astype(np.float32)
    return inside @ below.T + (1 - inside) @ above.T == 0


def _on_sphere(maps: Matrix, rows: Matrix, patterns: np.ndarray) -> tuple[Matrix, Matrix]:
    """Bounds on max |L_k u| over the cone's unit vectors, and such u: its interior and its facets."""
    sides, units = np.where(patterns, 1.0, -1.0), _unit_rows(rows)
    bases, tilt = plane_bases(rows)
    on_facets = np.zeros(len(maps))
    directions, reached = np.zeros((len(maps), 3)), np.zeros(len(maps))

    def improve(candidates: Matrix) -> None:
        values = _values(maps, candidates)
        holds = np.all(sides * (candidates @ units.T) >= -FEASIBILITY, axis=1)
        better = holds & (values > reached)
        reached[better], directions[better] = values[better], candidates[better]

    for normal, basis in zip(rows, bases, strict=True):
        flat, errors = on_plane(rows, normal, basis, tilt)
        bounds, points = _on_circle(maps @ basis, flat, 2 * errors, patterns)
        on_facets = np.maximum(on_facets, bounds)
        improve(points @ basis.T)
    # A point of a facet is within tilt of its plane as computed.
    boundary = on_facets * (1 + 2 * tilt) + 2 * tilt * np.linalg.norm(maps, axis=(1, 2))
    tops = top_vectors(maps, patterns, rows)
    improve(tops.vectors)
    improve(-tops.vectors)
    return np.maximum(boundary, np.sqrt(tops.bounds(boundary))), directions


def _ascend(linear: Matrix, sides: Matrix) -> Matrix:
    """A unit u with A u >= 0 of large |L u|, for A = `sides` (n, r); zero if none was found.

    Projected power iteration, u <- P(L'L u) / |P(L'L u)| with P the projection on the cone, is
    monotone. It starts at the projections of all +-right singular vectors and of the sum of the
    sides, and ends with a polish on the faces near by.
    """
    right = np.linalg.svd(linear)[2]
    best, value = np.zeros(linear.shape[1]), 0.0
    for start in [*right, *-right, np.sum(sides, axis=0)]:
        u = _project(start, sides)
        for _ in range(ASCENT_STEPS):
            step = _project(linear.T @ (linear @ u), sides)
            if np.linalg.norm(step - u) <= 1e-9:
                break
            u = step
        if np.linalg.norm(linear @ u) > value:
            best, value = u, float(np.linalg.norm(linear @ u))
    return _polish(linear, sides, best)


def _project(point: Matrix, sides: Matrix) -> Matrix:
    """The projection of `point` on the cone A u >= 0, of unit length; zero if that is the origin.

    By Moreau's decomposition it is the residual of a nonnegative least-squares fit by -A'.
    """
    size = np.linalg.norm(point)
    if size == 0:
        return point
    try:
        coefficients, _ = nnls(sides.T, -point / size)
    except RuntimeError:  # its active set cycles: this start is lost
        return np.zeros_like(point)
    projected = point / size + coefficients @ sides
    length = np.linalg.norm(projected)
    return projected / length if length > FEASIBILITY else np.zeros_like(point)


def _polish(linear: Matrix, sides: Matrix, u: Matrix) -> Matrix:
    """The best of the top right singular vectors on the faces around u, as long as they improve."""
    rank = len(u)
    for _ in range(10):
        near = np.argsort(np.abs(sides @ u))[: rank - 1]
        value, better = float(np.linalg.norm(linear @ u)), None
        for size in range(len(near) + 1):
            for subset in combinations(near, size):
                face = np.linalg.svd(sides[list(subset)].reshape(-1, rank))[2][size:].T
                top = face @ np.linalg.svd(linear @ face)[2][0]
                for candidate in (top, -top):
                    reached = float(np.linalg.norm(linear @ candidate))
                    if reached > value and np.all(sides @ candidate >= -FEASIBILITY):
                        value, better = reached, candidate
        if better is None:
            return u
        u = better
    return u
