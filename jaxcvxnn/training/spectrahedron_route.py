"""`train` with a polynomial activation: the convex program, its network, and the proof.

`path` takes the same steps at each weight decay.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from jaxcone import Status

from ..bound import relative_gap
from ..improve.decomposition import spectrahedron_network
from ..networks import PolynomialNetwork
from ..problem import TrainingProblem, in_float64
from ..programs.spectrahedron_points import samples_of
from ..programs.spectrahedron_splitting import SpectrahedronSplit, solve_prepared
from ..programs.spectrahedron_steps import SpectrahedronSplitting, first_point
from ..programs.spectrahedron_systems import PreparedSamples, prepare
from ..proof.polynomial import PolynomialCertificate, certify_polynomial_residual
from .job import Clock, Progress
from .result import TrainingResult

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
        solved = solve_from(exact, None, tolerance, clock, report_steps(progress, "solve"))
    whole = clock.finish("round", lambda: narrowest(exact, solved.found, tolerance))
    network = heaviest(whole, width)
    proof = clock.finish("certify", lambda: best_proof(exact, network, solved.found))
    upper = float(exact.objective(network))
    reached = relative_gap(proof.lower_bound, upper) <= tolerance
    return TrainingResult(
        network=network,
        upper_bound=upper,
        lower_bound=proof.lower_bound,
        rounded_objective=float(exact.objective(whole)),
        status="solved" if reached else clock.stopped or solved.ended,
        program="spectrahedron",
        message=f"the exact program of a polynomial activation, {solved.steps} steps of splitting",
        problem=problem,
        certificate=proof,
        solution=None,
        seconds=clock.seconds,
    )


class Solved(NamedTuple):
    """The solution so far, None where not even a chunk of steps is done; and why it ended."""

    found: SpectrahedronSplit | None
    steps: int
    ended: str
    prepared: PreparedSamples | None


def solve_from(
    problem: TrainingProblem,
    before: Solved | None,
    tolerance: float,
    clock: Clock,
    report: Callable[[int, float, float], None],
) -> Solved:
    """Solve in chunks, until the gap, the time or the progress ends it; from the solution `before` of
    the same samples, if there is one. `report` is told steps and both bounds.
    """
    settings = SpectrahedronSplitting(tolerance=tolerance / 4, max_steps=CHUNK_STEPS)
    prepared = None if before is None else before.prepared
    if prepared is None:
        prepared = clock.interruptible(lambda: jax.block_until_ready(_prepare(problem)))
    if prepared is None:
        return Solved(None, 0, "interrupted", None)
    last = None if before is None else before.found
    point = _begin(prepared, problem.weight_decay) if last is None else last.point
    found, best, idle = None, np.inf, 0
    for steps in range(CHUNK_STEPS, MAX_STEPS + 1, CHUNK_STEPS):
        further = clock.interruptible(
            lambda point=point: jax.block_until_ready(
                _advance(settings, prepared, problem.weight_decay, point)
            )
        )
        if further is None:
            return Solved(found, steps - CHUNK_STEPS, "interrupted", prepared)
        found, point = further, further.point
        lower, upper = float(found.dual_objective), float(found.objective)
        report(steps, lower, upper)
        idle = idle + 1 if upper - lower > 0.9 * best else 0
        best = min(best, upper - lower)
        if found.status == Status.solved:
            return Solved(found, steps - CHUNK_STEPS + int(found.steps), "inaccurate", prepared)
        if idle >= PATIENCE:
            return Solved(found, steps, "stalled", prepared)
        if clock.over():
            return Solved(found, steps, clock.stopped, prepared)
    return Solved(found, MAX_STEPS, "max_steps", prepared)


def report_steps(
    progress: Callable[[Progress], None] | None, stage: str
) -> Callable[[int, float, float], None]:
    """What `solve_from` tells after each chunk, as a `Progress` of this stage."""

    def report(steps, lower, upper):
        if progress is not None:
            progress(Progress(stage, steps, MAX_STEPS, lower, upper))

    return report


# Of the module, so that a shape is compiled once for all trainings and tolerances.
_advance = jax.jit(solve_prepared)
_begin = jax.jit(first_point)


@jax.jit
def _prepare(problem: TrainingProblem) -> PreparedSamples:
    return prepare(samples_of(problem))


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
) -> PolynomialCertificate:
    """The better of the bounds that the network's residual and the solution's prove."""
    own = problem.loss.gradient(network.predict(problem.X), problem.Y)
    residuals = [own] if found is None else [own, found.residual]
    proofs = [certify_polynomial_residual(problem, np.asarray(residual)) for residual in residuals]
    return max(proofs, key=lambda proof: proof.lower_bound)
