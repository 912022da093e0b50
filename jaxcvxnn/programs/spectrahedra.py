"""(spectrahedra) as a program of training with polynomial activations.

(21) of Bartan and Pilanci (2021). docs/math/spectrahedra.md, "Neural spectrahedra".
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcone import InteriorPoint, Solution
from jaxcone.extend import after, norm

from ..conic.dual_form import residual_unit
from ..conic.quadratic_forms import compress
from ..conic.spectrahedra import SpectrahedraProgram
from ..improve.decomposition import spectrahedron_network
from ..losses.regression import Squared
from ..problem import TrainingProblem, require_polynomial
from .abstract import AbstractConeFound, AbstractProgram, refusal, require
from .spectrahedron_points import Samples, balanced, bordered, mass, samples_of
from .spectrahedron_splitting import SpectrahedronSplitting

# Up to this many loss rows the interior-point method is the default: docs/math/spectrahedra.md,
# "Neural spectrahedra".
INTERIOR_ROWS = 1000


class SpectrahedraData(eqx.Module):
    """The numbers of (spectrahedra): the samples, with their loss, and the weight decay."""

    samples: Samples
    weight_decay: Float[Array, ""]


class SpectrahedraSolution(AbstractConeFound):
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
    solution: Solution


class NeuralSpectrahedron(AbstractProgram[SpectrahedraData, SpectrahedraSolution]):
    """The program (21) of Bartan and Pilanci (2021): the global optimum for a polynomial activation.

    Takes `activation=Polynomial(a, b, c)`, any loss, any number of outputs, with or without bias. Its
    cone program is for the squared loss and up to some thousand samples; the method of its own,
    `SpectrahedronSplitting`, for all. The square activation (b = c = 0) has matrices of one row less
    and no trace equality.

    **Arguments:** `sample_weights` (n,), nonnegative factors of the samples' losses, where 0 leaves a
    sample out (a fold is a vector of zeros and ones: `vmap` over it), for the splitting method;
    `tolerance`, below which `network` drops eigenvalues: see `decompose`.
    """

    sample_weights: Float[Any, " n"] | None = None
    tolerance: float | None = eqx.field(static=True, default=1e-9)

    def refuses(self, problem):
        return refusal(problem, TrainingProblem, require_polynomial)

    def data(self, problem: TrainingProblem | SpectrahedraData) -> SpectrahedraData:
        """The program's numbers; data of its own kind pass through.

        **Raises** a `ValueError` for another problem or activation, and for weights that do not fit.
        """
        if isinstance(problem, SpectrahedraData):
            return problem
        require(self, problem)
        samples = samples_of(problem, self.sample_weights)
        return SpectrahedraData(samples, jnp.asarray(problem.weight_decay))

    def to_cone(self, data):
        if not _has_cone(data):
            raise ValueError(
                "NeuralSpectrahedron: its cone program takes the squared loss only, without weights; "
                f"got {data.samples.loss.name!r}. SpectrahedronSplitting() takes it."
            )
        forms = data.samples.forms
        loss = compress(forms, data.samples.targets)
        longest = norm(loss.rows) / loss.rows.shape[0] ** 0.5
        unit = residual_unit(data.weight_decay, longest, loss.targets)
        signs = jnp.ones(forms.side, loss.rows.dtype).at[-1].set(-1)
        return SpectrahedraProgram(
            rows=unit / data.weight_decay * loss.rows,
            targets=loss.targets / unit,
            loss=loss,
            unit=unit,
            signs=None if forms.square else signs,
            side=forms.side,
            trace_price=forms.trace_price,
        )

    def default_method(self, data):
        rows = min(len(data.samples.targets), data.samples.forms.coordinates)
        if not _has_cone(data) or rows * data.samples.targets.shape[1] > INTERIOR_ROWS:
            return SpectrahedronSplitting()
        tolerance = 1e-9 if data.samples.targets.dtype == jnp.float64 else None
        return InteriorPoint(tolerance=tolerance, max_steps=60)

    def read_out(self, data, cone, solution):
        unit = cone.unit**2 / data.weight_decay
        samples, forms = data.samples, data.samples.forms
        positive, negative = (balanced(forms, unit * part) for part in solution.y)
        outputs = forms.outputs(positive - negative)
        dual = cone.loss.expand(forms, samples.targets, cone.unit * solution.x[0])
        residual, bound = samples.better_dual(samples.gradient(outputs), dual, data.weight_decay)
        total = mass(forms, positive) + mass(forms, negative)
        # Factorisations stand in one line (`after`).
        full = bordered(forms, after(jnp.concatenate([positive, negative]), bound))
        count = positive.shape[0]
        return SpectrahedraSolution(
            positive=full[:count],
            negative=full[count:],
            residual=residual,
            objective=samples.value(outputs) + data.weight_decay * total,
            dual_objective=bound,
            solution=solution,
        )

    def network(self, problem, found):
        return spectrahedron_network(problem, found.positive, found.negative, self.tolerance)


def _has_cone(data: SpectrahedraData) -> bool:
    """Whether the cone program is one of this loss."""
    return isinstance(data.samples.loss, Squared) and data.samples.weights is None
