"""Column generation: known optima, proofs, limits and interrupts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

import jaxcvxnn
from jaxcvxnn import Job, TrainingProblem, certify_residual
from jaxcvxnn.files.demo_data import random_trial
from jaxcvxnn.improve.output_layer import balanced_network, narrow
from jaxcvxnn.pricing.pricer import Pricer
from jaxcvxnn.problem import in_float64
from jaxcvxnn.training import generate_columns
from jaxcvxnn.training.columns import between_neighbours


def antipodal(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Samples +-e_i with orthogonal targets: no neuron sees both of a pair, so that all decouple and
    p* = sum_i wd |y_i| - wd^2 / 2."""
    return np.vstack([np.eye(size), -np.eye(size)]), np.diag(1.0 + np.arange(2 * size))


def antipodal_optimum(size: int, weight_decay: float) -> float:
    return float(np.sum(weight_decay * (1.0 + np.arange(2 * size)) - weight_decay**2 / 2))


def problem(X, Y, weight_decay=0.1, **options) -> TrainingProblem:
    return in_float64(TrainingProblem(X, Y, weight_decay, **options))


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_decoupled_samples(size):
    X, Y = antipodal(size)
    # All neurons have nearly one price, the worst case of branch and bound: a minute is its cap.
    tolerance = 1e-8 if size <= 2 else 1e-6
    found = generate_columns(problem(X, Y), tolerance=tolerance, job=Job(60.0))
    optimum = antipodal_optimum(size, 0.1)
    assert found.lower_bound <= optimum
    assert found.upper_bound >= optimum * (1 - 1e-14)
    assert found.status == "solved"
    assert found.relative_gap <= tolerance
    assert found.rank == size


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_one_sample_in_closed_form(rng, rank):
    x, y = rng.standard_normal((1, rank)), 2 + rng.random((1, 2))
    shrink = 0.3 / np.linalg.norm(x)
    optimum = shrink * np.linalg.norm(y) - shrink**2 / 2
    found = generate_columns(problem(x, y, 0.3))
    assert found.lower_bound <= optimum * (1 + 1e-15)
    np.testing.assert_allclose([found.lower_bound, found.upper_bound], optimum, rtol=1e-8)


def on_a_line(loss, X, Y, weight_decay):
    """p* for one feature and one output: a group lasso of the two neurons relu(x) and relu(-x)."""
    A = np.concatenate([np.maximum(X, 0), np.maximum(-X, 0)], axis=1)
    A = np.concatenate([A, -A], axis=1)

    def objective(weights):
        Z = (A @ weights)[:, None]
        with jax.enable_x64(True):
            value, gradient = loss.value(Z, Y), loss.gradient(Z, Y)
        slope = A.T @ np.asarray(gradient)[:, 0] + weight_decay
        return float(value) + weight_decay * weights.sum(), slope

    return minimize(
        objective,
        np.full(4, 0.1),
        jac=True,
        bounds=[(0, None)] * 4,
        method="L-BFGS-B",
        options={"ftol": 1e-15, "gtol": 1e-11},
    ).fun


@pytest.mark.parametrize("loss", ["squared", "logistic", "huber"])
def test_losses_on_a_line(rng, loss):
    X = rng.standard_normal((12, 1))
    Y = np.sign(X + 0.7 * rng.standard_normal((12, 1)))
    given = problem(X, Y, 0.3, loss=loss)
    found = generate_columns(given, tolerance=1e-8)
    optimum = on_a_line(given.loss, X, Y, 0.3)
    assert found.lower_bound <= optimum * (1 + 1e-12)
    np.testing.assert_allclose([found.lower_bound, found.upper_bound], optimum, rtol=3e-8)


@pytest.mark.parametrize("loss", ["logistic", "softmax"])
@pytest.mark.parametrize("rank", [2, 3])
def test_classification_closes_the_gap(rng, loss, rank):
    X = rng.standard_normal((14, rank))
    labels = (X[:, 0] + 0.5 * rng.standard_normal(14) > 0).astype(int)
    found = generate_columns(problem(X, labels, 0.2, loss=loss), tolerance=1e-6)
    assert found.status == "solved"
    assert 0 <= found.relative_gap <= 1e-6


@pytest.mark.parametrize("loss", ["hinge", "absolute"])
def test_losses_with_kinks(rng, loss):
    X = rng.standard_normal((14, 2))
    Y = np.sign(X[:, :1] + 0.5 * rng.standard_normal((14, 1)))
    found = generate_columns(problem(X, Y, 0.3, loss=loss), tolerance=1e-6)
    assert 0 <= found.relative_gap <= 1e-6


