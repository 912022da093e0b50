"""The options of every command, and what numbers they take."""

import argparse
import contextlib
import math
from typing import Any, NoReturn

from ..activations import ACTIVATIONS
from ..losses.named import LOSSES
from ..training.choose_route import ROUTES
from .errors import InputError
from .report import version

_WEIGHT_DECAYS = (1.0, 0.3, 0.1, 0.03, 0.01)
_TASKS = ("auto", "classification", "regression")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")


def options() -> argparse.ArgumentParser:
    """The parser of the whole command line; what it returns names its `command`."""
    parser = _Parser(
        prog="jaxcvxnn",
        description="Train two-layer networks by convex optimisation, with a proof of how "
        "good they are.",
    )
    parser.add_argument("--version", action="version", version=f"jaxcvxnn {version('jaxcvxnn')}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_train(commands)
    _add_path(commands)
    _add_predict(commands)
    _add_certify(commands)
    _add_demo(commands)
    _add_check(commands)
    return parser


def _add_train(commands: Any) -> None:
    train = commands.add_parser(
        "train",
        help="train a network on a CSV file",
        description="Train a network on a CSV file. Prints the training loss of the network and a "
        "lower bound that no network of any width can beat. The columns that are not the target "
        "are the features.",
    )
    _add_training_options(train)
    train.add_argument(
        "--weight-decay", type=_positive, default=0.1, metavar="NUMBER", help="default 0.1"
    )
    train.add_argument(
        "--program",
        choices=("auto", *ROUTES),
        default="auto",
        help="columns: neuron by neuron to the global optimum, for data of low rank; lifted: the "
        "semidefinite relaxation; spectrahedron: the exact program of polynomials; auto: the last "
        "for these, else columns up to rank 6 (default)",
    )
    train.add_argument(
        "--out", metavar="MODEL.npz", help="write the network there, for predict and load_network"
    )
    train.add_argument(
        "--plot",
        metavar="FILE",
        help="also train by Adam and draw its loss curve against the bounds (.png, .svg or .pdf)",
    )


def _add_path(commands: Any) -> None:
    path = commands.add_parser(
        "path",
        help="train at many weight decays",
        description="Train networks on a CSV file at many weight decays. Prints for each of them "
        "the training loss of the network and a lower bound that no network of any width can beat.",
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


def _add_predict(commands: Any) -> None:
    predict = commands.add_parser(
        "predict",
        help="predict with a saved network",
        description="Predict for each row of a CSV file. Columns are found by name; without a "
        "header the file must look like the training file or hold the features alone. A target "
        "column is ignored.",
    )
    predict.add_argument(
        "model", metavar="MODEL.npz", help="written by: jaxcvxnn train ... --out MODEL.npz"
    )
    predict.add_argument("data", metavar="DATA.csv")
    predict.add_argument("--out", metavar="PREDICTIONS.csv", help="default: standard output")
    _add_file_options(predict)


def _add_certify(commands: Any) -> None:
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
        choices=tuple(LOSSES),
        default="squared",
        help="summed over the rows (default squared: half of the sum of squares)",
    )
    certify.add_argument("--task", choices=_TASKS, default="auto")
    certify.add_argument(
        "--time-limit", type=_positive, default=60.0, metavar="SECONDS", help="default 60"
    )
    _add_file_options(certify)


def _add_demo(commands: Any) -> None:
    demo = commands.add_parser(
        "demo",
        help="train on two small data sets",
        description="Train on half of Fisher's iris flowers (if scikit-learn is installed) and on "
        "a synthetic data set.",
    )
    demo.add_argument("--quick", action="store_true", help="the synthetic data set only")
    demo.add_argument("--quiet", action="store_true", help="no progress")


def _add_check(commands: Any) -> None:
    commands.add_parser(
        "check",
        help="test this installation",
        description="Print versions and devices, and solve a tiny problem whose optimum is known.",
    )


def _add_training_options(parser: argparse.ArgumentParser) -> None:
    """What `train` and `path` share."""
    _add_column_options(parser)
    _add_network_options(parser)
    _add_file_options(parser)
    parser.add_argument(
        "--task",
        choices=_TASKS,
        default="auto",
        help="auto: classification if the target is text, or has at most 20 different values, all "
        "integers and each twice on average",
    )
    _add_effort_options(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress")


def _add_column_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA.csv", help="UTF-8 CSV file, one example per row")
    parser.add_argument(
        "--target",
        required=True,
        metavar="COLUMN",
        help="name or index (from 0; -1 is the last) of the column to predict; several, separated "
        "by commas, for a regression with several outputs (write --target=-2,-1 if it starts with "
        "a minus sign)",
    )
    parser.add_argument(
        "--drop",
        metavar="COLUMNS",
        help="names or indices of columns to leave out, separated by commas",
    )


def _add_network_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--activation",
        choices=tuple(ACTIVATIONS),
        default="relu",
        help="of the hidden neurons; polynomial: 0.09 t^2 + 0.5 t + 0.47, which is trained to the "
        "global optimum whatever the data (default relu)",
    )
    parser.add_argument("--bias", action="store_true", help="give the hidden neurons biases")
    parser.add_argument(
        "--standardize",
        action="store_true",
        help="shift and scale each feature to mean 0 and standard deviation 1; the loss and both "
        "bounds are then those of the standardised problem, and predict applies the same shift and "
        "scale",
    )


def _add_file_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--header",
        action=argparse.BooleanOptionalAction,
        help="whether the first row holds column names (default: found out)",
    )
    parser.add_argument(
        "--delimiter", metavar="CHARACTER", help='between cells, or "tab" (default: found out)'
    )


def _add_effort_options(parser: argparse.ArgumentParser) -> None:
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
        help="of the relaxation; auto: interior point where its matrices are small enough "
        "(default)",
    )
    parser.add_argument(
        "--time-limit", type=_positive, metavar="SECONDS", help="stop then with the best so far"
    )
    parser.add_argument(
        "--dtype", choices=("float64", "float32"), default="float64", help="default float64"
    )


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
