"""Good neurons without proof: many starts, power steps, and an active-set polish.

The price f(u) = ||R' relu(F u)|| is convex in no region that contains a kink, but on every cell of
the arrangement {f_i'u = 0} it is the norm of a linear map, and its local maxima on the sphere are
either interior to a cell or at a concave kink, where power steps stall a little below the maximum.
A branch and bound that starts from such a value has to refine the whole neighbourhood of the
maximum, so the polish matters more than the number of starts. docs/math/pricing.md, "Branch and
bound over cones".
"""

import itertools

import numpy as np

from ..arrays import Matrix
from ..job import Job
from .price import prices

POWER_STEPS = 40
POLISH_STEPS = 30
# Rows nearest to zero at most of which the polish tries all subsets: 2^7 of them for each point.
MOST_WALLS = 7
# Numbers in one array of a batch of points: some ten milliseconds between two looks at the job.
BATCH = 2**22
TINY = np.finfo(float).tiny


def local_maxima(
    residual: Matrix,
    features: Matrix,
    *,
    starts: int = 400,
    neurons: Matrix | None = None,
    count: int = 60,
    distance: float = 1e-6,
    seed: int = 0,
    job: Job | None = None,
) -> tuple[Matrix, Matrix]:
    """Distinct local maxima of ||R' relu(F u)|| on the unit sphere, as far as ascent finds them.

    **Arguments:**

    - `residual`, `features`: R (n, c) and F (n, r).
    - `starts`: random starts; a third each is drawn in u, in F u, and half way between.
    - `neurons` (k, r): further starts, of any length but zero.
    - `count`: at most so many maxima are polished and returned.
    - `distance`: of two neurons whose activations have a cosine above 1 - `distance`, the worse one
      is dropped.
    - `seed`: the result is a function of it and of the data.
    - `job`: asked before each step; when it is over, the points are what they are by then.

    **Returns** unit directions (k, r) and their prices (k,), the best first; k is 0 only where every
    start has price 0.
    """
    job = Job() if job is None else job
    rng = np.random.default_rng(seed)
    given = np.zeros((0, features.shape[1]))
    if neurons is not None:
        given = normalised(np.asarray(neurons, float))
    points = np.concatenate([random_directions(rng, features, starts), given])
    # Power steps may lose height at a kink: what was given also stays as it is.
    points = np.concatenate([_power_steps(residual, features, points, job), given])
    points, _ = distinct(residual, features, points, distance, count)
    points = polish(residual, features, points, job)
    return distinct(residual, features, points, distance, count)


def random_directions(rng: np.random.Generator, features: Matrix, count: int) -> Matrix:
    """Unit directions (count, r): u = V S^-p xi with p = 0, 1/2, 1 in turn, F = U S V'.

    On features of very different sizes the maxima lie in thin cells, which directions that are
    uniform in u hardly ever meet.
    """
    values, basis = singular_axes(features)
    spread = np.maximum(values, 1e-9 * max(float(values[0]), TINY))
    powers = (np.arange(count) % 3)[:, None] / 2
    return normalised((rng.standard_normal((count, len(basis))) * spread**-powers) @ basis)


def singular_axes(features: Matrix) -> tuple[Matrix, Matrix]:
    """Singular values (r,), falling, and right singular vectors, the rows of (r, r), of F (n, r)."""
    triangle = np.linalg.qr(features, mode="r")
    _, values, basis = np.linalg.svd(triangle)
    return np.append(values, np.zeros(len(basis) - len(values))), basis


def normalised(points: Matrix) -> Matrix:
    """Rows scaled to unit length; rows that are zero or not finite are dropped."""
    sizes = np.max(np.abs(points), axis=1, initial=0.0)
    good = (sizes > 0) & np.isfinite(sizes)
    points = points[good] / sizes[good, None]
    return points / np.linalg.norm(points, axis=1)[:, None]


def distinct(
    residual: Matrix, features: Matrix, points: Matrix, distance: float, count: int
) -> tuple[Matrix, Matrix]:
    """The best `count` points of positive price with different activations, and their prices."""
    values = prices(residual, features, points)
    order = np.argsort(-values, kind="stable")
    points, values = points[order][: 50 * count], values[order][: 50 * count]
    activations = np.maximum(points @ features.T, 0)
    activations /= np.maximum(np.linalg.norm(activations, axis=1), TINY)[:, None]
    kept: list[int] = []
    open_points = values > 0
    for index in range(len(points)):
        if open_points[index] and len(kept) < count:
            kept.append(index)
            open_points[index:] &= activations[index:] @ activations[index] <= 1 - distance
    return points[kept], values[kept]


