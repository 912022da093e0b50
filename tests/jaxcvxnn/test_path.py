"""`path`: bounds that hold at every weight decay, agree with each other, and do not mind the order."""

import functools
from fractions import Fraction

import jax
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import jaxcvxnn
from jaxcone import Splitting
from jaxcvxnn import TrainingProblem, TwoLayerReLU
from jaxcvxnn.improve.simplify import SIMPLER, simplify
from jaxcvxnn.training.transfer import transfer

from .. import oracles

# The relaxation's way; column generation has its tests at the end.
path = functools.partial(jaxcvxnn.path, program="lifted")
train = functools.partial(jaxcvxnn.train, program="lifted")

# The reduced shape and the width of tests/test_train.py: each new one is compiled afresh.
N, D, C, WIDTH = 4, 2, 1, 8
DECAYS = [0.1, 0.004, 0.5, 0.02]
# Of one static kind with those that `train` races.
SETTINGS = Splitting(penalty=100.0, max_steps=100, tolerance=1e-6, adapt_penalty=False)


def random_problem(rng, **options):
    return TrainingProblem(rng.standard_normal((N, D)), 2 * rng.standard_normal((N, C)), **options)


@pytest.fixture(scope="module")
def problem():
    return random_problem(np.random.default_rng(11))


@pytest.fixture(scope="module")
def found(problem):
    return path(problem, DECAYS, width=WIDTH)


@pytest.fixture(scope="module")
def brackets(problem):
    return [oracles.rank2_bracket(problem.X, problem.Y, decay) for decay in DECAYS]


def check(result, given_decays) -> None:
    """What holds for every path, converged or not."""
    X = np.asarray(result.problem.features, np.float64)
    Y = np.asarray(result.problem.Y, np.float64)
    np.testing.assert_allclose(result.weight_decays, given_decays, rtol=1e-6)
    for point in result:
        weights = np.asarray(point.network.first_layer), np.asarray(point.network.V)
        objective = oracles.network_objective(X, Y, *weights, point.weight_decay)
        np.testing.assert_allclose(point.upper_bound, objective, rtol=1e-12)
        assert 0 <= point.certificate.lower_bound <= point.lower_bound <= point.upper_bound
        assert float(point.certificate.proof.reduction.problem.weight_decay) == point.weight_decay
        assert point.effective_width == np.count_nonzero(np.linalg.norm(weights[0], axis=0))
        assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(point.network))
    order = np.argsort(result.weight_decays)
    lower, upper = result.lower_bounds[order], result.upper_bounds[order]
    assert np.all(np.diff(lower) >= 0) and np.all(np.diff(upper) >= 0)
    positions = np.append(0, result.weight_decays[order])
    for bounds in (lower, upper):
        # From the origin on, the slopes fall.
        slopes = np.diff(np.append(0, bounds)) / np.diff(positions)
        assert np.all(np.diff(slopes)[bounds is upper :] <= 1e-9 * np.abs(slopes[0]))


def test_bounds_enclose_the_optimum_at_every_weight_decay(found, brackets):
    check(found, DECAYS)
    for point, bracket in zip(found, brackets, strict=True):
        assert point.lower_bound <= bracket.upper and bracket.lower <= point.upper_bound
        np.testing.assert_allclose(point.upper_bound, bracket.upper, rtol=1e-4)
        assert point.lower_bound >= 0.9 * bracket.lower
        assert point.steps > 0 and point.status in ("solved", "inaccurate", "max_steps", "stalled")


def test_arrays_points_and_table(found):
    assert len(found) == len(DECAYS) and found[1] is list(found)[1] and found[-1] is found[3]
    assert found.networks[2] is found[2].network and found.statuses[2] == found[2].status
    gaps = (found.upper_bounds - found.lower_bounds) / found.upper_bounds
    np.testing.assert_allclose(found.relative_gaps, gaps, rtol=1e-12)
    assert found.effective_widths.tolist() == [network.width for network in found.networks]
    head, *rows = str(found).splitlines()
    assert head.split("  ")[0] == "weight decay" and len({len(row) for row in (head, *rows)}) == 1
    for row, point in zip(rows, found, strict=True):
        decay, lower, upper, *_, status = row.split()
        assert float(decay) == point.weight_decay and status == point.status
        np.testing.assert_allclose(float(lower), point.lower_bound, rtol=1e-5)
        np.testing.assert_allclose(float(upper), point.upper_bound, rtol=1e-5)
    assert set(found.seconds) == {"prepare", "solve", "round", "polish", "certify"}


