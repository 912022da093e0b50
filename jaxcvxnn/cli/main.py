"""The command `jaxcvxnn`: train a network on a CSV file and prove how good it is, without writing
Python.

Exit codes: 0 done, 1 the self test failed, 2 wrong input (one line on standard error says what),
130 interrupted. Results go to standard output, progress and errors to standard error. JAX is
imported only by the commands that use it.
"""

import argparse
import contextlib
import csv
import math
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import numpy as np

    from ..training.path import PathPoint
    from ..training.result import TrainingResult
    from .tables import Table

_ADAM_STEPS = 20_000
_WEIGHT_DECAYS = (1.0, 0.3, 0.1, 0.03, 0.01)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: that of the process) and return the exit code."""
    try:
        arguments = _parser().parse_args(argv)
        return arguments.run(arguments)
    except _InputError as error:
        print(f"jaxcvxnn: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("jaxcvxnn: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output has gone (as with `| head`). Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


class _InputError(Exception):
    """Something the user can put right; shown without a traceback."""


@contextlib.contextmanager
def _user_input() -> Iterator[None]:
    """Inside, an error is about what the user gave us and not about our code."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        raise _InputError(f"{name}{error.strerror or error}") from error
    except (ValueError, TypeError, ImportError) as error:
        raise _InputError(str(error)) from error


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _InputError(f"{message} (see {self.prog} --help)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="jaxcvxnn",
        description="Train two-layer networks by convex optimisation, with a proof of how "
        "good they are.",
    )
    parser.add_argument("--version", action="version", version=f"jaxcvxnn {_version('jaxcvxnn')}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    train = commands.add_parser(
        "train",
        help="train a network on a CSV file",
        description="Train a network on a CSV file. Prints the training loss of the network and a "
        "lower bound that no "
        "network of any width can beat. The columns that are not the target are the features.",
    )
    _add_training_options(train)
    train.add_argument(
        "--weight-decay", type=_positive, default=0.1, metavar="NUMBER", help="default 0.1"
    )
    train.add_argument(
        "--program",
        choices=("auto", "columns", "lifted", "spectrahedron"),
        default="auto",
        help="columns: neuron by neuron to the global optimum, for data of low rank; lifted: the "
        "semidefinite relaxation; spectrahedron: the exact program of polynomials; auto: the last for "
        "these, else columns up to rank 6 (default)",
    )
    train.add_argument(
        "--out", metavar="MODEL.npz", help="write the network there, for predict and load_network"
    )
    train.add_argument(
        "--plot",
        metavar="FILE",
        help="also train by Adam and draw its loss curve against the bounds (.png, .svg or .pdf)",
    )
    train.set_defaults(run=_train)

    path = commands.add_parser(
        "path",
        help="train at many weight decays",
        description="Train networks on a CSV file at many weight decays. Prints for each of them the "
        "training loss of the network and a lower bound that no network of any width can beat.",
    )
    _add_training_options(path)
    path.add_argument(
        "--weight-decays",
        type=_positives,
        default=_WEIGHT_DECAYS,
        metavar="NUMBERS",
        help="separated by commas (default " + ",".join(f"{w:g}" for w in _WEIGHT_DECAYS) + ")",
    )
    path.add_argument(
        "--out",
        metavar="FOLDER",
        help="write the networks there, for predict and load_network, named by their weight decay",
    )
    path.add_argument(
        "--plot",
        metavar="FILE",
        help="draw bounds and neurons against the weight decay (.png, .svg or .pdf)",
    )
    path.set_defaults(run=_path)

    predict = commands.add_parser(
        "predict",
        help="predict with a saved network",
        description="Predict for each row of a CSV file. Columns are found by name; without a "
        "header the file must look "
        "like the training file or hold the features alone. A target column is ignored.",
    )
    predict.add_argument(
        "model", metavar="MODEL.npz", help="written by: jaxcvxnn train ... --out MODEL.npz"
    )
    predict.add_argument("data", metavar="DATA.csv")
    predict.add_argument("--out", metavar="PREDICTIONS.csv", help="default: standard output")
    _add_file_options(predict)
    predict.set_defaults(run=_predict)

    certify = commands.add_parser(
        "certify",
        help="prove how good a saved network is",
        description="Print the training loss of a network on a CSV file and a lower bound that no "
        "network of any width can beat. The network may come from anywhere: an .npz file "
        "with the arrays U (features, neurons), V (neurons, outputs) and perhaps b (neurons).",
    )
    certify.add_argument("model", metavar="MODEL.npz")
    certify.add_argument("data", metavar="DATA.csv", help="the data it was trained on")
    certify.add_argument(
        "--target", metavar="COLUMN", help="as for train (default: what the model's file says)"
    )
    certify.add_argument("--drop", metavar="COLUMNS", help="as for train")
    certify.add_argument(
        "--weight-decay",
        type=_positive,
        metavar="NUMBER",
        help="that it was trained with (default: what the model's file says)",
    )
    certify.add_argument(
        "--loss",
        choices=("squared", "logistic", "softmax", "hinge", "huber", "absolute"),
        default="squared",
        help="summed over the rows (default squared: half of the sum of squares)",
    )
    certify.add_argument("--task", choices=("auto", "classification", "regression"), default="auto")
    certify.add_argument(
        "--time-limit", type=_positive, default=60.0, metavar="SECONDS", help="default 60"
    )
    _add_file_options(certify)
    certify.set_defaults(run=_certify)

    demo = commands.add_parser(
        "demo",
        help="train on two small data sets",
        description="Train on half of Fisher's iris flowers (if scikit-learn is installed) and on "
        "a synthetic data set.",
    )
    demo.add_argument("--quick", action="store_true", help="the synthetic data set only")
    demo.add_argument("--quiet", action="store_true", help="no progress")
    demo.set_defaults(run=_demo)

    check = commands.add_parser(
        "check",
        help="test this installation",
        description="Print versions and devices, and solve a tiny problem whose optimum is known.",
    )
    check.set_defaults(run=_check)
    return parser


