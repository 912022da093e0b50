"""(spectrahedra) as a program of training with polynomial activations, squared loss.

(21) of Bartan and Pilanci (2021). docs/math/spectrahedra.md, "Neural spectrahedra".
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxcone import InteriorPoint, Residuals, Solution, Splitting, Status
from jaxcone.extend import after, norm

from ..conic.quadratic_forms import AbstractForms, Compressed, compress
from ..conic.spectrahedra import SpectrahedraProgram
from ..problem import TrainingProblem, require_squared
from .abstract import AbstractProgramSolution, AbstractTrainingProgram
from .spectrahedron_points import Samples, balanced, bordered, mass, samples_of

# Up to this many loss rows the interior-point method is the default: docs/math/spectrahedra.md,
# "Neural spectrahedra".
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
