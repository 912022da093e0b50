"""The price of the best neuron, relaxed over the cone of (lifted).

    max <G, S>  s.t.  tr S_uu = 1,  S PSD,  V S V' >= 0 entrywise,  its pair entries zero

for S = E[z z'], z = (relu(P u), u), is an upper bound on max over |u| = 1 of <G, z z'>. In the form

    min 1/2 (tr S_uu)^2 - <G, S>

over the same cone it needs no equality: at the optimum tr S_uu is the bound, and the dual is the matrix
t I_u - G - V'NV >= 0 that proves it. Derivation: docs/math/pricing.md, "The price, relaxed".
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcone import Solution
from jaxcone.extend import AbstractConeProgram, AbstractInteriorForm, Layout, matmul

from .kernels import relu_moments
from .lifted import LiftedFactor, LiftedForm, LiftedProgram, LiftedScaling, pair_multipliers

# Duality gap over objective at the interior-point method's start.
FIRST_GAP = 100.0


class RelaxedPrice(AbstractConeProgram[tuple[LiftedFactor, Array]]):
    """min 1/2 (tr S_uu)^2 - <G, S> over the cone of (lifted): x = S, s = (S, W).

    `cone` is (lifted) without outputs and with the cost -G.
    """

    cone: LiftedProgram

    def __init__(self, rows: Float[Array, "m q"], reader: Float[Array, "q c"], pairs: int):
        size = rows.shape[1]
        self.cone = LiftedProgram(
            rows=rows,
            readout=jnp.zeros((1, size), rows.dtype),
            targets=jnp.zeros((1, 0), rows.dtype),
            cost=-matmul(reader, reader.T),
            cost_v=jnp.ones((), rows.dtype),
            pairs=pairs,
        )

    @property
    def solvable(self):
        return True  # Gaussian moments are feasible, and the objective is bounded below

    @property
    def on_u(self) -> Float[Array, "q q"]:
        """The matrix of S -> tr S_uu."""
        size = self.cone.rows.shape[1]
        inside = jnp.arange(size) >= self.cone.pairs
        return jnp.diag(inside.astype(self.cone.rows.dtype))

    def quadratic(self, x):
        return jnp.sum(self.on_u * x) * self.on_u

    def linear(self):
        return self.cone.cost

    def operator(self, x):
        return self.cone.operator(x)

    def adjoint(self, y):
        return self.cone.adjoint(y)

    def offset(self):
        return self.cone.offset()

    def project(self, s):
        return self.cone.project(s)

    def factor(self):
        factor = self.cone.factor()
        zero = self.offset()
        one = jnp.ones((), self.cone.rows.dtype)
        uncosted = self._at_cost(-self.on_u).cone
        return factor, uncosted.minimize(factor, one, zero, self.on_u)

    def minimize(self, factor, penalty, target, guess):
        of_cone, response = factor
        plain = self.cone.minimize(of_cone, penalty, target, guess)
        # The square adds a matrix of rank one: Sherman and Morrison.
        share = jnp.sum(self.on_u * plain) / (penalty + jnp.sum(self.on_u * response))
        return plain - share * response

    def tangent_factor(self):
        return self.cone.tangent_factor()

    def tangent(self, factor, gradient):
        return self.cone.tangent(factor, gradient)

    def initial(self):
        """The best multiple of Gaussian moments."""
        cone = self.cone
        mean = relu_moments(-cone.rows[cone.pairs : 2 * cone.pairs, cone.pairs :])
        moments = jnp.sum(-cone.cost * mean) / jnp.sum(self.on_u * mean) ** 2 * mean
        products = matmul(matmul(cone.rows, moments), cone.rows.T)
        zeros = jnp.zeros_like(moments), jnp.zeros_like(products)
        return cone.project((moments, products)), zeros

    def equilibrate(self):
        """As it is: the rows have length one already, and G the size that the caller gives it."""
        rows, one = self.cone.rows, jnp.ones((), self.cone.rows.dtype)
        identity = jnp.eye(rows.shape[1], dtype=rows.dtype)
        return self, LiftedScaling(identity, identity, jnp.ones_like(rows[:, 0]), one, one)

    def interior(self):
        return RelaxedPriceForm(self)

    def multipliers(self, solution: Solution) -> Float[Array, "m m"]:
        """N, with the pairs' own multipliers, from a solution."""
        rows, pairs = self.cone.rows, self.cone.pairs
        slack, products = solution.y
        gradient = self.quadratic(solution.x) + self.linear() - slack
        nu = pair_multipliers(rows, pairs, gradient - matmul(matmul(rows.T, products), rows))
        index = jnp.arange(pairs)
        products = products.at[index, pairs + index].set(nu)
        return products.at[pairs + index, index].set(nu)

    def _at_cost(self, cost: Array) -> "RelaxedPrice":
        return eqx.tree_at(lambda p: p.cone.cost, self, cost)


class RelaxedPriceForm(AbstractInteriorForm):
    """The program in coordinates: those of (lifted) without outputs."""

    program: RelaxedPrice
    form: LiftedForm
    layout: Layout

    def __init__(self, program: RelaxedPrice):
        one = jnp.ones((), program.cone.rows.dtype)
        self.program, self.form = program, LiftedForm(program.cone, one, one)
        self.layout = self.form.layout

    def linear(self):
        return self.form.linear()

    def offset(self):
        return self.form.offset()

    def quadratic(self, x):
        on_u = self._on_u()
        return jnp.sum(on_u * x) * on_u

    def operator(self, x):
        return self.form.operator(x)

    def adjoint(self, y):
        return self.form.adjoint(y)

    def equality_rows(self):
        return self.form.equality_rows()

    def normal(self, scaling):
        on_u = self._on_u()
        return self.form.normal(scaling) + on_u[:, None] * on_u

    def initial(self):
        (moments, products), _ = self.program.initial()
        gap = FIRST_GAP * jnp.sum(jnp.diagonal(moments)[self.program.cone.pairs :]) ** 2 / 2
        return self.form.inwards(moments, products, gap)

    def points(self, x, s, y):
        return self.form.points(x, s, y)

    def twin(self):
        return None  # always solvable

    @property
    def size(self):
        return self.form.size

    def cost(self):
        return self.form.cost()

    def _on_u(self) -> Float[Array, " n"]:
        """The coordinates of S -> tr S_uu; the diagonal of U stands for itself in them."""
        return self.form.coordinates(self.program.on_u)
