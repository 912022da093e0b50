"""When long work ends, what it tells meanwhile, and how long its stages took."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any


@dataclasses.dataclass(frozen=True)
class Progress:
    """What `train` reports: `step` of `total` within a stage, and the bounds known so far.

    The stages are "columns", after "polish" where the rank is high, or for the relaxation "solve",
    "round", "polish" and "certify". `note` says beforehand what
    a large piece of work will need.
    """

    stage: str
    step: int
    total: int
    lower_bound: float
    upper_bound: float
    note: str = ""


@dataclasses.dataclass
class Clock:
    """When to end: a time limit in seconds, and Ctrl-C. `stopped` says which of them it was.

    `seconds` is what each stage has taken.
    """

    limit: float | None = None
    started: float = dataclasses.field(default_factory=time.monotonic)
    stopped: str = ""
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)

    def over(self, share: float = 1.0) -> bool:
        """Whether to end: after Ctrl-C, or when this share of the time limit is used up."""
        late = self.used > share
        if not self.stopped and late and share == 1.0:
            self.stopped = "time_limit"
        return late or bool(self.stopped)

    @property
    def used(self) -> float:
        """The share of the time limit that is used up; 0 without a limit."""
        return 0.0 if self.limit is None else (time.monotonic() - self.started) / self.limit

    @property
    def remaining(self) -> float | None:
        """Seconds that are left; None without a limit."""
        if self.limit is None:
            return None
        return max(self.limit - (time.monotonic() - self.started), 0.0)

    def interruptible(self, work: Callable[[], Any]) -> Any:
        """What `work` returns, or None after a Ctrl-C."""
        try:
            return work()
        except KeyboardInterrupt:
            self.stopped = "interrupted"
            return None

    def finish(self, name: str, work: Callable[[], Any]) -> Any:
        """What `work` returns, timed; it is short, and after a Ctrl-C it is begun again."""
        with self.stage(name):
            return work()
        return work()

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what is inside, and let a Ctrl-C end it."""
        begun = time.monotonic()
        try:
            yield
        except KeyboardInterrupt:
            self.stopped = "interrupted"
        finally:
            self.seconds[name] = time.monotonic() - begun
