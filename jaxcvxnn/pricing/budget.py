"""How far a search for the best neuron goes."""

import dataclasses

import numpy as np

from ..job import Job


@dataclasses.dataclass(frozen=True)
class Budget:
    """When a pricing method may stop. Whenever it does, its interval is valid, only wider.

    **Arguments:**

    - `relative`: it ends when `upper` <= (1 + `relative`) `lower`, or at the accuracy of float64.
    - `target`: it also ends when the maximum is proven to be at most this.
    - `keep`: every neuron that was met with a price above it is worth returning; in training that is
      the weight decay, and `target` a little more. By default it is `target`.
    - `max_boxes`: cones of a branch and bound at most.
    - `starts`: random starts of the local search.
    - `job`: asked before each piece of work; its time limit and Ctrl-C end the search.

    **Raises** a `ValueError` for numbers that are out of range.
    """

    relative: float = 1e-6
    target: float | None = None
    keep: float | None = None
    max_boxes: int = 10**7
    starts: int = 400
    job: Job = dataclasses.field(default_factory=Job)

    def __post_init__(self):
        for name, holds, expected in (
            ("relative", 0 <= self.relative < np.inf, "a number that is not negative"),
            ("target", self.target is None or self.target > 0, "a positive number or None"),
            ("keep", self.keep is None or self.keep > 0, "a positive number or None"),
            ("max_boxes", self.max_boxes >= 0, "a number that is not negative"),
            ("starts", self.starts >= 0, "a number that is not negative"),
        ):
            if not holds:
                raise ValueError(f"{name} must be {expected}; got {getattr(self, name)!r}.")

    @property
    def enough(self) -> float:
        """The upper bound at which it ends, as far as `target` says; -inf without one."""
        return -np.inf if self.target is None else self.target
