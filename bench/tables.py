"""Tables 4 and 5 of Prakhya et al. (2025): every convex route to one network, on the same data.

    python -m bench.tables [--folder FOLDER] [--data random spiral] [--weight-decay 0.1 0.01]
                           [--trials 10] [--methods NAME ...] [--peer-trials 2] [--peer-limit 600]
                           [--steps 30000]

Run it from the project's root. FOLDER holds the papers' data (by default the environment variable
JAXCVXNN_DATA). One row per method:

- `value` is computed here from what the method returns, in NumPy: the objective of its network, or of
  its point where it is a relaxation, whose value is below every network's (and below its own optimum
  by as much as the point violates its constraints); `+-` is the standard deviation over the trials.
- `bound` is proven: no network of any width has an objective below it. It comes from the method's own
  dual point or residual. `gap` is (value - bound) / value, the largest of the trials.
- `seconds` per trial, the bound's included for ours, after one run on other data of the same shape that
  pays for compilation. The peers' are those of CVXPY's `problem.solve()`, where SCS ends after
  `--peer-limit` seconds with what it has; their bound is free.
- `Algorithm 1` searches for its radius; `Algorithm 1, given` has the penalty of the best network of
  Adam, which is how the published runs found theirs. Adam's time is not counted.
- `published` and its seconds are citations of the table, from another machine; `ratio` is those seconds
  over ours.

A method is a function from a `Task` to a `Found`, and a line in `METHODS`.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import jaxcvxnn
from bench.optima import problems
from bench.random_trials import SCS, run_peer
from jaxcvxnn.studies import frank_wolfe
from tests import oracles


class Task(NamedTuple):
    """One training problem, and what the methods that iterate may spend on it."""

    X: np.ndarray
    Y: np.ndarray
    weight_decay: float
    steps: int  # of Algorithm 1
    descent_steps: int  # of Adam
    starts: int  # of Adam
    width: int  # of Adam's networks
    peer_limit: float  # seconds of SCS

    @property
    def problem(self) -> jaxcvxnn.TrainingProblem:
        return jaxcvxnn.TrainingProblem(self.X, self.Y, self.weight_decay)


class Found(NamedTuple):
    """A value, recomputed, and a proven lower bound; `seconds` where the method is timed inside."""

    value: float
    bound: float
    note: str
    seconds: float | None = None


class Published(NamedTuple):
    """A cell of the tables: objective, its standard deviation over 100 trials, seconds."""

    value: float
    deviation: float | None
    seconds: float | None


# Prakhya et al. (2025), tables 4 (Random) and 5 (Spiral).
PUBLISHED = {
    ("random", 0.1): {
        "sdp": Published(7.275, 0.976, 11.35),
        "algorithm 1": Published(8.213, 1.083, 1341.8),
        "adam": Published(8.090, 1.041, None),
    },
    ("random", 0.01): {
        "sdp": Published(0.755, 0.099, 12.47),
        "algorithm 1": Published(1.099, 0.159, 1024.8),
        "adam": Published(0.936, 0.116, None),
    },
    ("spiral", 0.1): {
        "sdp": Published(16.235, None, 1724.05),
        "algorithm 1": Published(16.593, None, 1885.60),
        "copositive": Published(16.660, None, 4.75),
        "adam": Published(16.593, None, None),
    },
    ("spiral", 0.01): {
        "sdp": Published(11.658, None, 1062.81),
        "algorithm 1": Published(15.184, None, 1911.77),
        "copositive": Published(15.853, None, 5.07),
        "adam": Published(15.159, None, None),
    },
}


# ----------------------------------------------------------------------
# The methods


def sdp(task: Task) -> Found:
    """SDP-NN, reduced and with its dual repaired: `solve_batch` of one problem."""
    (found,) = jaxcvxnn.solve_batch([task.problem], workers=1)
    Lambda = np.asarray(found.reduction.expand_moments(found.solution.moments))
    value = oracles.paper_objective(task.X, task.Y, task.weight_decay, Lambda)
    return Found(value, found.certificate.lower_bound, "a relaxation: below every network")


@eqx.filter_jit
def _planar(problem: jaxcvxnn.TrainingProblem):
    found = jaxcvxnn.solve(problem, jaxcvxnn.programs.ExactPlanar())
    return jaxcvxnn.improve.balance(jaxcvxnn.programs.planar_network(found)), found.residual


def exact(task: Task) -> Found:
    """The exact program of rank-2 data, one 2 x 2 matrix per cell of the circle."""
    with jax.enable_x64(True):
        network, residual = _planar(jax.tree.map(jnp.asarray, task.problem))
    bound = jaxcvxnn.certify_residual(task.problem, residual).lower_bound
    network = jaxcvxnn.improve.prune(network, threshold=1e-12)
    return Found(_objective(task, network), bound, f"{network.width} neurons")


@eqx.filter_jit
def _copositive(data: jaxcvxnn.conic.CopositiveData):
    return jaxcvxnn.solve(data, jaxcvxnn.programs.CopositiveRelaxation())


def copositive(task: Task) -> Found:
    """The copositive relaxation over all patterns, which is exact for data of a plane."""
    problem, begun = task.problem, time.perf_counter()
    with jax.enable_x64(True):
        data = jax.tree.map(jnp.asarray, jaxcvxnn.programs.CopositiveRelaxation().data(problem))
        found = jax.block_until_ready(_copositive(data))
    alone = time.perf_counter() - begun
    bound = jaxcvxnn.certify_residual(problem, found.residual).lower_bound
    network = jaxcvxnn.programs.copositive_network(problem, found)
    note = f"{len(data.patterns)} patterns, {network.width} neurons, {alone:.2f} s without these"
    return Found(_objective(task, network), bound, note)


def columns(task: Task) -> Found:
    """Column generation."""
    found = jaxcvxnn.training.generate_columns(task.problem)
    return Found(_objective(task, found.network), found.lower_bound, f"{found.rounds} rounds")


def algorithm_1(task: Task) -> Found:
    """Frank-Wolfe over all patterns, its radius searched for."""
    return _by_frank_wolfe(task, None)


def algorithm_1_given(task: Task) -> Found:
    """The same, at the penalty of the best network of gradient descent."""
    best = _descended(task)
    lengths = np.linalg.norm(best.U, axis=0), np.linalg.norm(best.V, axis=1)
    return _by_frank_wolfe(task, float(lengths[0] @ lengths[1]))


def _by_frank_wolfe(task: Task, radius: float | None) -> Found:
    begun = time.perf_counter()
    found = frank_wolfe(task.problem, radius=radius, max_steps=task.steps, tolerance=1e-6)
    seconds = time.perf_counter() - begun
    radii = len(np.unique(found.history[:, 0]))
    note = f"{len(found.history)} steps, {radii} radii, {found.network.width} neurons"
    return Found(_objective(task, found.network), found.lower_bound, note, seconds)


def adam(task: Task) -> Found:
    """Gradient descent from several starts: Adam, which comes as close as plain SGD in fewer steps."""
    best = _descended(task)
    U, V = np.asarray(best.U), np.asarray(best.V)
    residual = np.maximum(task.X @ U, 0) @ V - task.Y
    bound = jaxcvxnn.certify_residual(task.problem, residual).lower_bound
    note = f"best of {task.starts}, {task.width} neurons, {task.descent_steps} steps"
    return Found(_objective(task, best), bound, note)


def _descended(task: Task) -> jaxcvxnn.AbstractTwoLayer:
    with jax.enable_x64(True):
        networks = [
            jaxcvxnn.improve.train_sgd(
                task.problem, width=task.width, steps=task.descent_steps, seed=seed
            )[0]
            for seed in range(task.starts)
        ]
    return min(networks, key=lambda network: _objective(task, network))


def scs_sdp(task: Task) -> Found:
    """The peer: SDP-NN as printed, by CVXPY and SCS."""
    limited = SCS._replace(options={**SCS.options, "time_limit_secs": task.peer_limit})
    row = run_peer(limited, 0, task.X, task.Y, task.weight_decay, certify=True)
    note = f"{row.status}, violates its constraints by {row.violation:.0e}"
    return Found(row.recomputed, row.bound, note, row.seconds)


def scs_copositive(task: Task) -> Found:
    """The peer: the copositive relaxation as printed, over all patterns, by CVXPY and SCS."""
    patterns = jaxcvxnn.geometry.sign_patterns(task.X)
    program = oracles.copositive_relaxation(task.X, task.Y, task.weight_decay, patterns)
    begun = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CVXPY's, of an inaccurate solution: the note says it
        value = float(program.solve("SCS", eps=1e-4, time_limit_secs=task.peer_limit))  # pyright: ignore
    seconds = time.perf_counter() - begun
    return Found(value, float("nan"), f"{program.status}; its own value, no bound", seconds)


class Method(NamedTuple):
    label: str
    run: Callable[[Task], Found]
    published: str  # its key in PUBLISHED
    peer: bool = False  # on the first trials only, without a warm-up
    reshapes: bool = (
        False  # shapes depend on the data, so that every trial has a warm-up of its own
    )


METHODS = {
    "sdp": Method("SDP-NN", sdp, "sdp"),
    "scs sdp": Method("SDP-NN, CVXPY + SCS", scs_sdp, "sdp", peer=True),
    "exact": Method("exact (planar)", exact, ""),
    "copositive": Method("copositive (19)", copositive, "copositive", reshapes=True),
    "scs copositive": Method("(19), CVXPY + SCS", scs_copositive, "copositive", peer=True),
    "columns": Method("column generation", columns, ""),
    "algorithm 1": Method("Algorithm 1", algorithm_1, "algorithm 1"),
    "algorithm 1 given": Method("Algorithm 1, given", algorithm_1_given, "algorithm 1"),
    "adam": Method("Adam, best start", adam, "adam"),
}


def _objective(task: Task, network: jaxcvxnn.AbstractTwoLayer) -> float:
    U, V = np.asarray(network.U), np.asarray(network.V)
    return oracles.network_objective(task.X, task.Y, U, V, task.weight_decay)


# ----------------------------------------------------------------------
# Rows


class Row(NamedTuple):
    """One method over the trials."""

    method: Method
    trials: int
    value: float
    deviation: float  # nan for one trial
    bound: float
    gap: float
    seconds: float
    note: str


def measured(method: Method, tasks: list[Task]) -> Row:
    found, seconds = [], []
    for index, task in enumerate(tasks):
        if method.reshapes or (index == 0 and not method.peer):
            method.run(task._replace(Y=task.Y[::-1], steps=10))
        begun = time.perf_counter()
        result = method.run(task)
        spent = time.perf_counter() - begun
        found.append(result)
        seconds.append(spent if result.seconds is None else result.seconds)
    values = np.array([f.value for f in found])
    bounds = np.array([f.bound for f in found])
    return Row(
        method=method,
        trials=len(tasks),
        value=float(np.mean(values)),
        deviation=float(np.std(values, ddof=1)) if len(tasks) > 1 else float("nan"),
        bound=float(np.mean(bounds)),
        gap=float(np.max((values - bounds) / values)),
        seconds=float(np.mean(seconds)),
        note=found[-1].note,
    )


def tasks_of(family: str, options: argparse.Namespace, weight_decay: float) -> Iterator[Task]:
    for _, X, Y in problems(options.folder, family, options.trials):
        yield Task(
            np.asarray(X, np.float64),
            np.asarray(Y, np.float64),
            weight_decay,
            options.steps,
            options.descent_steps,
            options.starts,
            options.width,
            options.peer_limit,
        )


HEADER = (
    f"{'method':<20} {'trials':>6} {'value':>11} {'+-':>8} {'bound':>11} {'gap':>8} {'seconds':>9}   "
    f"{'published':>9} {'+-':>6} {'seconds':>8} {'ratio':>8}   note"
)


def line(row: Row, published: Published | None) -> str:
    cited = f"{'-':>9} {'-':>6} {'-':>8} {'-':>8}"
    if published is not None:
        deviation = "-" if published.deviation is None else f"{published.deviation:.3f}"
        seconds, ratio = "-", "-"
        if published.seconds is not None:
            seconds = f"{published.seconds:.2f}"
            ratio = "-" if row.method.peer else f"{published.seconds / row.seconds:.1f}"
        cited = f"{published.value:>9.3f} {deviation:>6} {seconds:>8} {ratio:>8}"
    deviation = "-" if np.isnan(row.deviation) else f"{row.deviation:.4f}"
    return (
        f"{row.method.label:<20} {row.trials:>6} {row.value:>11.6f} {deviation:>8} "
        f"{row.bound:>11.6f} {row.gap:>8.1e} {row.seconds:>9.3f}   {cited}   {row.note}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    default = os.environ.get("JAXCVXNN_DATA")
    parser.add_argument("--folder", type=Path, default=default, required=default is None)
    parser.add_argument(
        "--data", nargs="+", choices=("random", "spiral"), default=("random", "spiral")
    )
    parser.add_argument("--weight-decay", nargs="+", type=float, default=(0.1, 0.01))
    parser.add_argument("--trials", type=int, default=10, help="of Random; 50 are in its file")
    parser.add_argument("--peer-trials", type=int, default=2)
    parser.add_argument("--peer-limit", type=float, default=600.0, help="seconds of SCS")
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=tuple(METHODS))
    parser.add_argument("--steps", type=int, default=30_000, help="of Algorithm 1")
    parser.add_argument("--descent-steps", type=int, default=20_000, help="of Adam")
    parser.add_argument("--starts", type=int, default=5, help="of Adam")
    parser.add_argument("--width", type=int, default=300, help="of Adam's networks")
    options = parser.parse_args()
    print(f"jax {jax.__version__} on {jax.devices()[0]}, {os.cpu_count()} CPU cores")
    for family in options.data:
        for weight_decay in options.weight_decay:
            tasks = list(tasks_of(family, options, weight_decay))
            print(f"\n{family}, weight decay {weight_decay:g}\n{HEADER}")
            rows = {}
            for name in options.methods:
                method = METHODS[name]
                own = tasks[: options.peer_trials] if method.peer else tasks
                rows[name] = measured(method, own)
                cell = PUBLISHED.get((family, weight_decay), {}).get(method.published)
                print(line(rows[name], cell), flush=True)
            for ours in ("sdp", "copositive"):
                if ours in rows and f"scs {ours}" in rows:
                    ratio = rows[f"scs {ours}"].seconds / rows[ours].seconds
                    print(f"{METHODS[ours].label}: CVXPY + SCS takes {ratio:.1f} times as long")


if __name__ == "__main__":
    main()
