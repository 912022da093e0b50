"""The output layer of fixed neurons to global optimality: a group lasso, with its dual certificate.

    min over V (m, c)   L(A V) + sum_j w_j |v_j|

for the activations A (n, m) of m neurons and a convex loss L. It is the restricted problem of column
generation. Its dual, max over R of -L*(R) subject to |R'a_j| <= w_j, makes every pair of points a
pair of bounds. Losses with a quadratic conjugate are one program for `group_lasso_steps`, other
smooth ones a sequence of such: Newton's method with the penalty kept. On the host, in float64.
Derivation: docs/math/lasso.md, "Group lasso".
"""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float

from ..arrays import Matrix
from ..bound import relative_gap
from ..job import Job
from ..losses.base import AbstractLoss
from ..losses.quadratic_conjugate import QuadraticLoss
from .group_lasso_steps import Best, QuadraticLasso, solve_quadratic
from .lorentz import row_norms

# Of the tolerance, what the solver of a model may use up.
MODEL_SHARE = 0.3
# A model that predicts a decrease of less than this part of the tolerance is the last one.
NOTHING = 0.01
# A model is solved until its gap is this part of the decrease that it predicts.
MODEL_ACCURACY = 1e-3
# The damping of the models, in units of the loss's curvature: at first and at least, and its factors
# after a decrease that was mostly (GOOD) or hardly (POOR) the predicted one.
FIRST_DAMPING, LEAST_DAMPING = 1e-3, 1e-12
GOOD, POOR = 0.7, 0.1
LESS, MORE = 0.03, 10.0


class GroupLassoSolution(eqx.Module):
    """Output weights V and a residual R that proves how good they are.

    |R'a_j| <= w_j for all neurons up to rounding, so that `dual_objective` = -L*(R) is a lower bound
    on every V's objective; at the optimum R is the gradient of L at A V. Weights of neurons that are
    not used are zero. `steps` counts factorisations.
    """

    V: Float[np.ndarray, "m c"]
    residual: Float[np.ndarray, "n c"]
    objective: float
    dual_objective: float
    steps: int

    @property
    def relative_gap(self) -> float:
        """(objective - dual_objective) / |objective|."""
        return relative_gap(self.dual_objective, self.objective)


def solve_group_lasso(
    activations: Any,
    targets: Any,
    penalties: Any,
    *,
    loss: AbstractLoss,
    start: Any = None,
    tolerance: float = 1e-10,
    max_steps: int = 500,
    job: Job | None = None,
) -> GroupLassoSolution:
    """min over V of loss(A V, Y) + sum_j w_j |v_j| to a relative duality gap of `tolerance`.

    Never fails to return: where rounding, `max_steps` or `job` stops it before, `relative_gap` tells.

    **Arguments:**

    - `activations`: A (n, m); any m, 0 included; columns may be parallel, equal or zero.
    - `targets`: Y (n, c).
    - `penalties`: w, positive, one number or (m,).
    - `loss`: smooth, or with a `quadratic_conjugate`, for which neither Hessian nor curvature is used
      and kinks do no harm.
    - `start`: V (m, c) near the optimum saves steps; rows of zeros stand for new neurons.
    - `job`: asked before each step.
    - `max_steps`: Newton steps, each with one Cholesky factorisation of side c min(m, n) or so.

    **Raises** a `ValueError` for shapes that do not match, entries that are not finite, penalties
    that are not positive, a tolerance that is not, and losses that are not smooth.
    """
    A, Y, w, V = _checked(activations, targets, penalties, start)
    if not 0 < tolerance < math.inf:
        raise ValueError(f"tolerance must be positive and finite; got {tolerance}.")
    if loss.quadratic_conjugate(Y) is None and not loss.curvature < math.inf:
        raise ValueError("loss must be smooth or have a `quadratic_conjugate`.")
    used = np.flatnonzero(np.any(A != 0, axis=0))
    # In the unit w_j of every group the penalty is sum_j |v_j| and the dual constraint |R'a_j| <= 1.
    problem = _Problem(A[:, used] / w[used], Y, loss)
    job = Job() if job is None else job
    found = _proximal_newton(problem, V[used] * w[used, None], tolerance, max_steps, job)
    full = np.zeros((A.shape[1], Y.shape[1]))
    full[used] = found.primal / w[used, None]
    return GroupLassoSolution(full, found.dual, found.objective, found.dual_objective, found.steps)


class _Problem(NamedTuple):
    """min L(A V) + sum_j |v_j|, with the loss evaluated in float64."""

    activations: Matrix
    targets: Matrix
    loss: AbstractLoss

    def evaluate(self, method: str, point: Matrix) -> Matrix:
        # Of the class: a method that is read off an equinox module is a module itself, which takes
        # longer to make than small arrays take to compute.
        of_loss = getattr(type(self.loss), method)
        with jax.enable_x64(True):
            return np.asarray(of_loss(self.loss, point, self.targets), np.float64)

    def objective(self, V: Matrix) -> float:
        return float(self.evaluate("value", self.activations @ V)) + float(np.sum(row_norms(V)))

    def shrunk(self, R: Matrix) -> tuple[Matrix, float]:
        """t R and its dual objective, t <= 1 the largest that makes it feasible."""
        inside = self.evaluate("into_domain", R)
        longest = np.max(row_norms(self.activations.T @ inside), initial=1.0)
        feasible = inside / longest
        return feasible, -float(self.evaluate("conjugate", feasible))