def _add_training_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA.csv", help="UTF-8 CSV file, one example per row")
    parser.add_argument(
        "--target",
        required=True,
        metavar="COLUMN",
        help="name or index (from 0; -1 is the last) of the column to predict; several, separated "
        "by commas, for a "
        "regression with several outputs (write --target=-2,-1 if it starts with a minus sign)",
    )
    parser.add_argument(
        "--drop",
        metavar="COLUMNS",
        help="names or indices of columns to leave out, separated by commas",
    )
    parser.add_argument(
        "--activation",
        choices=("relu", "leaky_relu", "absolute", "polynomial"),
        default="relu",
        help="of the hidden neurons; polynomial: 0.09 t^2 + 0.5 t + 0.47, which is trained to the "
        "global optimum whatever the data (default relu)",
    )
    parser.add_argument("--bias", action="store_true", help="give the hidden neurons biases")
    parser.add_argument(
        "--standardize",
        action="store_true",
        help="shift and scale each feature to mean 0 and standard deviation 1; the loss and both "
        "bounds are then those "
        "of the standardised problem, and predict applies the same shift and scale",
    )
    _add_file_options(parser)
    parser.add_argument(
        "--task",
        choices=("auto", "classification", "regression"),
        default="auto",
        help="auto: classification if the target is text, or has at most 20 different values, all "
        "integers and each "
        "twice on average",
    )
    parser.add_argument(
        "--width",
        type=_count,
        default=300,
        metavar="NEURONS",
        help="most hidden neurons (default 300)",
    )
    parser.add_argument(
        "--no-polish",
        action="store_true",
        help="keep the network as rounded from the convex program",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="NUMBER", help="of everything random (default 0)"
    )
    parser.add_argument(
        "--solver",
        choices=("auto", "interior_point", "splitting"),
        default="auto",
        help="of the relaxation; auto: interior point where its matrices are small enough (default)",
    )
    parser.add_argument(
        "--time-limit", type=_positive, metavar="SECONDS", help="stop then with the best so far"
    )
    parser.add_argument(
        "--dtype", choices=("float64", "float32"), default="float64", help="default float64"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress")


def _add_file_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--header",
        action=argparse.BooleanOptionalAction,
        help="whether the first row holds column names (default: found out)",
    )
    parser.add_argument(
        "--delimiter", metavar="CHARACTER", help='between cells, or "tab" (default: found out)'
    )


