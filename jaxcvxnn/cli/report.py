"""What the commands print: facts about a result, and progress on the way to it."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import Any


def print_facts(facts: Sequence[tuple[str, str]]) -> None:
    """One line for each name and value."""
    for name, value in facts:
        print(f"  {name:<18}  {value}", flush=True)


def lower_bound(bound: float) -> tuple[str, str]:
    """The fact that a lower bound is."""
    return "lower bound", f"{bound:.9g}   (no network of any width has a lower loss)"


def relative_gap(gap: float) -> tuple[str, str]:
    """The fact that a relative gap is."""
    known = f"{gap:.2g}   (the optimum is at most {100 * gap:.2g} % below this loss)"
    return "relative gap", known if math.isfinite(gap) else "unknown"


@contextlib.contextmanager
def progress(quiet: bool) -> Iterator[Any]:
    """A callback that shows progress on the terminal, or None."""
    if quiet:
        yield None
        return
    from .progress import TerminalProgress

    with TerminalProgress() as shown:
        yield shown


def version(package: str) -> str:
    """The version of an installed package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
