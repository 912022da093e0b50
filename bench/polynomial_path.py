"""Polynomial activations along the weight decay: accuracy and width, beside descent and ReLU.

    python -m bench.polynomial_path [--data breast_cancer wine ionosphere] [--folder FOLDER]
                                    [--weight-decays 100 30 10 3 1 0.3 0.1 0.03]
                                    [--loss squared|softmax|logistic] [--tolerance 1e-6]
                                    [--descend-at 10 1 0.1] [--steps 5000] [--starts 3]
                                    [--learning-rates 0.01 0.1] [--width 100] [--seed 0]
                                    [--sgd-rates 0.001 0.003 0.01 0.03 0.1 0.3]
                                    [--sgd-steps 20000] [--batch 32] [--plot FILE.png]

Run it from the project's root. Breast cancer, wine and digits are scikit-learn's; FOLDER holds
ionosphere.npz. 80 % of the samples train; features are standardised by these, and those that are
constant there left out; there is a bias. Labels are +-1, one column per class where there are more
than two. The path is one call, timed once compiled; "seconds" divides its time by the steps.

Everything else is recomputed here, in NumPy: `objective` from the weights of the network, whose
neurons are "m*"; `gap` from that to the bound that the solution's residual proves; both accuracies.
Adam trains the same polynomial networks ("above bound": its objective over the certified bound,
relative: never negative) and ReLU networks at the same weight decay, by default at all of them: of
`--starts` random networks of `--width` neurons and all `--learning-rates` the run of least objective.
SGD, the rival of Bartan and Pilanci (2021, section 6), trains the polynomial networks on batches drawn
at random, with momentum 0.9: `--sgd-rates` are for the mean over the samples, decayed to zero along a
cosine, and what counts is the least objective on all samples, looked at every 100 steps, of all rates
and starts. With several data sets `--plot` draws the first. Digits take minutes.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcvxnn import PolynomialNetwork, TrainingProblem, certify_residual
from jaxcvxnn.files.plots import plot_widths
from jaxcvxnn.improve import spectrahedron_network, train_sgd
from jaxcvxnn.improve.gradient_descent import random_network
from jaxcvxnn.networks import with_unit_neurons
from jaxcvxnn.programs import SpectrahedronPath, SpectrahedronSplitting, spectrahedron_path

# Eigenvalues that count as zero, relative to the largest of their matrix.
RANK_TOLERANCE = 1e-6
# Of SGD: the paper's, and the steps between two looks at the objective.
MOMENTUM, LOOK_EVERY = 0.9, 100


class Split(NamedTuple):
    """One data set: features, and labels 0, 1, ..., for training and for testing."""

    name: str
    X: np.ndarray
    labels: np.ndarray
    X_test: np.ndarray
    labels_test: np.ndarray


class Row(NamedTuple):
    """The solution at one weight decay; accuracies are in parts of one."""

    weight_decay: float
    objective: float
    lower: float
    width: int
    train: float
    test: float
    seconds: float


class Descent(NamedTuple):
    """The best of several runs of descent: its objective, and its accuracy on the test samples."""

    objective: float
    test: float
    seconds: float


def load(name: str, folder: Path | None, seed: int) -> Split:
    """A data set by name, split at random and standardised."""
    if name == "ionosphere":
        if folder is None:
            raise SystemExit("ionosphere needs --folder, where ionosphere.npz is")
        with np.load(folder / "ionosphere.npz") as arrays:
            X = np.concatenate([arrays["X_train"], arrays["X_test"]])
            labels = np.concatenate([arrays["Y_train"], arrays["Y_test"]]).argmax(axis=1)
    else:
        from sklearn import datasets

        X, labels = getattr(datasets, f"load_{name}")(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(X))
    train, test = np.split(order, [int(0.8 * len(X))])
    centre, spread = X[train].mean(axis=0), X[train].std(axis=0)
    used = spread > 0
    scaled = (X[:, used] - centre[used]) / spread[used]
    return Split(name, scaled[train], labels[train], scaled[test], labels[test])


def targets(labels: np.ndarray, loss: str) -> np.ndarray:
    """What the loss is given: class numbers for softmax, otherwise +-1."""
    if loss == "softmax":
        return labels
    coded = np.where(labels[:, None] == np.arange(labels.max() + 1), 1.0, -1.0)
    return coded[:, 1:] if coded.shape[1] == 2 else coded


def loss_value(outputs: np.ndarray, Y: np.ndarray, loss: str) -> float:
    """The training loss, independent of the library's own."""
    if loss == "softmax":
        largest = outputs.max(axis=1, keepdims=True)
        total = largest + np.log(np.exp(outputs - largest).sum(axis=1, keepdims=True))
        return float(np.sum(Y * (total - outputs)))
    if loss == "logistic":
        return float(np.sum(np.logaddexp(0, -Y * outputs)))
    return float(np.sum((outputs - Y) ** 2) / 2)


