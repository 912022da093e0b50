"""A primal-dual interior-point method for quadratic group lassos, on the host in float64:

    min over V (m, c)   1/2 ||S(A V) - B||^2 + sum_j |v_j|,

S one symmetric (c, c) block per sample, or the identity. With cones (s_j, v_j) in Q its dual is

    max over R (n, c)   -<R, B> - 1/2 ||R||^2   subject to   z_j = (1, (A'S R)_j) in Q,

whose slacks z are strictly inside from the first step to the last: every iterate certifies its own
gap. Nesterov-Todd scaling, Mehrotra's predictor and corrector, one step length. It does not mind
nearly parallel columns. Derivation: docs/math.md, section "Group lasso".
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from . import lorentz

Matrix = NDArray[np.float64]
# (right side of the samples, that of the groups) -> (dR, dV).
Solver = Callable[[Matrix, Matrix], tuple[Matrix, Matrix]]

# The part of the way to the boundary that a step may take.
TO_BOUNDARY = 0.99
# The start has the dual constraints this far inside.
INTERIOR = 0.9
# Steps in a row without a smaller gap after which rounding is taken to be the limit.
PATIENCE = 5


class QuadraticLasso(NamedTuple):
    """The data of min 1/2 ||S(A V) - B||^2 + sum_j |v_j|."""

    activations: Matrix  # A (n, m)
    targets: Matrix  # B (n, c)
    roots: Matrix | None = None  # S (n, c, c), symmetric; None for the identity

    def weigh(self, rows: Matrix) -> Matrix:
        """S applied to one row per sample."""
        return rows if self.roots is None else np.einsum("nij,nj->ni", self.roots, rows)

    def predict(self, V: Matrix) -> Matrix:
        """S(A V), (n, c)."""
        return self.weigh(self.activations @ V)

    def prices(self, R: Matrix) -> Matrix:
        """A'S R, (m, c): feasible where no row is longer than 1."""
        return self.activations.T @ self.weigh(R)

    def objective(self, V: Matrix) -> float:
        residual = self.predict(V) - self.targets
        return float(np.sum(residual**2) / 2 + np.sum(lorentz.row_norms(V)))

    def dual_objective(self, R: Matrix) -> float:
        return float(-np.sum(R * self.targets) - np.sum(R**2) / 2)


class InteriorPoint(NamedTuple):
    """The best V and the best strictly feasible R that were seen, with their objectives."""

    V: Matrix
    R: Matrix
    objective: float
    dual_objective: float
    steps: int

    @property
    def gap(self) -> float:
        return self.objective - self.dual_objective


def solve_quadratic(
    lasso: QuadraticLasso, start: Matrix, enough: Callable[[float, float], bool], max_steps: int
) -> InteriorPoint:
    """Steps from `start` (m, c) until `enough(objective, dual_objective)` or rounding stops them.

    A start near the optimum saves steps, zeros are as good as nothing. No column of A is zero.
    """
    x, R = _first_point(lasso, start)
    best = InteriorPoint(start, R, lasso.objective(start), lasso.dual_objective(R), 0)
    normal = _NormalEquations(lasso)
    idle = 0
    for step in range(max_steps + 1):
        previous = best.gap
        best = _better(lasso, best, x[:, 1:], R, step)
        idle = 0 if best.gap < previous else idle + 1
        finished = enough(best.objective, best.dual_objective)
        if finished or idle > PATIENCE or step == max_steps:
            break
        try:
            moved = _advance(lasso, normal, x, R)
        except np.linalg.LinAlgError:
            normal.by_samples = False
            moved = _advance(lasso, normal, x, R)
        if moved is None:
            break
        x, R = moved
    return _without_unused(lasso, best, enough)


def _without_unused(
    lasso: QuadraticLasso, best: InteriorPoint, enough: Callable[[float, float], bool]
) -> InteriorPoint:
    """Weights that complementarity wants to be zero, set to zero, unless that costs accuracy.

    Strictly inside the cones no weight is zero: |v_j| (1 - |(A'S R)_j|) is about mu for all groups.
    """
    lengths = lorentz.row_norms(best.V)
    slacks = 1 - lorentz.row_norms(lasso.prices(best.R))
    relative = lengths / np.max(lengths, initial=np.finfo(float).tiny)
    for factor in (1.0, 1e-2, 1e-4):
        V = np.where((relative < factor * slacks)[:, None], 0.0, best.V)
        objective = lasso.objective(V)
        if objective <= best.objective or enough(objective, best.dual_objective):
            return best._replace(V=V, objective=objective)
    return best


