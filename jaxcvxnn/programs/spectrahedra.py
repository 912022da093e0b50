"""(spectrahedra): networks with polynomial activations to the global optimum, squared loss.

The dual (28) of Bartan and Pilanci (2021), with the forms' parts orthogonal to G = diag(1, ..., 1, -1):

    -p* = min  1/2 ||R||^2 + <R, Y>
    s.t. wd/2 I + sum_i R_ik F_i - rho_k G,  wd/2 I - sum_i R_ik F_i - rho'_k G  PSD

for every output k; for the square activation with wd I and without rho. The multipliers are the
matrices Z_k and Z'_k of their program (21).
Derivation: docs/math.md, section "Neural spectrahedra".
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxcone import (
    AbstractConeProgram,
    InteriorPoint,
    Residuals,
    Solution,
    Splitting,
    Status,
    after,
    norm,
    project_psd,
    smat,
    svec,
)

from ..problem import TrainingProblem, require_squared
from ..products import dot
from .abstract import AbstractProgramSolution, AbstractTrainingProgram
from .planar import NoScaling
from .quadratic_forms import AbstractForms, Compressed, compress
from .spectrahedra_interior import SpectrahedraForm
from .spectrahedron_points import Samples, balanced, bordered, mass, samples_of

# Up to this many loss rows the interior-point method is the default; see docs/math.md.
INTERIOR_ROWS = 1000


class SpectrahedraData(eqx.Module):
    """The numbers of (spectrahedra): the samples, and their loss on k rows, at most one per
    coordinate of a matrix.
    """

    samples: Samples
    loss: Compressed
    weight_decay: Float[Array, ""]

    @property
    def forms(self) -> AbstractForms:
        """The samples' forms."""
        return self.samples.forms


class SpectrahedraSolution(AbstractProgramSolution):
    """The global optimum of training: Z and Z' of (21), and the residual that proves it.

    `positive` and `negative` (c, f + 1, f + 1) are feasible, f the number of features; `objective` is
    theirs. `residual` is R = f(X) - Y (n, c), and `dual_objective` the dual value of its best feasible
    multiple. They enclose p* up to rounding.
    """

    positive: Float[Array, "c f1 f1"]
    negative: Float[Array, "c f1 f1"]
    residual: Float[Array, "n c"]
    objective: Float[Array, ""]
    dual_objective: Float[Array, ""]
    status: Status
    steps: Int[Array, ""]
    residuals: Residuals
    solution: Solution


class RowFactor(eqx.Module):
    """Eigenbasis of A'A on the columns of R; on the multipliers it is s times the identity."""

    values: Float[Array, " k"]
    basis: Float[Array, "k k"]


class SpectrahedraProgram(AbstractConeProgram[RowFactor]):
    """(spectrahedra) in the standard form, with R in some unit t.

    x = (R / t, rho / wd), s = the matrices / wd, those with +R and those with -R, and the value is
    -(p* - `constant`) / t^2. `signs` is G's diagonal, None where there is no such multiplier.
    """

    rows: Float[Array, "k D"]  # t / wd times the forms
    targets: Float[Array, "k c"]  # Y / t
    signs: Float[Array, " s"] | None
    side: int = eqx.field(static=True)
    trace_price: float = eqx.field(static=True)

    @property
    def solvable(self):
        return True  # R = 0 is strictly inside, and the objective is strongly convex in R

    @property
    def multipliers(self) -> int:
        """Multipliers rho per output."""
        return 0 if self.signs is None else 2

    def quadratic(self, x):
        residual, multipliers = x
        return residual, jnp.zeros_like(multipliers)

    def linear(self):
        outputs = self.targets.shape[1]
        return self.targets, jnp.zeros((self.multipliers, outputs), self.targets.dtype)

    def operator(self, x):
        residual, multipliers = x
        pulled = jax.vmap(smat)(dot(residual.T, self.rows))
        if self.signs is None:
            return -pulled, pulled
        shifts = multipliers[:, :, None, None] * jnp.diag(self.signs)
        return shifts[0] - pulled, shifts[1] + pulled

    def adjoint(self, y):
        positive, negative = y
        across = dot(self.rows, jax.vmap(svec)(positive - negative).T)
        return -across, self._on_signs(y)

    def offset(self):
        price = self.trace_price * jnp.eye(self.side, dtype=self.rows.dtype)
        matrices = jnp.broadcast_to(price, (self.targets.shape[1], self.side, self.side))
        return matrices, matrices

    def project(self, s):
        return jax.vmap(project_psd)(s[0]), jax.vmap(project_psd)(s[1])

    def factor(self):
        return RowFactor(*jnp.linalg.eigh(2 * dot(self.rows, self.rows.T)))

    def minimize(self, factor, penalty, target, guess):
        del guess  # solved exactly
        pulled, multipliers = self.adjoint(target)
        right = dot(factor.basis.T, penalty * pulled - self.targets)
        residual = dot(factor.basis, right / (1 + penalty * factor.values)[:, None])
        return residual, multipliers / self.side

    def tangent_factor(self):
        return ()

    def tangent(self, factor, gradient):
        return gradient

    def initial(self):
        """R = 0 and rho = 0, strictly inside; y = 0."""
        matrices = self.offset()
        return matrices, jax.tree.map(jnp.zeros_like, matrices)

    def equilibrate(self):
        return self, NoScaling()

    def interior(self):
        return SpectrahedraForm(self)

    def _on_signs(self, matrices: tuple[Array, Array]) -> Float[Array, "m c"]:
        """<G, S> of the matrices of both kinds and all outputs."""
        outputs = self.targets.shape[1]
        if self.signs is None:
            return jnp.zeros((0, outputs), self.rows.dtype)
        diagonals = jnp.diagonal(jnp.stack(matrices), axis1=2, axis2=3)
        return jnp.sum(self.signs * diagonals, axis=2)


