"""Planes through the origin of space: their classes, bases and circles, and patterns as keys."""

import numpy as np

from jaxcone import verified

from ..arrays import Matrix

# Rows whose directions differ by less count as parallel; the bound pays for the difference.
PARALLEL = 1e-12


def parallel_planes(rows: Matrix) -> tuple[np.ndarray, Matrix, Matrix, Matrix]:
    """(classes, signs, normals, spread): see `Sphere`. A class's first row is its normal."""
    count, rank = rows.shape
    classes, signs, spread = np.full(count, -1), np.ones(count), np.zeros(count)
    lengths = np.linalg.norm(rows, axis=1)
    members: list[int] = []
    for i in np.flatnonzero(lengths):
        normals = rows[members]
        factors = normals @ rows[i] / lengths[members] ** 2
        distances = np.linalg.norm(rows[i] - factors[:, None] * normals, axis=1)
        near = np.flatnonzero(distances <= PARALLEL * lengths[i])
        if len(near) == 0:
            classes[i] = len(members)
            members.append(int(i))
        else:
            classes[i] = near[0]
            signs[i] = np.sign(factors[near[0]])
            spread[i] = distances[near[0]] + verified.gamma(16) * lengths[i]
    return classes, signs, rows[members].reshape(-1, rank), spread


def plane_bases(normals: Matrix) -> tuple[Matrix, float]:
    """Bases (k, 3, 2) of the planes orthogonal to `normals`, and their tilt.

    With N = (normal / |normal|, basis), ||N'N - I|| <= tilt, with room for the rounding of products
    with the basis.
    """
    units = normals / np.linalg.norm(normals, axis=1)[:, None]
    axes = np.eye(3)[np.argmin(np.abs(units), axis=1)]
    first = np.cross(units, axes)
    first /= np.linalg.norm(first, axis=1)[:, None]
    second = np.cross(units, first)
    frames = np.stack([units, first, second], axis=2)
    defects = np.abs(np.swapaxes(frames, 1, 2) @ frames - np.eye(3))
    largest = float(np.max(np.sum(defects, axis=2), initial=0.0))
    return frames[:, :, 1:], largest + verified.gamma(32)


def on_plane(rows: Matrix, normal: Matrix, basis: Matrix, tilt: float) -> tuple[Matrix, Matrix]:
    """Rows (k, 2) that stand for `rows` on the plane of `normal`, and the errors of their products.

    With z the nearest to u in the basis, |x_i'u - row_i'z| <= error_i for unit u of the plane. There
    x_i'u is unchanged when a multiple of the normal is taken from x_i, and for a row that is nearly
    parallel to it, only the rest has an accurate sign. The multiples are exact: the factors have 24
    bits, and so has one part of the normal, the other 29.
    """
    high = normal.astype(np.float32).astype(np.float64)
    low = normal - high
    rest, error = rows, np.full(rows.shape, 1e-40)
    for _ in range(2):  # to 24 bits, then to nearly all
        factors = (rest @ normal / (normal @ normal)).astype(np.float32).astype(np.float64)
        first = rest - factors[:, None] * high
        rest = first - factors[:, None] * low
        error = error + verified.UNIT * (np.abs(first) + np.abs(rest))
    sizes = verified.vector_norm_bound(rest)
    return rest @ basis, (tilt + verified.gamma(32)) * sizes + verified.vector_norm_bound(error)


def distinct_patterns(patterns: np.ndarray) -> np.ndarray:
    """The distinct rows of a boolean matrix, in the order of their keys."""
    if patterns.shape[1] == 0:
        return patterns[:1]
    return patterns[np.unique(pattern_keys(patterns), return_index=True)[1]]


def pattern_keys(patterns: np.ndarray) -> np.ndarray:
    """One value per row of a boolean matrix, equal where the rows are: its bits, packed."""
    packed = np.ascontiguousarray(np.packbits(patterns, axis=1))
    return packed.view(np.dtype((np.void, packed.shape[1])))[:, 0]
