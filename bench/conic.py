"""jaxcone against SCS, Clarabel and Moreau on batches of SDPs, SOCPs and QPs.

    python -m bench.conic [--batches 1 16 64] [--families maxcut-20 maxcut-40 ...] [--tolerance 1e-6]
                          [--skip-moreau]

Run it from the project's root. All solvers get the same arrays P, c, A, b of
min 1/2 x'Px + c'x, Ax + s = b, s in K, and each may use its own form of them (sparse, other triangle).
jaxcone (its splitting method; `jaxcone IP` is its interior-point method) solves one program by a jitted
`solve` and a batch by `solve_batch`, on a thread per core; Moreau by `vmap` of its solver, on all cores
too; SCS and Clarabel in a loop. Compilation is outside our
time, equilibration and factorisation are inside; SCS's set-up is outside its time, Clarabel's inside.
Every timed run starts cold: a second `solve` of one SCS object profits from the first even with
`warm_start=False` (seen: 100 steps instead of 1500).

`error` is the largest DIMACS error over the batch, recomputed in NumPy from the data and the returned
(x, s, y). A solver whose error misses the tolerance is run again with its own tolerance ten times
smaller (down to 1e-11), and the first run that reaches it counts; `eps` is that tolerance, and `missed`
says that none did. `seconds` is the median of three runs for the whole batch.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

REPEATS = 3


class Batch(NamedTuple):
    """`zero`, `nonnegative` rows first, then second-order blocks, then PSD blocks."""

    P: np.ndarray | None  # (batch, n, n)
    c: np.ndarray
    A: np.ndarray
    b: np.ndarray
    zero: int
    nonnegative: int
    second_order: tuple[int, ...]
    sides: tuple[int, ...]

    def head(self, size: int) -> Batch:
        P = None if self.P is None else self.P[:size]
        return self._replace(P=P, c=self.c[:size], A=self.A[:size], b=self.b[:size])


Points = tuple[np.ndarray, np.ndarray, np.ndarray]
Run = Callable[[], Points]
# From a batch and a tolerance to a function that makes fresh runs; making one is not timed.
Solver = Callable[[Batch, float], Callable[[], Run]]


# ----------------------------------------------------------------------
# Problems


def maxcut(nodes: int, batch: int) -> Batch:
    """min sum(x) s.t. diag(x) - L/4 PSD: the dual of the Max-Cut relaxation, L a graph's Laplacian."""
    rng = np.random.default_rng(nodes)
    rows, columns = np.tril_indices(nodes)
    order = np.lexsort((rows, columns))
    rows, columns = rows[order], columns[order]
    weight = np.where(rows == columns, 1.0, np.sqrt(2))
    A = np.zeros((len(rows), nodes))
    A[np.flatnonzero(rows == columns), np.arange(nodes)] = -1
    b = np.zeros((batch, len(rows)))
    for k in range(batch):
        edges = np.triu(rng.random((nodes, nodes)) < 0.5, 1).astype(float)
        edges += edges.T
        laplacian = np.diag(edges.sum(axis=0)) - edges
        b[k] = -weight * laplacian[rows, columns] / 4
    c = np.ones((batch, nodes))
    return Batch(None, c, np.broadcast_to(A, (batch, *A.shape)), b, 0, 0, (), (nodes,))


def planted(
    batch: int, size: int, zero: int, nonnegative: int, blocks: tuple[int, ...], curved: bool
) -> Batch:
    """Random data with a planted optimal pair: y = proj_K*(z), s = y - z."""
    rng = np.random.default_rng([batch > 0, size, zero, nonnegative, *blocks])
    rows = zero + nonnegative + sum(blocks)
    none = np.zeros(0)
    shape = Batch(None, none, none, none, zero, nonnegative, blocks, ())
    parts: list[list[np.ndarray]] = [[], [], [], []]
    for _ in range(batch):
        z = rng.standard_normal(rows)
        y = -outside(shape, z, dual=True) + z
        s = y - z
        A = rng.standard_normal((rows, size)) / np.sqrt(size)
        root = rng.standard_normal((size, size)) / np.sqrt(size)
        P = root @ root.T if curved else np.zeros((size, size))
        x = rng.standard_normal(size)
        for part, value in zip(parts, (P, -P @ x - A.T @ y, A, A @ x + s), strict=True):
            part.append(value)
    P, c, A, b = (np.stack(part) for part in parts)
    return Batch(P if curved else None, c, A, b, zero, nonnegative, blocks, ())


