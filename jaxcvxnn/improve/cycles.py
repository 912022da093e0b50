"""Growing and polishing in turn: new neurons where they pay, then a descent of all weights."""

from collections.abc import Callable

import jax

from ..activations import RELU
from ..job import Job
from ..networks import AbstractTwoLayer
from ..problem import TrainingProblem
from .insertion import grow, pad
from .polish import polish, prune

CYCLES = 3
# The relative gain of a cycle below which it is the last one.
GAIN = 1e-3


def grow_and_polish(
    problem: TrainingProblem,
    network: AbstractTwoLayer,
    *,
    width: int = 300,
    seed: int = 0,
    job: Job | None = None,
    watch: Callable[[AbstractTwoLayer, float], object] | None = None,
) -> AbstractTwoLayer:
    """The best network of at most `width` neurons that growing and descent in turn find, without idle
    neurons; at worst the given one. Growing is for ReLU; others are polished alone.

    `watch(network, part)` is told of the best so far and which part of the work is done; `job` ends it.
    """
    job = Job() if job is None else job
    best, value = network, float(problem.objective(network))

    def keep(found: AbstractTwoLayer, part: float) -> None:
        nonlocal best, value
        objective = float(problem.objective(found))
        if objective < value:
            best, value = found, objective
        job.tell(watch, best, part)

    key = jax.random.key(seed)
    # One width throughout: each is compiled afresh.
    start = pad(prune(best), width)
    for cycle in range(CYCLES):
        if job.over():
            break
        before = value
        key, draw = jax.random.split(key)

        def grown(network, _, done, cycle=cycle):
            keep(network, (cycle + done / 80) / CYCLES)

        def polished(network, _, step, of, cycle=cycle):
            keep(network, (cycle + 0.5 + step / of / 2) / CYCLES)

        if problem.activation == RELU:
            grow(problem, start, draw, width=width, job=job, watch=grown)
        polish(problem, pad(best, width), job=job, watch=polished)
        start = pad(prune(best, threshold=1e-6), width)
        if before - value < GAIN * value:
            break
    best = prune(best)
    pruned = prune(best, threshold=1e-9)
    return pruned if float(problem.objective(pruned)) <= float(problem.objective(best)) else best