def _first_point(lasso: QuadraticLasso, start: Matrix) -> tuple[Matrix, Matrix]:
    """x = (|v|, v) + mu z^-1 and the residual of `start`, shrunk until it is strictly feasible.

    mu is the mean complementarity of the gap at `start`, and at most what moves the predictions by
    the distance sqrt(2 gap) that the optimal ones may have.
    """
    residual = lasso.predict(start) - lasso.targets
    longest = np.max(lorentz.row_norms(lasso.prices(residual)))
    R = residual * (INTERIOR if longest <= 1 else INTERIOR / longest)
    z = _slacks(lasso, R)
    inward = lorentz.inverses(z)
    gap = lasso.objective(start) - lasso.dual_objective(R)
    pushed = np.linalg.norm(lasso.predict(inward[:, 1:]))
    mu = min(gap / len(start), np.sqrt(2 * gap) / max(pushed, np.finfo(float).tiny))
    return np.column_stack([lorentz.row_norms(start), start]) + mu * inward, R


def _slacks(lasso: QuadraticLasso, R: Matrix) -> Matrix:
    prices = lasso.prices(R)
    return np.column_stack([np.ones(len(prices)), prices])


def _better(
    lasso: QuadraticLasso, best: InteriorPoint, V: Matrix, R: Matrix, steps: int
) -> InteriorPoint:
    objective, dual = lasso.objective(V), lasso.dual_objective(R)
    best = best._replace(steps=steps)
    if objective < best.objective:
        best = best._replace(V=V, objective=objective)
    if dual > best.dual_objective:
        best = best._replace(R=R, dual_objective=dual)
    return best


def _advance(
    lasso: QuadraticLasso, normal: "_NormalEquations", x: Matrix, R: Matrix
) -> tuple[Matrix, Matrix] | None:
    """One predictor-corrector step; None if rounding leaves no step to take."""
    z = _slacks(lasso, R)
    nt = lorentz.scaling(x, z)
    mu = float(np.sum(nt.center**2)) / len(x)
    residual = lasso.predict(x[:, 1:]) - lasso.targets - R
    solve = normal.factor(nt)

    def direction(complementarity: Matrix) -> tuple[Matrix, Matrix, Matrix, Matrix]:
        """dx, dR, and the scaled W^-1 dx, W dz, for W dz + W^-1 dx = -center \\ complementarity."""
        scaled = lorentz.quotient(nt.center, complementarity)
        target = nt.apply(scaled)
        dR, dV = solve(residual, target[:, 1:])
        dz = np.column_stack([np.zeros(len(x)), lasso.prices(dR)])
        axis = nt.axis
        along = lorentz.row_dots(axis[:, 1:], dV + target[:, 1:])
        ds = 2 * axis[:, 0] * along / (2 * axis[:, 0] ** 2 - 1) - target[:, 0]
        z_scaled = nt.apply(dz)
        return np.column_stack([ds, dV]), dR, -z_scaled - scaled, z_scaled

    square = lorentz.product(nt.center, nt.center)
    _, _, x_scaled, z_scaled = direction(square)
    predicted = _step_length(nt.center, x_scaled, z_scaled, 1.0)
    corrected = square + lorentz.product(x_scaled, z_scaled)
    corrected[:, 0] -= (1 - predicted) ** 3 * mu
    dx, dR, x_scaled, z_scaled = direction(corrected)
    length = _step_length(nt.center, x_scaled, z_scaled, TO_BOUNDARY)
    for _ in range(20):  # rounding may have made the step too long
        moved, R_moved = x + length * dx, R + length * dR
        if lorentz.inside(moved) and lorentz.inside(_slacks(lasso, R_moved)):
            return moved, R_moved
        length *= 0.7
    return None


def _step_length(center: Matrix, x_scaled: Matrix, z_scaled: Matrix, part: float) -> float:
    longest = min(lorentz.largest_step(center, d) for d in (x_scaled, z_scaled))
    return min(1.0, part * longest)


