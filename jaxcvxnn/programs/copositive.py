"""(copositive) as a program of training with given activation patterns: Sahiner et al. (2021).

Eqs. (19) and (20), and (12) without the cones' constraints.
docs/math/patterns.md, "Copositive programs".
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float

from jaxcone import AbstractSolver, InteriorPoint, Solution, Splitting
from jaxcone.extend import matmul

from ..conic.copositive import CopositiveData, copositive_program, copositive_unit
from ..geometry.directions import row_space
from ..geometry.pattern_cones import cone_sides, facets, pattern_cones
from ..geometry.patterns import sign_patterns
from ..improve.output_layer import balanced_network, fit_outputs
from ..improve.semi_nmf import NEGLIGIBLE, semi_nonnegative_factorisation
from ..interior.lorentz import row_norms
from ..networks import AbstractTwoLayer
from ..problem import TrainingProblem, in_float64, require_leaky
from .abstract import AbstractConeFound, AbstractProgram, refusal, require

# Unknowns up to which a dense matrix is factored in every step: about a second on one core.
LARGEST_INTERIOR = 2500
# All patterns are taken where there are no more than these.
MOST_PATTERNS = 5000


class CopositiveSolution(AbstractConeFound):
    """The program's optimum: a local linear model per pattern, and the residual that bounds p*.

    `models`[i] is V_i (d, c), which acts on the samples that are active in `data.patterns`[i]; their
    outputs add up. `moments`[i] is U_i, which is sum_j u_j u_j' over the neurons of that pattern where
    it is completely positive. `residual` is R (n, c), the gradient of the loss at these outputs.
    `objective` comes from the models and `dual_objective` from R: they enclose the program's value up
    to what `residuals` leaves.
    """

    data: CopositiveData
    residual: Float[Array, "n c"]
    moments: Float[Array, "p d d"]
    models: Float[Array, "p d c"]
    objective: Float[Array, ""]
    dual_objective: Float[Array, ""]
    solution: Solution


class AbstractPatternProgram(AbstractProgram[CopositiveData, CopositiveSolution]):
    """What the programs over given activation patterns share."""

    patterns: eqx.AbstractVar[Bool[np.ndarray, "p n"] | None]

    def refuses(self, problem):
        reason = refusal(problem, TrainingProblem, require_leaky, _conjugate)
        if reason:
            return reason
        if isinstance(problem.X, Tracer) or isinstance(self.patterns, Tracer):
            return (
                "activation patterns need concrete samples; inside jit or vmap solve for "
                "`data(problem)`, computed before."
            )
        return ""

    def to_cone(self, data):
        return copositive_program(data)

    def default_method(self, data) -> AbstractSolver:
        """`jaxcone.InteriorPoint` up to 2500 unknowns (R and mu), else `jaxcone.Splitting`.

        The tolerance is 1e-9 where patterns have one product each, as for data of rank two, else 1e-6:
        products that depend on each other leave mu undetermined, and the last digits with it.
        """
        products, patterns = len(data.products), len(data.readers)
        if data.offsets.size + products > LARGEST_INTERIOR:
            return Splitting()
        tolerance = 1e-9 if products == patterns else 1e-6
        if data.readers.dtype != jnp.float64:
            tolerance = None
        return InteriorPoint(tolerance=tolerance, max_steps=50, refinements=4)

    def read_out(self, data, cone, solution):
        unit = copositive_unit(data)
        residual, _ = solution.x
        duals = 2 * unit**2 / data.weight_decay * solution.y[0]
        rank = cone.readers.shape[2]
        frames = jnp.einsum("dr,krs->kds", data.basis, data.frames, precision="highest")
        moments = matmul(matmul(frames, duals[:, :rank, :rank]), jnp.swapaxes(frames, 1, 2))
        return CopositiveSolution(
            data=data,
            residual=unit * residual,
            moments=moments,
            models=matmul(frames, duals[:, :rank, rank:]),
            objective=-(unit**2) * solution.dual_objective,
            dual_objective=-(unit**2) * solution.primal_objective,
            solution=solution,
        )


class CopositiveRelaxation(AbstractPatternProgram):
    """The copositive relaxation of training: Sahiner et al. (2021), eqs. (19) and (20).

    **Arguments:** `patterns` (p, n), booleans: the activation patterns that neurons may have; by
    default all of them, from `sign_patterns`, where there are not too many. With
    `np.ones((1, n), bool)` it is (20), for spike-free data. Patterns whose cone has no interior are
    left out: their neurons lie in the closure of other cells.

    **Value:** with all patterns a lower bound on p*, and p* itself where no pattern's cone has more
    than four facets: always for data of rank one and two. With some patterns it bounds from below the
    networks whose neurons have these patterns; with cones as above it is their optimum, at least p*.

    **Takes** the losses whose conjugate is quadratic between limits (squared, Huber, absolute, hinge);
    ReLU, leaky ReLU and the absolute value; any number of outputs; data of any rank if patterns are
    given. The samples must be concrete: where they are traced, inside `jit`, solve for
    `CopositiveRelaxation().data(problem)`, computed outside.
    """

    patterns: Bool[np.ndarray, "p n"] | None = None

    def data(self, problem: TrainingProblem | CopositiveData) -> CopositiveData:
        """The program's numbers; data of its own kind pass through. On the host.

        **Raises** a `ValueError` for another loss or activation, patterns of another shape or without
        an interior, data of rank four and more without patterns, and samples that are traced.
        """
        return _data(self, problem)

    def network(self, problem, found):
        return copositive_network(problem, found)


class NuclearNormRelaxation(AbstractPatternProgram):
    """min L(sum_i D_i X V_i) + wd sum_i |V_i|_*: no constraint ties a model V_i to its pattern.

    This is Sahiner et al. (2021), eq. (12), as printed: K_i of (13) holds all matrices wherever the
    cone has an interior, since g and -g are both allowed: docs/math/patterns.md, "Copositive programs".
    With all patterns its value is a lower bound on that of `CopositiveRelaxation`, hence on p*, often a
    poor one; it has no unknowns but R. Its models V_i are a gated network, no ReLU network. Arguments,
    losses and activations as for `CopositiveRelaxation`.
    """

    patterns: Bool[np.ndarray, "p n"] | None = None

    def data(self, problem: TrainingProblem | CopositiveData) -> CopositiveData:
        """The program's numbers, on the host. **Raises** as `CopositiveRelaxation.data` does."""
        data = _data(self, problem)
        rank = data.frames.shape[-1]
        return eqx.tree_at(
            lambda d: (d.products, d.owners),
            data,
            (np.zeros((0, rank, rank), data.products.dtype), np.zeros(0, int)),
        )

    def network(self, problem: TrainingProblem, found: CopositiveSolution) -> AbstractTwoLayer:
        """The best output weights for the singular vectors of the models, of either sign."""
        problem = in_float64(problem)
        models = np.asarray(found.models, np.float64)
        vectors, values, _ = np.linalg.svd(models, full_matrices=False)
        kept = values > NEGLIGIBLE * np.max(values, initial=0.0)
        first = np.swapaxes(vectors, 1, 2)[kept]
        units = np.concatenate([first, -first])
        fitted = fit_outputs(problem, units, np.zeros((len(units), problem.Y.shape[1])))
        return balanced_network(problem, units, fitted.V)