def test_the_order_of_the_weight_decays_does_not_matter(problem, found):
    order = [3, 1, 0, 0, 2]
    again = path(problem, np.array(DECAYS)[order], width=WIDTH)
    for index, point in zip(order, again, strict=True):
        same = found[index]
        assert (point.lower_bound, point.upper_bound) == (same.lower_bound, same.upper_bound)
        for left, right in zip(*map(jax.tree.leaves, (point.network, same.network)), strict=True):
            np.testing.assert_array_equal(left, right)


def test_one_weight_decay_is_a_training(problem):
    alone = path(problem, [0.02], width=WIDTH)
    check(alone, [0.02])
    trained = train(problem.X, problem.Y, 0.02, width=WIDTH)
    assert alone[0].status == trained.status
    np.testing.assert_allclose(alone[0].lower_bound, trained.lower_bound, rtol=1e-3)
    np.testing.assert_allclose(alone[0].upper_bound, trained.upper_bound, rtol=1e-3)


def test_each_point_is_about_as_good_as_its_own_training(problem, found):
    trained = train(problem.X, problem.Y, 0.004, width=WIDTH)
    assert found[1].lower_bound >= trained.lower_bound * (1 - 2e-3)
    assert found[1].upper_bound <= trained.upper_bound * (1 + 1e-5)


def test_without_polish_networks_still_pass_between_the_points(problem, found):
    plain = path(problem, DECAYS, width=WIDTH, polish=False)
    check(plain, DECAYS)
    assert "polish" not in plain.seconds
    assert np.all(plain.upper_bounds >= found.upper_bounds * (1 - 1e-5))


def test_the_problem_s_own_weight_decay_plays_no_part(problem):
    other = TrainingProblem(problem.X, problem.Y, 7.0)
    one, two = (
        path(p, DECAYS, width=WIDTH, polish=False, solver=SETTINGS) for p in (problem, other)
    )
    assert one.lower_bounds.tolist() == two.lower_bounds.tolist()
    assert [point.steps for point in one] == [100] * len(DECAYS)


@pytest.mark.slow
def test_bias_and_float32(rng):
    X, Y = rng.standard_normal((N, 1)), 2 * rng.standard_normal((N, C))
    problem = TrainingProblem(X.astype(np.float32), Y.astype(np.float32), bias=True)
    result = path(problem, [0.1, 0.3], width=WIDTH, polish=False, solver=SETTINGS)
    check(result, [0.1, 0.3])
    assert result.weight_decays.tolist() == [float(np.float32(0.1)), float(np.float32(0.3))]
    assert all(network.b is not None for network in result.networks)
    for point in result:
        features = np.asarray(problem.features, np.float64)
        bracket = oracles.rank2_bracket(features, problem.Y, point.weight_decay)
        assert point.lower_bound <= bracket.upper and bracket.lower <= point.upper_bound


def test_nothing_to_fit():
    result = path(TrainingProblem(np.zeros((3, 2)), [1.0, 2.0, -3.0]), [1.0, 0.1])
    check(result, [1.0, 0.1])
    assert result.upper_bounds.tolist() == [7.0, 7.0]
    np.testing.assert_allclose(result.lower_bounds, 7.0, rtol=1e-12)
    assert result.statuses == ("solved", "solved") and result.effective_widths.tolist() == [0, 0]


# ----------------------------------------------------------------------
# Ending early


@pytest.mark.parametrize(
    "stage", ["solve 0.5", "solve 0.1", "round 0.1", "polish 0.1", "certify 0.5"]
)
def test_an_interrupt_returns_the_points_so_far(problem, brackets, stage):
    seen = []

    def interrupt(report):
        seen.append(report.stage)
        if report.stage == stage:
            raise KeyboardInterrupt

    # Splitting proves something on the way, an interior-point method at its end alone.
    result = path(problem, DECAYS, width=WIDTH, progress=interrupt, solver="splitting")
    check(result, DECAYS)
    assert stage in seen and result.problem is problem
    for point, bracket in zip(result, brackets, strict=True):
        assert point.lower_bound <= bracket.upper and bracket.lower <= point.upper_bound
    if not stage.startswith("certify"):
        assert result.statuses[1] == "interrupted"
    # The first point was certified before the interrupt, and proves something about all others.
    assert np.all(result.lower_bounds > 0)


