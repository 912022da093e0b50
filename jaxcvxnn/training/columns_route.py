"""Training by column generation: ReLU and its kin, any loss; to the global optimum at low rank."""

import jax
import numpy as np

from ..improve.gradient_descent import random_network
from ..improve.output_layer import narrow
from ..improve.polish import polish
from ..improve.simplify import simplify
from ..job import Job
from ..networks import AbstractTwoLayer, from_first_layer
from ..pricing.pricer import LARGEST_RANK, Pricer
from ..pricing.slopes import stacked_features
from ..problem import TrainingProblem, require_leaky
from .checkpoint import Checkpoint
from .columns import default_tolerance, generate_columns
from .route import AbstractRoute, Outcome

# Rounds at most, and seconds per weight decay of a path that has no time limit.
MAX_ROUNDS = 300
PATH_SECONDS = 20.0
# Where the rank is high: the neurons of the descent that it starts from, and its share of the time.
DESCENT_WIDTH = 100
DESCENT_SHARE = 0.5


class ColumnsRoute(AbstractRoute):
    """`generate_columns`, after a descent from random weights where the rank is high."""

    name: str = "columns"
    width: int = 300
    tolerance: float | None = None
    seed: int = 0
    checkpoint: Checkpoint | None = None

    def prepare(self, problem: TrainingProblem, job: Job) -> Pricer | None:
        require_leaky(problem)
        with job.stage("prepare"):
            return job.chunk(lambda: Pricer(stacked_features(problem)))
        return None

    def run(self, prepared, problem, before, job):
        saved = self.checkpoint
        start = None if before is None else before.network
        if saved is not None and saved.exists:
            start = self._saved(saved, problem)
        if prepared is None:
            prepared = job.finish(lambda: Pricer(stacked_features(problem)))
        if start is None and prepared.rank > LARGEST_RANK:
            start = self._descended(problem, job)
        with job.stage("columns"):
            found = generate_columns(
                problem,
                start=start,
                pricer=prepared,
                tolerance=self.tolerance,
                max_rounds=MAX_ROUNDS,
                job=job,
                seed=self.seed,
                save=None if saved is None else self._save,
            )
        outcome = Outcome(
            network=found.network,
            upper_bound=found.upper_bound,
            certificate=found.certificate,
            status=found.status,
            steps=found.rounds,
            message=found.describe(),
            rounded_objective=found.upper_bound,
        )
        if found.network.width <= self.width:
            return outcome
        network = job.finish(lambda: narrow(problem, found.network, self.width))
        return outcome.with_network(problem, network)

    def source(self, outcome):
        return f"column generation, {outcome.steps} rounds"

    def enough(self, prepared):
        if self.tolerance is not None or prepared is None:
            return super().enough(prepared)
        return default_tolerance(prepared.rank)

    @property
    def seconds_per_point(self):
        return PATH_SECONDS

    def simpler(self, problem, outcome, job):
        network = outcome.network
        return simplify(problem, network, width=max(self.width, network.width), job=job)

    def _save(self, network: AbstractTwoLayer) -> None:
        assert self.checkpoint is not None
        neurons = network.first_layer, network.V
        self.checkpoint.save(self.name, neurons, width=network.width)

    def _saved(self, saved: Checkpoint, problem: TrainingProblem) -> AbstractTwoLayer:
        """The network of a checkpoint, from whose neurons the work goes on."""
        width = saved.header(self.name)["width"]
        like = np.zeros((problem.features.shape[1], width)), np.zeros((width, problem.Y.shape[1]))
        first, second = saved.load(self.name, like)
        return from_first_layer(first, second, bias=problem.bias, activation=problem.activation)

    def _descended(self, problem: TrainingProblem, job: Job) -> AbstractTwoLayer:
        """A network by descent from random weights: where the rank is high, neurons that are found one
        by one end at worse ones."""
        width = min(self.width, DESCENT_WIDTH)
        start = random_network(jax.random.key(self.seed), problem, width)

        def watch(network, objective, step, of):
            job.report(step, of, 0.0, objective)

        with job.stage("polish"):
            start = polish(problem, start, job=job.part(DESCENT_SHARE), watch=watch)
        return jax.tree.map(jax.device_get, start)
