"""`train` end to end: both bounds hold whatever happens, and what comes back is what it says."""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvxnn
from jaxcone import Splitting
from jaxcvxnn import Progress, TrainingResult
from jaxcvxnn.training import choose_program

from .. import oracles

# The relaxation's way; the other is in tests/test_columns.py.
train = functools.partial(jaxcvxnn.train, program="lifted")

# One reduced shape (4 directions, rank 2, 1 output) and one width for nearly all tests: each new
# one is compiled afresh.
N, D, C, WIDTH = 4, 2, 1, 8
STATUSES = {
    "solved",
    "inaccurate",
    "max_steps",
    "stalled",
    "time_limit",
    "interrupted",
    "nonfinite",
}
STAGES = ["solve", "round", "polish", "certify"]


def random_data(rng, size=2.0):
    return rng.standard_normal((N, D)), size * rng.standard_normal((N, C))


def recomputed(result: TrainingResult) -> float:
    """The objective of the returned network, in NumPy, on the data that were given."""
    X = np.asarray(result.problem.features, np.float64)
    Y = np.asarray(result.problem.Y, np.float64)
    U = np.asarray(result.network.first_layer, np.float64)
    V = np.asarray(result.network.V, np.float64)
    return oracles.network_objective(X, Y, U, V, float(result.problem.weight_decay))


def check(result: TrainingResult) -> None:
    """What holds for every result, converged or not."""
    assert 0 <= result.lower_bound <= result.upper_bound
    assert result.upper_bound <= np.sum(np.asarray(result.problem.Y, np.float64) ** 2) / 2
    np.testing.assert_allclose(result.upper_bound, recomputed(result), rtol=1e-12)
    assert result.upper_bound <= result.rounded_objective
    assert result.status in STATUSES
    assert result.lower_bound == result.certificate.lower_bound
    gap = (result.upper_bound - result.lower_bound) / max(result.upper_bound, 1e-300)
    np.testing.assert_allclose(result.relative_gap, gap, rtol=1e-12)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(result.network))


@pytest.mark.slow
@pytest.mark.parametrize("weight_decay", [0.1, 0.01])
def test_two_directions_are_solved_to_the_optimum(rng, weight_decay):
    """The relaxation is exact here, so both bounds meet at p*."""
    X = rng.standard_normal((2, D))
    X, Y = np.vstack([X, 2 * X]), 2 * rng.standard_normal((N, C))
    result = train(X, Y, weight_decay, width=WIDTH)
    check(result)
    bracket = oracles.rank2_bracket(X, Y, weight_decay)
    assert result.lower_bound <= bracket.upper and bracket.lower <= result.upper_bound
    assert result.relative_gap < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("polish", [False, True])
def test_two_samples_just_above_the_zero_network(polish):
    # p* = sum_i wd |y_i| - wd^2 / 2 = 2, close to the zero network's 2.25.
    X, Y = np.vstack([np.eye(2), np.zeros((2, 2))]), [1.5, -1.5, 0, 0]
    result = train(X, Y, 1.0, width=WIDTH, polish=polish)
    check(result)
    assert result.lower_bound <= 2 and result.upper_bound >= 2 * (1 - 1e-14)
    assert result.lower_bound >= 2 * (1 - 1e-3)
    assert result.upper_bound <= (2 * (1 + 1e-3) if polish else 2.25)


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "bias"), [*((s, False) for s in range(6)), (6, True), (7, True)])
def test_bounds_enclose_the_optimum(seed, bias):
    rng = np.random.default_rng(seed)
    X, Y = random_data(rng, size=10.0 ** rng.uniform(-1, 1))
    X = X[:, :1] if bias else X
    weight_decay = 10.0 ** rng.uniform(-3, 0)
    result = train(X, Y, weight_decay, bias=bias, width=WIDTH)
    check(result)
    assert (result.network.b is not None) == bias
    assert result.network.width <= WIDTH
    bracket = oracles.rank2_bracket(result.problem.features, Y, weight_decay)
    assert result.lower_bound <= bracket.upper
    assert bracket.lower <= result.upper_bound
    # The network is good, not only valid.
    np.testing.assert_allclose(result.upper_bound, bracket.upper, rtol=0.01)


