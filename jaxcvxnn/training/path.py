"""`path`: one data set at many weight decays, where each network and each bound helps the others.

The optimum p*(weight decay) is a minimum of affine functions, one per network: it is concave,
nondecreasing and nonnegative. So every network is an upper bound at every weight decay, and lower
bounds at some weight decays prove bounds between and beyond them. See docs/math/columns.md, "The
regularisation path".
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxcone import AbstractSolver

from ..bound import relative_gap
from ..conic.lifted import lifted_program
from ..improve.output_layer import narrow
from ..improve.polish import prune
from ..improve.simplify import simplify
from ..networks import AbstractTwoLayer
from ..pricing.pricer import Pricer
from ..pricing.slopes import stacked_features
from ..problem import TrainingProblem, in_float64
from ..proof.lifted import Certificate
from ..proof.polynomial import PolynomialCertificate
from ..proof.residual import PricedCertificate
from ..reduction import reduce
from .columns import ColumnGeneration, generate_columns
from .job import Clock, Progress
from .method_choice import named_solver
from .spectrahedron_route import (
    TOLERANCE,
    Solved,
    best_proof,
    heaviest,
    narrowest,
    report_steps,
    solve_from,
)
from .train import (
    MAX_ROUNDS,
    SOLVE_SHARE,
    Candidate,
    Run,
    candidates,
    check_limits,
    choose_program,
    report_rounds,
)
from .transfer import transfer

# Column generation without a time limit: seconds per weight decay.
COLUMNS_SECONDS = 20.0


class PathPoint(eqx.Module):
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
    certificate: Certificate | PricedCertificate | PolynomialCertificate

    @property
    def relative_gap(self) -> float:
        """(upper_bound - lower_bound) / |upper_bound|."""
        return relative_gap(self.lower_bound, self.upper_bound)

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
    program: str = "auto",
    solver: AbstractSolver | str | None = None,
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
    check_limits(width, time_limit)
    values = _checked(weight_decays, problem)
    with jax.enable_x64(True):
        # Equal weight decays are one point of the path.
        distinct, places = np.unique(values, return_inverse=True)
        clock = Clock(time_limit)
        descending = distinct[::-1].tolist()
        for_lifted = solver not in (None, "auto") or not polish
        chosen = choose_program(program, in_float64(problem), for_lifted=for_lifted)
        if chosen == "spectrahedron":
            points = _by_spectrahedron(problem, descending, clock, int(width), progress)[::-1]
        elif chosen == "columns":
            points = _by_columns(problem, descending, clock, int(width), seed, progress)[::-1]
        else:
            lifted = _Path(problem, descending, clock, int(width), seed, progress)
            points = lifted(solver, polish=polish)[::-1]
    return RegularizationPath(problem, tuple(points[place] for place in places), clock.seconds)


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


def _by_columns(
    problem: TrainingProblem,
    weight_decays: list[float],
    clock: Clock,
    width: int,
    seed: int,
    progress: Callable[[Progress], None] | None,
) -> list[PathPoint]:
    """The path from large to small weight decay, each point from the network before it."""
    problems = _at(problem, weight_decays)
    pricer = Pricer(stacked_features(problems[0]))
    found: list[ColumnGeneration] = []
    statuses, networks = [], []
    with clock.stage("columns"):
        for index, here in enumerate(problems):
            over = clock.over()
            share = _seconds(clock, len(problems) - index, COLUMNS_SECONDS)
            one = generate_columns(
                here,
                start=found[-1].network if found else None,
                pricer=pricer,
                max_rounds=0 if over else MAX_ROUNDS,
                clock=share,
                seed=seed,
                watch=report_rounds(progress, f"columns {weight_decays[index]:.4g}"),
            )
            if share.stopped == "interrupted":
                clock.stopped = "interrupted"
            found.append(one)
            statuses.append(clock.stopped if over else one.status)
            network = simplify(here, one.network, width=max(width, one.network.width))
            networks.append(network if network.width <= width else narrow(here, network, width))
    certificates = [one.certificate for one in found]
    return _points(problems, networks, certificates, statuses, [one.rounds for one in found])


def _by_spectrahedron(
    problem: TrainingProblem,
    weight_decays: list[float],
    clock: Clock,
    width: int,
    progress: Callable[[Progress], None] | None,
) -> list[PathPoint]:
    """The path from large to small weight decay, each solve from the solution before it."""
    problems = _at(problem, weight_decays)
    solved: list[Solved] = []
    with clock.stage("solve"):
        for index, here in enumerate(problems):
            before = solved[-1] if solved else None
            if clock.over():
                solved.append(Solved(None, 0, clock.stopped, None))
                continue
            share = _seconds(clock, len(problems) - index, None)
            report = report_steps(progress, f"solve {weight_decays[index]:.4g}")
            solved.append(solve_from(here, before, TOLERANCE, share, report))
            if share.stopped == "interrupted":
                clock.stopped = "interrupted"
    pairs = list(zip(problems, solved, strict=True))
    networks = clock.finish(
        "round",
        lambda: [heaviest(narrowest(here, one.found, TOLERANCE), width) for here, one in pairs],
    )
    proofs = clock.finish(
        "certify",
        lambda: [
            best_proof(here, network, one.found)
            for (here, one), network in zip(pairs, networks, strict=True)
        ],
    )
    statuses = [
        "solved" if _gap(here, network, proof) <= TOLERANCE else one.ended
        for here, network, proof, one in zip(problems, networks, proofs, solved, strict=True)
    ]
    return _points(problems, networks, proofs, statuses, [one.steps for one in solved])


def _gap(
    problem: TrainingProblem, network: AbstractTwoLayer, proof: PolynomialCertificate
) -> float:
    return relative_gap(proof.lower_bound, float(problem.objective(network)))


def _at(problem: TrainingProblem, weight_decays: list[float]) -> list[TrainingProblem]:
    """The problem at each weight decay, in float64."""
    exact = in_float64(problem)
    return [
        eqx.tree_at(lambda p: p.weight_decay, exact, np.asarray(value)) for value in weight_decays
    ]


def _points(
    problems: list[TrainingProblem],
    networks: Sequence[AbstractTwoLayer],
    certificates: Sequence[PricedCertificate | PolynomialCertificate],
    statuses: list[str],
    steps: list[int],
) -> list[PathPoint]:
    """Each with the best of all networks, and the best bound that all certificates prove."""
    weight_decays = [float(here.weight_decay) for here in problems]
    bounds = transfer(weight_decays, [one.lower_bound for one in certificates])
    points = []
    for here, certificate, bound, status, count in zip(
        problems, certificates, bounds, statuses, steps, strict=True
    ):
        objectives = [float(here.objective(network)) for network in networks]
        best = int(np.argmin(objectives))
        points.append(
            PathPoint(
                weight_decay=float(here.weight_decay),
                network=networks[best],
                upper_bound=objectives[best],
                lower_bound=bound,
                status=status,
                steps=count,
                certificate=certificate,
            )
        )
    return points


def _seconds(clock: Clock, left: int, unlimited: float | None) -> Clock:
    """A clock for the next of `left` points: its share of what is left, or `unlimited` seconds."""
    remaining = clock.remaining
    return Clock(unlimited if remaining is None else max(remaining, 1e-3) / left)


@dataclasses.dataclass
class _Path:
    """One call of `path`: a run per weight decay, largest first, and the stages in order."""

    problem: TrainingProblem
    weight_decays: list[float]
    clock: Clock
    width: int
    seed: int
    progress: Callable[[Progress], None] | None

    def __post_init__(self):
        reduction = reduce(in_float64(self.problem))
        dtype = self.problem.X.dtype
        self.runs = [
            Run(
                eqx.tree_at(lambda p: p.weight_decay, self.problem, np.asarray(value, dtype)),
                reduction.at(value),
                self.clock,
                self.width,
                self.seed,
                self._named(value),
            )
            for value in self.weight_decays
        ]
        self.statuses = [""] * len(self.runs)
        self.steps = [0] * len(self.runs)

    def __call__(self, solver: AbstractSolver | str | None, *, polish: bool) -> list[PathPoint]:
        if self.runs[0].has_work:
            with self.clock.stage("solve"):
                self._solve(solver)
            if polish:
                with self.clock.stage("polish"):
                    self._polish()
            with self.clock.stage("certify"):
                self._exchange()
                for run, steps in zip(self.runs, self.steps, strict=True):
                    if steps and self.clock.stopped != "interrupted":
                        run.certify()
        else:
            self.statuses = ["solved"] * len(self.runs)
        bounds = transfer(self.weight_decays, [run.certificate.lower_bound for run in self.runs])
        return [
            PathPoint(
                weight_decay=weight_decay,
                network=jax.tree.map(np.asarray, run.network),
                upper_bound=run.upper,
                lower_bound=bound,
                status=status or self.clock.stopped or "time_limit",
                steps=steps,
                certificate=run.certificate,
            )
            for weight_decay, run, bound, status, steps in zip(
                self.weight_decays, self.runs, bounds, self.statuses, self.steps, strict=True
            )
        ]

    def _solve(self, solver: AbstractSolver | str | None) -> None:
        """Solve and round one after the other; a solver's state is kept only until the next."""
        last: Run | None = None
        for index, run in enumerate(self.runs):
            status = run.solve(_racing(solver, last, run), share=self._share(index, SOLVE_SHARE))
            if run.leader is None or run.solution is None:
                continue
            self.steps[index] = run.leader.steps
            if not self.clock.stopped:
                self.statuses[index] = status
            run.round(run.solution)
            run.solution = None
            if last is not None:
                last.leader = None
            last = run

    def _polish(self) -> None:
        """Polish one after the other, each from the better of its own network and the one before."""
        before: Run | None = None
        solved, self.statuses = self.statuses, [""] * len(self.runs)
        for index, run in enumerate(self.runs):
            share = self._share(index, 1.0)
            if before is not None:
                run.offer(before.network)
            try:
                run.polish(share=share)
            finally:
                run.network = simplify(run.exact, run.network, width=self.width)
                run.upper = float(run.exact.objective(run.network))
            if not self.clock.over(share):
                self.statuses[index] = solved[index]
            before = run

    def _share(self, index: int, end: float) -> float:
        """The share of the time limit at which this point is due, when the last is due at `end`."""
        left = len(self.runs) - index
        return end if left == 1 else self.clock.used + (end - self.clock.used) / left

    def _exchange(self) -> None:
        """Give each run the network that is best at its weight decay."""
        networks = [prune(run.network) for run in self.runs]
        losses = np.array(
            [float(self.runs[0].exact.training_loss(network)) for network in networks]
        )
        squares = np.array([float(network.squared_norm) for network in networks])
        for weight_decay, run in zip(self.weight_decays, self.runs, strict=True):
            run.network = networks[int(np.argmin(losses + weight_decay / 2 * squares))]
            run.upper = float(run.exact.objective(run.network))

    def _named(self, weight_decay: float) -> Callable[[Progress], None] | None:
        progress = self.progress
        if progress is None:
            return None
        name = f" {weight_decay:.4g}"
        return lambda report: progress(dataclasses.replace(report, stage=report.stage + name))


def _racing(solver: AbstractSolver | str | None, last: Run | None, run: Run) -> list[Candidate]:
    """The settings to try at the next weight decay, and where they start. `last` is solved.

    Measured against one vmapped call over the weight decays in docs/math/columns.md, "The
    regularisation path".
    """
    if last is None or last.leader is None or last.leader.found is None:
        # NaN asks for the program's own start, so that one compiled chunk serves every weight decay.
        offset = lifted_program(run.data).offset()
        nowhere = jax.tree.map(lambda a: jnp.full_like(a, jnp.nan), (offset, offset))
        return candidates(named_solver(solver, lifted_program(run.data)), nowhere)
    found = last.leader.found
    ratio = float(run.exact.weight_decay) / float(last.exact.weight_decay)
    # Near interpolation the moments stay and the multipliers are proportional to the weight decay.
    return candidates(last.leader.solver, (found.s, jax.tree.map(lambda y: ratio * y, found.y)))