class _NormalEquations:
    """S(A dV) - dR = -residual with dV = -T A'S dR - target, T the blocks of W^2 at (v, v).

    Either dV is eliminated, I + S A T A' S of side n c, or dR, A' S^2 A + T^-1 of side m c. The
    first is cheaper when there are many groups, but T varies by more powers of ten than float64
    has digits once the gap is small, and what is lost moves R. In the second the lost directions
    are those along which V moves and S(A V) does not, which a ridge holds fast without harm.
    """

    def __init__(self, lasso: QuadraticLasso):
        (n, m), c = lasso.activations.shape, lasso.targets.shape[1]
        self.lasso = lasso
        by_samples = (n * c) ** 2 * (m + n * c / 3)
        self.by_samples = by_samples < (m * c) ** 3 / 3
        self.curvature: Matrix | None = None  # A' S^2 A, (c, m, c, m), when first needed
        self.ridge = 0.0

    def factor(self, nt: lorentz.Scaling) -> Solver:
        return self._sample_form(nt) if self.by_samples else self._group_form(nt)

    def _sample_form(self, nt: lorentz.Scaling) -> Solver:
        lasso, axis, size = self.lasso, nt.axis[:, 1:], nt.size
        A, S = lasso.activations, lasso.roots
        n, c = lasso.targets.shape
        along = (A * np.sqrt(2 * size))[:, None, :] * axis.T
        if S is not None:
            along = S @ along
        along = along.reshape(n * c, -1)
        matrix = along @ along.T
        across = (A * size) @ A.T
        blocks = matrix.reshape(n, c, n, c)
        if S is None:
            for k in range(c):
                blocks[:, k, :, k] += across
        else:
            blocks += np.einsum("ikp,ij,jlp->ikjl", S, across, S, optimize=True)
        matrix[np.diag_indices(n * c)] += 1
        factor = scipy.linalg.cho_factor(
            matrix.T, lower=True, overwrite_a=True, check_finite=False
        )

        def solve(residual: Matrix, target: Matrix) -> tuple[Matrix, Matrix]:
            dR, dV = np.zeros((n, c)), -target
            error = residual + lasso.predict(dV)
            for _ in range(2):  # the second is iterative refinement
                change = scipy.linalg.cho_solve(factor, error.ravel(), check_finite=False)
                dR = dR + change.reshape(n, c)
                prices = lasso.prices(dR)
                inner = lorentz.row_dots(axis, prices)
                dV = -size[:, None] * (prices + 2 * inner[:, None] * axis) - target
                error = residual + lasso.predict(dV) - dR
            if not np.linalg.norm(error) <= 0.1 * np.linalg.norm(residual) + 1e-12 * np.linalg.norm(lasso.targets):
                raise np.linalg.LinAlgError("The samples' form has lost its accuracy.")
            return dR, dV

        return solve

    def _group_form(self, nt: lorentz.Scaling) -> Solver:
        lasso, axis = self.lasso, nt.axis[:, 1:]
        (n, m), c = lasso.activations.shape, lasso.targets.shape[1]
        if self.curvature is None:
            self.curvature = _curvature(lasso)
        shrink = 2 / (2 * nt.axis[:, 0] ** 2 - 1)

        def stiffness(dV: Matrix) -> Matrix:
            inner = shrink * lorentz.row_dots(axis, dV)
            return (dV - inner[:, None] * axis) / nt.size[:, None]

        matrix = self.curvature.copy()
        index = np.arange(m)
        for k in range(c):
            matrix[k, index, k, index] += 1 / nt.size
            for l in range(c):
                matrix[k, index, l, index] -= shrink * axis[:, k] * axis[:, l] / nt.size
        matrix = matrix.reshape(c * m, c * m)
        scale = 1 / np.sqrt(np.diag(matrix))
        matrix *= scale[:, None]
        matrix *= scale
        while True:
            damped = matrix.copy() 
            damped[np.diag_indices(c * m)] += self.ridge
            try:
                factor = scipy.linalg.cho_factor(
                    damped.T, lower=True, overwrite_a=True, check_finite=False
                )
                break
            except np.linalg.LinAlgError:
                self.ridge = max(10 * self.ridge, c * m * np.finfo(float).eps)
        scale = scale.reshape(c, m).T

        def solve(residual: Matrix, target: Matrix) -> tuple[Matrix, Matrix]:
            right = -stiffness(target) - lasso.prices(residual)
            dV = np.zeros((m, c))
            for _ in range(3 if self.ridge else 1):
                change = scipy.linalg.cho_solve(factor, (scale * right).T.ravel(), check_finite=False)
                change = scale * change.reshape(c, m).T
                dV = dV + change
                right = right - stiffness(change) - lasso.prices(lasso.predict(change))
            return lasso.predict(dV) + residual, dV

        return solve


def _curvature(lasso: QuadraticLasso) -> Matrix:
    A, S = lasso.activations, lasso.roots
    m, c = A.shape[1], lasso.targets.shape[1]
    result = np.zeros((c, m, c, m))
    if S is None:
        gram = A.T @ A
        for k in range(c):
            result[k, :, k] = gram
        return result
    squares = S @ S
    for k in range(c):
        for l in range(k + 1):
            result[k, :, l] = (A.T * squares[:, k, l]) @ A
            result[l, :, k] = result[k, :, l].T
    return result
