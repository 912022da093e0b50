"""A proven upper bound of the price on simplicial cones, many at a time, and how to split them.

A cone is {u = sum_k l_k g_k, l >= 0}. Its generators are floats that approximate exact ones, within
`radii`, because the point that splits an edge is not a float vector: the exact cones tile the space
exactly, and every bound here holds for the exact cone. Rows whose sign is the same on a whole cone
are folded into a matrix and not looked at again below it. Derivation, with the rounding errors:
docs/math/pricing.md, "Branch and bound over cones".
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxcone import verified

from ..arrays import Matrix
from ..geometry.scaling import scaled_rows, scaled_weights

# Relative rounding of a handful of operations on numbers that are themselves bounds.
ROUND_UP = 1 + 256 * verified.UNIT


class Rows(NamedTuple):
    """R_i and f_i, scaled by powers of two: the largest entry of each f_i and of R is in [1/2, 1).

    One zero row follows the n rows: lists of rows are padded with its index. `sizes` are |R_i|,
    `weighted` |R_i| f_i, and `lipschitz` bounds sum_i |R_i||f_i|. The price is `2**exponent` times
    that of the scaled rows.
    """

    features: Float[np.ndarray, "n1 r"]
    residual: Float[np.ndarray, "n1 c"]
    sizes: Float[np.ndarray, " n1"]
    weighted: Float[np.ndarray, "n1 r"]
    lipschitz: float
    exponent: int

    @property
    def unit(self) -> float:
        """eta: the relative rounding of f_i'g, and of a combination of two generators."""
        return 2 * (self.features.shape[1] + 8) * verified.UNIT

    @property
    def rounding(self) -> float:
        """The rounding of sums over rows and outputs, in units of `lipschitz`."""
        return verified.gamma(
            4 * (len(self.features) + sum(self.features.shape) + self.residual.shape[1]) + 64
        )


class Cones(NamedTuple):
    """b cones with at most w undecided rows each.

    `folded` is the sum of R_i f_i' over the rows that are nonnegative on the whole cone; `rows` are
    the indices of those whose sign is not decided, padded with n.
    """

    generators: Float[np.ndarray, "b r r"]
    radii: Float[np.ndarray, "b r"]
    folded: Float[np.ndarray, "b c r"]
    rows: Int[np.ndarray, "b w"]

    def take(self, index: np.ndarray) -> "Cones":
        return Cones(*(array[index] for array in self))


def rows_that_count(residual: Matrix, features: Matrix) -> Rows:
    """The rows with R_i != 0 and f_i != 0, scaled exactly."""
    alive = np.any(residual != 0, axis=1) & np.any(features != 0, axis=1)
    features, exponents = scaled_rows(features[alive])
    residual, exponent = scaled_weights(residual[alive], features, exponents)
    features = np.concatenate([features, np.zeros((1, features.shape[1]))])
    residual = np.concatenate([residual, np.zeros((1, residual.shape[1]))])
    sizes = np.linalg.norm(residual, axis=1) * ROUND_UP
    lengths = np.linalg.norm(features, axis=1)
    lipschitz = float(sizes @ lengths) * verified.INFLATION
    weighted = sizes[:, None] * features
    return Rows(features, residual, sizes, weighted, lipschitz, exponent)


def orthants(rows: Rows, basis: Matrix, signs: Matrix) -> Cones:
    """The cones of the columns of `basis` (r, r), nearly orthonormal, times each row of `signs`.

    The 2^r rows of signs together cover the space exactly, for any nonsingular basis.
    """
    count, rank = signs.shape
    generators = signs[:, :, None] * basis.T
    everything = np.arange(len(rows.features) - 1, dtype=np.int32)
    return Cones(
        generators=generators,
        radii=np.full((count, rank), rows.unit),
        folded=np.zeros((count, rows.residual.shape[1], rank)),
        rows=np.broadcast_to(everything, (count, len(everything))),
    )


class Examined(NamedTuple):
    """Upper bounds (b,) of the price on all cones, and those that stay open, at `where`.

    The decided rows of the open cones are folded, and their undecided ones stand in front.
    """

    bounds: Float[np.ndarray, " b"]
    where: Int[np.ndarray, " k"]
    open: Cones