def _train(arguments: argparse.Namespace) -> int:
    with _user_input():
        table = _read_table(arguments)
        _check_outputs(arguments.out, plot=arguments.plot)

    import jax
    import jax.numpy as jnp
    import numpy as np

    from ..files.storage import save_network
    from ..problem import TrainingProblem
    from ..training.train import choose_program, train

    with jax.enable_x64(arguments.dtype == "float64"):
        with _user_input():
            X, Y, scaling = _arrays(arguments, table)
            problem = TrainingProblem(
                X,
                Y,
                arguments.weight_decay,
                bias=arguments.bias,
                activation=arguments.activation,
            )
            choose_program(arguments.program, problem)
        print(_describe(arguments, table), flush=True)
        started = time.perf_counter()
        with _progress(arguments.quiet) as progress:
            result = train(
                X,
                Y,
                arguments.weight_decay,
                program=arguments.program,
                activation=arguments.activation,
                solver=arguments.solver,
                bias=arguments.bias,
                width=arguments.width,
                polish=not arguments.no_polish,
                seed=arguments.seed,
                progress=progress,
                time_limit=arguments.time_limit,
            )
        seconds = time.perf_counter() - started
        facts = [
            (
                "training loss",
                f"{result.upper_bound:.9g}   (of this network: an upper bound on the optimum)",
            ),
            (
                "lower bound",
                f"{result.lower_bound:.9g}   (no network of any width has a lower loss)",
            ),
            ("relative gap", _gap(result.relative_gap)),
            ("neurons", str(result.network.width)),
            *_fit(table, np.asarray(result.network.predict(jnp.asarray(X)), np.float64)),
            ("status", f"{result.status} ({result.program})"),
            ("time", f"{seconds:.1f} s"),
        ]
        with _user_input():
            if arguments.out:
                about = _about(arguments, table, scaling, arguments.weight_decay, result)
                about["program"] = result.program
                saved = save_network(arguments.out, result.network, metadata=about)
                facts.append(("network", str(saved)))
            if arguments.plot:
                facts.append(_plot(arguments, result))
    if not arguments.out:
        facts.append(("network", "not kept (--out MODEL.npz writes it)"))
    _print_facts(facts)
    return 0


def _path(arguments: argparse.Namespace) -> int:
    with _user_input():
        table = _read_table(arguments)
        files = [_file(arguments.out, w) for w in arguments.weight_decays if arguments.out]
        if arguments.out:
            Path(arguments.out).mkdir(exist_ok=True)
        _check_outputs(*files, plot=arguments.plot)

    import jax

    from ..files.storage import save_network
    from ..problem import TrainingProblem
    from ..training.path import path

    with jax.enable_x64(arguments.dtype == "float64"):
        with _user_input():
            X, Y, scaling = _arrays(arguments, table)
            decays = arguments.weight_decays
            settings = {"bias": arguments.bias, "activation": arguments.activation}
            problems = [TrainingProblem(X, Y, decay, **settings) for decay in decays]
        print(_describe(arguments, table), flush=True)
        started = time.perf_counter()
        with _progress(arguments.quiet) as progress:
            result = path(
                problems[0],
                decays,
                solver=arguments.solver,
                width=arguments.width,
                polish=not arguments.no_polish,
                seed=arguments.seed,
                progress=progress,
                time_limit=arguments.time_limit,
            )
        seconds = time.perf_counter() - started
    print(result, flush=True)
    facts = [("time", f"{seconds:.1f} s")]
    with _user_input():
        if arguments.out:
            for weight_decay, point in zip(decays, result, strict=True):
                save_network(
                    _file(arguments.out, weight_decay),
                    point.network,
                    metadata=_about(arguments, table, scaling, weight_decay, point),
                )
        if arguments.plot:
            from ..files.plots import plot_path

            plot_path(result, arguments.plot)
            facts.append(("plot", arguments.plot))
    facts.append(("networks", arguments.out or "not kept (--out FOLDER writes them)"))
    _print_facts(facts)
    return 0


