"""(cone-lasso) in the standard form, with its own linear solve.

A block is (r, w) with a bound r on its norm: the number |w|_2 or |w|_inf, or the absolute values of
w's entries for |w|_1. Its cone is E (r, w), a second-order one or nonnegative rows, with E'E diagonal;
so that the equations of every step are those of `gates`.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcone import AbstractConeProgram, Scaling, project_nonnegative, project_second_order

from ..products import dot
from .cone_lasso_interior import ConeLassoForm
from .gates import Gates, GatesFactor

Points = tuple[Array, ...]


class ConeLassoProgram(AbstractConeProgram[GatesFactor]):
    """x: blocks (c, 2, P, q + d); s = (E x, margins), and the misfit where the fit is exact.

    Without `interpolate` the objective is that of training with the squared loss, less |Y|^2 / 2.
    """

    gates: Gates
    targets: Float[Array, "c n"]
    weight_decay: Float[Array, ""]
    norm: float = eqx.field(static=True)
    interpolate: bool = eqx.field(static=True)

    @property
    def bounds(self) -> int:
        """q, how many numbers bound the norm of a block."""
        return self.gates.features.shape[1] if self.norm == 1 else 1

    @property
    def norm_rows(self) -> Float[np.ndarray, "e b"]:
        """E: (r, w) for the second-order cone; r - w and r + w, which are to be nonnegative."""
        features = self.gates.features.shape[1]
        if self.norm == 2:
            return np.eye(1 + features)
        of_bounds = np.eye(features) if self.norm == 1 else np.ones((features, 1))
        identity = np.eye(features)
        return np.block([[of_bounds, -identity], [of_bounds, identity]])

    @property
    def solvable(self):
        return not self.interpolate  # w = 0 is feasible, and the objective is bounded below

    def weights(self, x: Float[Array, "c 2 p b"]) -> Float[Array, "c 2 p d"]:
        """w of (r, w)."""
        return x[..., self.bounds :]

    def quadratic(self, x):
        if self.interpolate:
            return jnp.zeros_like(x)
        return self._on_weights(jax.vmap(self._gram)(self.weights(x)))

    def linear(self):
        cost = jnp.zeros(self._shape, self.targets.dtype)
        cost = cost.at[..., : self.bounds].set(self.weight_decay)
        return cost if self.interpolate else cost - self._pull(self.targets)

    def operator(self, x):
        weights = self.weights(x)
        norms = dot(x, jnp.asarray(self.norm_rows.T, x.dtype))
        margins = jax.vmap(self.gates.margins)(weights)
        if not self.interpolate:
            return -norms, -margins
        return -norms, -margins, jax.vmap(self.gates.fitted)(weights)

    def adjoint(self, y):
        pulled = dot(y[0], jnp.asarray(self.norm_rows, y[0].dtype))
        pulled = pulled + self._on_weights(jax.vmap(self.gates.margins_adjoint)(y[1]))
        return -pulled + self._pull(y[2]) if self.interpolate else -pulled

    def offset(self):
        lead, dtype = self._shape[:-1], self.targets.dtype
        norms = jnp.zeros((*lead, len(self.norm_rows)), dtype)
        margins = jnp.zeros((*lead, self.targets.shape[1]), dtype)
        return (norms, margins, self.targets) if self.interpolate else (norms, margins)

    def project(self, s):
        norms = project_nonnegative(s[0])
        if self.norm == 2:
            blocks = s[0].reshape(-1, s[0].shape[-1])
            norms = jax.vmap(project_second_order)(blocks).reshape(s[0].shape)
        rest = (jnp.where(jnp.isnan(s[2]), s[2], 0),) if self.interpolate else ()
        return norms, project_nonnegative(s[1]), *rest

    def factor(self):
        return self.gates.factor(float(self._curvature[-1]))

    def minimize(self, factor, penalty, target, guess):
        del guess  # solved exactly
        pulled, linear = self.adjoint(target), self.linear()
        if self.interpolate:  # no P: the penalty divides out, and A'A holds the fit
            shift, right = jnp.ones_like(penalty), pulled - linear / penalty
        else:
            shift, right = penalty, penalty * pulled - linear
        bounds = right[..., : self.bounds] / (shift * self._curvature[: self.bounds])
        nothing = jnp.zeros(self.targets.shape[1], right.dtype)

        def solve(blocks):
            return factor.solve(self.gates, shift, blocks, nothing)[0]

        weights = jax.vmap(solve)(self.weights(right))
        return jnp.concatenate([bounds, weights], axis=-1)

    def tangent_factor(self):
        return ()

    def tangent(self, factor, gradient):
        return gradient

    def initial(self):
        zero = jax.tree.map(jnp.zeros_like, self.offset())
        return zero, zero

    def equilibrate(self):
        return _equilibrate(self)

    def interior(self):
        return ConeLassoForm(*_equilibrate(self))

    @property
    def _shape(self) -> tuple[int, int, int, int]:
        cells, features = len(self.gates.slopes), self.gates.features.shape[1]
        return len(self.targets), 2, cells, self.bounds + features

    @property
    def _curvature(self) -> Float[np.ndarray, " b"]:
        """The diagonal of E'E."""
        return np.sum(self.norm_rows**2, axis=0)

    def _gram(self, weights: Float[Array, "2 p d"]) -> Float[Array, "2 p d"]:
        return self.gates.pulled(self.gates.fitted(weights))

    def _pull(self, residual: Float[Array, "c n"]) -> Float[Array, "c 2 p b"]:
        return self._on_weights(jax.vmap(self.gates.pulled)(residual))

    def _on_weights(self, part: Float[Array, "c 2 p d"]) -> Float[Array, "c 2 p b"]:
        return jnp.pad(part, ((0, 0), (0, 0), (0, 0), (self.bounds, 0)))


