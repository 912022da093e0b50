"""What a convex program of training must offer, to be solved, trained with and certified."""

import abc
from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxcone import AbstractSolver, Residuals, Solution, Status
from jaxcone.extend import AbstractConeProgram

from ..bound import Bound
from ..job import Job
from ..pricing.budget import Budget
from ..proof.residual import certify_residual

Data = TypeVar("Data")
Found = TypeVar("Found", bound="AbstractFound")


class AbstractFound(eqx.Module):
    """Named blocks of a solution, the values of the program and its dual there, and how it ended:
    `status` and `steps`.

    Neither value is a bound on training: `AbstractProgram.certify` proves one.
    """

    objective: eqx.AbstractVar[Any]
    dual_objective: eqx.AbstractVar[Any]

    @property
    def relative_gap(self) -> Any:
        """(objective - dual_objective) / |objective|, and 0 / 0 = 0."""
        size = jnp.abs(self.objective)
        tiny = jnp.finfo(size.dtype).tiny
        return (self.objective - self.dual_objective) / jnp.maximum(size, tiny)


class AbstractConeFound(AbstractFound):
    """Blocks that were read from a cone program's `solution`, which says how it ended."""

    solution: eqx.AbstractVar[Solution]

    @property
    def status(self) -> Status:
        """Of the cone program's solution, as are `steps` and `residuals`."""
        return self.solution.status

    @property
    def steps(self) -> Int[Array, ""]:
        return self.solution.steps

    @property
    def residuals(self) -> Residuals:
        return self.solution.residuals


class AbstractProgram(eqx.Module, Generic[Data, Found]):
    """A convex program: what it takes, its numbers, its cone program, and what a solution is worth.

    `Data` hold arrays, `weight_decay` among them, and may be stacked for `vmap`. `data` and `refuses`
    look at concrete problems; `to_cone` and `read_out` are pure JAX; the rest runs on the host.
    """

    @abc.abstractmethod
    def refuses(self, problem: Any) -> str:
        """Why the program does not take this problem; "" where it does."""

    @abc.abstractmethod
    def data(self, problem: Any) -> Data:
        """The program's numbers; data of its own kind pass through.

        **Raises** a `ValueError` for what it refuses.
        """

    @abc.abstractmethod
    def to_cone(self, data: Data) -> AbstractConeProgram:
        """The program in the standard form of `jaxcone`.

        **Raises** a `ValueError` where only a method of its own solves it.
        """

    @abc.abstractmethod
    def read_out(self, data: Data, cone: Any, solution: Solution) -> Found:
        """The named blocks of a solution of `cone`, which is `to_cone(data)`."""

    @abc.abstractmethod
    def default_method(self, data: Data) -> "AbstractSolver | AbstractMethod":
        """The settings in force where none are given."""

    @abc.abstractmethod
    def network(self, problem: Any, found: Any) -> Any:
        """A network from a solution; where the program is exact, and solved, an optimal one."""

    def residual(self, problem: Any, found: Any) -> Float[np.ndarray, "n c"]:
        """The dual point R of training that a solution holds, on the samples of the problem."""
        del problem
        return np.asarray(found.residual, np.float64)

    def certify(self, problem: Any, found: Any, *, budget: Budget | None = None) -> Bound[Any]:
        """What a solution proves, converged or not: a lower bound on the optimum of training.

        `budget` limits the search for neurons, where the proof needs one.
        """
        return certify_residual(problem, self.residual(problem, found), budget=budget)


class AbstractMethod(eqx.Module):
    """A method of its own for some programs: settings, and how they are solved with them.

    The solvers of `jaxcone` are methods for all programs that have a cone program. A method that is
    `precise` runs on the host in float64, whatever JAX's precision.
    """

    precise: ClassVar[bool] = False

    @abc.abstractmethod
    def solve(self, program: Any, data: Any, warm_start: Any = None) -> Any:
        """Solve for the program's data, from an earlier solution of the same shapes if it is given.

        **Raises** a `ValueError` for a program or data that the method does not take.
        """

    def on_host(
        self, program: Any, data: Any, warm_start: Any, job: Job, watch: Callable[[Any], object]
    ) -> Any:
        """`solve` from the host, in pieces between which the job is asked and `watch` is told.

        Returns what is reached when the job is over; None where that is nothing.
        """
        found = job.chunk(lambda: jax.block_until_ready(self.solve(program, data, warm_start)))
        if found is not None:
            job.tell(watch, found)
        return found


STATUSES = (
    "running",
    "solved",
    "inaccurate",
    "max_steps",
    "stalled",
    "nonfinite",
    "primal_infeasible",
    "dual_infeasible",
)


def status_name(status: Any) -> str:
    """The name of a concrete status."""
    return next(name for name in STATUSES if bool(status == getattr(Status, name)))


def require(program: AbstractProgram[Any, Any], problem: Any) -> None:
    """Raise a `ValueError` that says why the program does not take the problem, if it does not."""
    reason = program.refuses(problem)
    if reason:
        raise ValueError(f"{type(program).__name__}: {reason}")


def refusal(problem: Any, kind: type, *requirements: Callable[[Any], object]) -> str:
    """The first reason against a problem: not of this `kind`, or what a requirement raises; or ""."""
    if not isinstance(problem, kind):
        return f"problem must be a {kind.__name__}; got {type(problem).__name__}."
    for required in requirements:
        try:
            required(problem)
        except ValueError as error:
            return str(error)
    return ""
