"""Many training problems in one call, each with its certificate, in the way that suits the device."""

import functools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxcone import AbstractSolver

from ..bound import Bound
from ..conic.lifted import lifted_program
from ..problem import TrainingProblem
from ..programs.relaxation import LiftedSolution, SDPRelaxation
from ..programs.solve import solve
from ..proof.lifted import LiftedProof
from ..reduction import Reduction, reduce
from .method_choice import named_solver


class CertifiedSolution(eqx.Module):
    """A solution of (lifted) for one problem, with the lower bound that its dual proves."""

    reduction: Reduction
    solution: LiftedSolution
    certificate: Bound[LiftedProof]


def solve_batch(
    problems: Sequence[TrainingProblem | Reduction],
    solver: AbstractSolver | str | None = None,
    *,
    workers: int | None = None,
) -> list[CertifiedSolution]:
    """Solve and certify (lifted) for many problems, in float64.

    On a CPU each problem is solved by itself, `workers` at a time: there one matrix fills a core, and
    a batch would wait for its slowest member. On an accelerator problems of one shape are one `vmap`.
    Compiled once per shape in either case.

    **Arguments:** `problems` may be reduced already; `solver` as in `train`, but "splitting" means
    `jaxcone.Splitting()`; `workers`, threads for solving and certifying, by default one per core.

    **Raises** a `ValueError` for a `solver` that is none, and for `workers` below one.
    """
    workers = os.cpu_count() or 1 if workers is None else workers
    if workers < 1:
        raise ValueError(f"workers must be at least 1; got {workers!r}.")
    with jax.enable_x64(True):
        reductions = [p if isinstance(p, Reduction) else reduce(p) for p in problems]
        data = [jax.tree.map(jnp.asarray, reduction.data) for reduction in reductions]
        settings = [named_solver(solver, lifted_program(one)) for one in data]
        with ThreadPoolExecutor(workers) as pool:
            if jax.devices()[0].platform == "cpu":
                found = _in_turn(data, settings, pool)
            else:
                found = _together(data, settings)
            certificates = list(pool.map(SDPRelaxation().certify, reductions, found))
    return [
        CertifiedSolution(*parts) for parts in zip(reductions, found, certificates, strict=True)
    ]


@eqx.filter_jit
def _solve(data, solver):
    return solve(data, method=solver)


def _alone(data, solver):
    with jax.enable_x64(True):  # each thread has its own
        return jax.block_until_ready(_solve(data, jax.tree.map(jnp.asarray, solver)))


def _in_turn(data, settings, pool):
    """Each by itself. The first of its shape before the others: compiling in several threads is not
    safe with a compilation cache on disk."""
    found: dict[int, LiftedSolution] = {}
    others: list[int] = []
    for first, *rest in _groups(data, settings).values():
        found[first] = _alone(data[first], settings[first])
        others += rest
    solved = pool.map(lambda index: _alone(data[index], settings[index]), others)
    found.update(zip(others, solved, strict=True))
    return [found[index] for index in range(len(data))]


def _groups(data, settings) -> dict[object, list[int]]:
    """The numbers of the problems, by shape and solver."""
    groups: dict[object, list[int]] = {}
    for index, (one, solver) in enumerate(zip(data, settings, strict=True)):
        shapes = tuple(jnp.shape(leaf) for leaf in jax.tree.leaves(one))
        groups.setdefault((shapes, repr(solver)), []).append(index)
    return groups


def _together(data, settings):
    found: dict[int, LiftedSolution] = {}
    for members in _groups(data, settings).values():
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(data[i] for i in members))
        solver = jax.tree.map(jnp.asarray, settings[members[0]])
        lanes = eqx.filter_vmap(functools.partial(_solve, solver=solver))(stacked)
        for lane, index in enumerate(members):
            found[index] = jax.tree.map(lambda leaf, lane=lane: leaf[lane], lanes)
    return [found[index] for index in range(len(data))]
