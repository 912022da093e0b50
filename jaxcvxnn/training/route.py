"""What a way to train must offer: `train`, `path` and `certify` are loops over it."""

import abc
import dataclasses
from typing import Any

import equinox as eqx

from ..bound import AbstractCertified, Bound
from ..job import Job
from ..networks import AbstractTwoLayer
from ..problem import TrainingProblem
from ..programs.abstract import AbstractFound


class Outcome(AbstractCertified):
    """What a route has reached for one problem, finished or not: a network, and a proof.

    `status` says how the work ended; `rounded_objective` is the objective of the network before it was
    improved, or narrowed; `solution` that of a convex program, if one was solved; `state` what the work
    at another weight decay goes on from.
    """

    network: AbstractTwoLayer
    upper_bound: float
    certificate: Bound[Any]
    status: str
    steps: int = 0
    message: str = ""
    rounded_objective: float = float("inf")
    solution: AbstractFound | None = None
    state: Any = None

    def with_network(self, problem: TrainingProblem, network: AbstractTwoLayer) -> "Outcome":
        """With this network of the same problem in place of its own."""
        upper = float(problem.objective(network))
        return dataclasses.replace(self, network=network, upper_bound=upper)


# The relative gap that is small enough where nothing else is known.
GOOD_ENOUGH = 1e-5


class AbstractRoute(eqx.Module):
    """A way to train, with its settings. Problems are in float64, on the host.

    A route asks the job before each piece of work, which takes a second or one step of its method, and
    ends with what it has when the job is over: a network and a valid bound, at the first question too.
    """

    name: eqx.AbstractVar[str]
    width: eqx.AbstractVar[int]
    tolerance: eqx.AbstractVar[float | None]

    @abc.abstractmethod
    def prepare(self, problem: TrainingProblem, job: Job) -> Any:
        """What does not depend on the weight decay; None where the job ended first."""

    @abc.abstractmethod
    def run(
        self, prepared: Any, problem: TrainingProblem, before: Outcome | None, job: Job
    ) -> Outcome:
        """Train, from the outcome `before`, of the same samples at another weight decay or of a network
        that is given, if there is one. `prepared` may be None: then the job is over."""

    @abc.abstractmethod
    def source(self, outcome: Outcome) -> str:
        """What proved the bound, in words."""

    def enough(self, prepared: Any) -> float:
        """The relative gap that needs no more work."""
        del prepared
        return GOOD_ENOUGH if self.tolerance is None else self.tolerance

    @property
    def seconds_per_point(self) -> float | None:
        """Seconds for a weight decay of a path where there is no time limit; None: as it takes."""
        return None

    def proof(
        self, prepared: Any, problem: TrainingProblem, outcome: Outcome, job: Job
    ) -> Bound[Any]:
        """The outcome's certificate, or a better one that its network proves."""
        del prepared, problem, job
        return outcome.certificate

    def simpler(self, problem: TrainingProblem, outcome: Outcome, job: Job) -> AbstractTwoLayer:
        """The outcome's network with fewer neurons, where that costs next to nothing."""
        del problem, job
        return outcome.network
