"""A splitting method for (cone-lasso): the group norms, the cones and the loss by their proxes.

    min  L(z) + weight_decay sum |v_i|   s.t.  v = w,  s_i = S_i G w_i >= 0,  z = A w

by the alternating direction method of multipliers (Boyd et al., 2011, section 3). The w-step is one n x
n system for all cells and all penalties, of which an eigenbasis is computed once (`gates`). Unscaled
multipliers (a, m, r) of the three equations make every iterate a bound: r is in the domain of L* and m
<= 0, so that t r is feasible in the dual where t |A'r + G'S m|_i <= weight_decay for all i.
Derivation: docs/math/lasso.md, "The cone-constrained group lasso".
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxcone import Status
from jaxcone.extend import given_or, inside, iteration, require, whole

from ..conic.gates import Gates, GatesFactor
from ..losses.base import AbstractLoss
from .abstract import AbstractFound, AbstractMethod
from .cone_lasso_data import ConeLassoData, lengths, require_data

# A penalty changes where its primal and dual residuals differ by more than the square of this, and by
# at most the second factor; the first grows by 1 per so many steps, so that penalties settle.
CLEAR_IMBALANCE, LARGEST_CHANGE, SETTLING = 2.0, 10.0, 2000.0
# The penalty on an exact fit, in units of the other: measured, as without a loss z never moves.
EXACT_FIT = 30.0
# The length of the margins' rows, which divides one penalty between margins and norms. Measured: with
# shorter rows the margins settle late where samples are many, with longer ones the norms do.
MARGIN = 0.75
# The sum of norms, in units of what the largest target needs, beyond which there is no exact fit.
INFEASIBLE = 1e6


class SplitState(eqx.Module):
    """Everything that a later call goes on from, for one output, in equilibrated units."""

    weights: Float[Array, "2 p d"]  # v
    forces: Float[Array, "2 p d"]  # a
    margins: Float[Array, "2 p n"]  # s
    multipliers: Float[Array, "2 p n"]  # m <= 0
    outputs: Float[Array, " n"]  # z
    residual: Float[Array, " n"]  # r
    penalty: Float[Array, ""]  # of v and s
    fit_penalty: Float[Array, ""]  # of z


class ConeLassoSplit(AbstractFound):
    """The blocks of (cone-lasso), from the splitting method.

    `weights` (c, 2, P, d) are exactly zero in the blocks that are not used. `residual` (n, c) is a
    subgradient of the loss; of (25) the multiplier of the fit. `multipliers` (c, 2, P, n) are those of
    the margins S_i G w_i. With both `dual_objective` is at most the value of this program, up to
    rounding, however far the iteration got. `violation` is the norm of the margins' negative part,
    over rows of length one and relative to |w|; of an exact fit its relative error, if that is larger.
    Over several outputs the values are added, and the worst of the rest counts. The status
    `primal_infeasible` says that no exact fit has a sum of norms within 10^6 times max |y| / max |x|.
    """

    weights: Float[Array, "c 2 p d"]
    residual: Float[Array, "n c"]
    multipliers: Float[Array, "c 2 p n"]
    objective: Float[Array, ""]
    dual_objective: Float[Array, ""]
    violation: Float[Array, ""]
    status: Status
    steps: Int[Array, ""]
    state: SplitState
    norm: float = eqx.field(static=True)


class ConeLassoSplitting(AbstractMethod):
    """(cone-lasso) for any loss that is a sum over outputs; runs under `jit` and `vmap`.

    Under `vmap` over weight decays the one factorisation is shared. It passes no derivatives on; the
    cone program does. The size of its blocks is static, the other settings are traced. Nothing is
    raised for a poor solve: read its status.

    **Arguments:**

    - `tolerance`: on the relative duality gap of the program, the margins' violation relative to the
      weights, and an exact fit's error relative to the targets; by default 1e-6 in float64, 1e-3 in
      float32.
    - `max_steps`: steps at most; rounded up to whole blocks.
    - `check_every`: steps in a block (static).
    - `relaxation`: in (0, 2).

    **Raises** a `ValueError` for numbers that are out of range.
    """

    tolerance: float | Float[Array, ""] | None = None
    max_steps: int | Int[Array, ""] = 5000
    check_every: int = eqx.field(static=True, default=50)
    relaxation: float | Float[Array, ""] = 1.6

    def __check_init__(self):
        tolerance = self.tolerance
        require(tolerance is None or inside(tolerance, 0, jnp.inf), self, "tolerance", "> 0")
        require(whole(self.max_steps, 0), self, "max_steps", "a positive integer")
        require(whole(self.check_every, 0), self, "check_every", "a positive integer")
        require(inside(self.relaxation, 0, 2), self, "relaxation", "in (0, 2)")

    def tolerance_for(self, dtype) -> Float[Array, ""]:
        """The tolerance in force for arrays of this dtype."""
        return given_or(self.tolerance, dtype, 1e-6, 1e-3)

    def solve(
        self, program: Any, data: ConeLassoData, warm_start: ConeLassoSplit | None = None
    ) -> ConeLassoSplit:
        require_data(self, program, data)
        start = None if warm_start is None else _fitting(warm_start, data)
        return _split(data, jax.tree.map(jnp.asarray, self), start)


@eqx.filter_jit
def _split(
    data: ConeLassoData, settings: ConeLassoSplitting, start: SplitState | None
) -> ConeLassoSplit:
    work, unit, rows = _equilibrated(data, settings)
    if start is None:
        start = jax.vmap(work.cold)(data.targets.T)
    ends = jax.vmap(work.run)(data.targets.T, start)
    state = ends.state
    statuses = ends.status
    return ConeLassoSplit(
        weights=unit * state.weights,
        residual=state.residual.T,
        multipliers=-(rows / unit) * state.multipliers,
        objective=jnp.sum(ends.objective),
        dual_objective=jnp.sum(ends.dual_objective),
        violation=jnp.max(ends.violation),
        status=_worst(statuses),
        steps=jnp.max(ends.steps),
        state=state,
        norm=data.norm,
    )


class _End(eqx.Module):
    """Where the iteration of one output stands."""

    state: SplitState
    steps: Int[Array, ""]
    status: Status
    objective: Float[Array, ""]
    dual_objective: Float[Array, ""]
    violation: Float[Array, ""]


class _Work(eqx.Module):
    """One output's program in equilibrated units: the weights of features of length one at most."""

    gates: Gates
    factor: GatesFactor
    loss: "AbstractLoss | _ExactFit"
    weight_decay: Float[Array, ""]
    settings: ConeLassoSplitting
    norm: float = eqx.field(static=True)
    exact: bool = eqx.field(static=True)

    def cold(self, targets: Float[Array, " n"]) -> SplitState:
        """Zeros; the penalties that the sizes of the forces and of the loss suggest."""
        cells, features = self.gates.slopes.shape[0], self.gates.features.shape[1]
        weights = jnp.zeros((2, cells, features), targets.dtype)
        margins = jnp.zeros((2, cells, len(targets)), targets.dtype)
        nothing = jnp.zeros_like(targets)
        one = jnp.ones((), targets.dtype)
        decay = self.weight_decay * one
        fit = EXACT_FIT * decay if self.exact else one
        return SplitState(weights, weights, margins, margins, nothing, nothing, decay, fit)

    def run(self, targets: Float[Array, " n"], start: SplitState) -> _End:
        """Blocks of steps, until the status says that it has ended."""
        zero, infinity = jnp.zeros((), targets.dtype), jnp.full((), jnp.inf, targets.dtype)
        begin = _End(start, jnp.zeros((), jnp.int32), Status.running, zero, -infinity, infinity)
        return iteration.run(lambda end: self._block(targets, end), begin)

    def _block(self, targets, end: _End) -> _End:
        count = self.settings.check_every

        def step(_, carry):
            state, _, _ = carry
            return self._step(targets, state), state.weights, state.outputs

        begin = end.state, end.state.weights, end.state.outputs
        state, *before = jax.lax.fori_loop(0, count, step, begin)
        steps = end.steps + count
        objective, violation, mismatch, misfit = self._primal(targets, state)
        dual = self._dual(targets, state)
        status = self._judge(targets, state, steps, objective, dual, violation)
        adapted = self._rebalance(before, state, steps, mismatch, misfit)
        return _End(adapted, steps, status, objective, dual, violation)

    def _step(self, targets: Float[Array, " n"], now: SplitState) -> SplitState:
        gates, penalty, fit_penalty = self.gates, now.penalty, now.fit_penalty
        relax = jnp.asarray(self.settings.relaxation, penalty.dtype)
        pulled = gates.margins_adjoint(penalty * now.margins - now.multipliers)
        blocks = penalty * now.weights - now.forces + pulled
        w, fitted = self.factor.solve(
            gates,
            penalty / fit_penalty,
            blocks / fit_penalty,
            now.outputs - now.residual / fit_penalty,
        )
        point = relax * w + (1 - relax) * now.weights + now.forces / penalty
        weights = _shrink(point, self.weight_decay / penalty, self.norm)
        inner = relax * gates.margins(w) + (1 - relax) * now.margins + now.multipliers / penalty
        seen = relax * fitted + (1 - relax) * now.outputs + now.residual / fit_penalty
        outputs = self.loss.prox(seen[:, None], targets[:, None], 1 / fit_penalty)[:, 0]
        return SplitState(
            weights=weights,
            forces=penalty * (point - weights),
            margins=jnp.maximum(inner, 0),
            multipliers=penalty * jnp.minimum(inner, 0),
            outputs=outputs,
            residual=fit_penalty * (seen - outputs),
            penalty=penalty,
            fit_penalty=fit_penalty,
        )

    def _primal(self, targets, state: SplitState):
        """The objective of v, its violation, and how far v is from s and z, relatively."""
        weights = state.weights
        fitted, margins = self.gates.fitted(weights), self.gates.margins(weights)
        penalty = self.weight_decay * jnp.sum(lengths(weights, self.norm))
        objective = self.loss.value(fitted[:, None], targets[:, None]) + penalty
        size = _size(weights)
        # In the units of rows of length one.
        row = jnp.max(jnp.linalg.norm(self.gates.rows, axis=1))
        outside = _size(jnp.minimum(margins, 0)) / jnp.where(row > 0, row, 1)
        violation = _ratio(outside, size)
        misfit = _ratio(_size(fitted - state.outputs), _size(state.outputs))
        if self.exact:
            violation = jnp.maximum(violation, misfit)
        mismatch = _ratio(_size(margins - state.margins), jnp.maximum(size, _size(state.margins)))
        return objective, violation, mismatch, misfit

    def _dual(self, targets, state: SplitState) -> Float[Array, ""]:
        """-L*(t r) for the largest t <= 1 that makes t r feasible; without a loss t may exceed 1."""
        slack = self.gates.pulled(state.residual) + self.gates.margins_adjoint(state.multipliers)
        dual_norm = {1: np.inf, 2: 2, np.inf: 1}[self.norm]
        price = jnp.max(lengths(slack, dual_norm))
        tiny = jnp.finfo(price.dtype).tiny
        scale = self.weight_decay / jnp.maximum(price, tiny)
        scale = scale if self.exact else jnp.minimum(scale, 1)
        return -self.loss.conjugate(scale * state.residual[:, None], targets[:, None])

    def _judge(self, targets, state, steps, objective, dual, violation) -> Status:
        proof = Status.running
        if self.exact:
            needed = self.weight_decay * jnp.max(jnp.abs(targets))
            proof = Status.where(dual > INFEASIBLE * needed, Status.primal_infeasible, proof)
        return iteration.status_of(
            jnp.maximum(_relative_gap(objective, dual), violation),
            self.settings.tolerance_for(objective.dtype),
            steps,
            self.settings.max_steps,
            proof=proof,
            sound=jnp.isfinite(_size(state.weights) + _size(state.residual) + objective),
        )

    def _rebalance(self, before, state: SplitState, steps, mismatch, misfit) -> SplitState:
        """Both penalties towards relative primal and dual residuals of one size."""
        moved, fit_moved = _size(state.weights - before[0]), _size(state.outputs - before[1])
        drift = _ratio(state.penalty * moved, _size(state.forces))
        fit_drift = _ratio(state.fit_penalty * fit_moved, _size(state.residual))
        clear = CLEAR_IMBALANCE + steps / SETTLING

        def factor(primal, dual):
            ratio = jnp.sqrt(_ratio(primal, dual))
            changes = ((ratio > clear) | (ratio < 1 / clear)) & jnp.isfinite(ratio) & (ratio > 0)
            limited = jnp.clip(ratio, 1 / LARGEST_CHANGE, LARGEST_CHANGE)
            return jnp.where(changes, limited, 1)

        if self.exact:  # z does not move: both penalties together
            both = factor(jnp.maximum(mismatch, misfit), drift)
            factors = both, both
        else:
            factors = factor(mismatch, drift), factor(misfit, fit_drift)
        return eqx.tree_at(
            lambda s: (s.penalty, s.fit_penalty),
            state,
            (factors[0] * state.penalty, factors[1] * state.fit_penalty),
        )


