"""From a solver's approximate multipliers to a dual point strictly inside the feasible set.

The dual of (lifted) asks for (R, N) with D(N, R) = [[C - V'NV, E'R/2], [R'E/2, wd/2 I]] PSD. A
solver's N gives the shape; what is free is re-optimised: R, the multipliers nu of the pair
equalities, and a scale theta_j >= 0 per row of N (entry (j, l) is multiplied by (theta_j +
theta_l)/2, which keeps it nonnegative). That is a small concave maximisation over a linear matrix
inequality, solved here by a primal-dual method in NumPy float64. Every iterate is feasible, so stopping
early only weakens the bound. Derivation: docs/math/certificate.md, "Repairing a dual".
"""

from typing import NamedTuple

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from ..arrays import Matrix
from ..job import Job
from .steps import iterate


class RepairedDual(NamedTuple):
    """A dual point inside the feasible set, in the coordinates of the lifted data."""

    residual: Matrix  # R, (l, c)
    multipliers: Matrix  # N, (m, m), symmetric, nonnegative except at the pairs
    objective: float  # -<R, Y> - ||R||^2 / 2, not yet verified
    steps: int


class _Inequality(NamedTuple):
    """D(x) = base - sum_j x_j (p_j q_j' + q_j p_j') / 2, p and q the rows of `left` and `right`.

    x = (tau, theta, nu, rho): the first `signed` entries stay positive, the last ones are the
    coefficients of R and carry the objective -<linear, rho> - |rho|^2 / 2.
    """

    base: Matrix
    left: Matrix
    right: Matrix
    signed: int
    linear: Matrix

    def slack(self, x: Matrix) -> Matrix:
        half = (self.left * x[:, None]).T @ self.right
        return self.base - (half + half.T) / 2

    def objective(self, x: Matrix) -> float:
        rho = x[-self.linear.size :]
        return float(-rho @ self.linear - rho @ rho / 2)


def repair_dual(
    rows: Matrix,
    readout: Matrix,
    targets: Matrix,
    weight_decay: float,
    pairs: int,
    multipliers: Matrix,
    residual: Matrix | None = None,
    *,
    accuracy: float = 1e-7,
    max_steps: int = 80,
    max_unknowns: int = 2500,
    free_entries: int = 50,
    job: Job | None = None,
) -> RepairedDual | None:
    """A good dual point with the shape of `multipliers`, or None where none was found.

    **Arguments:** `rows` V (m, q), `readout` E (l, q), `targets` Y (l, c), `pairs` k and
    `multipliers` N (m, m) as in `LiftedData`. `accuracy` is the relative loss at which the
    iteration stops. Where a free R would mean more than `max_unknowns` unknowns, only one scale per
    output is free, of the columns of `residual` (l, c), which is needed then. `free_entries` is
    how many entries of N are free one by one. `job` is asked before each step.
    """
    if not pairs:
        return None
    shape = clean_multipliers(multipliers, pairs)
    vectors, outputs = _residual_basis(targets.shape, None)
    if rows.shape[0] + pairs + outputs.size > max_unknowns:
        if residual is None:
            return None
        vectors, outputs = _residual_basis(targets.shape, residual)
    large, beside = _largest_entries(shape, free_entries)
    own = shape[large, beside]
    rest = shape.copy()
    rest[large, beside] = rest[beside, large] = 0
    problem = _inequality(rows, readout, targets, weight_decay, pairs, rest, vectors, outputs)
    problem = _with_entries(problem, rows[large], own[:, None] * rows[beside])
    start = _interior(problem, rows, weight_decay, pairs)
    if start is None:
        return None
    x, steps = _maximize(problem, start, accuracy, max_steps, Job() if job is None else job)
    count = rows.shape[0]
    tau, theta, nu, rho = np.split(x, np.cumsum([len(own), count, pairs]))
    scaled = rest * (theta[:, None] + theta[None, :]) / 2
    scaled[large, beside] = scaled[beside, large] = tau * own
    index = np.arange(pairs)
    scaled[index, pairs + index] = scaled[pairs + index, index] = nu
    found = vectors.T @ (rho[:, None] * (outputs[:, None] == np.arange(targets.shape[1])))
    return RepairedDual(found, scaled, problem.objective(x), steps)


def clean_multipliers(multipliers: Matrix, pairs: int, *, keep_pairs: bool = False) -> Matrix:
    """Symmetric and nonnegative, zero on the diagonal (PSD implies W_ii >= 0); the pairs, free in
    sign, are kept or set to zero."""
    symmetric = (multipliers + multipliers.T) / 2
    clean = np.maximum(symmetric, 0)
    np.fill_diagonal(clean, 0)
    index = np.arange(pairs)
    free = symmetric[index, pairs + index] if keep_pairs else 0.0
    clean[index, pairs + index] = clean[pairs + index, index] = free
    return clean


