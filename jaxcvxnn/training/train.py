"""`train`: data in, network and both bounds out. Wires the steps together; holds no mathematics."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcone import AbstractSolver, Solution, Splitting, Status
from jaxcone.extend import advance

from ..activations import RELU, AbstractActivation, Polynomial
from ..conic.lifted import LiftedProgram, lifted_program
from ..geometry.directions import row_space
from ..improve.gradient_descent import random_network
from ..improve.insertion import grow, pad
from ..improve.output_layer import narrow
from ..improve.polish import polish as polish_network, prune
from ..improve.rounding import round_moments
from ..losses.base import AbstractLoss
from ..losses.regression import Squared
from ..networks import AbstractTwoLayer, TwoLayerReLU
from ..pricing.pricer import LARGEST_RANK, Pricer
from ..pricing.slopes import stacked_features
from ..problem import TrainingProblem, in_float64, require_relu, require_squared
from ..programs.relaxation import LiftedSolution, read_out
from ..proof.lifted import Certificate, certify_reduced
from ..reduction import Reduction, reduce
from .checkpoint import load_solution, save_solution
from .columns import generate_columns
from .job import Clock, Progress
from .method_choice import describe_cost, method_name, named_solver
from .result import TrainingResult
from .spectrahedron_route import train_spectrahedron

PROGRAMS = ("auto", "columns", "lifted", "spectrahedron")
# The best penalty differs by factors of 100 between data sets, and no formula tried predicts it: all
# of these race, judged by the certified bound. See docs/math/lifted.md, "The penalty".
CANDIDATE_PENALTIES = (10.0, 100.0, 1000.0)
CHUNK_STEPS = 400
INTERIOR_STEPS = 5
# Directions from which on an interior-point step takes seconds, and its price is told beforehand.
LARGE = 50
DEFAULT_STEPS = 4000
# Column generation: rounds at most, and seconds where the caller sets no limit.
MAX_ROUNDS = 300
DESCENT_WIDTH = 100  # neurons that it starts from where the rank is high
AUTO_SECONDS = 60.0
# A candidate ends when its bound has gained less than STALL, relative, in PATIENCE chunks running,
# or when after two chunks its bound is below the part BEHIND of the best.
STALL = 1e-3
PATIENCE = 2
BEHIND = 0.75
# The published step size first; where it diverges or does badly, a quarter of it:
# docs/math/lifted.md, "Rounding".
ROUNDING_STEPS = (1.0, 0.25)
# Of a time limit, the part that the solve may take; the rest is for the network.
SOLVE_SHARE = 0.7
POLISH_CYCLES = 3
POLISH_GAIN = 1e-3


def train(
    X: Any,
    Y: Any,
    weight_decay: Any = 0.1,
    *,
    program: str = "auto",
    loss: AbstractLoss | str = "squared",
    activation: AbstractActivation | str = "relu",
    solver: AbstractSolver | str | None = None,
    bias: bool = False,
    tolerance: float | None = None,
    width: int = 300,
    polish: bool = True,
    seed: int = 0,
    progress: Callable[[Progress], None] | None = None,
    time_limit: float | None = None,
    checkpoint: str | Path | None = None,
) -> TrainingResult:
    """Train a two-layer network by convex optimisation, with bounds on the global optimum.

    Where the data have low rank, by column generation to the global optimum: neurons are added as
    long as one is found that pays, and pricing proves that no other does. Otherwise the semidefinite
    relaxation of training (Prakhya et al., 2025, SDP-NN, reduced) is solved and rounded to a network,
    which is improved on the true objective (new neurons where they pay, L-BFGS, Adam). Both ways
    certify a lower bound that no network can beat. With a polynomial activation the convex program of
    Bartan and Pilanci (2021) is exact, whatever the rank.

    **Arguments:**

    - `X` (n, d), `Y` (n, c) or (n,), `weight_decay`, `bias`: see `TrainingProblem`. The solve runs
      in the precision of the data; the network and both bounds are in float64.
    - `program`: "columns" (column generation), "lifted" (the relaxation; the squared loss only), or
      "auto": columns where the rank of the data is at most 6 (with a time limit of a minute from rank
      3 on, if none is given), lifted otherwise and where arguments below ask for it.
    - `loss`, `activation`: see `TrainingProblem`. Leaky ReLU and the absolute value are trained by
      columns; polynomials have one program, "spectrahedron", which "auto" stands for.
    - `solver` of (lifted): "auto" (as None: see `choose_solver`), "interior_point", "splitting" (whose
      penalty is chosen by trial), or settings, `jaxcone.InteriorPoint(...)` or
      `jaxcone.Splitting(...)`.
    - `tolerance` of column generation: the relative gap at which it ends, by default 1e-8 up to rank 2
      and 1e-5 above. (lifted) ends with its solver.
    - `width`: neurons at most.
    - `polish`: whether to improve the network that (lifted) rounds to.
    - `seed`: for the random starts of searches for neurons.
    - `progress`: called with a `Progress` after each chunk of work. The total of a stage is what is
      left at most; it falls when the solve drops a candidate.
    - `time_limit`: seconds after which the work ends where it is (the solve gets 70 % of them). A
      chunk that has begun, and compilation, are not cut short.
    - `checkpoint`: a file that the state of (lifted)'s solver is written to after each chunk; if it
      exists, and belongs to the same problem, the solve continues from it.

    Ctrl-C ends the work in the same way as the time limit: the best result so far is returned.

    **Raises** a `ValueError` for bad data (see `TrainingProblem`) or settings.
    """
    check_limits(width, time_limit)
    if tolerance is not None and not 0 < tolerance < math.inf:
        raise ValueError(f"tolerance must be a positive number or None; got {tolerance!r}.")
    problem = TrainingProblem(X, Y, weight_decay, bias=bias, loss=loss, activation=activation)
    for_lifted = solver not in (None, "auto") or checkpoint is not None or not polish
    with jax.enable_x64(True):
        exact = in_float64(problem)
        chosen = choose_program(program, exact, for_lifted=for_lifted)
        if program == "auto" and chosen == "columns" and time_limit is None:
            time_limit = AUTO_SECONDS
        clock = Clock(time_limit)
        if chosen == "spectrahedron":
            return train_spectrahedron(problem, tolerance, clock, int(width), progress)
        if chosen == "columns":
            return train_columns(problem, exact, tolerance, clock, int(width), seed, progress)
        return Run(problem, reduce(exact), clock, int(width), seed, progress)(
            solver, polish=polish, checkpoint=checkpoint
        )


def choose_program(program: str, problem: TrainingProblem, *, for_lifted: bool = False) -> str:
    """ "columns", "lifted" or "spectrahedron"; "auto" by the activation, the loss and the rank of the
    data, and by whether the caller has given arguments that make sense `for_lifted` only.

    **Raises** a `ValueError` for another name, and for a program that does not take the problem's loss
    or activation.
    """
    if program not in PROGRAMS:
        raise ValueError(f"program must be one of {PROGRAMS}; got {program!r}.")
    polynomial = isinstance(problem.activation, Polynomial)
    if program != "auto" and polynomial != (program == "spectrahedron"):
        raise ValueError(
            f"program={program!r} does not take the activation {problem.activation}: "
            '"spectrahedron" is for polynomials, the others for ReLU and its kin.'
        )
    if polynomial:
        return "spectrahedron"
    if program == "auto":
        if not isinstance(problem.loss, Squared) or problem.activation != RELU:
            return "columns"
        low = row_space(problem.features).shape[1] <= LARGEST_RANK
        return "columns" if low and not for_lifted else "lifted"
    if program == "lifted":
        require_relu(problem)
        require_squared(problem)
    return program


def train_columns(
    problem: TrainingProblem,
    exact: TrainingProblem,
    tolerance: float | None,
    clock: Clock,
    width: int,
    seed: int,
    progress: Callable[[Progress], None] | None,
) -> TrainingResult:
    """`train` by column generation; `exact` is the problem in float64."""
    pricer, watch = Pricer(stacked_features(exact)), report_rounds(progress, "columns")
    start = None
    if pricer.rank > LARGEST_RANK:
        with clock.stage("polish"):
            start = _descended(exact, min(width, DESCENT_WIDTH), seed, clock, watch)
    with clock.stage("columns"):
        found = generate_columns(
            exact,
            start=start,
            pricer=pricer,
            tolerance=tolerance,
            max_rounds=MAX_ROUNDS,
            clock=clock,
            seed=seed,
            watch=watch,
        )
    network, upper = found.network, found.upper_bound
    if network.width > width:
        network = narrow(exact, network, width)
        upper = float(exact.objective(network))
    return TrainingResult(
        network=network,
        upper_bound=upper,
        lower_bound=found.lower_bound,
        rounded_objective=found.upper_bound,
        status=found.status,
        program="columns",
        message=found.describe(),
        problem=problem,
        certificate=found.certificate,
        solution=None,
        seconds=clock.seconds,
    )


def report_rounds(
    progress: Callable[[Progress], None] | None, stage: str
) -> Callable[[float, float, int], None]:
    """What `generate_columns` tells after each round, as a `Progress` of this stage."""

    def watch(lower, upper, done):
        if progress is not None:
            progress(Progress(stage, done, MAX_ROUNDS, lower, upper))

    return watch


def _descended(
    problem: TrainingProblem,
    width: int,
    seed: int,
    clock: Clock,
    watch: Callable[[float, float, int], None],
) -> AbstractTwoLayer | None:
    """A network by descent from random weights: where the rank is high, neurons that are found one by
    one end at worse ones. None after a Ctrl-C."""

    def look(network, objective, step, of):
        watch(0.0, objective, 0)
        return clock.over(0.5)

    start = random_network(jax.random.key(seed), problem, width)
    return clock.interruptible(
        lambda: polish_network(problem, start, watch=look, catch_interrupt=False)
    )


def relaxation_bound(
    problem: TrainingProblem, network: AbstractTwoLayer, clock: Clock
) -> Certificate:
    """The best bound from (lifted), with its own residual or that of a network, in the time left."""
    run = Run(problem, reduce(problem), clock, network.width, 0, None)
    run.solve(run.candidates(None, None))
    run.network = network
    run.certify()
    return run.certificate


def check_limits(width: Any, time_limit: Any) -> None:
    """Raise a `ValueError` for a width that is no positive integer, or no positive seconds."""
    if isinstance(width, bool) or not isinstance(width, int | np.integer) or width < 1:
        raise ValueError(f"width must be a positive integer; got {width!r}.")
    timed = isinstance(time_limit, int | float | np.number)
    if time_limit is not None and not (timed and time_limit > 0):
        raise ValueError(f"time_limit must be positive seconds or None; got {time_limit!r}.")


@dataclasses.dataclass
class Run:
    """The training of one problem: what is known so far, and the stages, to be called in order."""

    problem: TrainingProblem
    reduction: Reduction
    clock: Clock
    width: int
    seed: int
    progress: Callable[[Progress], None] | None

    def __post_init__(self):
        self.exact = in_float64(self.problem)
        dtype = self.problem.X.dtype
        self.data = jax.tree.map(lambda a: jnp.asarray(a, dtype), self.reduction.data)
        features = self.problem.X.shape[1], self.problem.Y.shape[1]
        self.network = _zero_network(*features, self.problem.bias)
        self.upper = float(self.exact.objective(self.network))
        self.rounded = self.upper
        nothing = np.zeros(self.reduction.data.targets.shape)
        rows = self.reduction.data.rows.shape[0]
        self.certificate = certify_reduced(
            self.reduction, nothing, np.zeros((rows, rows)), repair=False
        )
        self.solution: LiftedSolution | None = None
        self.leader: Candidate | None = None

    def __call__(
        self, solver: AbstractSolver | str | None, *, polish: bool, checkpoint: str | Path | None
    ) -> TrainingResult:
        status, message = "solved", "nothing to fit; the zero network is optimal"
        if self.has_work:
            with self.clock.stage("solve"):
                status = self.solve(self.candidates(solver, checkpoint), checkpoint=checkpoint)
            if self.solution is not None:
                with self.clock.stage("round"):
                    self.round(self.solution)
            if polish:
                with self.clock.stage("polish"):
                    self.polish()
            if self.clock.stopped != "interrupted":
                with self.clock.stage("certify"):
                    self.certify()
            message = self._describe(status)
        return TrainingResult(
            network=jax.tree.map(np.asarray, self.network),
            upper_bound=self.upper,
            lower_bound=self.certificate.lower_bound,
            rounded_objective=self.rounded,
            status=self.clock.stopped or status,
            program="lifted",
            message=message,
            problem=self.problem,
            certificate=self.certificate,
            solution=self.solution,
            seconds=self.clock.seconds,
        )

    @property
    def has_work(self) -> bool:
        """Whether any network could fit anything."""
        return bool(np.any(self.reduction.data.targets)) and self.reduction.data.pairs > 0

    def solve(
        self,
        racing: list["Candidate"],
        *,
        share: float = SOLVE_SHARE,
        checkpoint: str | Path | None = None,
    ) -> str:
        """Advance all candidates in turn, dropping those that fall behind or stop gaining.

        Ends when this share of the time limit is used up at the latest; returns the status.
        """
        cone_program = lifted_program(self.data)
        everyone, best, status, turns = list(racing), -math.inf, "stalled", 0
        if self.data.pairs >= LARGE and not isinstance(racing[0].solver, Splitting):
            note = f"interior point: {describe_cost(cone_program)}"
            self._report("solve", 0, racing[0].total, note)
        for candidate in racing:
            if candidate.found is not None:  # what a checkpoint holds counts
                best = self._learn(cone_program, candidate.found, best)
        while racing and not self.clock.over(share):
            for candidate in list(racing):
                found = self.clock.interruptible(lambda c=candidate: c.advance(cone_program))
                ended = found is None or self.clock.over(share)
                if candidate.found is not None and (ended or candidate.worth_certifying):
                    bound = self._learn(cone_program, candidate.found, best)
                    candidate.judge(bound)
                    if bound > best or turns == 0:
                        if checkpoint is not None and bound >= best:
                            save_solution(checkpoint, self.exact, candidate.solver, candidate.found)
                        best, status = max(bound, best), _name(candidate.found.status)
                        self.leader = candidate
                    turns += 1
                if found is None:
                    return status
                if found.status != Status.running or candidate.stale >= PATIENCE:
                    racing.remove(candidate)
                done = sum(c.steps for c in everyone)
                left = sum(c.total - c.steps for c in racing)
                self._report("solve", done, done + left)
                if ended:
                    break
            racing = [c for c in racing if not c.behind(best)]
        return ("time_limit" if racing else "stalled") if status == "running" else status

    def candidates(
        self, solver: AbstractSolver | str | None, checkpoint: str | Path | None
    ) -> list["Candidate"]:
        program = lifted_program(self.data)
        if checkpoint is not None and Path(checkpoint).exists():
            saved, found = load_solution(checkpoint, self.exact, program)
            return [Candidate(_same_method(solver, saved), found)]
        return candidates(named_solver(solver, program))

    def _learn(self, cone_program: LiftedProgram, found: Solution, best: float) -> float:
        """The certified bound from this solution; both are kept if it is better than `best`."""
        solution = read_out(self.data, cone_program, found)
        if self.solution is None:
            self.solution = solution
        residual = np.asarray(solution.residual, np.float64)
        multipliers = np.asarray(solution.multipliers, np.float64)
        if not (np.all(np.isfinite(residual)) and np.all(np.isfinite(multipliers))):
            return -math.inf
        candidate = certify_reduced(self.reduction, residual, multipliers)
        if candidate.lower_bound > best:
            self.solution = solution
        if candidate.lower_bound > self.certificate.lower_bound:
            self.certificate = candidate
        return candidate.lower_bound

    def round(self, solution: LiftedSolution) -> None:
        """Offer the networks that the solution's moments round to."""
        moments = np.asarray(solution.moments, np.float64)
        if not np.all(np.isfinite(moments)):
            return
        full = jnp.asarray(self.reduction.expand_moments(moments))
        features = jnp.asarray(self.exact.features)
        objectives = []
        # Out of time, only the step that is sure to give a network.
        steps = ROUNDING_STEPS[-1:] if self.clock.over() else ROUNDING_STEPS
        for index, step in enumerate(steps):
            network = self.clock.interruptible(
                lambda step=step: round_moments(
                    full, features, width=self.width, bias=self.problem.bias, relative_step=step
                )
            )
            if network is not None:
                self.offer(network)
                objectives.append(float(self.exact.objective(network)))
            self._report("round", index + 1, len(steps))
        self.rounded = min((o for o in objectives if math.isfinite(o)), default=self.rounded)

    def polish(self, *, share: float = 1.0) -> None:
        """Grow and descend in turns while that pays, until this share of the time is used up."""
        key = jax.random.key(self.seed)
        # One width throughout: each is compiled afresh.
        start = pad(prune(self.network), self.width)
        for cycle in range(POLISH_CYCLES):
            if self.clock.over(share):
                break
            before = self.upper
            key, draw = jax.random.split(key)

            def watch(network, part, cycle=cycle):
                self.offer(network)
                self._report("polish", round(100 * (cycle + part) / POLISH_CYCLES), 100)
                return self.clock.over(share)

            self.clock.interruptible(
                lambda start=start, draw=draw, watch=watch: grow(
                    self.exact,
                    start,
                    draw,
                    width=self.width,
                    catch_interrupt=False,
                    watch=lambda network, _, done: watch(network, done / 80),
                )
            )
            if self.clock.over(share):
                break
            best = pad(self.network, self.width)
            self.clock.interruptible(
                lambda best=best, watch=watch: polish_network(
                    self.exact,
                    best,
                    catch_interrupt=False,
                    watch=lambda network, _, step, of: watch(network, 0.5 + step / of / 2),
                )
            )
            start = pad(prune(self.network, threshold=1e-6), self.width)
            if before - self.upper < POLISH_GAIN * self.upper:
                break
        self._report("polish", 100, 100)
        pruned = prune(self.network, threshold=1e-9)
        self.offer(pruned, at_least_as_good=True)

    def certify(self) -> None:
        """A last attempt with the residual of the network itself in place of the solver's."""
        multipliers = np.asarray(self.certificate.multipliers)
        network_residual = np.asarray(self.network.predict(self.exact.X)) - self.exact.Y
        reduced = self.reduction.reduce_residual(network_residual)
        candidate = certify_reduced(self.reduction, reduced, multipliers)
        if candidate.lower_bound > self.certificate.lower_bound:
            solver_value = self.certificate.dual_objective
            self.certificate = dataclasses.replace(candidate, dual_objective=solver_value)
        self._report("certify", 1, 1)

    def offer(self, network: AbstractTwoLayer, *, at_least_as_good: bool = False) -> None:
        objective = float(self.exact.objective(network))
        if objective < self.upper or (at_least_as_good and objective == self.upper):
            self.network, self.upper = network, objective

    def _describe(self, status: str) -> str:
        data = self.reduction.data
        steps = 0 if self.solution is None else int(self.solution.steps)
        method = "" if self.leader is None else method_name(self.leader.solver)
        return (
            f"{data.pairs} directions of rank {data.rank}, {steps} {method} steps "
            f"({self.clock.stopped or status})"
        )

    def _report(self, stage: str, step: int, total: int, note: str = "") -> None:
        if self.progress is not None:
            bounds = self.certificate.lower_bound, self.upper
            self.progress(Progress(stage, min(step, total), total, *bounds, note))


