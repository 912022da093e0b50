"""(convolutional): convolutional polynomial networks to the global optimum, as one small program.

The penalty adds up over filters, pools and outputs k, so pools and outputs do not share filters at no
loss, and each has a pair of matrices of its own (docs/math/spectrahedra.md,
"Convolutional polynomial networks"):

    min  L(y^, Y) + weight_decay sum_gk (Z_gk4 + Z_gk4')
    s.t. y^_ik = sum_g <F_ig, Z_gk - Z_gk'>,  Z_gk, Z_gk' PSD,  tr Z_gk1 = Z_gk4,  tr Z_gk1' = Z_gk4'

with F_ig the mean over a pool of C * (x, 1)(x, 1)'. What is solved here is its dual, in the residual R
and one multiplier per constraint, for a few samples; for many, and for other losses, the primal is
solved by `SpectrahedronSplitting`:

    max  -L*(R)   s.t.  diag(rho I, weight_decay - rho) +- sum_i R_ik F_ig PSD for all g and k
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, ScalarLike

from jaxcone import (
    PSD,
    ConeProgram,
    InteriorPoint,
    Nonnegative,
    Solution,
    smat,
    svec,
)

from ..conic.dual_form import residual_unit
from ..conic.spectrahedron import lorentz_form
from ..convolution import ConvolutionalPolynomialNetwork, ConvolutionalProblem
from ..improve.decomposition import signed_neurons
from .abstract import AbstractConeFound, AbstractProgram, refusal, require
from .spectrahedron_points import Samples, samples_of
from .spectrahedron_splitting import SpectrahedronSplitting


class ConvolutionalData(eqx.Module):
    """The numbers of (convolutional): the samples, whose forms are written out, and the loss's
    conjugate.

    L*(R) = <R, `targets`> + `curvature`/2 |R|^2, for R within `limits` where there are any; all three
    None where L* is not quadratic.
    """

    samples: Samples
    targets: Any  # (n, c)
    curvature: Any
    limits: Any  # two of shape (n, c)
    weight_decay: Float[Any, ""]


class ConvolutionalSolution(AbstractConeFound):
    """The global optimum of training a convolutional polynomial network.

    `positive` and `negative` (g, c, f + 1, f + 1) are the Z_gk and Z_gk'; `residual` (n, c) is the
    gradient of the loss at the fitted outputs. `objective` is the primal program's value and
    `dual_objective` the dual's; what `residuals` leaves keeps either from being a bound in the strict
    sense: see `certify_residual`.
    """

    positive: Float[Array, "g c s s"]
    negative: Float[Array, "g c s s"]
    residual: Float[Array, "n c"]
    objective: Float[Array, ""]
    dual_objective: Float[Array, ""]
    solution: Solution


class ConvolutionalSpectrahedron(AbstractProgram[ConvolutionalData, ConvolutionalSolution]):
    """The program (convolutional), for a `ConvolutionalProblem`, with or without pooling; any loss.

    Its cone program takes the losses whose conjugate is quadratic on a box, squared, Huber, absolute
    and hinge, and is dense, with c (n + 2 K/P) unknowns and c (K/P) (f + 1) (f + 2) rows;
    `SpectrahedronSplitting` takes the others, and many samples. Under `jit`, which hides the labels,
    pass the hinge loss's `data(problem)` in place of the problem.

    **Arguments:** `sample_weights` and `tolerance` as for `NeuralSpectrahedron`.
    """

    sample_weights: Float[Any, " n"] | None = None
    tolerance: float | None = eqx.field(static=True, default=1e-9)

    def refuses(self, problem):
        return refusal(problem, ConvolutionalProblem)

    def data(self, problem: ConvolutionalProblem | ConvolutionalData) -> ConvolutionalData:
        """The program's numbers; data of its own kind pass through.

        **Raises** a `ValueError` for another problem.
        """
        if isinstance(problem, ConvolutionalData):
            return problem
        require(self, problem)
        samples = samples_of(problem, self.sample_weights)
        dtype = samples.targets.dtype
        conjugate = problem.loss.quadratic_conjugate(problem.Y)
        targets, curvature, limits = (None, None, None) if conjugate is None else conjugate
        return ConvolutionalData(
            samples=samples,
            targets=None if targets is None else jnp.asarray(targets),
            curvature=None if curvature is None else jnp.asarray(curvature, dtype),
            limits=jax.tree.map(lambda limit: jnp.asarray(limit, dtype), limits),
            weight_decay=jnp.asarray(problem.weight_decay),
        )

    def to_cone(self, data):
        """x = (R / unit, rho / weight decay, rho' / weight decay), rows over the weight decay.

        R is stored output by output, and so are the matrices, pools within outputs.
        """
        if not _has_cone(data):
            raise ValueError(
                "ConvolutionalSpectrahedron: its cone program takes the squared, Huber, absolute and "
                f"hinge losses, without weights; got {data.samples.loss.name!r}. "
                "SpectrahedronSplitting() takes it."
            )
        forms = data.samples.forms.features  # (n, g, t)
        (samples, pools, _), side = forms.shape, data.samples.forms.side
        outputs = data.targets.shape[1]
        dtype, unit, blocks = forms.dtype, _unit(data), pools * outputs
        readers = jnp.transpose(forms, (1, 2, 0)) * (unit / data.weight_decay)
        readers = jnp.kron(jnp.eye(outputs, dtype=dtype), readers.reshape(-1, samples))
        spread = jnp.kron(jnp.eye(blocks, dtype=dtype), svec(lorentz_form(side, dtype))[:, None])
        nothing = jnp.zeros_like(spread)
        A = jnp.block([[-readers, -spread, nothing], [readers, nothing, -spread]])
        b = jnp.tile(svec(jnp.zeros((side, side), dtype).at[-1, -1].set(1)), 2 * blocks)
        cones = [PSD(side)] * (2 * blocks)
        entries = samples * outputs
        if data.limits is not None:
            lower, upper = (limit.T.ravel() / unit for limit in data.limits)
            inside = jnp.eye(entries, entries + 2 * blocks, dtype=dtype)
            A = jnp.concatenate([A, inside, -inside])
            b = jnp.concatenate([b, upper, -lower])
            cones = [*cones, Nonnegative(2 * entries)]
        of_residual = jnp.arange(entries + 2 * blocks) < entries
        P = jnp.diag(jnp.where(of_residual, data.curvature, 0))
        c = jnp.concatenate([data.targets.T.ravel() / unit, jnp.zeros(2 * blocks, dtype)])
        return ConeProgram(P, c, A, b, cones)

    def default_method(self, data):
        if not _has_cone(data):
            return SpectrahedronSplitting()
        tolerance = 1e-9 if data.targets.dtype == jnp.float64 else None
        return InteriorPoint(tolerance=tolerance, max_steps=60, refinements=4)

    def network(self, problem, found):
        return convolutional_network(problem, found.positive, found.negative, self.tolerance)

    def read_out(self, data, cone, solution):
        (samples, pools, _), side = data.samples.forms.features.shape, data.samples.forms.side
        outputs = data.targets.shape[1]
        rows = pools * outputs * side * (side + 1)
        blocks = solution.y[:rows].reshape(2, outputs, pools, -1)
        unit = _unit(data)
        matrices = unit**2 / data.weight_decay * _smats(jnp.swapaxes(blocks, 1, 2))
        return ConvolutionalSolution(
            positive=matrices[0],
            negative=matrices[1],
            residual=unit * solution.x[: samples * outputs].reshape(outputs, samples).T,
            objective=-(unit**2) * solution.dual_objective,
            dual_objective=-(unit**2) * solution.primal_objective,
            solution=solution,
        )


def _has_cone(data: ConvolutionalData) -> bool:
    """Whether the cone program is one of this loss."""
    return data.targets is not None and data.samples.weights is None


def _unit(data: ConvolutionalData) -> Array:
    """The unit of R (`residual_unit`), by the size of the forms."""
    longest = jnp.max(jnp.linalg.norm(data.samples.forms.features, axis=2))
    return residual_unit(data.weight_decay, longest, data.targets)


def convolutional_network(
    problem: ConvolutionalProblem,
    positive: Any,
    negative: Any,
    tolerance: ScalarLike | None = None,
) -> ConvolutionalPolynomialNetwork:
    """The network of the matrices Z_gk and Z_gk' (g, c, f + 1, f + 1), on the host.

    At most sum_gk rank(Z_gk) + rank(Z_gk') filters, each used in one pool for one output; `tolerance`
    as in `decompose`.

    **Raises** a `ValueError` for matrices of other shapes, and entries that are not finite.
    """
    places = problem.pools.shape[0], problem.Y.shape[1]
    side = problem.patches.shape[2] + 1
    filters, strengths, found = signed_neurons(positive, negative, (*places, side, side), tolerance)
    weights = np.zeros((len(strengths), *places), strengths.dtype)
    weights[np.arange(len(strengths)), *found] = strengths
    return ConvolutionalPolynomialNetwork(filters.T, weights, problem.activation, problem.pool)


_smats = jnp.vectorize(smat, signature="(t)->(s,s)")