def outputs(network: Any, X: np.ndarray, problem: TrainingProblem) -> np.ndarray:
    """f(X), from the weights."""
    U, V, b = (np.asarray(part, np.float64) for part in (network.U, network.V, network.b))
    return np.asarray(problem.activation(X @ U + b)) @ V


def objective(network: Any, problem: TrainingProblem, weight_decay: float) -> float:
    """The training objective of a network, from its weights."""
    fitted = outputs(network, np.asarray(problem.X), problem)
    if isinstance(network, PolynomialNetwork):
        penalty = np.sum(np.abs(network.V))
    else:
        penalty = sum(np.sum(np.square(part)) for part in (network.U, network.b, network.V)) / 2
    return loss_value(fitted, np.asarray(problem.Y), problem.loss.name) + weight_decay * penalty


def accuracy(outputs: np.ndarray, labels: np.ndarray) -> float:
    """The part of the samples whose class the outputs tell."""
    told = outputs[:, 0] > 0 if outputs.shape[1] == 1 else outputs.argmax(axis=1)
    return float(np.mean(told == labels))


def problem_of(
    split: Split, weight_decay: float, loss: str, activation: str = "polynomial"
) -> TrainingProblem:
    """The training problem, with a bias."""
    Y = targets(split.labels, loss)
    return TrainingProblem(split.X, Y, weight_decay, bias=True, loss=loss, activation=activation)


def solve_path(
    problem: TrainingProblem, weight_decays: list[float], settings: SpectrahedronSplitting
) -> tuple[SpectrahedronPath, float, float]:
    """The path, its seconds, and those of the first call, which compiles."""
    data = jax.tree.map(jnp.asarray, problem)
    solve = jax.jit(lambda given, decays: spectrahedron_path(given, decays, settings))

    def timed() -> tuple[SpectrahedronPath, float]:
        begun = time.perf_counter()
        path = jax.block_until_ready(solve(data, jnp.asarray(weight_decays)))
        return path, time.perf_counter() - begun

    _, with_compilation = timed()
    path, seconds = timed()
    return path, seconds, with_compilation


def judge(split: Split, path: SpectrahedronPath, loss: str, seconds: float) -> list[Row]:
    """What the solutions are worth, by the networks that they become."""
    steps = np.asarray(path.solutions.steps)
    shares = seconds * steps / steps.sum()
    rows = []
    for index, weight_decay in enumerate(np.asarray(path.weight_decays)):
        problem = problem_of(split, weight_decay, loss)
        found = jax.tree.map(lambda leaf, index=index: np.asarray(leaf[index]), path.solutions)
        network = spectrahedron_network(problem, found.positive, found.negative, RANK_TOLERANCE)
        row = Row(
            weight_decay=float(weight_decay),
            objective=objective(network, problem, weight_decay),
            lower=certify_residual(problem, found.residual).lower_bound,
            width=network.width,
            train=accuracy(outputs(network, split.X, problem), split.labels),
            test=accuracy(outputs(network, split.X_test, problem), split.labels_test),
            seconds=float(shares[index]),
        )
        rows.append(row)
    return rows


