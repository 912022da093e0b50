"""Operator splitting (Douglas-Rachford on the standard form, which is ADMM) with acceleration.

One step from the splitting variable z, with s = proj_K(z) and y = penalty (s - z) in K*:

    x  = argmin 1/2 <x, P x> + <c, x> + penalty/2 ||A x - (b - (2 s - z))||^2
    z <- z + relaxation ((b - A x) - s)

(Eckstein and Bertsekas, 1992). Anderson acceleration acts on z. The steps run in blocks; between
blocks the residuals decide about the status, and the penalty balances primal and dual residual.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PyTree

from ..iteration import status_of
from ..program import AbstractConeProgram, Scaling
from ..pytrees import after, combine, norm, subtract
from ..residuals import Residuals
from ..solution import Status
from . import anderson
from .abstract import AbstractSolver
from .infeasibility import find_ray, onto_dual
from .record import Record, Yardstick, begin
from .settings import given_or, inside, require, whole


class Splitting(AbstractSolver["Prepared", "SplittingState"]):
    """Settings of the splitting method. Sizes of loops and buffers are static, the rest is traced.

    **Arguments:**

    - `tolerance`: on the three relative residuals; by default 1e-6 in float64, 1e-3 in float32.
    - `max_steps`: steps at most; rounded up to whole blocks.
    - `check_every`: steps in a block (static).
    - `relaxation`: in (0, 2); above 1 is over-relaxation.
    - `memory`: vectors in Anderson acceleration (static); 0 switches it off.
    - `penalty`: the first penalty, in the units of the equilibrated program.
    - `adapt_penalty`: whether blocks may change it (static).
    - `ray_tolerance`: on proofs of infeasibility (`infeasibility`); by default 1e-6 in float64, 1e-3
      in float32.
    - `history`: how many checks the solution's `history` remembers (static).

    Raises a `ValueError` for settings that are out of range or not finite.
    """

    tolerance: float | Float[Array, ""] | None = None
    max_steps: int | Int[Array, ""] = 5000
    check_every: int = eqx.field(static=True, default=50)
    relaxation: float | Float[Array, ""] = 1.6
    memory: int = eqx.field(static=True, default=15)
    penalty: float | Float[Array, ""] = 10.0
    adapt_penalty: bool = eqx.field(static=True, default=True)
    ray_tolerance: float | Float[Array, ""] | None = None
    history: int = eqx.field(static=True, default=0)

    def __check_init__(self):
        require(
            self.tolerance is None or inside(self.tolerance, 0, jnp.inf), self, "tolerance", "> 0"
        )
        require(whole(self.max_steps, 0), self, "max_steps", "a positive integer")
        require(whole(self.check_every, 0), self, "check_every", "a positive integer")
        require(inside(self.relaxation, 0, 2), self, "relaxation", "in (0, 2)")
        require(whole(self.memory, -1), self, "memory", "an integer >= 0")
        require(inside(self.penalty, 0, jnp.inf), self, "penalty", "> 0 and finite")
        rays = self.ray_tolerance
        require(rays is None or inside(rays, 0, jnp.inf), self, "ray_tolerance", "> 0 and finite")
        require(whole(self.history, -1), self, "history", "an integer >= 0")

    def prepare(self, program):
        return prepare(program)

    def init(self, prepared, warm_start=None):
        return init(self, prepared, warm_start)

    def block(self, prepared, state):
        return block(self, prepared, state)

    def judge_again(self, state):
        return judge_again(self, state)

    def tolerance_for(self, dtype) -> Float[Array, ""]:
        """The tolerance in force for arrays of this dtype."""
        return given_or(self.tolerance, dtype, 1e-6, 1e-3)

    def ray_tolerance_for(self, dtype) -> Float[Array, ""]:
        """The tolerance on rays in force for arrays of this dtype."""
        return given_or(self.ray_tolerance, dtype, 1e-6, 1e-3)


class Before(eqx.Module):
    """What a check compares with: x, y, ||s|| in equilibrated units and the dual residual before."""

    x: PyTree
    y: PyTree
    size: Float[Array, ""]
    dual: Float[Array, ""]


class SplittingState(eqx.Module):
    """Everything that a later call needs to go on, bit for bit."""

    point: PyTree  # the splitting variable z of the equilibrated program
    guess: PyTree  # its last x
    penalty: Float[Array, ""]
    acceleration: anderson.AndersonState | None
    steps: Int[Array, ""]
    status: Status
    before: Before
    record: Record


class Prepared(eqx.Module):
    """A program with all that does not change during its iteration."""

    yardstick: Yardstick
    start: tuple[PyTree, PyTree]
    scaled: AbstractConeProgram
    scaled_factor: PyTree
    scaling: Scaling


def prepare(program: AbstractConeProgram) -> Prepared:
    """Start, equilibrate and factor, once per call; in one line, for the reason `after` gives."""
    start = program.initial()
    scaled, scaling = after(program, start).equilibrate()
    scaled_factor = after(scaled, scaling).factor()
    tangent_factor = after(program, scaled_factor).tangent_factor()
    units = after(program, tangent_factor).units()
    yardstick = Yardstick(program, tangent_factor, units)
    return Prepared(yardstick, start, scaled, scaled_factor, scaling)


def init(
    solver: Splitting, prepared: Prepared, warm_start: tuple[PyTree, PyTree] | None = None
) -> SplittingState:
    """The state before the first step, from the program's own start or from (s, y) in user units.

    A warm start with a NaN or an infinity in it is replaced by the program's own start.
    """
    own = prepared.start
    if warm_start is not None:
        usable = jax.tree.reduce(
            jnp.logical_and, jax.tree.map(lambda a: jnp.all(jnp.isfinite(a)), warm_start)
        )
        own = jax.tree.map(
            lambda warm, cold: jnp.where(usable, jnp.asarray(warm, cold.dtype), cold),
            warm_start,
            own,
        )
    s, y = prepared.scaling.scale(*own)
    dtype = jax.tree.leaves(s)[0].dtype
    penalty = jnp.asarray(solver.penalty, dtype)
    point = combine(1, s, -1 / penalty, y)
    flat, _ = ravel_pytree(point)
    zero = jax.tree.map(jnp.zeros_like, prepared.scaled.linear())
    x, _ = _minimize(prepared, penalty, point, s, zero)
    triple = prepared.scaling.unscale(x, s, y)
    return SplittingState(
        point=point,
        guess=x,
        penalty=penalty,
        acceleration=anderson.start(flat, solver.memory) if solver.memory else None,
        steps=jnp.zeros((), jnp.int32),
        status=Status.running,
        before=Before(x, y, jnp.zeros((), dtype), jnp.zeros((), dtype)),
        record=begin(prepared.yardstick, triple, solver.history),
    )


def block(solver: Splitting, prepared: Prepared, state: SplittingState) -> SplittingState:
    """`check_every` steps, then one check: a triple, its residuals, a status, a new penalty."""
    flat, unravel = ravel_pytree(state.point)
    # sqrt(eps) would let the ridge dominate late; 1e-10 is what the Gram matrix can resolve.
    ridge = 1e-10 if flat.dtype == jnp.float64 else 1e-6

    def step(_, carry):
        flat, guess, acceleration = carry
        image, guess, _ = _advance(solver, prepared, state.penalty, unravel(flat), guess)
        image, _ = ravel_pytree(image)
        if acceleration is None:
            return image, guess, None
        following, acceleration = anderson.accelerate(
            acceleration, flat, image, regularization=ridge, growth=2.0
        )
        return following, guess, acceleration

    flat, guess, acceleration = jax.lax.fori_loop(
        0, solver.check_every, step, (flat, state.guess, state.acceleration)
    )
    steps = state.steps + solver.check_every
    point = unravel(flat)
    image, x, _ = _advance(solver, prepared, state.penalty, point, guess)
    s = prepared.scaled.project(image)
    # The difference first: where s = z it is exactly zero, so y stays in the dual cone.
    y = jax.tree.map(lambda a: state.penalty * a, subtract(s, image))
    triple = prepared.scaling.unscale(x, s, y)
    found = prepared.yardstick.measure(*triple)
    better = (found.worst < state.record.residuals.worst) | (state.steps == 0)
    kind, ray = state.record.suspicion, state.record.ray
    if not prepared.yardstick.program.solvable:
        kind, ray, _ = _look_for_ray(solver, prepared, state, x, y)
    record = state.record.extended(triple, found, better, kind, ray)
    following = SplittingState(
        point=point,
        guess=x,
        penalty=state.penalty,
        acceleration=acceleration,
        steps=steps,
        status=_judge(solver, record, steps, flat),
        before=Before(x, y, norm(s), found.dual),
        record=record,
    )
    if not solver.adapt_penalty:
        return following
    first = jnp.asarray(solver.penalty, flat.dtype)
    return _rebalance(first, following, s, y, found, state.before)


def judge_again(solver: Splitting, state: SplittingState) -> SplittingState:
    """The state with the status that these settings give it, which may differ from its own."""
    flat, _ = ravel_pytree(state.point)
    status = _judge(solver, state.record, state.steps, flat)
    fresh = Status.where(state.steps == 0, Status.running, status)  # not yet checked
    return eqx.tree_at(lambda s: s.status, state, fresh)


def _advance(
    solver: Splitting, prepared: Prepared, penalty: Float[Array, ""], point: PyTree, guess: PyTree
) -> tuple[PyTree, PyTree, PyTree]:
    """(the next z, x, s) from z = `point`."""
    s = prepared.scaled.project(point)
    x, slack = _minimize(prepared, penalty, point, s, guess)
    relaxation = jnp.asarray(solver.relaxation, penalty.dtype)
    return combine(1, point, relaxation, subtract(slack, s)), x, s


def _minimize(
    prepared: Prepared, penalty: Float[Array, ""], point: PyTree, s: PyTree, guess: PyTree
) -> tuple[PyTree, PyTree]:
    """The x-update and its slack b - A x."""
    offset = prepared.scaled.offset()
    target = subtract(offset, combine(2, s, -1, point))
    x = prepared.scaled.minimize(prepared.scaled_factor, penalty, target, guess)
    return x, subtract(offset, prepared.scaled.operator(x))


def _look_for_ray(solver, prepared, state, x, y):
    """Candidates: the change since the last check, and the iterate itself."""
    program = prepared.scaled
    return find_ray(
        prepared.yardstick.program,
        prepared.yardstick.tangent_factor,
        program,
        prepared.scaling,
        solver.ray_tolerance_for(state.penalty.dtype),
        [subtract(x, state.before.x), x],
        [onto_dual(program, after(subtract(y, state.before.y), x)), y],
    )


def _judge(solver: Splitting, record: Record, steps: Int[Array, ""], flat: Array) -> Status:
    found = record.residuals
    return status_of(
        found.worst,
        solver.tolerance_for(flat.dtype),
        steps,
        solver.max_steps,
        proof=record.confirmed,
        sound=found.finite & jnp.all(jnp.isfinite(flat)),
    )


# Measured on the programs of this project; see docs/math/lifted.md, "The penalty".
PENALTY_PER_RATIO = 10.0
CLEAR_IMBALANCE = 3.0
# Where s or y is zero at the solution the ratio means nothing; the penalty must not follow it.
LARGEST_CHANGE = 1e3


def _rebalance(
    first: Float[Array, ""],
    state: SplittingState,
    s: PyTree,
    y: PyTree,
    found: Residuals,
    before: Before,
) -> SplittingState:
    """Raise the penalty to a fixed multiple of ||y|| / ||s||, both in equilibrated units.

    With the ratio itself the primal and the dual part of the distance from start to solution would
    weigh alike in the bound on the number of steps; ten times that measured best. (Balancing
    residuals, Boyd et al., 2011, section 3.4.1, drives the penalty far too low here.) y grows from
    zero, so that the ratio is too small at first: only increases are trusted, except where the
    primal point runs away, as it does along a ray of descent, with speed 1 / penalty. A change keeps
    s and y, hence moves z and empties Anderson's memory, so only a clear imbalance counts.
    """
    sizes = norm(s), norm(y)
    ratio = PENALTY_PER_RATIO * sizes[1] / sizes[0] / state.penalty
    raised = state.penalty * jnp.minimum(ratio, 10.0)
    raises = (ratio > CLEAR_IMBALANCE) & jnp.isfinite(ratio) & (raised <= LARGEST_CHANGE * first)
    raises &= found.worst < 0.5  # a far excursion says nothing about the solution
    stuck = (found.dual_relative > 0.01) & (found.dual > 0.8 * before.dual)
    runs_away = stuck & (sizes[0] > 1.02 * before.size) & (ratio < 1)
    lowers = runs_away & (state.penalty > first / LARGEST_CHANGE) & ~raises
    change = raises | lowers
    penalty = jnp.where(raises, raised, jnp.where(lowers, state.penalty / 5, state.penalty))

    def pick(new: PyTree, old: PyTree) -> PyTree:
        return jax.tree.map(lambda a, b: jnp.where(change, a, b), new, old)

    point = pick(combine(1, s, -1 / penalty, y), state.point)
    acceleration = state.acceleration
    if acceleration is not None:
        flat, _ = ravel_pytree(point)
        fresh = eqx.tree_at(lambda a: a.image, anderson.restart(acceleration), flat)
        acceleration = pick(fresh, acceleration)
    return eqx.tree_at(
        lambda st: (st.point, st.penalty, st.acceleration),
        state,
        (point, penalty, acceleration),
        is_leaf=lambda node: node is None,
    )