def test_no_time_at_all(problem):
    result = path(problem, DECAYS, width=WIDTH, time_limit=1e-9)
    check(result, DECAYS)
    assert set(result.statuses) == {"time_limit"}
    assert result.effective_widths.tolist() == [0] * len(DECAYS)
    assert np.all(result.lower_bounds >= 0)
    assert result.upper_bounds.tolist() == [np.sum(problem.Y**2) / 2] * len(DECAYS)


def test_progress_goes_through_the_weight_decays(problem):
    reports = []
    path(problem, [0.1, 0.5], width=WIDTH, solver=SETTINGS, progress=reports.append, polish=False)
    stages = list(dict.fromkeys(report.stage for report in reports))
    assert stages == [
        "solve 0.5", "round 0.5", "certify 0.5", "solve 0.1", "round 0.1", "certify 0.1"
    ]  # fmt: skip
    assert all(0 <= report.step <= report.total for report in reports)


# ----------------------------------------------------------------------
# Wrong input


@pytest.mark.parametrize(
    ("decays", "message"),
    [
        ([], r"got an array of shape \(0,\)"),
        (0.1, r"got an array of shape \(\)"),
        ([[0.1, 0.2]], r"got an array of shape \(1, 2\)"),
        ([0.1, 0.0], "entry 1 is 0.0"),
        ([-1], "entry 0 is -1"),
        ([0.1, np.nan], "entry 1 is nan"),
        ([np.inf], "entry 0 is inf"),
        ([1e-400], "entry 0 is 0.0"),
        ("0.1", "got an array of shape"),
        (["0.1", "0.2"], "got entries of type <U3"),
        ([0.1, "x"], "got entries of type"),
        ([0.1, None], "got entries of type object"),
        ([True], "got entries of type bool"),
        ([0.1 + 1j], "got entries of type complex128"),
        ([[0.1], [0.1, 0.2]], "positive finite numbers; got"),
        (None, "got an array of shape"),
    ],
    ids=repr,
)
def test_bad_weight_decays(problem, decays, message):
    with pytest.raises(ValueError, match=f"weight_decays must be a 1-D sequence.*{message}"):
        path(problem, decays)


def test_a_weight_decay_that_is_zero_in_the_data_s_precision(problem):
    single = TrainingProblem(problem.X.astype(np.float32), problem.Y.astype(np.float32))
    with pytest.raises(ValueError, match="entry 1 is 1e-60"):
        path(single, [0.1, 1e-60])


def test_bad_settings(problem):
    with pytest.raises(ValueError, match="width must be a positive integer"):
        path(problem, [0.1], width=0)
    with pytest.raises(ValueError, match="time_limit must be positive"):
        path(problem, [0.1], time_limit=-1)
    with pytest.raises(ValueError, match="problem must be a TrainingProblem"):
        path((problem.X, problem.Y), [0.1])


# ----------------------------------------------------------------------
# Passing bounds and networks on

decays = st.floats(1e-6, 1e6)
lines = st.tuples(st.floats(0, 1e3), st.floats(0, 1e3))


@given(
    networks=st.lists(lines, min_size=1, max_size=4),
    points=st.lists(st.tuples(decays, st.floats(0, 1)), min_size=1, max_size=8),
)
@settings(max_examples=200)
def test_transferred_bounds_are_valid_monotone_and_no_weaker(networks, points):
    """p* is the least of some lines loss + weight_decay * penalty, here known exactly."""

    def optimum(decay):
        return min(Fraction(loss) + Fraction(decay) * Fraction(size) for loss, size in networks)

    positions = [decay for decay, _ in points]
    given_bounds = []
    for decay, part in points:
        exact = optimum(decay)
        bound = part * float(exact)
        given_bounds.append(bound if Fraction(bound) <= exact else np.nextafter(bound, -np.inf))
    proven = transfer(positions, given_bounds)
    for decay, bound, before in zip(positions, proven, given_bounds, strict=True):
        assert before <= bound and Fraction(bound) <= optimum(decay)
    for left in range(len(points)):
        for right in range(len(points)):
            if positions[left] <= positions[right]:
                assert proven[left] <= proven[right]


