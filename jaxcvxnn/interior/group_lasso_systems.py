"""The linear systems of the group lasso's interior-point method, one factorisation for two solves.

Unknown are dR (n, c) and dV (m, c) in

    S(A dV) - D dR = -residual,     dV = -T (A'S dR) - target,

D > 0 diagonal and T the (c, c) blocks of the Nesterov-Todd scaling W^2 that belong to V.
"""

from collections.abc import Callable

import numpy as np
import scipy.linalg

from ..arrays import Matrix
from .lorentz import Scaling, row_dots

# (residual, target) -> (dR, dV), or None where rounding has won.
Solve = Callable[[Matrix, Matrix], tuple[Matrix, Matrix] | None]


# LAPACK itself: for small systems `cho_factor` and `cho_solve` take longer than what they call.
potrf, potrs = scipy.linalg.get_lapack_funcs(("potrf", "potrs"), dtype=np.float64)


# What may be left of the residual by a solve, relative to it and to the largest terms it is made of.
LEFT_OVER, LEFT_OVER_ROUNDING = 0.1, 1e-12
LARGEST_RIDGE = 1e-3


class NormalEquations:
    """Either dV is eliminated, D + S A T A'S of side n c, or dR, A'S D^-1 S A + T^-1 of side m c.

    The first is cheaper when there are many groups, but T varies by more powers of ten than float64
    has digits once the gap is small, and what is lost moves R. In the second the lost directions are
    those along which V moves and S(A V) does not, and these a ridge holds fast without harm.
    """

    def __init__(self, activations: Matrix, outputs: int, roots: Matrix | None):
        n, m = activations.shape
        self.A, self.S, self.outputs = activations, roots, outputs
        self.by_samples = 3 * n**2 * (m + n * outputs / 3) < m**3 * outputs
        self.ridge = 0.0
        self.curvature: tuple[Matrix, Matrix] | None = None

    def change_form(self) -> bool:
        """Leave the first form for good; False if it was left before."""
        left, self.by_samples = self.by_samples, False
        return left

    def factor(self, nt: Scaling, diagonal: Matrix) -> Solve:
        """Raises a `LinAlgError` where rounding leaves no positive definite matrix."""
        form = self._sample_form if self.by_samples else self._group_form
        return form(nt.axis[:, 1:], nt.size, 2 * nt.axis[:, 0] ** 2 - 1, diagonal)

    def _weigh(self, rows: Matrix) -> Matrix:
        return rows if self.S is None else np.einsum("nij,nj->ni", self.S, rows)

    def _sample_form(self, axis: Matrix, size: Matrix, spread: Matrix, diagonal: Matrix) -> Solve:
        """T = size (I + 2 q q'), q = `axis`; `spread` is 1 + 2 |q|^2."""
        A, S = self.A, self.S
        n, c = diagonal.shape
        along = (A * np.sqrt(2 * size))[:, None, :] * axis.T
        if S is not None:
            along = S @ along
        along = along.reshape(n * c, -1)
        matrix = along @ along.T
        blocks, across = matrix.reshape(n, c, n, c), (A * size) @ A.T
        if S is None:
            for k in range(c):
                blocks[:, k, :, k] += across
        else:
            blocks += np.einsum("ikp,ij,jlp->ikjl", S, across, S, optimize=True)
        matrix[np.diag_indices(n * c)] += diagonal.ravel()
        factor = _cholesky(matrix)

        def solve(residual: Matrix, target: Matrix) -> tuple[Matrix, Matrix] | None:
            dR, dV = np.zeros((n, c)), -target
            error = residual + self._weigh(A @ dV)
            terms = np.linalg.norm(error)
            for _ in range(2):  # the second time is iterative refinement
                dR = dR + _solve(factor, error)
                prices = A.T @ self._weigh(dR)
                inner = 2 * row_dots(axis, prices)
                dV = -size[:, None] * (prices + inner[:, None] * axis) - target
                error = residual + self._weigh(A @ dV) - diagonal * dR
            left = LEFT_OVER * np.linalg.norm(residual) + LEFT_OVER_ROUNDING * terms
            return (dR, dV) if np.linalg.norm(error) <= left else None

        return solve

    def _group_form(self, axis: Matrix, size: Matrix, spread: Matrix, diagonal: Matrix) -> Solve:
        """T^-1 = (I - 2 q q' / spread) / size. Indices are (output, group)."""
        A, c = self.A, self.outputs
        m = A.shape[1]
        matrix = self._curvature(diagonal).copy()
        index = np.arange(m)
        for k in range(c):
            matrix[k, index, k, index] += 1 / size
            for other in range(c):
                matrix[k, index, other, index] -= 2 * axis[:, k] * axis[:, other] / (spread * size)
        matrix = matrix.reshape(c * m, c * m)
        scale = 1 / np.sqrt(np.diag(matrix))
        matrix *= scale[:, None]
        matrix *= scale
        factor = self._ridged_cholesky(matrix)
        scale = scale.reshape(c, m)

        def stiffness(dV: Matrix) -> Matrix:
            inner = 2 * row_dots(axis, dV) / spread
            return (dV - inner[:, None] * axis) / size[:, None]

        def solve(residual: Matrix, target: Matrix) -> tuple[Matrix, Matrix]:
            dV = np.zeros((m, c))
            right = -stiffness(target) - A.T @ self._weigh(residual / diagonal)
            for _ in range(
                3 if self.ridge else 1
            ):  # iterative refinement takes the ridge out again
                change = (scale * _solve(factor, scale * right.T)).T
                dV = dV + change
                bent = self._weigh(self._weigh(A @ change) / diagonal)
                right = right - stiffness(change) - A.T @ bent
            return (self._weigh(A @ dV) + residual) / diagonal, dV

        return solve

    def _curvature(self, diagonal: Matrix) -> Matrix:
        """A'S D^-1 S A, (c, m, c, m), kept while D stays the same."""
        if self.curvature is not None and np.array_equal(self.curvature[0], diagonal):
            return self.curvature[1]
        A, S, c = self.A, self.S, self.outputs
        result = np.zeros((c, A.shape[1], c, A.shape[1]))
        if S is None:
            uniform = np.all(diagonal == diagonal[:, :1])
            for k in range(c):
                known = uniform and k > 0
                result[k, :, k] = result[0, :, 0] if known else (A.T / diagonal[:, k]) @ A
        else:
            weights = np.einsum("nik,nk,nkj->nij", S, 1 / diagonal, S)
            for k in range(c):
                for other in range(k + 1):
                    result[k, :, other] = (A.T * weights[:, k, other]) @ A
                    result[other, :, k] = result[k, :, other].T
        self.curvature = diagonal, result
        return result

    def _ridged_cholesky(self, matrix: Matrix) -> Matrix:
        """The factor of a matrix with unit diagonal plus the smallest ridge that makes it one."""
        while True:
            ridged = matrix.copy()
            ridged[np.diag_indices(len(matrix))] += self.ridge
            try:
                return _cholesky(ridged)
            except np.linalg.LinAlgError:
                if not self.ridge < LARGEST_RIDGE:
                    raise
                self.ridge = max(10 * self.ridge, len(matrix) * np.finfo(float).eps)


def _cholesky(matrix: Matrix) -> Matrix:
    """The lower factor, in the place of the symmetric matrix; its transpose spares LAPACK a copy."""
    factor, failed = potrf(matrix.T, lower=1, overwrite_a=1, clean=0)
    if failed or not np.all(np.isfinite(np.diag(factor))):
        raise np.linalg.LinAlgError("The matrix is not positive definite.")
    return factor


def _solve(factor: Matrix, right: Matrix) -> Matrix:
    solved, _ = potrs(factor, right.ravel(), lower=1)
    return solved.reshape(right.shape)
