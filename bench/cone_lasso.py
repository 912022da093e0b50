"""Training over sampled hyperplane patterns: our two methods, CVXPY + Clarabel, and pyscnn.

    python -m bench.cone_lasso [--problems small breast-cancer synthetic] [--patterns 100]
                               [--weight-decay 1.0] [--tolerances 1e-4 1e-6] [--repeats 3]
                               [--splitting] [--cvxpy] [--pyscnn PYTHON] [--limit 600]

Run it from the project's root. All methods minimise the same thing over the same patterns: the program
of Ergen and Pilanci (2023), eq. (7), with the squared loss 1/2 |.|^2 and ReLU. `small` is Gaussian
(60 x 4, 40 patterns), `breast-cancer` scikit-learn's (569 x 30, standardised, labels +-1), `synthetic`
Gaussian (2,000 x 20) with the labels of a network of ten neurons and noise.

Everything that is printed is computed here, in NumPy, from the weights that a method returns:

- `program`: its objective, and `violation`: |min(S_i X w_i, 0)| over |w|, both as Euclidean norms, with
  rows of X of length one: what it may have gained by leaving the cells;
- `network`: the training objective of the network that the blocks are (Proposition II.1), and `refit`
  the same after `jaxcvxnn.improve.refit`: both are upper bounds on the optimum of training;
- `lower`: a lower bound on the program by duality, from our methods' residuals and multipliers, and
  `gap` = (program - lower) / lower with the best of them. Up to rounding, and of this program only: at
  these ranks nothing useful can be proven about networks with other patterns.

`interior` is `ConeLassoInterior`; `splitting` is `ConeLassoSplitting`, on `small`, and on others with
`--splitting`. Our times are medians of `--repeats` runs after a first, factorisations inside,
compilation outside. CVXPY's is that of one `solve`, with its own compilation, on `small`, and on others
with `--cvxpy`. pyscnn needs torch, so it runs in the interpreter PYTHON, where both are installed, in
float32 with its tolerances set to ours; its time is that of its solver. A rival that has not ended
after `--limit` seconds is stopped, and its row says so.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxcvxnn import TrainingProblem, TwoLayerReLU, solve
from jaxcvxnn.improve import refit
from jaxcvxnn.programs import ConeGroupLasso, ConeLassoInterior, ConeLassoSplitting

MAX_STEPS = 20_000
PYSCNN = """
import sys, time
import numpy as np
from scnn.metrics import Metrics
from scnn.models import ConvexReLU
from scnn.optimize import optimize_model
from scnn.regularizers import NeuronGL1
from scnn.solvers import AL
data = np.load(sys.argv[1])
X, y, tolerance = data["X"], data["y"], float(data["tolerance"])
model = ConvexReLU(data["gates"].T)
# Its loss is 1/(2n) |.|^2, hence the objective divided by n.
regularizer = NeuronGL1(float(data["weight_decay"]) / len(y))
solver = AL(model, tol=tolerance, constraint_tol=tolerance)
begun = time.perf_counter()
found, _ = optimize_model(
    model, solver, Metrics(), X, y[:, None], regularizer=regularizer,
    return_convex=True, unitize_data=False,
)
seconds = time.perf_counter() - begun
weights = np.stack([np.asarray(p, np.float64)[0] for p in found.parameters[:2]])
np.savez(sys.argv[2], weights=weights, seconds=seconds)
"""


class Instance(NamedTuple):
    """Data, and the patterns X u > 0 of the rows u of `gates`, which all methods are given."""

    X: np.ndarray
    y: np.ndarray
    gates: np.ndarray
    patterns: np.ndarray
    weight_decay: float


class Result(NamedTuple):
    """What a method returns: weights (2, P, d), or none in time, and a lower bound where it has one."""

    method: str
    seconds: float
    weights: np.ndarray | None
    lower: float
    note: str


# ----------------------------------------------------------------------
# Problems


def small() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    X = rng.standard_normal((60, 4))
    return X, np.sign(X[:, 0] * X[:, 1]) + 0.1 * rng.standard_normal(60)


def breast_cancer() -> tuple[np.ndarray, np.ndarray]:
    data: Any = importlib.import_module("sklearn.datasets").load_breast_cancer()
    X = np.asarray(data.data)
    return (X - X.mean(axis=0)) / X.std(axis=0), 2.0 * data.target - 1


def synthetic() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    X = rng.standard_normal((2000, 20))
    hidden = np.maximum(X @ rng.standard_normal((20, 10)), 0)
    return X, np.sign(hidden @ rng.standard_normal(10) + 0.5 * rng.standard_normal(2000))


PROBLEMS = {"small": small, "breast-cancer": breast_cancer, "synthetic": synthetic}


def instance(name: str, count: int, weight_decay: float) -> Instance:
    X, y = PROBLEMS[name]()
    gates = np.random.default_rng(0).standard_normal((count, X.shape[1]))
    patterns, first = np.unique(gates @ X.T > 0, axis=0, return_index=True)
    alive = np.any(patterns, axis=1)
    return Instance(X, y, gates[first[alive]], patterns[alive], weight_decay)


# ----------------------------------------------------------------------
# Methods


def interior(at: Instance, tolerance: float, repeats: int) -> Result:
    problem, program = TrainingProblem(at.X, at.y, at.weight_decay), ConeGroupLasso(at.patterns)

    def run() -> Any:
        return solve(problem, program, ConeLassoInterior(tolerance=tolerance))

    return _ours(at, f"interior {tolerance:g}", run, repeats)


def splitting(at: Instance, tolerance: float, repeats: int) -> Result:
    problem, program = TrainingProblem(at.X, at.y, at.weight_decay), ConeGroupLasso(at.patterns)
    settings = ConeLassoSplitting(tolerance=tolerance, max_steps=MAX_STEPS)

    def run() -> Any:
        return jax.block_until_ready(solve(problem, program, settings))

    return _ours(at, f"splitting {tolerance:g}", run, repeats)


def _ours(at: Instance, method: str, run: Callable[[], Any], repeats: int) -> Result:
    found, times = run(), []
    for _ in range(repeats):
        begun = time.perf_counter()
        found = run()
        times.append(time.perf_counter() - begun)
    parts = found.weights[0], found.residual[:, 0], found.multipliers[0]
    weights, residual, multipliers = map(np.asarray, parts)
    return Result(
        method,
        statistics.median(times),
        weights,
        lower_bound(at, residual, multipliers),
        f"{int(found.steps)} steps, {np.sum(np.any(weights, axis=-1))} blocks in use",
    )


def with_cvxpy(at: Instance, limit: float) -> Result:
    method = "CVXPY + Clarabel"
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        waiting = pool.apply_async(_cvxpy, (at,))
        try:
            weights, seconds, note = waiting.get(limit)
        except multiprocessing.TimeoutError:
            return _too_late(method, limit)
    return Result(method, seconds, weights, -np.inf, note)


def _cvxpy(at: Instance) -> tuple[np.ndarray, float, str]:
    import cvxpy as cp

    blocks = [cp.Variable((at.X.shape[1], len(at.patterns))) for _ in range(2)]
    fitted = cp.sum(cp.multiply(at.patterns.T, at.X @ (blocks[0] - blocks[1])), axis=1)
    signs = np.where(at.patterns, 1.0, -1.0)
    penalty = sum(cp.sum(cp.norm(w, axis=0)) for w in blocks)
    cells: list[Any] = [cp.multiply(signs.T, at.X @ w) >= 0 for w in blocks]
    goal = cp.sum_squares(fitted - at.y) / 2 + at.weight_decay * penalty
    problem = cp.Problem(cp.Minimize(goal), cells)
    begun = time.perf_counter()
    problem.solve(solver="CLARABEL")
    seconds = time.perf_counter() - begun
    return np.stack([np.asarray(w.value).T for w in blocks]), seconds, str(problem.status)


def with_pyscnn(at: Instance, tolerance: float, python: str, limit: float) -> Result:
    method = f"pyscnn AL {tolerance:g}"
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "given.npz", Path(folder) / "found.npz"
        numbers = {"weight_decay": np.array(at.weight_decay), "tolerance": np.array(tolerance)}
        kept: dict[str, Any] = {"X": at.X, "y": at.y, "gates": at.gates, **numbers}
        np.savez(given, **kept)
        command = [python, "-c", PYSCNN, given, found]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=limit)
        except subprocess.TimeoutExpired:
            return _too_late(method, limit)
        with np.load(found) as arrays:
            weights, seconds = arrays["weights"], float(arrays["seconds"])
    return Result(method, seconds, weights, -np.inf, "float32")


def _too_late(method: str, limit: float) -> Result:
    return Result(method, limit, None, -np.inf, f"no answer within {limit:g} s")


# ----------------------------------------------------------------------
# The judge


def objective(at: Instance, weights: np.ndarray) -> float:
    """The program's objective."""
    fitted = np.einsum("pn,nd,pd->n", at.patterns, at.X, weights[0] - weights[1], optimize=True)
    norms = np.linalg.norm(weights, axis=-1)
    return float(np.sum((fitted - at.y) ** 2) / 2 + at.weight_decay * np.sum(norms))


