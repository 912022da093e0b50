"""(lifted) as a program of training: Prakhya et al. (2025), eq. (SDP-NN), exactly reduced."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxcone import Residuals, Solution, Splitting, Status
from jaxcone.extend import after

from ..conic.lifted import LiftedData, LiftedProgram, lifted_program, pair_multipliers
from ..problem import TrainingProblem
from ..proof.lifted import Certificate, certify_dual, certify_reduced
from ..reduction import Reduction, lifted_data
from .abstract import AbstractProgramSolution, AbstractTrainingProgram


class LiftedSolution(AbstractProgramSolution):
    """A point of (lifted) and its dual, in the coordinates of `data`.

    `moments` is S = E[(z, v)(z, v)'], z = (alpha, u), of shape (q + c, q + c); `residual` is R =
    E S_zv - Y (l, c); `multipliers` is N (m, m), whose pair entries belong to the equalities.
    `objective` and `dual_objective` include the constants; neither is a bound: see `certify_dual`.
    """

    data: LiftedData
    moments: Float[Array, "p p"]
    residual: Float[Array, "l c"]
    multipliers: Float[Array, "m m"]
    objective: Float[Array, ""]
    dual_objective: Float[Array, ""]
    status: Status
    steps: Int[Array, ""]
    residuals: Residuals
    solution: Solution

    @property
    def second_moment(self) -> Float[Array, "r r"]:
        """E[u u'], the learned feature covariance."""
        first, size = self.data.pairs, self.data.rows.shape[1]
        return self.moments[first:size, first:size]


class SDPRelaxation(AbstractTrainingProgram[LiftedData, LiftedSolution]):
    """The program (lifted), Prakhya et al. (2025), eq. (SDP-NN) in reduced form."""

    def data(self, problem: TrainingProblem | LiftedData) -> LiftedData:
        """The program's numbers; data that is already reduced passes through."""
        return problem if isinstance(problem, LiftedData) else lifted_data(problem)

    def cone_program(self, data):
        return lifted_program(data)

    def default_solver(self, program):
        return Splitting()

    def read_out(self, data, program, solution):
        return read_out(data, program, solution)


def read_out(data: LiftedData, program: LiftedProgram, solution: Solution) -> LiftedSolution:
    """The named blocks of a cone solution."""
    return LiftedSolution(
        data=data,
        moments=solution.x,
        status=solution.status,
        steps=solution.steps,
        residuals=solution.residuals,
        solution=solution,
        **_blocks(data, program, dataclasses.replace(solution, state=None)),
    )


@eqx.filter_jit  # one program: each operation by itself would be compiled by itself
def _blocks(data: LiftedData, program: LiftedProgram, solution: Solution) -> dict[str, Array]:
    size = data.rows.shape[1]
    moments = solution.x
    slack, products = solution.y
    residual = data.readout @ moments[:size, size:] - data.targets
    gradient = program.cost - slack[:size, :size] - data.rows.T @ products @ data.rows
    # `after` keeps this factorisation out of the way of the solve's (see there).
    nu = pair_multipliers(after(jnp.asarray(data.rows), moments), data.pairs, gradient)
    index = np.arange(data.pairs)
    multipliers = products.at[index, data.pairs + index].set(nu)
    multipliers = multipliers.at[data.pairs + index, index].set(nu)
    fixed = data.constant + jnp.sum(jnp.asarray(data.targets) ** 2) / 2
    return {
        "residual": residual,
        "multipliers": multipliers,
        "objective": solution.primal_objective + fixed,
        "dual_objective": solution.dual_objective + fixed,
    }


def certify_solution(problem: TrainingProblem | Reduction, solution: LiftedSolution) -> Certificate:
    """The certified lower bound from a solution's dual; on the host, one lane at a time.

    **Arguments:** what `solve` was given: the problem, or the reduction whose `data` it was.
    """
    residual = np.asarray(solution.residual, np.float64)
    multipliers = np.asarray(solution.multipliers, np.float64)
    if isinstance(problem, Reduction):
        return certify_reduced(problem, residual, multipliers)
    lengths = np.linalg.norm(np.asarray(problem.features, np.float64), axis=1)
    inverse = np.tile(1 / np.where(lengths > 0, lengths, np.inf), 2)
    return certify_dual(problem, residual, multipliers * inverse[:, None] * inverse)


def full_moments(problem: TrainingProblem, solution: LiftedSolution) -> Float[Array, "p p"]:
    """Prakhya's Lambda (2n + features + c) from a solution of `solve(problem)`. Pure JAX.

    For a solution of a `Reduction`'s data use `reduction.expand_moments` instead. Feed the result
    to `round_moments` with `problem.features` for a network.
    """
    lengths = jnp.linalg.norm(jnp.asarray(problem.features), axis=1)
    data = solution.data
    size, outputs = data.rows.shape[1], data.targets.shape[1]
    activations = jnp.concatenate([lengths, lengths])[:, None] * data.rows[: 2 * data.pairs]
    on_u = jnp.eye(size, dtype=activations.dtype)[data.pairs :]
    from_z = jnp.concatenate([activations, on_u, jnp.zeros((outputs, size), activations.dtype)])
    from_v = jnp.eye(from_z.shape[0], dtype=activations.dtype)[:, from_z.shape[0] - outputs :]
    lift = jnp.concatenate([from_z, from_v], axis=1)
    return lift @ solution.moments @ lift.T
