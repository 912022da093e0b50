"""A primal-dual interior-point method for group lassos with a quadratic dual, on the host in float64:

    max over R (n, c)   -<R, B> - k/2 ||R||^2   subject to   |(A'S R)_j| <= 1,   lower <= R <= upper,
    min over V (m, c)   f(S(A V)) + sum_j |v_j|,   f* the quadratic in R with the box in its domain,

S one symmetric (c, c) block per sample, or the identity. With k = 1 and no box f is the square
1/2 ||. - B||^2; boxes make it Huber's function, with k = 0 the hinge or the absolute value. The slacks
z_j = (1, (A'S R)_j) stay strictly inside second-order cones from the first step to the last: every
iterate certifies its own gap. Nesterov-Todd scaling, Mehrotra's predictor and corrector, one step
length. Nearly parallel columns do no harm. Derivation: docs/math.md, section "Group lasso".
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import lorentz
from .normal_equations import NormalEquations

Matrix = NDArray[np.float64]

# The part of the way to the boundary that a step may take.
TO_BOUNDARY = 0.99
# The start has the dual constraints this far inside, and predictions at most this far away.
INTERIOR, FARTHEST = 0.7, 100.0
# Steps in a row that did not make the gap a little smaller, after which rounding is taken to be
# the limit.
PATIENCE, LITTLE = 25, 0.99
# The proximal term of `QuadraticLasso.ridge`, relative.
RIDGE = 1e-5
# Where rounding made a step too long, it is shortened by this factor, so often.
SHORTER, SHORTENINGS = 0.7, 20


class QuadraticLasso(NamedTuple):
    """The data of the module's two programs."""

    activations: Matrix  # A (n, m), no column zero
    targets: Matrix  # B (n, c)
    roots: Matrix | None = None  # S (n, c, c), symmetric; None for the identity
    stiffness: float = 1.0  # k, 1 or 0; 0 needs a box
    box: tuple[Matrix, Matrix] | None = None  # lower and upper (n, c), finite, 0 inside or on it

    @property
    def limits(self) -> Matrix:
        """upper and -lower (2, n, c), or nothing (0, n, c): `signs` R <= limits."""
        if self.box is None:
            return np.zeros((0, *self.targets.shape))
        return np.stack([self.box[1], -self.box[0]])

    @property
    def signs(self) -> Matrix:
        return np.array([1.0, -1.0])[: len(self.limits), None, None]

    @property
    def ridge(self) -> float:
        """The least curvature in R that the linear systems see, in the units of B over R.

        Where k is 0 and R is inside its box there is none. A proximal term about each iterate adds
        some, and vanishes with the steps.
        """
        if self.box is None or self.stiffness:
            return 0.0
        return RIDGE * float(
            np.linalg.norm(self.targets) / np.linalg.norm(self.box[1] - self.box[0])
        )

    def weigh(self, rows: Matrix) -> Matrix:
        """S applied to one row per sample."""
        return rows if self.roots is None else np.einsum("nij,nj->ni", self.roots, rows)

    def predict(self, V: Matrix) -> Matrix:
        """S(A V), (n, c)."""
        return self.weigh(self.activations @ V)

    def prices(self, R: Matrix) -> Matrix:
        """A'S R, (m, c): feasible where no row is longer than 1."""
        return self.activations.T @ self.weigh(R)

    def gradient(self, error: Matrix) -> Matrix:
        """The R at which the supremum in f is attained, for S(A V) - B."""
        if self.box is None:
            return error
        return np.clip(error, *self.box) if self.stiffness else np.where(error > 0, *self.box[::-1])

    def objective(self, V: Matrix) -> float:
        error = self.predict(V) - self.targets
        R = self.gradient(error)
        loss = np.sum(R * (error - self.stiffness / 2 * R))
        return float(loss + np.sum(lorentz.row_norms(V)))

    def dual_objective(self, R: Matrix) -> float:
        return float(-np.sum(R * (self.targets + self.stiffness / 2 * R)))


