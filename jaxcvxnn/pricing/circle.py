"""Exact pricing for features of rank 1 and 2: closed form on each arc of the circle.

The lines x_i'u = 0 cut the unit circle into arcs. On an arc with active rows D the price is |L u|
with L = R'DF, whose square is a sinusoid of twice the angle: its maximum over the arc is at the top
right singular vector of L if the arc holds it, else at an end. Why the upper bound holds in floating
point: docs/math/pricing.md, "Pricing on the circle".
"""

from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxcone import verified

from ..arrays import Matrix, finite_matrix
from ..geometry.scaling import scaled_rows, scaled_weights
from .price import Price, prices

# The maximum of an arc whose top singular vector is this near, in radians, is taken to be the top
# singular value: that costs the square of it, and pays for every rounding in the angles.
ANGLE_MARGIN = 1e-9
# A top nearer than this to an end of its arc has no slope there, as far as FLAT can tell, so that
# the other side of the end decides.
END_MARGIN = 2e-14
# Slopes below this times the mean are zero up to rounding.
FLAT = 1e-13
# Directions nearer than this count as one neuron.
SAME_DIRECTION = 1e-9
# Covers every underflow in a bound on a problem scaled to size one, per product.
UNDERFLOW = 2.0**-500


class Circle(eqx.Module):
    """The arcs of the unit circle on which the same rows of F (n, 2) are active.

    Arc k runs from `angles[k]` over `widths[k]`, at most a quarter of the circle; the columns of
    `ends[k]` are its first and last point. `rows` are F with each row scaled to size one by
    2^-`exponents`. For every u of arc k,

        |relu(x_i'u) - active[k, i] x_i'u| <= slack[i]    (x_i the scaled row),

    rounding included, so nothing else has to be exact. `rank` is the number of F's columns.
    """

    rows: Float[np.ndarray, "n 2"]
    exponents: Int[np.ndarray, " n"]
    angles: Float[np.ndarray, " m"]
    widths: Float[np.ndarray, " m"]
    ends: Float[np.ndarray, "m 2 2"]
    active: Bool[np.ndarray, "m n"]
    slack: Float[np.ndarray, " n"]
    rank: int = eqx.field(static=True)

    def price(self, residual: Any) -> Price:
        """The price of the best new neuron for R (n, c); `neurons` are all local maxima.

        **Raises** a `ValueError` unless R is finite and has a row per row of F.
        """
        residual = finite_matrix(residual, "residual", rows=len(self.rows))
        weights, exponent = scaled_weights(residual, self.rows, self.exponents)
        linear = linear_maps(weights, self.rows, self.active)
        forms = _sinusoids(linear, self.angles, self.widths)
        end_squares = np.sum((linear @ self.ends) ** 2, axis=1)
        squares = np.where(forms.holds_top, forms.mean + forms.radius, np.max(end_squares, axis=1))
        squares += verified.gamma(4 * weights.shape[1] + 64) * 2 * forms.mean
        upper = np.sqrt(np.max(squares)) + self._neglected(weights)
        best = int(np.argmax(squares))
        end = (best + int(np.argmax(end_squares[best]))) % len(self.angles)
        peak = forms.top[best] if forms.holds_top[best] else self.angles[end]
        neurons = unit_vectors(np.append(_local_maxima(forms, self.angles), peak))
        if self.rank == 1:
            neurons = np.sign(neurons[:, :1])
        values, neurons = best_first(weights, self.rows[:, : self.rank], neurons)
        return scaled_price(values[0], upper, exponent, neurons, "arcs", len(self.angles))

    def _neglected(self, weights: Matrix) -> float:
        """A bound on what the arcs' linear maps, as they are computed, miss of the price."""
        if not np.any(weights):
            return 0.0
        sizes = verified.vector_norm_bound(self.rows)
        per_row = self.slack + linear_maps_error(len(self.rows)) * sizes
        missed = float(np.sum(verified.vector_norm_bound(weights) * per_row))
        return missed * verified.INFLATION + weights.size * UNDERFLOW


def arrange_circle(features: Any) -> Circle:
    """The arcs of F (n, 1) or (n, 2), which serve every R.

    A line is a plane whose second coordinate is zero. Zero, parallel and antiparallel rows are
    allowed.

    **Raises** a `ValueError` for another shape or entries that are not finite.
    """
    features = finite_matrix(features, "features")
    rank = features.shape[1]
    if rank not in (1, 2):
        raise ValueError(f"features must have 1 or 2 columns; they have {rank}.")
    planar = np.zeros((len(features), 2))
    planar[:, :rank] = features
    rows, exponents = scaled_rows(planar)
    angles = _break_angles(rows)
    rays = unit_vectors(angles)
    widths = np.diff(angles, append=angles[0] + 2 * np.pi)
    ends = np.stack([rays, np.roll(rays, -1, axis=0)], axis=2)
    active = unit_vectors(angles + widths / 2) @ rows.T > 0
    products = rays @ rows.T
    outward = np.where(active, -1.0, 1.0)
    wrong = np.maximum(outward * products, outward * np.roll(products, -1, axis=0))
    wrong = np.max(wrong, axis=0) + verified.gamma(8) * verified.vector_norm_bound(rows)
    # A unit vector between two unit vectors at most a right angle apart is a nonnegative
    # combination of both, with a sum of coefficients of at most sqrt(2).
    slack = np.where(np.any(rows != 0, axis=1), 1.5 * np.maximum(wrong, 0), 0)
    return Circle(rows, exponents, angles, widths, ends, active, slack, rank)


