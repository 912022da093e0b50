"""(convolutional): convolutional polynomial networks to the global optimum, as one small program.

The penalty adds up over filters, pools and outputs k, so pools and outputs do not share filters at no
loss, and each has a pair of matrices of its own (docs/math/spectrahedra.md,
"Convolutional polynomial networks"):

    min  L(y^, Y) + weight_decay sum_gk (Z_gk4 + Z_gk4')
    s.t. y^_ik = sum_g <F_ig, Z_gk - Z_gk'>,  Z_gk, Z_gk' PSD,  tr Z_gk1 = Z_gk4,  tr Z_gk1' = Z_gk4'

with F_ig the mean over a pool of C * (x, 1)(x, 1)'. What is solved here is its dual, in the residual R
and one multiplier per constraint, for a few samples; for many, and for other losses, the primal is
`solve_spectrahedron`'s:

    max  -L*(R)   s.t.  diag(rho I, weight_decay - rho) +- sum_i R_ik F_ig PSD for all g and k
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, ScalarLike

from jaxcone import (
    PSD,
    ConeProgram,
    InteriorPoint,
    Nonnegative,
    Residuals,
    Solution,
    Status,
    smat,
    svec,
)

from ..conic.spectrahedron import coefficient_matrix, lorentz_form
from ..convolution import ConvolutionalPolynomialNetwork, ConvolutionalProblem
from ..improve.decomposition import signed_neurons
from .abstract import AbstractProgramSolution, AbstractTrainingProgram


class ConvolutionalData(eqx.Module):
    """The numbers of (convolutional): `forms` F (g, n, s, s) of s = f + 1 rows.

    L*(R) = <R, `targets`> + `curvature`/2 |R|^2, for R within `limits` where there are any.
    """

    forms: Float[Array, "g n s s"]
    targets: Float[Array, "n c"]
    curvature: Float[Any, ""]
    limits: tuple[Float[Array, "n c"], Float[Array, "n c"]] | None
    weight_decay: Float[Any, ""]

    @property
    def unit(self) -> Array:
        """The unit of R: the weight decay over the size of the forms, but |y| where that is less.

        In either case p* is not small against its square, so that a relative gap means something.
        """
        longest = jnp.max(jnp.linalg.norm(self.forms, axis=(2, 3)))
        price = self.weight_decay / jnp.where(longest > 0, longest, 1)
        size = jnp.linalg.norm(self.targets)
        return jnp.where(size > 0, jnp.minimum(price, size), price)


class ConvolutionalSolution(AbstractProgramSolution):
    """The global optimum of training a convolutional polynomial network.

    `positive` and `negative` (g, c, f + 1, f + 1) are the Z_gk and Z_gk'; `residual` (n, c) is the
    gradient of the loss at the fitted outputs. `objective` is the primal program's value and
    `dual_objective` the dual's; what `residuals` leaves keeps either from being a bound in the strict
    sense: see `certify_convolutional`.
    """

    positive: Float[Array, "g c s s"]
    negative: Float[Array, "g c s s"]
    residual: Float[Array, "n c"]
    objective: Float[Array, ""]
    dual_objective: Float[Array, ""]
    status: Status
    steps: Int[Array, ""]
    residuals: Residuals
    solution: Solution


class ConvolutionalSpectrahedron(AbstractTrainingProgram[ConvolutionalData, ConvolutionalSolution]):
    """The program (convolutional), for a `ConvolutionalProblem`, with or without pooling.

    It takes the losses whose conjugate is quadratic on a box: squared, Huber, absolute and hinge; for
    the others, and for many samples, see `solve_spectrahedron`. Under `jit`, which hides the labels,
    pass the hinge loss's `data(problem)` in place of the problem. The program is dense, with c (n + 2
    K/P) unknowns and c (K/P) (f + 1) (f + 2) rows.
    """

    def data(self, problem: ConvolutionalProblem | ConvolutionalData) -> ConvolutionalData:
        """The program's numbers; data of its own kind pass through.

        **Raises** a `ValueError` for another problem, and for another loss.
        """
        if isinstance(problem, ConvolutionalData):
            return problem
        if not isinstance(problem, ConvolutionalProblem):
            raise ValueError(
                f"problem must be a ConvolutionalProblem; got {type(problem).__name__}."
            )
        conjugate = problem.loss.quadratic_conjugate(problem.Y)
        if conjugate is None:
            raise ValueError(
                "ConvolutionalSpectrahedron takes the squared, Huber, absolute and hinge losses; the "
                f"problem's is {problem.loss.name!r}: use solve_spectrahedron."
            )
        targets, curvature, limits = conjugate
        pools = jnp.asarray(problem.pools)
        rows = jnp.concatenate([pools, jnp.ones_like(pools[..., :1])], axis=-1)
        forms = jnp.einsum("gpni,gpnj->gnij", rows, rows, precision="highest") / problem.pool
        coefficients = jnp.asarray(coefficient_matrix(problem.activation, rows.shape[-1]))
        return ConvolutionalData(
            forms=coefficients.astype(forms.dtype) * forms,
            targets=jnp.asarray(targets),
            curvature=jnp.asarray(curvature, forms.dtype),
            limits=jax.tree.map(lambda limit: jnp.asarray(limit, forms.dtype), limits),
            weight_decay=jnp.asarray(problem.weight_decay),
        )

    def cone_program(self, data):
        """x = (R / unit, rho / weight decay, rho' / weight decay), rows over the weight decay.

        R is stored output by output, and so are the matrices, pools within outputs.
        """
        pools, samples, side, _ = data.forms.shape
        outputs = data.targets.shape[1]
        dtype, unit, blocks = data.forms.dtype, data.unit, pools * outputs
        readers = jnp.swapaxes(_svecs(data.forms), 1, 2) * (unit / data.weight_decay)
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

    def default_solver(self, program):
        tolerance = 1e-9 if program.c.dtype == jnp.float64 else None
        return InteriorPoint(tolerance=tolerance, max_steps=60, refinements=4)

    def read_out(self, data, program, solution):
        pools, samples, side, _ = data.forms.shape
        outputs = data.targets.shape[1]
        rows = pools * outputs * side * (side + 1)
        blocks = solution.y[:rows].reshape(2, outputs, pools, -1)
        unit = data.unit
        matrices = unit**2 / data.weight_decay * _smats(jnp.swapaxes(blocks, 1, 2))
        return ConvolutionalSolution(
            positive=matrices[0],
            negative=matrices[1],
            residual=unit * solution.x[: samples * outputs].reshape(outputs, samples).T,
            objective=-(unit**2) * solution.dual_objective,
            dual_objective=-(unit**2) * solution.primal_objective,
            status=solution.status,
            steps=solution.steps,
            residuals=solution.residuals,
            solution=solution,
        )


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


_svecs = jnp.vectorize(svec, signature="(s,s)->(t)")
_smats = jnp.vectorize(smat, signature="(t)->(s,s)")
