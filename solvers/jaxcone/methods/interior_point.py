"""A primal-dual interior-point method on the homogeneous embedding of the standard form.

The embedding (Goulart and Chen, 2024, "Clarabel", section 2; for quadratic objectives after Andersen
and Ye, 1999) has the residuals

    g_x = P x + A'z + c tau,   g_s = A x + s - b tau,   g_tau = kappa + x'P x / tau + c'x + b'z

and drives them to zero together with the complementarity of (s, z) and (tau, kappa). At the end
(x, s, z) / tau is a solution, or tau vanishes and x or z is a ray. Directions are those of Nesterov
and Todd with Mehrotra's corrector, for all of which one matrix is factored per step. See
docs/math/conic_methods.md, "The interior-point method".
"""

import math
import os

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from ..iteration import NEARLY, status_of
from ..program import AbstractConeProgram, AbstractInteriorForm
from ..pytrees import after, inner, matmul
from ..residuals import Residuals
from ..scalings import AbstractScaling, Blocks
from ..solution import Status
from .abstract import AbstractSolver
from .infeasibility import find_ray
from .record import Record, Triple, Yardstick, begin, choose
from .settings import given_or, inside, require, whole


class InteriorPoint(AbstractSolver["PreparedForm", "InteriorState"]):
    """Settings of the interior-point method. Loop sizes are static, the rest is traced.

    **Arguments:**

    - `tolerance`: on the three relative residuals; by default 1e-8 in float64, 1e-4 in float32.
    - `max_steps`: steps at most; each factors one matrix with a row per unknown.
    - `refinements`: corrections of each linear solve by its residual (static).
    - `ray_tolerance`: on proofs of infeasibility (`infeasibility`); by default 1e-6 in float64, 1e-3
      in float32.
    - `history`: how many steps the solution's `history` remembers (static).
    - `memory_limit`: bytes that one program may need; by default what the device or the host has.

    Raises a `ValueError` for settings that are out of range or not finite.
    """

    tolerance: float | Float[Array, ""] | None = None
    max_steps: int | Int[Array, ""] = 100
    refinements: int = eqx.field(static=True, default=2)
    ray_tolerance: float | Float[Array, ""] | None = None
    history: int = eqx.field(static=True, default=0)
    memory_limit: float | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        require(
            self.tolerance is None or inside(self.tolerance, 0, jnp.inf), self, "tolerance", "> 0"
        )
        require(whole(self.max_steps, 0), self, "max_steps", "a positive integer")
        require(whole(self.refinements, -1), self, "refinements", "an integer >= 0")
        rays = self.ray_tolerance
        require(rays is None or inside(rays, 0, jnp.inf), self, "ray_tolerance", "> 0 and finite")
        require(whole(self.history, -1), self, "history", "an integer >= 0")
        limit = self.memory_limit
        require(limit is None or inside(limit, 0, jnp.inf), self, "memory_limit", "> 0")

    def tolerance_for(self, dtype) -> Float[Array, ""]:
        """The tolerance in force for arrays of this dtype."""
        return given_or(self.tolerance, dtype, 1e-8, 1e-4)

    def ray_tolerance_for(self, dtype) -> Float[Array, ""]:
        """The tolerance on rays in force for arrays of this dtype."""
        return given_or(self.ray_tolerance, dtype, 1e-6, 1e-3)

    def prepare(self, program):
        return _prepare(self, program)

    def init(self, prepared, warm_start=None):
        del warm_start
        return _init(self, prepared)

    def block(self, prepared, state):
        return _step(self, prepared, state)

    def judge_again(self, state):
        fresh = Status.where(state.steps == 0, Status.running, _judge(self, state))
        return eqx.tree_at(lambda s: s.status, state, fresh)


def step_cost(program: AbstractConeProgram) -> tuple[float, float]:
    """(bytes, floating-point operations) of one step on one program, in orders of magnitude."""
    return _cost(eqx.filter_eval_shape(lambda p: p.interior(), program))


def _cost(form: AbstractInteriorForm) -> tuple[float, float]:
    n, m = form.size, form.layout.cones.rows
    itemsize = np.dtype(jax.tree.leaves(form)[0].dtype).itemsize
    entries, operations = form.cost()
    return float(itemsize * (3 * n**2 + entries + 20 * (n + m))), n**3 / 3 + operations


def _admit(solver: InteriorPoint, form: AbstractInteriorForm) -> None:
    """Refuse what does not fit; while a program is traced, so before anything is computed."""
    needed, _ = _cost(form)
    limit = available_memory() if solver.memory_limit is None else float(solver.memory_limit)
    if needed > limit:
        raise ValueError(
            f"InteriorPoint: a step on this program needs about {needed / 1e9:.2f} GB, and "
            f"{limit / 1e9:.2f} GB are free: use Splitting, or a device with more memory."
        )


