"""`jaxcvxnn predict`: what a saved network says about the rows of a CSV file."""

import argparse
import csv
import sys
from typing import TYPE_CHECKING, Any

from .data import cast, delimiter, header, scaled
from .errors import user_input

if TYPE_CHECKING:
    import numpy as np


def run_predict(arguments: argparse.Namespace) -> int:
    """Predict for each row, to a file or to standard output."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from ..files.storage import load_network

    with user_input():
        network, about = load_network(arguments.model)
        X = _features(arguments, about, str(network.U.dtype))
    with jax.enable_x64(X.dtype == np.float64):
        outputs = np.asarray(network.predict(jnp.asarray(X)), np.float64)
    with user_input():
        _put(arguments.out, outputs, about)
    return 0


def _features(arguments: argparse.Namespace, about: dict[str, Any], dtype: str) -> "np.ndarray":
    """The features of the rows, as the network was trained on them."""
    from .tables import read_features

    told = ("feature_names", "standardize", "feature_columns", "file_columns")
    for name in (*told, "target_names", "classes"):
        if name not in about:
            raise ValueError(
                f"{arguments.model}: no {name!r} in its metadata; was it written by jaxcvxnn train?"
            )
    X = read_features(
        arguments.data,
        about["feature_names"],
        about["feature_columns"],
        about["file_columns"],
        header=header(arguments),
        delimiter=delimiter(arguments),
    )
    return cast(scaled(X, about["standardize"]), dtype, arguments.data)


def _put(out: str | None, outputs: "np.ndarray", about: dict[str, Any]) -> None:
    if out:
        with open(out, "w", encoding="utf-8", newline="") as file:
            _write(file, outputs, about["target_names"], about["classes"])
        print(f"{len(outputs)} predictions written to {out}")
    else:
        _write(sys.stdout, outputs, about["target_names"], about["classes"])
        sys.stdout.flush()


def _write(file: Any, outputs: "np.ndarray", targets: list[str], classes: list[str] | None) -> None:
    """For classes their name and the network's output for each of them; for numbers the outputs."""
    writer = csv.writer(file, lineterminator="\n")
    if classes is None:
        writer.writerow(targets)
        writer.writerows(outputs.tolist())
    else:
        writer.writerow([targets[0], *(f"output {name}" for name in classes)])
        best = outputs.argmax(axis=1)
        writer.writerows([classes[k], *row] for k, row in zip(best, outputs.tolist(), strict=True))
