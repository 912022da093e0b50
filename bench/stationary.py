"""Stationary points of training as global optima of subsampled programs, on the Random trials.

    python -m bench.stationary [--data FILE.npz] [--trials 5] [--starts 2] [--outputs 1 5]
                               [--weight-decay 0.1] [--width 20] [--steps 10000]

Run it from the project's root. The file holds X (trials, n, d) and Y (trials, n, c), of which the
first `outputs` are taken; without one the trials are generated, from the same distribution.

Each network is trained by Adam from a random start and then put on the kinks that it is near, by
`settle`. `adam` and `loss` are its objectives before and after, `violation` is the largest relative
violation of Clarke stationarity, `kinks` counts the samples on some neuron's kink. `program` is the
optimum, by CVXPY and Clarabel, of the convex program that has only the network's patterns and output
directions (Ergen and Pilanci, 2023, Theorem II.2), as a relative distance from `loss`. `price` is the
largest price of any neuron with one of these patterns, in units of the weight decay: at 1 the network
is also the optimum of the program with all output directions for them, eq. (7) or (29). `global` is
the relative distance of `loss` from the global optimum, by column generation.
"""

import argparse
from pathlib import Path
from typing import Any

import cvxpy as cp
import jax
import numpy as np

from bench.random_trials import load
from jaxcvxnn import TrainingProblem
from jaxcvxnn.improve import train_sgd
from jaxcvxnn.studies import Stationarity, pattern_prices, settle, stationarity
from jaxcvxnn.training import generate_columns


def subsampled_optimum(
    X: np.ndarray, Y: np.ndarray, weight_decay: float, found: Stationarity
) -> float:
    """min over w_j of 1/2 ||sum_j D_j X w_j v_j' - Y||^2 + weight_decay sum_j |w_j|, w_j in cone j."""
    weights = cp.Variable((len(found.patterns), X.shape[1]))
    outputs, constraints = 0, []
    for j, (pattern, direction) in enumerate(zip(found.patterns, found.directions, strict=True)):
        active = (pattern[:, None] * X) @ weights[j]
        outputs += cp.reshape(active, (-1, 1), "C") @ direction[None]
        constraints.append((np.where(pattern, 1, -1)[:, None] * X) @ weights[j] >= 0)
    loss = cp.sum_squares(outputs - Y) / 2 + weight_decay * cp.sum(cp.norm(weights, axis=1))
    program = cp.Problem(cp.Minimize(loss), constraints)
    value: Any = program.solve("CLARABEL", tol_gap_abs=1e-9, tol_gap_rel=1e-9, tol_feas=1e-9)
    return float(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--starts", type=int, default=2)
    parser.add_argument("--outputs", type=int, nargs="+", default=(1, 5))
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--width", type=int, default=20)
    parser.add_argument("--steps", type=int, default=10_000)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    name, X, Y = load(options.data, options.trials)
    print(f"{name}, weight decay {options.weight_decay:g}, width {options.width}")
    print(
        f"{'outputs':>7} {'trial':>5} {'start':>5} {'adam':>10} {'loss':>10} {'neurons':>7} "
        f"{'kinks':>5} {'violation':>9} {'program':>9} {'price':>8} {'global':>9}"
    )
    for outputs in options.outputs:
        recognised, optimal, runs = 0, 0, 0
        for trial, (samples, targets) in enumerate(zip(X, Y[:, :, :outputs], strict=True)):
            problem = TrainingProblem(samples, targets, options.weight_decay)
            best = generate_columns(problem).upper_bound
            for start in range(options.starts):
                network, _, _ = train_sgd(
                    problem, width=options.width, steps=options.steps, seed=start
                )
                before = float(problem.objective(network))
                network = settle(problem, network)
                loss = float(problem.objective(network))
                found = stationarity(problem, network)
                value = subsampled_optimum(samples, targets, options.weight_decay, found)
                prices = pattern_prices(problem, found.residual, found.patterns)
                runs += 1
                recognised += found.stationary
                optimal += abs(loss / value - 1) <= 1e-6
                print(
                    f"{outputs:>7} {trial:>5} {start:>5} {before:>10.6f} {loss:>10.6f} "
                    f"{len(found.neurons):>7} {int(found.kinks.sum()):>5} "
                    f"{found.violation:>9.1e} {loss / value - 1:>9.1e} "
                    f"{prices.lower.max() / options.weight_decay:>8.4f} {loss / best - 1:>9.1e}",
                    flush=True,
                )
        print(
            f"{outputs} outputs: {recognised} of {runs} recognised as stationary, {optimal} within "
            "1e-6 of their program's optimum"
        )


if __name__ == "__main__":
    main()
