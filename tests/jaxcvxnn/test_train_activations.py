"""`train` and `certify` for other activations than ReLU."""

import sys

import jax
import numpy as np
import pytest
import scipy.optimize

from jaxcvxnn import (
    LeakyReLU,
    PolynomialNetwork,
    TrainingProblem,
    TwoLayerLeakyReLU,
    certify,
    load_network,
    path,
    save_network,
    train,
)
from jaxcvxnn.networks import two_layer


def descended(rng, problem, width):
    """The objective that L-BFGS reaches from random weights."""
    features, outputs = problem.features.shape[1], problem.Y.shape[1]

    def objective(weights):
        U, V = weights[: features * width], weights[features * width :]
        network = two_layer(
            U.reshape(features, width), V.reshape(width, outputs), activation=problem.activation
        )
        return problem.objective(network)

    start = rng.normal(size=(features + outputs) * width) / 2
    slope = jax.jit(jax.value_and_grad(objective))
    found = scipy.optimize.minimize(slope, start, jac=True, method="L-BFGS-B")
    return found.fun


@pytest.mark.parametrize("activation", ["absolute", LeakyReLU(0.2), LeakyReLU(-0.5)])
def test_leaky_units_to_the_global_optimum(rng, activation):
    X, Y = rng.normal(size=(20, 2)), rng.normal(size=(20, 2))
    result = train(X, Y, 0.3, activation=activation)
    assert isinstance(result.network, TwoLayerLeakyReLU)
    assert result.status == "solved"
    assert 0 <= result.relative_gap <= 1e-8
    objective = result.problem.objective(result.network)
    np.testing.assert_allclose(result.upper_bound, objective, rtol=1e-12)
    reached = min(descended(rng, result.problem, 12) for _ in range(4))
    assert reached >= result.lower_bound  # no tolerance: this is what is proven
    assert reached <= result.upper_bound * 1.05
    found = certify(result.network, X, Y, 0.3)
    assert 0 <= found.relative_gap <= 1e-6
    assert found.lower_bound <= reached


def test_a_unit_of_the_absolute_value_is_two_relus(rng):
    # |t| = relu(t) + relu(-t): a unit of the absolute value is two ReLUs of the same weights, so that
    # its optimum is no better than that of ReLU at half the weight decay.
    X, Y = rng.normal(size=(15, 2)), rng.normal(size=15)
    units = train(X, Y, 0.2, activation="absolute")
    doubled = train(X, Y, 0.1)
    assert doubled.lower_bound <= units.upper_bound


def test_a_slope_of_zero_is_relu(rng):
    X, Y = rng.normal(size=(15, 2)), rng.normal(size=15)
    plain, leaky = train(X, Y, 0.2), train(X, Y, 0.2, activation=LeakyReLU(0.0))
    assert plain.upper_bound == leaky.upper_bound and plain.lower_bound == leaky.lower_bound


def test_rank_three_by_branch_and_bound(rng):
    X = rng.normal(size=(10, 3))
    result = train(X, np.abs(X[:, 0]) - np.abs(X[:, 1]), 0.1, activation="absolute")
    assert 0 <= result.relative_gap <= 1e-5
    # Two units, the targets themselves.
    assert result.upper_bound <= 0.2


def test_points_of_a_path(rng):
    X, Y = rng.normal(size=(12, 2)), rng.normal(size=12)
    problem = TrainingProblem(X, Y, activation="absolute")
    found = path(problem, [0.1, 1.0])
    for point in found.points:
        alone = train(X, Y, point.weight_decay, activation="absolute")
        np.testing.assert_allclose(point.upper_bound, alone.upper_bound, rtol=1e-6)
        assert point.lower_bound <= alone.upper_bound


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_polynomials_at_any_rank(rng, tmp_path, loss):
    X = rng.normal(size=(40, 8))
    Y = X[:, 0] * X[:, 1]
    Y = (Y > 0).astype(float) if loss == "logistic" else Y
    seen = []
    result = train(X, Y, 0.2, activation="polynomial", loss=loss, bias=True, progress=seen.append)
    assert isinstance(result.network, PolynomialNetwork)
    assert (result.status, result.program) == ("solved", "spectrahedron")
    assert 0 <= result.relative_gap <= 1e-7
    assert result.network.width <= 2 * 10
    assert [event.stage for event in seen] == ["solve"] * len(seen)
    np.testing.assert_allclose(
        result.upper_bound, result.problem.objective(result.network), rtol=1e-12
    )
    # The network of fewer neurons is worse, and the bounds still hold.
    if loss == "squared":
        file = save_network(tmp_path / "network", result.network)
        network, _ = load_network(file)
        found = certify(network, X, Y, 0.2)
        assert found.lower_bound <= result.upper_bound and found.relative_gap <= 1e-6
        worse = PolynomialNetwork(
            network.U[:, :1], network.V[:1], network.b[:1], activation=network.activation
        )
        found = certify(worse, X, Y, 0.2)
        assert found.bound_source == "the exact program"
        assert found.lower_bound <= result.upper_bound < found.upper_bound
        np.testing.assert_allclose(found.lower_bound, result.lower_bound, rtol=1e-6)


