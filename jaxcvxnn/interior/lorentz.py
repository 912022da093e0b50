"""Products of Lorentz cones Q = {(s, v) : s >= |v|} for an interior-point method on the host.

All functions work on rows: a point of a product of m cones is an array (m, 1 + c). The Jordan product
is (s, v) o (t, u) = (st + v'u, s u + t v), its unit e = (1, 0). Nesterov-Todd scaling and step lengths
as in Tuetuencue, Toh, Todd, Math. Program. 95 (2003), section 2, with determinants factored as
(s - |v|)(s + |v|), which is what keeps them accurate near the boundary.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]
Vector = NDArray[np.float64]


def determinants(points: Rows) -> Vector:
    """s^2 - |v|^2, positive inside the cone (and inside its negative)."""
    lengths = row_norms(points[:, 1:])
    return (points[:, 0] - lengths) * (points[:, 0] + lengths)


def inside(points: Rows) -> bool:
    """Whether every row is strictly inside its cone."""
    return bool(np.all(points[:, 0] > row_norms(points[:, 1:])))


def inverses(points: Rows) -> Rows:
    """Jordan inverses (s, -v) / (s^2 - |v|^2)."""
    return reflect(points) / determinants(points)[:, None]


def product(left: Rows, right: Rows) -> Rows:
    """Jordan products of the rows."""
    result = left[:, :1] * right + right[:, :1] * left
    result[:, 0] = row_dots(left, right)
    return result


def quotient(divisor: Rows, points: Rows) -> Rows:
    """The rows x with `divisor` o x = `points`."""
    first = row_dots(reflect(divisor), points) / determinants(divisor)
    result = (points - first[:, None] * divisor) / divisor[:, :1]
    result[:, 0] = first
    return result


def largest_step(points: Rows, directions: Rows) -> float:
    """The largest t (perhaps infinite) for which points + t directions stays in the cones.

    Per row the smallest positive root of det(directions) t^2 + 2 b t + det(points).
    """
    square = determinants(directions)
    half = row_dots(reflect(points), directions)
    constant = determinants(points)
    discriminant = half**2 - square * constant
    with np.errstate(divide="ignore", invalid="ignore"):
        stable = -(half + np.copysign(np.sqrt(np.maximum(discriminant, 0)), half))
        roots = np.stack([stable / square, constant / stable])
    roots[:, discriminant < 0] = np.inf
    return float(np.min(roots, where=roots > 0, initial=np.inf))


def row_dots(left: Rows, right: Rows) -> Vector:
    """Inner products of the rows."""
    return np.vecdot(left, right)


def row_norms(rows: Rows) -> Vector:
    """Euclidean norms of the rows."""
    return np.sqrt(row_dots(rows, rows))


def reflect(points: Rows) -> Rows:
    """(s, -v)."""
    result = -points
    result[:, 0] = points[:, 0]
    return result


class Scaling(NamedTuple):
    """The symmetric automorphism W of the cones with W^-1 x = W z = `center`.

    W = `size` (2 q q' - J) to the power one half, J = diag(1, -1, ..., -1): q = `axis` has
    determinant 1. W^2 = `size` (2 q q' - J) maps z to x.
    """

    axis: Rows
    size: Vector
    center: Rows

    def apply(self, points: Rows) -> Rows:
        """W times the rows."""
        axis = self.axis
        inner = row_dots(axis[:, 1:], points[:, 1:])
        result = points + (points[:, 0] + inner / (1 + axis[:, 0]))[:, None] * axis
        result[:, 0] = axis[:, 0] * points[:, 0] + inner
        return np.sqrt(self.size)[:, None] * result

    def first_entries(self, vectors: Rows, target: Rows) -> Vector:
        """s for which W^-2 ((s, v) + `target`) has no first entry, for the rows v of `vectors`."""
        first = self.axis[:, 0]
        along = row_dots(self.axis[:, 1:], vectors + target[:, 1:])
        return 2 * first * along / (2 * first**2 - 1) - target[:, 0]

    def largest_step(self, x_scaled: Rows, z_scaled: Rows) -> float:
        """The largest t for which x and z stay in the cones, for W^-1 dx and W dz."""
        both = np.concatenate([self.center, self.center])
        return largest_step(both, np.concatenate([x_scaled, z_scaled]))


def scaling(x: Rows, z: Rows) -> Scaling:
    """The Nesterov-Todd scaling of two points strictly inside the cones."""
    x_root, z_root = np.sqrt(determinants(x)), np.sqrt(determinants(z))
    x_unit, z_unit = x / x_root[:, None], z / z_root[:, None]
    cosine = np.sqrt((1 + row_dots(x_unit, z_unit)) / 2)
    axis = (x_unit + reflect(z_unit)) / (2 * cosine[:, None])
    # W z without the subtractions in it.
    x_share, z_share = cosine + z_unit[:, 0], cosine + x_unit[:, 0]
    center = x_share[:, None] * x_unit + z_share[:, None] * z_unit
    center /= (x_unit[:, 0] + z_unit[:, 0] + 2 * cosine)[:, None]
    center[:, 0] = cosine
    return Scaling(axis, x_root / z_root, np.sqrt(x_root * z_root)[:, None] * center)
