"""(cone-lasso) to high accuracy: a primal-dual interior-point method on the host, in float64.

    min over w   L(A w, y) + weight_decay sum_i |w_i|   subject to   S_i G w_i >= 0

for losses with L*(R) = <R, B> + k/2 |R|^2 on a box, or everywhere. One output's weights w (2, P, d) are
strictly inside their cells from the first step to the last, so that every iterate is a network of the
same objective, and multipliers m_i > 0 of the margins with an R in the box prove a lower bound.
Nesterov-Todd scaling of the norms, Mehrotra's predictor and corrector, and further correctors of
complementarity (Gondzio, 1996), since a factorisation costs more than many solves. Derivation:
docs/math/lasso.md, "The cone-constrained group lasso".
"""

import math
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from jaxcone import Status
from jaxcone.extend import iteration

from ..bound import relative_gap
from ..geometry.pattern_cones import NO_INTERIOR, interior_direction
from ..interior import lorentz
from ..interior.cone_lasso_systems import CellEquations, CellRows
from ..interior.steps import Pair, iterate, take_step, without_unused
from ..job import Job
from ..losses.base import AbstractLoss
from ..losses.quadratic_conjugate import QuadraticLoss
from .abstract import AbstractFound, AbstractMethod
from .cone_lasso_data import ConeLassoData, require_data

Array = NDArray[np.float64]

# The size of the first outputs, in units of the loss's gradient at zero.
FIRST_SIZE = 3.0
# The proximal term of `QuadraticLoss.ridge`.
RIDGE = 1e-2
# Correctors after Mehrotra's; they aim at steps longer by a factor and a summand, want products within
# this factor of their mean, and are kept while they reach this part of what they aim at.
CORRECTORS, LONGER, LONGER_BY, SPREAD, WORTHWHILE = 2, 1.1, 0.1, 10.0, 0.1
# Steps in a row that did not make the gap a little smaller, after which rounding is the limit. Not
# while the relative gap is large, as it takes a while until the dual point is worth something.
PATIENCE, LITTLE, LARGE = 8, 0.99, 0.5


class ConeLassoOptimum(AbstractFound):
    """Weights inside their cells, and a dual point that proves how good they are.

    `weights` (c, 2, P, d) are exactly zero in the blocks that are not used. `multipliers` (c, 2, P, n)
    are nonnegative and those of the margins S_i G w_i, `residual` (n, c) is in the domain of L*: with
    both `dual_objective` is at most the value of this program, up to rounding; the residual is for
    `certify_residual`. `violation` is the norm of the margins' negative part, rows of length one,
    over |w|. Over several outputs values and steps are added, and the status is that of the sum's gap.
    """

    weights: Float[np.ndarray, "c 2 p d"]
    residual: Float[np.ndarray, "n c"]
    multipliers: Float[np.ndarray, "c 2 p n"]
    objective: float
    dual_objective: float
    violation: float
    status: Status
    steps: int
    norm: float = eqx.field(static=True, default=2)


class ConeLassoInterior(AbstractMethod):
    """(cone-lasso) with norm 2 to high accuracy: an interior-point method on the host, in float64.

    Losses: squared, Huber, hinge and absolute. With many patterns, samples and features this is much
    faster than `ConeLassoSplitting`, which takes the other settings and runs under `jit`. A step costs
    O(n P d^2 + n P d k) with k the smaller of n and P d, the memory is O(n P + k^2). Nothing is raised
    for a poor solve: read its status and `relative_gap`.

    **Arguments:** `tolerance`: on the relative duality gap; `max_steps`: for each output.

    **Raises** a `ValueError` for settings that are out of range; `solve` for other norms and losses,
    `interpolate`, and patterns whose cell has no interior.
    """

    precise: ClassVar[bool] = True
    tolerance: float = 1e-8
    max_steps: int = 150

    def __check_init__(self):
        if not 0 < self.tolerance < math.inf:
            raise ValueError(f"tolerance must be positive and finite; got {self.tolerance}.")
        if self.max_steps < 1:
            raise ValueError(f"max_steps must be a positive integer; got {self.max_steps}.")

    def solve(
        self, program: Any, data: ConeLassoData, warm_start: Any = None, job: Job | None = None
    ) -> ConeLassoOptimum:
        del warm_start  # of no use to an interior-point method
        require_data(self, program, data)
        if data.norm != 2 or data.interpolate:
            raise ValueError(
                f"program: ConeLassoInterior takes norm 2 without interpolation; got norm {data.norm} "
                f"and interpolate={data.interpolate}. `ConeLassoSplitting` takes these."
            )
        return _solved(data, self.tolerance, self.max_steps, Job() if job is None else job)

    def on_host(self, program, data, warm_start, job, watch):
        found = job.chunk(lambda: self.solve(program, data, job=job))
        if found is not None:
            job.tell(watch, found)
        return found