def violation(at: Instance, weights: np.ndarray) -> float:
    """How far the blocks are outside their cells, relative to them."""
    rows = at.X / np.linalg.norm(at.X, axis=1, keepdims=True)
    margins = np.where(at.patterns, 1, -1) * (weights @ rows.T)
    return float(np.linalg.norm(np.minimum(margins, 0)) / np.linalg.norm(weights))


def lower_bound(at: Instance, residual: np.ndarray, multipliers: np.ndarray) -> float:
    """-L*(t R) for the t that makes R feasible in the dual, with these multipliers of the cells."""
    assert multipliers.min() >= 0
    pulled = (at.patterns * residual) @ at.X
    bent = (np.where(at.patterns, 1, -1) * multipliers) @ at.X
    price = np.linalg.norm(np.stack([pulled, -pulled]) - bent, axis=-1).max()
    scaled = min(1.0, at.weight_decay / price) * residual
    return float(-scaled @ at.y - scaled @ scaled / 2)


def network_of(weights: np.ndarray) -> TwoLayerReLU:
    """Proposition II.1, in NumPy."""
    blocks = weights.reshape(-1, weights.shape[-1])
    signs = np.repeat([1.0, -1.0], weights.shape[1])
    norms = np.linalg.norm(blocks, axis=1)
    used = norms > 0
    roots = np.sqrt(norms[used])
    return TwoLayerReLU((blocks[used] / roots[:, None]).T, (signs[used] * roots)[:, None])