def test_the_upper_bound_is_the_objective_of_the_network(rng):
    given = problem(rng.standard_normal((10, 2)), rng.standard_normal((10, 3)), 0.05)
    found = generate_columns(given)
    hidden = np.maximum(given.X @ found.network.U, 0)
    squares = np.sum(found.network.U**2) + np.sum(found.network.V**2)
    objective = np.sum((hidden @ found.network.V - given.Y) ** 2) / 2 + 0.05 * squares / 2
    assert found.upper_bound == pytest.approx(objective, rel=1e-14)


def test_degenerate_samples(rng):
    X = rng.standard_normal((5, 2))
    X = np.vstack([X, 2 * X[0], -X[1], np.zeros(2), X[2] + 1e-12, X[3]])
    Y = rng.standard_normal((10, 2))
    found = generate_columns(problem(X, Y, 0.05), tolerance=1e-8)
    assert found.status == "solved"
    # What a zero sample adds cannot be helped.
    assert found.lower_bound > np.sum(Y[7] ** 2) / 2


def test_rotation_and_order_change_nothing(rng):
    X, Y = rng.standard_normal((9, 2)), rng.standard_normal((9, 2))
    turn = np.linalg.qr(rng.standard_normal((4, 4)))[0][:2]
    order = rng.permutation(9)
    one = generate_columns(problem(X, Y, 0.05), tolerance=1e-9)
    two = generate_columns(problem((X @ turn)[order], Y[order], 0.05), tolerance=1e-9)
    assert two.rank == 2
    np.testing.assert_allclose(one.upper_bound, two.upper_bound, rtol=3e-9)
    assert one.lower_bound <= two.upper_bound
    assert two.lower_bound <= one.upper_bound


def test_bias(rng):
    X, Y = rng.standard_normal((8, 1)), rng.standard_normal((8, 1))
    found = generate_columns(problem(X, Y, 0.1, bias=True), tolerance=1e-8)
    assert found.network.b is not None
    assert found.rank == 2
    assert found.relative_gap <= 1e-8


def test_weight_decay_beyond_any_gain(rng):
    X, Y = rng.standard_normal((6, 2)), rng.standard_normal((6, 1))
    found = generate_columns(problem(X, Y, 1e3))
    assert found.network.width == 0
    assert found.lower_bound == pytest.approx(np.sum(Y**2) / 2, rel=1e-14)


def test_a_start_keeps_its_neurons_and_never_makes_it_worse(rng):
    given = problem(rng.standard_normal((12, 2)), rng.standard_normal((12, 2)), 0.02)
    best = generate_columns(given, tolerance=1e-9)
    again = generate_columns(given, tolerance=1e-8, start=best.network)
    assert again.rounds <= 2
    assert again.upper_bound <= best.upper_bound


def test_bounds_only_improve(rng):
    given = problem(rng.standard_normal((12, 3)), rng.standard_normal((12, 2)), 0.05)
    seen = []
    job = Job(progress=lambda told: seen.append((told.lower_bound, told.upper_bound)))
    found = generate_columns(given, tolerance=1e-5, job=job)
    lower, upper = np.array(seen).T
    assert np.all(np.diff(lower) >= 0) and np.all(np.diff(upper) <= 0)
    np.testing.assert_array_equal(found.history[:, :2], np.array(seen))


def test_limits_return_a_valid_pair(rng):
    given = problem(rng.standard_normal((20, 4)), rng.standard_normal((20, 2)), 0.01)
    for limits in ({"job": Job(1e-6)}, {"max_rounds": 2}):
        found = generate_columns(given, **limits)
        assert found.status in ("time_limit", "max_rounds")
        assert 0 <= found.lower_bound <= found.upper_bound
        assert "more time" in found.describe()


def test_an_interrupt_returns_the_best_pair_so_far(rng):
    given = problem(rng.standard_normal((20, 2)), rng.standard_normal((20, 2)), 0.01)
    rounds = []

    def interrupt(told):
        rounds.append((told.lower_bound, told.upper_bound))
        raise KeyboardInterrupt

    found = generate_columns(given, job=Job(progress=interrupt))
    assert len(rounds) == 1
    assert found.status == "interrupted"
    assert (found.lower_bound, found.upper_bound) == rounds[-1]


def test_neurons_between_neighbours():
    """Next to a point on both sides, across the angle pi too: on the way from their average to it."""

    def unit(angles):
        return np.stack([np.cos(angles), np.sin(angles)], axis=-1)

    for start in (0.3, np.pi - 0.05, -0.05):
        first = unit(start + np.array([2.0, 0.0, 0.1]))
        point = unit(np.array([start + 0.05]))
        found = between_neighbours(point, first, np.array([[9.0, 0.0], [0.0, -3.0], [0.6, 0.8]]))
        # The weights 3 and 1: the average is a quarter of the way, nearly (the chord is no arc).
        angles = np.angle(np.exp(1j * (np.arctan2(found[:, 1], found[:, 0]) - start)))
        np.testing.assert_allclose(angles, 0.025 + 0.025 * np.array([1 / 8, 1 / 64]), atol=2e-5)


