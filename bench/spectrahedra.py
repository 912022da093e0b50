"""Neural spectrahedra: the program of Bartan and Pilanci, ours against CVXPY, at recomputed accuracy.

    python -m bench.spectrahedra [--sizes 100x10 800x41 12000x20] [--weight-decay 1.0] [--cap 300]
                                 [--repeats 5] [--peers scs clarabel] [--scaling]

Run it from the project's root. Data are planted: ten neurons of unit length, Gaussian samples, noise
0.5. All methods solve (21) with the squared loss, in one run; every other figure is made in NumPy
float64 from the matrices that a method returns. `objective` is that of the matrices moved into the
feasible set (eigenvalues clipped, then a congruence that balances the trace), `violation` how far they
were off (the most negative eigenvalue and the trace equality, relative to tr Z), `gap` the relative
distance of the objective from the best lower bound that any method's residual proves. The peers get
the lifted features as one matrix times the entries of Z - Z'. Ours are timed after a first solve,
lifting and factorisations included; the peers by CVXPY's whole `solve`, building and compiling
included, and by the solver's own clock (`solver`), which `--cap` limits.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import cvxpy as cp
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import jaxcone
from jaxcvxnn import Polynomial, TrainingProblem, solve
from jaxcvxnn.programs import NeuralSpectrahedron, SpectrahedronSplitting

PHI = Polynomial.relu()
SCALING = [(200, 10), (2000, 10), (20000, 10), (2000, 20), (2000, 40), (500, 40)]


class Found(NamedTuple):
    """Matrices that a method returned, and the seconds it took."""

    method: str
    seconds: float
    own: float
    positive: np.ndarray
    negative: np.ndarray
    note: str


def planted(n: int, d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian samples and the noisy outputs of ten neurons."""
    rng = np.random.default_rng(seed)
    X, U = rng.standard_normal((n, d)), rng.standard_normal((d, 10))
    hidden = np.asarray(PHI(X @ (U / np.linalg.norm(U, axis=0))))
    return X, hidden @ rng.standard_normal(10) + 0.5 * rng.standard_normal(n)


def outputs(X: np.ndarray, M: np.ndarray) -> np.ndarray:
    """The network's outputs for Z - Z' = M."""
    d = X.shape[1]
    quadratic = np.sum((X @ M[:d, :d]) * X, axis=1)
    return PHI.a * quadratic + PHI.b * X @ M[:d, d] + PHI.c * M[d, d]


def feasible(Z: np.ndarray) -> tuple[np.ndarray, float]:
    """The balanced PSD matrix next to Z, and how far Z was from one."""
    values, vectors = np.linalg.eigh((Z + Z.T) / 2)
    trace = max(float(np.sum(np.abs(values))), 1e-300)
    off = max(-values[0], abs(np.trace(Z[:-1, :-1]) - Z[-1, -1])) / trace
    clipped = (vectors * np.maximum(values, 0)) @ vectors.T
    block, corner = np.trace(clipped[:-1, :-1]), clipped[-1, -1]
    if min(block, corner) <= 0:
        return np.zeros_like(Z), off
    ratio = (corner / block) ** 0.25
    scale = np.append(np.full(len(Z) - 1, ratio), 1 / ratio)
    return scale[:, None] * clipped * scale, off


def price(X: np.ndarray, R: np.ndarray) -> float:
    """max over unit u of |sum_i R_i phi(x_i'u)|: the least eigenvalue bound over the multiplier."""
    values, vectors = np.linalg.eigh(PHI.a * X.T @ (R[:, None] * X))
    edge, corner = vectors.T @ (PHI.b / 2 * X.T @ R), PHI.c * np.sum(R)
    found = []
    for sign in (1, -1):
        spread = sign * values
        low, high = 0.0, float(np.linalg.norm(edge))
        for _ in range(200):
            middle = (low + high) / 2
            slope = np.sum((edge / (np.max(spread) + middle - spread + 1e-300)) ** 2)
            low, high = (middle, high) if slope > 1 else (low, middle)
        top = np.max(spread) + high
        found.append(top + np.sum(edge**2 / (top - spread + 1e-300)) + sign * corner)
    return max(found)


def judge(
    X: np.ndarray, y: np.ndarray, weight_decay: float, found: Found
) -> tuple[float, float, float]:
    """(objective, lower bound, violation) of the returned matrices."""
    (Z, off), (W, other) = feasible(found.positive), feasible(found.negative)
    R = outputs(X, Z - W) - y
    objective = R @ R / 2 + weight_decay * (Z[-1, -1] + W[-1, -1])
    scale = min(weight_decay / price(X, R), -(R @ y) / (R @ R))
    lower = -scale * (R @ y) - scale**2 * (R @ R) / 2
    return float(objective), float(lower), max(off, other)


def timed(run: Callable[[], Any], repeats: int) -> tuple[Any, float]:
    """The last result and the median time, after one run that warms up."""
    result = jax.block_until_ready(run())
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = jax.block_until_ready(run())
        seconds.append(time.perf_counter() - start)
    return result, statistics.median(seconds)


@eqx.filter_jit
def _generic(problem: TrainingProblem, solver: jaxcone.AbstractSolver):
    found = solve(problem, NeuralSpectrahedron(), solver)
    return found.positive, found.negative, found.steps


