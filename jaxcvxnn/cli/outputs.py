"""Files that training writes: whether they can be, and what a network's file says about it."""

import argparse
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .report import version

if TYPE_CHECKING:
    from ..training.path import PathPoint
    from ..training.result import TrainingResult
    from .data import Scaling
    from .tables import Table


def check_outputs(*names: str | None, plot: str | None) -> None:
    """Find out before a long training that its result could not be written."""
    for name in (*names, plot):
        _check_writable(name)
    if plot:
        from ..files.plots import require_matplotlib

        require_matplotlib()
        if Path(plot).suffix.lower() not in (".png", ".svg", ".pdf"):
            raise ValueError(f"{plot}: a plot must end in .png, .svg or .pdf")


def _check_writable(name: str | None) -> None:
    folder = Path(name).parent if name else Path()
    if not folder.is_dir():
        raise ValueError(f"{name}: there is no folder {folder}")
    if not os.access(folder, os.W_OK):
        raise ValueError(f"{name}: the folder {folder} cannot be written to")
    if name and Path(name).is_dir():
        raise ValueError(f"{name}: is a folder")


def file_of(folder: str, weight_decay: float) -> str:
    """Where a path's network of that weight decay is written."""
    return str(Path(folder) / f"weight_decay_{weight_decay!r}.npz")


def about(
    arguments: argparse.Namespace,
    table: "Table",
    scaling: "Scaling | None",
    weight_decay: float,
    result: "TrainingResult | PathPoint",
) -> dict[str, Any]:
    """What a network's file says about it: how to predict with it, and how good it is."""
    return {
        "jaxcvxnn": version("jaxcvxnn"),
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


def _finite(value: float) -> float | None:
    """JSON has no infinity."""
    return float(value) if math.isfinite(value) else None
