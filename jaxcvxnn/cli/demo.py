"""`jaxcvxnn demo`: training on two small data sets."""

import argparse
import time

from .report import progress


def run_demo(arguments: argparse.Namespace) -> int:
    """Train on each data set that can be had, and print what came out."""
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
            with progress(arguments.quiet) as shown:
                result = train(X, Y, 0.1, progress=shown)
            print(f"{result}\n", flush=True)
    print(f"demo done in {time.perf_counter() - started:.1f} s")
    return 0
