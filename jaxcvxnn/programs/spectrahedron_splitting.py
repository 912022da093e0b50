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

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from jaxcone import Status
from jaxcone.extend import (
    after,
    anderson,
    given_or,
    inside,
    iteration,
    matmul,
    norm,
    project_psd,
    require,
    whole,
)

from ..conic.quadratic_forms import AbstractForms, compress
from ..convolution import ConvolutionalProblem
from ..losses.base import AbstractLoss
from ..losses.regression import Squared
from ..problem import TrainingProblem
from .spectrahedron_points import Samples, balanced, bordered, effective_width, mass, samples_of


class SpectrahedronSplitting(eqx.Module):
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


class AbstractGram(eqx.Module):
    """Solves with 1/2 I + kappa Phi'Phi for any kappa; Phi'Phi may hold the samples' weights."""

    @property
    @abc.abstractmethod
    def largest(self) -> Float[Array, ""]:
        """The largest eigenvalue of Phi'Phi, of which a rough idea is enough."""

    @abc.abstractmethod
    def solve(self, kappa: Array, right: Float[Array, "c D"]) -> Float[Array, "c D"]:
        """(1/2 I + kappa Phi'Phi)^-1, row by row."""


class CoordinateGram(AbstractGram):
    """Phi'Phi = B diag(values) B', of the order of the coordinates: for more samples than these."""

    values: Float[Array, " D"]
    basis: Float[Array, "D D"]

    @property
    def largest(self):
        return self.values[-1]

    def solve(self, kappa, right):
        return matmul(matmul(right, self.basis) / (0.5 + kappa * self.values), self.basis.T)


class SampleGram(AbstractGram):
    """Phi Phi' = B diag(values) B', of the order of the samples."""

    values: Float[Array, " k"]
    basis: Float[Array, "k k"]
    rows: Float[Array, "k D"]

    @property
    def largest(self):
        return self.values[-1]

    def solve(self, kappa, right):
        # (1/2 I + kappa Phi'Phi)^-1 = 2 (I - Phi' (Phi Phi' + I / (2 kappa))^-1 Phi).
        rotated = matmul(matmul(right, self.rows.T), self.basis) * (
            kappa / (0.5 + kappa * self.values)
        )
        return 2 * right - 2 * matmul(matmul(rotated, self.basis.T), self.rows)


class ProductGram(AbstractGram):
    """Phi'Phi by products with the forms alone, O(n f^2) each: conjugate gradients."""

    forms: AbstractForms
    weights: Float[Array, " n"] | None

    @property
    def largest(self):
        size, dtype = self.forms.coordinates, self.forms.features.dtype
        start = jnp.ones((1, size), dtype) / size**0.5
        image = jax.lax.fori_loop(0, POWER_ROUNDS, lambda _, v: self._unit(self._apply(v)), start)
        return norm(self._apply(image))

    def solve(self, kappa, right):
        tolerance = 100 * float(jnp.finfo(right.dtype).eps)
        found, _ = jax.scipy.sparse.linalg.cg(
            lambda m: m / 2 + kappa * self._apply(m), right, tol=tolerance, maxiter=MOST_PRODUCTS
        )
        return found

    def _apply(self, vectors: Float[Array, "c D"]) -> Float[Array, "c D"]:
        forms = self.forms
        outputs = forms.outputs(forms.balance(forms.matrices(vectors)))
        weighted = outputs if self.weights is None else self.weights[:, None] * outputs
        return forms.vectors(forms.balance(forms.adjoint(weighted)))

    @staticmethod
    def _unit(vectors: Array) -> Array:
        length = norm(vectors)
        return vectors / jnp.where(length > 0, length, 1)


POWER_ROUNDS, MOST_PRODUCTS = 20, 200
# Up to this order Phi'Phi or Phi Phi' is diagonalised: docs/math/spectrahedra.md,
# "Neural spectrahedra".
LARGEST_GRAM = 2500


