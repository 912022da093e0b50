"""Reference values from independent code: CVXPY and NumPy only, nothing of this project.

Notation: X (n, d), Y (n, c); a neuron (u, v) has alpha = relu(X u) and omega = relu(-X u), and
f(X) = sum_j alpha_j v_j'. The value in question, over networks of every width, is

    p* = min  1/2 ||f(X) - Y||_F^2 + weight_decay/2 sum_j (||u_j||^2 + ||v_j||^2)        (train)

How a dual pair (R, N) is read off a conic solver. Put z = (alpha, u), V = [[I, 0], [I, -X]], so
V z = (alpha, omega), S = E[(z, v)(z, v)'], Z = S_zz, F = S_av and W = V Z V'. For every R,
1/2 ||F - Y||^2 >= <R, F - Y> - ||R||^2/2, with equality at R = F - Y. Take a symmetric N (2n, 2n)
that is nonnegative except at (i, n+i) and (n+i, i). On the feasible set <N, W> >= 0, because W
vanishes at these exceptional entries. Hence

    objective >= -<R, Y> - ||R||^2/2 + <Q, S>,
    Q = [[blkdiag(0, wd/2 I) - V'NV, [R/2; 0]], [[R'/2, 0], wd/2 I]],

and Q is PSD exactly when its Schur complement M = [[-R R'/(2 wd), 0], [0, wd/2 I]] - V'NV is.
<., .> is the full inner product: an off-diagonal pair (i, j), (j, i) counts twice. CVXPY's
Lagrangian is objective - <D, W> + mu g for the constraints W >= 0 and g == 0, so
  * a dual D (2n, 2n) of the whole block W >= 0 gives N = (D + D')/2, without a further factor;
  * duals y_k of one triangle of W >= 0 give N_ij = N_ji = y_k/2 for i < j, and N_ii = y_k;
  * the paper's g = tr(W_{alpha omega}) + tr(M Lambda M') adds -mu/2 to N_{i,n+i} and N_{n+i,i},
    since tr(W_{alpha omega}) = <[[0, I], [I, 0]]/2, W>; its second part vanishes once
    omega = alpha - X u, so it adds nothing to V'NV;
  * equalities g_i = W_{i,n+i}, one by one, add -mu_i/2 there.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, NamedTuple

import cvxpy as cp
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

Array = NDArray[np.float64]


class DualPair(NamedTuple):
    """A candidate for the certificate: R (n, c) and N (2n, 2n), for the caller's X and Y."""

    R: Array
    N: Array


class Violations(NamedTuple):
    """Absolute violations of the printed constraints, recomputed from a returned matrix."""

    semidefinite: float
    nonnegative: float
    equality: float

    @property
    def largest(self) -> float:
        return max(self)


def as_data(X: Any, Y: Any) -> tuple[Array, Array]:
    """X (n, d) and Y (n, c) as float64 arrays; a vector Y becomes one column."""
    X, Y = np.asarray(X, dtype=np.float64), np.asarray(Y, dtype=np.float64)
    return X, Y.reshape(len(Y), -1)


def network_objective(X: Array, Y: Array, U: Array, V: Array, weight_decay: float) -> float:
    """The objective (train) of the network with weights U (d, m) and V (m, c)."""
    X, Y = as_data(X, Y)
    residual = np.maximum(X @ U, 0.0) @ V - Y
    penalty = float(np.sum(U**2) + np.sum(V**2))
    return 0.5 * float(np.sum(residual**2)) + 0.5 * weight_decay * penalty


# ----------------------------------------------------------------------
# The semidefinite relaxation, as printed and reduced