class _ExactFit(eqx.Module):
    """The indicator function of Z = Y, as far as the splitting method asks a loss."""

    def value(self, Z, Y):
        """Zero: the misfit is a violation."""
        return jnp.zeros((), jnp.result_type(Z, Y))

    def prox(self, Z, Y, step):
        """The projection."""
        del Z, step
        return Y

    def conjugate(self, R, Y):
        """<R, Y>."""
        return jnp.sum(R * Y)


def _equilibrated(
    data: ConeLassoData, settings: ConeLassoSplitting
) -> tuple[_Work, Float[Array, ""], Float[Array, " n"]]:
    """The work, and what w and the margins are multiplied by on the way back and there."""
    gates = data.gates
    longest = jnp.max(jnp.linalg.norm(gates.features, axis=1))
    unit = 1 / jnp.where(longest > 0, longest, 1)
    size = jnp.linalg.norm(gates.rows, axis=1)
    rows = jnp.where(size > 0, MARGIN / jnp.where(size > 0, size, 1), 1)
    scaled = Gates(unit * gates.features, rows[:, None] * gates.rows, gates.slopes, gates.signs)
    decay = jnp.ones_like(data.weight_decay) if data.interpolate else data.weight_decay
    loss = _ExactFit() if data.interpolate else data.loss
    work = _Work(
        gates=scaled,
        factor=scaled.factor(1.0),
        loss=loss,
        weight_decay=unit * decay,
        settings=settings,
        norm=data.norm,
        exact=data.interpolate,
    )
    return work, unit, rows