def test_transfer_fills_in_what_follows():
    # Between two points the chord, below the first the line from the origin, above the last level.
    proven = transfer([1.0, 2.0, 3.0, 4.0, 5.0], [0.0, 4.0, 0.0, 6.0, 1.0])
    assert proven == [2.0, 4.0, 5.0, 6.0, 6.0]
    assert transfer([1.0, 2.0], [0.0, 0.0]) == [0.0, 0.0]
    # A bound that the chord of its neighbours beats.
    assert transfer([1.0, 2.0, 3.0], [3.0, 3.5, 5.0]) == [3.0, 4.0, 5.0]


def test_simplify_merges_what_is_one_neuron(rng):
    problem = random_problem(rng, weight_decay=0.1)
    u, v = rng.standard_normal((D, 2)), rng.standard_normal((2, C))
    split = TwoLayerReLU(
        np.hstack([u, 2 * u[:, :1], np.zeros((D, 3))]),
        np.vstack([v, v[:1] / 3, np.zeros((3, C))]),
    )
    simple = simplify(problem, split, width=WIDTH)
    assert simple.width <= 2
    assert float(problem.objective(simple)) <= float(problem.objective(split)) * (1 + SIMPLER)
    nothing = TwoLayerReLU(np.zeros((D, 0)), np.zeros((0, C)))
    assert simplify(problem, nothing, width=WIDTH).width == 0


def test_simplify_keeps_what_cannot_be_simpler():
    # Each of four samples has its neuron and its own fit; p* = sum_i wd |y_i| - wd^2 / 2.
    X = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    problem = TrainingProblem(X, np.diag([1.0, 2, 3, 4]), 0.1)
    size = np.sqrt(np.array([1.0, 2, 3, 4]) - 0.1)
    best = TwoLayerReLU(X.T * size, np.diag(size))
    simple = simplify(problem, best, width=WIDTH)
    assert simple.width == 4
    np.testing.assert_allclose(float(problem.objective(simple)), 0.98, rtol=2 * SIMPLER)


@pytest.fixture(scope="module")
def exact(problem):
    return jaxcvxnn.path(problem, DECAYS)


def test_columns_reach_the_optimum_at_every_weight_decay(exact, brackets):
    for point, bracket, decay in zip(exact, brackets, DECAYS, strict=True):
        assert point.weight_decay == decay and point.status == "solved"
        assert point.lower_bound <= bracket.upper and bracket.lower <= point.upper_bound
        # Simplified: a millionth of the objective for fewer neurons.
        assert 0 <= point.relative_gap <= 1.1 * SIMPLER
        assert point.certificate.lower_bound <= point.lower_bound
    assert set(exact.seconds) == {"prepare", "columns"}
    order = np.argsort(DECAYS)
    assert np.all(np.diff(exact.upper_bounds[order]) >= 0)
    assert np.all(np.diff(exact.lower_bounds[order]) >= 0)


def test_columns_are_better_than_the_relaxation(found, exact):
    assert np.all(found.lower_bounds <= exact.upper_bounds)
    assert np.all(exact.lower_bounds >= found.lower_bounds * (1 - 2e-8))
    assert np.all(exact.upper_bounds <= found.upper_bounds * (1 + 2 * SIMPLER))


def test_columns_out_of_time_or_interrupted(problem):
    late = jaxcvxnn.path(problem, DECAYS, time_limit=1e-6)
    assert set(late.statuses) == {"time_limit"}

    def interrupt(report):
        if report.stage == "columns 0.1":
            raise KeyboardInterrupt

    try:
        stopped = jaxcvxnn.path(problem, DECAYS, progress=interrupt)
    except KeyboardInterrupt:
        pytest.fail("the path was lost")
    assert "interrupted" in stopped.statuses
    for result in (late, stopped):
        assert np.all(0 <= result.lower_bounds)
        assert np.all(result.lower_bounds <= result.upper_bounds)


def test_columns_with_another_loss(rng):
    X = rng.standard_normal((10, 2))
    labels = (X[:, 0] > 0).astype(int)
    result = jaxcvxnn.path(TrainingProblem(X, labels, loss="logistic"), [1.0, 0.1])
    assert np.all(result.relative_gaps <= 1e-4)
