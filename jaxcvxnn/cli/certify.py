"""`jaxcvxnn certify`: how far a saved network can be from the best one, with a proof."""

import argparse
import time
from typing import TYPE_CHECKING, Any

from ..losses.base import AbstractMarginLoss
from ..losses.named import LOSSES
from .data import read, scaled
from .errors import user_input
from .report import lower_bound, print_facts, relative_gap

if TYPE_CHECKING:
    import numpy as np

    from .tables import Table


def run_certify(arguments: argparse.Namespace) -> int:
    """Print a network's loss and a bound that no network beats."""
    from ..files.storage import load_network
    from ..training.certify import certify

    started = time.perf_counter()
    with user_input():
        network, about = load_network(arguments.model, plain=True)
        arguments.target = arguments.target or ",".join(about.get("target_names", ()))
        weight_decay = arguments.weight_decay or about.get("weight_decay")
        for name, value in (("--target", arguments.target), ("--weight-decay", weight_decay)):
            if not value:
                raise ValueError(f"{arguments.model} does not say it: give {name}")
        table = read(arguments)
        X = scaled(_like_trained(table, about, arguments.data), about.get("standardize"))
        result = certify(
            network,
            X,
            _targets(table, about, arguments.loss, arguments.data),
            weight_decay,
            loss=arguments.loss,
            time_limit=arguments.time_limit,
        )
    pays = result.price / result.weight_decay
    print_facts(
        [
            ("training loss", f"{result.upper_bound:.9g}   (of this network)"),
            lower_bound(result.lower_bound),
            relative_gap(result.relative_gap),
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
    if issubclass(LOSSES[loss], AbstractMarginLoss) and table.classes is not None:
        if len(table.classes) != 2:
            raise ValueError(f"--loss {loss} needs two classes; {path} has {len(table.classes)}")
        return table.Y.argmax(axis=1)
    return table.Y