def _solved(data: ConeLassoData, tolerance: float, max_steps: int, job: Job) -> ConeLassoOptimum:
    losses = [_quadratic(data.loss, y) for y in np.asarray(data.targets, np.float64).T]
    gates = data.gates
    cells = CellRows.of(gates.features, gates.rows, gates.slopes, gates.signs)
    inside, equations = _directions(cells), CellEquations(cells)
    ends = [
        _Lasso(cells, loss, float(data.weight_decay)).run(
            equations, inside, tolerance, max_steps, job
        )
        for loss in losses
    ]
    lengths = np.linalg.norm(np.asarray(gates.rows, np.float64), axis=1)
    multipliers = np.zeros((len(ends), 2, len(cells.slopes), len(lengths)))
    multipliers[..., lengths > 0] = [end.dual[1] for end in ends]
    multipliers[..., lengths > 0] /= lengths[lengths > 0]
    objective = sum(end.objective for end in ends)
    dual = sum(end.dual_objective for end in ends)
    gap, most = relative_gap(dual, objective), max(end.steps for end in ends)
    return ConeLassoOptimum(
        weights=np.stack([end.primal for end in ends]),
        residual=np.stack([end.dual[0] for end in ends], axis=1),
        multipliers=multipliers,
        objective=objective,
        dual_objective=dual,
        violation=max(_violation(cells, end.primal) for end in ends),
        status=iteration.status_of(gap, tolerance, most, max_steps, stalled=most < max_steps),
        steps=sum(end.steps for end in ends),
    )


def _quadratic(loss: AbstractLoss, targets: Array) -> QuadraticLoss:
    """The loss of one output."""
    conjugate = loss.quadratic_conjugate(targets[:, None])
    if conjugate is None:
        raise ValueError(
            f"problem: ConeLassoInterior takes losses whose conjugate is quadratic, which "
            f"{loss.name!r} is not; `ConeLassoSplitting` takes it."
        )
    linear, stiffness, box = conjugate
    box = None if box is None else (box[0][:, 0], box[1][:, 0])
    return QuadraticLoss(np.asarray(linear, np.float64)[:, 0], stiffness, box)


# The best weights, and the best R and m.
_Best = Pair[Array, tuple[Array, Array]]


class _Point(NamedTuple):
    """Points strictly inside: (bounds, weights) and (wd, forces) in Lorentz cones, multipliers > 0.

    At the optimum A w = B + k R + `signs` walls and forces = A'R - G'S multipliers; on the way there
    what is missing falls with the steps.
    """

    weights: Array  # w (2, P, d)
    bounds: Array  # t (2, P), above |w_i|
    multipliers: Array  # m (2, P, k)
    residual: Array  # R (n,)
    walls: Array  # multipliers of R's box, like `limits`
    forces: Array  # q (2, P, d), shorter than wd

    def moved(self, length: float, change: "_Change") -> "_Point":
        return _Point(*(old + length * new for old, new in zip(self, change.point, strict=True)))


class _Change(NamedTuple):
    """A direction: of the point, of its margins, and W^-1 dx and W dz of its cones."""

    point: _Point
    margins: Array
    x_scaled: Array
    z_scaled: Array


