"""The linear systems of the interior-point method for (cone-lasso): one factorisation, many solves.

With A w = sum_i D_i X (w_i - w_i'), one symmetric positive definite block B_i per weight vector and
the curvatures h >= 0 of the loss, the systems are

    (B + A' diag(h) A) w = r.

w_i and w_i' enter A w by their difference alone, so that one of them is eliminated cell by cell. What
is left has the side P d, or, by Woodbury's identity, n. On the host, in float64. Derivation:
docs/math/lasso.md, "The cone-constrained group lasso".
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
# r (2, P, d) -> w (2, P, d).
Solve = Callable[[Array], Array]

# Conjugate gradients take away what rounding left of the residual: at most so many, down to this part.
MOST_CORRECTIONS, ENOUGH = 10, 1e-13
# Woodbury's identity needs B^-1, which hardly exists along weights that are in use. There B is raised
# by this part of the mean curvature of the features. All factorised matrices are raised by this part
# of their traces.
RIDGE, ROUNDING = 1e-9, 1e-15
# The side n is taken where it is smaller by this factor: it needs more corrections.
WORTH = 3


class CellRows(NamedTuple):
    """The linear maps of `conic.gates`, in NumPy. Rows G have length one; none of them is zero."""

    features: Array  # X (n, d)
    rows: Array  # G (k, d)
    slopes: Array  # (P, n)
    signs: Array  # (P, k)

    @classmethod
    def of(cls, *parts: ArrayLike) -> "CellRows":
        """From X, G, slopes and signs, of the rows that constrain anything."""
        features, rows, slopes, signs = (np.asarray(a, np.float64) for a in parts)
        lengths = np.linalg.norm(rows, axis=1)
        alive = lengths > 0
        return cls(features, rows[alive] / lengths[alive, None], slopes, signs[:, alive])

    def fitted(self, weights: Array) -> Array:
        """A w, (n,)."""
        return np.sum(self.slopes * ((weights[0] - weights[1]) @ self.features.T), axis=0)

    def pulled(self, residual: Array) -> Array:
        """A'r, (2, P, d)."""
        half = (self.slopes * residual) @ self.features
        return np.stack([half, -half])

    def margins(self, weights: Array) -> Array:
        """S_i G w_i, (2, P, k)."""
        return self.signs * (weights @ self.rows.T)

    def margins_adjoint(self, multipliers: Array) -> Array:
        """G'S_i m_i, (2, P, d)."""
        return (self.signs * multipliers) @ self.rows