def _largest_entries(shape: Matrix, count: int) -> tuple[NDArray, NDArray]:
    """Rows and columns of the `count` largest entries above the diagonal, as far as positive."""
    rows, columns = np.triu_indices(len(shape), 1)
    values = shape[rows, columns]
    largest = np.argsort(-values, kind="stable")[:count]
    largest = largest[values[largest] > 0]
    return rows[largest], columns[largest]


def _residual_basis(shape: tuple[int, ...], residual: Matrix | None) -> tuple[Matrix, NDArray]:
    """Orthonormal (vector, output) pairs that R is made of: all of them, or the columns given."""
    count, outputs = shape
    if residual is None:
        return np.repeat(np.eye(count), outputs, axis=0), np.tile(np.arange(outputs), count)
    lengths = np.linalg.norm(residual, axis=0)
    return (residual / np.where(lengths > 0, lengths, 1)).T, np.arange(outputs)


def _inequality(
    rows, readout, targets, weight_decay, pairs, shape, vectors, outputs
) -> _Inequality:
    size, width = rows.shape[1], targets.shape[1]
    base = np.zeros((size + width, size + width))
    index = np.arange(pairs, size + width)
    base[index, index] = weight_decay / 2
    left_z = np.vstack([rows, 2 * rows[:pairs], -vectors @ readout])
    right_z = np.vstack([shape @ rows, rows[pairs : 2 * pairs]])
    left = np.zeros((left_z.shape[0], size + width))
    right = np.zeros_like(left)
    left[:, :size] = left_z
    right[: right_z.shape[0], :size] = right_z
    right[np.arange(right_z.shape[0], left.shape[0]), size + outputs] = 1
    linear = np.einsum("jl,lj->j", vectors, targets[:, outputs])
    return _Inequality(base, left, right, rows.shape[0], linear)


def _with_entries(problem: _Inequality, left: Matrix, right: Matrix) -> _Inequality:
    """The inequality with further signed unknowns t_j, each for t_j (p_j q_j' + q_j p_j')."""
    wide = np.zeros((2, len(left), problem.left.shape[1]))
    wide[0, :, : left.shape[1]], wide[1, :, : right.shape[1]] = left, 2 * right
    return problem._replace(
        left=np.vstack([wide[0], problem.left]),
        right=np.vstack([wide[1], problem.right]),
        signed=problem.signed + len(left),
    )


def _interior(problem: _Inequality, rows, weight_decay, pairs) -> Matrix | None:
    """A strictly feasible x: nu = -weight_decay / (4 |P|^2), a quarter of the limit, and R = 0."""
    directions = -rows[pairs : 2 * pairs, pairs:]
    spread = max(float(np.linalg.norm(directions, 2)) ** 2, 1e-300)
    x = np.zeros(problem.left.shape[0])
    x[problem.signed : problem.signed + pairs] = -weight_decay / (4 * spread)
    for theta in 10.0 ** -np.arange(1, 13):
        x[: problem.signed] = theta
        if _cholesky(problem.slack(x)) is not None:
            return x
    return None


class _Iterate(NamedTuple):
    """x, its multipliers (X of the matrix inequality, z of x_signed >= 0), and D = L L'."""

    x: Matrix
    matrix: Matrix
    vector: Matrix
    factor: Matrix


def _maximize(
    problem: _Inequality, x: Matrix, accuracy: float, max_steps: int, job: Job
) -> tuple[Matrix, int]:
    """Primal-dual path following (Helmberg et al., 1996, eq. 2.6; Mehrotra's predictor-corrector).

    D is linear in x and x starts inside, so every x on the way is feasible.
    """
    count = problem.base.shape[0] + problem.signed
    scale = max(float(problem.linear @ problem.linear) / 2, 1e-300)
    factor = _cholesky(problem.slack(x))
    assert factor is not None
    mu = 1e-3 * scale / count  # a lower start saves steps; X and z are free to be infeasible
    point = _Iterate(x, mu * _inverse(factor), mu / x[: problem.signed], factor)

    def advance(now: tuple[_Iterate, float]) -> tuple[_Iterate, float] | None:
        following = _step(problem, *now)
        if following is None:
            return None
        return following, _complementarity(problem, following) / count

    def enough(now: tuple[_Iterate, float]) -> bool:
        point, mu = now
        return job.over() or count * mu <= accuracy * max(abs(problem.objective(point.x)), 1e-300)

    (point, _), steps = iterate(
        (point, mu),
        (point, mu),
        advance=advance,
        learn=lambda _, now: (now, True),  # every point is feasible, and the last one the best
        enough=enough,
        max_steps=max_steps,
    )
    return point.x, steps