def _data(
    program: AbstractPatternProgram, problem: TrainingProblem | CopositiveData
) -> CopositiveData:
    if isinstance(problem, CopositiveData):
        return problem
    require(program, problem)
    activation, patterns = require_leaky(problem), program.patterns
    on_host = eqx.tree_at(lambda p: p.X, problem, np.asarray(problem.X, np.float64))
    features = np.asarray(on_host.features)
    basis = row_space(features)
    coordinates = features @ basis
    cones = pattern_cones(coordinates, _patterns(patterns, coordinates))
    if not len(cones.patterns):
        raise ValueError(
            "patterns: no cone {u : (2 D - I) X u >= 0} of these patterns has an interior."
        )
    slopes = np.asarray(activation.slopes(cones.patterns))
    readers = (slopes[:, :, None] * coordinates) @ cones.frames
    dtype = problem.Y.dtype
    offsets, curvature, limits = _conjugate(problem)
    nothing = np.zeros((0, problem.Y.shape[1]))
    lower, upper = (nothing, nothing) if limits is None else limits
    return CopositiveData(
        patterns=cones.patterns,
        basis=basis.astype(dtype),
        frames=cones.frames.astype(dtype),
        readers=readers.astype(dtype),
        products=cones.products.astype(dtype),
        owners=cones.owners,
        offsets=offsets,
        curvature=np.asarray(curvature, dtype),
        lower=lower.astype(dtype),
        upper=upper.astype(dtype),
        weight_decay=problem.weight_decay,
    )


