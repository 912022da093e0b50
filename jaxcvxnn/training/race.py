"""Several settings of one solver in turn, judged by the bounds that their duals prove.

The best penalty of splitting differs by factors of 100 between data sets, and no formula tried predicts
it: docs/math/lifted.md, "The penalty".
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from jaxcone import AbstractSolver, Solution, Splitting, Status
from jaxcone.extend import advance, prepare

from ..conic.lifted import LiftedProgram
from ..job import Job, Pace
from ..programs.abstract import status_name

CANDIDATE_PENALTIES = (10.0, 100.0, 1000.0)
CHUNK_STEPS = 400
INTERIOR_STEPS = 5
DEFAULT_STEPS = 4000
# Directions from which on the steps between two checks take some seconds, and how many there are then.
MANY, FEWER_STEPS = 200, 5
# A candidate ends when its bound has gained less than STALL, relative, in PATIENCE chunks running,
# or when after two chunks its bound is below the part BEHIND of the best.
STALL = 1e-3
PATIENCE = 2
BEHIND = 0.75


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
    pace: Pace | None = None
    prepared: Any = None

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

    def advance(self, program: LiftedProgram, job: Job) -> bool:
        """A chunk of steps; whether all of it was done."""
        blocks = INTERIOR_STEPS
        if isinstance(self.solver, Splitting):
            # A certificate costs as much as some hundred steps: later ones come half as often.
            steps = CHUNK_STEPS if self.turns < 2 else 2 * CHUNK_STEPS
            blocks = max(steps // self.solver.check_every, 1)
        self.pace = Pace(job) if self.pace is None else self.pace

        def further(count: int) -> Solution:
            if self.prepared is None:
                self.prepared = prepare(program, self.solver)
            self.found = advance(
                program,
                self.solver,
                self.found,
                warm_start=self.start,
                blocks=count,
                prepared=self.prepared,
            )
            return self.found

        self.turns += 1
        return self.pace.run(blocks, further) is not None

    def judge(self, bound: float) -> None:
        gained = bound - self.bound > STALL * abs(bound)
        self.stale = 0 if gained else self.stale + 1
        self.bound = max(bound, self.bound)

    def behind(self, best: float) -> bool:
        return self.turns >= 2 and self.bound < BEHIND * best


def candidates(
    solver: AbstractSolver | None, program: LiftedProgram, start: Any = None
) -> list[Candidate]:
    """Those that race: these settings alone, or all candidate penalties."""
    if solver is not None:
        return [Candidate(solver, start=start)]
    settings = {"max_steps": DEFAULT_STEPS, "tolerance": 1e-6, "adapt_penalty": False}
    if program.pairs > MANY:
        settings["check_every"] = FEWER_STEPS
    return [
        Candidate(Splitting(penalty=penalty, **settings), start=start)
        for penalty in CANDIDATE_PENALTIES
    ]


def race(
    everyone: list[Candidate],
    program: LiftedProgram,
    learn: Callable[[Candidate, float], float],
    job: Job,
    watch: Callable[[int, int], None],
) -> tuple[Candidate | None, str]:
    """The leader, None where not even a chunk is done, and the status of its last point or why it
    ended.

    All advance in turn; those that fall behind or stop gaining are dropped. `learn(candidate, best)` is
    asked for the bound that a candidate proves, given the best so far; `watch(steps, total)` is told
    after each chunk.
    """
    racing, leader, best, status, turns = list(everyone), None, -math.inf, "stalled", 0
    for candidate in racing:
        if candidate.found is not None:  # what a checkpoint holds counts
            best = max(best, learn(candidate, best))
    while racing and not job.over():
        for candidate in list(racing):
            done = candidate.advance(program, job)
            ended = not done or job.over()
            if candidate.found is not None and (ended or candidate.worth_certifying):
                bound = learn(candidate, best)
                candidate.judge(bound)
                if bound > best or turns == 0:
                    best, status = max(bound, best), status_name(candidate.found.status)
                    leader = candidate
                turns += 1
            if candidate.found is None or job.interrupted:
                return leader, status
            if candidate.found.status != Status.running or candidate.stale >= PATIENCE:
                racing.remove(candidate)
            steps = sum(one.steps for one in everyone)
            watch(steps, steps + sum(one.total - one.steps for one in racing))
            if ended:
                break
        racing = [one for one in racing if not one.behind(best)]
    if status == "running":
        status = "time_limit" if racing else "stalled"
    return leader, status
