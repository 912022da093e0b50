"""`path`: one data set at many weight decays, where each network and each bound helps the others.

The optimum p*(weight decay) is a minimum of affine functions, one per network: it is concave,
nondecreasing and nonnegative. So every network is an upper bound at every weight decay, and lower
bounds at some weight decays prove bounds between and beyond them. See docs/math/columns.md, "The
regularisation path".
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float, Int

from jaxcone import AbstractSolver

from ..bound import AbstractBounded, Bound
from ..improve.output_layer import narrow
from ..improve.polish import prune
from ..job import Job, Progress
from ..networks import AbstractTwoLayer, PolynomialNetwork
from ..problem import TrainingProblem, in_float64
from ..programs.abstract import AbstractMethod, AbstractProgram
from .choose_route import choose_route
from .route import AbstractRoute, Outcome
from .train import check_limits
from .transfer import transfer


class PathPoint(AbstractBounded):
    """One weight decay of a path: a network and a proof of how good it is.

    `upper_bound` is the objective of `network`; no network of any width has an objective below
    `lower_bound` at this weight decay. `certificate` is this point's own; `lower_bound` is larger
    than its bound where the other certificates of the path prove more. `status` is that of the
    solve (see `TrainingResult`), or `time_limit` or `interrupted` where the work on this point was
    cut short or not begun; both bounds hold whatever it says. `steps` are the solver's, or rounds of
    column generation.
    """

    weight_decay: float
    network: AbstractTwoLayer
    upper_bound: float
    lower_bound: float
    status: str
    steps: int
    certificate: Bound[Any]

    @property
    def effective_width(self) -> int:
        """Neurons of `network`, which has been pruned."""
        return self.network.width


class RegularizationPath(eqx.Module):
    """What `path` returns: `points`, one per weight decay, in the order in which these were given.

    `path[i]`, `len(path)` and iteration give the points; the properties below give one quantity for
    all of them, shape (k,). Lower and upper bounds are nondecreasing in the weight decay. `seconds`
    is the time per stage.
    """

    problem: TrainingProblem
    points: tuple[PathPoint, ...]
    seconds: dict[str, float]

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: int) -> PathPoint:
        return self.points[index]

    def __iter__(self) -> Iterator[PathPoint]:
        return iter(self.points)

    @property
    def networks(self) -> tuple[AbstractTwoLayer, ...]:
        """The network of each point."""
        return tuple(point.network for point in self.points)

    @property
    def statuses(self) -> tuple[str, ...]:
        """The status of each point."""
        return tuple(point.status for point in self.points)

    @property
    def weight_decays(self) -> Float[np.ndarray, " k"]:
        """As given, in the precision of the data."""
        return np.array([point.weight_decay for point in self.points])

    @property
    def upper_bounds(self) -> Float[np.ndarray, " k"]:
        """The objectives of the networks."""
        return np.array([point.upper_bound for point in self.points])

    @property
    def lower_bounds(self) -> Float[np.ndarray, " k"]:
        """Certified: no network is below them."""
        return np.array([point.lower_bound for point in self.points])

    @property
    def relative_gaps(self) -> Float[np.ndarray, " k"]:
        """(upper - lower) / |upper|."""
        return np.array([point.relative_gap for point in self.points])

    @property
    def effective_widths(self) -> Int[np.ndarray, " k"]:
        """Neurons of the networks."""
        return np.array([point.effective_width for point in self.points])

    def __str__(self) -> str:
        head = ("weight decay", "lower bound", "upper bound", "gap", "neurons", "steps", "status")
        rows = [
            (
                f"{point.weight_decay:.6g}",
                f"{point.lower_bound:.6g}",
                f"{point.upper_bound:.6g}",
                f"{100 * point.relative_gap:.2f} %",
                str(point.effective_width),
                str(point.steps),
                point.status,
            )
            for point in self.points
        ]
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        return "\n".join(
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            for row in (head, *rows)
        )


def path(
    problem: TrainingProblem,
    weight_decays: Any,
    *,
    program: str | AbstractProgram[Any, Any] = "auto",
    solver: AbstractSolver | AbstractMethod | str | None = None,
    width: int = 300,
    polish: bool = True,
    seed: int = 0,
    progress: Callable[[Progress], None] | None = None,
    time_limit: float | None = None,
) -> RegularizationPath:
    """Train at many weight decays, with bounds on the global optimum at each of them.

    From large to small weight decay, by column generation from the network before where the data have
    low rank, as in `train`. Otherwise the data are reduced once, the relaxation is solved from the
    solution before it and rounded, and then each network is improved as by `train`, from the one
    before it if that is the better start. Networks are simplified: parallel neurons become one where
    this costs no more than 1e-6 of the objective. For a polynomial activation the exact program is
    solved from the solution before it, to 1e-7 (`spectrahedron_path` is the same as one call under
    `jit`, without networks and proofs). In the end every point gets the best of all networks, and the
    best bound that all certificates prove together.

    **Arguments:**

    - `problem`: the data; its own weight decay plays no part.
    - `weight_decays`: positive numbers, shape (k,), in any order.
    - `program`: see `train`. Above rank 2 give a `time_limit`: the default is 20 s per point there.
    - `solver` of the relaxation: see `train`; a penalty that is chosen by trial is so at the first
      weight decay.
    - `width`, `polish`, `seed`: see `train`.
    - `progress`: called with a `Progress` after each chunk of work; its stage names the weight decay
      too, as in "solve 0.1", and its bounds are those of this weight decay by itself.
    - `time_limit`: seconds, shared out evenly. Points that were not reached in time have the best
      network and the bound that the others give them: the zero network, at worst, and zero.

    Ctrl-C ends the work in the same way as the time limit.

    **Raises** a `ValueError` for weight decays that are not a 1-D sequence of positive finite
    numbers, and for bad settings.
    """
    if not isinstance(problem, TrainingProblem):
        raise ValueError(f"problem must be a TrainingProblem; got a {type(problem).__name__}.")
    if not isinstance(problem, TrainingProblem):
        raise ValueError(f"problem must be a TrainingProblem; got a {type(problem).__name__}.")
    check_limits(width, time_limit)
    values = _checked(weight_decays, problem)
    with jax.enable_x64(True):
        # Equal weight decays are one point of the path.
        distinct, places = np.unique(values, return_inverse=True)
        exact = in_float64(problem)
        route = choose_route(
            program,
            exact,
            solver=solver,
            width=int(width),
            polish=polish,
            seed=seed,
            dtype=problem.X.dtype,
        )
        job = Job(time_limit, progress=progress)
        points = path_by(route, exact, distinct[::-1].tolist(), job)[::-1]
    return RegularizationPath(problem, tuple(points[place] for place in places), job.seconds)


def path_by(
    route: AbstractRoute, problem: TrainingProblem, weight_decays: list[float], job: Job
) -> list[PathPoint]:
    """The points of a path by one route, each from the outcome before it: largest weight decay first.

    The problem is in float64. In the end each point has the best of all networks, and the best bound
    that all certificates prove together.
    """
    problems = [
        eqx.tree_at(lambda p: p.weight_decay, problem, np.asarray(value)) for value in weight_decays
    ]
    prepared = route.prepare(problems[0], job)
    outcomes: list[Outcome] = []
    for index, here in enumerate(problems):
        before = outcomes[-1] if outcomes else None
        share = 1 / (len(problems) - index)
        label = f" {weight_decays[index]:.4g}"
        piece = job.part(share, seconds=route.seconds_per_point, label=label)
        outcome = route.run(prepared, here, before, piece)
        network = _narrowed(route, here, outcome, piece)
        if outcomes:  # a solver's state is kept until the next only
            outcomes[-1] = dataclasses.replace(outcomes[-1], state=None)
        outcomes.append(outcome.with_network(here, network))
    networks = [prune(outcome.network) for outcome in outcomes]
    proven: list[Bound[Any]] = []
    best: list[AbstractTwoLayer] = []
    for here, outcome in zip(problems, outcomes, strict=True):
        objectives = [float(here.objective(network)) for network in networks]
        best.append(networks[int(np.argmin(objectives))])
        given = outcome.with_network(here, best[-1])
        proven.append(route.proof(prepared, here, given, job))
    bounds = transfer(weight_decays, [bound.lower_bound for bound in proven])
    return [
        PathPoint(
            weight_decay=float(here.weight_decay),
            network=jax.tree.map(np.asarray, network),
            upper_bound=float(here.objective(network)),
            lower_bound=bound,
            status=outcome.status,
            steps=outcome.steps,
            certificate=certificate,
        )
        for here, network, bound, certificate, outcome in zip(
            problems, best, bounds, proven, outcomes, strict=True
        )
    ]


def _narrowed(
    route: AbstractRoute, problem: TrainingProblem, outcome: Outcome, job: Job
) -> AbstractTwoLayer:
    """The outcome's network, simplified, of at most the route's width."""
    network = route.simpler(problem, outcome, job)
    if network.width <= route.width or isinstance(network, PolynomialNetwork):
        return network
    return job.finish(lambda: narrow(problem, network, route.width))


def _checked(weight_decays: Any, problem: TrainingProblem) -> Float[np.ndarray, " k"]:
    """The weight decays in the precision of the data, as float64."""
    expected = "weight_decays must be a 1-D sequence of positive finite numbers"
    try:
        given = np.asarray(weight_decays)
    except (TypeError, ValueError):
        raise ValueError(f"{expected}; got {weight_decays!r}.") from None
    if given.ndim != 1 or given.size == 0:
        raise ValueError(f"{expected}; got an array of shape {given.shape}.")
    if given.dtype.kind not in "iuf":
        raise ValueError(f"{expected}; got entries of type {given.dtype}.")
    with np.errstate(over="ignore", under="ignore"):
        values = given.astype(problem.X.dtype).astype(np.float64)
    bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
    if bad.size:
        raise ValueError(f"{expected}; entry {bad[0]} is {given[bad[0]]}.")
    return values