def _file(folder: str, weight_decay: float) -> str:
    return str(Path(folder) / f"weight_decay_{weight_decay!r}.npz")


def _arrays(
    arguments: argparse.Namespace, table: "Table"
) -> tuple["np.ndarray", "np.ndarray", dict[str, list[float]] | None]:
    """Features and targets in the precision asked for, and the scaling of the features."""
    scaling = _scaling(table.X) if arguments.standardize else None
    X = _cast(_scaled(table.X, scaling), arguments.dtype, arguments.data)
    return X, _cast(table.Y, arguments.dtype, arguments.data), scaling


def _read_table(arguments: argparse.Namespace) -> "Table":
    from .tables import read_table

    return read_table(
        arguments.data,
        arguments.target,
        header="auto" if arguments.header is None else arguments.header,
        task=arguments.task,
        delimiter=_delimiter(arguments.delimiter),
        drop=[name.strip() for name in arguments.drop.split(",")] if arguments.drop else (),
    )


def _check_outputs(*names: str | None, plot: str | None) -> None:
    """Find out before a long training that its result could not be written."""
    for name in (*names, plot):
        folder = Path(name).parent if name else Path()
        if not folder.is_dir():
            raise ValueError(f"{name}: there is no folder {folder}")
        if not os.access(folder, os.W_OK):
            raise ValueError(f"{name}: the folder {folder} cannot be written to")
        if name and Path(name).is_dir():
            raise ValueError(f"{name}: is a folder")
    if plot:
        from ..files.plots import require_matplotlib

        require_matplotlib()
        if Path(plot).suffix.lower() not in (".png", ".svg", ".pdf"):
            raise ValueError(f"{plot}: a plot must end in .png, .svg or .pdf")


def _describe(arguments: argparse.Namespace, table: "Table") -> str:
    if table.classes is not None:
        kind = f"classification into {len(table.classes)} classes"
    else:
        kind = (
            "regression"
            if len(table.target_names) == 1
            else f"regression, {len(table.target_names)} outputs"
        )
    header = "" if table.header else ", no header"
    extras = ", standardised" if arguments.standardize else ""
    return (
        f"{arguments.data}: {len(table.X)} rows{header}, {table.X.shape[1]} features{extras}, "
        f"target {', '.join(table.target_names)}: {kind}"
    )


def _scaling(X: "np.ndarray") -> dict[str, list[float]]:
    """Per feature the mean and standard deviation; a constant feature is shifted only."""
    import numpy as np

    with np.errstate(over="ignore", invalid="ignore"):
        mean, deviation = X.mean(axis=0), X.std(axis=0)
    if not (np.isfinite(mean).all() and np.isfinite(deviation).all()):
        raise ValueError("some features are too large to be standardised")
    constant = (X == X[0]).all(axis=0) | (deviation == 0)
    mean[constant], deviation[constant] = X[0, constant], 1
    return {"mean": mean.tolist(), "scale": deviation.tolist()}


def _scaled(X: "np.ndarray", scaling: dict[str, list[float]] | None) -> "np.ndarray":
    import numpy as np

    return (
        X if scaling is None else (X - np.asarray(scaling["mean"])) / np.asarray(scaling["scale"])
    )