def training_objective(at: Instance, network: Any) -> float:
    U, V = np.asarray(network.U), np.asarray(network.V)
    error = np.maximum(at.X @ U, 0) @ V[:, 0] - at.y
    return float(error @ error / 2 + at.weight_decay / 2 * (np.sum(U**2) + np.sum(V**2)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--problems", nargs="+", choices=list(PROBLEMS), default=list(PROBLEMS))
    parser.add_argument("--patterns", type=int, default=100)
    parser.add_argument("--weight-decay", type=float, default=1.0)
    parser.add_argument("--tolerances", type=float, nargs="+", default=[1e-4, 1e-6])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--splitting", action="store_true")
    parser.add_argument("--cvxpy", action="store_true")
    parser.add_argument("--pyscnn", metavar="PYTHON")
    parser.add_argument("--limit", type=float, default=600, metavar="SECONDS")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    for name in options.problems:
        count = 40 if name == "small" else options.patterns
        at = instance(name, count, options.weight_decay)
        found = [interior(at, tolerance, options.repeats) for tolerance in options.tolerances]
        if name == "small" or options.splitting:
            found += [splitting(at, tolerance, options.repeats) for tolerance in options.tolerances]
        if name == "small" or options.cvxpy:
            found.append(with_cvxpy(at, options.limit))
        if options.pyscnn:
            found += [
                with_pyscnn(at, tolerance, options.pyscnn, options.limit)
                for tolerance in options.tolerances
            ]
        lower = max(result.lower for result in found)
        print(f"{name}: X {at.X.shape}, {len(at.patterns)} patterns, lower {lower:.7g}")
        for result in found:
            print(f"  {row(at, result, lower)}", flush=True)


def row(at: Instance, result: Result, lower: float) -> str:
    """What the judge says of one result."""
    if result.weights is None:
        return f"{result.method:18s} {result.note}"
    value, network = objective(at, result.weights), network_of(result.weights)
    problem = TrainingProblem(at.X, at.y, at.weight_decay)
    refitted = training_objective(at, refit(problem, network, 1e-8).network)
    return (
        f"{result.method:18s} {result.seconds:8.2f} s  program {value:.7g}  "
        f"gap {value / lower - 1:.1e}  violation {violation(at, result.weights):.1e}  "
        f"network {training_objective(at, network):.7g}  refit {refitted:.7g}  {result.note}"
    )


if __name__ == "__main__":
    main()