def _shrink(
    points: Float[Array, "2 p d"], size: Float[Array, ""], norm: float
) -> Float[Array, "2 p d"]:
    """The prox of size * |w| on every block: what projecting on the dual ball leaves over."""
    if norm == 1:
        return jnp.sign(points) * jnp.maximum(jnp.abs(points) - size, 0)
    if norm == 2:
        length = lengths(points, 2)[..., None]
        return points * jnp.maximum(1 - size / jnp.where(length > 0, length, 1), 0)
    # The l1 ball: a threshold of the sorted sizes (Duchi et al., 2008).
    ordered = -jnp.sort(-jnp.abs(points), axis=-1)
    count = jnp.arange(1, points.shape[-1] + 1)
    levels = (jnp.cumsum(ordered, axis=-1) - size) / count
    level = jnp.maximum(jnp.max(levels, axis=-1, keepdims=True), 0)
    return jnp.clip(points, -level, level)


def _size(array: Array) -> Float[Array, ""]:
    return jnp.sqrt(jnp.sum(array**2))


def _ratio(top: Float[Array, ""], bottom: Float[Array, ""]) -> Float[Array, ""]:
    """top / bottom, and 0 / 0 = 0."""
    return jnp.where(top == 0, 0, top / jnp.where(bottom > 0, bottom, 1))


def _relative_gap(objective: Array, dual: Array) -> Float[Array, ""]:
    return _ratio(jnp.abs(objective - dual), jnp.maximum(jnp.abs(objective), jnp.abs(dual)))


def _worst(statuses: Status) -> Status:
    """Of several outputs: the status of the first of the worst kind."""
    order = (
        Status.nonfinite,
        Status.primal_infeasible,
        Status.max_steps,
        Status.inaccurate,
    )
    found = Status.solved
    for status in reversed(order):
        found = Status.where(jnp.any(statuses == status), status, found)
    return found


def _fitting(warm_start: ConeLassoSplit, data: ConeLassoData) -> SplitState:
    cells, samples = data.gates.slopes.shape
    features, outputs = data.gates.features.shape[1], data.targets.shape[1]
    wanted = outputs, 2, cells, features
    found = warm_start.weights.shape, warm_start.state.outputs.shape[-1]
    if found != (wanted, samples):
        raise ValueError(
            f"warm_start: expected weights of shape {wanted} for {samples} samples; got "
            f"{found[0]} for {found[1]}."
        )
    return warm_start.state