def price_planar(residual: Any, features: Any) -> Price:
    """max over |u| <= 1 of ||R' relu(F u)|| for R (n, c) and F (n, 1) or (n, 2), with proof.

    `neurons` are all local maxima on the circle, the best first. For many R with one F, build
    `arrange_circle(features)` once and call its `price`.

    **Raises** a `ValueError` for shapes that do not match or entries that are not finite.
    """
    return arrange_circle(features).price(residual)


class _Sinusoids(NamedTuple):
    """|L_k u|^2 at u = (cos t, sin t) for each arc k: mean + radius cos(2 (t - top)) if `holds_top`.

    `inside` says that the arc holds `top`, and not at an end. `slopes` are half the derivatives in t
    at the first and at the last point of the arc, `swings` the values there less the mean.
    """

    mean: Matrix
    radius: Matrix
    top: Matrix
    holds_top: np.ndarray
    inside: np.ndarray
    slopes: Matrix
    swings: Matrix


def _sinusoids(linear: Matrix, angles: Matrix, widths: Matrix) -> _Sinusoids:
    squares = np.sum(linear**2, axis=1)
    cross = np.sum(linear[:, :, 0] * linear[:, :, 1], axis=1)
    half = (squares[:, 0] - squares[:, 1]) / 2
    ahead = np.mod(np.arctan2(cross, half) / 2 - angles, np.pi)
    ahead = np.where(ahead > np.pi - ANGLE_MARGIN, ahead - np.pi, ahead)
    double = 2 * np.stack([angles, angles + widths], axis=1)
    cosines, sines = np.cos(double), np.sin(double)
    return _Sinusoids(
        mean=np.sum(squares, axis=1) / 2,
        radius=np.hypot(half, cross),
        top=angles + np.clip(ahead, 0, widths),
        holds_top=ahead <= widths + ANGLE_MARGIN,
        inside=(ahead > END_MARGIN) & (ahead < widths - END_MARGIN),
        slopes=cross[:, None] * cosines - half[:, None] * sines,
        swings=half[:, None] * cosines + cross[:, None] * sines,
    )


def _local_maxima(forms: _Sinusoids, angles: Matrix) -> Matrix:
    """Angles of all local maxima: tops inside arcs, and rays where the price turns from up to down.

    A maximum that rounding could hide is kept, at the price of a few candidates that are none. A
    slope of zero counts as both, except at the bottom of a sinusoid.
    """
    flat = FLAT * np.maximum(forms.mean, np.roll(forms.mean, 1))
    bottom = forms.swings < -flat[:, None]
    before, after = np.roll(forms.slopes[:, 1], 1), forms.slopes[:, 0]
    rises_before = before > np.where(np.roll(bottom[:, 1], 1), flat, -flat)
    falls_after = after < np.where(bottom[:, 0], -flat, flat)
    return np.concatenate([forms.top[forms.inside], angles[rises_before & falls_after]])


def linear_maps(weights: Matrix, rows: Matrix, active: np.ndarray) -> Matrix:
    """L_k = R' D_k F (m, c, r) of each pattern; `linear_maps_error` bounds its rounding errors."""
    shape = weights.shape[1], rows.shape[1]
    products = (weights[:, :, None] * rows[:, None, :]).reshape(len(rows), shape[0] * shape[1])
    maps = np.zeros((len(active), products.shape[1]))
    for part in _blocks(len(rows)):
        maps += active[:, part].astype(np.float64) @ products[part]
    return maps.reshape(len(active), *shape)


def linear_maps_error(count: int) -> float:
    """e with |fl(L_k) - L_k| <= e sum_i |R_i| |x_i| in the Frobenius norm, for `count` rows."""
    blocks = _blocks(count)
    return verified.gamma(blocks[0].stop + len(blocks) + 4)


def _blocks(count: int) -> list[slice]:
    """Blocks of rows: summing within blocks, then over them, has a far smaller error bound."""
    size = max(32, int(np.sqrt(count)))
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _break_angles(rows: Matrix) -> Matrix:
    """Sorted angles in [0, 2 pi) of the rays x_i'u = 0, and of the axes, so that no gap is wide."""
    alive = rows[np.any(rows != 0, axis=1)]
    normals = np.arctan2(alive[:, 1], alive[:, 0])
    quarter = np.pi / 2
    angles = np.concatenate([normals + quarter, normals - quarter, quarter * np.arange(4)])
    angles = np.mod(angles, 2 * np.pi)
    return np.unique(angles[angles < 2 * np.pi])


def unit_vectors(angles: Matrix) -> Matrix:
    """(cos t, sin t) for each angle t."""
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def best_first(weights: Matrix, rows: Matrix, neurons: Matrix) -> tuple[Matrix, Matrix]:
    """Prices and unit directions without repetitions and without worthless ones; at least one."""
    values = prices(weights, rows, neurons)
    order = np.argsort(-values, kind="stable")
    values, neurons = values[order], neurons[order]
    keep = values > 1e-12 * values[0]
    keep[0] = True
    values, neurons = values[keep], neurons[keep]
    near = np.linalg.norm(neurons[:, None, :] - neurons[None, :, :], axis=2) <= SAME_DIRECTION
    first = ~np.any(np.tril(near, -1), axis=1)
    return values[first], neurons[first]


def scaled_price(
    lower: float, upper: float, exponent: int, neurons: Matrix, method: str, cells: int
) -> Price:
    """A `Price` from bounds in units of 2^exponent, the upper one rounded up."""
    with np.errstate(over="ignore"):
        above = verified.above(float(np.ldexp(upper * (1 + 1e-15), exponent)))
        below = float(np.ldexp(lower, exponent))
    upper = above if upper > 0 else 0.0
    return Price(min(below, upper), upper, neurons, method, cells)