def _cast(values: "np.ndarray", dtype: str, path: str) -> "np.ndarray":
    import numpy as np

    with np.errstate(over="ignore"):
        cast = values.astype(dtype)
    if not np.isfinite(cast).all():
        raise ValueError(f"{path}: some numbers are too large for {dtype}")
    return cast


def _fit(table: "Table", predicted: "np.ndarray") -> list[tuple[str, str]]:
    """How well the network fits the training data, in the task's usual measure."""
    import numpy as np

    if table.classes is not None:
        correct = np.mean(predicted.argmax(axis=1) == table.Y.argmax(axis=1))
        return [("training accuracy", f"{100 * correct:.1f} %")]
    facts = []
    for k, name in enumerate(table.target_names):
        y = table.Y[:, k]
        error = np.sum((predicted[:, k] - y) ** 2)
        spread = np.sum((y - y.mean()) ** 2)
        r2 = f"{1 - error / spread:.4f}" if spread > 0 else "undefined (constant target)"
        of = f" ({name})" if len(table.target_names) > 1 else ""
        facts.append((f"training R2, RMSE{of}", f"{r2}, {math.sqrt(error / len(y)):.6g}"))
    return facts


def _about(
    arguments: argparse.Namespace,
    table: "Table",
    scaling: dict[str, list[float]] | None,
    weight_decay: float,
    result: "TrainingResult | PathPoint",
) -> dict[str, Any]:
    """What a network's file says about it: how to predict with it, and how good it is."""
    return {
        "jaxcvxnn": _version("jaxcvxnn"),
        "task": table.task,
        "classes": table.classes,
        "target_names": table.target_names,
        "feature_names": table.feature_names,
        "feature_columns": table.feature_columns,
        "file_columns": table.file_columns,
        "standardize": scaling,
        "weight_decay": weight_decay,
        "bias": arguments.bias,
        "seed": arguments.seed,
        "dtype": arguments.dtype,
        "upper_bound": _finite(result.upper_bound),
        "lower_bound": _finite(result.lower_bound),
        "status": result.status,
    }


def _plot(arguments: argparse.Namespace, result: "TrainingResult") -> tuple[str, str]:
    from ..files.plots import plot_bounds
    from ..improve.gradient_descent import train_sgd

    _, losses, steps = train_sgd(
        result.problem, width=arguments.width, steps=_ADAM_STEPS, seed=arguments.seed
    )
    plot_bounds(result, {f"Adam, {arguments.width} neurons": (steps, losses)}, arguments.plot)
    return "plot", f"{arguments.plot}   (Adam after {_ADAM_STEPS} steps: {float(losses[-1]):.9g})"


def _predict(arguments: argparse.Namespace) -> int:
    import jax
    import jax.numpy as jnp
    import numpy as np

    from ..files.storage import load_network
    from .tables import read_features

    with _user_input():
        network, about = load_network(arguments.model)
        try:
            names, scaling = about["feature_names"], about["standardize"]
            columns, width = about["feature_columns"], about["file_columns"]
            targets, classes = about["target_names"], about["classes"]
        except KeyError as error:
            raise ValueError(
                f"{arguments.model}: no {error} in its metadata; was it written by jaxcvxnn train?"
            ) from None
        X = read_features(
            arguments.data,
            names,
            columns,
            width,
            header="auto" if arguments.header is None else arguments.header,
            delimiter=_delimiter(arguments.delimiter),
        )
        X = _cast(_scaled(X, scaling), str(network.U.dtype), arguments.data)
    with jax.enable_x64(X.dtype == np.float64):
        outputs = np.asarray(network.predict(jnp.asarray(X)), np.float64)
    with _user_input():
        if arguments.out:
            with open(arguments.out, "w", encoding="utf-8", newline="") as file:
                _write_predictions(file, outputs, targets, classes)
            print(f"{len(outputs)} predictions written to {arguments.out}")
        else:
            _write_predictions(sys.stdout, outputs, targets, classes)
            sys.stdout.flush()
    return 0