@dataclass(frozen=True)
class PaperForm:
    """(SDP-NN) of Prakhya et al., Proposition 1, with the factor 1/2 in the loss.

    Lambda (p, p), p = 2n + d + c, is ordered (alpha, omega, u, v). The program has no strictly
    feasible point.
    """

    X: Array
    Y: Array
    weight_decay: float
    problem: cp.Problem
    Lambda: cp.Variable
    equality: cp.Constraint
    nonnegative: cp.Constraint
    semidefinite: cp.Constraint

    def solve(self, solver: str, **options: Any) -> float:
        """Solve; returns the objective that the solver reports."""
        _solve(self.problem, solver, **options)
        return self.value

    @property
    def value(self) -> float:
        """The objective that the solver reports, NaN before a solve or without a solution."""
        return _value(self.problem)

    @property
    def point(self) -> Array:
        """The returned Lambda, symmetrised."""
        return _symmetric(np.asarray(self.Lambda.value, dtype=np.float64))

    def objective(self) -> float:
        """The objective recomputed at the returned Lambda."""
        return paper_objective(self.X, self.Y, self.weight_decay, self.point)

    def violations(self) -> Violations:
        """How far the returned Lambda is from satisfying each printed constraint."""
        return paper_violations(self.X, self.point)

    def dual_pair(self) -> DualPair:
        """R from the returned point, N from the returned multipliers (see the top of this file)."""
        n, d = self.X.shape
        L = self.point
        N = _symmetric(np.asarray(self.nonnegative.dual_value, dtype=np.float64))
        mu = float(np.squeeze(self.equality.dual_value))
        i = np.arange(n)
        N[i, n + i] -= mu / 2
        N[n + i, i] -= mu / 2
        return DualPair(L[:n, 2 * n + d :] - self.Y, N)


def paper_form(X: Any, Y: Any, weight_decay: float) -> PaperForm:
    """(SDP-NN) as printed, except for the 1/2 in the loss."""
    X, Y = as_data(X, Y)
    n, c = Y.shape
    P_alpha, P_omega, P_u, P_v, M = _printed_maps(X, c)
    P = sp.vstack([P_alpha, P_omega]).tocsr()
    p = P.shape[1]
    L = cp.Variable((p, p), symmetric=True, name="Lambda")
    equality = cp.trace(P_alpha @ L @ P_omega.T) + cp.trace(M @ L @ M.T) == 0
    nonnegative = P @ L @ P.T >= 0
    semidefinite = L >> 0
    penalty = cp.trace(P_u @ L @ P_u.T) + cp.trace(P_v @ L @ P_v.T)
    objective = 0.5 * cp.sum_squares(P_alpha @ L @ P_v.T - Y) + 0.5 * weight_decay * penalty
    problem = cp.Problem(cp.Minimize(objective), [equality, nonnegative, semidefinite])
    return PaperForm(X, Y, weight_decay, problem, L, equality, nonnegative, semidefinite)


def paper_objective(X: Any, Y: Any, weight_decay: float, Lambda: Array) -> float:
    """The printed objective, with the 1/2, at Lambda (p, p)."""
    X, Y = as_data(X, Y)
    n, d = X.shape
    residual = Lambda[:n, 2 * n + d :] - Y
    penalty = float(np.trace(Lambda[2 * n :, 2 * n :]))
    return 0.5 * float(np.sum(residual**2)) + 0.5 * weight_decay * penalty


def paper_violations(X: Any, Lambda: Array) -> Violations:
    """How far Lambda (p, p) is from satisfying each printed constraint."""
    X = np.asarray(X, dtype=np.float64)
    n, d = X.shape
    M = _printed_maps(X, len(Lambda) - 2 * n - d)[-1].toarray()
    return Violations(
        semidefinite=max(0.0, -float(np.linalg.eigvalsh(_symmetric(Lambda))[0])),
        nonnegative=max(0.0, -float(Lambda[: 2 * n, : 2 * n].min())),
        equality=abs(float(np.trace(Lambda[:n, n : 2 * n]) + np.trace(M @ Lambda @ M.T))),
    )


def paper_point(X: Any, S: Array) -> Array:
    """Lambda = T S T' (p, p) from the moments S (n + d + c, n + d + c) of (alpha, u, v)."""
    X = np.asarray(X, dtype=np.float64)
    n, d = X.shape
    T = np.insert(np.eye(len(S)), [n], np.eye(n, len(S)), axis=0)
    T[n : 2 * n, n : n + d] = -X
    return T @ S @ T.T


def _printed_maps(X: Array, c: int) -> tuple[sp.csr_matrix, ...]:
    """P_alpha, P_omega, P_u, P_v and M = -P_alpha + P_omega + X P_u."""
    n, d = X.shape
    rows = sp.identity(2 * n + d + c, format="csr")
    P_alpha, P_omega = rows[:n], rows[n : 2 * n]
    P_u, P_v = rows[2 * n : 2 * n + d], rows[2 * n + d :]
    return P_alpha, P_omega, P_u, P_v, (-P_alpha + P_omega + sp.csr_matrix(X) @ P_u).tocsr()


