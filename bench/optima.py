"""Training to the global optimum: certified pairs of bounds, their times, and CVXPY beside them.

    python -m bench.optima --data FOLDER
                           [--problems random spiral iris gaussian banknotes ionosphere pima]
                           [--trials 50] [--peer-trials 3] [--weight-decays 0.1 0.01] [--tolerance 1e-2]

Run it from the project's root. FOLDER holds the papers' data. Ours is `jaxcvxnn.train`, one problem
after another in one process, after a first one that warms up, Python's garbage collected between the
problems and not within (a pause of 0.1 s that falls to one of a hundred). Every other figure is made
from what it returns, in NumPy: `upper` is the objective of the network, `lower` the dual value of the
scaled residual, and `sampled` the largest price of 100,000 random neurons for it in units of the weight
decay, which must not exceed 1. The peer solves the exact program of rank-2 data (one 2 x 2 matrix per
cell of the circle) by Clarabel; it has no network, and its bracket is that of `tests/oracles.py`.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

import jaxcvxnn
from tests import oracles

# Seconds that each problem may take, by family.
LIMITS = {
    "iris": 300.0,
    "gaussian": 120.0,
    "banknotes": 600.0,
    "ionosphere": 330.0,
    "pima": 330.0,
}


class Row(NamedTuple):
    """One method on one problem."""

    method: str
    seconds: float
    upper: float
    lower: float
    sampled: float
    note: str

    @property
    def gap(self) -> float:
        return (self.upper - self.lower) / self.upper


def problems(
    folder: Path, family: str, trials: int
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(name, X, Y) of the data sets of a family."""
    if family == "random":
        data = np.load(folder / "random_trials_00_49.npz")
        for k in range(trials):
            yield f"random {k}", data["X"][k], data["Y"][k]
    elif family == "spiral":
        data = np.load(folder / "spiral.npz")
        yield "spiral", data["X"], data["Y"]
    elif family == "gaussian":
        rng = np.random.default_rng(0)
        yield "gaussian 60 x 5", rng.standard_normal((60, 5)), rng.standard_normal((60, 2))
    else:
        name = {"banknotes": "bank_notes", "pima": "pima_indians"}.get(family, family)
        data = np.load(folder / f"{name}.npz")
        yield name, data["X_train"], data["Y_train"]


@contextlib.contextmanager
def collected() -> Iterator[None]:
    """No garbage collection inside, as in `timeit`."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def ours(
    X: np.ndarray, Y: np.ndarray, weight_decay: float, limit: float | None, tolerance: float | None
) -> Row:
    with collected():
        begun = time.perf_counter()
        result = jaxcvxnn.train(X, Y, weight_decay, time_limit=limit, tolerance=tolerance)
        seconds = time.perf_counter() - begun
    U, V = np.asarray(result.network.U), np.asarray(result.network.V)
    upper = oracles.network_objective(X, Y, U, V, weight_decay)
    R = result.certificate.scale * np.asarray(result.certificate.residual)
    lower = float(-np.sum(R * Y) - np.sum(R**2) / 2)
    u = np.random.default_rng(1).standard_normal((X.shape[1], 100_000))
    u /= np.linalg.norm(u, axis=0)
    sampled = max(
        float(np.linalg.norm(R.T @ np.maximum(X @ part, 0), axis=0).max())
        for part in np.array_split(u, 20, axis=1)
    )
    note = f"{result.status}, {result.network.width} neurons; {result.message}"
    return Row("jaxcvxnn", seconds, upper, lower, sampled / weight_decay, note)


def peer(X: np.ndarray, Y: np.ndarray, weight_decay: float) -> Row:
    with collected():
        begun = time.perf_counter()
        found = oracles.rank2_bracket(X, Y, weight_decay)
        seconds = time.perf_counter() - begun
    return Row("CVXPY + Clarabel", seconds, found.upper, found.lower, float("nan"), "exact program")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    every = ("random", "spiral", "iris", "gaussian", "banknotes", "ionosphere", "pima")
    parser.add_argument("--problems", nargs="+", choices=every, default=every[:4])
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--peer-trials", type=int, default=3)
    parser.add_argument("--weight-decays", nargs="+", type=float, default=(0.1, 0.01))
    parser.add_argument("--tolerance", type=float, help="default: that of train")
    options = parser.parse_args()
    rng = np.random.default_rng(2)
    jaxcvxnn.train(rng.standard_normal((25, 2)), rng.standard_normal((25, 5)), 0.1)
    for family in options.problems:
        for weight_decay in options.weight_decays:
            rows = []
            for index, (name, X, Y) in enumerate(problems(options.data, family, options.trials)):
                found = [ours(X, Y, weight_decay, LIMITS.get(family), options.tolerance)]
                rows.append(found[0])
                if X.shape[1] <= 2 and index < options.peer_trials:
                    found.append(peer(X, Y, weight_decay))
                for row in found:
                    print(
                        f"{name:16s} {weight_decay:<5g} {row.method:17s} {row.seconds:8.3f} s  "
                        f"upper {row.upper:.9f}  lower {row.lower:.9f}  gap {row.gap:.1e}  "
                        f"sampled {row.sampled:.6f}  {row.note}",
                        flush=True,
                    )
            if len(rows) > 1:
                print(
                    f"{family} {weight_decay:g}: mean upper {np.mean([r.upper for r in rows]):.6f}, "
                    f"largest gap {max(r.gap for r in rows):.1e}, seconds: median "
                    f"{statistics.median(r.seconds for r in rows):.3f}, "
                    f"largest {max(r.seconds for r in rows):.3f}"
                )


if __name__ == "__main__":
    main()