def _write_predictions(
    file: Any, outputs: "np.ndarray", targets: list[str], classes: list[str] | None
) -> None:
    """For classes their name and the network's output for each of them; for numbers the outputs."""
    writer = csv.writer(file, lineterminator="\n")
    if classes is None:
        writer.writerow(targets)
        writer.writerows(outputs.tolist())
    else:
        writer.writerow([targets[0], *(f"output {name}" for name in classes)])
        best = outputs.argmax(axis=1)
        writer.writerows([classes[k], *row] for k, row in zip(best, outputs.tolist(), strict=True))


def _certify(arguments: argparse.Namespace) -> int:
    from ..files.storage import load_network
    from ..training.certify import certify

    started = time.perf_counter()
    with _user_input():
        network, about = load_network(arguments.model, plain=True)
        arguments.target = arguments.target or ",".join(about.get("target_names", ()))
        weight_decay = arguments.weight_decay or about.get("weight_decay")
        for name, value in (("--target", arguments.target), ("--weight-decay", weight_decay)):
            if not value:
                raise ValueError(f"{arguments.model} does not say it: give {name}")
        table = _read_table(arguments)
        X = _scaled(_like_trained(table, about, arguments.data), about.get("standardize"))
        result = certify(
            network,
            X,
            _targets(table, about, arguments.loss, arguments.data),
            weight_decay,
            loss=arguments.loss,
            time_limit=arguments.time_limit,
        )
    pays = result.price / result.weight_decay
    _print_facts(
        [
            ("training loss", f"{result.upper_bound:.9g}   (of this network)"),
            (
                "lower bound",
                f"{result.lower_bound:.9g}   (no network of any width has a lower loss)",
            ),
            ("relative gap", _gap(result.relative_gap)),
            ("proven by", result.bound_source),
            ("best new neuron", f"{pays:.6g} times its weight decay (it pays above 1)"),
            ("neurons", str(network.width)),
            ("time", f"{time.perf_counter() - started:.1f} s"),
        ]
    )
    return 0


def _like_trained(table: "Table", about: dict[str, Any], path: str) -> "np.ndarray":
    """The features in the order that the network was trained with, where its file tells."""
    names = about.get("feature_names")
    if not names or not table.header:
        return table.X
    missing = [name for name in names if name not in table.feature_names]
    if missing:
        raise ValueError(f"{path}: has no column {missing[0]!r}, a feature of the network")
    return table.X[:, [table.feature_names.index(name) for name in names]]


def _targets(table: "Table", about: dict[str, Any], loss: str, path: str) -> "np.ndarray":
    """One output per class, or one label where the loss is one of labels."""
    known = about.get("classes")
    if known and list(table.classes or ()) != list(known):
        raise ValueError(f"{path}: its classes are {table.classes}, the network's {known}")
    if loss in ("logistic", "hinge") and table.classes is not None:
        if len(table.classes) != 2:
            raise ValueError(f"--loss {loss} needs two classes; {path} has {len(table.classes)}")
        return table.Y.argmax(axis=1)
    return table.Y


def _demo(arguments: argparse.Namespace) -> int:
    import jax

    from ..files.demo_data import iris, random_trial
    from ..training.train import train

    started = time.perf_counter()
    sets = [("Random trial 0: 25 points in the plane, 5 outputs", lambda: random_trial(0))]
    if not arguments.quick:
        sets.append(("Iris, half of the flowers: 75 rows, 4 features, 3 classes", iris))
    with jax.enable_x64(True):
        for title, load in sets:
            try:
                X, Y = load()
            except ImportError as error:
                print(f"{title}: left out, {error}")
                continue
            print(f"{title}; weight decay 0.1", flush=True)
            with _progress(arguments.quiet) as progress:
                result = train(X, Y, 0.1, progress=progress)
            print(f"{result}\n", flush=True)
    print(f"demo done in {time.perf_counter() - started:.1f} s")
    return 0