class _Products(NamedTuple):
    """Complementarity products, or what they are to lose: of the cones, of the margins, of R's box."""

    cones: Array
    margins: Array
    walls: Array

    def plus(self, other: "_Products") -> "_Products":
        return _Products(*(a + b for a, b in zip(self, other, strict=True)))


class _Lasso(NamedTuple):
    """One output's program."""

    cells: CellRows
    loss: QuadraticLoss
    weight_decay: float

    @np.errstate(over="ignore", invalid="ignore", divide="ignore")  # points not inside are refused
    def run(
        self, equations: CellEquations, inside: Array, tolerance: float, max_steps: int, job: Job
    ) -> _Best:
        """Steps from the interior directions `inside` (P, d), until the gap or rounding ends them."""
        cells = self.cells
        nothing = np.zeros((2, *inside.shape))
        pull = self.loss.gradient(np.zeros(len(cells.features)))  # R of no neurons
        dual, bound = self._shrunk(pull, np.zeros((2, *cells.signs.shape)))
        best = _Best(nothing, dual, self._objective(nothing), bound)
        if _gap(best) <= tolerance:
            return best
        best, steps = iterate(
            self._start(np.stack([inside, inside]), pull),
            best,
            advance=lambda point: self._finite(self._advance(equations, point)),
            learn=self._learn,
            enough=lambda best: _gap(best) <= tolerance or job.over(),
            max_steps=max_steps,
            patience=PATIENCE,
        )
        return self._without_unused(best._replace(steps=steps), tolerance)

    @staticmethod
    def _finite(point: _Point | None) -> _Point | None:
        sound = point is not None and all(np.all(np.isfinite(part)) for part in point)
        return point if sound else None

    def _start(self, inside: Array, pull: Array) -> _Point:
        """A point near the central path, of the outputs that the loss's gradient at zero asks for.

        Cells are thin: where all products are mu, G'S m is mu / |w_i| times a long vector. The
        lengths make it as long as A'R may be.
        """
        cells, wd = self.cells, self.weight_decay
        crowding = np.linalg.norm(cells.margins_adjoint(1 / cells.margins(inside)), axis=-1)
        force = np.linalg.norm(cells.pulled(pull), axis=-1) + wd
        lengths = np.maximum(crowding, 1) / force  # over mu
        reach = np.linalg.norm(cells.slopes * (inside[0] @ cells.features.T), axis=-1) * lengths
        mu = FIRST_SIZE * np.linalg.norm(pull) / max(np.linalg.norm(reach), np.finfo(float).tiny)
        lengths = mu * lengths
        weights = lengths[..., None] * inside
        # The product of (t, w) and (wd, -wd w / t) is mu (1, 0).
        bounds = (mu + np.sqrt(mu**2 + (2 * wd * lengths) ** 2)) / (2 * wd)
        residual = self.loss.interior(self.loss.gradient(cells.fitted(weights)))
        return _Point(
            weights=weights,
            bounds=bounds,
            multipliers=mu / cells.margins(weights),
            residual=residual,
            walls=mu / self._room(residual),
            forces=-wd / bounds[..., None] * weights,
        )

    def _advance(self, equations: CellEquations, now: _Point) -> _Point | None:
        """One step; None if rounding leaves none to take."""
        cells, loss, side = self.cells, self.loss, now.weights.shape[-1]
        margins, room, signs = cells.margins(now.weights), self._room(now.residual), loss.signs
        x, z = _cones(now.bounds, now.weights), _cones(self._decays(now), now.forces)
        nt = lorentz.scaling(x, z)
        axis, spread = nt.axis, 2 * nt.axis[:, 0] ** 2 - 1
        # W^-2 with the bounds eliminated.
        outer = axis[:, 1:, None] * axis[:, None, 1:] * (2 / spread)[:, None, None]
        blocks = ((np.eye(side) - outer) / nt.size[:, None, None]).reshape(2, -1, side, side)
        ratios, wall_ratios = now.multipliers / margins, now.walls / room
        stiffness = loss.stiffness + np.sum(wall_ratios, axis=0)
        curvature = 1 / np.maximum(stiffness, loss.ridge(RIDGE))
        solve = equations.factor(blocks, ratios, curvature)
        misfit = cells.fitted(now.weights) - loss.targets - loss.stiffness * now.residual
        misfit -= np.sum(signs * now.walls, axis=0)
        unbalanced = (
            cells.pulled(now.residual) - cells.margins_adjoint(now.multipliers) - now.forces
        )

        def direction(products: _Products) -> _Change:
            """The change with center o (W dz + W^-1 dx) = -cones, s dm + m ds = -margins, and so on."""
            scaled = lorentz.quotient(nt.center, products.cones)
            target = nt.apply(scaled)
            push = np.matvec(blocks, target[:, 1:].reshape(now.weights.shape))
            pressed, walled = products.margins / margins, products.walls / room
            shift = curvature * (misfit + np.sum(signs * walled, axis=0))
            moved = unbalanced + cells.pulled(shift) + cells.margins_adjoint(pressed) + push
            weights = solve(-moved)
            of_margins = cells.margins(weights)
            bounds = nt.first_entries(weights.reshape(-1, side), target)
            residual = curvature * cells.fitted(weights) + shift
            forces = -np.matvec(blocks, weights) - push
            change = _Point(
                weights=weights,
                bounds=bounds.reshape(now.bounds.shape),
                multipliers=-pressed - ratios * of_margins,
                residual=residual,
                walls=-walled + wall_ratios * signs * residual,
                forces=forces,
            )
            z_scaled = nt.apply(_cones(np.zeros_like(now.bounds), forces))
            return _Change(change, of_margins, -z_scaled - scaled, z_scaled)

        def longest(change: _Change) -> float:
            relative = (
                -change.margins / margins,
                -change.point.multipliers / now.multipliers,
                signs * change.point.residual / room,
                -change.point.walls / now.walls,
            )
            shortest = max(float(np.max(part, initial=1e-300)) for part in relative)
            return 1 / max(1 / nt.largest_step(change.x_scaled, change.z_scaled), shortest)

        def after(change: _Change, length: float) -> _Products:
            point, center = change.point, nt.center
            return _Products(
                lorentz.product(
                    center + length * change.x_scaled, center + length * change.z_scaled
                ),
                (margins + length * change.margins)
                * (now.multipliers + length * point.multipliers),
                (room - length * signs * point.residual) * (now.walls + length * point.walls),
            )

        products = _Products(
            lorentz.product(nt.center, nt.center), margins * now.multipliers, room * now.walls
        )
        degree = len(x) + margins.size + room.size
        mu = (np.sum(products.cones[:, 0]) + sum(map(np.sum, products[1:]))) / degree
        change = direction(products)
        goal = (1 - min(1.0, longest(change))) ** 3 * mu
        second = lorentz.product(change.x_scaled, change.z_scaled)
        second[:, 0] -= goal
        crossed = change.margins * change.point.multipliers - goal
        walled = -signs * change.point.residual * change.point.walls - goal
        products = products.plus(_Products(second, crossed, walled))
        change = direction(products)
        length = longest(change)
        for _ in range(CORRECTORS):
            if length >= 1:
                break
            wanted = min(1.0, LONGER * length + LONGER_BY)
            corrected = products.plus(_excess(after(change, wanted), goal))
            longer = direction(corrected)
            reached = longest(longer)
            if reached < length + WORTHWHILE * (wanted - length):
                break
            products, change, length = corrected, longer, reached
        return take_step(lambda part: now.moved(part, change), self._is_inside, length)

    def _is_inside(self, point: _Point) -> bool:
        """Strictly, in all cones and the box."""
        slacks = self.cells.margins(point.weights), self._room(point.residual)
        positive = all(np.all(p > 0) for p in (*slacks, point.multipliers, point.walls))
        x, z = _cones(point.bounds, point.weights), _cones(self._decays(point), point.forces)
        return positive and lorentz.inside(x) and lorentz.inside(z)

    def _room(self, residual: Array) -> Array:
        """How far R is inside its box, like `limits`."""
        return self.loss.limits - self.loss.signs * residual

    def _decays(self, point: _Point) -> Array:
        return np.full_like(point.bounds, self.weight_decay)

    def _objective(self, weights: Array) -> float:
        norms = np.linalg.norm(weights, axis=-1)
        return self.loss.value(self.cells.fitted(weights)) + self.weight_decay * float(
            np.sum(norms)
        )

    def _shrunk(self, residual: Array, multipliers: Array) -> tuple[tuple[Array, Array], float]:
        """(t R, t m) with the largest t <= 1 that makes them feasible, and -L*(t R)."""
        slack = self.cells.pulled(residual) - self.cells.margins_adjoint(multipliers)
        price = np.max(np.linalg.norm(slack, axis=-1))
        scale = min(1.0, self.weight_decay / max(price, np.finfo(float).tiny))
        dual = scale * residual, scale * multipliers
        return dual, self.loss.dual_value(dual[0])

    def _learn(self, best: _Best, point: _Point) -> tuple[_Best, bool]:
        before = _gap(best)
        best = best.with_primal(point.weights, self._objective(point.weights))
        gradient = self.loss.gradient(self.cells.fitted(point.weights))
        for candidate in (point.residual, gradient):
            best = best.with_dual(*self._shrunk(candidate, point.multipliers))
        gap = _gap(best)
        return best, gap < LITTLE * before or gap > LARGE

    def _without_unused(self, best: _Best, tolerance: float) -> _Best:
        residual, multipliers = best.dual
        slack = self.cells.pulled(residual) - self.cells.margins_adjoint(multipliers)
        weights, objective = without_unused(
            best.primal,
            1 - np.linalg.norm(slack, axis=-1) / self.weight_decay,
            best.objective,
            self._objective,
            lambda value: relative_gap(best.dual_objective, value) <= tolerance,
        )
        return best._replace(primal=weights, objective=objective)