def polish(residual: Matrix, features: Matrix, points: Matrix, job: Job | None = None) -> Matrix:
    """Unit points (k, r) moved to local maxima, kinks included; no price falls.

    At a maximum some rows may be exactly zero. For every subset S of the r - 1 independent rows nearest
    to zero, or `MOST_WALLS` of them, the price is, for the present signs of the other rows, the norm of
    R'DF P with P the projection on {f_i'u = 0, i in S}. Candidates are its top right singular vector
    and the point on the way to it where the first sign changes; the best true price counts.
    """
    job = Job() if job is None else job
    rank = features.shape[1]
    held = min(rank - 1, MOST_WALLS)
    subsets = np.array(list(itertools.product([0.0, 1.0], repeat=held)))
    unit = features / np.maximum(np.linalg.norm(features, axis=1), TINY)[:, None]
    pieces = (residual[:, :, None] * features[:, None]).reshape(len(features), -1)
    points = points.copy()
    moving = np.arange(len(points))
    for _ in range(POLISH_STEPS):
        if not moving.size or job.over():
            break
        here = points[moving]
        values = prices(residual, features, here)
        inner = here @ features.T
        walls = (
            subsets[:, :, None] * _nearest_walls(unit, here, held)[:, None]
        )  # (k, subsets, held, r)
        onto = np.eye(rank) - np.linalg.pinv(walls) @ walls
        linear = ((inner > 0) @ pieces).reshape(len(here), -1, rank)
        top = np.linalg.svd(linear[:, None] @ onto)[2][:, :, 0]  # (k, subsets, r)
        top *= np.where(top @ here[:, :, None] < 0, -1, 1)
        candidates = np.concatenate([top, _first_crossings(features, here, top)], axis=1)
        candidates = candidates / np.linalg.norm(candidates, axis=2)[:, :, None]
        found = prices(residual, features, candidates.reshape(-1, rank))
        found = found.reshape(candidates.shape[:2])
        best = np.argmax(found, axis=1)
        lane = np.arange(len(here))
        better = found[lane, best] > values * (1 + 1e-15)
        points[moving[better]] = candidates[lane, best][better]
        moving = moving[better]
    return points


def _nearest_walls(unit: Matrix, points: Matrix, count: int) -> Matrix:
    """For each point `count` linearly independent rows of `unit`, nearest to zero there; some may be 0.

    Parallel rows share a wall, which is why the nearest ones do not do.
    """
    distances = np.abs(points @ unit.T)
    rest = np.broadcast_to(unit, (len(points), *unit.shape)).copy()
    walls = np.zeros((len(points), count, unit.shape[1]))
    lane = np.arange(len(points))
    for wall in range(walls.shape[1]):
        left = np.linalg.norm(rest, axis=2)
        index = np.argmin(np.where(left > 1e-6, distances, np.inf), axis=1)
        length = left[lane, index]
        direction = rest[lane, index] / np.maximum(length, TINY)[:, None]
        walls[:, wall] = np.where(length[:, None] > 1e-6, unit[index], 0)
        rest -= (rest @ direction[:, :, None]) * direction[:, None]
    return walls


def _first_crossings(features: Matrix, points: Matrix, ends: Matrix) -> Matrix:
    """Where the segments from `points` (k, r) to `ends` (k, s, r) first cross a hyperplane."""
    start, end = (points @ features.T)[:, None], ends @ features.T  # (k, s, n)
    crosses = start * end < 0
    part = start / np.where(crosses, start - end, 1)
    part = np.min(np.where(crosses & (part > 1e-9), part, 1.0), axis=2)[:, :, None]
    return points[:, None] + part * (ends - points[:, None])


def _power_steps(residual: Matrix, features: Matrix, points: Matrix, job: Job) -> Matrix:
    """u <- grad f / |grad f|, some times: monotone inside a cell."""

    def climbed(points: Matrix) -> Matrix:
        for _ in range(POWER_STEPS):
            if job.over():
                break
            inner = points @ features.T
            output = np.maximum(inner, 0) @ residual
            points = normalised(((inner > 0) * (output @ residual.T)) @ features)
        return points

    size = max(BATCH // len(features), 1)
    batches = [points[start : start + size] for start in range(0, len(points), size)]
    return np.concatenate([climbed(batch) for batch in batches] or [points])