@pytest.mark.parametrize("weight_decay", [0.1, 0.01])
def test_few_rounds_at_rank_two(weight_decay):
    """Maxima of the price alone need up to 16, since they halve an arc in each."""
    for seed in range(3):
        found = generate_columns(problem(*random_trial(seed), weight_decay), tolerance=1e-8)
        assert found.status == "solved"
        assert 0 <= found.relative_gap <= 1e-8
        assert found.rounds <= 8


def test_the_kinks_of_a_price(rng):
    X = rng.standard_normal((9, 2)) @ rng.standard_normal((2, 4))
    pricer = Pricer(X)
    kinks = pricer.kinks(100)
    np.testing.assert_allclose(np.linalg.norm(kinks, axis=1), 1)
    on_ray = np.min(np.abs(kinks @ X.T), axis=1) <= 1e-12
    assert np.sum(on_ray) == 18  # both ends of each line; the others are those of the axes
    assert len(pricer.kinks(5)) <= 5
    assert len(Pricer(rng.standard_normal((9, 3))).kinks(100)) == 0
    np.testing.assert_array_equal(np.unique(Pricer(X[:, :1]).kinks(100)), [-1, 1])


def test_narrow_networks(rng):
    given = problem(rng.standard_normal((20, 2)), rng.standard_normal((20, 2)), 0.01)
    found = generate_columns(given)
    assert found.network.width > 5
    few = narrow(given, found.network, 5)
    assert few.width <= 5
    assert float(given.objective(few)) >= found.lower_bound


def test_balanced_network(rng):
    first, second = rng.standard_normal((4, 3)), rng.standard_normal((4, 2))
    first /= np.linalg.norm(first, axis=1)[:, None]
    second[1] = 0
    given = problem(rng.standard_normal((5, 3)), rng.standard_normal((5, 2)))
    network = balanced_network(given, first, second)
    assert network.width == 3
    np.testing.assert_allclose(np.linalg.norm(network.U, axis=0), np.linalg.norm(network.V, axis=1))
    X = rng.standard_normal((5, 3))
    np.testing.assert_allclose(network.predict(X), np.maximum(X @ first.T, 0) @ second, rtol=1e-12)


def test_any_residual_proves_a_bound(rng):
    X, Y = antipodal(2)
    given, optimum = problem(X, Y), antipodal_optimum(2, 0.1)
    for _ in range(20):
        residual = rng.standard_normal(Y.shape) * 10.0 ** rng.uniform(-3, 3)
        assert certify_residual(given, residual).lower_bound <= optimum
    exact = -0.1 * Y / np.linalg.norm(Y, axis=1)[:, None]
    bound = certify_residual(given, exact).lower_bound
    assert bound <= optimum
    assert bound >= optimum * (1 - 1e-11)


def test_float32_and_jax_arrays_are_taken_as_they_are(rng):
    X, Y = rng.standard_normal((6, 2)), rng.standard_normal((6, 1))
    given = TrainingProblem(jnp.asarray(X, jnp.float32), jnp.asarray(Y, jnp.float32), 0.0625)
    found = generate_columns(given)
    assert found.network.U.dtype == np.float64
    assert found.relative_gap <= 1e-8
    again = certify_residual(given, found.certificate.residual)
    assert again.lower_bound == found.lower_bound


@pytest.mark.parametrize(
    "residual, message",
    [
        (np.ones((3, 1)), "2 rows"),
        (np.ones((2, 2)), "the shape of Y"),
        (np.full((2, 1), np.inf), "finite"),
        (np.ones(2), "matrix"),
    ],
)
def test_bad_residuals(residual, message):
    with pytest.raises(ValueError, match=message):
        certify_residual(problem([[1.0], [2.0]], [1.0, 2.0]), residual)


@pytest.mark.slow
def test_other_losses_at_high_rank_start_from_descent(rng):
    X = rng.standard_normal((30, 8))
    labels = (X[:, 0] + X[:, 1] > 0).astype(int)
    found = jaxcvxnn.train(X, labels, 0.3, loss="logistic", time_limit=10)
    assert set(found.seconds) == {"prepare", "polish", "columns"}
    assert 0 <= found.lower_bound <= found.upper_bound
    # No better than nothing would be log 2 per sample.
    assert found.upper_bound < 0.8 * 30 * np.log(2)
