"""A CSV file as the arrays that the commands work on: read as the options say, scaled, and cast."""

import argparse
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

    from .tables import Table

Scaling = dict[str, list[float]]


def read(arguments: argparse.Namespace) -> "Table":
    """The training data that the options name."""
    from .tables import read_table

    return read_table(
        arguments.data,
        arguments.target,
        header=header(arguments),
        task=arguments.task,
        delimiter=delimiter(arguments),
        drop=[name.strip() for name in arguments.drop.split(",")] if arguments.drop else (),
    )


def header(arguments: argparse.Namespace) -> Literal["auto"] | bool:
    """Whether the file has a header, if the options say it."""
    return "auto" if arguments.header is None else arguments.header


def delimiter(arguments: argparse.Namespace) -> str | None:
    """What stands between cells, if the options say it."""
    return "\t" if arguments.delimiter in ("tab", "\\t") else arguments.delimiter


def arrays(
    arguments: argparse.Namespace, table: "Table"
) -> tuple["np.ndarray", "np.ndarray", Scaling | None]:
    """Features and targets in the precision asked for, and the scaling of the features."""
    scaling = _standard(table.X) if arguments.standardize else None
    X = cast(scaled(table.X, scaling), arguments.dtype, arguments.data)
    return X, cast(table.Y, arguments.dtype, arguments.data), scaling


def scaled(X: "np.ndarray", scaling: Scaling | None) -> "np.ndarray":
    """The features with the shift and the scale that the network was trained with."""
    import numpy as np

    if scaling is None:
        return X
    return (X - np.asarray(scaling["mean"])) / np.asarray(scaling["scale"])


def cast(values: "np.ndarray", dtype: str, path: str) -> "np.ndarray":
    """The values in another precision; refuses those that are infinite there."""
    import numpy as np

    with np.errstate(over="ignore"):
        found = values.astype(dtype)
    if not np.isfinite(found).all():
        raise ValueError(f"{path}: some numbers are too large for {dtype}")
    return found


def _standard(X: "np.ndarray") -> Scaling:
    """Per feature the mean and standard deviation; a constant feature is shifted only."""
    import numpy as np

    with np.errstate(over="ignore", invalid="ignore"):
        mean, deviation = X.mean(axis=0), X.std(axis=0)
    if not (np.isfinite(mean).all() and np.isfinite(deviation).all()):
        raise ValueError("some features are too large to be standardised")
    constant = (X == X[0]).all(axis=0) | (deviation == 0)
    mean[constant], deviation[constant] = X[0, constant], 1
    return {"mean": mean.tolist(), "scale": deviation.tolist()}
