"""The gradient baseline finds known optima and reports its own losses truthfully."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvxnn import Polynomial, TrainingProblem
from jaxcvxnn.improve import spectrahedron_network, train_sgd
from jaxcvxnn.improve.gradient_descent import random_network
from jaxcvxnn.proof import certify_network

from ..polynomial_oracle import polynomial_program

# Rows of an antiparallel pair never share a neuron and the outputs are orthogonal, so the rows
# decouple: p* = sum_i wd |y_i| - wd^2 / 2.
X = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
Y = np.diag([1.0, 2, 3, 4])
OPTIMUM = 0.98


@pytest.mark.parametrize(
    ("optimizer", "schedule", "steps", "learning_rate"),
    [
        ("adam", "cosine", 3000, 0.02),
        ("adam", "constant", 6000, 0.003),
        ("sgd", "cosine", 8000, 0.1),
        ("sgd", "constant", 8000, 0.05),
    ],
)
def test_reaches_the_known_optimum(optimizer, schedule, steps, learning_rate):
    problem = TrainingProblem(X, Y, 0.1)
    network, losses, _ = train_sgd(
        problem,
        width=40,
        steps=steps,
        learning_rate=learning_rate,
        optimizer=optimizer,
        schedule=schedule,
    )
    final = float(problem.objective(network))
    assert OPTIMUM - 1e-12 <= final < OPTIMUM * 1.001
    assert final <= losses.min()


def test_losses_are_the_objective_at_the_recorded_steps(rng):
    problem = TrainingProblem(rng.standard_normal((6, 3)), rng.standard_normal((6, 2)), 0.05)
    _, losses, steps = train_sgd(problem, width=4, steps=25, record_every=10, seed=3)
    assert steps.tolist() == [0, 10, 20, 25] and losses.shape == (4,)
    start = random_network(jax.random.key(3), problem, 4)
    np.testing.assert_allclose(losses[0], problem.objective(start), rtol=1e-13)
    # A run recorded at each step passes through the same points.
    _, every, steps = train_sgd(problem, width=4, steps=25, record_every=1, seed=3)
    assert steps.tolist() == list(range(26))
    np.testing.assert_allclose(losses, every[np.array([0, 10, 20, 25])], rtol=1e-13)


def test_first_plain_step_follows_the_gradient(rng):
    problem = TrainingProblem(rng.standard_normal((5, 2)), rng.standard_normal((5, 1)), 0.1)
    start = random_network(jax.random.key(0), problem, 3)
    slope = jax.grad(problem.objective)(start)
    moved = jax.tree.map(lambda w, g: w - 1e-3 * g, start, slope)
    network, losses, _ = train_sgd(
        problem, width=3, steps=1, learning_rate=1e-3, optimizer="sgd", schedule="constant"
    )
    assert losses[1] < losses[0]
    np.testing.assert_allclose(network.U, moved.U, rtol=1e-13)
    np.testing.assert_allclose(network.V, moved.V, rtol=1e-13)


def test_best_network_is_kept_when_the_run_diverges(rng):
    problem = TrainingProblem(rng.standard_normal((8, 2)), rng.standard_normal((8, 2)), 0.1)
    network, losses, _ = train_sgd(
        problem, width=6, steps=300, learning_rate=5.0, optimizer="sgd", record_every=1
    )
    assert not np.isfinite(losses[-1])
    assert float(problem.objective(network)) == pytest.approx(np.nanmin(losses), rel=1e-13)


def test_polynomial_neurons_stay_unit_vectors(rng):
    X = rng.standard_normal((12, 3))
    phi = Polynomial(1, 0, 0)
    problem = TrainingProblem(X, X[:, 0] ** 2, 1e-2, bias=True, activation=phi)
    network, losses, _ = train_sgd(problem, width=4, steps=300, learning_rate=5e-2, record_every=1)
    lengths = np.linalg.norm(network.first_layer, axis=0)
    np.testing.assert_allclose(lengths, 1, rtol=1e-14)
    np.testing.assert_allclose(problem.objective(network), losses.min(), rtol=1e-12)
    # One neuron, the first feature squared, is worth 1e-2.
    assert losses.min() < 0.1 < 0.1 * losses[0]
    assert certify_network(problem, network).lower_bound <= losses.min()


def test_no_run_goes_below_the_certified_bound(rng):
    """Planted: three neurons, little weight decay, and runs from many starts."""
    X, phi = rng.standard_normal((30, 3)), Polynomial.relu()
    planted = rng.standard_normal((3, 3))
    planted /= np.linalg.norm(planted, axis=0)
    Y = phi(X @ planted) @ np.array([[5.0], [-4], [3]])
    problem = TrainingProblem(X, Y, 1e-2, activation=phi)
    positive, negative, _ = polynomial_program(X, Y, 1e-2, phi)
    optimal = certify_network(problem, spectrahedron_network(problem, positive, negative))
    assert optimal.relative_gap < 1e-6

    def run(seed):
        return train_sgd(problem, width=8, steps=1000, learning_rate=5e-2, seed=seed)[1]

    best = np.asarray(jax.vmap(run)(np.arange(6))).min(axis=1)
    assert np.all(best >= optimal.lower_bound)
    assert best.min() <= optimal.upper_bound * 1.1


@pytest.mark.parametrize(("bias", "length"), [(True, 10**0.5), (False, 3.0)])
def test_bias_is_trained_and_penalised(bias, length):
    # One example of feature length |x|: p* = wd y / |x| - (wd / |x|)^2 / 2. A bias makes it longer.
    problem = TrainingProblem([[3.0]], [[2.0]], 0.1, bias=bias)
    network, _, _ = train_sgd(problem, width=10, steps=4000)
    assert (network.b is not None) == bias
    optimum = 0.2 / length - 0.005 / length**2
    assert float(problem.objective(network)) == pytest.approx(optimum, rel=1e-3)


def test_precision_follows_the_problem():
    problem = TrainingProblem(X.astype(np.float32), Y.astype(np.float32), 0.1)
    network, losses, _ = train_sgd(problem, width=5, steps=3)
    assert network.U.dtype == network.V.dtype == losses.dtype == jnp.float32


def test_seeds_differ_repeat_and_batch():
    problem = TrainingProblem(X, Y, 0.1)
    run = lambda seed: train_sgd(problem, width=5, steps=20, seed=seed)[1]  # noqa: E731
    np.testing.assert_array_equal(run(1), run(1))
    assert run(1)[0] != run(2)[0]
    np.testing.assert_allclose(jax.vmap(run)(jnp.arange(3))[2], run(2), rtol=1e-12)


def test_start_has_the_stated_spread():
    problem = TrainingProblem(np.ones((1, 50)), np.ones((1, 40)), 0.1)
    network = random_network(jax.random.key(0), problem, 2000)
    assert np.std(network.U) == pytest.approx((2 / 50) ** 0.5, rel=0.02)
    assert np.std(network.V) == pytest.approx((1 / 2000) ** 0.5, rel=0.02)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"record_every": 0}, "record_every must be at least 1, got 0"),
        ({"optimizer": "lbfgs"}, "optimizer must be 'adam' or 'sgd', got 'lbfgs'"),
        ({"schedule": "linear"}, "schedule must be 'constant' or 'cosine', got 'linear'"),
    ],
)
def test_wrong_options(option, message):
    with pytest.raises(ValueError, match=message):
        train_sgd(TrainingProblem(X, Y, 0.1), **option)
