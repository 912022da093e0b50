"""(convolutional): convolutional polynomial networks to the global optimum, as one small program.

The penalty adds up over filters and pools, so pools do not share filters at no loss, and each has a
pair of matrices of its own (docs/math.md, "Convolutional polynomial networks"):

    min  L(y^, y) + weight_decay sum_g (Z_g4 + Z_g4')
    s.t. y^_i = sum_g <F_ig, Z_g - Z_g'>,  Z_g, Z_g' PSD,  tr Z_g1 = Z_g4,  tr Z_g1' = Z_g4'

with F_ig the mean over a pool of C * (x, 1)(x, 1)'. What is solved is its dual, in the residual R and
one multiplier per constraint:

    max  -L*(R)   s.t.  diag(rho I, weight_decay - rho) +- sum_i R_i F_ig PSD for all g
"""

from typing import Any

import equinox as eqx
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

from ..convolution import ConvolutionalPolynomialNetwork, ConvolutionalProblem
from ..decomposition import signed_neurons
from ..neural_spectrahedron import coefficient_matrix, lorentz_form
from .abstract import AbstractProgramSolution, AbstractTrainingProgram


class ConvolutionalData(eqx.Module):
    """The numbers of (convolutional): `forms` F (g, n, s, s) of s = f + 1 rows.

    L*(R) = <R, `targets`> + `curvature`/2 |R|^2, for R within `limits` where there are any.
    """

    forms: Float[Array, "g n s s"]
    targets: Float[Array, " n"]
    curvature: Float[Any, ""]
    limits: tuple[Float[Array, " n"], Float[Array, " n"]] | None
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

    `positive` and `negative` (g, f + 1, f + 1) are the Z_g and Z_g' of the pools; `residual` (n, 1) is
    the gradient of the loss at the fitted outputs. `objective` is the primal program's value and
    `dual_objective` the dual's; what `residuals` leaves keeps either from being a bound in the strict
    sense: see `certify_convolutional`.
    """

    positive: Float[Array, "g s s"]
    negative: Float[Array, "g s s"]
    residual: Float[Array, "n 1"]
    objective: Float[Array, ""]
    dual_objective: Float[Array, ""]
    status: Status
    steps: Int[Array, ""]
    residuals: Residuals
    solution: Solution


class ConvolutionalSpectrahedron(AbstractTrainingProgram[ConvolutionalData, ConvolutionalSolution]):
    """The program (convolutional), for a `ConvolutionalProblem`, with or without pooling.

    It takes the losses whose conjugate is quadratic on a box: squared, Huber, absolute and hinge. Under
    `jit`, which hides the labels, pass the hinge loss's `data(problem)` in place of the problem. The
    program is dense, with n + 2 K/P unknowns and (K/P) (f + 1) (f + 2) rows.
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
                f"problem's is {problem.loss.name!r}."
            )
        targets, curvature, limits = conjugate
        pools = jnp.asarray(problem.pools)
        rows = jnp.concatenate([pools, jnp.ones_like(pools[..., :1])], axis=-1)
        forms = jnp.einsum("gpni,gpnj->gnij", rows, rows, precision="highest") / problem.pool
        coefficients = jnp.asarray(coefficient_matrix(problem.activation, rows.shape[-1]))
        return ConvolutionalData(
            forms=coefficients.astype(forms.dtype) * forms,
            targets=jnp.asarray(targets)[:, 0],
            curvature=jnp.asarray(curvature, forms.dtype),
            limits=None if limits is None else _columns(limits, forms.dtype),
            weight_decay=jnp.asarray(problem.weight_decay),
        )

    def cone_program(self, data):
        """x = (R / unit, rho / weight decay, rho' / weight decay), rows over the weight decay."""
        pools, samples, side, _ = data.forms.shape
        dtype, unit = data.forms.dtype, data.unit
        readers = jnp.swapaxes(_svecs(data.forms), 1, 2) * (unit / data.weight_decay)
        readers = readers.reshape(-1, samples)
        spread = jnp.kron(jnp.eye(pools, dtype=dtype), svec(lorentz_form(side, dtype))[:, None])
        nothing = jnp.zeros_like(spread)
        A = jnp.block([[-readers, -spread, nothing], [readers, nothing, -spread]])
        b = jnp.tile(svec(jnp.zeros((side, side), dtype).at[-1, -1].set(1)), 2 * pools)
        cones = [PSD(side)] * (2 * pools)
        if data.limits is not None:
            lower, upper = data.limits
            inside = jnp.eye(samples, samples + 2 * pools, dtype=dtype)
            A = jnp.concatenate([A, inside, -inside])
            b = jnp.concatenate([b, upper / unit, -lower / unit])
            cones = [*cones, Nonnegative(2 * samples)]
        of_residual = jnp.arange(samples + 2 * pools) < samples
        P = jnp.diag(jnp.where(of_residual, data.curvature, 0))
        c = jnp.concatenate([data.targets / unit, jnp.zeros(2 * pools, dtype)])
        return ConeProgram(P, c, A, b, cones)

    def default_solver(self, program):
        tolerance = 1e-9 if program.c.dtype == jnp.float64 else None
        return InteriorPoint(tolerance=tolerance, max_steps=60, refinements=4)

    def read_out(self, data, program, solution):
        pools, samples, side, _ = data.forms.shape
        rows = 2 * pools * side * (side + 1) // 2
        blocks = solution.y[:rows].reshape(2, pools, -1)
        unit = data.unit
        matrices = unit**2 / data.weight_decay * _smats(blocks)
        return ConvolutionalSolution(
            positive=matrices[0],
            negative=matrices[1],
            residual=unit * solution.x[:samples, None],
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
    """The network of the pools' matrices Z_g and Z_g' (g, f + 1, f + 1), on the host.

    At most sum_g rank(Z_g) + rank(Z_g') filters, each used in one pool; `tolerance` as in `decompose`.

    **Raises** a `ValueError` for matrices of other shapes, and entries that are not finite.
    """
    pools, side = problem.pools.shape[0], problem.patches.shape[2] + 1
    filters, strengths, places = signed_neurons(positive, negative, (pools, side, side), tolerance)
    weights = np.zeros((len(strengths), pools), strengths.dtype)
    weights[np.arange(len(strengths)), places] = strengths
    return ConvolutionalPolynomialNetwork(filters.T, weights, problem.activation, problem.pool)


def _columns(limits: Any, dtype: Any) -> tuple[Array, Array]:
    lower, upper = limits
    return jnp.asarray(lower, dtype)[:, 0], jnp.asarray(upper, dtype)[:, 0]


_svecs = jnp.vectorize(svec, signature="(s,s)->(t)")
_smats = jnp.vectorize(smat, signature="(t)->(s,s)")