class NeuralSpectrahedron(AbstractTrainingProgram[SpectrahedraData, SpectrahedraSolution]):
    """The program (21) of Bartan and Pilanci (2021): the global optimum for a polynomial activation.

    Takes `activation=Polynomial(a, b, c)`, the squared loss, any number of outputs, with or without
    bias; `solve_spectrahedron` takes the other losses. The square activation (b = c = 0) has matrices
    of one row less and no trace equality.
    """

    def data(self, problem: TrainingProblem | SpectrahedraData) -> SpectrahedraData:
        """The program's numbers; data of its own kind pass through.

        **Raises** a `ValueError` for another problem, and for another loss or activation.
        """
        if isinstance(problem, SpectrahedraData):
            return problem
        if not isinstance(problem, TrainingProblem):
            raise ValueError(f"problem must be a TrainingProblem; got {type(problem).__name__}.")
        require_squared(problem)
        samples = samples_of(problem)
        loss = compress(samples.forms, samples.targets)
        return SpectrahedraData(samples, loss, jnp.asarray(problem.weight_decay))

    def cone_program(self, data):
        scale = _unit(data) / data.weight_decay
        side, square = data.forms.side, data.forms.square
        signs = jnp.ones(side, data.loss.rows.dtype).at[-1].set(-1)
        return SpectrahedraProgram(
            rows=scale * data.loss.rows,
            targets=data.loss.targets / _unit(data),
            signs=None if square else signs,
            side=side,
            trace_price=data.forms.trace_price,
        )

    def default_solver(self, program):
        small = program.targets.size <= INTERIOR_ROWS
        if not small:
            return Splitting(max_steps=20000)
        tolerance = 1e-9 if program.targets.dtype == jnp.float64 else None
        return InteriorPoint(tolerance=tolerance, max_steps=60)

    def read_out(self, data, program, solution):
        unit = _unit(data) ** 2 / data.weight_decay
        positive, negative = (balanced(data.forms, unit * part) for part in solution.y)
        samples = data.samples
        outputs = data.forms.outputs(positive - negative)
        dual = data.loss.expand(data.forms, samples.targets, _unit(data) * solution.x[0])
        residual, bound = samples.better_dual(samples.gradient(outputs), dual, data.weight_decay)
        total = mass(data.forms, positive) + mass(data.forms, negative)
        # Factorisations stand in one line (`after`).
        full = bordered(data.forms, after(jnp.concatenate([positive, negative]), bound))
        count = positive.shape[0]
        return SpectrahedraSolution(
            positive=full[:count],
            negative=full[count:],
            residual=residual,
            objective=samples.value(outputs) + data.weight_decay * total,
            dual_objective=bound,
            status=solution.status,
            steps=solution.steps,
            residuals=solution.residuals,
            solution=solution,
        )


def _unit(data: SpectrahedraData) -> Array:
    """The unit of R: the weight decay over the size of the forms, but |Y| where that is less."""
    longest = norm(jax.lax.stop_gradient(data.loss.rows)) / data.loss.rows.shape[0] ** 0.5
    price = data.weight_decay / jnp.where(longest > 0, longest, 1)
    size = norm(jax.lax.stop_gradient(data.loss.targets))
    return jax.lax.stop_gradient(jnp.where(size > 0, jnp.minimum(price, size), price))
