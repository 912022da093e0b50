"""`jaxcvxnn check`: whether this installation finds an optimum that is known."""

import argparse
import platform
import time
from typing import TYPE_CHECKING

from .report import print_facts, version

if TYPE_CHECKING:
    from ..training.result import TrainingResult

_PACKAGES = ("jaxcvxnn", "jax", "jaxlib", "equinox", "lineax", "optax", "numpy")
_OPTIMUM = 0.98


def run_check(_: argparse.Namespace) -> int:
    """Print versions and devices, and solve a problem whose optimum is known."""
    started = time.perf_counter()
    facts = [(name, version(name)) for name in _PACKAGES]
    facts.append(("Python", f"{platform.python_version()} on {platform.platform()}"))
    print_facts(facts)
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

    print_facts([("devices", ", ".join(str(device) for device in jax.devices()))])
    with jax.enable_x64(True):
        problems = _check_numbers()
        result = _solve()
    found = f"{result.lower_bound:.9f} <= {_OPTIMUM} <= {result.upper_bound:.9f}"
    print_facts([("test problem", found)])
    return problems + _check_bounds(result)


def _check_numbers() -> list[str]:
    import jax
    import jax.numpy as jnp
    import numpy as np

    doubles = jnp.asarray(1.0, jnp.float64) + 2.0**-50
    has_doubles = doubles.dtype == np.float64 and float(doubles) > 1
    tiny = jax.jit(lambda x: x * 0.5)(jnp.asarray(np.finfo(np.float64).tiny))
    flushed = "flushed to 0 by JAX (bounds are not affected: NumPy computes them)"
    print_facts(
        [
            ("float64", "available" if has_doubles else "NOT available"),
            ("denormals", "kept" if float(tiny) > 0 else flushed),
        ]
    )
    return [] if has_doubles else ["float64 does not work on this device"]


def _solve() -> "TrainingResult":
    """X = (e1, -e1, e2, -e2), Y = diag(1, 2, 3, 4). A neuron sees at most one row of each antiparallel
    pair, and the outputs are orthogonal, so the rows decouple: p* = sum_i wd |y_i| - wd^2 / 2 = 0.98
    at weight decay 0.1."""
    import numpy as np

    from ..training.train import train

    X = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    return train(X, np.diag([1.0, 2, 3, 4]), 0.1)


def _check_bounds(result: "TrainingResult") -> list[str]:
    problems = []
    # The certificate may round in the direction of safety, never in the other.
    if not result.lower_bound <= _OPTIMUM:
        problems.append(f"the lower bound {result.lower_bound!r} is above the optimum {_OPTIMUM}")
    if not result.upper_bound >= _OPTIMUM * (1 - 1e-12):
        problems.append(f"the upper bound {result.upper_bound!r} is below the optimum {_OPTIMUM}")
    if not result.relative_gap <= 1e-3:
        problems.append(f"the relative gap is {result.relative_gap!r}, expected at most 0.001")
    return problems