def _proximal_newton(
    problem: _Problem, V: Matrix, tolerance: float, max_steps: int, job: Job
) -> Best:
    """Quadratic models of the loss about V, each minimised exactly with the penalty, damped by a
    multiple of the identity as in Levenberg's method."""
    R, dual = problem.shrunk(problem.evaluate("gradient", problem.activations @ V))
    best = Best(V, R, problem.objective(V), dual)
    damping = FIRST_DAMPING
    while V.size and best.objective - best.dual_objective > tolerance * abs(best.objective):
        model = _Model.of(problem, best, damping * problem.loss.curvature)
        inner = solve_quadratic(
            model.lasso,
            best.primal,
            lambda p, d, model=model: job.over() or model.enough(p, d, tolerance),
            max_steps - best.steps,
        )
        objective = problem.objective(inner.primal)
        decrease = best.objective - objective
        predicted = best.objective - (inner.objective + model.constant)
        best = best._replace(steps=best.steps + inner.steps)
        gradient = problem.evaluate("gradient", problem.activations @ inner.primal)
        for candidate in (gradient, model.lasso.weigh(inner.dual)):
            best = best.with_dual(*problem.shrunk(candidate))
        best = best.with_primal(inner.primal, objective)
        unit = tolerance * abs(best.objective)
        exhausted = inner.steps == 0 or best.steps >= max_steps or job.over()
        # Where the model is an upper bound without damping, a small decrease is a small gap.
        settled = predicted <= NOTHING * unit or (model.lasso.roots is None and decrease <= unit)
        if model.exact or exhausted or settled:
            break
        if decrease >= GOOD * predicted:
            damping = max(LESS * damping, LEAST_DAMPING)
        elif decrease < POOR * predicted:
            damping *= MORE
    return best


class _Model(NamedTuple):
    """L(Z) + <G, AV - Z> + 1/2 <AV - Z, (H + damping) (AV - Z)> as 1/2 ||S(AV) - B||^2 + constant.

    Where H is the identity and nowhere larger, as for the squared loss, that is an upper bound on
    the loss without damping. `exact` if the loss itself took the model's place.
    """

    lasso: QuadraticLasso
    constant: float
    objective: float
    exact: bool

    @classmethod
    def of(cls, problem: _Problem, about: Best, damping: float) -> "_Model":
        conjugate = problem.loss.quadratic_conjugate(problem.targets)
        if conjugate is not None:
            linear, stiffness, box = conjugate
            lasso = QuadraticLasso(problem.activations, QuadraticLoss(linear, stiffness, box))
            return cls(lasso, 0.0, about.objective, True)
        Z = problem.activations @ about.primal
        value, gradient, hessian = (
            problem.evaluate(method, Z) for method in ("value", "gradient", "hessian")
        )
        values, vectors = np.linalg.eigh(hessian)
        # Convex, so negative eigenvalues are rounding.
        values = np.sqrt(np.maximum(values, 0) + damping)
        roots = (vectors * values[:, None, :]) @ vectors.swapaxes(1, 2)
        inverse = (vectors / values[:, None, :]) @ vectors.swapaxes(1, 2)
        whitened = np.einsum("nij,nj->ni", inverse, gradient)
        targets = np.einsum("nij,nj->ni", roots, Z) - whitened
        lasso = QuadraticLasso(problem.activations, QuadraticLoss(targets), roots)
        constant = float(value) - float(np.sum(whitened**2)) / 2
        return cls(lasso, constant, about.objective, False)

    def enough(self, objective: float, dual_objective: float, tolerance: float) -> bool:
        reached = objective + self.constant
        allowed = MODEL_SHARE * tolerance * abs(reached)
        if self.lasso.roots is not None:
            allowed = max(allowed, MODEL_ACCURACY * (self.objective - reached))
        return objective - dual_objective <= allowed


def _checked(
    activations: Any, targets: Any, penalties: Any, start: Any
) -> tuple[Matrix, Matrix, Matrix, Matrix]:
    A, Y = _matrix(activations, "activations"), _matrix(targets, "targets")
    if len(A) != len(Y) or not Y.size:
        raise ValueError(
            "activations (n, m) and targets (n, c) must have one row per sample each, and at least "
            f"one; their shapes are {A.shape} and {Y.shape}."
        )
    m = A.shape[1]
    w = np.asarray(penalties, np.float64)
    if w.shape not in ((), (m,)):
        raise ValueError(f"penalties must be a number or have shape ({m},); got {w.shape}.")
    if not np.all((w > 0) & np.isfinite(w)):
        raise ValueError("penalties must be positive and finite.")
    V = np.zeros((m, Y.shape[1])) if start is None else _matrix(start, "start")
    if V.shape != (m, Y.shape[1]):
        raise ValueError(f"start must have shape {(m, Y.shape[1])}; its shape is {V.shape}.")
    return A, Y, np.broadcast_to(w, (m,)), V


def _matrix(values: Any, name: str) -> Matrix:
    array = np.asarray(values, np.float64)
    if array.ndim != 2:
        raise ValueError(f"{name} must be a matrix; its shape is {array.shape}.")
    if not np.all(np.isfinite(array)):
        raise ValueError(f"{name} must be finite; it holds NaN or infinite entries.")
    return array
