"""(21) of Bartan and Pilanci (2021) by the splitting method of its own: any loss, many samples.

One problem, or the same samples along weight decays; traced, or from the host in chunks. The iteration
is in `spectrahedron_steps`.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from jaxcone import Status
from jaxcone.extend import iteration

from ..convolution import ConvolutionalProblem
from ..problem import TrainingProblem
from .spectrahedron_points import bordered, effective_width, samples_of
from .spectrahedron_steps import (
    SpectrahedronSplitting,
    SplittingPoint,
    State,
    block,
    first_point,
    init,
)
from .spectrahedron_systems import PreparedSamples, prepare


class SpectrahedronSplit(eqx.Module):
    """A feasible point of (21) and a dual point, and the two bounds that they are, up to rounding.

    `positive` and `negative`, Z and Z' (c, f + 1, f + 1), are PSD with tr Z_1 = Z_4; f is the number
    of features. Convolutional networks have one for each of g pools, (g, c, f + 1, f + 1), and f is the
    size of a patch. `residual` R (n, c) is a subgradient of the loss at almost the fitted outputs, and
    `dual_objective` the dual value of its feasible multiple. `status` follows from the gap alone.
    """

    positive: Float[Array, "*k f1 f1"]
    negative: Float[Array, "*k f1 f1"]
    residual: Float[Array, "n c"]
    objective: Float[Array, ""]
    dual_objective: Float[Array, ""]
    status: Status
    steps: Int[Array, ""]
    point: SplittingPoint

    @property
    def relative_gap(self) -> Float[Array, ""]:
        """(objective - dual_objective) / |objective|."""
        tiny = jnp.finfo(self.objective.dtype).tiny
        return (self.objective - self.dual_objective) / jnp.maximum(jnp.abs(self.objective), tiny)


def solve_prepared(
    settings: SpectrahedronSplitting,
    prepared: PreparedSamples,
    weight_decay: Array,
    start: SplittingPoint | None,
) -> SpectrahedronSplit:
    """`solve_spectrahedron` for samples that are prepared already, from an earlier solution's point."""
    state = init(settings, prepared, weight_decay, start)
    return _found(prepared, iteration.run(lambda s: block(settings, prepared, s), state))


def _found(prepared: PreparedSamples, state: State) -> SpectrahedronSplit:
    positive, negative = bordered(prepared.samples.forms, state.matrices)
    return SpectrahedronSplit(
        positive=positive,
        negative=negative,
        residual=state.residual,
        objective=state.objective,
        dual_objective=state.dual_objective,
        status=state.status,
        steps=state.steps,
        point=state.point,
    )


def solve_in_chunks(
    settings: SpectrahedronSplitting,
    prepared: PreparedSamples,
    weight_decay: Any,
    start: SplittingPoint | None = None,
    *,
    blocks_per_chunk: int,
    watch: Callable[[SpectrahedronSplit], bool | None] | None = None,
) -> SpectrahedronSplit:
    """`solve_prepared` from the host, a few blocks at a time: the same states, up to rounding.

    `watch` and an interrupt end it as they end `jaxcone.solve_in_chunks`, with status `running`.
    """

    def further(state: State | None) -> State:
        if state is None:
            state = _init(settings, prepared, weight_decay, start)
        return jax.block_until_ready(_advance(settings, prepared, state, blocks_per_chunk))

    def seen(state: State) -> bool | None:
        return None if watch is None else watch(_finish(prepared, state))

    return _finish(prepared, iteration.chunks(further, watch=seen))


# Of the module, so that a shape is compiled once, for all solves and tolerances.
_init, _finish = jax.jit(init), jax.jit(_found)


@jax.jit
def _advance(settings, prepared, state, blocks):
    return iteration.advance(lambda s: block(settings, prepared, s), state, blocks)


def solve_spectrahedron(
    problem: TrainingProblem | ConvolutionalProblem,
    settings: SpectrahedronSplitting | None = None,
    *,
    sample_weights: Any = None,
    warm_start: SpectrahedronSplit | None = None,
) -> SpectrahedronSplit:
    """The global optimum of training with a polynomial activation; any loss, `jit` and `vmap`.

    **Arguments:** a `problem` with `activation=Polynomial(a, b, c)`, fully connected or convolutional;
    `settings`; `sample_weights` (n,), nonnegative factors of the samples' losses, where 0 leaves a
    sample out (a fold is a vector of zeros and ones: `vmap` over it, or over weight decays);
    `warm_start`, a solution of a problem of the same shapes, for instance at another weight decay.

    **Returns** a `SpectrahedronSplit`; read its `status`. Nothing is raised for a poor solve.

    **Raises** a `ValueError` for another activation and for weights that do not fit.
    """
    settings = SpectrahedronSplitting() if settings is None else settings
    prepared = prepare(samples_of(problem, sample_weights))
    start = None if warm_start is None else warm_start.point
    return solve_prepared(settings, prepared, jnp.asarray(problem.weight_decay), start)


class SpectrahedronPath(eqx.Module):
    """Solutions along weight decays, a leading axis w in all their arrays, and their widths m*."""

    weight_decays: Float[Array, " w"]
    solutions: SpectrahedronSplit
    widths: Int[Array, " w"]


def spectrahedron_path(
    problem: TrainingProblem | ConvolutionalProblem,
    weight_decays: Any,
    settings: SpectrahedronSplitting | None = None,
    *,
    sample_weights: Any = None,
) -> SpectrahedronPath:
    """The optimum at every one of `weight_decays` (w,), each from the one before; `jit` and `vmap`.

    Phi'Phi is diagonalised once. From large to small is the natural order. The problem's own weight
    decay plays no part. `widths` are the effective widths m* (`effective_width`).

    **Raises** a `ValueError` for weight decays that are not a vector of positive finite numbers, and
    as `solve_spectrahedron` does.
    """
    settings = SpectrahedronSplitting() if settings is None else settings
    samples = samples_of(problem, sample_weights)
    if not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(weight_decays)):
        # In NumPy: inside `jit`, JAX would trace the check of a constant.
        known = np.asarray(weight_decays)
        if not (np.all(known > 0) and np.all(np.isfinite(known))):
            raise ValueError(f"weight_decays must be positive and finite; got {weight_decays}.")
    weight_decays = jnp.asarray(weight_decays, samples.targets.dtype)
    if weight_decays.ndim != 1 or not weight_decays.size:
        raise ValueError(
            f"weight_decays must have shape (w,) with w >= 1; got {weight_decays.shape}."
        )
    prepared = prepare(samples)
    first = first_point(prepared, weight_decays[0])

    def solve_next(point, weight_decay):
        found = solve_prepared(settings, prepared, weight_decay, point)
        return found.point, found

    _, solutions = jax.lax.scan(solve_next, first, weight_decays)
    widths = jax.vmap(effective_width)(solutions.positive, solutions.negative)
    return SpectrahedronPath(weight_decays, solutions, widths)