class InteriorPoint(NamedTuple):
    """The best V and the best strictly feasible R that were seen, with their objectives."""

    V: Matrix
    R: Matrix
    objective: float
    dual_objective: float
    steps: int


Enough = Callable[[float, float], bool]


@np.errstate(over="ignore", invalid="ignore", divide="ignore")  # points not inside are refused
def solve_quadratic(
    lasso: QuadraticLasso, start: Matrix, enough: Enough, max_steps: int
) -> InteriorPoint:
    """Steps from `start` (m, c) until `enough(objective, dual_objective)` or rounding stops them.

    A start near the optimum saves steps; zeros will do.
    """
    point = _first_point(lasso, start)
    best = InteriorPoint(start, point.R, lasso.objective(start), lasso.dual_objective(point.R), 0)
    normal = NormalEquations(lasso.activations, lasso.targets.shape[1], lasso.roots)
    lowest, idle = np.inf, 0
    for step in range(1, max_steps + 1):
        moved = _advance(lasso, normal, point)
        if moved is None and normal.change_form():
            moved = _advance(lasso, normal, point)
        if moved is None:
            break
        point, best = moved, best._replace(steps=step)
        objective, dual = lasso.objective(point.V), lasso.dual_objective(point.R)
        if objective < best.objective:
            best = best._replace(V=point.V, objective=objective)
        if dual > best.dual_objective:
            best = best._replace(R=point.R, dual_objective=dual)
        if enough(best.objective, best.dual_objective):
            break
        gap = objective - dual
        lowest, idle = (gap, 0) if gap < LITTLE * lowest else (lowest, idle + 1)
        if idle > PATIENCE:
            if not normal.change_form():
                break
            idle = 0
    return _without_unused(lasso, best, enough)


class _Point(NamedTuple):
    """Cone points x_j = (s_j, v_j), R, and the multipliers (as `limits`) of its box."""

    x: Matrix
    R: Matrix
    multipliers: Matrix

    @property
    def V(self) -> Matrix:
        return self.x[:, 1:]


def _first_point(lasso: QuadraticLasso, start: Matrix) -> _Point:
    """x = (|v|, v) + mu z^-1 and the gradient at `start`, shrunk until it is strictly feasible.

    mu is the mean complementarity that the gap at `start` amounts to, but moves the predictions by
    no more than `FARTHEST` times sqrt(2 gap), where the optimal ones of the squared loss are.
    """
    R = lasso.gradient(lasso.predict(start) - lasso.targets)
    if lasso.box is not None:
        middle = (lasso.box[0] + lasso.box[1]) / 2
        R = middle + INTERIOR * (R - middle)
    R = R * (INTERIOR / max(1.0, np.max(lorentz.row_norms(lasso.prices(R)))))
    z, slacks = _slacks(lasso, R)
    gap = lasso.objective(start) - lasso.dual_objective(R)
    inward = lorentz.inverses(z)
    pushed = max(float(np.linalg.norm(lasso.predict(inward[:, 1:]))), np.finfo(float).tiny)
    mu = min(gap / (len(start) + slacks.size), FARTHEST * np.sqrt(2 * gap) / pushed)
    x = np.column_stack([lorentz.row_norms(start), start]) + mu * inward
    return _Point(x, R, mu / slacks)


def _slacks(lasso: QuadraticLasso, R: Matrix) -> tuple[Matrix, Matrix]:
    """z (m, 1 + c) of the cones and limits - signs R of the box: inside while all are positive."""
    prices = lasso.prices(R)
    return np.column_stack([np.ones(len(prices)), prices]), lasso.limits - lasso.signs * R