def _gram_and_pull(samples: Samples) -> tuple[AbstractGram, Float[Array, "*k s s"]]:
    """Phi'Phi and Phi'Y, both with the weights if the loss is the squared one."""
    forms, count = samples.forms, samples.targets.shape[0]
    weights = samples.weights if isinstance(samples.loss, Squared) else None
    if min(count, forms.coordinates) > LARGEST_GRAM:
        weighted = samples.targets if weights is None else weights[:, None] * samples.targets
        return ProductGram(forms, weights), forms.balance(forms.adjoint(weighted))
    loss = compress(forms, samples.targets, weights)
    pulled = forms.matrices(matmul(loss.targets.T, loss.rows))
    if count > forms.coordinates:
        values, basis = jnp.linalg.eigh(matmul(loss.rows.T, loss.rows))
        return CoordinateGram(jnp.maximum(values, 0), basis), pulled
    values, basis = jnp.linalg.eigh(matmul(loss.rows, loss.rows.T))
    return SampleGram(jnp.maximum(values, 0), basis, loss.rows), pulled


class Prepared(eqx.Module):
    """What depends on the samples alone: Phi'Phi, its largest eigenvalue, Phi'Y and ||Z||, about."""

    samples: Samples
    gram: AbstractGram
    pulled: Float[Array, "*k s s"]
    largest: Float[Array, ""]
    size: Float[Array, ""]

    @property
    def quadratic(self) -> bool:
        """Whether the loss stays in the linear problem."""
        return isinstance(self.samples.loss, Squared)

    def solve(self, kappa: Any, right: Float[Array, "*k s s"]) -> Float[Array, "*k s s"]:
        """argmin over M orthogonal to G of 1/4 |M|^2 + kappa/2 |<F_i, M>|^2 - <right, M>."""
        forms = self.samples.forms
        vectors = forms.vectors(forms.balance(right))
        return forms.balance(forms.matrices(self.gram.solve(jnp.asarray(kappa), vectors)))


# Ridge of the fit whose size is the first guess of ||Z||, in units of the largest eigenvalue.
GUESS_RIDGE = 1e-3


def prepare(samples: Samples) -> Prepared:
    """Compress and diagonalise, once for all weight decays."""
    gram, pulled = _gram_and_pull(samples)
    largest = gram.largest
    largest = jnp.where(largest > 0, largest, 1)
    prepared = Prepared(samples, gram, pulled, largest, jnp.zeros_like(largest))
    kappa = 0.5 / (GUESS_RIDGE * largest)
    size = norm(prepared.solve(kappa, kappa * pulled))
    return eqx.tree_at(lambda p: p.size, prepared, jnp.where(size > 0, size, 1))


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


def first_point(prepared: Prepared, weight_decay: Array) -> SplittingPoint:
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


def _begin(
    settings: SpectrahedronSplitting,
    prepared: Prepared,
    weight_decay: Array,
    start: SplittingPoint | None,
) -> State:
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


def _moved(start: SplittingPoint, own: SplittingPoint, prepared: Prepared) -> SplittingPoint:
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
    prepared: Prepared, point: SplittingPoint, reflected: Array, outputs: Array | None
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
    settings: SpectrahedronSplitting, prepared: Prepared, point: SplittingPoint
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


def _block(settings: SpectrahedronSplitting, prepared: Prepared, state: State) -> State:
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
    settings: SpectrahedronSplitting,
    prepared: Prepared,
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


def solve_prepared(
    settings: SpectrahedronSplitting,
    prepared: Prepared,
    weight_decay: Array,
    start: SplittingPoint | None,
) -> SpectrahedronSplit:
    """`solve_spectrahedron` for samples that are prepared already, from an earlier solution's point."""
    state = _begin(settings, prepared, weight_decay, start)
    state = iteration.run(lambda state: _block(settings, prepared, state), state)
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
