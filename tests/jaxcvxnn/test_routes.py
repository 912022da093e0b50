"""Every route ends at the next question to its job, with a network and a valid bound."""

import itertools

import numpy as np
import pytest

from jaxcone import Splitting
from jaxcvxnn import Job, TrainingProblem
from jaxcvxnn.programs import ConeGroupLasso, ConeLassoInterior, ConeLassoSplitting, ExactPlanar
from jaxcvxnn.training import (
    ColumnsRoute,
    LiftedRoute,
    ProgramRoute,
    SpectrahedronRoute,
    certify_by,
    generate_columns,
    path_by,
    train_by,
)

SAMPLES, WIDTH = 10, 8
# Questions that may still be asked while the loops unwind: some per loop and stage, no more rounds.
UNWINDING = 60

ROUTES = {
    "columns": (ColumnsRoute(width=WIDTH), 2, "relu", "squared"),
    "columns, branch and bound": (ColumnsRoute(width=WIDTH), 3, "relu", "squared"),
    "columns, high rank": (ColumnsRoute(width=WIDTH), 8, "absolute", "huber"),
    "lifted": (LiftedRoute(width=WIDTH), 2, "relu", "squared"),
    "lifted, splitting": (
        LiftedRoute(width=WIDTH, solver=Splitting(penalty=100.0, max_steps=400)),
        8,
        "relu",
        "squared",
    ),
    "spectrahedron": (SpectrahedronRoute(width=WIDTH), 4, "polynomial", "huber"),
    "planar": (ProgramRoute(program=ExactPlanar(), width=WIDTH), 2, "relu", "squared"),
    "cone lasso, interior": (
        ProgramRoute(program=ConeGroupLasso(), method=ConeLassoInterior(), width=WIDTH),
        2,
        "relu",
        "squared",
    ),
    "cone lasso, splitting": (
        ProgramRoute(program=ConeGroupLasso(), method=ConeLassoSplitting(), width=WIDTH),
        2,
        "relu",
        "hinge",
    ),
}


class Questions:
    """A clock on which each look takes a second; at one of them there may be a Ctrl-C."""

    def __init__(self, interrupt_at=-1):
        self.count, self.interrupt_at = itertools.count(), interrupt_at
        self.asked = 0

    def __call__(self):
        self.asked = next(self.count)
        if self.asked == self.interrupt_at:
            raise KeyboardInterrupt
        return float(self.asked)


def problem_for(rank, activation, loss):
    rng = np.random.default_rng(rank)
    X, y = rng.standard_normal((SAMPLES, rank)), rng.standard_normal(SAMPLES)
    y = np.sign(y) if loss == "hinge" else y
    return TrainingProblem(X, y, 0.2, activation=activation, loss=loss)


def check(result, problem, best):
    """A network with its own objective, and a bound that is no higher than what a longer run found."""
    assert result.upper_bound == float(problem.objective(result.network))
    assert result.network.width <= WIDTH
    assert 0 <= result.lower_bound <= best.upper_bound
    assert result.upper_bound >= best.lower_bound
    nothing = float(problem.loss.value(np.zeros((SAMPLES, 1)), problem.Y))
    assert result.upper_bound <= nothing * (1 + 1e-12)


@pytest.mark.parametrize("name", ROUTES)
@pytest.mark.parametrize("end", ["time_limit", "interrupted"])
def test_train_ends_at_the_next_question(name, end):
    route, *kind = ROUTES[name]
    problem = problem_for(*kind)
    # As many questions as the whole work has, or the first thousand.
    whole = Questions()
    best = train_by(route, problem, Job(1000.0, now=whole))
    check(best, problem, best)
    last = np.inf
    for part in (0, 0.1, 0.3, 0.6, 0.9):
        at = int(part * min(whole.asked, 1000)) + 1
        clock = Questions(at if end == "interrupted" else -1)
        limit = float(at) if end == "time_limit" else None
        result = train_by(route, problem, Job(limit, now=clock))
        check(result, problem, best)
        assert clock.asked <= at + UNWINDING
        assert result.status in (end, best.status, "solved")
        # The work up to there is not lost. (A longer limit is shared out otherwise.)
        assert result.upper_bound <= last * (1 + 1e-6) or end == "time_limit"
        last = result.upper_bound


@pytest.mark.parametrize("name", ["columns", "lifted", "spectrahedron", "planar"])
@pytest.mark.parametrize("end", ["time_limit", "interrupted"])
def test_path_ends_at_the_next_question(name, end):
    route, *kind = ROUTES[name]
    problem, decays = problem_for(*kind), [1.0, 0.2]
    whole = Questions()
    best = path_by(route, problem, decays, Job(2000.0, now=whole))
    for part in (0, 0.2, 0.5, 0.9):
        at = int(part * min(whole.asked, 2000)) + 1
        clock = Questions(at if end == "interrupted" else -1)
        limit = float(at) if end == "time_limit" else None
        points = path_by(route, problem, decays, Job(limit, now=clock))
        # A limit is shared out: the first point ends at its share, the second at the limit.
        assert clock.asked <= at + 2 * UNWINDING
        for point, known in zip(points, best, strict=True):
            assert 0 <= point.lower_bound <= known.upper_bound
            assert known.lower_bound <= point.upper_bound


@pytest.mark.parametrize("name", ["columns", "lifted", "spectrahedron"])
@pytest.mark.parametrize("end", ["time_limit", "interrupted"])
def test_certify_ends_at_the_next_question(name, end, rng):
    route, *kind = ROUTES[name]
    problem = problem_for(*kind)
    network = train_by(route, problem, Job(5.0, now=Questions())).network
    whole = Questions()
    best = certify_by(route, problem, network, Job(1000.0, now=whole))
    for part in (0, 0.2, 0.5, 0.9):
        at = int(part * min(whole.asked, 1000)) + 1
        clock = Questions(at if end == "interrupted" else -1)
        limit = float(at) if end == "time_limit" else None
        found = certify_by(route, problem, network, Job(limit, now=clock))
        assert clock.asked <= at + UNWINDING
        assert found.upper_bound == best.upper_bound
        assert 0 <= found.lower_bound <= best.lower_bound * (1 + 1e-6)


def test_a_route_goes_on_from_its_outcome(rng):
    """A second run from the first one's outcome is no worse, and needs no more rounds."""
    problem = problem_for(2, "relu", "squared")
    route = ColumnsRoute(width=WIDTH * 10)
    job = Job()
    prepared = route.prepare(problem, job)
    first = route.run(prepared, problem, None, job)
    again = route.run(prepared, problem, first, job)
    assert again.upper_bound <= first.upper_bound and again.steps <= first.steps
    assert generate_columns(problem).lower_bound <= again.upper_bound
