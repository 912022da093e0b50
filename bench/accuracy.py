"""The relaxation to high accuracy: certified bounds and times against CVXPY + Clarabel and Moreau.

    python -m bench.accuracy --data FOLDER [--trials 10] [--peer-trials 3]
                             [--skip-large] [--skip-moreau]

Run it from the project's root. FOLDER holds the papers' data (`random_trials_00_49.npz`,
`spiral.npz`, `iris.npz`). Ours is `jaxcvxnn.solve_batch` with the interior-point method, timed after
compilation, certificates included, and divided by the number of problems. The peers solve the same
(lifted), reduced by hand as in `tests/oracles.py`, one CVXPY problem after another: `seconds` is
`problem.solve()`.

`value` is each solver's own primal value. `bound` is proven from the dual pair that each returned, by
the same repair and verification, whose time is contained in ours and not in the peers'. `distance` is
(value - bound) / value; below zero where the solver's value is too low, which a bound proves.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import NamedTuple

import cvxpy as cp
import numpy as np

import jaxcvxnn
from tests import oracles


class Row(NamedTuple):
    """One method on one problem."""

    method: str
    name: str
    status: str
    seconds: float
    value: float
    bound: float


def ours(named: list[tuple[str, jaxcvxnn.TrainingProblem]]) -> list[Row]:
    """All problems by one call, after a first one that compiles."""
    import jaxcone

    reductions = [jaxcvxnn.reduction.reduce(problem) for _, problem in named]
    shapes = {reduction.data.rows.shape: reduction for reduction in reductions}
    jaxcvxnn.solve_batch(list(shapes.values()), "interior_point")
    begun = time.perf_counter()
    found = jaxcvxnn.solve_batch(reductions, "interior_point")
    seconds = (time.perf_counter() - begun) / len(named)
    return [
        Row(
            "jaxcvxnn",
            name,
            f"{jaxcone.Status[one.solution.status].split()[0]} {int(one.solution.steps)}",
            seconds,
            float(one.solution.objective),
            one.certificate.lower_bound,
        )
        for (name, _), one in zip(named, found, strict=True)
    ]


def peer(solver: str, name: str, problem: jaxcvxnn.TrainingProblem) -> Row:
    """One problem by CVXPY, on the reduced data."""
    reduction = jaxcvxnn.reduction.reduce(problem)
    data = reduction.data
    scales = np.diagonal(data.readout)
    features = scales[:, None] * data.directions
    relaxed = oracles.lifted_form(features, data.targets, float(data.weight_decay))
    begun = time.perf_counter()
    try:
        value = relaxed.solve(solver)
    except cp.SolverError:
        seconds, none = time.perf_counter() - begun, float("nan")
        return Row(f"CVXPY + {solver}", name, "failed", seconds, none, none)
    seconds = time.perf_counter() - begun
    residual, multipliers = relaxed.dual_pair()
    stretch = np.concatenate([scales, scales])
    certificate = jaxcvxnn.proof.certify_reduced(
        reduction, residual, multipliers * stretch[:, None] * stretch
    )
    value += float(data.constant)
    return Row(f"CVXPY + {solver}", name, "", seconds, value, certificate.lower_bound)


def show(rows: list[Row]) -> None:
    for row in rows:
        distance = (row.value - row.bound) / row.value
        print(
            f"{row.method:18s} {row.name:18s} {row.status:14s} {row.seconds:8.3f} s  "
            f"value {row.value:.7f}  bound {row.bound:.7f}  distance {distance:.1e}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--peer-trials", type=int, default=3)
    parser.add_argument(
        "--problems",
        nargs="+",
        choices=("random", "spiral", "iris"),
        default=("random", "spiral", "iris"),
    )
    parser.add_argument("--skip-moreau", action="store_true")
    options = parser.parse_args()
    trials = np.load(options.data / "random_trials_00_49.npz")
    peers = [cp.CLARABEL] + ([] if options.skip_moreau else ["MOREAU"])
    for weight_decay in (0.1, 0.01) if "random" in options.problems else ():
        named = [
            (f"random {k} {weight_decay}", jaxcvxnn.TrainingProblem(X, Y, weight_decay))
            for k, (X, Y) in enumerate(zip(trials["X"], trials["Y"], strict=True))
        ][: options.trials]
        rows = ours(named)
        show(rows)
        distances = [(row.value - row.bound) / row.value for row in rows]
        print(
            f"largest distance {max(distances):.1e}, at most 1e-6 on "
            f"{statistics.mean(d <= 1e-6 for d in distances):.0%}, {rows[0].seconds:.3f} s each"
        )
        for solver in peers:
            show([peer(solver, *one) for one in named[: options.peer_trials]])
    spiral, iris = (np.load(options.data / f"{name}.npz") for name in ("spiral", "iris"))
    for name, X, Y in (
        ("spiral", spiral["X"], spiral["Y"]),
        ("iris", iris["X_train"], iris["Y_train"]),
    ):
        for weight_decay in (0.1, 0.01) if name in options.problems else ():
            one = f"{name} {weight_decay}", jaxcvxnn.TrainingProblem(X, Y, weight_decay)
            show(ours([one]))
            for solver in peers:
                show([peer(solver, *one)])


if __name__ == "__main__":
    main()