FAMILIES: dict[str, Callable[[int], Batch]] = {
    "maxcut-20": lambda batch: maxcut(20, batch),
    "maxcut-40": lambda batch: maxcut(40, batch),
    "maxcut-60": lambda batch: maxcut(60, batch),
    "socp-50": lambda batch: planted(batch, 50, 10, 20, (5,) * 16, False),
    "qp-50": lambda batch: planted(batch, 50, 10, 100, (), True),
    "lp-50": lambda batch: planted(batch, 50, 10, 100, (), False),
}


# ----------------------------------------------------------------------
# The judge


def outside(problem: Batch, point: np.ndarray, *, dual: bool) -> np.ndarray:
    """point - proj(point), onto K or K*."""
    off = np.zeros_like(point)
    start = problem.zero
    off[:start] = 0 if dual else point[:start]
    end = start + problem.nonnegative
    off[start:end] = np.minimum(point[start:end], 0)
    start = end
    for size in problem.second_order:
        block = point[start : start + size]
        length = np.linalg.norm(block[1:])
        if length > block[0]:
            half = max((block[0] + length) / 2, 0)
            inside = half * np.concatenate([[1], block[1:] / length])
            off[start : start + size] = block - inside
        start += size
    for side in problem.sides:
        size = side * (side + 1) // 2
        values, vectors = np.linalg.eigh(matrix_of(point[start : start + size], side))
        lowest = (vectors * np.minimum(values, 0)) @ vectors.T
        off[start : start + size] = vector_of(lowest)
        start += size
    return off


def matrix_of(vector: np.ndarray, side: int) -> np.ndarray:
    """The symmetric matrix of a lower triangle, column by column, with sqrt(2) off the diagonal."""
    columns, rows = np.triu_indices(side)
    matrix = np.zeros((side, side))
    matrix[rows, columns] = matrix[columns, rows] = np.where(
        rows == columns, vector, vector / np.sqrt(2)
    )
    return matrix


def vector_of(matrix: np.ndarray) -> np.ndarray:
    columns, rows = np.triu_indices(len(matrix))
    return np.where(rows == columns, 1, np.sqrt(2)) * matrix[rows, columns]


def error(problem: Batch, points: Points) -> float:
    """The largest DIMACS error in a batch; infinite if a number is missing."""
    worst = 0.0
    for k in range(len(problem.c)):
        c, A, b = problem.c[k], problem.A[k], problem.b[k]
        x, s, y = (part[k] for part in points)
        if not np.all(np.isfinite(np.concatenate([x, s, y]))):
            return np.inf
        curved = np.zeros_like(c) if problem.P is None else problem.P[k] @ x
        unit_b, unit_c = 1 + np.max(np.abs(b)), 1 + np.max(np.abs(c))
        primal, dual = x @ curved / 2 + c @ x, -(x @ curved) / 2 - b @ y
        size = 1 + abs(primal) + abs(dual)
        found = [
            np.linalg.norm(A @ x + s - b) / unit_b,
            np.linalg.norm(outside(problem, s, dual=False)) / unit_b,
            np.linalg.norm(curved + c + A.T @ y) / unit_c,
            np.linalg.norm(outside(problem, y, dual=True)) / unit_c,
            abs(primal - dual) / size,
            abs(s @ y) / size,
        ]
        worst = max(worst, *found)
    return float(worst)


# ----------------------------------------------------------------------
# The solvers: set up for a batch and a tolerance, then a function to time


def with_jaxcone(problem: Batch, tolerance: float) -> Callable[[], Run]:
    import jaxcone

    return _batched(problem, jaxcone.Splitting(tolerance=tolerance, max_steps=20000))


def with_interior_point(problem: Batch, tolerance: float) -> Callable[[], Run]:
    import jaxcone

    return _batched(problem, jaxcone.InteriorPoint(tolerance=tolerance))