@eqx.filter_jit
def _dedicated(problem: TrainingProblem, settings: SpectrahedronSplitting):
    found = solve(problem, NeuralSpectrahedron(), settings)
    return found.positive, found.negative, found.steps


def ours(X: np.ndarray, y: np.ndarray, weight_decay: float, repeats: int) -> list[Found]:
    """The splitting method of its own at 1e-6 and 1e-9, and the interior-point method."""
    problem = TrainingProblem(X, y, weight_decay, activation=PHI)
    problem = jax.tree.map(jnp.asarray, problem)
    runs: list[tuple[str, Callable[[], Any]]] = []
    for tolerance in (1e-6, 1e-9):
        settings = SpectrahedronSplitting(tolerance=jnp.asarray(tolerance))
        runs.append((f"splitting {tolerance:g}", lambda s=settings: _dedicated(problem, s)))
    if min(len(X), (X.shape[1] + 1) * (X.shape[1] + 2) // 2) <= 1000:
        interior = jaxcone.InteriorPoint(tolerance=jnp.asarray(1e-8), max_steps=60)
        runs.append(("interior point", lambda: _generic(problem, interior)))
    found = []
    for name, run in runs:
        (positive, negative, steps), seconds = timed(run, repeats)
        Z, W = np.asarray(positive)[0], np.asarray(negative)[0]
        found.append(Found(name, seconds, seconds, Z, W, f"{int(steps)} steps"))
    return found


def lifted(X: np.ndarray) -> np.ndarray:
    """The rows with <F_i, M> = row_i'vec(M), vec by columns."""
    n, d = X.shape
    forms = np.zeros((n, d + 1, d + 1))
    forms[:, :d, :d] = PHI.a * X[:, :, None] * X[:, None, :]
    forms[:, :d, d] = forms[:, d, :d] = PHI.b / 2 * X
    forms[:, d, d] = PHI.c
    return forms.reshape(n, -1)


def peer(X: np.ndarray, y: np.ndarray, weight_decay: float, solver: str, cap: float) -> Found:
    """CVXPY with one of its solvers."""
    start = time.perf_counter()
    size = X.shape[1] + 1
    Z, W = cp.Variable((size, size), PSD=True), cp.Variable((size, size), PSD=True)
    fitted = lifted(X) @ cp.vec(Z - W, order="F")
    objective = cp.sum_squares(fitted - y) / 2 + weight_decay * (Z[-1, -1] + W[-1, -1])
    balance = [cp.trace(M[:-1, :-1]) - M[-1, -1] for M in (Z, W)]
    problem = cp.Problem(cp.Minimize(objective), [cp.Zero(part) for part in balance])
    limits = {
        "scs": {"time_limit_secs": cap, "eps": 1e-6, "max_iters": 100000},
        "clarabel": {"time_limit": cap},
    }
    try:
        problem.solve(solver=solver.upper(), **limits[solver])
        note = problem.status
    except cp.SolverError as error:
        note = f"failed: {error}"[:40]
    seconds = time.perf_counter() - start
    stats = problem.solver_stats
    own = float(stats.solve_time) if stats is not None and stats.solve_time else float("nan")
    blank = np.full((size, size), np.nan)
    Zs, Ws = (blank if M.value is None else np.asarray(M.value) for M in (Z, W))
    return Found(f"CVXPY {solver}", seconds, own, Zs, Ws, note)


def report(n: int, d: int, weight_decay: float, found: list[Found]) -> None:
    """One block of the table."""
    X, y = planted(n, d)
    judged = [
        judge(X, y, weight_decay, one)
        if np.all(np.isfinite(one.positive))
        else (np.nan, np.nan, np.nan)
        for one in found
    ]
    best = np.nanmax([lower for _, lower, _ in judged])
    print(f"\nn = {n}, d = {d}, weight decay {weight_decay:g}: p* >= {best:.10g}")
    head = ("method", "seconds", "solver", "objective", "gap", "violation")
    print("{:<18}{:>10}{:>10}{:>18}{:>10}{:>11}  ".format(*head) + "note")
    for one, (objective, _, off) in zip(found, judged, strict=True):
        gap = (objective - best) / abs(best)
        print(
            f"{one.method:<18}{one.seconds:>10.4f}{one.own:>10.4f}{objective:>18.10g}"
            f"{gap:>10.1e}{off:>11.1e}  {one.note}",
            flush=True,
        )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", nargs="*", default=["100x10", "800x41", "12000x20"])
    parser.add_argument("--weight-decay", type=float, default=1.0)
    parser.add_argument("--cap", type=float, default=300.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peers", nargs="*", default=["scs", "clarabel"])
    parser.add_argument("--scaling", action="store_true")
    chosen = parser.parse_args()
    with jax.enable_x64(True):
        for size in chosen.sizes:
            n, d = map(int, size.split("x"))
            X, y = planted(n, d)
            found = ours(X, y, chosen.weight_decay, chosen.repeats)
            for name in chosen.peers:
                found.append(peer(X, y, chosen.weight_decay, name, chosen.cap))
            report(n, d, chosen.weight_decay, found)
        if chosen.scaling:
            for n, d in SCALING:
                X, y = planted(n, d)
                report(n, d, chosen.weight_decay, ours(X, y, chosen.weight_decay, chosen.repeats))


if __name__ == "__main__":
    main()
