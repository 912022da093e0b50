"""Training by the semidefinite relaxation: solved, rounded, improved, certified. ReLU, squared loss."""

import dataclasses
import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxcone import AbstractSolver, Solution, Splitting
from jaxcone.extend import advance

from ..bound import Bound
from ..conic.lifted import LiftedProgram, lifted_program
from ..improve.cycles import grow_and_polish
from ..improve.simplify import simplify
from ..job import Job
from ..networks import AbstractTwoLayer, zero_network
from ..problem import TrainingProblem, require_relu, require_squared
from ..programs.relaxation import LiftedSolution, read_out, rounded_networks
from ..proof.lifted import LiftedProof, certify_reduced, with_dual_objective
from ..reduction import Reduction, reduce
from .checkpoint import Checkpoint, described, solver_of
from .method_choice import describe_cost, method_name, named_solver
from .race import Candidate, candidates, race
from .route import AbstractRoute, Outcome

# Directions from which on an interior-point step takes seconds, and its price is told beforehand.
LARGE = 50
# Of a time limit, the part that the solve may take; and of the rest, what improving the network may.
SOLVE_SHARE, POLISH_SHARE = 0.7, 0.95


class LiftedRoute(AbstractRoute):
    """(lifted), in the precision `dtype`; network and bounds are in float64.

    **Arguments:** `tolerance`: the gap at which `certify` asks for no more; `solver` as `train` takes
    it; `improve`: whether the network is grown and polished; `network`: whether there is one to be
    made at all, or the bound alone is wanted.
    """

    name: str = "lifted"
    width: int = 300
    tolerance: float | None = None
    solver: Any = None
    improve: bool = True
    network: bool = True
    seed: int = 0
    dtype: Any = np.float64
    checkpoint: Checkpoint | None = None

    def prepare(self, problem: TrainingProblem, job: Job) -> Reduction | None:
        require_relu(problem)
        require_squared(problem)
        with job.stage("prepare"):
            return job.chunk(lambda: reduce(problem))
        return None

    def run(self, prepared, problem, before, job):
        if prepared is None:
            prepared = job.finish(lambda: reduce(problem))
        return _Work(self, prepared.at(float(problem.weight_decay)), problem, job)(before)

    def source(self, outcome):
        return "the semidefinite relaxation"

    def proof(self, prepared, problem, outcome, job):
        """With the residual of the network in place of the solver's, and the same multipliers."""
        bound: Bound[LiftedProof] = outcome.certificate
        reduction, multipliers = bound.proof.reduction, np.asarray(bound.proof.multipliers)
        own = np.asarray(outcome.network.predict(problem.X)) - problem.Y
        residual = reduction.reduce_residual(own)
        found = bound
        if not job.interrupted:
            with job.stage("certify"):
                # Where the time is over nothing is repaired, and what is left is short.
                found = certify_reduced(reduction, residual, multipliers, job=job)
        if found.lower_bound <= bound.lower_bound:
            return bound
        return with_dual_objective(found, bound.proof.dual_objective)

    def simpler(self, problem, outcome, job):
        return simplify(problem, outcome.network, width=self.width, job=job)