def examine(rows: Rows, cones: Cones, threshold: float) -> Examined:
    """Bounds all cones; a cone is open if its bound is above `threshold`, and refined until then."""
    features, residual = rows.features[cones.rows], rows.residual[cones.rows]
    inner = cones.generators @ features.swapaxes(1, 2)  # (b, r, w)
    positive = np.maximum(inner, 0)
    above, below = np.sum(positive, axis=1), np.sum(positive - inner, axis=1)  # (b, w)
    outputs = positive @ residual + cones.generators @ cones.folded.swapaxes(1, 2)  # (b, r, c)
    inner *= (below < above)[:, None]
    slack = positive - inner  # relu(-a) where that has the smaller sum, relu(a) elsewhere
    values = _generator_bounds(rows, cones, residual, outputs, slack)
    bounds = _ball_bound(cones, values, np.sum(cones.generators, axis=1))

    # No y does better than the largest value; the shortest one is worth its price where that may do.
    index = np.flatnonzero((bounds > threshold) & (np.max(values, axis=1) <= threshold))
    some = cones.take(index)
    corner = _corner(some.generators, values[index])
    bounds[index] = np.minimum(bounds[index], _ball_bound(some, values[index], corner))

    index = np.flatnonzero(bounds > threshold)
    some = cones.take(index)
    # Zero on the whole cone is both; it counts as negative.
    active = (below == 0) & (above > 0)
    pulled = (active[:, :, None] * residual).swapaxes(1, 2) @ features
    undecided = (below[index] > 0) & (above[index] > 0)
    padding = len(rows.features) - 1
    left = np.sort(np.where(undecided, some.rows, padding), axis=1)
    some = some._replace(folded=some.folded + pulled[index], rows=left)
    linear = np.flatnonzero(~np.any(undecided, axis=1))
    if linear.size:
        whole = index[linear]
        bounds[whole] = np.minimum(bounds[whole], _cell_bound(rows, some.take(linear)))
    still = np.flatnonzero(bounds[index] > threshold)
    return Examined(bounds, index[still], some.take(still))


def split(rows: Rows, cones: Cones, scale: float) -> tuple[Cones, Matrix]:
    """Both halves of every cone, (2 b) of them, and the unit points (b, r) that they share.

    The edge and the point on it are those that take most from the sum of |R_i| times the slack of
    relu on the edge, among the middle in angle and the middle in the metric of the undecided rows;
    `scale`, the size of the price, weighs the curvature of the sphere against that.
    """
    generators = cones.generators
    count, rank = generators.shape[:2]
    inner = generators @ rows.weighted[cones.rows].swapaxes(1, 2)  # (b, r, w)
    widths = np.sum(np.abs(inner), axis=2)
    spread = np.sqrt(np.sum(inner**2, axis=2))
    spread = np.maximum(spread, 1e-6 * np.max(spread, axis=1, keepdims=True))
    inverse = 1 / np.where(spread > 0, spread, 1.0)
    first, second = np.triu_indices(rank, 1)
    edges = len(first)
    cosine = (generators @ generators.swapaxes(1, 2))[:, first, second]
    # Along axis 1 the middles in angle of all edges, then the others.
    ones = np.ones((count, edges))
    left = np.concatenate([ones, inverse[:, first]], axis=1)
    right = np.concatenate([ones, inverse[:, second]], axis=1)
    length = np.sqrt(left**2 + right**2 + 2 * left * right * np.tile(cosine, 2))
    left, right = left / length, right / length
    first, second = np.tile(first, 2), np.tile(second, 2)
    mixture = np.zeros((count, 2 * edges, rank))
    place = np.arange(2 * edges)
    mixture[:, place, first] = left
    mixture[:, place, second] = right
    taken = left * widths[:, first] + right * widths[:, second]
    taken = (taken - np.abs(mixture @ inner) @ np.ones(inner.shape[2])) / 2
    taken[:, :edges] += scale * (2 / length[:, :edges] - 1)
    best = np.argmax(taken, axis=1)
    lane = np.arange(count)
    first, second, left, right = first[best], second[best], left[lane, best], right[lane, best]
    points = left[:, None] * generators[lane, first] + right[:, None] * generators[lane, second]
    length = np.linalg.norm(points, axis=1)
    left, right, points = left / length, right / length, points / length[:, None]
    radius = left * (cones.radii[lane, first] + rows.unit)
    radius += right * (cones.radii[lane, second] + rows.unit)
    children = Cones(*(np.concatenate([array, array]) for array in cones))
    for start, corner in ((0, first), (count, second)):
        children.generators[start + lane, corner] = points
        children.radii[start + lane, corner] = radius * ROUND_UP
    return children, points


