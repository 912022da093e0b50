"""(lifted) as a program of training: Prakhya et al. (2025), eq. (SDP-NN), exactly reduced."""

import dataclasses
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcone import Solution, Splitting
from jaxcone.extend import after

from ..bound import Bound
from ..conic.lifted import LiftedData, LiftedProgram, lifted_program, pair_multipliers
from ..improve.rounding import round_on_host
from ..job import Job
from ..networks import AbstractTwoLayer, zero_network
from ..pricing.budget import Budget
from ..problem import TrainingProblem, in_float64, require_relu, require_squared
from ..proof.lifted import LiftedProof, certify_dual, certify_reduced
from ..reduction import Reduction, lifted_data
from .abstract import AbstractConeFound, AbstractProgram, refusal, require


class LiftedSolution(AbstractConeFound):
    """A point of (lifted) and its dual, in the coordinates of `data`.

    `moments` is S = E[(z, v)(z, v)'], z = (alpha, u), of shape (q + c, q + c); `residual` is R = E
    S_zv - Y (l, c); `multipliers` is N (m, m), whose pair entries belong to the equalities.
    `objective` and `dual_objective` include the constants; neither is a bound: see
    `SDPRelaxation.certify`.
    """

    data: LiftedData
    moments: Float[Array, "p p"]
    residual: Float[Array, "l c"]
    multipliers: Float[Array, "m m"]
    objective: Float[Array, ""]
    dual_objective: Float[Array, ""]
    solution: Solution

    @property
    def second_moment(self) -> Float[Array, "r r"]:
        """E[u u'], the learned feature covariance."""
        first, size = self.data.pairs, self.data.rows.shape[1]
        return self.moments[first:size, first:size]


class SDPRelaxation(AbstractProgram[LiftedData, LiftedSolution]):
    """The program (lifted), Prakhya et al. (2025), eq. (SDP-NN) in reduced form.

    Its value is a lower bound on training. For ReLU and the squared loss, any rank, bias and outputs.

    **Arguments:** `width`: the neurons of `network` at most.
    """

    width: int = eqx.field(static=True, default=300)

    def refuses(self, problem):
        return refusal(problem, TrainingProblem, require_relu, require_squared)

    def data(self, problem: TrainingProblem | LiftedData) -> LiftedData:
        """The program's numbers; data that is already reduced passes through."""
        if isinstance(problem, LiftedData):
            return problem
        require(self, problem)
        return lifted_data(problem)

    def to_cone(self, data):
        return lifted_program(data)

    def read_out(self, data, cone, solution):
        return read_out(data, cone, solution)

    def default_method(self, data):
        return Splitting()

    def network(
        self, problem: TrainingProblem | Reduction, found: LiftedSolution
    ) -> AbstractTwoLayer:
        """The best of the networks that the moments round to (`round_moments`); on the host.

        **Arguments:** as for `certify`.
        """
        training = problem.problem if isinstance(problem, Reduction) else problem
        exact = in_float64(training)
        if isinstance(problem, Reduction):
            moments = problem.expand_moments(np.asarray(found.moments, np.float64))
        else:
            moments = full_moments(exact, in_float64(found))
        return min(rounded_networks(exact, moments, self.width), key=lambda pair: pair[1])[0]

    def residual(self, problem, found):
        if isinstance(problem, Reduction):
            return problem.expand_residual(found.residual)
        return np.asarray(found.residual, np.float64)

    def certify(
        self,
        problem: TrainingProblem | Reduction,
        found: LiftedSolution,
        *,
        budget: Budget | None = None,
    ) -> Bound[LiftedProof]:
        """What R and the multipliers prove together; on the host, one lane at a time.

        **Arguments:** what `solve` was given: the problem, or the reduction whose `data` it was; the
        job of `budget` ends the repair.
        """
        job = None if budget is None else budget.job
        residual = np.asarray(found.residual, np.float64)
        multipliers = np.asarray(found.multipliers, np.float64)
        if isinstance(problem, Reduction):
            return certify_reduced(problem, residual, multipliers, job=job)
        lengths = np.linalg.norm(np.asarray(problem.features, np.float64), axis=1)
        inverse = np.tile(1 / np.where(lengths > 0, lengths, np.inf), 2)
        full = multipliers * inverse[:, None] * inverse
        return certify_dual(problem, residual, full, job=job)


# The published step size first; where it diverges or does badly, a quarter of it
# (docs/math/lifted.md, "Rounding").
ROUNDING_STEPS = (1.0, 0.25)
# Of the time that is left, what each of them may take.
ROUND_SHARE = 0.2


def rounded_networks(
    problem: TrainingProblem, moments: Float[Any, "p p"], width: int, job: Job | None = None
) -> list[tuple[AbstractTwoLayer, float]]:
    """Networks of Prakhya's Lambda with their objectives, the zero network first; in float64.

    Where `job` is over only the step size is tried that is sure to give a network.
    """
    job = Job() if job is None else job
    zero = zero_network(problem.X.shape[1], problem.Y.shape[1], bias=problem.bias)
    found = [(zero, float(problem.objective(zero)))]
    if not np.all(np.isfinite(moments)):
        return found
    with jax.enable_x64(True):
        full, features = jnp.asarray(moments), jnp.asarray(problem.features)
        for step in ROUNDING_STEPS[-1:] if job.over() else ROUNDING_STEPS:
            network = round_on_host(
                full,
                features,
                width=width,
                bias=problem.bias,
                relative_step=step,
                job=job.part(ROUND_SHARE),
            )
            if math.isfinite(float(problem.objective(network))):
                network = jax.tree.map(np.asarray, network)
                found.append((network, float(problem.objective(network))))
    return found


def read_out(data: LiftedData, program: LiftedProgram, solution: Solution) -> LiftedSolution:
    """The named blocks of a cone solution."""
    return LiftedSolution(
        data=data,
        moments=solution.x,
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
