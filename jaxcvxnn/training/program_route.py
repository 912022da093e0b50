"""Training by any convex program, as it is: solved, its network improved, its dual certified."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np

from ..activations import LeakyReLU
from ..bound import Bound, relative_gap
from ..improve.cycles import grow_and_polish
from ..improve.output_layer import narrow, refit
from ..improve.polish import prune
from ..improve.simplify import simplify
from ..job import Job
from ..networks import AbstractTwoLayer, zero_network
from ..pricing.budget import Budget
from ..problem import TrainingProblem
from ..programs.abstract import AbstractProgram, status_name
from ..programs.solve import solve_on_host
from ..proof.residual import certify_residual, trivial_bound
from .route import AbstractRoute, Outcome

# The relative gap below which a network is not polished any more, where none is asked for.
GOOD_ENOUGH = 1e-6
# Of a time limit, the part that the solve may take; and of the rest, what improving the network may.
SOLVE_SHARE, POLISH_SHARE = 0.7, 0.9


class ProgramRoute(AbstractRoute):
    """`program` by `method`, or by its default one. `improve`: whether the network is polished."""

    name: str = "program"
    width: int = 300
    program: AbstractProgram[Any, Any] = eqx.field(default=None)  # pyright: ignore
    method: Any = None
    tolerance: float | None = None
    improve: bool = True

    def prepare(self, problem, job):
        """Nothing: the numbers are cheap, or hold the weight decay."""
        return ()

    def run(self, prepared, problem, before, job):
        work = _Work(self, problem, job)
        if before is not None:
            work.offer(before.network)
        with job.stage("solve"):
            work.solve(None if before is None else before.state)
        with job.stage("round"):
            work.round()
        if self.improve:
            with job.stage("polish"):
                work.polish()
        with job.stage("certify"):
            work.certify()
        return work.outcome()

    def source(self, outcome):
        return f"the program {self.name}"

    def simpler(self, problem, outcome, job):
        if not isinstance(problem.activation, LeakyReLU):
            return outcome.network
        return simplify(problem, outcome.network, width=self.width, job=job)


class _Work:
    """One run: what is known so far, and the stages in order."""

    def __init__(self, route: ProgramRoute, problem: TrainingProblem, job: Job):
        self.route, self.problem, self.job = route, problem, job
        self.network: AbstractTwoLayer = zero_network(
            problem.X.shape[1], problem.Y.shape[1], bias=problem.bias, activation=problem.activation
        )
        self.upper = float(problem.objective(self.network))
        self.rounded = self.upper
        self.bound: Bound[Any] = trivial_bound(problem)
        self.found: Any = None
        self.cut = ""  # why the solve had to end, if it had to

    def solve(self, before: Any) -> None:
        def watch(found):
            lower, upper = float(found.dual_objective), float(found.objective)
            self.job.report(int(found.steps), int(found.steps), lower, upper)

        job = self.job.part(SOLVE_SHARE)
        self.found = solve_on_host(
            self.problem, self.route.program, self.route.method, before, job, watch
        )
        self.cut = job.stopped

    def round(self) -> None:
        if self.found is None:
            return
        found = self.found
        network = self.job.finish(lambda: self.route.program.network(self.problem, found))
        network = jax.tree.map(np.asarray, network)
        if self.offer(network):
            self.rounded = self.upper
        if isinstance(self.problem.activation, LeakyReLU) and self.network.width > self.route.width:
            self.network = self.job.finish(
                lambda: narrow(self.problem, self.network, self.route.width)
            )
            self.upper = float(self.problem.objective(self.network))

    def polish(self) -> None:
        """The best output layer, and where that is not enough growth and descent."""
        if not isinstance(self.problem.activation, LeakyReLU) or not self.network.width:
            return
        fitted = self.job.chunk(lambda: refit(self.problem, self.network))
        if fitted is not None:
            self.offer(fitted.network)
            self.learn(fitted.residual)
        enough = GOOD_ENOUGH if self.route.tolerance is None else self.route.tolerance
        if self.gap <= enough or self.job.over():
            return

        def watch(network, part):
            self.offer(network)
            self.job.report(round(100 * part), 100, self.bound.lower_bound, self.upper)

        width, job = self.route.width, self.job.part(POLISH_SHARE)
        grow_and_polish(self.problem, self.network, width=width, job=job, watch=watch)

    def certify(self) -> None:
        """What the dual of the solution proves, and the network's own residual."""
        if self.found is not None:
            found = self.found
            self.keep(lambda b: self.route.program.certify(self.problem, found, budget=b))
        if self.network.width:
            outputs = self.network.predict(self.problem.X)
            self.learn(np.asarray(self.problem.loss.gradient(outputs, self.problem.Y)))
        self.job.report(1, 1, self.bound.lower_bound, self.upper)

    @property
    def gap(self) -> float:
        return relative_gap(self.bound.lower_bound, self.upper)

    def learn(self, residual: np.ndarray) -> None:
        """Keep what a residual proves, if it is more."""
        self.keep(lambda budget: certify_residual(self.problem, residual, budget=budget))

    def keep(self, prove: Callable[[Budget], Bound[Any]]) -> None:
        """Keep what is proven, if it is more.

        Where the time is over, the search for neurons is short, and the bound weak but valid; after a
        Ctrl-C there is none.
        """
        if self.job.interrupted:
            return
        bound = self.job.finish(lambda: prove(Budget(job=self.job)))
        if bound.lower_bound > self.bound.lower_bound:
            self.bound = bound

    def offer(self, network: AbstractTwoLayer) -> bool:
        """Keep a network that is better, without its idle neurons."""
        network = jax.tree.map(np.asarray, network)
        objective = float(self.problem.objective(network))
        if objective >= self.upper:
            return False
        self.network, self.upper = prune(network), objective
        return True

    def outcome(self) -> Outcome:
        found = self.found
        status = self.cut or status_name(found.status)
        steps = 0 if found is None else int(found.steps)
        return Outcome(
            network=self.network,
            upper_bound=self.upper,
            certificate=self.bound,
            status=self.job.stopped or status,
            steps=steps,
            message=f"{type(self.route.program).__name__}, {steps} steps",
            rounded_objective=self.rounded,
            solution=found,
            state=found,
        )