def descend(split: Split, problem: TrainingProblem, options: argparse.Namespace) -> Descent:
    """The best of several runs of Adam, by its training objective."""
    networks, begun = [], time.perf_counter()
    for seed, rate in itertools.product(range(options.starts), options.learning_rates):
        network, _, _ = train_sgd(
            problem, width=options.width, steps=options.steps, learning_rate=rate, seed=seed
        )
        networks.append(network)
    return best_descent(split, problem, networks, time.perf_counter() - begun)


def descend_stochastically(
    split: Split, problem: TrainingProblem, options: argparse.Namespace
) -> Descent:
    """The best of several runs of SGD with momentum, by its training objective."""
    begun = time.perf_counter()
    data = jax.tree.map(jnp.asarray, problem)
    networks = []
    for seed, rate in itertools.product(range(options.starts), options.sgd_rates):
        sizes = options.width, options.sgd_steps, min(options.batch, len(split.X))
        networks.append(stochastic_run(data, jnp.asarray(rate), jax.random.key(seed), sizes))
    return best_descent(split, problem, networks, time.perf_counter() - begun)


@eqx.filter_jit
def stochastic_run(
    problem: TrainingProblem, rate: Any, key: Any, sizes: tuple[int, int, int]
) -> PolynomialNetwork:
    """SGD with momentum on the objective per sample; the best network it looked at.

    `sizes`: the width, the steps, and the samples in a batch.
    """
    width, steps, batch = sizes
    rule = optax.sgd(optax.cosine_decay_schedule(rate, steps), MOMENTUM)
    start_key, batch_key = jax.random.split(key)
    start: Any = random_network(start_key, problem, width)
    samples = len(problem.X)

    def on_batch(network, chosen):
        unit = with_unit_neurons(network)
        loss = problem.loss.value(unit.predict(problem.X[chosen]), problem.Y[chosen])
        return loss / batch + problem.weight_decay / samples * unit.penalty

    def step(carry, key):
        network, memory = carry
        slope = jax.grad(on_batch)(network, jax.random.randint(key, (batch,), 0, samples))
        change, memory = rule.update(slope, memory)
        following: Any = optax.apply_updates(network, change)
        return (following, memory), None

    def look(carry, keys):
        state, best, least = carry
        state, _ = jax.lax.scan(step, state, keys)
        network, _ = state
        reached = problem.objective(with_unit_neurons(network))
        better = reached < least  # False for NaN
        best = jax.tree.map(lambda old, new: jnp.where(better, new, old), best, network)
        return (state, best, jnp.where(better, reached, least)), None

    keys = jax.random.split(batch_key, (steps // LOOK_EVERY, LOOK_EVERY))
    first = (start, rule.init(start)), start, problem.objective(with_unit_neurons(start))
    (_, best, _), _ = jax.lax.scan(look, first, keys)
    return with_unit_neurons(best)


def best_descent(
    split: Split, problem: TrainingProblem, networks: list[Any], seconds: float
) -> Descent:
    """That of least training objective."""
    weight_decay = float(problem.weight_decay)
    best = min(networks, key=lambda network: objective(network, problem, weight_decay))
    test = accuracy(outputs(best, split.X_test, problem), split.labels_test)
    return Descent(objective(best, problem, weight_decay), test, seconds)


def best_of(rows: list[Row], rivals: dict[str, dict[float, Descent]]) -> str:
    """The best test accuracies, over those weight decays at which all methods were run."""
    tried = rivals["Adam"]
    if not tried:
        return f"Best test accuracy: the path {max(row.test for row in rows):.1%}."
    path = max(row.test for row in rows if row.weight_decay in tried)
    others = ", ".join(
        f"{name} {max(found.test for found in runs.values()):.1%}" for name, runs in rivals.items()
    )
    where = ", ".join(f"{weight_decay:g}" for weight_decay in tried)
    return f"Best test accuracy: the path {path:.1%}, {others} (weight decays {where})."


def report(split: Split, options: argparse.Namespace) -> None:
    """One table, and perhaps the plot."""
    settings = SpectrahedronSplitting(tolerance=options.tolerance)
    first = problem_of(split, options.weight_decays[0], options.loss)
    path, seconds, with_compilation = solve_path(first, options.weight_decays, settings)
    n, d = split.X.shape
    print(
        f"\n{split.name}: n = {n}, {len(split.X_test)} test samples, d = {d}, "
        f"c = {first.Y.shape[1]}, {options.loss} loss. The path took {seconds:.1f} s, "
        f"{with_compilation:.1f} s with its compilation.\n\n"
        "| weight decay | objective | gap | m* | train | test | seconds "
        "| Adam above bound | its test | SGD above bound | its test | ReLU's test "
        "| seconds of the three |\n" + "|---" * 13 + "|"
    )
    rivals: dict[str, dict[float, Descent]] = {"Adam": {}, "SGD": {}, "ReLU": {}}
    rows = judge(split, path, options.loss, seconds)
    for row in rows:
        weight_decay, rest = row.weight_decay, "| | | | |"
        if options.descend_at is None or weight_decay in options.descend_at:
            same = problem_of(split, weight_decay, options.loss)
            adam, sgd = descend(split, same, options), descend_stochastically(split, same, options)
            relu = descend(split, problem_of(split, weight_decay, options.loss, "relu"), options)
            for runs, found in zip(rivals.values(), (adam, sgd, relu), strict=True):
                runs[weight_decay] = found
            rest = " | ".join(
                f"{(found.objective - row.lower) / abs(row.lower):.1e} | {found.test:.1%}"
                for found in (adam, sgd)
            )
            rest += f" | {relu.test:.1%} | {adam.seconds + sgd.seconds + relu.seconds:.0f}"
        print(
            f"| {weight_decay:g} | {row.objective:.6g} "
            f"| {(row.objective - row.lower) / abs(row.objective):.1e} | {row.width} "
            f"| {row.train:.1%} | {row.test:.1%} | {row.seconds:.2f} | {rest} |",
            flush=True,
        )
    print(f"\n{best_of(rows, rivals)}", flush=True)
    if options.plot is not None:
        curves = {"test": [row.test for row in rows], "training": [row.train for row in rows]}
        for name, runs in rivals.items():
            known = {weight_decay: found.test for weight_decay, found in runs.items()}
            curves[f"test, {name}"] = [known.get(row.weight_decay, np.nan) for row in rows]
        title = f"{split.name.replace('_', ' ').capitalize()}, polynomial activation"
        plot_widths(path, curves, options.plot, title=title)


DATA = ("breast_cancer", "wine", "ionosphere", "digits")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", nargs="+", choices=DATA, default=DATA[:3])
    parser.add_argument("--folder", type=Path)
    decays = [100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03]
    parser.add_argument("--weight-decays", type=float, nargs="+", default=decays)
    parser.add_argument("--loss", choices=("squared", "softmax", "logistic"), default="squared")
    parser.add_argument("--tolerance", type=float, default=1e-6)
    parser.add_argument("--descend-at", type=float, nargs="*", help="default: all")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--learning-rates", type=float, nargs="+", default=[0.01, 0.1])
    rates = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3]
    parser.add_argument("--sgd-rates", type=float, nargs="+", default=rates)
    parser.add_argument("--sgd-steps", type=int, default=20000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--width", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the split")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    with jax.enable_x64(True):
        for name in options.data:
            report(load(name, options.folder, options.seed), options)
            options.plot = None


if __name__ == "__main__":
    main()