def _batched(problem: Batch, solver: Any) -> Callable[[], Run]:
    import jax
    import jax.numpy as jnp

    import jaxcone

    cones = [
        jaxcone.Zero(problem.zero),
        jaxcone.Nonnegative(problem.nonnegative),
        *(jaxcone.SecondOrder(size) for size in problem.second_order),
        *(jaxcone.PSD(side) for side in problem.sides),
    ]
    arrays = [problem.P, problem.c, problem.A, problem.b]
    arrays = [None if part is None else jnp.asarray(part) for part in arrays]
    lanes = jax.vmap(lambda P, c, A, b: jaxcone.ConeProgram(P, c, A, b, cones))(*arrays)
    first = jax.tree.map(lambda leaf: leaf[0], lanes)

    def call() -> Points:
        if len(problem.c) == 1:
            found = jax.tree.map(lambda leaf: leaf[None], jaxcone.solve(first, solver))
        else:
            found = jaxcone.solve_batch(lanes, solver)
        return np.asarray(found.x), np.asarray(found.s), np.asarray(found.y)

    return lambda: call


def with_scs(problem: Batch, tolerance: float) -> Callable[[], Run]:
    import scs

    cone = {
        "z": problem.zero,
        "l": problem.nonnegative,
        "q": list(problem.second_order),
        "s": list(problem.sides),
    }
    limits = {"eps_abs": tolerance, "eps_rel": tolerance, "max_iters": 100_000}
    given = []
    for k in range(len(problem.c)):
        data = {"A": sp.csc_matrix(problem.A[k]), "b": problem.b[k], "c": problem.c[k]}
        if problem.P is not None:
            data["P"] = sp.csc_matrix(np.triu(problem.P[k]))
        given.append(data)

    def make() -> Run:
        solvers = [scs.SCS(data, cone, verbose=False, **limits) for data in given]

        def call() -> Points:
            found = [solver.solve() for solver in solvers]
            return tuple(np.stack([one[name] for one in found]) for name in "xsy")  # pyright: ignore

        return call

    return make


def with_clarabel(problem: Batch, tolerance: float) -> Callable[[], Run]:
    # Its stubs lack the names of its compiled module.
    clarabel: Any = importlib.import_module("clarabel")
    order = _upper_order(problem)
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    for name in ("tol_gap_abs", "tol_gap_rel", "tol_feas"):
        setattr(settings, name, tolerance)
    cones = [
        clarabel.ZeroConeT(problem.zero),
        clarabel.NonnegativeConeT(problem.nonnegative),
        *(clarabel.SecondOrderConeT(size) for size in problem.second_order),
        *(clarabel.PSDTriangleConeT(side) for side in problem.sides),
    ]
    solvers = []
    for k in range(len(problem.c)):
        n = problem.c.shape[1]
        P = np.zeros((n, n)) if problem.P is None else problem.P[k]
        A = sp.csc_matrix(problem.A[k][order])
        parts = sp.csc_matrix(np.triu(P)), problem.c[k], A, problem.b[k][order]
        solvers.append((parts, cones, settings))

    def call() -> Points:
        found = [clarabel.DefaultSolver(*parts, c, s).solve() for parts, c, s in solvers]
        back = np.argsort(order)
        x = np.stack([np.array(one.x) for one in found])
        s = np.stack([np.array(one.s)[back] for one in found])
        return x, s, np.stack([np.array(one.z)[back] for one in found])

    return lambda: call