def _generator_bounds(
    rows: Rows, cones: Cones, residual: Matrix, outputs: Matrix, slack: Matrix
) -> Matrix:
    """B (b, r) with |R' relu(F u)| <= sum_k l_k B_k for every u = sum_k l_k g_k, l >= 0.

    relu lies below its interpolation from the generators by at most sum_k l_k `slack`_k. That is
    subtracted along the mean output v, where R_i has a sign, and counted in full across it.
    """
    mean = np.sum(outputs, axis=1)
    length = np.linalg.norm(mean, axis=1)[:, None]
    # Any unit vector serves, and so does 0; a quotient of numbers that underflow is neither.
    mean = np.where(length > 1e-100, mean / np.maximum(length, 1e-100), 0)
    along = (residual @ mean[:, :, None])[:, :, 0]  # (b, w)
    squares = rows.sizes[cones.rows] ** 2
    # The square root would magnify what cancels: it is made an upper bound before.
    relative = 16 * (residual.shape[2] + 8) * verified.UNIT
    across = np.sqrt(np.maximum(squares - along**2, 0) + relative * squares)
    weights = np.stack([np.maximum(-along, 0), np.maximum(along, 0), across], axis=2)
    up, down, aside = np.moveaxis(slack @ weights, 2, 0)
    forward = (outputs @ mean[:, :, None])[:, :, 0]
    sideways = np.linalg.norm(outputs - forward[:, :, None] * mean[:, None], axis=2) + aside
    forward = np.maximum(np.abs(forward + up), np.abs(forward - down))
    error = 8 * rows.lipschitz * (cones.radii + rows.rounding)
    return np.hypot(forward, sideways) * ROUND_UP + error


def _ball_bound(cones: Cones, values: Matrix, dual: Matrix) -> Matrix:
    """A bound (b,) of sum_k l_k `values`_k over l >= 0, |sum_k l_k g_k| <= 1, from any vectors y.

    If g_k'y >= values_k for all k, it is |y|; so any y (b, r) serves that can be scaled to that.
    """
    size = np.linalg.norm(dual, axis=1)
    reach = (cones.generators @ dual[:, :, None])[:, :, 0] - 2 * cones.radii * size[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.max(values / reach, axis=1)
        bound = factor * size * ROUND_UP
    return np.where(np.all(reach > 0, axis=1), bound, np.inf)


def _corner(generators: Matrix, values: Matrix) -> Matrix:
    """About the shortest y (b, r) with g_k'y >= values_k, by dropping constraints that pull back."""
    rank = generators.shape[1]
    eye = np.eye(rank)
    gram = generators @ generators.swapaxes(1, 2) + 1e-14 * eye
    active = np.ones(values.shape, bool)
    weights = np.zeros_like(values)
    moving = np.arange(len(values))
    for _ in range(rank):
        mask = active[moving]
        system = np.where(mask[:, :, None] & mask[:, None], gram[moving], eye)
        solved = np.linalg.solve(system, (mask * values[moving])[:, :, None])[:, :, 0]
        weights[moving] = np.maximum(solved, 0)
        worst = np.argmin(solved, axis=1)
        pulls = solved[np.arange(len(moving)), worst] < 0
        moving, worst = moving[pulls], worst[pulls]
        active[moving, worst] = False
        if not moving.size:
            break
    return (weights[:, None] @ generators)[:, 0]


def _cell_bound(rows: Rows, cones: Cones) -> Matrix:
    """A bound (b,) of the price on cones without undecided rows: the spectral norm of `folded`."""
    centre = np.sum(cones.generators, axis=1)
    errors = 8 * rows.lipschitz * (cones.radii + rows.rounding)
    return _spectral_norm_bound(cones.folded) + _ball_bound(cones, errors, centre)


def _spectral_norm_bound(matrices: Matrix) -> Matrix:
    """Upper bounds (b,) on the spectral norms of `matrices` (b, c, r).

    For any nonsingular Q, |A| <= |Q'AQ| / (1 - |Q'Q - I|), with row sums for the norms on the right.
    """
    if matrices.shape[1] > matrices.shape[2]:
        matrices = matrices.swapaxes(1, 2)
    gram = matrices @ matrices.swapaxes(1, 2)
    side, inner = matrices.shape[1:]
    basis = np.linalg.eigh(gram)[1]
    rotated = basis.swapaxes(1, 2) @ gram @ basis
    defect = np.abs(basis.swapaxes(1, 2) @ basis - np.eye(side))
    error = 8 * side**2 * (side + inner + 8) * verified.UNIT
    norm = np.max(np.sum(np.abs(rotated), axis=2), axis=1)
    norm = norm + error * np.sum(matrices**2, axis=(1, 2))
    return np.sqrt(norm / (1 - np.max(np.sum(defect, axis=2), axis=1) - error)) * ROUND_UP
