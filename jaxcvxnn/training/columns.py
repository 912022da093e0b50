"""Column generation: training to global optimality, with a valid pair of bounds at every moment.

Totally corrective Frank-Wolfe: with the neurons at hand, the best output weights are a group lasso
(`group_lasso`); its residual prices all other neurons (`pricing`); those that pay are added. The
price's proven upper bound gives a lower bound on the global optimum, and where no neuron pays the
network is optimal. Seen from the dual these are cutting planes in R. docs/math/columns.md, "Column
generation".
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from ..arrays import Matrix
from ..bound import AbstractCertified, Bound, relative_gap
from ..improve.output_layer import balanced_network, fit_outputs, unit_neurons
from ..job import Job
from ..networks import AbstractTwoLayer
from ..pricing.ascent import local_maxima, normalised
from ..pricing.budget import Budget
from ..pricing.price import Price, prices
from ..pricing.pricer import Pricer
from ..pricing.slopes import stacked_features, stacked_residual
from ..problem import TrainingProblem, in_float64
from ..proof.residual import certify_residual, trivial_bound

# How far the best price found may be above the weight decay when a proof is first tried, and the
# factor between stages: proofs far from the optimum cost as much and say little.
FIRST_STAGE = 5e-2
STAGE_FACTOR = 0.1
# Neurons added in a round at most, and the part of the strongest below which they are dropped.
PER_ROUND = 60
NEGLIGIBLE = 1e-5
# Where prices are exact: the neurons to begin with, at most, and the relative duality gap of a round's
# output weights, in units of the gap so far and at most. Far from the optimum less accuracy will do.
FIRST_NEURONS = 128
REFIT_ACCURACY = 1e-3
LAST_REFIT = 1e-12
# Parts of the way from the average of two neurons to the best price between them, where others are
# tried.
ON_THE_WAY = (1 / 8, 1 / 64)
# Rounds without progress after which it is rounding that is in the way.
PATIENCE = 10
# Default relative gaps: with prices in closed form, and with those of branch and bound.
EXACT, PROVEN = 1e-8, 1e-5


class ColumnGeneration(AbstractCertified):
    """A network and the proof of how good it is.

    `status` is "solved" where the relative gap is within the tolerance, "stalled" where rounding or
    the limits of the proof keep it from that, else "max_rounds", "time_limit" or "interrupted".
    `history` has a row (lower, upper, neurons) per round.
    """

    network: AbstractTwoLayer
    upper_bound: float
    certificate: Bound[Any]
    status: str
    rank: int
    rounds: int
    history: Float[np.ndarray, "rounds 3"]

    def describe(self) -> str:
        """Which pricing, why, and what more time would buy: one line."""
        how = "priced in closed form" if self.rank <= 2 else "priced by branch and bound"
        if self.certificate.proof.method == "relaxation":
            how = "priced by the semidefinite relaxation"
        text = f"data of rank {self.rank}, {how}, {self.rounds} rounds ({self.status})"
        if self.status in ("time_limit", "interrupted", "max_rounds"):
            text += "; more time would narrow the gap"
        return text


def default_tolerance(rank: int) -> float:
    """The relative gap that is small enough where the caller does not say."""
    return EXACT if rank <= 2 else PROVEN


def generate_columns(
    problem: TrainingProblem,
    *,
    start: AbstractTwoLayer | None = None,
    pricer: Pricer | None = None,
    tolerance: float | None = None,
    max_rounds: int = 300,
    job: Job | None = None,
    seed: int = 0,
    save: Callable[[AbstractTwoLayer], object] | None = None,
) -> ColumnGeneration:
    """Train to the global optimum, from the neurons of `start` if it is given: ReLU, leaky ReLU or the
    absolute value, any loss.

    `pricer`, one of `stacked_features(problem)`, saves its set-up. `tolerance` is the relative gap at
    which it ends, by default 1e-8 where prices are known in closed form (rank 1 and 2), else 1e-5.
    `job` is told of each round, and ends the work with the best pair of bounds so far; `save` is given
    the best network after each. In float64, whatever the problem is in.
    """
    problem, job = in_float64(problem), Job() if job is None else job
    pricer = Pricer(stacked_features(problem)) if pricer is None else pricer
    if tolerance is None:
        tolerance = default_tolerance(pricer.rank)
    with jax.enable_x64(True):
        work = _Columns(problem, pricer, job, tolerance, seed)
        work.add(pricer.kinks(FIRST_NEURONS))
        if start is not None:
            work.adopt(start)
        status = "max_rounds"
        for done in range(1, max_rounds + 1):
            ended = job.chunk(work.round)
            status = ended or job.stopped
            if ended is None:
                break
            if save is not None:
                save(work.network)
            job.report(done, max_rounds, work.certificate.lower_bound, work.upper)
            if status != "running":
                break
        if status == "solved":
            job.chunk(work.finish)
    return ColumnGeneration(
        network=work.network,
        upper_bound=work.upper,
        certificate=work.certificate,
        status="max_rounds" if status == "running" else status,
        rank=work.pricer.rank,
        rounds=len(work.history),
        history=np.array(work.history).reshape(-1, 3),
    )


def between_neighbours(points: Matrix, first: Matrix, second: Matrix) -> Matrix:
    """For each of the `points` (k, 2), `ON_THE_WAY` to it from the average, weighted by |v|, of the
    two of the neurons (m, 2) beside it.

    Where two neurons stand for one between them, both have the price wd, so that the best price is
    half way, wherever that neuron is. The data determine it to be near their average, but for the
    penalty, whose slope along the chord is that in the middle of the arc: it is a little nearer to it.
    """
    angles = np.arctan2(first[:, 1], first[:, 0])
    order = np.argsort(angles)
    after = np.searchsorted(angles[order], np.arctan2(points[:, 1], points[:, 0])) % len(first)
    weighted = (np.linalg.norm(second, axis=1)[:, None] * first)[order]
    averages = normalised(weighted[after] + weighted[after - 1])
    return normalised(
        np.concatenate([averages + part * (points - averages) for part in ON_THE_WAY])
    )


@dataclasses.dataclass
class _Columns:
    """The neurons so far, unit rows of `first` with output weights `second`, and the best bounds."""

    problem: TrainingProblem
    pricer: Pricer
    job: Job
    tolerance: float
    seed: int

    def __post_init__(self):
        self.features = self.pricer.features
        self.weight_decay = float(self.problem.weight_decay)
        self.first = np.zeros((0, self.features.shape[1]))
        self.second = np.zeros((0, self.problem.Y.shape[1]))
        self.network = self._as_network()
        self.upper = float(self.problem.objective(self.network))
        self.certificate = trivial_bound(self.problem)
        self.stage, self.goal = FIRST_STAGE, math.inf  # of the next proof and of the last one
        self.objective = math.inf
        self.stale = 0
        self.history: list[tuple[float, float, int]] = []

    @property
    def exact(self) -> bool:
        """Whether prices are known in closed form."""
        return self.pricer.rank <= 2

    @property
    def _finest(self) -> float:
        """The relative duality gap of the output weights that ends with the tolerance."""
        return min(1e-10, self.tolerance / 10)

    @property
    def gap(self) -> float:
        """The relative gap of the best pair of bounds."""
        return relative_gap(self.certificate.lower_bound, self.upper)

    def adopt(self, network: AbstractTwoLayer) -> None:
        """Begin with the neurons of a network, which is the best so far."""
        first, second = unit_neurons(network)
        self.add(first, second)
        self._offer(network)

    def add(self, first: Matrix, second: Matrix | None = None) -> None:
        """More neurons, with their output weights or unused."""
        if second is None:
            second = np.zeros((len(first), self.second.shape[1]))
        self.first = np.concatenate([self.first, first])
        self.second = np.concatenate([self.second, second])

    def round(self) -> str:
        """Refit, price, add; the status afterwards."""
        residual = self._refit()
        stacked = stacked_residual(self.problem, residual)
        price = self._price(residual, stacked)
        pays = self._paying(price, stacked)
        self.history.append((self.certificate.lower_bound, self.upper, len(self.first)))
        if self.gap <= self.tolerance:
            return "solved"
        if self.job.over():
            return self.job.stopped
        finest = self.accuracy <= self._finest if self.exact else self.goal <= self._needed()
        if self.stale >= PATIENCE or (finest and not len(pays)):
            return "stalled"
        self.add(pays)
        return "running"

    def finish(self) -> None:
        """Where that is cheap, fit so well that the network's own residual proves the bound too, whose
        error is the square root of the weights' gap."""
        if self.exact:
            found = fit_outputs(self.problem, self.first, self.second, LAST_REFIT, self.job)
            self.second = found.V
            self._offer(self._as_network())

    def _refit(self) -> Matrix:
        """The best output weights of the neurons at hand; the residual that prices others."""
        self.accuracy = self._finest
        if self.exact:
            self.accuracy = max(self.accuracy, REFIT_ACCURACY * min(self.gap, 1.0))
        found = fit_outputs(self.problem, self.first, self.second, self.accuracy, self.job)
        self.second = found.V
        self._offer(self._as_network())
        gained = self.objective - found.objective
        # Dropped neurons may come back: unless the objective fell, that could go on for ever.
        if gained > 0:
            strength = np.linalg.norm(self.second, axis=1)
            keep = strength > (1e-9 if self.exact else NEGLIGIBLE) * strength.max(initial=0.0)
            self.first, self.second = self.first[keep], self.second[keep]
        self.stale = 0 if gained > self.tolerance / 100 * abs(found.objective) else self.stale + 1
        self.objective = min(self.objective, found.objective)
        return found.residual

    def _price(self, residual: Matrix, stacked: Matrix) -> Price:
        """New neurons, with a proof where it is cheap or promises something."""
        if self.exact:
            return self._prove(residual)
        found, values = local_maxima(
            stacked,
            self.features,
            starts=200 * self.pricer.rank,
            neurons=self.first,
            seed=self.seed + len(self.history),
            job=self.job,
        )
        excess = float(values[0]) / self.weight_decay - 1 if len(values) else 0.0
        if excess > self.stage:
            return Price(float(values[0]), math.inf, found, "ascent", 0)
        self.goal = max(2 * self.stage, self._needed())
        target = self.weight_decay * (1 + self.goal)
        budget = Budget(
            relative=self.goal / 2,
            target=target,
            keep=self.weight_decay * (1 + 1e-9),
            starts=0,
            job=self.job,
        )
        proven = self._prove(residual, found, budget)
        if proven.upper <= target * (1 + 1e-9):
            self.stage *= STAGE_FACTOR
        return proven

    def _needed(self) -> float:
        """How far the price may be above the weight decay for half of the tolerance on the gap."""
        penalty = self.weight_decay * np.linalg.norm(self.second, axis=1).sum()
        return 0.5 * self.tolerance * abs(self.upper) / max(penalty, np.finfo(float).tiny)

    def _prove(
        self, residual: Matrix, neurons: Matrix | None = None, budget: Budget | None = None
    ) -> Price:
        found = certify_residual(self.problem, residual, self.pricer, budget, neurons=neurons)
        assert isinstance(found.proof, Price)
        if found.lower_bound > self.certificate.lower_bound or not len(self.history):
            self.certificate = found
        return found.proof

    def _paying(self, price: Price, stacked: Matrix) -> Matrix:
        """The neurons that pay, best first, of those that do nearly the same only the best."""
        values = prices(stacked, self.features, price.neurons)
        pays = values > self.weight_decay * (1 + 1e-13)
        neurons, values = price.neurons[pays], values[pays]
        if not len(values):
            return neurons
        if self.exact:
            return np.concatenate([neurons, self._between(neurons, stacked)])
        activations = np.maximum(neurons @ self.features.T, 0)
        lengths = np.linalg.norm(activations, axis=1, keepdims=True)
        activations = activations / lengths
        excess = float(values.max()) / self.weight_decay - 1
        alike = 1 - min(1e-3, 1e-2 * excess)
        chosen: list[int] = []
        for i in np.argsort(-values):
            if np.all(activations[chosen] @ activations[i] <= alike):
                chosen.append(int(i))
            if len(chosen) == PER_ROUND:
                break
        return neurons[chosen]

    def _between(self, neurons: Matrix, stacked: Matrix) -> Matrix:
        """Those that pay of the neurons between one of `neurons` and the ones at hand beside it."""
        if self.pricer.rank < 2 or not len(self.first):
            return neurons[:0]
        basis = self.pricer.directions.basis
        found = between_neighbours(neurons @ basis, self.first @ basis, self.second) @ basis.T
        return found[prices(stacked, self.features, found) > self.weight_decay * (1 + 1e-13)]

    def _as_network(self) -> AbstractTwoLayer:
        return balanced_network(self.problem, self.first, self.second)

    def _offer(self, network: AbstractTwoLayer) -> None:
        network = jax.tree.map(np.asarray, network)
        objective = float(self.problem.objective(network))
        if objective < self.upper:
            self.network, self.upper = network, objective
