"""Growing and polishing: never worse than the start, and optimal where the optimum is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvxnn import Job, TrainingProblem, TwoLayerReLU
from jaxcvxnn.improve import merge, polish
from jaxcvxnn.improve.insertion import best_directions, fit_strengths, grow
from jaxcvxnn.improve.polish import SCHEDULE

from .. import oracles

# One shape for nearly all tests: each new one is compiled afresh.
N, D, C, WIDTH = 4, 2, 1, 8
KEY = jax.random.key(0)


def nothing():
    return TwoLayerReLU(np.zeros((D, 0)), np.zeros((0, C)))


def random_network(rng, width=WIDTH):
    return TwoLayerReLU(rng.standard_normal((D, width)), rng.standard_normal((width, C)))


def random_problem(rng, weight_decay=0.1):
    return TrainingProblem(
        rng.standard_normal((N, D)), 2 * rng.standard_normal((N, C)), weight_decay
    )


def one_sample(x, y, weight_decay):
    """One sample and N - 1 that no network sees: the shape stays, and p* has a closed form."""
    X, Y = np.zeros((N, D)), np.zeros((N, C))
    X[0], Y[0] = x, y
    length = np.linalg.norm(x)
    # min over s >= 0 of 1/2 (s - |y|)^2 + weight_decay s / |x|, s = |f(x)|
    s = max(abs(y) - weight_decay / length, 0.0)
    optimum = (s - abs(y)) ** 2 / 2 + weight_decay * s / length
    return TrainingProblem(X, Y, weight_decay), optimum


CLOSED = [((3.0, 4.0), 2.0, 0.1), ((0.3, -0.4), -2.0, 0.1), ((1.0, 0.0), 0.5, 0.7)]


@pytest.mark.parametrize(("x", "y", "weight_decay"), CLOSED)
def test_grow_reaches_the_optimum_of_one_sample(x, y, weight_decay):
    problem, optimum = one_sample(x, y, weight_decay)
    network = grow(problem, nothing(), KEY, width=WIDTH)
    reached = float(problem.objective(network))
    assert reached >= optimum * (1 - 1e-14)
    np.testing.assert_allclose(reached, optimum, rtol=1e-4)


@pytest.mark.parametrize(("x", "y", "weight_decay"), CLOSED)
def test_polish_reaches_the_optimum_of_one_sample(x, y, weight_decay, rng):
    problem, optimum = one_sample(x, y, weight_decay)
    network = polish(problem, random_network(rng))
    reached = float(problem.objective(network))
    assert reached >= optimum * (1 - 1e-14)
    np.testing.assert_allclose(reached, optimum, rtol=1e-6)


@pytest.mark.slow
def test_growing_and_polishing_reach_the_optimum_of_rank_two(rng):
    problem = random_problem(rng)
    bracket = oracles.rank2_bracket(problem.X, problem.Y, 0.1)
    network = grow(problem, nothing(), KEY, width=WIDTH)
    grown = float(problem.objective(network))
    reached = float(problem.objective(polish(problem, network)))
    assert bracket.lower <= reached <= grown
    np.testing.assert_allclose(reached, bracket.upper, rtol=1e-3)


@pytest.mark.parametrize("seed", range(6))
def test_neither_is_ever_worse_than_its_start(seed):
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, weight_decay=10.0 ** rng.uniform(-3, 1))
    start = random_network(rng)
    before = float(problem.objective(start))
    for better in (polish(problem, start), grow(problem, start, KEY, width=WIDTH)):
        after = float(problem.objective(better))
        assert after <= before
        # From its own result a second time: a converged start may not lose its last digits, but the
        # very last, as two compilations of the objective round differently.
        for again in (polish(problem, better), grow(problem, better, KEY, width=WIDTH)):
            assert float(problem.objective(again)) <= after * (1 + 1e-15)


def test_polish_returns_balanced_weights(rng):
    network = polish(random_problem(rng), random_network(rng))
    first = np.linalg.norm(network.first_layer, axis=0)
    np.testing.assert_allclose(first, np.linalg.norm(network.V, axis=1), rtol=1e-12, atol=1e-14)


def test_polish_runs_its_schedule(rng):
    seen = []
    polish(random_problem(rng), random_network(rng), watch=lambda *args: seen.append(args))
    values, steps, total = zip(*[args[1:] for args in seen], strict=True)
    assert set(total) == {sum(steps for _, steps in SCHEDULE)}
    assert list(steps) == sorted(set(steps)) and steps[-1] <= total[0]
    assert list(values) == sorted(values, reverse=True)
    # Adam is never cut short.
    adam = [step for step in steps if 500 < step <= 20_500]
    assert len(adam) == 10


def test_watch_sees_the_objective_of_its_network(rng):
    problem = random_problem(rng)

    def check(network, value, *_):
        np.testing.assert_allclose(value, float(problem.objective(network)), rtol=1e-14)

    polish(problem, random_network(rng), watch=check)
    grow(problem, random_network(rng), KEY, width=WIDTH, watch=check)


@pytest.mark.parametrize("work", ["polish", "grow"])
def test_a_job_ends_the_work(rng, work):
    problem, start, job = random_problem(rng), random_network(rng), Job()
    calls = []

    def once(network, value, *_):
        calls.append(value)
        job.interrupt()

    better = run(work, problem, start, job=job, watch=once)
    assert len(calls) == 1
    assert float(problem.objective(better)) == calls[0] <= float(problem.objective(start))


def run(work, problem, start, **options):
    if work == "polish":
        return polish(problem, start, **options)
    return grow(problem, start, KEY, width=WIDTH, **options)


@pytest.mark.parametrize("work", ["polish", "grow"])
def test_an_interrupt_returns_the_best_so_far(rng, work):
    problem, start = random_problem(rng, 0.02), random_network(rng)
    seen = []

    def interrupt(network, value, *_):
        seen.append(value)
        if len(seen) == 2:
            raise KeyboardInterrupt

    better = run(work, problem, start, watch=interrupt)
    assert len(seen) == 2
    assert float(problem.objective(better)) == seen[-1] <= float(problem.objective(start))


def test_refit_solves_the_group_lasso(rng):
    """With the directions fixed: price = wd on live neurons, <= wd on dead ones."""
    problem = random_problem(rng, 0.3)
    U = rng.standard_normal((D, WIDTH))
    U /= np.linalg.norm(U, axis=0)
    network = fit_strengths(problem, U, np.full(WIDTH, 0.5))
    residual = np.asarray(network.predict(problem.X)) - problem.Y
    prices = np.linalg.norm(residual.T @ np.maximum(problem.X @ U, 0), axis=0)
    strength = np.linalg.norm(network.U, axis=0) * np.linalg.norm(network.V, axis=1)
    live = strength > 1e-3 * strength.max()
    assert live.any() and np.all(prices <= 0.3 * (1 + 1e-3))
    np.testing.assert_allclose(prices[live], 0.3, rtol=1e-3)
    # The directions stayed, the layers are level, and each v_j opposes its gradient.
    np.testing.assert_allclose(network.U[:, live], U[:, live] * np.sqrt(strength[live]), rtol=1e-9)
    gradient = residual.T @ np.maximum(problem.X @ np.asarray(network.U)[:, live], 0)
    assert np.all(gradient * np.asarray(network.V)[live].T < 0)


def test_refit_of_no_strength_is_the_zero_network(rng):
    network = fit_strengths(random_problem(rng), rng.standard_normal((D, WIDTH)), np.zeros(WIDTH))
    np.testing.assert_array_equal(network.V, 0)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(network))


def test_best_directions_are_sorted_prices_of_unit_directions(rng):
    problem = random_problem(rng)
    start = TwoLayerReLU(np.zeros((D, WIDTH)), np.zeros((WIDTH, C)))
    u, prices = (np.asarray(a) for a in best_directions(problem, start, KEY))
    np.testing.assert_allclose(np.linalg.norm(u, axis=0), 1, rtol=1e-12)
    assert list(prices) == sorted(prices, reverse=True)
    own = np.linalg.norm(problem.Y.T @ np.maximum(problem.X @ u, 0), axis=0)
    kept = prices > 0
    np.testing.assert_allclose(prices[kept], own[kept], rtol=1e-12)
    # The heuristic finds the true maximum in the plane, and prices nothing above it.
    sigma = oracles.sigma_rank2(-problem.Y, problem.X)
    assert sigma * (1 - 1e-3) <= prices[0] <= sigma * (1 + 1e-12)


def test_grow_ends_where_nothing_pays(rng):
    problem = random_problem(rng, weight_decay=1e3)
    calls = []
    network = grow(problem, nothing(), KEY, width=WIDTH, watch=lambda *args: calls.append(args))
    assert network.width == 0 and calls == []


def test_grow_keeps_to_its_width(rng):
    problem = random_problem(rng, 0.01)
    network = grow(problem, nothing(), KEY, width=3, rounds=3)
    assert network.width <= 3
    assert float(problem.objective(network)) < float(problem.objective(nothing()))


def test_grow_accepts_a_start_wider_than_its_width(rng):
    problem, start = random_problem(rng, 0.01), random_network(rng, width=WIDTH)
    network = grow(problem, start, KEY, width=3, rounds=2)
    assert float(problem.objective(network)) <= float(problem.objective(start))


def test_polish_of_no_neurons():
    problem, _ = one_sample((1.0, 2.0), 3.0, 0.1)
    network = polish(problem, nothing())
    assert network.width == 0
    assert float(problem.objective(network)) == 4.5


def test_dead_neurons_do_no_harm(rng):
    # All weights zero: no gradient, no scale for Adam's step.
    problem = random_problem(rng)
    network = polish(problem, TwoLayerReLU(np.zeros((D, WIDTH)), np.zeros((WIDTH, C))))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(network))
    assert float(problem.objective(network)) == float(problem.objective(nothing()))


@pytest.mark.slow
def test_without_64_bits(rng):
    """float64 data on a JAX that computes in float32, as a user has it by default."""
    problem, start = random_problem(rng), random_network(rng)
    with jax.enable_x64(False):
        before = float(problem.objective(start))
        better = polish(problem, start)
        assert better.U.dtype == jnp.float32
        assert float(problem.objective(better)) <= before


# ----------------------------------------------------------------------
# Merging


@pytest.mark.parametrize("bias", [False, True])
def test_merge_makes_parallel_neurons_one(rng, bias):
    U, V, b = rng.standard_normal((D, 3)), rng.standard_normal((3, 2)), rng.standard_normal(3)
    scale = np.array([1, 2, 1, 0.5, 3])
    copies = [0, 1, 0, 2, 0]
    network = TwoLayerReLU(
        U[:, copies] * scale, V[copies] * scale[::-1, None], b[copies] * scale if bias else None
    )
    merged = merge(network)
    assert merged.width == 3 and (merged.b is not None) == bias
    X = rng.standard_normal((20, D))
    np.testing.assert_allclose(merged.predict(X), network.predict(X), rtol=1e-12, atol=1e-12)
    assert float(merged.squared_norm) < float(network.squared_norm)
    first, second = np.asarray(merged.first_layer), np.asarray(merged.V)
    lengths = np.linalg.norm(first, axis=0)
    np.testing.assert_allclose(lengths, np.linalg.norm(second, axis=1), rtol=1e-12)


def test_merge_never_adds_weight_and_errs_by_the_angle_squared(rng):
    u, v = rng.standard_normal(D), rng.standard_normal(C)
    X = rng.standard_normal((50, D))
    X = X[np.abs(X @ u) > 0.1 * np.linalg.norm(u)]  # the pattern is shared
    errors = []
    for angle in (1e-2, 1e-3):
        tilt = angle * rng.standard_normal((D, 4))
        network = TwoLayerReLU(u[:, None] + tilt, v + angle * rng.standard_normal((4, C)))
        merged = merge(network, tolerance=1e-2)
        assert merged.width == 1
        assert float(merged.squared_norm) <= float(network.squared_norm)
        errors.append(np.max(np.abs(merged.predict(X) - network.predict(X))))
    assert errors[0] < 1e-2 and errors[1] < 1e-4


def test_merge_takes_neurons_whose_squares_underflow():
    network = TwoLayerReLU(np.full((1, 2), 1e-150), np.array([[3e-50], [1e-50]]))
    merged, X = merge(network), np.array([[1e180]])
    assert merged.width == 1
    np.testing.assert_allclose(merged.predict(X), network.predict(X), rtol=1e-12)


def test_merge_keeps_what_differs_in_one_layer_only():
    opposite = TwoLayerReLU(np.ones((D, 2)), np.array([[1.0], [-1.0]]))
    assert merge(opposite).width == 2
    turned = TwoLayerReLU(np.eye(2), np.ones((2, 1)))
    assert merge(turned).width == 2
    assert merge(turned, tolerance=0.0).width == 2
    dead = TwoLayerReLU(np.zeros((D, 2)), np.ones((2, C)))
    assert merge(dead).width == merge(nothing()).width == 0
