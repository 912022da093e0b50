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
from ..job import Job, Pace
from ..problem import TrainingProblem
from .abstract import AbstractFound, AbstractMethod
from .spectrahedron_points import Samples, bordered, effective_width, samples_of
from .spectrahedron_steps import (
    SpectrahedronSettings,
    SplittingPoint,
    State,
    block,
    first_point,
    init,
)
from .spectrahedron_systems import PreparedSamples, prepare

# Steps between two reports.
CHUNK_STEPS = 500


class SpectrahedronSplit(AbstractFound):
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


class SpectrahedronSplitting(SpectrahedronSettings, AbstractMethod):
    """The splitting method of (21) and (convolutional): any loss, many samples, `jit` and `vmap`.

    For `NeuralSpectrahedron` and `ConvolutionalSpectrahedron`. Sizes of loops and buffers are static,
    the rest is traced. Nothing is raised for a poor solve: read its status.

    **Arguments:**

    - `tolerance`: on (objective - dual_objective) / |objective|; by default 1e-6 in float64, 1e-3 in
      float32.
    - `max_steps`: steps at most; rounded up to whole blocks.
    - `check_every`: steps between two looks at the gap (static).
    - `relaxation`: in (0, 2); above 1 is over-relaxation.
    - `memory`: vectors in Anderson acceleration (static); 0 switches it off. By default 10 for the
      squared loss, else 30.
    """

    def solve(
        self, program: Any, data: Any, warm_start: SpectrahedronSplit | None = None
    ) -> SpectrahedronSplit:
        start = None if warm_start is None else warm_start.point
        prepared = prepare(_samples(program, data))
        return solve_prepared(self, prepared, jnp.asarray(data.weight_decay), start)

    def on_host(self, program, data, warm_start, job, watch):
        samples = _samples(program, data)
        prepared = job.chunk(lambda: jax.block_until_ready(prepare_on_host(samples)))
        if prepared is None:
            return None
        start = None if warm_start is None else warm_start.point
        return solve_on_host(
            self, prepared, data.weight_decay, start, job, lambda found: job.tell(watch, found)
        )


def _samples(program: Any, data: Any) -> Samples:
    samples = getattr(data, "samples", None)
    if not isinstance(samples, Samples):
        raise ValueError(
            "SpectrahedronSplitting takes the programs of polynomial activations; got "
            f"{type(program).__name__}."
        )
    return samples


def solve_prepared(
    settings: SpectrahedronSettings,
    prepared: PreparedSamples,
    weight_decay: Array,
    start: SplittingPoint | None,
) -> SpectrahedronSplit:
    """The solution for samples that are prepared already, from an earlier solution's point."""
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


def solve_on_host(
    settings: SpectrahedronSettings,
    prepared: PreparedSamples,
    weight_decay: Any,
    start: SplittingPoint | None,
    job: Job,
    watch: Callable[[SpectrahedronSplit], bool | None],
) -> SpectrahedronSplit | None:
    """`solve_prepared` in chunks of `CHUNK_STEPS`, the same states: `watch` ends it by returning True.

    None where the job is over before the first step.
    """
    settings = jax.tree.map(jnp.asarray, settings)
    state = job.chunk(lambda: _init(settings, prepared, weight_decay, start))
    if state is None:
        return None
    pace, found = Pace(job), None

    def further(blocks: int) -> State:
        nonlocal state
        state = jax.block_until_ready(_advance(settings, prepared, state, blocks))
        return state

    while found is None or bool(iteration.running(found)):
        done = pace.run(max(CHUNK_STEPS // settings.check_every, 1), further)
        if found is None and done is None and not int(state.steps):
            return None
        found = _finish(prepared, state)
        if watch(found) or job.over():
            break
    return found


# Of the module, so that a shape is compiled once, for all solves and tolerances.
_init, _finish, prepare_on_host = jax.jit(init), jax.jit(_found), jax.jit(prepare)


@jax.jit
def _advance(settings, prepared, state, blocks):
    return iteration.advance(lambda s: block(settings, prepared, s), state, blocks)


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
    for another activation.
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
