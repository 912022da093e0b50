"""Networks and bounds on a data set, against Adam from several random starts, in one run.

    python -m bench.training [--data FILE.npz] [--weight-decays 0.1 0.01] [--starts 5]
                             [--steps 50000] [--width 300] [--figure FILE.svg]

The file holds X_train and Y_train (or X and Y); without one, iris from scikit-learn, every other row.
Objectives of all networks are recomputed here from their weights, in NumPy. Times are wall-clock of
one run and contain compilation, since a user of `train` pays it too; Adam's is given without it.
"""

import argparse
import time
from pathlib import Path

import jax
import numpy as np

from jaxcvxnn import AbstractTwoLayer, TrainingProblem, train
from jaxcvxnn.files import demo_data
from jaxcvxnn.files.plots import plot_bounds
from jaxcvxnn.improve import train_sgd


def load(path: Path | None) -> tuple[str, np.ndarray, np.ndarray]:
    """(name, X, Y)."""
    if path is None:
        return "iris (scikit-learn, every other row)", *demo_data.iris()
    with np.load(path) as arrays:
        names = ("X_train", "Y_train") if "X_train" in arrays else ("X", "Y")
        samples, targets = (np.asarray(arrays[name], np.float64) for name in names)
    if samples.ndim == 3:
        return f"{path.stem}, first trial", samples[0], targets[0]
    return path.stem, samples, targets


def objective(
    network: AbstractTwoLayer, X: np.ndarray, Y: np.ndarray, weight_decay: float
) -> float:
    """The training objective from the weights, independent of the library's own."""
    U, V = np.asarray(network.U, np.float64), np.asarray(network.V, np.float64)
    residual = np.maximum(X @ U, 0) @ V - Y
    return float(np.sum(residual**2) + weight_decay * (np.sum(U**2) + np.sum(V**2))) / 2


def adam(problem: TrainingProblem, width: int, steps: int, starts: int):
    """(networks, loss curves (starts, k), recorded steps, seconds per start after compilation)."""
    networks, curves, recorded, seconds = [], [], np.zeros(0), []
    for seed in range(starts):
        begun = time.perf_counter()
        network, losses, recorded = train_sgd(problem, width=width, steps=steps, seed=seed)
        curves.append(np.asarray(jax.block_until_ready(losses)))
        seconds.append(time.perf_counter() - begun)
        networks.append(network)
    return networks, np.stack(curves), recorded, float(np.median(seconds[1:] or seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--weight-decays", type=float, nargs="+", default=[0.1, 0.01])
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--width", type=int, default=300)
    parser.add_argument("--figure", type=Path, help="draw the first weight decay's run here")
    arguments = parser.parse_args()
    name, X, Y = load(arguments.data)
    print(f"{name}: X {X.shape}, Y {Y.shape}, width {arguments.width}")
    print(f"{'wd':>6} {'method':<34} {'objective':>11} {'lower bound':>11} {'seconds':>8}")
    for index, weight_decay in enumerate(arguments.weight_decays):
        begun = time.perf_counter()
        result = train(X, Y, weight_decay, width=arguments.width)
        spent = time.perf_counter() - begun
        with jax.enable_x64(True):
            problem = TrainingProblem(X, Y, weight_decay)
            networks, curves, steps, seconds = adam(
                problem, arguments.width, arguments.steps, arguments.starts
            )
        reached = [objective(network, X, Y, weight_decay) for network in networks]
        ours = objective(result.network, X, Y, weight_decay)
        label = f"Adam, best of {arguments.starts}, {arguments.steps} steps"
        print(
            f"{weight_decay:>6g} {'train':<34} {ours:>11.6f} {result.lower_bound:>11.6f} "
            f"{spent:>8.1f}\n"
            f"{'':>6} {'  rounded, before the polish':<34} {result.rounded_objective:>11.6f}\n"
            f"{'':>6} {label:<34} {min(reached):>11.6f} {'none':>11} "
            f"{seconds * arguments.starts:>8.1f}\n"
            f"{'':>6} {'  all starts':<34} " + " ".join(f"{value:.4f}" for value in reached),
            flush=True,
        )
        if arguments.figure and index == 0:
            title = f"{name.split(' (')[0].capitalize()}, weight decay {weight_decay:g}"
            plot_bounds(result, {"Adam": (steps, curves)}, arguments.figure, title=title)


if __name__ == "__main__":
    main()