def _check(_: argparse.Namespace) -> int:
    """Solve: X = (e1, -e1, e2, -e2), Y = diag(1, 2, 3, 4). A neuron sees at most one row of each
    antiparallel pair, and the outputs are orthogonal, so the rows decouple: p* = sum_i wd |y_i| -
    wd^2 / 2 = 0.98 at weight decay 0.1."""
    started = time.perf_counter()
    packages = ("jaxcvxnn", "jax", "jaxlib", "equinox", "lineax", "optax", "numpy")
    facts = [(name, _version(name)) for name in packages]
    facts.append(("Python", f"{platform.python_version()} on {platform.platform()}"))
    _print_facts(facts)
    problems: list[str] = []
    try:
        problems = _check_jax()
    except Exception as error:  # whatever is broken here is what the user wants to hear about
        problems.append(f"{type(error).__name__}: {error}")
    for problem in problems:
        print(f"FAILED: {problem}")
    print(f"{'FAILED' if problems else 'ok'} in {time.perf_counter() - started:.1f} s")
    return 1 if problems else 0


def _check_jax() -> list[str]:
    """Print what there is to know about this JAX and return what is wrong."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from ..training.train import train

    problems = []
    _print_facts([("devices", ", ".join(str(device) for device in jax.devices()))])
    with jax.enable_x64(True):
        doubles = jnp.asarray(1.0, jnp.float64) + 2.0**-50
        has_doubles = doubles.dtype == np.float64 and float(doubles) > 1
        tiny = jax.jit(lambda x: x * 0.5)(jnp.asarray(np.finfo(np.float64).tiny))
        _print_facts(
            [
                ("float64", "available" if has_doubles else "NOT available"),
                (
                    "denormals",
                    "kept"
                    if float(tiny) > 0
                    else "flushed to 0 by JAX (bounds are not affected: NumPy computes them)",
                ),
            ]
        )
        if not has_doubles:
            problems.append("float64 does not work on this device")
        X = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
        Y = np.diag([1.0, 2, 3, 4])
        optimum = 0.98
        result = train(X, Y, 0.1)
    _print_facts(
        [("test problem", f"{result.lower_bound:.9f} <= {optimum} <= {result.upper_bound:.9f}")]
    )
    # The certificate may round in the direction of safety, never in the other.
    if not result.lower_bound <= optimum:
        problems.append(f"the lower bound {result.lower_bound!r} is above the optimum {optimum}")
    if not result.upper_bound >= optimum * (1 - 1e-12):
        problems.append(f"the upper bound {result.upper_bound!r} is below the optimum {optimum}")
    if not result.relative_gap <= 1e-3:
        problems.append(f"the relative gap is {result.relative_gap!r}, expected at most 0.001")
    return problems


@contextlib.contextmanager
def _progress(quiet: bool) -> Iterator[Any]:
    if quiet:
        yield None
        return
    from .progress import TerminalProgress

    with TerminalProgress() as progress:
        yield progress


def _print_facts(facts: Sequence[tuple[str, str]]) -> None:
    for name, value in facts:
        print(f"  {name:<18}  {value}", flush=True)


def _gap(gap: float) -> str:
    return (
        f"{gap:.2g}   (the optimum is at most {100 * gap:.2g} % below this loss)"
        if math.isfinite(gap)
        else "unknown"
    )


def _finite(value: float) -> float | None:
    """JSON has no infinity."""
    return float(value) if math.isfinite(value) else None


def _delimiter(name: str | None) -> str | None:
    return "\t" if name in ("tab", "\\t") else name


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _positive(text: str) -> float:
    with contextlib.suppress(ValueError):
        value = float(text)
        if value > 0 and math.isfinite(value):
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")


def _positives(text: str) -> list[float]:
    return [_positive(part.strip()) for part in text.split(",")]


def _count(text: str) -> int:
    with contextlib.suppress(ValueError):
        if (value := int(text)) >= 1:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