def with_moreau(problem: Batch, tolerance: float) -> Callable[[], Run]:
    import jax
    import jax.numpy as jnp

    moreau: Any = importlib.import_module("moreau")  # not among our extras
    moreau_jax: Any = importlib.import_module("moreau.jax")

    batch, rows, n = problem.A.shape
    order = _upper_order(problem)
    cones = moreau.Cones(
        num_zero_cones=problem.zero,
        num_nonneg_cones=problem.nonnegative,
        so_cone_dims=list(problem.second_order),
        psd_dims=list(problem.sides),
    )
    accuracy = moreau.IPMSettings(tol_gap_abs=tolerance, tol_gap_rel=tolerance, tol_feas=tolerance)
    A = problem.A[:, order]
    keep_A, keep_P = np.any(A != 0, axis=0), np.zeros((n, n), bool)
    if problem.P is not None:
        keep_P = np.any(problem.P != 0, axis=0)
    pattern_A, pattern_P = sp.csr_matrix(keep_A), sp.csr_matrix(keep_P)
    solver = moreau_jax.Solver(
        n=n,
        m=rows,
        P_row_offsets=pattern_P.indptr,
        P_col_indices=pattern_P.indices,
        A_row_offsets=pattern_A.indptr,
        A_col_indices=pattern_A.indices,
        cones=cones,
        settings=moreau.Settings(device="cpu", ipm_settings=accuracy),
    )
    values_P = np.zeros((batch, 0)) if problem.P is None else problem.P[:, keep_P]
    arrays = [jnp.asarray(v) for v in (values_P, A[:, keep_A], problem.c, problem.b[:, order])]
    run = jax.jit(jax.vmap(solver.solve))
    back = np.argsort(order)

    def call() -> Points:
        found = jax.block_until_ready(run(*arrays))
        return np.asarray(found.x), np.asarray(found.s)[:, back], np.asarray(found.z)[:, back]

    return lambda: call


def _upper_order(problem: Batch) -> np.ndarray:
    """Which row stands where when PSD blocks are upper triangles, column by column."""
    start = problem.zero + problem.nonnegative + sum(problem.second_order)
    parts = [np.arange(start)]
    for side in problem.sides:
        columns, rows = np.triu_indices(side)  # our order: (rows, columns), column by column
        place = np.zeros((side, side), int)
        place[columns, rows] = np.arange(len(rows))
        lower, upper = np.tril_indices(side)  # (column, row) of the upper triangle by columns
        parts.append(start + place[upper, lower])
        start += len(rows)
    return np.concatenate(parts)


SOLVERS: dict[str, Solver] = {
    "jaxcone": with_jaxcone,
    "jaxcone IP": with_interior_point,
    "SCS": with_scs,
    "Clarabel": with_clarabel,
    "Moreau": with_moreau,
}


# ----------------------------------------------------------------------


def measure(solver: Solver, problem: Batch, tolerance: float) -> tuple[float, float, float]:
    """(seconds, error, the solver's own tolerance) of the first run that is accurate enough."""
    own = tolerance
    while True:
        make = solver(problem, own)
        found = error(problem, make()())
        if found <= tolerance or own < 1e-10:
            break
        own /= 10
    times = []
    for _ in range(REPEATS):
        call = make()
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times), found, own


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    parser.add_argument("--tolerance", type=float, default=1e-6)
    parser.add_argument("--skip-moreau", action="store_true")
    chosen = parser.parse_args(arguments)

    import jax

    solvers = dict(SOLVERS)
    if chosen.skip_moreau or importlib.util.find_spec("moreau") is None:
        del solvers["Moreau"]
        print("Moreau is left out (pip install moreau).")
    print(f"jax {jax.__version__}, {jax.devices()[0]}, {os.cpu_count()} cores")
    print(
        f"{'problem':10s} {'batch':>5s} {'solver':10s} {'seconds':>9s} {'ratio':>7s} {'error':>8s} eps"
    )
    with jax.enable_x64(True):
        for family in chosen.families:
            whole = FAMILIES[family](max(chosen.batches))
            for batch in chosen.batches:
                ours = None
                for name, solver in solvers.items():
                    try:
                        seconds, found, own = measure(solver, whole.head(batch), chosen.tolerance)
                    except Exception as failure:  # a peer's failure is a result, and printed as one
                        print(f"{family:10s} {batch:5d} {name:10s} failed: {failure}")
                        continue
                    ours = seconds if ours is None else ours
                    missed = "" if found <= chosen.tolerance else "  missed"
                    print(
                        f"{family:10s} {batch:5d} {name:10s} {seconds:9.4f} {seconds / ours:7.2f} "
                        f"{found:8.1e} {own:.0e}{missed}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