class _Work:
    """One run: what is known so far, and the stages in order."""

    def __init__(
        self, route: LiftedRoute, reduction: Reduction, problem: TrainingProblem, job: Job
    ):
        self.route, self.reduction, self.problem, self.job = route, reduction, problem, job
        self.data = jax.tree.map(lambda a: jnp.asarray(a, route.dtype), reduction.data)
        self.network = zero_network(problem.X.shape[1], problem.Y.shape[1], bias=problem.bias)
        self.upper = float(problem.objective(self.network))
        self.rounded = self.upper
        rows = reduction.data.rows.shape[0]
        nothing = np.zeros(reduction.data.targets.shape)
        self.bound = certify_reduced(reduction, nothing, np.zeros((rows, rows)), repair=False)
        self.solution: LiftedSolution | None = None
        self.leader: Candidate | None = None
        self.status = "solved"

    def __call__(self, before: Outcome | None) -> Outcome:
        if before is not None:
            self.offer(before.network)
        message = "nothing to fit; the zero network is optimal"
        if self.has_work:
            with self.job.stage("solve"):
                self.solve(None if before is None else before.state)
            if self.route.network:
                self.improve()
            self.bound = self.route.proof(None, self.problem, self.outcome(""), self.job)
            with self.job.stage("certify"):
                self.report(1, 1)
            message = self.describe()
        return self.outcome(message)

    def outcome(self, message: str) -> Outcome:
        return Outcome(
            network=self.network,
            upper_bound=self.upper,
            certificate=self.bound,
            status=self.job.stopped or self.status,
            steps=0 if self.leader is None else self.leader.steps,
            message=message,
            rounded_objective=self.rounded,
            solution=self.solution,
            state=(_rested(self.leader), float(self.problem.weight_decay)),
        )

    @property
    def has_work(self) -> bool:
        """Whether any network could fit anything."""
        return bool(np.any(self.reduction.data.targets)) and self.reduction.data.pairs > 0

    def solve(self, before: tuple[Candidate | None, float] | None) -> None:
        """Race the candidates for the bound, from the solution at another weight decay if there is
        one."""
        program = lifted_program(self.data)
        racing = self.candidates(program, before)
        if self.data.pairs >= LARGE and not isinstance(racing[0].solver, Splitting):
            self.report(0, racing[0].total, f"interior point: {describe_cost(program)}")
        share = SOLVE_SHARE if self.route.network else 1.0
        learn = functools.partial(self.learn, program)
        self.leader, self.status = race(racing, program, learn, self.job.part(share), self.report)

    def candidates(
        self, program: LiftedProgram, before: tuple[Candidate | None, float] | None
    ) -> list[Candidate]:
        saved = self.route.checkpoint
        if saved is not None and saved.exists:
            solver = _same_method(self.route.solver, solver_of(saved.header("lifted")))
            like = eqx.filter_eval_shape(advance, program, solver, blocks=0)
            return [Candidate(solver, saved.load("lifted", like))]
        leader, weight_decay = (None, 1.0) if before is None else before
        if leader is None or leader.found is None:
            # NaN asks for the program's own start, so that one compiled chunk serves every start.
            offset = program.offset()
            nowhere = jax.tree.map(lambda a: jnp.full_like(a, jnp.nan), (offset, offset))
            return candidates(named_solver(self.route.solver, program), program, nowhere)
        # Near interpolation the moments stay and the multipliers are proportional to the weight decay.
        ratio = float(self.problem.weight_decay) / weight_decay
        multipliers = jax.tree.map(lambda y: ratio * y, leader.found.y)
        return candidates(leader.solver, program, (leader.found.s, multipliers))

    def learn(self, program: LiftedProgram, candidate: Candidate, best: float) -> float:
        """The bound that a candidate's solution proves; both are kept if it is better than `best`."""
        assert candidate.found is not None
        found = candidate.found
        bound = self.job.finish(lambda: self.certified(program, found, best))
        saved = self.route.checkpoint
        if saved is not None and bound >= best:
            saved.save("lifted", found, **described(candidate.solver))
        return bound

    def certified(self, program: LiftedProgram, found: Solution, best: float) -> float:
        solution = read_out(self.data, program, found)
        if self.solution is None:
            self.solution = solution
        residual = np.asarray(solution.residual, np.float64)
        multipliers = np.asarray(solution.multipliers, np.float64)
        if not (np.all(np.isfinite(residual)) and np.all(np.isfinite(multipliers))):
            return -np.inf
        bound = certify_reduced(self.reduction, residual, multipliers, job=self.job)
        if bound.lower_bound > best:
            self.solution = solution
        if bound.lower_bound > self.bound.lower_bound:
            self.bound = bound
        return bound.lower_bound

    def improve(self) -> None:
        """The networks that the solution rounds to, and better ones from there."""
        if self.solution is not None:
            with self.job.stage("round"):
                self.round(self.solution)
        if self.route.improve:
            with self.job.stage("polish"):
                self.polish()

    def round(self, solution: LiftedSolution) -> None:
        """Offer the networks that the solution's moments round to."""
        moments = np.asarray(solution.moments, np.float64)
        if not np.all(np.isfinite(moments)):
            return
        full = self.reduction.expand_moments(moments)
        found = rounded_networks(self.problem, full, self.route.width, self.job)
        for network, _ in found:
            self.offer(network)
        self.rounded = min((objective for _, objective in found[1:]), default=self.rounded)
        self.report(1, 1)

    def polish(self) -> None:
        """Grow and descend in turns while that pays."""

        def watch(network, part):
            self.offer(network)
            self.report(round(100 * part), 100)

        found = grow_and_polish(
            self.problem,
            self.network,
            width=self.route.width,
            seed=self.route.seed,
            job=self.job.part(POLISH_SHARE),
            watch=watch,
        )
        self.offer(found, at_least_as_good=True)
        self.report(100, 100)

    def offer(self, network: AbstractTwoLayer, *, at_least_as_good: bool = False) -> None:
        network = jax.tree.map(np.asarray, network)
        objective = float(self.problem.objective(network))
        if objective < self.upper or (at_least_as_good and objective == self.upper):
            self.network, self.upper = network, objective

    def describe(self) -> str:
        data = self.reduction.data
        steps = 0 if self.solution is None else int(self.solution.steps)
        method = "" if self.leader is None else method_name(self.leader.solver)
        return (
            f"{data.pairs} directions of rank {data.rank}, {steps} {method} steps "
            f"({self.job.stopped or self.status})"
        )

    def report(self, step: int, total: int, note: str = "") -> None:
        self.job.report(step, total, self.bound.lower_bound, self.upper, note)


def _rested(leader: Candidate | None) -> Candidate | None:
    """Without what only its own race needs."""
    return None if leader is None else dataclasses.replace(leader, prepared=None, pace=None)


def _same_method(solver: AbstractSolver | str | None, saved: AbstractSolver) -> AbstractSolver:
    """The settings to continue a checkpoint with; a `ValueError` for those of another method."""
    if not isinstance(solver, AbstractSolver):
        return saved
    if type(solver) is not type(saved):
        raise ValueError(
            f"The checkpoint is one of {type(saved).__name__}; got {type(solver).__name__}."
        )
    return solver