def _gap(best: _Best) -> float:
    return relative_gap(best.dual_objective, best.objective)


def _directions(cells: CellRows) -> Array:
    """Per cell a unit vector deep inside, (P, d)."""
    found = np.stack([interior_direction(signs[:, None] * cells.rows) for signs in cells.signs])
    empty = np.flatnonzero(~np.any(found, axis=1))
    if empty.size:
        raise ValueError(
            f"program: patterns[{empty[0]}] belongs to no cell with an interior (to a ball of radius "
            f"{NO_INTERIOR}, {empty.size} of {len(found)} do not). `ConeLassoSplitting` takes these."
        )
    return found


def _excess(products: _Products, goal: float) -> _Products:
    """By how much products, or eigenvalues of those of the cones, are off [goal / b, b goal]."""

    def off(values: Array) -> Array:
        return np.minimum(values - np.clip(values, goal / SPREAD, SPREAD * goal), SPREAD * goal)

    cones = products.cones
    length = lorentz.row_norms(cones[:, 1:])
    axis = cones[:, 1:] / np.where(length > 0, length, 1)[:, None]
    above, below = off(cones[:, 0] + length), off(cones[:, 0] - length)
    of_cones = np.column_stack([(above + below) / 2, axis * ((above - below) / 2)[:, None]])
    return _Products(of_cones, off(products.margins), off(products.walls))


def _cones(bounds: Array, weights: Array) -> Array:
    """Points of the norms' cones as rows (2 P, 1 + d)."""
    return np.concatenate([bounds[..., None], weights], axis=-1).reshape(-1, 1 + weights.shape[-1])


def _violation(cells: CellRows, weights: Array) -> float:
    size = np.linalg.norm(weights)
    outside = np.linalg.norm(np.minimum(cells.margins(weights), 0))
    return float(outside / size) if size > 0 else 0.0
