"""The convex program of polynomial networks in plain CVXPY; it imports nothing of this project."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import cvxpy as cp
import numpy as np

LOSSES: dict[str, Callable[[Any, np.ndarray], Any]] = {
    "squared": lambda Z, Y: cp.sum_squares(Z - Y) / 2,
    "absolute": lambda Z, Y: cp.sum(cp.abs(Z - Y)),
    "huber": lambda Z, Y: cp.sum(cp.huber(Z - Y, 1)) / 2,
    "hinge": lambda Z, Y: cp.sum(cp.pos(1 - cp.multiply(Y, Z))),
    "logistic": lambda Z, Y: cp.sum(cp.logistic(-cp.multiply(Y, Z))),
    "softmax": lambda Z, Y: cp.sum(cp.log_sum_exp(Z, axis=1)) - cp.sum(cp.multiply(Y, Z)),
}


def polynomial_program(
    X: np.ndarray, Y: np.ndarray, weight_decay: float, phi: Any, loss: str = "squared"
) -> tuple[np.ndarray, np.ndarray, float]:
    """Bartan and Pilanci (2021), eq. (21), a pair per output: (Z, Z', value).

    X (n, d) with its column of ones, Y (n, c), `phi` with its coefficients a, b, c.
    """
    d, c = X.shape[1], Y.shape[1]
    pairs = [[cp.Variable((d + 1, d + 1), PSD=True) for _ in range(c)] for _ in range(2)]
    outputs = [fitted(X, phi, Z - W) for Z, W in zip(*pairs, strict=True)]
    goal = LOSSES[loss](cp.vstack(outputs).T, Y)
    value = minimise(goal, pairs[0] + pairs[1], weight_decay)
    positive, negative = (np.stack([Z.value for Z in part]) for part in pairs)
    return positive, negative, value


def fitted(X: np.ndarray, phi: Any, M: Any) -> Any:
    """a x'M_1 x + b x'M_2 + c M_4 of each row x."""
    d = X.shape[1]
    quadratic = phi.a * cp.sum(cp.multiply(X @ M[:d, :d], X), axis=1)
    return quadratic + phi.b * X @ M[:d, d] + phi.c * M[d, d]


def minimise(loss: Any, matrices: Sequence[Any], weight_decay: float) -> float:
    """The least loss + weight_decay sum Z_4 with tr Z_1 = Z_4 for each matrix."""
    balanced = [cp.trace(Z[:-1, :-1]) == Z[-1, -1] for Z in matrices]
    goal = cp.Minimize(loss + weight_decay * sum(Z[-1, -1] for Z in matrices))
    with warnings.catch_warnings():
        # Callers judge the returned point themselves.
        warnings.filterwarnings("ignore", message="Solution may be inaccurate")
        tight = {"tol_gap_abs": 1e-10, "tol_gap_rel": 1e-10, "tol_feas": 1e-10}
        return float(cp.Problem(goal, balanced).solve(cp.CLARABEL, **tight))  # pyright: ignore
