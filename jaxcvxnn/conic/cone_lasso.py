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

from jaxcone import ConeProgram, Nonnegative, ProductCone, SecondOrder, Zero
from jaxcone.extend import (
    AbstractConeProgram,
    AbstractInteriorForm,
    EntryScaling,
    Layout,
    Scaling,
    matmul,
    project_nonnegative,
    project_second_order,
)

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
        norms = matmul(x, jnp.asarray(self.norm_rows.T, x.dtype))
        margins = jax.vmap(self.gates.margins)(weights)
        if not self.interpolate:
            return -norms, -margins
        return -norms, -margins, jax.vmap(self.gates.fitted)(weights)

    def adjoint(self, y):
        pulled = matmul(y[0], jnp.asarray(self.norm_rows, y[0].dtype))
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


class ConeLassoForm(AbstractInteriorForm):
    """(cone-lasso), equilibrated, in coordinates: x the blocks (r, w), s = (E x, margins, misfits)."""

    program: ConeLassoProgram
    scaling: ConeLassoScaling
    layout: Layout

    def __init__(self, program: ConeLassoProgram, scaling: ConeLassoScaling):
        self.program, self.scaling = program, scaling
        blocks = self.size // program.norm_rows.shape[1]
        size = len(program.norm_rows)
        norms = [SecondOrder(size)] * blocks if program.norm == 2 else [Nonnegative(size * blocks)]
        margins = Nonnegative(blocks * program.targets.shape[1])
        fit = [Zero(program.targets.size)] if program.interpolate else []
        self.layout = Layout(ProductCone([*norms, margins, *fit]))

    def linear(self):
        return self.program.linear().ravel()

    def offset(self):
        return _joined(self.program.offset())

    def quadratic(self, x):
        return self.program.quadratic(self._blocks(x)).ravel()

    def operator(self, x):
        return _joined(self.program.operator(self._blocks(x)))

    def adjoint(self, y):
        return self.program.adjoint(self._parts(y)).ravel()

    def normal(self, scaling):
        program, gates = self.program, self.program.gates
        length, samples = program.norm_rows.shape[1], program.targets.shape[1]
        count = self.size // length
        entries = scaling[-1]
        assert isinstance(entries, EntryScaling)
        rows = jnp.asarray(program.norm_rows, entries.w.dtype)
        if program.norm == 2:
            copies = jnp.broadcast_to(rows.T[:, None], (length, count, len(rows)))
            down = jax.vmap(scaling[0].down)(copies)
        else:
            of_norms = entries.w[: count * len(rows)].reshape(count, len(rows))
            down = rows.T[:, None] / of_norms
        own = jnp.einsum("ake,bke->kab", down, down, precision="highest")
        squares = entries.w[-count * samples :].reshape(count, samples) ** -2
        weighted = squares[:, :, None] * gates.rows
        of_margins = matmul(jnp.swapaxes(weighted, 1, 2), gates.rows)
        own = own.at[:, program.bounds :, program.bounds :].add(of_margins)
        index = jnp.arange(count)
        blocks = jnp.zeros((count, length, count, length), own.dtype).at[index, :, index].set(own)
        matrix = blocks.reshape(self.size, self.size)
        if program.interpolate:
            return matrix
        rows = self._fit_rows()
        return matrix + matmul(rows.T, rows)

    def equality_rows(self):
        dtype = self.program.targets.dtype
        return self._fit_rows() if self.program.interpolate else jnp.zeros((0, self.size), dtype)

    def initial(self):
        return None

    def points(self, x, s, y):
        return self.scaling.unscale(self._blocks(x), self._parts(s), self._parts(y))

    def twin(self):
        if self.program.solvable:
            return None
        maps = self.operator, self.adjoint
        flat = ConeProgram(None, self.linear(), maps, self.offset(), self.layout.cones)
        return flat, _FlatScaling(self)

    @property
    def size(self):
        gates = self.program.gates
        blocks = 2 * len(gates.slopes) * len(self.program.targets)
        return blocks * self.program.norm_rows.shape[1]

    def cost(self):
        outputs, samples = self.program.targets.shape
        length = self.program.norm_rows.shape[1]
        fits = 2.0 * samples * self.size**2 * outputs
        return self.size * (2.0 * samples + outputs * samples), fits + 2.0 * samples * length**3

    def _fit_rows(self) -> Float[Array, "cn x"]:
        """A, one row per output and sample."""
        program, gates = self.program, self.program.gates
        half = gates.slopes[:, :, None] * gates.features
        half = jnp.pad(half, ((0, 0), (0, 0), (program.bounds, 0)))
        rows = jnp.swapaxes(jnp.stack([half, -half]), 1, 2)
        rows = jnp.moveaxis(rows, 1, 0).reshape(program.targets.shape[1], -1)
        return jnp.kron(jnp.eye(len(program.targets), dtype=rows.dtype), rows)

    def _blocks(self, x: Array) -> Array:
        return x.reshape(*self.program.linear().shape)

    def _parts(self, s: Array) -> "Points":
        like = jax.eval_shape(self.program.offset)
        parts, start = [], 0
        for leaf in like:
            parts.append(s[start : start + leaf.size].reshape(leaf.shape))
            start += leaf.size
        return tuple(parts)


class _FlatScaling(Scaling):
    """From the form's vectors to the program's points."""

    form: ConeLassoForm

    def scale(self, s, y):
        s, y = self.form.scaling.scale(s, y)
        return _joined(s), _joined(y)

    def unscale(self, x, s, y):
        return self.form.points(x, s, y)


def _joined(parts: "Points") -> Array:
    return jnp.concatenate([part.ravel() for part in parts])
