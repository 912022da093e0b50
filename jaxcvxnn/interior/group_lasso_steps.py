"""A primal-dual interior-point method for group lassos with a quadratic dual, on the host in float64:

    max over R (n, c)   -<R, B> - k/2 ||R||^2   subject to   |(A'S R)_j| <= 1,   lower <= R <= upper,
    min over V (m, c)   f(S(A V)) + sum_j |v_j|,   f* the quadratic in R with the box in its domain,

S one symmetric (c, c) block per sample, or the identity (f: see `quadratic_loss`). The slacks z_j =
(1, (A'S R)_j) stay strictly inside second-order cones from the first step to the last: every iterate
certifies its own gap. Nesterov-Todd scaling, Mehrotra's predictor and corrector, one step
length. Nearly parallel columns do no harm. Derivation: docs/math/lasso.md, "Group lasso".
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..arrays import Matrix
from ..losses.quadratic_conjugate import QuadraticLoss
from . import lorentz
from .group_lasso_systems import NormalEquations
from .steps import Pair, iterate, take_step, without_unused

# The start has the dual constraints this far inside, and predictions at most this far away.
INTERIOR, FARTHEST = 0.7, 100.0
# Steps in a row that did not make the gap a little smaller, after which rounding is taken to be
# the limit.
PATIENCE, LITTLE = 25, 0.99
# The proximal term of `QuadraticLoss.ridge`.
RIDGE = 1e-5


class QuadraticLasso(NamedTuple):
    """The data of the module's two programs."""

    activations: Matrix  # A (n, m), no column zero
    loss: QuadraticLoss  # of outputs (n, c)
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
        return self.loss.value(self.predict(V)) + float(np.sum(lorentz.row_norms(V)))


Best = Pair[Matrix, Matrix]  # V, and R strictly feasible
Enough = Callable[[float, float], bool]


@np.errstate(over="ignore", invalid="ignore", divide="ignore")  # points not inside are refused
def solve_quadratic(lasso: QuadraticLasso, start: Matrix, enough: Enough, max_steps: int) -> Best:
    """Steps from `start` (m, c) until `enough(objective, dual_objective)` or rounding stops them.

    A start near the optimum saves steps; zeros will do.
    """
    point = _first_point(lasso, start)
    dual_value = lasso.loss.dual_value
    normal = NormalEquations(lasso.activations, lasso.loss.targets.shape[1], lasso.roots)
    lowest = np.inf

    def learn(best: Best, point: _Point) -> tuple[Best, bool]:
        nonlocal lowest
        objective, dual = lasso.objective(point.V), dual_value(point.R)
        progress = objective - dual < LITTLE * lowest
        lowest = objective - dual if progress else lowest
        return best.with_primal(point.V, objective).with_dual(point.R, dual), progress

    best, steps = iterate(
        point,
        Best(start, point.R, lasso.objective(start), dual_value(point.R)),
        advance=lambda point: _advance(lasso, normal, point),
        learn=learn,
        enough=lambda best: enough(best.objective, best.dual_objective),
        max_steps=max_steps,
        patience=PATIENCE,
        other_way=normal.change_form,
    )
    V, objective = without_unused(
        best.primal,
        1 - lorentz.row_norms(lasso.prices(best.dual)),
        best.objective,
        lasso.objective,
        lambda value: enough(value, best.dual_objective),
    )
    return best._replace(primal=V, objective=objective, steps=steps)


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
    R = lasso.loss.interior(lasso.loss.gradient(lasso.predict(start)))
    R = R * (INTERIOR / max(1.0, np.max(lorentz.row_norms(lasso.prices(R)))))
    z, slacks = _slacks(lasso, R)
    gap = lasso.objective(start) - lasso.loss.dual_value(R)
    inward = lorentz.inverses(z)
    pushed = max(float(np.linalg.norm(lasso.predict(inward[:, 1:]))), np.finfo(float).tiny)
    mu = min(gap / (len(start) + slacks.size), FARTHEST * np.sqrt(2 * gap) / pushed)
    x = np.column_stack([lorentz.row_norms(start), start]) + mu * inward
    return _Point(x, R, mu / slacks)


def _slacks(lasso: QuadraticLasso, R: Matrix) -> tuple[Matrix, Matrix]:
    """z (m, 1 + c) of the cones and limits - signs R of the box: inside while all are positive."""
    prices = lasso.prices(R)
    return np.column_stack([np.ones(len(prices)), prices]), lasso.loss.limits - lasso.loss.signs * R


def _advance(lasso: QuadraticLasso, normal: NormalEquations, point: _Point) -> _Point | None:
    """One predictor-corrector step; None, or a `LinAlgError`, if rounding leaves no step to take."""
    x, R, multipliers = point
    z, slacks = _slacks(lasso, R)
    nt = lorentz.scaling(x, z)
    loss, signs, ratios = lasso.loss, lasso.loss.signs, multipliers / slacks
    degree = len(x) + slacks.size
    mu = float(np.sum(nt.center**2) + np.sum(multipliers * slacks)) / degree
    residual = lasso.predict(point.V) - loss.targets - loss.stiffness * R
    residual -= np.sum(signs * multipliers, axis=0)
    curvature = np.maximum(loss.stiffness + np.sum(ratios, axis=0), loss.ridge(RIDGE))
    solve = normal.factor(nt, curvature)

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
        ds = nt.first_entries(dV, target)
        z_scaled = nt.apply(np.column_stack([np.zeros(len(x)), lasso.prices(dR)]))
        change = _Point(np.column_stack([ds, dV]), dR, ratios * signs * dR - shift)
        return change, -z_scaled - scaled, z_scaled

    def longest_step(change: _Point, x_scaled: Matrix, z_scaled: Matrix) -> float:
        relative = np.stack([signs * change.R / slacks, -change.multipliers / multipliers])
        return 1 / max(
            1 / nt.largest_step(x_scaled, z_scaled), np.max(relative, initial=0.0), 1e-300
        )

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
    change = corrected[0]
    return take_step(
        lambda length: _Point(*(a + length * b for a, b in zip(point, change, strict=True))),
        lambda moved: _inside(lasso, moved),
        longest_step(*corrected),
    )


def _inside(lasso: QuadraticLasso, point: _Point) -> bool:
    z, slacks = _slacks(lasso, point.R)
    positive = np.all(slacks > 0) and np.all(point.multipliers > 0)
    return bool(positive) and lorentz.inside(point.x) and lorentz.inside(z)