def test_without_polish_the_rounded_network_comes_back(rng):
    X, Y = random_data(rng)
    plain = train(X, Y, 0.05, width=WIDTH, polish=False)
    check(plain)
    assert "polish" not in plain.seconds
    assert plain.upper_bound == min(plain.rounded_objective, np.sum(Y**2) / 2)
    better = train(X, Y, 0.05, width=WIDTH)
    check(better)
    assert better.rounded_objective == plain.rounded_objective
    assert better.upper_bound <= plain.upper_bound
    assert better.lower_bound >= plain.lower_bound


def test_awkward_samples(rng):
    """Copies, opposites, a zero, rank two in three features: reduced to the usual shape."""
    X, Y = rng.standard_normal((N, 2)), 2 * rng.standard_normal((7, C))
    X = np.vstack([X, 2 * X[0], np.zeros(2), X[1]]) @ rng.standard_normal((2, 3))
    result = train(X, Y, 0.05, width=WIDTH, polish=False)
    check(result)
    bracket = oracles.rank2_bracket(X, Y, 0.05)
    assert result.lower_bound <= bracket.upper and bracket.lower <= result.upper_bound
    assert result.lower_bound >= 0.8 * bracket.lower
    assert result.network.in_features == 3


@pytest.mark.parametrize(
    ("X", "Y", "optimum"),
    [
        (np.zeros((3, 2)), np.array([1.0, 2.0, -3.0]), 7.0),
        (np.ones((3, 2)), np.zeros((3, 2)), 0.0),
        (np.zeros((1, 1)), np.zeros((1, 1)), 0.0),
    ],
    ids=["X zero", "Y zero", "both zero"],
)
def test_nothing_to_fit(X, Y, optimum):
    result = train(X, Y, 0.1)
    check(result)
    assert result.upper_bound == optimum and result.network.width == 0
    np.testing.assert_allclose(result.lower_bound, optimum, rtol=1e-12)
    assert result.status == "solved" and "nothing to fit" in result.message
    assert "nothing to fit" in str(result)


def test_weight_decay_beyond_any_gain(rng):
    X, Y = random_data(rng)
    result = train(X, Y, 1e3, width=WIDTH)
    check(result)
    assert result.upper_bound == np.sum(Y**2) / 2 and result.network.width == 0
    assert result.relative_gap < 1e-6


def test_integers_and_vectors(rng):
    X, Y = rng.integers(-5, 5, (N, D)), rng.integers(-5, 5, N)
    result = train(X, Y, 0.1, width=WIDTH)
    check(result)
    same = train(X.astype(float), Y.astype(float)[:, None], 0.1, width=WIDTH)
    assert (result.lower_bound, result.upper_bound) == (same.lower_bound, same.upper_bound)


def test_the_same_call_gives_the_same_result(rng):
    X, Y = random_data(rng)
    samples, targets = X.copy(), Y.copy()
    one, two = (train(X, Y, 0.02, width=WIDTH, seed=3) for _ in range(2))
    for left, right in zip(jax.tree.leaves(one.network), jax.tree.leaves(two.network), strict=True):
        np.testing.assert_array_equal(left, right)
    assert one.lower_bound == two.lower_bound
    np.testing.assert_array_equal(X, samples)
    np.testing.assert_array_equal(Y, targets)


@pytest.mark.slow
def test_float32(rng):
    X, Y = (a.astype(np.float32) for a in random_data(rng))
    result = train(jnp.asarray(X), jnp.asarray(Y), 0.125, width=WIDTH)
    check(result)
    assert result.solution is not None and result.solution.moments.dtype == jnp.float32
    bracket = oracles.rank2_bracket(X, Y, 0.125)
    assert result.lower_bound <= bracket.upper and bracket.lower <= result.upper_bound
    assert result.relative_gap < 0.2


def test_print(rng):
    X, Y = random_data(rng)
    result = train(X, Y, 0.05, width=WIDTH)
    lines = dict(line.split(None, 2)[::2] for line in str(result).splitlines() if "bound" in line)
    assert lines["upper"].startswith(f"{result.upper_bound:.6f}")
    assert lines["lower"].startswith(f"{result.lower_bound:.6f}")
    assert f"2 inputs, {result.network.width} neurons, 1 outputs" in str(result)
    assert "4 directions of rank 2" in str(result)
    assert set(result.seconds) == {"prepare", *STAGES}


# ----------------------------------------------------------------------
# Ending early