@dataclasses.dataclass
class Candidate:
    """One setting of the solver in the race, with its state and its record.

    `start` is an (s, y) to begin at, for instance the solution at another weight decay.
    """

    solver: AbstractSolver
    found: Solution | None = None
    start: Any = None
    bound: float = -math.inf
    stale: int = 0
    turns: int = 0

    @property
    def total(self) -> int:
        return int(self.solver.max_steps)  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def worth_certifying(self) -> bool:
        """Whether the dual may say something: an interior point's does at the end alone."""
        ended = self.found is not None and bool(self.found.status != Status.running)
        return ended or isinstance(self.solver, Splitting)

    @property
    def steps(self) -> int:
        return 0 if self.found is None else int(self.found.steps)

    def advance(self, cone_program: LiftedProgram) -> Solution:
        blocks = INTERIOR_STEPS
        if isinstance(self.solver, Splitting):
            # A certificate costs as much as some hundred steps: later ones come half as often.
            steps = CHUNK_STEPS if self.turns < 2 else 2 * CHUNK_STEPS
            blocks = max(steps // self.solver.check_every, 1)
        self.found = advance(
            cone_program, self.solver, self.found, warm_start=self.start, blocks=blocks
        )
        self.turns += 1
        return self.found

    def judge(self, bound: float) -> None:
        gained = bound - self.bound > STALL * abs(bound)
        self.stale = 0 if gained else self.stale + 1
        self.bound = max(bound, self.bound)

    def behind(self, best: float) -> bool:
        return self.turns >= 2 and self.bound < BEHIND * best


def _same_method(solver: AbstractSolver | str | None, saved: AbstractSolver) -> AbstractSolver:
    """The settings to continue a checkpoint with; a `ValueError` for those of another method."""
    if not isinstance(solver, AbstractSolver):
        return saved
    if type(solver) is not type(saved):
        raise ValueError(
            f"The checkpoint is one of {type(saved).__name__}; got {type(solver).__name__}."
        )
    return solver


def candidates(solver: AbstractSolver | None, start: Any = None) -> list[Candidate]:
    """Those that race: these settings alone, or all candidate penalties."""
    if solver is not None:
        return [Candidate(solver, start=start)]
    settings = {"max_steps": DEFAULT_STEPS, "tolerance": 1e-6, "adapt_penalty": False}
    return [
        Candidate(Splitting(penalty=penalty, **settings), start=start)
        for penalty in CANDIDATE_PENALTIES
    ]


def _zero_network(features: int, outputs: int, bias: bool) -> TwoLayerReLU:
    return TwoLayerReLU(
        np.zeros((features, 0)), np.zeros((0, outputs)), np.zeros(0) if bias else None
    )


def _name(status: Any) -> str:
    names = ("running", "solved", "inaccurate", "max_steps", "stalled", "nonfinite")
    return next(name for name in names if bool(status == getattr(Status, name)))