def _step(problem: _Inequality, point: _Iterate, mu: float) -> _Iterate | None:
    """One predictor-corrector step, or None where the arithmetic gives out."""
    left, right, signed = problem.left, problem.right, problem.signed
    inverse = _inverse(point.factor)
    left_x, right_x = left @ point.matrix, right @ point.matrix
    left_d, right_d = left @ inverse, right @ inverse
    crossed_x, crossed_d = left_x @ right.T, left_d @ right.T
    system = (left_x @ left.T) * (right_d @ right.T) + (right_x @ right.T) * (left_d @ left.T)
    system += crossed_x * crossed_d.T + crossed_x.T * crossed_d
    system /= 4
    diagonal = np.einsum("ii->i", system)
    on_sign = point.x[:signed]
    diagonal[:signed] += point.vector / on_sign
    diagonal[-problem.linear.size :] += 1
    jacobi = 1 / np.sqrt(np.maximum(diagonal, 1e-300))
    system *= jacobi[:, None] * jacobi
    diagonal += 1e-13
    try:
        solver = scipy.linalg.cho_factor(system, lower=True, overwrite_a=True, check_finite=False)
    except (np.linalg.LinAlgError, ValueError):
        return None

    objective_gradient = np.zeros_like(point.x)
    objective_gradient[-problem.linear.size :] = -problem.linear - point.x[-problem.linear.size :]
    barrier_gradient = -np.einsum("ij,ij->i", left_d, right)
    barrier_gradient[:signed] += 1 / on_sign

    def direction(target, matrix_term, vector_term):
        gradient = objective_gradient + target * barrier_gradient
        if matrix_term is not None:
            gradient += np.einsum("ij,ij->i", left @ matrix_term, right)
            gradient[:signed] -= vector_term / on_sign
        dx = jacobi * scipy.linalg.cho_solve(solver, jacobi * gradient, check_finite=False)
        bend = problem.slack(point.x + dx) - problem.slack(point.x)
        product = point.matrix @ bend @ inverse
        dmatrix = target * inverse - point.matrix - (product + product.T) / 2
        dvector = target / on_sign - point.vector - point.vector * dx[:signed] / on_sign
        if matrix_term is not None:
            dmatrix -= matrix_term
            dvector -= vector_term / on_sign
        return dx, bend, dmatrix, dvector

    dx, bend, dmatrix, dvector = direction(0.0, None, None)
    primal, dual = _lengths(problem, point, dx, bend, dmatrix, dvector, 1.0)
    count = problem.base.shape[0] + signed
    slack = point.factor @ point.factor.T
    ahead = np.sum((point.matrix + primal * dmatrix) * (slack + dual * bend))
    ahead += (point.vector + primal * dvector) @ (on_sign + dual * dx[:signed])
    sigma = float(np.clip((max(ahead, 0.0) / count / mu) ** 2, 0.02, 0.9))
    second = dmatrix @ bend @ inverse
    matrix_term, vector_term = (second + second.T) / 2, dvector * dx[:signed]
    dx, bend, dmatrix, dvector = direction(sigma * mu, matrix_term, vector_term)
    primal, dual = _lengths(problem, point, dx, bend, dmatrix, dvector, 0.9)
    for _ in range(30):
        x = point.x + dual * dx
        factor = _cholesky(problem.slack(x))
        if factor is not None and np.all(x[:signed] > 0):
            matrix = point.matrix + primal * dmatrix
            return _Iterate(x, matrix, point.vector + primal * dvector, factor)
        dual *= 0.5
    return None


def _lengths(problem, point, dx, bend, dmatrix, dvector, fraction) -> tuple[float, float]:
    """Largest steps (of X and z, of D and x) up to 1 that keep a part 1 - `fraction` of the way."""
    on_sign, change = point.x[: problem.signed], dx[: problem.signed]
    half = scipy.linalg.solve_triangular(point.factor, bend, lower=True, check_finite=False)
    whole = scipy.linalg.solve_triangular(point.factor, half.T, lower=True, check_finite=False)
    dual = max(-_least(whole), float(np.max(-change / on_sign)))
    lower = _cholesky(point.matrix)
    if lower is None:
        return 0.0, min(1.0, fraction / max(dual, 1e-300))
    half = scipy.linalg.solve_triangular(lower, dmatrix, lower=True, check_finite=False)
    whole = scipy.linalg.solve_triangular(lower, half.T, lower=True, check_finite=False)
    primal = max(-_least(whole), float(np.max(-dvector / point.vector)))
    return min(1.0, fraction / max(primal, 1e-300)), min(1.0, fraction / max(dual, 1e-300))


def _complementarity(problem: _Inequality, point: _Iterate) -> float:
    slack = point.factor @ point.factor.T
    return float(np.sum(point.matrix * slack) + point.vector @ point.x[: problem.signed])


def _least(matrix: Matrix) -> float:
    return float(np.linalg.eigvalsh((matrix + matrix.T) / 2)[0])


def _inverse(factor: Matrix) -> Matrix:
    half = scipy.linalg.solve_triangular(factor, np.eye(factor.shape[0]), lower=True)
    return half.T @ half


def _cholesky(matrix: Matrix) -> Matrix | None:
    try:
        return np.linalg.cholesky(matrix).astype(np.float64, copy=False)
    except np.linalg.LinAlgError:
        return None
