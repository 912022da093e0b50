"""Training with a polynomial activation: the exact convex program, its network, and the proof."""

from typing import Any

import jax
import numpy as np

from ..bound import Bound, relative_gap
from ..improve.decomposition import spectrahedron_network
from ..job import Job
from ..networks import PolynomialNetwork
from ..problem import TrainingProblem
from ..programs.abstract import status_name
from ..programs.spectrahedron_points import samples_of
from ..programs.spectrahedron_splitting import (
    SpectrahedronSplit,
    SpectrahedronSplitting,
    prepare_on_host,
    solve_on_host,
)
from ..programs.spectrahedron_steps import SplittingPoint, first_point
from ..programs.spectrahedron_systems import PreparedSamples
from ..proof.residual import certify_residual
from .checkpoint import Checkpoint
from .route import AbstractRoute, Outcome

TOLERANCE = 1e-7
MAX_STEPS = 50_000
# Chunks in which the gap lost less than a tenth, after which nothing more is expected.
PATIENCE, PROGRESS = 4, 0.1
# Eigenvalues that count as zero, tried from coarse to fine: see `decompose`.
RANK_TOLERANCES = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, None)


class SpectrahedronRoute(AbstractRoute):
    """(21) of Bartan and Pilanci (2021) to the global optimum, whatever the rank and the loss."""

    name: str = "spectrahedron"
    width: int = 300
    tolerance: float | None = None
    checkpoint: Checkpoint | None = None

    def prepare(self, problem: TrainingProblem, job: Job) -> PreparedSamples | None:
        with job.stage("prepare"):
            return job.chunk(lambda: jax.block_until_ready(prepare_on_host(samples_of(problem))))
        return None

    def run(self, prepared, problem, before, job):
        found = None
        with job.stage("solve"):
            if prepared is not None and not job.over():
                found = self._solved(prepared, problem, before, job)
        tolerance, kept = self.enough(prepared), found
        with job.stage("round"):
            whole = job.finish(lambda: narrowest(problem, kept, tolerance))
        network = heaviest(whole, self.width)
        with job.stage("certify"):
            proof = job.finish(lambda: best_proof(problem, network, kept))
        upper = float(problem.objective(network))
        reached = relative_gap(proof.lower_bound, upper) <= tolerance
        ended = "time_limit" if found is None else status_name(found.status)
        steps = 0 if found is None else int(found.steps)
        return Outcome(
            network=network,
            upper_bound=upper,
            certificate=proof,
            status="solved" if reached else job.stopped or _unreached(ended),
            steps=steps,
            message=f"the exact program of a polynomial activation, {steps} steps of splitting",
            rounded_objective=float(problem.objective(whole)),
            state=found,
        )

    def enough(self, prepared):
        return TOLERANCE if self.tolerance is None else self.tolerance

    def source(self, outcome):
        return "the exact program"

    def _solved(
        self,
        prepared: PreparedSamples,
        problem: TrainingProblem,
        before: Outcome | None,
        job: Job,
    ) -> SpectrahedronSplit | None:
        """In chunks, until the gap, the job or the progress ends it."""
        settings = SpectrahedronSplitting(tolerance=self.enough(prepared) / 4, max_steps=MAX_STEPS)
        best, idle = np.inf, 0

        def watch(found: SpectrahedronSplit) -> bool:
            nonlocal best, idle
            lower, upper = float(found.dual_objective), float(found.objective)
            job.report(int(found.steps), MAX_STEPS, lower, upper)
            if self.checkpoint is not None:
                self.checkpoint.save(self.name, found.point)
            idle = idle + 1 if upper - lower > (1 - PROGRESS) * best else 0
            best = min(best, upper - lower)
            return idle >= PATIENCE

        start = self._start(prepared, problem, before)
        return solve_on_host(settings, prepared, problem.weight_decay, start, job, watch)

    def _start(
        self, prepared: PreparedSamples, problem: TrainingProblem, before: Outcome | None
    ) -> SplittingPoint:
        """Where a checkpoint, or the solution at another weight decay, ended; else the first point."""
        first = _first_point(prepared, problem.weight_decay)
        if self.checkpoint is not None and self.checkpoint.exists:
            return self.checkpoint.load(self.name, first)
        return first if before is None or before.state is None else before.state.point


_first_point = jax.jit(first_point)


def _unreached(status: str) -> str:
    """Of a program that ended by its own gap, while network and proof leave more."""
    return {"solved": "inaccurate", "running": "stalled"}.get(status, status)


def narrowest(
    problem: TrainingProblem, found: SpectrahedronSplit | None, tolerance: float
) -> PolynomialNetwork:
    """The narrowest network that is as good as the solution, up to a quarter of the tolerance."""
    if found is None:
        side = problem.features.shape[1] + 1
        nothing = np.zeros((problem.Y.shape[1], side, side))
        return spectrahedron_network(problem, nothing, nothing)
    objective = float(found.objective)
    allowed = objective + tolerance / 4 * abs(objective)
    best = None
    for rank_tolerance in RANK_TOLERANCES:
        network = spectrahedron_network(problem, found.positive, found.negative, rank_tolerance)
        reached = float(problem.objective(network))
        if best is None or reached < best[0]:
            best = reached, network
        if reached <= allowed:
            break
    assert best is not None
    return best[1]


def heaviest(network: PolynomialNetwork, width: int) -> PolynomialNetwork:
    """At most `width` neurons, those of the largest output weights."""
    if network.width <= width:
        return network
    kept = np.argsort(-np.abs(network.V).sum(axis=1), kind="stable")[:width]
    biases = None if network.b is None else network.b[kept]
    return PolynomialNetwork(
        network.U[:, kept], network.V[kept], biases, activation=network.activation
    )


def best_proof(
    problem: TrainingProblem, network: PolynomialNetwork, found: SpectrahedronSplit | None
) -> Bound[Any]:
    """The better of the bounds that the network's residual and the solution's prove."""
    own = problem.loss.gradient(network.predict(problem.X), problem.Y)
    residuals = [own] if found is None else [own, found.residual]
    proofs = [certify_residual(problem, np.asarray(residual)) for residual in residuals]
    return max(proofs, key=lambda proof: proof.lower_bound)