@dataclass(frozen=True)
class LiftedForm:
    """The same relaxation on its face: S (k + d + c, k + d + c), ordered (alpha, u, v).

    The rows of X have unit length here; zero rows are left out, k counts the others. `value`
    includes the constant of the rows left out.
    """

    X: Array
    Y: Array
    weight_decay: float
    keep: NDArray[np.intp]
    lengths: Array
    problem: cp.Problem
    S: cp.Variable
    diagonal: cp.Constraint
    nonnegative: cp.Constraint
    pairs: tuple[NDArray[np.intp], NDArray[np.intp]]

    def solve(self, solver: str, **options: Any) -> float:
        """Solve; returns the objective that the solver reports."""
        _solve(self.problem, solver, **options)
        return self.value

    @property
    def value(self) -> float:
        """The objective that the solver reports, NaN before a solve or without a solution."""
        return _value(self.problem)

    @property
    def point(self) -> Array:
        """The returned S (k + d + c, k + d + c), symmetrised, in the coordinates of unit rows."""
        return _symmetric(np.asarray(self.S.value, dtype=np.float64))

    def paper_point(self) -> Array:
        """The returned point as Lambda (p, p) of the printed program, for the caller's X."""
        n = len(self.X)
        k = len(self.keep)
        S = self.point
        place = np.concatenate([self.keep, np.arange(n, n + len(S) - k)])
        scale = np.concatenate([self.lengths, np.ones(len(S) - k)])
        full = np.zeros((n + len(S) - k, n + len(S) - k))
        full[np.ix_(place, place)] = S * np.outer(scale, scale)
        return paper_point(self.X, full)

    def dual_pair(self) -> DualPair:
        """(R, N) for the caller's X: alpha and omega scale with the row lengths, N inversely."""
        n, d = self.X.shape
        k = len(self.keep)
        rows, cols = self.pairs
        N_unit = np.zeros((2 * k, 2 * k))
        N_unit[rows, cols] = np.asarray(self.nonnegative.dual_value, dtype=np.float64)
        N_unit = _symmetric(N_unit)
        i = np.arange(k)
        half = np.asarray(self.diagonal.dual_value, dtype=np.float64) / 2
        N_unit[i, k + i] -= half
        N_unit[k + i, i] -= half
        scale = np.concatenate([self.lengths, self.lengths])
        place = np.concatenate([self.keep, n + self.keep])
        N = np.zeros((2 * n, 2 * n))
        N[np.ix_(place, place)] = N_unit / np.outer(scale, scale)
        R = -self.Y.copy()
        R[self.keep] += self.lengths[:, None] * self.point[:k, k + d :]
        # A zero row forces alpha_i = 0; in the limit N_{i,n+i} -> -infinity it costs nothing in M.
        dropped = np.setdiff1d(np.arange(n), self.keep)
        N[dropped, n + dropped] = N[n + dropped, dropped] = (
            -1e7 * max(1.0, float(np.sum(R**2))) / self.weight_decay
        )
        return DualPair(R, N)


def lifted_form(X: Any, Y: Any, weight_decay: float) -> LiftedForm:
    """The relaxation after the exact facial reduction omega = alpha - X u."""
    X, Y = as_data(X, Y)
    d, c = X.shape[1], Y.shape[1]
    norms = np.linalg.norm(X, axis=1)
    keep = np.flatnonzero(norms > 0)
    lengths = norms[keep]
    k = len(keep)
    unit, target = X[keep] / lengths[:, None], Y[keep]
    S = cp.Variable((k + d + c, k + d + c), symmetric=True, name="S")
    V = sp.bmat([[sp.identity(k), None], [sp.identity(k), -sp.csr_matrix(unit)]], format="csr")
    W = V @ S[: k + d, : k + d] @ V.T
    rows, cols = np.triu_indices(2 * k)
    signed = cols != rows + k  # the (alpha_i, omega_i) entries are zero instead
    rows, cols = rows[signed], cols[signed]
    diagonal = W[np.arange(k), k + np.arange(k)] == 0
    nonnegative = W[rows, cols] >= 0
    residual = sp.diags(lengths) @ S[:k, k + d :] - target
    objective = 0.5 * cp.sum_squares(residual) + 0.5 * weight_decay * cp.trace(S[k:, k:])
    constant = 0.5 * float(np.sum(np.delete(Y, keep, axis=0) ** 2))
    problem = cp.Problem(cp.Minimize(objective + constant), [diagonal, nonnegative, S >> 0])
    return LiftedForm(
        X, Y, weight_decay, keep, lengths, problem, S, diagonal, nonnegative, (rows, cols)
    )


