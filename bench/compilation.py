"""What the first call costs: CPU seconds of a fresh process's first and second call of five jobs.

    python -m bench.compilation [--against PYTHON] [--settings] [--repeats 3] [--jobs JOB ...]

Each run is a process of its own, without XLA_FLAGS and without a compilation cache. CPU seconds, user
and system, of the call alone: importing and starting the backend is not in them. They are medians
over the runs. `--against` names the interpreter of another checkout, run in turn with this one; its
columns come first. `--settings` adds the first call with a warm cache of JAX, and with the old emitters
of XLA (docs/compilation.md).
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable

# Every checkout has what stands here: the jobs are programs, not imports.
QP = """
program = jaxcone.ConeProgram(
    np.diag([2.0, 1.0, 1.0]), np.array([1.0, -1.0, 0.5]), np.array([[1.0, 1, 1], [1, 0, 0], [0, 1, 0]]),
    np.array([1.0, 0.7, 0.7]), [jaxcone.Zero(1), jaxcone.Nonnegative(2)],
)
"""
TRIAL = """
draw = np.random.default_rng(0).standard_normal
X, U, V = draw((25, 2)), draw((2, 100)), draw((100, 5))
Y = np.maximum(X @ U, 0) @ V
import jaxcvxnn
"""
CONES = """
cones = jaxcone.ProductCone([
    jaxcone.PSD(2), jaxcone.PSD(3), jaxcone.PSD(4), jaxcone.SecondOrder(3), jaxcone.SecondOrder(4),
    jaxcone.Nonnegative(3),
])
draw = np.random.default_rng(0).standard_normal
A = draw((cones.rows, 6))
b, c = A @ draw(6) + cones.identity(), -A.T @ cones.identity()
program = jaxcone.ConeProgram(np.eye(6), c, A, b, cones)
"""
JOBS = {
    "train, lifted, 25 x 2": (
        TRIAL,
        "jaxcvxnn.train(X, Y, weight_decay=0.1, program='lifted').lower_bound",
    ),
    "jaxcvxnn.solve, 25 x 2": (
        TRIAL,
        "jaxcvxnn.solve(jaxcvxnn.TrainingProblem(X, Y, 0.1)).objective",
    ),
    "QP, 3 variables": (QP, "jaxcone.solve(program).x"),
    "its gradient": (
        QP
        + """
import equinox as eqx
jax.block_until_ready(jaxcone.solve(program).x)
slope = jax.grad(lambda c: jaxcone.solve(eqx.tree_at(lambda p: p.c, program, c)).x.sum())
""",
        "slope(program.c)",
    ),
    "interior point, 5 cone sizes": (
        CONES,
        "jaxcone.solve(program, jaxcone.InteriorPoint()).x",
    ),
}

FRAME = """
import resource
import jax
import jax.numpy as jnp
import numpy as np
jax.config.update("jax_enable_x64", True)
import jaxcone
jax.devices()

def seconds():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime

{setup}
for _ in range(2):
    start = seconds()
    jax.block_until_ready({call})
    print(seconds() - start)
"""
OLD_EMITTERS = "--xla_cpu_use_fusion_emitters=false"
IGNORED = ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE")


def measure(python: str, job: str, extra: dict[str, str] | None = None) -> tuple[float, float]:
    """CPU seconds of the first and of the second call, in a fresh process of this interpreter."""
    setup, call = JOBS[job]
    environment = {name: value for name, value in os.environ.items() if name not in IGNORED}
    # More threads only wait for each other where something else runs, and waiting counts.
    environment["OPENBLAS_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as elsewhere:  # so that only installed packages are imported
        found = subprocess.run(
            [python, "-c", FRAME.format(setup=setup, call=call)],
            env={**environment, **(extra or {})},
            cwd=elsewhere,
            capture_output=True,
            text=True,
        )
    if found.returncode:
        raise RuntimeError(f"{python}, {job}: {found.stderr[-2000:]}")
    first, second = map(float, found.stdout.split())
    return first, second


def with_settings(job: str) -> list[tuple[float, float]]:
    """The same with a compilation cache that an earlier process has filled, and with other emitters."""
    with tempfile.TemporaryDirectory() as folder:
        cache = {
            "JAX_COMPILATION_CACHE_DIR": folder,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        measure(sys.executable, job, cache)
        cached = measure(sys.executable, job, cache)
    return [cached, measure(sys.executable, job, {"XLA_FLAGS": OLD_EMITTERS})]


def medians(runs: Iterable[tuple[float, float]]) -> list[float]:
    """The medians of first and of second calls."""
    return [statistics.median(column) for column in zip(*runs, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--against", help="the Python interpreter of another checkout")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--jobs", nargs="+", default=list(JOBS), choices=list(JOBS))
    parser.add_argument("--settings", action="store_true", help="also with a cache, and a flag")
    options = parser.parse_args()
    pythons = [sys.executable]
    heads = ["first", "second"]
    if options.against:
        pythons = [options.against, *pythons]
        heads = ["first, before", "second, before", "first, here", "second, here"]
    if options.settings:
        heads += ["first, cached", "second, cached", "first, flag", "second, flag"]
    print(" | ".join([f"{'job':28}", *heads]), flush=True)
    for job in options.jobs:
        turns = []
        for _ in range(options.repeats):
            turns.append([measure(python, job) for python in pythons])
            turns[-1] += with_settings(job) if options.settings else []
        figures = [x for runs in zip(*turns, strict=True) for x in medians(runs)]
        cells = [f"{x:{len(head)}.2f}" for x, head in zip(figures, heads, strict=True)]
        print(" | ".join([f"{job:28}", *cells]), flush=True)


if __name__ == "__main__":
    main()