def test_progress_tells_the_stages_and_bounds_that_only_improve(rng):
    X, Y = random_data(rng)
    reports: list[Progress] = []
    result = train(X, Y, 0.02, width=WIDTH, progress=reports.append)
    stages = [report.stage for report in reports]
    assert list(dict.fromkeys(stages)) == STAGES
    assert stages == sorted(stages, key=STAGES.index)
    for stage in STAGES:
        steps = [report.step for report in reports if report.stage == stage]
        assert steps == sorted(steps)
        assert all(0 <= r.step <= r.total for r in reports if r.stage == stage)
        last = [report for report in reports if report.stage == stage][-1]
        assert last.step == last.total
    lower, upper = [r.lower_bound for r in reports], [r.upper_bound for r in reports]
    assert lower == sorted(lower) and upper == sorted(upper, reverse=True)
    assert (lower[-1], upper[-1]) == (result.lower_bound, result.upper_bound)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("at", [1, 2])
def test_an_interrupt_in_any_stage_returns_both_bounds(rng, stage, at):
    X, Y = random_data(rng)
    reports = []

    def interrupt(report):
        reports.append(report.stage)
        if reports.count(stage) == at:
            raise KeyboardInterrupt

    result = train(X, Y, 0.02, width=WIDTH, progress=interrupt)
    check(result)
    if reports.count(stage) >= at:
        assert result.status == "interrupted" and "interrupted" in str(result)
        # No stage begins another round after it.
        assert reports.count(stage) <= at + 1
    bracket = oracles.rank2_bracket(X, Y, 0.02)
    assert result.lower_bound <= bracket.upper and bracket.lower <= result.upper_bound