def test_a_path_of_polynomials(rng):
    X = rng.normal(size=(40, 8))
    problem = TrainingProblem(X, X[:, 0] * X[:, 1], activation="polynomial", bias=True)
    decays, seen = [0.2, 20.0, 2.0], []
    found = path(problem, decays, progress=seen.append)
    assert found.statuses == ("solved",) * 3 and np.all(found.relative_gaps <= 1e-7)
    assert [event.stage for event in seen] == ["solve 20", "solve 2", "solve 0.2"]
    np.testing.assert_array_equal(found.weight_decays, decays)
    assert found[0].effective_width > found[1].effective_width
    for point in found:
        alone = train(X, problem.Y, point.weight_decay, activation="polynomial", bias=True)
        np.testing.assert_allclose(point.upper_bound, alone.upper_bound, rtol=2e-7)
        assert point.lower_bound <= alone.upper_bound and alone.lower_bound <= point.upper_bound
        proof = certify(point.network, X, problem.Y, point.weight_decay)
        np.testing.assert_allclose(proof.upper_bound, point.upper_bound, rtol=1e-12)
    # What is not reached in time has the others' networks and bounds, here the zero network's.
    late = path(problem, decays, time_limit=1e-9)
    assert set(late.statuses) == {"time_limit"}
    assert np.all(late.lower_bounds <= found.upper_bounds) and np.all(late.effective_widths == 0)
    np.testing.assert_allclose(late.upper_bounds, np.sum(problem.Y**2) / 2, rtol=1e-12)


def test_a_time_limit_leaves_a_valid_pair(rng):
    X, Y = rng.normal(size=(40, 8)), rng.normal(size=40)
    result = train(X, Y, 1e-4, activation="polynomial", bias=True, tolerance=1e-15, time_limit=1e-3)
    assert result.status == "time_limit"
    assert result.lower_bound <= result.upper_bound


@pytest.mark.parametrize("stage", ["narrowest", "best_proof"])
def test_an_interrupt_while_it_rounds_or_certifies_loses_nothing(rng, monkeypatch, stage):
    X, Y = rng.normal(size=(40, 8)), rng.normal(size=40)
    problem = TrainingProblem(X, Y, 0.1, activation="polynomial")
    undisturbed = train(X, Y, 0.1, activation="polynomial")
    module = sys.modules["jaxcvxnn.training.spectrahedron_route"]
    work, calls = getattr(module, stage), []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return work(*arguments)

    monkeypatch.setattr(module, stage, interrupted)
    found = train(X, Y, 0.1, activation="polynomial")
    assert (found.lower_bound, found.upper_bound) == (
        undisturbed.lower_bound,
        undisturbed.upper_bound,
    )
    (point,) = path(problem, [0.1])
    assert point.lower_bound <= point.upper_bound <= undisturbed.upper_bound * (1 + 1e-6)


def test_programs_and_activations_that_do_not_fit(rng):
    X, Y = rng.normal(size=(5, 2)), rng.normal(size=5)
    for options in (
        {"activation": "polynomial", "program": "columns"},
        {"activation": "absolute", "program": "spectrahedron"},
    ):
        with pytest.raises(ValueError, match="does not take the activation"):
            train(X, Y, **options)
    with pytest.raises(ValueError, match="ReLU only"):
        train(X, Y, activation="absolute", program="lifted")
