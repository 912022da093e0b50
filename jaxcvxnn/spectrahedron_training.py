"""`train` with a polynomial activation: the convex program, its network, and the proof."""

from collections.abc import Callable

import jax
import numpy as np

from jaxcone import Status

from .clock import Clock, Progress
from .columns import relative_gap
from .decomposition import spectrahedron_network
from .networks import PolynomialNetwork
from .polynomial_certificate import PolynomialCertificate, certify_polynomial_residual
from .problem import TrainingProblem, in_float64
from .programs.spectrahedron_points import samples_of
from .programs.spectrahedron_splitting import (
    Prepared,
    SpectrahedronSplit,
    SpectrahedronSplitting,
    SplittingPoint,
    first_point,
    prepare,
    solve_prepared,
)
from .training_result import TrainingResult

TOLERANCE = 1e-7
CHUNK_STEPS, MAX_STEPS = 500, 50_000
# Chunks in which the gap lost less than a tenth, after which nothing more is expected.
PATIENCE = 4
# Eigenvalues that count as zero, tried from coarse to fine: see `decompose`.
RANK_TOLERANCES = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, None)


def train_spectrahedron(
    problem: TrainingProblem,
    tolerance: float | None,
    clock: Clock,
    width: int,
    progress: Callable[[Progress], None] | None,
) -> TrainingResult:
    """`train` for `activation=Polynomial(a, b, c)`: to the global optimum, whatever the rank."""
    exact = in_float64(problem)
    tolerance = TOLERANCE if tolerance is None else tolerance
    with clock.stage("solve"):
        found, steps, ended = _solve(exact, tolerance, clock, progress)
    with clock.stage("round"):
        whole = _narrowest(exact, found, tolerance)
        network = _heaviest(whole, width)
    with clock.stage("certify"):
        proof = _best_proof(exact, network, found)
    upper = float(exact.objective(network))
    solved = relative_gap(proof.lower_bound, upper) <= tolerance
    return TrainingResult(
        network=network,
        upper_bound=upper,
        lower_bound=proof.lower_bound,
        rounded_objective=float(exact.objective(whole)),
        status="solved" if solved else clock.stopped or ended,
        program="spectrahedron",
        message=f"the exact program of a polynomial activation, {steps} steps of splitting",
        problem=problem,
        certificate=proof,
        solution=None,
        seconds=clock.seconds,
    )


def _solve(
    problem: TrainingProblem,
    tolerance: float,
    clock: Clock,
    progress: Callable[[Progress], None] | None,
) -> tuple[SpectrahedronSplit | None, int, str]:
    """The solution so far, None where not even a chunk of steps is done; steps; why it ended."""
    settings = SpectrahedronSplitting(tolerance=tolerance / 4, max_steps=CHUNK_STEPS)
    prepared, point = jax.block_until_ready(_prepare(problem))
    found, best, idle = None, np.inf, 0
    for steps in range(CHUNK_STEPS, MAX_STEPS + 1, CHUNK_STEPS):
        further = clock.interruptible(
            lambda point=point: jax.block_until_ready(
                _advance(settings, prepared, problem.weight_decay, point)
            )
        )
        if further is None:
            return found, steps - CHUNK_STEPS, "interrupted"
        found, point = further, further.point
        lower, upper = float(found.dual_objective), float(found.objective)
        if progress is not None:
            progress(Progress("solve", steps, MAX_STEPS, lower, upper))
        idle = idle + 1 if upper - lower > 0.9 * best else 0
        best = min(best, upper - lower)
        if found.status == Status.solved:
            return found, steps - CHUNK_STEPS + int(found.steps), "inaccurate"
        if idle >= PATIENCE:
            return found, steps, "stalled"
        if clock.over():
            return found, steps, clock.stopped
    return found, MAX_STEPS, "max_steps"


# Of the module, so that a shape is compiled once for all trainings and tolerances.
_advance = jax.jit(solve_prepared)


@jax.jit
def _prepare(problem: TrainingProblem) -> tuple[Prepared, SplittingPoint]:
    prepared = prepare(samples_of(problem))
    return prepared, first_point(prepared, problem.weight_decay)


def _narrowest(
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


def _heaviest(network: PolynomialNetwork, width: int) -> PolynomialNetwork:
    """At most `width` neurons, those of the largest output weights."""
    if network.width <= width:
        return network
    kept = np.argsort(-np.abs(network.V).sum(axis=1), kind="stable")[:width]
    biases = None if network.b is None else network.b[kept]
    return PolynomialNetwork(
        network.U[:, kept], network.V[kept], biases, activation=network.activation
    )


def _best_proof(
    problem: TrainingProblem, network: PolynomialNetwork, found: SpectrahedronSplit | None
) -> PolynomialCertificate:
    """The better of the bounds that the network's residual and the solution's prove."""
    own = problem.loss.gradient(network.predict(problem.X), problem.Y)
    residuals = [own] if found is None else [own, found.residual]
    proofs = [certify_polynomial_residual(problem, np.asarray(residual)) for residual in residuals]
    return max(proofs, key=lambda proof: proof.lower_bound)