def _patterns(patterns: Any, coordinates: np.ndarray) -> np.ndarray:
    """The patterns to take, checked."""
    count = len(coordinates)
    if patterns is None:
        return sign_patterns(coordinates, limit=MOST_PATTERNS)
    patterns = np.asarray(patterns)
    fits = patterns.dtype == bool and patterns.ndim == 2 and patterns.shape[1] == count
    if not fits or not len(patterns):
        raise ValueError(
            f"patterns must be booleans of shape (p, {count}), p > 0; they are {patterns.dtype} of "
            f"shape {patterns.shape}."
        )
    return np.unique(patterns, axis=0)


def _conjugate(problem: TrainingProblem) -> Any:
    """B, k and limits with L*(R) = <R, B> + k/2 ||R||^2 between the limits."""
    found = problem.loss.quadratic_conjugate(problem.Y)
    if found is None:
        raise ValueError(
            f"the {problem.loss.name} loss has no quadratic conjugate, which this program "
            'needs: it takes "squared", "huber", "absolute" and "hinge".'
        )
    return found


def copositive_network(problem: TrainingProblem, solution: CopositiveSolution) -> AbstractTwoLayer:
    """The network of a solution of `CopositiveRelaxation` for this problem; on the host, in float64.

    Its neurons are the semi-nonnegative factors of the models V_i, its output weights the best ones for
    these neurons. Where the relaxation is exact its objective is the program's value; otherwise it is
    an upper bound on p* as any network's.

    **Raises** a `ValueError` for a solution of another number of samples, features or outputs.
    """
    problem = in_float64(problem)
    features, data = problem.features, solution.data
    expected = len(features), features.shape[1], problem.Y.shape[1]
    given = data.patterns.shape[-1], *solution.models.shape[-2:]
    if given != expected or solution.models.ndim != 3:
        raise ValueError(
            f"solution must be one of this problem, with {expected} samples, features and outputs; it "
            f"has {given} and models of shape {solution.models.shape} (take one lane of a batch)."
        )
    basis = np.asarray(data.basis, np.float64)
    coordinates = features @ basis
    models = basis.T @ np.asarray(solution.models, np.float64)
    moments = basis.T @ np.asarray(solution.moments, np.float64) @ basis
    sizes = np.linalg.norm(models, axis=(1, 2))
    first, second = [np.zeros((0, basis.shape[1]))], [np.zeros((0, models.shape[2]))]
    for i in np.flatnonzero(sizes > NEGLIGIBLE * sizes.max(initial=0.0)):
        sides = cone_sides(coordinates, data.patterns[i])
        # A doubly nonnegative U sends every side into the cone; if U = u u', to the neuron.
        directions = sides[facets(sides)] @ moments[i]
        factors = semi_nonnegative_factorisation(
            models[i], sides, directions=directions, tolerance=1e-6
        )
        used = row_norms(factors.second) > NEGLIGIBLE * sizes.max()
        first.append(factors.first[used])
        second.append(factors.second[used])
    units, outputs = np.concatenate(first) @ basis.T, np.concatenate(second)
    found = fit_outputs(problem, units, outputs)
    return balanced_network(problem, units, found.V)
