"""A splitting method of its own for (21) of Bartan and Pilanci (2021): any loss, many samples.

With M = Z - Z' and q = sigma f(X), one step from the splitting variable p = (P, P', q) with s =
(proj P, proj P', sigma prox_L(q / sigma)) solves a linear problem for x,

    min  wd/2 tr(Z + Z') + penalty/2 ||(Z, Z', sigma <F_i, Z - Z'>) - (2 s - p)||^2
    s.t. <G, Z> = <G, Z'> = 0

and moves p by relaxation (x - s), accelerated by Anderson's method. The squared loss stays in the
linear problem, on at most D rows, and there is no q. A step costs two eigendecompositions of order s
and the products with the forms. It ends on the duality gap of a feasible point and a feasible dual
point. Derivation: docs/math/spectrahedra.md, "Neural spectrahedra".
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from jaxcone import Status
from jaxcone.extend import (
    after,
    given_or,
    inside,
    iteration,
    norm,
    project_psd,
    require,
    whole,
)
from jaxcone.methods import anderson

from ..losses.base import AbstractLoss
from ..losses.regression import Squared
from .spectrahedron_points import Samples, balanced, mass
from .spectrahedron_systems import PreparedSamples


class SpectrahedronSettings(eqx.Module):
    """Settings. Sizes of loops and buffers are static, the rest is traced.

    **Arguments:**

    - `tolerance`: on (objective - dual_objective) / |objective|; by default 1e-6 in float64, 1e-3 in
      float32.
    - `max_steps`: steps at most; rounded up to whole blocks.
    - `check_every`: steps between two looks at the gap (static).
    - `relaxation`: in (0, 2); above 1 is over-relaxation.
    - `memory`: vectors in Anderson acceleration (static); 0 switches it off. By default 10 for the
      squared loss, else 30.
    """

    tolerance: float | Float[Array, ""] | None = None
    max_steps: int | Int[Array, ""] = 20000
    check_every: int = eqx.field(static=True, default=25)
    relaxation: float | Float[Array, ""] = 1.6
    memory: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        tolerance, memory = self.tolerance, self.memory
        require(tolerance is None or inside(tolerance, 0, jnp.inf), self, "tolerance", "> 0")
        require(whole(self.max_steps, 0), self, "max_steps", "a positive integer")
        require(whole(self.check_every, 0), self, "check_every", "a positive integer")
        require(inside(self.relaxation, 0, 2), self, "relaxation", "in (0, 2)")
        require(memory is None or whole(memory, -1), self, "memory", "an integer >= 0")

    def memory_for(self, loss: AbstractLoss) -> int:
        """The memory in force: other losses than the squared one converge more slowly."""
        if self.memory is None:
            return 10 if isinstance(loss, Squared) else 30
        return self.memory

    def tolerance_for(self, dtype: Any) -> Float[Array, ""]:
        """The tolerance in force for arrays of this dtype."""
        return given_or(self.tolerance, dtype, 1e-6, 1e-3)


class SplittingPoint(eqx.Module):
    """The splitting variable p and its metric: where a solve ended, and another may start.

    `matrices` is (P, P'); `outputs` is q = sigma times outputs, None for the squared loss; `coupling`
    is sigma.
    """

    matrices: Float[Array, "2 *k s s"]
    outputs: Float[Array, "n c"] | None
    penalty: Float[Array, ""]
    coupling: Float[Array, ""]
    weight_decay: Float[Array, ""]


class State(eqx.Module):
    """What a block starts from."""

    point: SplittingPoint
    acceleration: anderson.AndersonState | None
    matrices: Float[Array, "2 *k s s"]  # the best feasible point
    objective: Float[Array, ""]
    residual: Float[Array, "n c"]  # the best dual point
    dual_objective: Float[Array, ""]
    steps: Int[Array, ""]
    idle: Int[Array, ""]  # checks without progress
    status: Status


# Measured: docs/math/spectrahedra.md, "Neural spectrahedra". The penalties are these multiples of
# |y| / |s| of their blocks, and move where they are off by more than `CLEAR`, by `LARGEST_MOVE` at
# most, during the first steps.
MATRIX_RATIO, OUTPUT_RATIO = 3.0, 3.0
CLEAR, LARGEST_MOVE, LAST_MOVE = 3.0, 10.0, 2000
# The first sigma, in units of 1 / ||Phi||.
FIRST_COUPLING = 5.0
# After so many checks in which the gap lost less than this part of it nothing more is expected.
PATIENCE, PROGRESS = 40, 1e-3


def first_point(prepared: PreparedSamples, weight_decay: Array) -> SplittingPoint:
    """Where a solve starts that has no earlier one: zeros, and the penalties that the data suggest."""
    targets, forms = prepared.samples.targets, prepared.samples.forms
    places = forms.places(targets.shape[1])
    return SplittingPoint(
        matrices=jnp.zeros((2, *places, forms.side, forms.side), targets.dtype),
        outputs=None if prepared.quadratic else jnp.zeros_like(targets),
        penalty=weight_decay / prepared.size,
        coupling=FIRST_COUPLING / jnp.sqrt(prepared.largest),
        weight_decay=weight_decay,
    )


def init(
    settings: SpectrahedronSettings,
    prepared: PreparedSamples,
    weight_decay: Array,
    start: SplittingPoint | None,
) -> State:
    """The state before the first step, at an earlier point or at `first_point`."""
    samples = prepared.samples
    dtype = samples.targets.dtype
    own = first_point(prepared, weight_decay)
    point = own if start is None else _moved(start, own, prepared)
    flat, _ = ravel_pytree((point.matrices, point.outputs))
    memory = settings.memory_for(samples.loss)
    return State(
        point=point,
        acceleration=anderson.start(flat, memory) if memory else None,
        matrices=jnp.zeros_like(own.matrices),
        objective=jnp.asarray(jnp.inf, dtype),
        residual=jnp.zeros_like(samples.targets),
        dual_objective=jnp.asarray(-jnp.inf, dtype),
        steps=jnp.zeros((), jnp.int32),
        idle=jnp.zeros((), jnp.int32),
        status=Status.running,
    )


def _moved(start: SplittingPoint, own: SplittingPoint, prepared: PreparedSamples) -> SplittingPoint:
    """An earlier point at another weight decay, to which the matrices' multipliers are proportional."""
    change = own.weight_decay / start.weight_decay
    scaled = eqx.tree_at(
        lambda p: (p.penalty, p.weight_decay), start, (start.penalty * change, own.weight_decay)
    )
    if start.outputs is not None:
        fitted, shift = _proximal(prepared.samples, start)
        moved = start.coupling * (fitted - shift / change)
        scaled = eqx.tree_at(lambda p: p.outputs, scaled, moved)
    sound = jnp.all(jnp.isfinite(ravel_pytree(start)[0]))
    return jax.tree.map(lambda a, b: jnp.where(sound, a, b), scaled, own)


_project = jnp.vectorize(project_psd, signature="(s,s)->(s,s)")


def _proximal(
    samples: Samples, point: SplittingPoint
) -> tuple[Float[Array, "n c"], Float[Array, "n c"]]:
    """z, the prox of the loss at q / sigma, and z - q / sigma, exactly zero where nothing moves."""
    assert point.outputs is not None
    reached = point.outputs / point.coupling
    proximal = samples.prox(reached, 1 / (point.penalty * point.coupling**2))
    return proximal, proximal - reached


def _linear(
    prepared: PreparedSamples, point: SplittingPoint, reflected: Array, outputs: Array | None
) -> tuple[Float[Array, "*k s s"], Float[Array, "*k s s"]]:
    """(Z + Z', Z - Z') of the linear problem at 2 s - p."""
    forms = prepared.samples.forms
    identity = jnp.eye(forms.side, dtype=reflected.dtype)
    price = forms.trace_price * point.weight_decay / point.penalty
    total = reflected[0] + reflected[1] - 2 * price * identity
    half = (reflected[0] - reflected[1]) / 2
    if outputs is None:
        change = prepared.solve(1 / point.penalty, half + prepared.pulled / point.penalty)
    else:
        pulled = point.coupling * forms.adjoint(outputs)
        change = prepared.solve(point.coupling**2, half + pulled)
    return forms.balance(total), change


def _advance(
    settings: SpectrahedronSettings, prepared: PreparedSamples, point: SplittingPoint
) -> tuple[SplittingPoint, Float[Array, "*k s s"]]:
    """The next p, and Z - Z' of the linear problem."""
    relaxation = jnp.asarray(settings.relaxation, point.penalty.dtype)
    projected = _project(point.matrices)
    reflected = 2 * projected - point.matrices
    if point.outputs is None:
        total, change = _linear(prepared, point, reflected, None)
        outputs = None
    else:
        fitted, shift = _proximal(prepared.samples, point)
        total, change = _linear(prepared, point, reflected, point.coupling * (fitted + shift))
        reached = prepared.samples.forms.outputs(change)
        outputs = point.outputs + relaxation * point.coupling * (reached - fitted)
    solved = jnp.stack([total + change, total - change]) / 2
    matrices = point.matrices + relaxation * (solved - projected)
    following = SplittingPoint(matrices, outputs, point.penalty, point.coupling, point.weight_decay)
    return following, change


def block(settings: SpectrahedronSettings, prepared: PreparedSamples, state: State) -> State:
    """`check_every` steps, one check of both bounds, and perhaps other penalties."""
    before = state.point
    flat, unravel = ravel_pytree((before.matrices, before.outputs))
    ridge = 1e-10 if flat.dtype == jnp.float64 else 1e-6

    def at(flat):
        matrices, outputs = unravel(flat)
        return SplittingPoint(
            matrices, outputs, before.penalty, before.coupling, before.weight_decay
        )

    def step(_, carry):
        flat, acceleration, _ = carry
        following, change = _advance(settings, prepared, at(flat))
        image, _ = ravel_pytree((following.matrices, following.outputs))
        if acceleration is None:
            return image, None, change
        following, acceleration = anderson.accelerate(
            acceleration, flat, image, regularization=ridge, growth=2.0
        )
        return following, acceleration, change

    nothing = jnp.zeros_like(before.matrices[0])
    flat, acceleration, change = jax.lax.fori_loop(
        0, settings.check_every, step, (flat, state.acceleration, nothing)
    )
    point = at(flat)
    projected = _project(after(point.matrices, change))
    proximal = None if point.outputs is None else _proximal(prepared.samples, point)
    following = _check(settings, prepared, state, point, projected, proximal, change)
    moved, changed = _repenalised(point, projected, proximal, following.steps <= LAST_MOVE)
    point = jax.tree.map(lambda a, b: jnp.where(changed, a, b), moved, point)
    if acceleration is not None:
        flat, _ = ravel_pytree((point.matrices, point.outputs))
        fresh = eqx.tree_at(lambda a: a.image, anderson.restart(acceleration), flat)
        acceleration = jax.tree.map(lambda a, b: jnp.where(changed, a, b), fresh, acceleration)
    return eqx.tree_at(
        lambda s: (s.point, s.acceleration),
        following,
        (point, acceleration),
        is_leaf=lambda node: node is None,
    )


def _check(
    settings: SpectrahedronSettings,
    prepared: PreparedSamples,
    state: State,
    point: SplittingPoint,
    projected: Float[Array, "2 *k s s"],
    proximal: tuple[Float[Array, "n c"], Float[Array, "n c"]] | None,
    change: Float[Array, "*k s s"],
) -> State:
    """The state with what is best of it and of this point, and the status that the gap gives."""
    samples = prepared.samples
    forms, weight_decay = samples.forms, point.weight_decay
    feasible = balanced(forms, projected)
    outputs = forms.outputs(feasible[0] - feasible[1])
    objective = samples.value(outputs) + weight_decay * mass(forms, feasible)
    if proximal is None:
        dual = samples.gradient(forms.outputs(change))
    else:
        dual = -point.penalty * point.coupling**2 * proximal[1]
    residual, bound = samples.better_dual(
        after(samples.gradient(outputs), objective), dual, weight_decay
    )
    better, tighter = objective < state.objective, bound > state.dual_objective
    least = jnp.where(better, objective, state.objective)
    greatest = jnp.where(tighter, bound, state.dual_objective)
    gap, before = least - greatest, state.objective - state.dual_objective
    idle = jnp.where(gap < (1 - PROGRESS) * before, 0, state.idle + 1)
    steps = state.steps + settings.check_every
    status = iteration.status_of(
        gap,
        settings.tolerance_for(gap.dtype) * jnp.abs(least),
        steps,
        settings.max_steps,
        stalled=idle >= PATIENCE,
        sound=jnp.all(jnp.isfinite(point.matrices)) & ~jnp.isnan(objective),
    )
    return State(
        point=point,
        acceleration=state.acceleration,
        matrices=jnp.where(better, feasible, state.matrices),
        objective=least,
        residual=jnp.where(tighter, residual, state.residual),
        dual_objective=greatest,
        steps=steps,
        idle=idle,
        status=status,
    )


def _repenalised(
    point: SplittingPoint,
    projected: Float[Array, "2 *k s s"],
    proximal: tuple[Float[Array, "n c"], Float[Array, "n c"]] | None,
    early: Array,
) -> tuple[SplittingPoint, Array]:
    """The point with the penalties of its |y| / |s|, and whether one changed; s and y stay."""
    distance = projected - point.matrices
    wanted = _towards(point.penalty, MATRIX_RATIO, point.penalty * norm(distance), norm(projected))
    penalty = jnp.where(early, wanted, point.penalty)
    changed = penalty != point.penalty
    matrices = projected - distance * (point.penalty / penalty)
    if proximal is None:
        moved = SplittingPoint(matrices, None, penalty, point.coupling, point.weight_decay)
        return moved, changed
    fitted, shift = proximal
    old = point.penalty * point.coupling**2
    wanted = _towards(old, OUTPUT_RATIO, old * norm(shift), norm(fitted))
    new = jnp.where(early, wanted, old)
    coupling = jnp.sqrt(new / penalty)
    outputs = coupling * (fitted - shift * (old / new))
    moved = SplittingPoint(matrices, outputs, penalty, coupling, point.weight_decay)
    return moved, changed | (new != old)


def _towards(penalty: Array, multiple: float, multiplier: Array, size: Array) -> Array:
    """The penalty in force from now on: `multiple` |y| / |s|, if this is clearly another."""
    ratio = multiple * multiplier / (size * penalty)
    known = jnp.isfinite(ratio) & (ratio > 0)
    clear = known & ((ratio > CLEAR) | (ratio < 1 / CLEAR))
    return penalty * jnp.where(clear, jnp.clip(ratio, 1 / LARGEST_MOVE, LARGEST_MOVE), 1)