def test_an_interrupt_before_the_first_chunk_ends(rng, monkeypatch):
    def advance(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("jaxcvxnn.training.race.advance", advance)
    result = train(*random_data(rng), 0.02, width=WIDTH)
    check(result)
    assert result.status == "interrupted" and result.solution is None


@pytest.mark.parametrize(
    ("place", "work"),
    [
        ("training.lifted_route", "certify_reduced"),
        ("training.lifted_route", "read_out"),
        ("programs.relaxation", "round_on_host"),
        ("improve.cycles", "grow"),
    ],
)
def test_an_interrupt_inside_the_work(rng, monkeypatch, place, work):
    module = sys.modules[f"jaxcvxnn.{place}"]
    original, calls = getattr(module, work), []

    def interrupted(*args, **options):
        calls.append(work)
        # The first certificate is made before the work begins.
        if len(calls) > (work == "certify_reduced"):
            raise KeyboardInterrupt
        return original(*args, **options)

    monkeypatch.setattr(module, work, interrupted)
    result = train(*random_data(rng), 0.02, width=WIDTH)
    check(result)
    assert result.status == "interrupted"


def test_other_errors_come_through(rng):
    def fail(report):
        raise RuntimeError("of the caller")

    with pytest.raises(RuntimeError, match="of the caller"):
        train(*random_data(rng), 0.02, width=WIDTH, progress=fail)


def test_no_time_at_all(rng):
    X, Y = random_data(rng)
    result = train(X, Y, 0.02, width=WIDTH, time_limit=1e-9)
    check(result)
    assert result.status == "time_limit" and "time_limit" in str(result)


def test_no_network_from_a_solve_that_fails(rng, monkeypatch):
    """A solution full of NaN: the bounds that need no solver are what is left."""
    module = sys.modules["jaxcvxnn.training.lifted_route"]
    original = module.read_out

    def spoiled(*args):
        return jax.tree.map(
            lambda leaf: leaf * jnp.nan if leaf.dtype.kind == "f" else leaf, original(*args)
        )

    monkeypatch.setattr(module, "read_out", spoiled)
    result = train(*random_data(rng), 0.02, width=WIDTH)
    check(result)
    assert result.upper_bound < np.sum(np.asarray(result.problem.Y) ** 2) / 2


def test_own_settings_are_followed(rng):
    X, Y = random_data(rng)
    settings = Splitting(penalty=100.0, max_steps=100, tolerance=1e-6, adapt_penalty=False)
    result = train(X, Y, 0.02, width=WIDTH, solver=settings, polish=False)
    check(result)
    assert result.solution is not None and int(result.solution.steps) == 100
    assert result.status in ("max_steps", "inaccurate")


@pytest.mark.parametrize("width", [0, -1, 1.5, "many", None, np.nan, np.inf, True], ids=repr)
def test_bad_widths(width):
    with pytest.raises(ValueError, match="width must be a positive integer; got"):
        train([[1.0]], [1.0], 0.1, width=width)


@pytest.mark.parametrize("limit", [0, -1.0, np.nan, "long"], ids=repr)
def test_bad_time_limits(limit):
    with pytest.raises(ValueError, match="time_limit must be positive seconds or None; got"):
        train([[1.0]], [1.0], 0.1, time_limit=limit)


def test_bad_program():
    with pytest.raises(ValueError, match="program must be .* got 'convex'"):
        jaxcvxnn.train([[1.0]], [1.0], 0.1, program="convex")


@pytest.mark.parametrize(
    ("X", "Y", "message"),
    [([[np.nan]], [1.0], "X must be finite"), ([[1.0]], [1.0, 2.0], r"Y has shape \(2, 1\)")],
)
def test_bad_data(X, Y, message):
    with pytest.raises(ValueError, match=message):
        train(X, Y, 0.1)


# ----------------------------------------------------------------------
# The precision of the process


@pytest.mark.slow
def test_the_flag_of_the_process_is_left_alone(tmp_path):
    code = """
import warnings
warnings.simplefilter("error")
import jax, numpy as np, jaxcvxnn
from jaxcone import Splitting
assert not jax.config.jax_enable_x64
seen = []
def progress(report):
    seen.append(report.lower_bound)
rng = np.random.default_rng(0)
X, Y = rng.standard_normal((2, 2)), rng.standard_normal((2, 1))
settings = Splitting(max_steps=50)
result = jaxcvxnn.train(X, Y, 0.01, width=3, polish=False, solver=settings, progress=progress)
assert not jax.config.jax_enable_x64
assert jax.numpy.ones(1).dtype == "float32"
assert result.network.U.dtype == "float64", result.network.U.dtype
assert result.solution.moments.dtype == "float64", result.solution.moments.dtype
hidden = np.maximum(X @ result.network.U, 0)
upper = np.sum((hidden @ result.network.V - Y) ** 2) / 2
upper += 0.005 * (np.sum(result.network.U**2) + np.sum(result.network.V**2))
assert abs(upper - result.upper_bound) <= 1e-12 * upper, (upper, result.upper_bound)
assert result.lower_bound <= result.upper_bound and seen
print(result)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "lower bound" in done.stdout


@pytest.mark.parametrize(
    "rank, loss, for_lifted, program",
    [
        (2, "squared", False, "columns"),
        (6, "squared", False, "columns"),
        (6, "squared", True, "lifted"),
        (7, "squared", False, "lifted"),
        (7, "logistic", False, "columns"),
    ],
)
def test_auto_chooses_the_program(rank, loss, for_lifted, program):
    given = jaxcvxnn.TrainingProblem(np.eye(8)[:, :rank], [1, -1] * 4, 0.05, loss=loss)
    assert choose_program("auto", given, for_lifted=for_lifted) == program
    assert choose_program("columns", given, for_lifted=for_lifted) == "columns"


@pytest.mark.parametrize("options", [{"polish": False}, {"solver": Splitting(max_steps=50)}])
def test_arguments_of_the_relaxation_ask_for_it(rng, options):
    result = jaxcvxnn.train(*random_data(rng), 0.05, width=WIDTH, time_limit=1e-6, **options)
    assert result.program == "lifted"


def test_the_relaxation_is_one_of_the_squared_loss():
    with pytest.raises(ValueError, match="squared"):
        train([[1.0], [2.0]], [1.0, -1.0], 0.1, loss="logistic")


def test_columns_respect_the_width(rng):
    X, Y = rng.standard_normal((12, 2)), rng.standard_normal((12, 2))
    result = jaxcvxnn.train(X, Y, 0.02, width=3)
    assert result.network.width <= 3
    assert result.lower_bound <= result.rounded_objective <= result.upper_bound


def test_columns_report_progress_and_keep_to_float32_data(rng):
    X, Y = rng.standard_normal((8, 2)), rng.standard_normal((8, 1))
    seen = []
    result = jaxcvxnn.train(X.astype("f4"), Y.astype("f4"), 0.0625, progress=seen.append)
    assert {report.stage for report in seen} == {"columns"}
    assert seen[-1].lower_bound == result.lower_bound
    assert result.relative_gap <= 1e-8
    assert "priced in closed form" in result.message