def dual_matrix(X: Any, R: Array, N: Array, weight_decay: float) -> Array:
    """M (n+d, n+d): the bound -<R, Y> - ||R||^2/2 holds if M is PSD and N has its signs."""
    X = np.asarray(X, dtype=np.float64)
    n, d = X.shape
    V = np.block([[np.eye(n), np.zeros((n, d))], [np.eye(n), -X]])
    M = -V.T @ N @ V
    M[:n, :n] -= R @ R.T / (2 * weight_decay)
    M[n:, n:] += 0.5 * weight_decay * np.eye(d)
    return _symmetric(M)


def signed(N: Array) -> Array:
    """N made admissible: symmetric, and nonnegative except at the pairs (alpha_i, omega_i)."""
    n = len(N) // 2
    N = _symmetric(N)
    admissible = np.maximum(N, 0.0)
    i = np.arange(n)
    admissible[i, n + i] = N[i, n + i]
    admissible[n + i, i] = N[n + i, i]
    return admissible


def repaired_bound(X: Any, Y: Any, R: Array, N: Array, weight_decay: float) -> float:
    """A lower bound on p* from any (R, N), in plain float64 (roundings are not accounted for).

    With lambda_min(M) = -eps < 0 the pair (t R, t^2 N) is feasible for every t with
    t^2 <= 1/(1 + 2 eps (||X||_2^2 + 1)/weight_decay), because tr K <= <X'X, U> on the feasible set.
    """
    X, Y = as_data(X, Y)
    shortfall = max(0.0, -float(np.linalg.eigvalsh(dual_matrix(X, R, signed(N), weight_decay))[0]))
    spread = float(np.linalg.norm(X, 2)) ** 2 + 1.0
    return _best_scaling(R, Y, 1.0 / np.sqrt(1.0 + 2.0 * shortfall * spread / weight_decay))


# ----------------------------------------------------------------------
# The exact optimum for data of rank two


class Bracket(NamedTuple):
    """lower <= p* <= upper, up to roundings: a network attains `upper`, the dual proves `lower`."""

    lower: float
    upper: float


def exact_rank2(X: Any, Y: Any, weight_decay: float) -> float:
    """The optimum p* for data of rank two, from above: `rank2_bracket(...).upper`."""
    return rank2_bracket(X, Y, weight_decay).upper