class CellEquations:
    """Solves with B + A' diag(h) A for the B and h of one step after the other."""

    def __init__(self, cells: CellRows):
        count, samples = cells.slopes.shape
        self.cells = cells
        self.size = count * cells.features.shape[1]
        self.by_samples = self.size > WORTH * samples
        self.curvature = np.full(samples, np.nan)
        self.gram = np.zeros((0, 0))

    def factor(self, blocks: Array, ratios: Array, curvature: Array) -> Solve:
        """For B = `blocks` (2, P, d, d) + G' diag(`ratios` (2, P, k)) G and h = `curvature` (n,).

        **Raises** a `LinAlgError` where rounding leaves no positive definite matrix.
        """
        full = blocks.copy()
        for of_block, weights in zip(_flat(full, 2), _flat(np.sqrt(ratios), 1), strict=True):
            weighted = weights[:, None] * self.cells.rows
            of_block += weighted.T @ weighted
        form = self._sample_form if self.by_samples else self._cell_form
        approximate = form(full, curvature)
        cells = self.cells

        def apply(weights: Array) -> Array:
            return _times(full, weights) + cells.pulled(curvature * cells.fitted(weights))

        return lambda right: _corrected(approximate, apply, right)

    def _cell_form(self, blocks: Array, curvature: Array) -> Solve:
        """(B^-1 + B'^-1)^-1 + E'E for the differences w_i - w_i', with E'E = A_i' diag(h) A_j."""
        if not np.array_equal(curvature, self.curvature):
            self.curvature, rows = curvature, self._rows(curvature, self.cells.features.T)
            self.gram = rows @ rows.T
        count, side = blocks.shape[1:3]
        both = blocks[0] + blocks[1]
        # As a product, of which no factor is an inverse of a single block.
        parallel = blocks[0] @ np.linalg.solve(both, blocks[1])
        matrix = self.gram.copy()
        jitter = ROUNDING * (np.trace(both, axis1=1, axis2=2) + np.trace(matrix))
        parallel = (parallel + parallel.swapaxes(1, 2)) / 2
        index = np.arange(count)
        by_cells = matrix.reshape(count, side, count, side)
        by_cells[index, :, index] += parallel + jitter[:, None, None] * np.eye(side)
        factor = _cholesky(matrix)

        def solve(right: Array) -> Array:
            shares = np.linalg.solve(both, np.moveaxis(right, 0, -1))
            reduced = _times(blocks[1], shares[..., 0]) - _times(blocks[0], shares[..., 1])
            difference = factor(reduced.ravel()).reshape(count, side)
            return self._split(blocks, both, np.sum(shares, axis=-1), difference)

        return solve

    def _sample_form(self, blocks: Array, curvature: Array) -> Solve:
        """I + E C E' for C = B^-1 + B'^-1."""
        side = blocks.shape[-1]
        mean = np.mean(curvature) * np.sum(self.cells.features**2) / side
        raise_by = RIDGE * mean + ROUNDING * np.trace(blocks, axis1=-2, axis2=-1)
        raised = blocks + raise_by[..., None, None] * np.eye(side)
        roots = np.linalg.inv(np.linalg.cholesky(raised))
        inverses = roots.swapaxes(-1, -2) @ roots
        total = inverses[0] + inverses[1]
        jitter = ROUNDING * np.trace(total, axis1=-2, axis2=-1)
        root = np.linalg.cholesky(total + jitter[:, None, None] * np.eye(side))
        rows = self._rows(curvature, root.swapaxes(1, 2) @ self.cells.features.T)
        matrix = rows.T @ rows
        matrix[np.diag_indices_from(matrix)] += 1
        factor, weights = _cholesky(matrix), np.sqrt(curvature)
        both = raised[0] + raised[1]

        def solve(right: Array) -> Array:
            free = _times(inverses[0], right[0]) - _times(inverses[1], right[1])
            seen = weights * factor(weights * self.cells.fitted(np.stack([free, 0 * free])))
            difference = free - _times(total, self.cells.pulled(seen)[0])
            shares = np.linalg.solve(both, (right[0] + right[1])[..., None])[..., 0]
            return self._split(raised, both, shares, difference)

        return solve

    def _rows(self, curvature: Array, transposed: Array) -> Array:
        """sqrt(h) D_i times matrices (n, d) that are given transposed, as (P d, n)."""
        weighted = (np.sqrt(curvature) * self.cells.slopes)[:, None, :] * transposed
        return weighted.reshape(self.size, -1)

    @staticmethod
    def _split(blocks: Array, both: Array, middle: Array, difference: Array) -> Array:
        """w and w' from w - w' and (B + B')^-1 (r + r'), which is B w + B'w' = r + r' solved."""
        parts = np.stack([_times(blocks[1], difference), -_times(blocks[0], difference)], axis=-1)
        return middle + np.moveaxis(np.linalg.solve(both, parts), -1, 0)


def _corrected(approximate: Solve, apply: Solve, right: Array) -> Array:
    """Conjugate gradients (Hestenes and Stiefel, 1952) preconditioned by the factorisation.

    The best of their points: rounding ends them after a few.
    """
    point = approximate(right)
    residual = right - apply(point)
    best, lowest = point, np.linalg.norm(residual)
    enough = ENOUGH * np.linalg.norm(right)
    along, before = np.zeros_like(right), 1.0
    for _ in range(MOST_CORRECTIONS):
        if lowest <= enough:
            break
        conditioned = approximate(residual)
        inner = float(np.vdot(residual, conditioned))
        if not inner > 0:
            break
        along = conditioned + inner / before * along
        image = apply(along)
        length = inner / float(np.vdot(along, image))
        point, residual, before = point + length * along, residual - length * image, inner
        left = np.linalg.norm(residual)
        if left < lowest:
            best, lowest = point, left
    return best


def _cholesky(matrix: Array) -> Solve:
    factor = scipy.linalg.cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)
    return lambda right: scipy.linalg.cho_solve(factor, right, check_finite=False)


def _times(blocks: Array, vectors: Array) -> Array:
    return np.matvec(blocks, vectors)


def _flat(array: Array, trailing: int) -> Array:
    """All axes but the last ones as one; a view."""
    return array.reshape(-1, *array.shape[array.ndim - trailing :])
