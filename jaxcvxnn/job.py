"""The work on one request: when it has to end, whom it tells, and how long its stages took."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

Result = TypeVar("Result")

# Seconds that a piece of work should take at most, and the factor by which short ones grow.
HALF_SECOND, GROWTH = 0.5, 8


@dataclasses.dataclass(frozen=True)
class Progress:
    """What training reports: `step` of `total` within a stage, and the bounds known so far.

    The stages are "prepare", "solve", "round", "polish" and "certify", as far as a route has them, and
    for column generation "columns", after "polish" where the rank is high. `note` says beforehand what
    a large piece of work will need.
    """

    stage: str
    step: int
    total: int
    lower_bound: float
    upper_bound: float
    note: str = ""


class Job:
    """A time limit, Ctrl-C and a progress callback, for everything that works on one request.

    Whoever works for long asks `over()` before each piece, or hands the piece to `chunk`, which asks.
    A Ctrl-C inside a `chunk` or a `stage` ends the work as the limit does, with what is known so far.

    **Arguments:** `limit`, seconds from now on, or None; `progress`, called with a `Progress`; `now`, a
    clock in seconds.
    """

    def __init__(
        self,
        limit: float | None = None,
        *,
        progress: Callable[[Progress], None] | None = None,
        now: Callable[[], float] = time.monotonic,
    ):
        self.limit, self.progress, self._now = limit, progress, now
        self.seconds: dict[str, float] = {}  # what each stage has taken
        self.label = ""  # appended to the stage in reports
        self._stage = ""
        self._late = False
        self._interrupted = [False]  # shared with all parts
        self._time = 0.0
        self.began = self.now()

    def part(self, share: float = 1.0, *, seconds: float | None = None, label: str = "") -> "Job":
        """A piece of this job that ends when `share` of the time that is left here is used up, or after
        `seconds` where there is no limit. Ctrl-C ends both; times of stages go to one account."""
        left = self.remaining
        limit = seconds if left is None else share * left
        piece = Job(limit, progress=self.progress, now=self._now)
        piece._interrupted[0] |= self.interrupted
        self._interrupted[0] |= piece.interrupted
        piece.seconds, piece.label = self.seconds, self.label + label
        piece._stage, piece._interrupted = self._stage, self._interrupted
        return piece

    def now(self) -> float:
        """The time of the clock; a Ctrl-C meanwhile ends the work."""
        try:
            self._time = self._now()
        except KeyboardInterrupt:
            self.interrupt()
        return self._time

    @property
    def used(self) -> float:
        """Seconds since this job began."""
        return self.now() - self.began

    @property
    def remaining(self) -> float | None:
        """Seconds that are left; None without a limit."""
        return None if self.limit is None else max(self.limit - self.used, 0.0)

    @property
    def interrupted(self) -> bool:
        """Whether there was a Ctrl-C."""
        return self._interrupted[0]

    @property
    def stopped(self) -> str:
        """ "interrupted", "time_limit" or "": why this job had to end, as far as it was asked."""
        if self.interrupted:
            return "interrupted"
        return "time_limit" if self._late else ""

    def over(self) -> bool:
        """Whether to end: after a Ctrl-C, or when the time is used up."""
        if self.limit is not None and self.used >= self.limit:
            self._late = True
        return bool(self.stopped)

    def interrupt(self) -> None:
        """End the work, as a Ctrl-C does."""
        self._interrupted[0] = True

    def chunk(self, work: Callable[[], Result]) -> Result | None:
        """What `work` returns; None where the time is over already, or a Ctrl-C comes meanwhile."""
        if self.over():
            return None
        try:
            return work()
        except KeyboardInterrupt:
            self.interrupt()
            return None

    def finish(self, work: Callable[[], Result]) -> Result:
        """What `work` returns, whatever the time; it is short, and after a Ctrl-C it is begun again."""
        try:
            return work()
        except KeyboardInterrupt:
            self.interrupt()
        return work()

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what is inside under this name, and let a Ctrl-C end it."""
        before, begun = self._stage, self.now()
        self._stage = name
        try:
            yield
        except KeyboardInterrupt:
            self.interrupt()
        finally:
            self._stage = before
            self.seconds[name] = self.seconds.get(name, 0.0) + self.now() - begun

    def report(self, step: int, total: int, lower: float, upper: float, note: str = "") -> None:
        """Tell how far the present stage is, and the bounds known so far."""
        stage = self._stage + self.label
        self.tell(self.progress, Progress(stage, min(step, total), total, lower, upper, note))

    def tell(self, listener: Callable[..., object] | None, *facts: object) -> None:
        """Call a listener, if there is one; a Ctrl-C in it ends the work, and the talk."""
        if listener is None or self.interrupted:
            return
        try:
            listener(*facts)
        except KeyboardInterrupt:
            self.interrupt()


class Pace:
    """How many steps to take between two questions to a job: about half a second's worth.

    The first piece is one step, which waits for compilation; pieces grow as long as they are short.
    """

    def __init__(self, job: Job):
        self.job, self.steps = job, 1

    def run(self, steps: int, work: Callable[[int], Result]) -> Result | None:
        """`work(k)` for pieces k that add up to `steps`, or to fewer where the job is over.

        Returns what the last piece did, None where there was none or a Ctrl-C ended it.
        """
        last, left = None, steps
        while left:
            piece = min(self.steps, left)
            begun = self.job.now()
            done = self.job.chunk(lambda piece=piece: work(piece))
            if done is None:
                break
            last, left = done, left - piece
            self._learn(piece, self.job.now() - begun)
        return last

    def _learn(self, piece: int, seconds: float) -> None:
        if seconds <= HALF_SECOND / GROWTH and piece == self.steps:
            self.steps = GROWTH * self.steps
        elif seconds > HALF_SECOND:
            self.steps = max(int(piece * HALF_SECOND / seconds), 1)