def rank2_bracket(X: Any, Y: Any, weight_decay: float) -> Bracket:
    """p* for data of rank two, by one small convex program, to 1e-8 or so.

    The bracket is as wide as 3e-6 (relative) where two rows of X are parallel up to 1e-4.

    The lines x_i.u = 0 cut the plane into at most 2n cells, each the cone of two rays
    G_k = [g_k, g_{k+1}]. There relu(X u) is linear in u = G_k l, l >= 0, and completely positive is
    doubly nonnegative for 2 x 2 matrices. So, over M_k PSD and nonnegative and A_k = relu(X G_k),

        p* = min  wd/2 [tr(Y'(K + wd I)^-1 Y) + sum_k <G_k'G_k, M_k>],   K = sum_k A_k M_k A_k'.

    Solved here is the dual, whose blocks have size 2 + c only: with J = [[0, 1], [1, 0]],

        p* = max  -<R, Y> - ||R||^2/2
             s.t. [[wd G_k'G_k - mu_k J, H_k'], [H_k, wd I]] PSD, mu_k >= 0, H_k = R'A_k.

    Nearly parallel lines make thin cells, so a cell is described by g_k and a multiple of the chord
    to g_{k+1}. Y is scaled to unit norm, which scales p* by the square.
    """
    X, Y = as_data(X, Y)
    nonzero = np.linalg.norm(X, axis=1) > 0
    constant = 0.5 * float(np.sum(Y[~nonzero] ** 2))
    X, Y = X[nonzero], Y[nonzero]
    if not np.any(Y):
        return Bracket(constant, constant)
    X = _two_coordinates(X)
    size = float(np.linalg.norm(Y, 2))
    target, wd = Y / size, weight_decay / size
    n, c = target.shape
    angles = _breakpoints(X)
    rays = np.stack([np.cos(angles), np.sin(angles)])
    steps = np.roll(rays, -1, axis=1) - rays
    widths = np.linalg.norm(steps, axis=0)
    A = np.maximum(X @ rays, 0.0)
    A_step = np.roll(A, -1, axis=1) - A

    lower, upper = -np.inf, np.inf
    # The accuracy depends on the units of the chord and of mu_k: try others where a gap is left.
    for basis_power, unit_power in ((0.0, 0.0), (0.5, 1.0), (0.0, 1.0)):
        ratio = widths ** (1.0 - basis_power)
        chords = steps / ratio
        tilt, square = np.sum(rays * chords, axis=0), np.sum(chords**2, axis=0)
        A_chord = A_step / ratio
        R = cp.Variable((n, c))
        mu = cp.Variable(len(angles), nonneg=True)
        blocks = []
        for k in range(len(angles)):
            # u = l_1 g_k + l_2 g_{k+1} = q_1 g_k + q_2 chord with q_1 = l_1 + l_2 and
            # q_2 = ratio l_2, so ratio l_1 l_2 = q_1 q_2 - q_2^2/ratio.
            product = np.array([[0.0, 0.5], [0.5, -1.0 / ratio[k]]]) * widths[k] ** unit_power
            gram = np.array([[1.0, tilt[k]], [tilt[k], square[k]]])
            H = R.T @ np.stack([A[:, k], A_chord[:, k]], axis=1)
            blocks.append(cp.bmat([[wd * gram - mu[k] * product, H.T], [H, wd * np.eye(c)]]) >> 0)
        loss = cp.sum(cp.multiply(R, target)) + cp.sum_squares(R) / 2
        program = cp.Problem(cp.Minimize(loss), blocks)
        try:
            _solve(program, cp.CLARABEL, tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
        except cp.SolverError:
            continue
        if R.value is None:
            continue

        # Lower: R scaled to exact feasibility. Upper: twice the multipliers are the M_k, here
        # made feasible one by one.
        price = max(_circle_price(R.value, X, angles), np.finfo(float).tiny)
        lower = max(lower, _best_scaling(R.value, target, wd / price))
        M = 2 * np.stack([block.dual_value[:2, :2] for block in blocks])
        m22 = np.maximum(M[:, 1, 1], 1e-300)
        m12 = np.maximum((M[:, 0, 1] + M[:, 1, 0]) / 2, m22 / ratio)
        m11 = np.maximum(M[:, 0, 0], m12**2 / m22)
        mixed = (A * m12) @ A_chord.T
        kernel = (A * m11) @ A.T + mixed + mixed.T + (A_chord * m22) @ A_chord.T
        ridge = float(np.sum(target * np.linalg.solve(kernel + wd * np.eye(n), target)))
        weights = float(np.sum(m11 + square * m22 + 2 * tilt * m12))
        upper = min(upper, wd / 2 * (ridge + weights))
        if upper - lower <= 1e-7 * upper:
            break
    return Bracket(constant + size**2 * lower, constant + size**2 * upper)


def sigma_rank2(R: Any, X: Any) -> float:
    """max over ||u|| <= 1 of ||R' relu(X u)||_2 for X of rank two, in closed form cell by cell."""
    R, X = np.asarray(R, dtype=np.float64), np.asarray(X, dtype=np.float64)
    nonzero = np.linalg.norm(X, axis=1) > 0
    X = _two_coordinates(X[nonzero])
    return _circle_price(R[nonzero], X, _breakpoints(X))


def brute_force_sigma(
    R: Any, X: Any, samples: int = 100_000, rng: np.random.Generator | int | None = 0
) -> float:
    """A lower estimate of max over ||u|| <= 1 of ||R' relu(X u)||_2, by sampling.

    Directions are random in the row space of X; for rank two, a uniform grid of the circle.
    """
    R, X = np.asarray(R, dtype=np.float64), np.asarray(X, dtype=np.float64)
    R = R.reshape(len(R), -1)
    rng = np.random.default_rng(rng)
    _, s, Vt = np.linalg.svd(X, full_matrices=False)
    coordinates = X @ Vt[s > s[0] * 1e-12].T
    rank = coordinates.shape[1]
    best, chunk = 0.0, 20_000
    for start in range(0, samples, chunk):
        count = min(chunk, samples - start)
        if rank == 2:
            angle = 2 * np.pi * np.arange(start, start + count) / samples
            u = np.stack([np.cos(angle), np.sin(angle)])
        else:
            u = rng.standard_normal((rank, count))
            u /= np.linalg.norm(u, axis=0)
        activations = np.maximum(coordinates @ u, 0.0)
        best = max(best, float(np.linalg.norm(R.T @ activations, axis=0).max()))
    return best


# ----------------------------------------------------------------------


def _symmetric(A: Array) -> Array:
    return (A + A.T) / 2


def _solve(problem: cp.Problem, solver: str, **options: Any) -> None:
    """Solve without CVXPY's warning about accuracy: callers judge the returned point themselves."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Solution may be inaccurate")
        problem.solve(solver=solver, **options)


def _value(problem: cp.Problem) -> float:
    value = problem.value
    return float("nan") if value is None else float(np.real(value))


def _best_scaling(R: Array, Y: Array, largest: float) -> float:
    """max over 0 <= t <= largest of -t <R, Y> - t^2 ||R||^2/2."""
    gain, cost = -float(np.sum(R * Y)), float(np.sum(R**2))
    t = min(largest, max(gain, 0.0) / cost) if cost > 0 else 0.0
    return t * gain - 0.5 * t**2 * cost


def _two_coordinates(X: Array) -> Array:
    """X in orthonormal coordinates of its row space, which must be a plane."""
    _, s, Vt = np.linalg.svd(X, full_matrices=False)
    if np.sum(s > s[0] * 1e-12) != 2:
        raise ValueError(f"the exact program needs data of rank 2; the singular values are {s}")
    return X @ Vt[:2].T


def _breakpoints(X: Array) -> Array:
    """The angles of u, ascending in [0, 2 pi), at which some x_i.u = 0, each once."""
    half = np.sort(np.mod(np.arctan2(X[:, 1], X[:, 0]) + np.pi / 2, np.pi))
    half = half[np.concatenate([[True], np.diff(half) > 1e-13])]
    if half[-1] > half[0] + np.pi - 1e-13:
        half = half[:-1]
    return np.concatenate([half, half + np.pi])


def _circle_price(R: Array, X: Array, angles: Array) -> float:
    """max over unit u of ||R' relu(X u)||: in a cell, its square is mean + radius cos 2(t - t0)."""
    width = np.mod(np.roll(angles, -1) - angles, 2 * np.pi)
    middle = angles + width / 2
    active = X @ np.stack([np.cos(middle), np.sin(middle)]) > 0
    L = np.einsum("ik,id,ic->kdc", active, X, R)
    G = L @ L.transpose(0, 2, 1)
    mean, difference = (G[:, 0, 0] + G[:, 1, 1]) / 2, (G[:, 0, 0] - G[:, 1, 1]) / 2
    radius, phase = np.hypot(difference, G[:, 0, 1]), np.arctan2(G[:, 0, 1], difference) / 2
    offset = np.mod(phase - angles, np.pi)
    nearest = np.where(offset <= width, 1.0, np.cos(2 * offset))
    nearest = np.maximum(nearest, np.cos(2 * (offset - width)))
    return float(np.sqrt(np.max(mean + radius * nearest)))


def copositive_relaxation(X, Y, weight_decay, patterns) -> cp.Problem:
    """Sahiner et al. (2021), eq. (19), as printed, over these activation patterns (p, n)."""
    n, d = X.shape
    kernel, total, constraints = np.eye(n), 0.0, []
    for pattern in patterns:
        U = cp.Variable((d, d), PSD=True)
        seen, sides = pattern[:, None] * X, np.where(pattern, 1, -1)[:, None] * X
        kernel = kernel + 2 * seen @ U @ seen.T
        total = total + cp.trace(U)
        constraints.append(sides @ U @ sides.T >= 0)
    fits = sum(cp.matrix_frac(y, kernel) for y in Y.T)  # pyright: ignore
    return cp.Problem(cp.Minimize(fits / 2 + weight_decay**2 * total), constraints)