def _without_unused(lasso: QuadraticLasso, best: InteriorPoint, enough: Enough) -> InteriorPoint:
    """Weights that complementarity wants to be zero, set to zero, unless that costs accuracy.

    Strictly inside the cones no weight is zero: |v_j| (1 - |(A'S R)_j|) is about mu for all groups.
    """
    lengths = lorentz.row_norms(best.V)
    slacks = 1 - lorentz.row_norms(lasso.prices(best.R))
    relative = lengths / max(np.max(lengths), np.finfo(float).tiny)
    for factor in (1.0, 1e-2, 1e-4):
        V = np.where((relative < factor * slacks)[:, None], 0.0, best.V)
        objective = lasso.objective(V)
        if objective <= best.objective or enough(objective, best.dual_objective):
            return best._replace(V=V, objective=objective)
    return best


def _advance(lasso: QuadraticLasso, normal: NormalEquations, point: _Point) -> _Point | None:
    """One predictor-corrector step; None if rounding leaves no step to take."""
    x, R, multipliers = point
    z, slacks = _slacks(lasso, R)
    nt = lorentz.scaling(x, z)
    signs, ratios = lasso.signs, multipliers / slacks
    degree = len(x) + slacks.size
    mu = float(np.sum(nt.center**2) + np.sum(multipliers * slacks)) / degree
    residual = lasso.predict(point.V) - lasso.targets - lasso.stiffness * R
    residual -= np.sum(signs * multipliers, axis=0)
    try:
        solve = normal.factor(nt, np.maximum(lasso.stiffness + np.sum(ratios, axis=0), lasso.ridge))
    except np.linalg.LinAlgError:
        return None

    def direction(cones: Matrix, walls: Matrix) -> tuple[_Point, Matrix, Matrix] | None:
        """The change of the point, with W^-1 dx and W dz, for the linearised complementarities

        center o (W dz + W^-1 dx) = -`cones`,   slacks dm + multipliers ds = -`walls`.
        """
        scaled = lorentz.quotient(nt.center, cones)
        target, shift = nt.apply(scaled), walls / slacks
        solved = solve(residual + np.sum(signs * shift, axis=0), target[:, 1:])
        if solved is None:
            return None
        dR, dV = solved
        axis = nt.axis
        along = lorentz.row_dots(axis[:, 1:], dV + target[:, 1:])
        ds = 2 * axis[:, 0] * along / (2 * axis[:, 0] ** 2 - 1) - target[:, 0]
        z_scaled = nt.apply(np.column_stack([np.zeros(len(x)), lasso.prices(dR)]))
        change = _Point(np.column_stack([ds, dV]), dR, ratios * signs * dR - shift)
        return change, -z_scaled - scaled, z_scaled

    def longest_step(change: _Point, x_scaled: Matrix, z_scaled: Matrix) -> float:
        both = np.concatenate([nt.center, nt.center]), np.concatenate([x_scaled, z_scaled])
        relative = np.stack([signs * change.R / slacks, -change.multipliers / multipliers])
        return 1 / max(1 / lorentz.largest_step(*both), np.max(relative, initial=0.0), 1e-300)

    square, product = lorentz.product(nt.center, nt.center), multipliers * slacks
    predicted = direction(square, product)
    if predicted is None:
        return None
    change, x_scaled, z_scaled = predicted
    centering = (1 - min(1.0, longest_step(*predicted))) ** 3 * mu
    square += lorentz.product(x_scaled, z_scaled)
    square[:, 0] -= centering
    product = product - signs * change.R * change.multipliers - centering
    corrected = direction(square, product)
    if corrected is None:
        return None
    length = min(1.0, TO_BOUNDARY * longest_step(*corrected))
    for _ in range(SHORTENINGS):
        moved = _Point(*(old + length * new for old, new in zip(point, corrected[0], strict=True)))
        z, slacks = _slacks(lasso, moved.R)
        positive = np.all(slacks > 0) and np.all(moved.multipliers > 0)
        if positive and lorentz.inside(moved.x) and lorentz.inside(z):
            return moved
        length *= SHORTER
    return None