def available_memory() -> float:
    """Bytes that may be used: of the accelerator if there is one, else of the host."""
    stats = jax.devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return float(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES")) * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return math.inf


class Iterate(eqx.Module):
    """A point of the embedding; s and z in the scaled space of the point before.

    Their own scaling is taken where a step begins, so that it is compiled once, not for the start too.
    """

    x: Float[Array, " n"]
    free: Float[Array, " e"]  # z at the equalities
    scaling: list[AbstractScaling]
    s: Blocks
    z: Blocks
    tau: Float[Array, ""]
    kappa: Float[Array, ""]


class Direction(eqx.Module):
    """Changes of an iterate; those of s and z in the scaled space."""

    x: Float[Array, " n"]
    free: Float[Array, " e"]
    s: Blocks
    z: Blocks
    tau: Float[Array, ""]
    kappa: Float[Array, ""]


class InteriorState(eqx.Module):
    """Everything that a later call needs to go on, bit for bit."""

    iterate: Iterate
    steps: Int[Array, ""]
    status: Status
    length: Float[Array, ""]  # of the last step
    since: Int[Array, ""]  # steps since the best triple, or a ray nearer than all before
    miss: Float[Array, ""]  # of the nearest ray
    sound: Array  # whether all numbers of the last step were finite
    record: Record


class PreparedForm(eqx.Module):
    """A program with all that does not change during its iteration."""

    yardstick: Yardstick
    form: AbstractInteriorForm


def _prepare(solver: InteriorPoint, program: AbstractConeProgram) -> PreparedForm:
    form = program.interior()
    _admit(solver, form)
    tangent_factor = after(program, form).tangent_factor()
    units = after(program, tangent_factor).units()
    return PreparedForm(Yardstick(program, tangent_factor, units), form)


def _init(solver: InteriorPoint, prepared: PreparedForm) -> InteriorState:
    form = after(prepared.form, prepared.yardstick.units)
    iterate = _start(solver, form)
    points = form.points(*_vectors(form, iterate))
    dtype = form.linear().dtype
    return InteriorState(
        iterate=iterate,
        steps=jnp.zeros((), jnp.int32),
        status=Status.running,
        length=jnp.ones((), dtype),
        since=jnp.zeros((), jnp.int32),
        miss=jnp.full((), jnp.inf, dtype),
        sound=jnp.asarray(True),
        record=begin(prepared.yardstick, points, solver.history),
    )


def _start(solver: InteriorPoint, form: AbstractInteriorForm) -> Iterate:
    """The form's own start, or the least-squares one of Vandenberghe (2010, section 5.3)."""
    layout, offset = form.layout, form.offset()
    one = jnp.ones((), offset.dtype)
    free = jnp.zeros(len(layout.equalities), offset.dtype)
    unit, given = layout.unit(offset.dtype), form.initial()
    if given is not None:
        x, s, z = given
        return Iterate(x, free, unit, s, z, one, _inner(s, z) / max(layout.degree, 1))
    system = _factor(form, unit)
    targets = offset[layout.equalities], layout.split(offset)
    x, free, z = system.solve(-form.linear(), *targets, solver.refinements)

    extremes = layout.extremes(after(z, system.lower))

    def inwards(sign, least):
        shifts = [jnp.where(value > 0.1, 0, 1 - value) for value in least]
        return [sign * p + t * w.identity() for p, t, w in zip(z, shifts, unit, strict=True)]

    s = inwards(-1, [-largest for _, largest in extremes])
    z = inwards(1, [least for least, _ in extremes])
    return Iterate(x, free, unit, after(s, extremes), z, one, one)


# SDPT3's rule (Toh, Todd and Tutuncu, 1999): nearer to the boundary the better the prediction was.
LEAST_FRACTION, MORE_FRACTION = 0.9, 0.09
# Mehrotra's corrector, repeated: two more solves with the factors at hand save a sixth of the steps
# and keep the iterates central, which is what makes x as accurate as the gap.
CORRECTORS = 3
# What is left of the complementarity by the longest steps: to aim below it is to leave the centre.
LEAST_CENTERING = 0.01
# Of the step, as a sign that the arithmetic gives out; and steps without any progress, which is a
# smaller residual, or a ray whose miss falls by this factor.
SHORTEST, PATIENCE, NEARER = 1e-6, 10, 0.9


def _step(solver: InteriorPoint, prepared: PreparedForm, state: InteriorState) -> InteriorState:
    following, length, descent = _advance(solver, prepared.form, state.iterate)
    sound = _finite(following)
    kept = choose(sound, following, state.iterate)
    form, yardstick = prepared.form, prepared.yardstick
    x, s, z = _vectors(form, kept)
    triple = form.points(x, s, z)
    found = yardstick.measure(*triple)
    better = (sound & (found.worst < state.record.residuals.worst)) | (state.steps == 0)
    kind, ray, miss = Status.running, state.record.ray, state.miss
    twin = form.twin()
    if twin is not None and not yardstick.program.solvable:
        kind, ray, miss = find_ray(
            yardstick.program,
            yardstick.tangent_factor,
            *twin,
            solver.ray_tolerance_for(x.dtype),
            # P x is of the size of sqrt(mu) along a ray of the iterates, of mu along one of `descent`.
            [after(x, found.primal), descent],
            [z],
        )
    # Along a ray residuals mean nothing: what falls there is how far it is from a proof.
    nearer = miss < NEARER * state.miss
    moved = InteriorState(
        iterate=kept,
        steps=state.steps + 1,
        status=state.status,
        length=length,
        since=jnp.where(better | nearer, 0, state.since + 1),
        miss=jnp.where(nearer, miss, state.miss),
        sound=sound,
        record=_extended(state.record, triple, found, better, kind, ray),
    )
    return eqx.tree_at(lambda s: s.status, moved, _judge(solver, moved))


def _extended(
    record: Record, triple: Triple, found: Residuals, better: Array, kind: Status, ray: Triple
) -> Record:
    """The record after a step. The last ray seen stays: rounding may hide it from later steps."""
    seen = kind != Status.running
    kind, ray = choose(seen, (kind, ray), (record.suspicion, record.ray))
    longer = record.extended(triple, found, better, kind, ray)
    confirmed = Status.where(seen, longer.confirmed, Status.running)
    return eqx.tree_at(lambda r: r.confirmed, longer, confirmed)


def _judge(solver: InteriorPoint, state: InteriorState) -> Status:
    record = state.record
    tolerance = solver.tolerance_for(record.residuals.primal.dtype)
    stuck = ~state.sound | (state.length < SHORTEST) | (state.since >= PATIENCE)
    # Two steps must agree on a proof, unless there is no second one: along a ray that the matrix
    # hardly sees, the first direction is so long that all later ones are rounding. A single one says
    # nothing against a point that is nearly optimal.
    found = record.residuals
    alone = stuck & (found.worst > NEARLY * tolerance)
    ray = Status.where(alone, record.suspicion, record.confirmed)
    return status_of(
        found.worst,
        tolerance,
        state.steps,
        solver.max_steps,
        stalled=stuck,
        proof=ray,
        # An unsound step was not taken: the iterate before it stands.
        sound=found.finite,
    )


def _vectors(form: AbstractInteriorForm, p: Iterate) -> tuple[Array, Array, Array]:
    """(x, s, z) / tau as vectors."""
    layout = form.layout
    s = layout.join(_each("up", p.scaling, p.s), jnp.zeros_like(p.free))
    z = layout.join(_each("to_dual", p.scaling, p.z), p.free)
    return p.x / p.tau, s / p.tau, z / p.tau


class _System(eqx.Module):
    """The factored system P dx + A'dz = r, A dx - W'W dz = t, with W = 0 at the equalities."""

    form: AbstractInteriorForm
    scaling: list[AbstractScaling]
    jacobi: Float[Array, " n"]
    lower: Float[Array, "n n"]
    rows: Float[Array, "e n"]
    reach: Float[Array, "n e"]
    schur_jacobi: Float[Array, " e"]
    schur: Float[Array, "e e"]

    def solve(
        self, right: Array, equal: Array, scaled: Blocks, refinements: int
    ) -> tuple[Array, Array, Blocks]:
        """(dx, dz at the equalities, W dz elsewhere); `scaled` is W^-T t.

        W dz is summed up from the corrections and never recomputed from dx: a rounding error of dx
        counts by (W'W)^-1 there, and the dual equation would not hold to better than that.
        """
        layout = self.form.layout

        def correct(_, found):
            dx, free, u = found
            z = layout.join(_each("to_dual", self.scaling, u), free)
            off = right - self.form.quadratic(dx) - self.form.adjoint(z)
            off_equal = equal - self.form.operator(dx)[layout.equalities]
            more, more_free = self._once(off, off_equal)
            image = layout.split(self.form.operator(more))
            u = _sum(u, _each("down", self.scaling, image))
            return dx + more, free + more_free, u

        start = jnp.zeros_like(right), jnp.zeros_like(equal), [-block for block in scaled]
        # A loop, so that there is less to compile.
        return jax.lax.fori_loop(0, refinements + 1, correct, start)

    def _once(self, right: Array, equal: Array) -> tuple[Array, Array]:
        if not self.rows.shape[0]:
            return self._normal(right), equal
        first = self._normal(right + matmul(self.rows.T, equal))
        miss = self.schur_jacobi * (matmul(self.rows, first) - equal)
        free = self.schur_jacobi * jax.scipy.linalg.cho_solve((self.schur, True), miss)
        return first - matmul(self.reach, free), free

    def _normal(self, right: Array) -> Array:
        return self.jacobi * jax.scipy.linalg.cho_solve((self.lower, True), self.jacobi * right)


def _factor(form: AbstractInteriorForm, scaling: list[AbstractScaling]) -> _System:
    rows = form.equality_rows()
    # E'E changes nothing where E dx is given, and makes the matrix definite.
    normal = form.normal(scaling) + matmul(rows.T, rows)
    jacobi, lower = _cholesky(normal)
    reach = jacobi[:, None] * jax.scipy.linalg.cho_solve(
        (lower, True), jacobi[:, None] * after(rows.T, lower)
    )
    schur_jacobi, schur = _cholesky(matmul(rows, reach))
    return _System(form, scaling, jacobi, lower, rows, reach, schur_jacobi, schur)


def _cholesky(matrix: Array) -> tuple[Array, Array]:
    """d and L with L L' = D (matrix) D plus a ridge of rounding size, D the scale to unit diagonal."""
    if not matrix.shape[0]:
        return jnp.zeros(0, matrix.dtype), matrix
    diagonal = jnp.diagonal(matrix)
    jacobi = jnp.where(diagonal > 0, diagonal, 1) ** -0.5
    ridge = 50 * jnp.finfo(matrix.dtype).eps * jnp.eye(matrix.shape[0], dtype=matrix.dtype)
    scaled = jacobi[:, None] * (matrix + matrix.T) / 2 * jacobi
    return jacobi, jnp.linalg.cholesky(scaled + ridge)


def _advance(
    solver: InteriorPoint, form: AbstractInteriorForm, p: Iterate
) -> tuple[Iterate, Float[Array, ""], Float[Array, " n"]]:
    """One predictor-corrector step, its length, and how x changes with tau.

    Along a ray of descent the last grows without end.
    """
    layout, scaling = form.layout, _moved(p)
    linear, offset = form.linear(), form.offset()
    points = [w.point() for w in scaling]
    s = layout.join(_each("up", scaling, points), jnp.zeros_like(p.free))
    z = layout.join(_each("to_dual", scaling, points), p.free)
    curved = form.quadratic(p.x)
    miss_x = curved + form.adjoint(z) + linear * p.tau
    miss_s = form.operator(p.x) + s - offset * p.tau
    miss_tau = p.kappa + inner(p.x, curved) / p.tau + inner(linear, p.x) + inner(offset, z)
    mu = (_inner(points, points) + p.tau * p.kappa) / (layout.degree + 1)
    system = _factor(form, scaling)
    miss_equal, miss_scaled = (
        miss_s[layout.equalities],
        _each("down", scaling, layout.split(miss_s)),
    )
    equal, scaled = offset[layout.equalities], _each("down", scaling, layout.split(offset))

    by_tau = system.solve(-linear, equal, scaled, solver.refinements)
    miss_x = after(miss_x, by_tau)
    apart = by_tau[0] - p.x / p.tau
    curvature = p.kappa / p.tau + inner(apart, form.quadratic(apart)) + _inner(by_tau[2], by_tau[2])
    slope = 2 * curved / p.tau + linear

    def towards(kept, shift, shift_kappa):
        """Residuals to 1 - `kept` of theirs, s o z by -`shift` and tau kappa by -`shift_kappa`."""
        target = [
            a - kept * b for a, b in zip(_each("divide", scaling, shift), miss_scaled, strict=True)
        ]
        dx, free, u = system.solve(-kept * miss_x, -kept * miss_equal, target, solver.refinements)
        gain = kept * miss_tau - shift_kappa / p.tau + inner(slope, dx)
        gain += inner(equal, free) + _inner(scaled, u)
        dtau = gain / curvature
        u = [a + dtau * b for a, b in zip(u, by_tau[2], strict=True)]
        ds = [-a - b for a, b in zip(_each("divide", scaling, shift), u, strict=True)]
        dkappa = -(shift_kappa + p.kappa * dtau) / p.tau
        return Direction(dx + dtau * by_tau[0], free + dtau * by_tau[1], ds, u, dtau, dkappa)

    squares = [w.product(a, a) for w, a in zip(scaling, points, strict=True)]

    def aim(which, found):
        """The predictor from nothing, then correctors, each from the one before: compiled once."""
        best, longest, predicted, sigma = found
        shift = [
            square + w.product(ds, dz) - sigma * mu * w.identity()
            for w, square, ds, dz in zip(scaling, squares, best.s, best.z, strict=True)
        ]
        second = best.tau * best.kappa - sigma * mu
        step = towards(1 - sigma, after(shift, longest), p.tau * p.kappa + second)
        # What rounding in the scaled space, times W'W, has left of the primal equation.
        change = layout.join(_each("up", scaling, step.s), jnp.zeros_like(p.free))
        change += form.operator(step.x) - offset * step.tau + (1 - sigma) * miss_s
        back = _each("down", scaling, layout.split(change))
        ds = [a - b for a, b in zip(step.s, back, strict=True)]
        step = eqx.tree_at(lambda d: d.s, step, ds)
        reach = _longest(p, scaling, step)
        better = (which < 2) | (jnp.minimum(reach, 1) >= jnp.minimum(longest, 1))
        best, longest = choose(better, (step, reach), (best, longest))
        predicted = jnp.where(which == 0, reach, predicted)
        aimed = jnp.maximum((1 - jnp.minimum(predicted, 1)) ** 3, LEAST_CENTERING)
        return best, longest, predicted, aimed

    nothing = [jnp.zeros_like(a) for a in points]
    none = Direction(0 * p.x, 0 * p.free, nothing, nothing, 0 * p.tau, 0 * p.kappa)
    one = after(jnp.ones_like(mu), by_tau)
    step, longest, predicted, _ = jax.lax.fori_loop(
        0, 1 + CORRECTORS, aim, (none, one, one, jnp.zeros_like(mu))
    )
    fraction = LEAST_FRACTION + MORE_FRACTION * jnp.minimum(predicted, 1)
    length = jnp.minimum(fraction * longest, 1)
    following = Iterate(
        p.x + length * step.x,
        p.free + length * step.free,
        scaling,
        [a + length * ds for a, ds in zip(points, step.s, strict=True)],
        [a + length * dz for a, dz in zip(points, step.z, strict=True)],
        p.tau + length * step.tau,
        p.kappa + length * step.kappa,
    )
    return _normalised(following), length, by_tau[0]


def _moved(p: Iterate) -> list[AbstractScaling]:
    """The scaling of an iterate's own s and z."""
    moved: list[AbstractScaling] = []
    for w, s, z in zip(p.scaling, p.s, p.z, strict=True):
        moved.append(w.moved(after(s, moved[-1:]), z))
    return moved


def _normalised(p: Iterate) -> Iterate:
    """The same point of the embedding, which is a cone, with max(tau, kappa) at most 1e4.

    Nothing else keeps it from growing without end where there is no solution.
    """
    size = jnp.maximum(p.tau, p.kappa)
    scale = jnp.where(size > 1e4, 1 / size, 1)
    s, z = [block * scale for block in p.s], [block * scale for block in p.z]
    return Iterate(p.x * scale, p.free * scale, p.scaling, s, z, p.tau * scale, p.kappa * scale)


def _longest(p: Iterate, scaling: list[AbstractScaling], d: Direction) -> Float[Array, ""]:
    """The largest step along d for which everything stays in its cone."""
    least = [d.tau / p.tau, d.kappa / p.kappa]
    for w, ds, dz in zip(scaling, d.s, d.z, strict=True):
        least.append(w.least(after(ds, least[-1:]), dz))
    worst = jnp.min(jnp.stack(least))
    return 1 / jnp.maximum(-worst, jnp.finfo(worst.dtype).eps)


def _each(method: str, scaling: list[AbstractScaling], blocks: Blocks) -> Blocks:
    return [getattr(w, method)(block) for w, block in zip(scaling, blocks, strict=True)]


def _sum(left: Blocks, right: Blocks) -> Blocks:
    return [a + b for a, b in zip(left, right, strict=True)]


def _inner(left: Blocks, right: Blocks) -> Array:
    total = sum(jnp.sum(a * b) for a, b in zip(left, right, strict=True))
    return jnp.asarray(total)


def _finite(tree: PyTree) -> Array:
    leaves = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]
    return jnp.all(jnp.stack(leaves))
