"""The price of the best new neuron by branch and bound over simplicial cones: ranks 2 to 6.

The orthants of the right singular vectors of F cover the space; a cone whose bound (`cones`) is too
high is split in two. Local maxima (`ascent`) and the split points give the lower bound. At every
moment the largest bound among the cones not yet split is an upper bound, so the search may end at
any time.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from jaxcone import verified

from ..arrays import Matrix, finite_matrix
from .ascent import distinct, local_maxima, polish, singular_axes
from .budget import Budget
from .frontier import Frontier, Shelf
from .price import Price, prices
from .simplicial_cones import Cones, Examined, Rows, examine, orthants, rows_that_count, split

METHOD = "branch and bound"
PARENTS = 4096  # cones that are split between two looks at the job
BATCH = 2**16  # numbers in one array of a batch: it should stay in the processor's cache
WORKERS = min(4, os.cpu_count() or 1)  # threads: NumPy lets others work while it computes
CAPACITY = 2**18  # open cones above which the search goes for the lowest bounds, not the highest


def price_branch_and_bound(
    residual: Any,
    features: Any,
    budget: Budget | None = None,
    *,
    neurons: Any = None,
    count: int = 60,
    seed: int = 0,
) -> Price:
    """An interval for max over |u| <= 1 of ||R' relu(F u)||_2.

    **Arguments:**

    - `residual`, `features`: R (n, c) and F (n, r).
    - `budget`: when the search may end.
    - `neurons` (k, r): directions from which the local search starts, beside random ones.
    - `count`: at most so many neurons are returned.
    - `seed`: of the local search.

    **Returns** a `Price`. Its `neurons` are the different local maxima that were found, with the
    best first; with `keep` or `target` the best and those above it.

    **Raises** a `ValueError` for shapes that do not match, entries that are not finite, and a `count`
    that is not positive.
    """
    features = finite_matrix(features, "features", least=0)
    residual = finite_matrix(residual, "residual", rows=len(features), least=0)
    rank = features.shape[1]
    given = np.zeros((0, rank)) if neurons is None else finite_matrix(neurons, "neurons", least=0)
    if given.shape[1] != rank:
        raise ValueError(f"neurons must have shape (k, {rank}); their shape is {given.shape}.")
    if count < 1:
        raise ValueError(f"count must be a positive number; got {count!r}.")
    budget = Budget() if budget is None else budget
    rows = rows_that_count(residual, features)
    if len(rows.features) == 1:
        return Price(0.0, 0.0, np.eye(rank)[:1], METHOD, 0)
    search = _Search(rows, budget, count)
    budget.job.chunk(lambda: search.ascend(given, budget.starts, seed))
    budget.job.chunk(search.run)
    return budget.job.finish(search.price)


class _Search:
    """The state of a search, in the units of `rows`; `upper` is valid after every statement."""

    def __init__(self, rows: Rows, budget: Budget, count: int):
        self.rows, self.budget, self.count = rows, budget, count
        outputs, self.rank = rows.residual.shape[1], rows.features.shape[1]
        keep = budget.enough if budget.keep is None else budget.keep
        self.target = float(np.ldexp(budget.enough, -rows.exponent))
        self.keep = float(np.ldexp(keep, -rows.exponent))
        # What the bounds' own rounding comes to, down to a depth of some tens of splits.
        self.floor = 16 * rows.lipschitz * (rows.rounding + 64 * rows.unit)
        self.maxima = np.zeros((0, self.rank))  # from the local search
        self.points = np.zeros((0, self.rank))  # others above `keep`
        self.lower = 0.0
        self.cells = 0
        self.frontier = Frontier(self.rank, outputs, len(rows.features) - 1)
        self.closed = -np.inf  # the highest bound of a cone that needs no split
        self.outside = _bound_everywhere(rows)  # ... of what no cone has covered yet

    @property
    def upper(self) -> float:
        return max(self.outside, self.closed, self.frontier.highest)

    @property
    def threshold(self) -> float:
        return max(self.lower * (1 + self.budget.relative), self.lower + self.floor, self.target)

    def ascend(self, neurons: Matrix, starts: int, seed: int) -> None:
        """Improves `lower` and `maxima` by a local search."""
        self.maxima, values = local_maxima(
            self.rows.residual,
            self.rows.features,
            starts=starts,
            neurons=np.concatenate([self.maxima, neurons]),
            count=self.count,
            distance=self.distance,
            seed=seed,
            job=self.budget.job,
        )
        self.lower = max(self.lower, self._proven(np.max(values, initial=0.0)))

    @property
    def distance(self) -> float:
        """How different two neurons have to be, by what column generation still has to gain."""
        if not 0 < self.keep < self.lower:
            return 1e-6
        return float(np.clip(1e-2 * (self.lower / self.keep - 1), 1e-9, 1e-3))

    def run(self) -> None:
        """Splits cones until the interval is as asked for, or a limit is reached."""
        max_boxes, job = self.budget.max_boxes, self.budget.job
        roots = 2**self.rank
        if roots > max_boxes:
            return
        _, basis = singular_axes(self.rows.features)
        self._offer(np.concatenate([basis, -basis]))
        size = self._batch(len(self.rows.features) - 1)
        for start in range(0, roots, size):
            if job.over():
                return
            numbers = np.arange(start, min(start + size, roots))
            signs = np.where(numbers[:, None] >> np.arange(self.rank) & 1, -1.0, 1.0)
            cones = orthants(self.rows, basis.T, signs)
            self._file(examine(self.rows, cones, self.threshold), self.outside)
        self.outside = -np.inf
        pool = ThreadPoolExecutor(WORKERS)
        try:
            while self.frontier.highest > self.threshold:
                number = int(min(PARENTS, (max_boxes - self.cells) // 2))
                if number <= 0:
                    return
                splits = list(self._splits(number))
                for one, (points, found) in zip(splits, pool.map(_expand, splits), strict=True):
                    if job.over():
                        return
                    self._offer(points)
                    self._file(found, np.tile(one.shelf.bounds[one.slots], 2))
                    one.shelf.free(one.slots)
        finally:
            pool.shutdown(cancel_futures=True)

    def price(self) -> Price:
        """The interval so far, and the local maxima near all points that were kept."""
        points, _ = distinct(
            self.rows.residual, self.rows.features, self.points, self.distance, self.count
        )
        self.ascend(points, 0, 0)
        neurons = self.maxima if len(self.maxima) else np.eye(self.rank)[:1]
        values = prices(self.rows.residual, self.rows.features, neurons)
        neurons = neurons[: max(1, int(np.sum(values > self.keep)))]
        with np.errstate(over="ignore", under="ignore"):
            lower, upper = np.ldexp([self.lower, self.upper], self.rows.exponent)
        # Exact unless it leaves the range of float64, and then off by less than one float.
        lower, upper = max(0.0, verified.below(float(lower))), verified.above(float(upper))
        return Price(lower, upper, neurons, METHOD, self.cells)

    def _batch(self, width: int) -> int:
        return max(16, BATCH // (self.rank * max(width, 4)))

    def _splits(self, number: int) -> Iterator["_Split"]:
        for shelf, slots in self.frontier.select(number, self.threshold, CAPACITY):
            size = self._batch(shelf.width)
            for start in range(0, len(slots), size):
                some = slots[start : start + size]
                yield _Split(self.rows, shelf, some, shelf.take(some), self.lower, self.threshold)

    def _file(self, found: Examined, limits: Matrix | float) -> None:
        """Files cones that lie in others with bounds `limits`."""
        bounds = np.minimum(found.bounds, limits)
        closed = np.delete(bounds, found.where)
        self.closed = max(self.closed, float(np.max(closed, initial=-np.inf)))
        self.frontier.add(bounds[found.where], found.open)
        self.cells += len(bounds)

    def _offer(self, points: Matrix) -> None:
        """Keeps points above `keep`; one above the best neuron is polished."""
        residual, features = self.rows.residual, self.rows.features
        values = prices(residual, features, points)
        best = int(np.argmax(values))
        if self._proven(values[best]) > self.lower * (1 + 1e-12):
            top = polish(residual, features, points[best : best + 1])
            self.lower = self._proven(prices(residual, features, top)[0])
            self.maxima = np.concatenate([top, self.maxima])
        if self.keep > 0:
            self.points = np.concatenate([self.points, points[values > self.keep]])
            if len(self.points) > 100 * self.count:
                self.points, _ = distinct(
                    residual, features, self.points, self.distance, 20 * self.count
                )

    def _proven(self, value: float) -> float:
        """A lower bound on the price of a direction whose computed price is `value`."""
        error = self.rows.lipschitz * self.rows.rounding
        return max(0.0, (float(value) - error) * (1 - 64 * verified.UNIT))


class _Split(NamedTuple):
    """Cones that are split together, from `slots` of a shelf."""

    rows: Rows
    shelf: Shelf
    slots: np.ndarray
    parents: Cones
    lower: float
    threshold: float


def _expand(one: _Split) -> tuple[Matrix, Examined]:
    """The split points and the examined children."""
    children, points = split(one.rows, one.parents, one.lower)
    return points, examine(one.rows, children, one.threshold)


def _bound_everywhere(rows: Rows) -> float:
    """relu(t) = (t + |t|) / 2, so the price is at most (|R'F| + sum_i |R_i||f_i|) / 2."""
    linear = float(np.linalg.norm(rows.residual.T @ rows.features))
    return (linear + rows.lipschitz) / 2 * (1 + 1e-9) + rows.lipschitz * rows.rounding
