"""Algorithm 1 of Sahiner et al. (2021): Frank-Wolfe over activation patterns, with both bounds.

With the penalty as a constraint, sum_j |u_j| |v_j| <= t ("radius"), training is the minimum of a smooth
convex function over a ball whose extreme points are single neurons (their eq. 14). Each step prices
all patterns by cone-constrained PCA and moves towards the best neuron; an outer search finds t. The
Frank-Wolfe gap is a bound for the radius at hand, and the same residual proves one for training.

It is here because it is published, not because it is fast: after k steps its error is of order
t^2 / k, where column generation (`columns`) re-solves all output weights and needs some ten rounds.
docs/math/columns.md, "Frank-Wolfe".
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float

from ..arrays import Matrix
from ..bound import AbstractCertified, Bound, relative_gap
from ..geometry.patterns import sign_patterns
from ..improve.output_layer import balanced_network
from ..job import Job
from ..networks import AbstractTwoLayer
from ..pricing.budget import Budget
from ..pricing.cone_pca import cone_pca
from ..pricing.pricer import Pricer
from ..problem import TrainingProblem, in_float64, require_relu
from ..proof.residual import certify_residual

# All patterns are enumerated up to this rank.
LARGEST_RANK = 3
# The inner problem at a radius ends when its gap decides on which side of it the optimal one is, to
# this part of the radius, or of the interval in question if that is shorter.
DECIDED = 0.25
# Atoms whose directions agree to so many digits become one neuron of the network that is returned.
DIGITS = 9
# Seconds for the proof by branch and bound, where no time limit says otherwise.
PROOF_SECONDS = 30.0


class FrankWolfe(AbstractCertified):
    """A network, and the proof of how good it is.

    `status` is "solved" where the proven relative gap is within the tolerance; "converged" where that
    of the program at hand is, but it was not training itself: some patterns only, or a given radius;
    else "max_steps", "time_limit" or "interrupted". `radius` is the t at which the network was met, and
    `history` has a row (radius, objective, Frank-Wolfe gap) per step: the objective less the gap is a
    lower bound on what any network of these patterns and a penalty of radius reaches.
    """

    network: AbstractTwoLayer
    upper_bound: float
    certificate: Bound[Any]
    status: str
    radius: float
    history: Float[np.ndarray, "steps 3"]


def frank_wolfe(
    problem: TrainingProblem,
    *,
    patterns: Bool[Any, "m n"] | None = None,
    radius: float | None = None,
    max_steps: int = 10_000,
    tolerance: float = 1e-3,
    job: Job | None = None,
) -> FrankWolfe:
    """Train by Algorithm 1 of Sahiner et al. (2021), section 3.2, from the zero network.

    A step is one cone-constrained PCA per pattern, exact up to rank 3, and moves by 2 / (k + 2), their
    appendix A.1. In float64, whatever the problem is in. For ReLU and every smooth loss.

    **Arguments:**

    - `patterns` (m, n): diagonals of D as booleans; by default all of them, for data of rank 3 at most.
      With some of them it is the program (12) with these patterns that is solved.
    - `radius`: the bound t on the penalty; by default it is searched for, at some more steps.
      The published runs took that of a network trained by gradient descent.
    - `max_steps`: in all, over the search. `job` and Ctrl-C end the work with the best so far.
    - `tolerance`: the relative gap at which it ends.

    **Raises** a `ValueError` for another activation, a loss that is not smooth, patterns that do not
    fit, too high a rank where none are given, and a radius, tolerance or number of steps that is not
    positive.
    """
    require_relu(problem)
    if not problem.loss.smooth:
        raise ValueError(
            f"Frank-Wolfe takes smooth losses only; the problem's is {problem.loss.name!r}."
        )
    if radius is not None and not 0 < radius < math.inf:
        raise ValueError(f"radius must be positive and finite, or None; got {radius!r}.")
    if not 0 < tolerance < math.inf:
        raise ValueError(f"tolerance must be positive and finite; got {tolerance!r}.")
    if max_steps < 1:
        raise ValueError(f"max_steps must be at least 1; got {max_steps!r}.")
    problem, job = in_float64(problem), Job() if job is None else job
    with jax.enable_x64(True):
        pricer = Pricer(problem.features)
        oracle = _Oracle.of(pricer, patterns)
        search = _Search(problem, oracle, tolerance, radius)
        while len(search.history) < max_steps and not job.over():
            if job.chunk(search.step) == "converged":
                break
        network = jax.tree.map(np.asarray, search.network())
        certificate = _certify(problem, search, pricer, job)
        upper = float(problem.objective(network))
    if relative_gap(certificate.lower_bound, upper) <= tolerance:
        status = "solved"
    elif search.converged:
        status = "converged"
    else:
        status = job.stopped or "max_steps"
    history = np.array(search.history).reshape(-1, 3)
    return FrankWolfe(
        network=network,
        upper_bound=upper,
        certificate=certificate,
        status=status,
        radius=search.best[0],
        history=history,
    )


def _certify(problem: TrainingProblem, search: "_Search", pricer: Pricer, job: Job) -> Bound[Any]:
    """The proof from the best residual: all patterns count here, whichever were searched."""
    if pricer.rank <= 2:
        return certify_residual(problem, search.residual, pricer)
    budget = Budget(relative=search.tolerance / 10, job=job.part(seconds=PROOF_SECONDS))
    return certify_residual(problem, search.residual, pricer, budget)


class _Vertex(NamedTuple):
    """The neuron of the highest price: unit u, its relu(X u), and an upper bound on all prices."""

    neuron: Matrix
    activations: Matrix
    price: float


class _Oracle(NamedTuple):
    """The linear minimisation oracle: the best neuron over all patterns, for a residual.

    In the r coordinates of the data's span: their appendix A.2.
    """

    features: Matrix
    basis: Matrix
    coordinates: Matrix
    patterns: np.ndarray

    @classmethod
    def of(cls, pricer: Pricer, patterns: Any) -> "_Oracle":
        basis = pricer.directions.basis
        coordinates = pricer.features @ basis
        if patterns is None:
            if pricer.rank > LARGEST_RANK:
                raise ValueError(
                    f"patterns must be given for data of rank {pricer.rank}: all of them are "
                    f"enumerated up to rank {LARGEST_RANK} only."
                )
            patterns = sign_patterns(coordinates)
        return cls(pricer.features, basis, coordinates, np.asarray(patterns))

    def __call__(self, residual: Matrix) -> _Vertex:
        found = cone_pca(residual, self.coordinates, self.patterns)
        neuron = self.basis @ found.directions[int(np.argmax(found.lower))]
        activations = np.maximum(self.features @ neuron, 0)
        return _Vertex(neuron, activations, float(np.max(found.upper)))


@dataclasses.dataclass
class _Search:
    """The outer search: [`least`, `most`] holds the penalty of an optimal network.

    At a point Z of loss L with residual R and price sigma, the optimal loss at radius s is at least
    L - <R, Z> - s sigma. Adding wd s, this line in s may exceed the best objective nowhere at an
    optimal s: every step cuts the interval, on the side that the sign of wd - sigma says. Where the
    radius changes, the point is scaled with it and the steps go on.
    """

    problem: TrainingProblem
    oracle: _Oracle
    tolerance: float
    given: float | None

    def __post_init__(self):
        self.targets = self.problem.Y
        self.weight_decay = float(self.problem.weight_decay)
        self.floor = float(self.problem.loss.minimum(self.targets))
        self.history: list[tuple[float, float, float]] = []
        self.converged = False
        empty, residual = self._evaluate(np.zeros_like(self.targets))
        self.upper, self.lower, self.residual = empty, self.floor, residual
        self.least, self.most = 0.0, (empty - self.floor) / self.weight_decay
        self.point = np.zeros_like(self.targets)
        self.atoms: list[tuple[Matrix, Matrix]] = []  # unit u and v
        self.radius = self._first_radius(residual) if self.given is None else self.given
        self.best = (0.0, 0)  # radius and number of steps of the point of least objective

    def step(self) -> str:
        """Price the point at hand; then move, or go on to another radius."""
        loss, residual = self._evaluate(self.point)
        vertex, radius = self.oracle(residual), self.radius
        inner = float(np.sum(residual * self.point))
        gap = inner + radius * vertex.price
        penalty = radius if self.atoms else 0.0
        objective = loss + self.weight_decay * penalty
        if objective < self.upper:
            self.upper, self.best = objective, (penalty, len(self.atoms))
        self._bound(loss - inner, vertex.price, residual)
        self.history.append((radius, objective, gap))
        reached = self.upper - self.lower if self.given is None else gap
        if reached <= self.tolerance * abs(self.upper):
            self.converged = True
            return "converged"
        slope = abs(vertex.price - self.weight_decay)
        decided = gap <= DECIDED * min(radius, self.most - self.least) * slope
        if self.given is None and (decided or not self.least <= radius <= self.most):
            self.radius = min(2 * max(radius, self.least), (self.least + self.most) / 2)
            self.point = self.point * (self.radius / radius)
        else:
            self._move(residual, vertex)
        return "running"

    def network(self) -> AbstractTwoLayer:
        """The best point's: t sum_j 2 (j + 1) / (k (k + 1)) atom_j after k steps, the products of the
        steps 2 / (j + 2) with what later steps leave of them. Atoms of one direction are one neuron,
        whose penalty is at most the sum of theirs."""
        radius, steps = self.best
        nothing = np.zeros(self.problem.features.shape[1]), np.zeros(self.targets.shape[1])
        atoms = [*self.atoms[:steps], nothing]
        first, second = (np.stack(part) for part in zip(*atoms, strict=True))
        weights = 2 * radius * np.arange(1, steps + 2) / max(steps * (steps + 1), 1)
        _, index, group = np.unique(
            np.round(first, DIGITS), axis=0, return_index=True, return_inverse=True
        )
        outputs = np.zeros((len(index), second.shape[1]))
        np.add.at(outputs, group.ravel(), weights[:, None] * second)
        return balanced_network(self.problem, first[index], outputs)

    def _evaluate(self, point: Matrix) -> tuple[float, Matrix]:
        """The loss and its gradient."""
        loss = self.problem.loss
        return float(loss.value(point, self.targets)), np.asarray(
            loss.gradient(point, self.targets)
        )

    def _first_radius(self, residual: Matrix) -> float:
        """The length of a step from zero along the best neuron that surely descends: rather small."""
        vertex = self.oracle(residual)
        size = self.problem.loss.curvature * float(np.sum(vertex.activations**2))
        excess = vertex.price - self.weight_decay
        return excess / size if excess > 0 else self.most or 1.0

    def _move(self, residual: Matrix, vertex: _Vertex) -> None:
        """Step 2(c): towards t relu(X u) g' with g the unit vector along -R' relu(X u)."""
        output = -residual.T @ vertex.activations
        output = output / max(float(np.linalg.norm(output)), np.finfo(float).tiny)
        size = 2 / (len(self.atoms) + 2)
        target = self.radius * np.outer(vertex.activations, output)
        self.point = (1 - size) * self.point + size * target
        self.atoms.append((vertex.neuron, output))

    def _bound(self, constant: float, price: float, residual: Matrix) -> None:
        """What the point proves: `constant` is L - <R, Z> = -L*(R), and -L* is concave."""
        scale = min(1.0, self.weight_decay / price) if price > 0 else 1.0
        bound = scale * constant + (1 - scale) * self.floor
        if bound > self.lower:
            self.lower, self.residual = bound, residual
        # The penalty of an optimum is at most p* less what the loss is at least.
        self.most = min(self.most, (self.upper - self.floor) / self.weight_decay)
        slope = self.weight_decay - price
        if slope < 0:
            self.least = max(self.least, (self.upper - constant) / slope)
        elif slope > 0:
            self.most = min(self.most, (self.upper - constant) / slope)
