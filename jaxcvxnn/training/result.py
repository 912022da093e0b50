"""What `train` returns."""

import equinox as eqx

from ..bound import relative_gap
from ..networks import AbstractTwoLayer
from ..problem import TrainingProblem
from ..programs.relaxation import LiftedSolution
from ..proof.lifted import Certificate
from ..proof.polynomial import PolynomialCertificate
from ..proof.residual import PricedCertificate


class TrainingResult(eqx.Module):
    """A network with a proof of how good it is.

    `upper_bound` is the objective of `network`; no network of any width has an objective below
    `lower_bound`. `rounded_objective` is that of the network before the polish, or before it was
    narrowed to the width asked for. `status` is the solver's (`solved`, `inaccurate`, `max_steps`,
    `nonfinite`) or that of column generation (`solved` within the tolerance, `max_rounds`), or
    `stalled` when the certified bound stopped improving, `time_limit`, or `interrupted`; both bounds
    hold whatever it says.
    """

    network: AbstractTwoLayer
    upper_bound: float
    lower_bound: float
    rounded_objective: float
    status: str
    program: str
    message: str
    problem: TrainingProblem
    certificate: Certificate | PricedCertificate | PolynomialCertificate
    solution: LiftedSolution | None
    seconds: dict[str, float]

    @property
    def relative_gap(self) -> float:
        """(upper_bound - lower_bound) / |upper_bound|."""
        return relative_gap(self.lower_bound, self.upper_bound)

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
