"""What `train` returns."""

from typing import Any

from ..bound import AbstractCertified, Bound
from ..networks import AbstractTwoLayer
from ..problem import TrainingProblem
from ..programs.abstract import AbstractFound


class TrainingResult(AbstractCertified):
    """A network with a proof of how good it is.

    `upper_bound` is the objective of `network`; no network of any width has an objective below
    `lower_bound`, which `certificate` proves. `rounded_objective` is that of the network before it
    was improved, or before it was narrowed to the width asked for. `status` is the solver's
    (`solved`, `inaccurate`, `max_steps`, `nonfinite`) or that of column generation (`solved` within
    the tolerance, `max_rounds`), or `stalled` when the certified bound stopped improving,
    `time_limit`, or `interrupted`; both bounds hold whatever it says. `solution` is that of the
    convex program, where one was solved as a whole.
    """

    network: AbstractTwoLayer
    upper_bound: float
    certificate: Bound[Any]
    rounded_objective: float
    status: str
    program: str
    message: str
    problem: TrainingProblem
    solution: AbstractFound | None
    seconds: dict[str, float]

    def __str__(self) -> str:
        shape = f"{self.network.in_features} inputs, {self.network.width} neurons"
        total = sum(self.seconds.values())
        return "\n".join(
            [
                f"network        {shape}, {self.network.out_features} outputs",
                f"upper bound    {self.upper_bound:.6f}  (objective of this network)",
                f"lower bound    {self.lower_bound:.6f}  (certified: no network is below it)",
                f"relative gap   {100 * self.relative_gap:.3g} %",
                f"program        {self.program}: {self.message}",
                f"time           {total:.1f} s ("
                + ", ".join(f"{stage} {spent:.1f}" for stage, spent in self.seconds.items())
                + ")",
            ]
        )
