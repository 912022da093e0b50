"""A progress report for solves from the host."""

import sys
import time
from collections.abc import Callable
from typing import TextIO

from .solution import Solution, Status


def report(every: float = 1.0, stream: TextIO | None = None) -> Callable[[Solution], None]:
    """A function to `watch` a solve with: a line of steps and residuals, at most one per `every` s.

    **Arguments:** `stream`, by default standard error at the time of the call.

        jaxcone.solve_in_chunks(program, solver, watch=jaxcone.report())
    """
    if not every >= 0:
        raise ValueError(f"every: expected seconds >= 0, got {every!r}.")
    started = time.monotonic()
    last = -float("inf")

    def watch(solution: Solution) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < every and bool(solution.status == Status.running):
            return
        last = now
        found = solution.residuals
        print(
            f"{int(solution.steps):7d} steps  primal {float(found.primal_relative):.1e}  "
            f"dual {float(found.dual_relative):.1e}  gap {float(found.gap_relative):.1e}  "
            f"{now - started:.1f} s",
            file=sys.stderr if stream is None else stream,
            flush=True,
        )

    return watch
