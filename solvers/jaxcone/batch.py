"""Many programs of one shape in one call from the host, in the way that suits the device."""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from .methods.abstract import AbstractSolver
from .methods.splitting import Splitting
from .program import AbstractConeProgram
from .solution import Solution
from .solve import solve


def solve_batch(
    programs: AbstractConeProgram,
    solver: AbstractSolver | None = None,
    *,
    in_axes: PyTree = 0,
    workers: int | None = None,
) -> Solution:
    """Solve many programs of one shape from the host, on all cores of a CPU.

    On a CPU the lanes are cut into as many pieces as there are `workers`, each of which solves its
    lanes one after the other on a core of its own: small factorisations fill a core, a piece stays in
    its cache, and no lane waits for a slower one. (Inside a `jit`, where there are no threads, use
    `jax.vmap` of `solve`.) On an accelerator the batch is one `vmap`. Compiled once per shape, by the
    calling thread; new numbers compile nothing.

    **Arguments:**

    - `programs`: one program whose arrays have a leading axis for the lanes, as `jax.vmap` makes it:
      `jax.vmap(lambda c, b: ConeProgram(None, c, A, b, cones))(c, b)`.
    - `solver`: `Splitting()` by default; one for all lanes.
    - `in_axes`: 0 where arrays have the leading axis and None where lanes share them: one of these,
      or a tree of them that begins like that of `programs`, as in `jax.vmap`.
    - `workers`: threads on a CPU, by default one per core. Programs with several PSD blocks of one
      side have one: their batched factorisations, on two threads, would wait for each other for ever
      (`after` tells why).

    **Returns** the `Solution` of all lanes, in order: on a CPU, what `solve` returns for each.

    **Raises** a `ValueError` for `workers` below one, an axis that is neither 0 nor None, and lanes
    of different number.
    """
    workers = os.cpu_count() or 1 if workers is None else workers
    if workers < 1:
        raise ValueError(f"workers must be at least 1; got {workers!r}.")
    lanes, shared = _split(programs, in_axes)
    count = _count(lanes)
    solver = jax.tree.map(jnp.asarray, Splitting() if solver is None else solver)
    if jax.devices()[0].platform != "cpu":
        return _together(lanes, shared, solver)
    if _batches_factorisations(lanes, shared, solver):
        workers = 1
    wide = jax.config.read("jax_enable_x64")

    def piece(start: int, stop: int) -> Solution:
        with jax.enable_x64(wide):  # each thread has its own
            found = _in_turn(lanes, shared, solver, jnp.asarray(start), jnp.asarray(stop))
            return jax.tree.map(lambda leaf: np.asarray(leaf)[start:stop], found)

    # Compiling in several threads is not safe with a compilation cache on disk.
    piece(0, 0)
    ends = np.linspace(0, count, min(workers, count) + 1).astype(int)
    with ThreadPoolExecutor(workers) as pool:
        found = list(pool.map(piece, ends[:-1], ends[1:]))
    return jax.tree.map(lambda *parts: jnp.asarray(np.concatenate(parts)), *found)


def _split(programs: AbstractConeProgram, in_axes: PyTree) -> tuple[PyTree, PyTree]:
    """(arrays with a lane axis, all else)."""

    def nothing(node):
        return node is None

    axes = jax.tree.leaves(in_axes, is_leaf=nothing)
    if any(axis is not None and (isinstance(axis, bool) or axis != 0) for axis in axes):
        raise ValueError(f"in_axes: expected 0 or None for each array, got {in_axes}.")
    arrays, rest = eqx.partition(programs, eqx.is_array)
    has_lanes = jax.tree.map(lambda axis: axis is not None, in_axes, is_leaf=nothing)
    try:
        lanes, shared = eqx.partition(arrays, has_lanes)
    except ValueError as error:
        raise ValueError(f"in_axes: not the beginning of the tree of `programs`: {error}") from None
    return lanes, eqx.combine(shared, rest)


def _count(lanes: PyTree) -> int:
    shapes = [leaf.shape for leaf in jax.tree.leaves(lanes)]
    counts = {shape[0] if shape else 0 for shape in shapes}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(f"programs: expected the same number of lanes in all, got {shapes}.")
    return counts.pop()


def _lane(lanes: PyTree, shared: PyTree, index: Any) -> AbstractConeProgram:
    return eqx.combine(jax.tree.map(lambda leaf: leaf[index], lanes), shared)


@eqx.filter_jit
def _together(lanes, shared, solver):
    return jax.vmap(lambda lane: solve(eqx.combine(lane, shared), solver))(lanes)


@eqx.filter_jit
def _in_turn(lanes, shared, solver, start, stop):
    """The lanes from `start` to before `stop`; zeros in place of the others."""
    like = jax.eval_shape(lambda: solve(_lane(lanes, shared, 0), solver))
    count = _count(lanes)
    nothing = jax.tree.map(lambda leaf: jnp.zeros((count, *leaf.shape), leaf.dtype), like)

    def one(index, found):
        solution = solve(_lane(lanes, shared, index), solver)
        return jax.tree.map(lambda all_, new: all_.at[index].set(new), found, solution)

    return jax.lax.fori_loop(start, stop, one, nothing)


# The primitives that LAPACK computes.
FACTORISATIONS = {
    "cholesky",
    "eig",
    "eigh",
    "geqrf",
    "householder_product",
    "lu",
    "qr",
    "schur",
    "svd",
    "triangular_solve",
}


@eqx.filter_jit
def _batches_factorisations(lanes, shared, solver) -> bool:
    """Whether solving one lane factors several matrices at once; found out once per shape."""
    made = jax.make_jaxpr(lambda lanes: solve(_lane(lanes, shared, 0), solver))(lanes)
    return any(
        equation.primitive.name in FACTORISATIONS
        and math.prod(equation.invars[0].aval.shape[:-2]) > 1
        for equation in _equations(made.jaxpr)
    )


def _equations(jaxpr):
    """All equations, with those of the bodies of loops, branches and calls."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for part in value if isinstance(value, tuple | list) else [value]:
                body = getattr(part, "jaxpr", part)
                if hasattr(body, "eqns"):
                    yield from _equations(body)