class ConeLassoScaling(Scaling):
    """x = primal x' and y = dual y'; margins are `rows` times as long, and misfits `fit` times."""

    primal: Float[Array, ""]
    dual: Float[Array, ""]
    rows: Float[Array, " n"]
    fit: Float[Array, ""]

    def scale(self, s, y):
        factors = self._factors(s)
        return (
            tuple(f * part / self.primal for f, part in zip(factors, s, strict=True)),
            tuple(part / f / self.dual for f, part in zip(factors, y, strict=True)),
        )

    def unscale(self, x, s, y):
        factors = self._factors(s)
        return (
            self.primal * x,
            tuple(self.primal * part / f for f, part in zip(factors, s, strict=True)),
            tuple(self.dual * f * part for f, part in zip(factors, y, strict=True)),
        )

    def _factors(self, points: Points) -> Points:
        return (jnp.ones(()), self.rows, self.fit)[: len(points)]


def margin_lengths(rows: Float[Array, "n d"]) -> Float[Array, " n"]:
    """What makes the rows of all margins, G'G, about as long as a block's identity."""
    size = jnp.linalg.norm(rows, axis=1)
    samples, features = rows.shape
    return jnp.where(size > 0, (features / samples) ** 0.25 / jnp.where(size > 0, size, 1), 1)


def _equilibrate(program: ConeLassoProgram) -> tuple[ConeLassoProgram, ConeLassoScaling]:
    """Features of length one at most, margins of one length, targets of norm one."""
    gates = program.gates
    longest = jnp.max(jnp.linalg.norm(gates.features, axis=1))
    fit = jnp.where(longest > 0, 1 / jnp.where(longest > 0, longest, 1), 1)
    rows = margin_lengths(gates.rows)
    size = jnp.linalg.norm(program.targets)
    size = jnp.where(size > 0, size, 1)
    primal = fit * size
    dual = program.weight_decay if program.interpolate else size / fit
    twin = ConeLassoProgram(
        gates=Gates(fit * gates.features, rows[:, None] * gates.rows, gates.slopes, gates.signs),
        targets=program.targets / size,
        weight_decay=program.weight_decay / dual,
        norm=program.norm,
        interpolate=program.interpolate,
    )
    return twin, ConeLassoScaling(primal, dual, rows, fit)
