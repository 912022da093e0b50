"""`Pricer`: the price of the best new neuron for any data, through few directions of low rank."""

import dataclasses
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Float

from jaxcone import verified

from ..arrays import Matrix, finite_matrix
from ..geometry.directions import Directions, find_directions, neglected_price
from ..job import Job
from .ascent import normalised
from .branch_and_bound import price_branch_and_bound
from .budget import Budget
from .circle import Circle, arrange_circle
from .price import Price, prices
from .relaxation import fits, price_relaxed
from .sphere import price_enumerated

METHODS = ("auto", "planar", "enumeration", "branch_and_bound", "relaxation")
# Ranks up to which branch and bound proves something in reasonable time.
LARGEST_RANK = 6


class Pricer(eqx.Module):
    """Data prepared for pricing: what does not depend on the residual.

    The samples are merged into `rows` (l, r), one unit vector per direction and sign: up to
    `distances`, proven, they are `lengths`' `rows` in the coordinates of `directions.basis`, whose
    norm is at most `stretch`.
    """

    features: Float[np.ndarray, "n d"]
    directions: Directions
    rows: Float[np.ndarray, "l r"]
    lengths: Float[np.ndarray, "l n"]  # of sample i in the column i, at its row
    distances: Float[np.ndarray, " n"]
    stretch: float
    circle: Circle | None  # of `rows`, where their rank is at most 2

    def __init__(self, features: Matrix):
        self.features = features
        self.directions = found = find_directions(features)
        alive = found.classes >= 0
        kinds, members = np.unique(
            np.stack([found.classes[alive], -found.signs[alive]]), axis=1, return_inverse=True
        )
        self.rows = -kinds[1][:, None] * found.units[kinds[0].astype(int)]
        self.lengths = np.zeros((len(self.rows), len(features)))
        self.lengths[members, np.flatnonzero(alive)] = found.lengths[alive]
        self.distances, self.stretch = found.approximation(features), found.basis_norm()
        self.circle = arrange_circle(self.rows) if found.rank <= 2 and len(self.rows) else None

    @property
    def rank(self) -> int:
        """r, the rank of the data."""
        return self.directions.rank

    def price(
        self,
        residual: Matrix,
        *,
        method: str = "auto",
        neurons: Matrix | None = None,
        perturbation: Matrix | None = None,
        budget: Budget | None = None,
    ) -> Price:
        """The price of the best neuron for R (n, c), in the coordinates of the features.

        `neurons` (k, d) are known good directions; `perturbation` (n,) bounds the distance of the
        exact residual's rows from R; `budget` is for branch and bound and the relaxation.

        "auto" is planar up to rank 2, branch and bound up to rank 6, above it the relaxation where
        there are at most `relaxed.LARGEST` directions, and else branch and bound, whose bound is then
        little better than that of the whole sphere. Enumeration serves as a check: at rank 3 it takes
        as long as branch and bound for 20 rows and ten times as long for 160.
        """
        merged, error = self.merge(residual)
        known = None if neurons is None else neurons @ self.directions.basis
        found = self._price_rows(merged, method, known, budget)
        # In these coordinates w = basis'u, which is hardly longer than u.
        upper = (found.upper + error) * self.stretch
        upper += neglected_price(residual, self.distances)
        if perturbation is not None:
            lengths = verified.vector_norm_bound(self.features)
            upper += float(perturbation @ lengths) * verified.INFLATION
        best = normalised(found.neurons @ self.directions.basis.T)
        values = prices(residual, self.features, best)
        order = np.argsort(-values, kind="stable")
        lower = float(values[order[0]]) if len(order) else 0.0
        # A value that is rounded up must not pass what is proven of the exact one.
        upper = verified.above(upper * (1 + 8 * verified.UNIT))
        return dataclasses.replace(found, lower=min(lower, upper), upper=upper, neurons=best[order])

    def _price_rows(
        self, merged: Matrix, method: str, known: Matrix | None, budget: Budget | None
    ) -> Price:
        """The price for a residual of `rows`, in their coordinates."""
        if not len(self.rows):
            return Price(0.0, 0.0, np.zeros((0, self.rank)), "no samples", 0)
        if method == "planar" and self.circle is None:
            raise ValueError(f'method "planar" needs data of rank 1 or 2; theirs is {self.rank}.')
        if self.circle is not None and method in ("auto", "planar"):
            return self.circle.price(merged)
        if method == "enumeration":
            return price_enumerated(merged, self.rows)
        above = self.rank > LARGEST_RANK
        if method == "relaxation" or (method == "auto" and above and fits(self.directions)):
            return price_relaxed(merged, self.rows, budget, neurons=known)
        return price_branch_and_bound(merged, self.rows, budget, neurons=known)

    def kinks(self, count: int) -> Matrix:
        """Where the price of every residual may have a kink, of rank 1 and 2: unit neurons (k, d).

        The rays x_i'u = 0, at most `count` of them, evenly chosen; none for higher ranks.
        """
        if self.circle is None:
            return np.zeros((0, self.features.shape[1]))
        rays = self.circle.ends[:, : self.rank, 0]
        rays = rays[:: -(-len(rays) // count)]
        return normalised(rays @ self.directions.basis.T)

    def merge(self, residual: Matrix) -> tuple[Matrix, float]:
        """The residual of `rows`: sums of length times residual; and what rounding adds to a price."""
        error = verified.vector_norm_bound(verified.product_error(self.lengths, residual))
        sizes = verified.vector_norm_bound(self.rows)
        return self.lengths @ residual, float(error @ sizes) * verified.INFLATION


def best_neuron(
    residual: Any,
    X: Any,
    *,
    method: str = "auto",
    relative: float = 1e-6,
    max_boxes: int = 10**7,
    seconds: float | None = None,
) -> Price:
    """The unit direction u that maximises ||R' relu(X u)||_2, with a proven upper bound.

    For R the residual f(X) - Y of a network (the gradient of its loss, in general), a new neuron pays
    if and only if that price exceeds the weight decay (Sahiner et al., 2021, eq. 11).

    **Arguments:**

    - `residual` (n, c) or (n,), `X` (n, d).
    - `method`: "planar" (exact, rank at most 2), "enumeration" (exact, rank at most 3),
      "branch_and_bound" (any rank; practical up to 5 or 6), "relaxation" (any rank, an upper bound that
      more time does not close) or "auto", which takes the first of these that suits: planar up to rank
      2, branch and bound up to rank 6, and above it the relaxation where it has at most 100 directions.
    - `relative`, `max_boxes`, `seconds`: when branch and bound may stop. Whenever it stops, the
      interval is valid.

    **Raises** a `ValueError` for shapes that do not match, entries that are not finite, a rank that
    the method cannot do, or an unknown method.
    """
    features = finite_matrix(X, "X")
    values = np.asarray(residual, np.float64)
    values = values[:, None] if values.ndim == 1 else values
    values = finite_matrix(values, "residual", rows=len(features))
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}; got {method!r}.")
    budget = Budget(relative=relative, max_boxes=max_boxes, job=Job(seconds))
    return Pricer(features).price(values, method=method, budget=budget)
