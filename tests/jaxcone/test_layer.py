"""A program as a layer of a model; progress reports; solves from the host that start warm."""

import io
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxcone
from jaxcone import ConeLayer, ConeProgram, InteriorPoint, Nonnegative, Splitting, Status, Zero

module: Any = sys.modules["jaxcone.report"]  # `jaxcone.report` is the function of that name

SIZE = 5
ACCURATE = Splitting(tolerance=1e-10)


class OntoSimplex(eqx.Module):
    """argmin 1/2 |x - sharpness * point|^2 over x >= 0 with sum `total`; `sharpness` is trained."""

    sharpness: Any

    def __call__(self, point, total=1.0):
        n = point.shape[0]
        A = jnp.concatenate([jnp.ones((1, n)), -jnp.eye(n)])
        b = jnp.zeros(n + 1).at[0].set(total)
        return ConeProgram(jnp.eye(n), -self.sharpness * point, A, b, [Zero(1), Nonnegative(n)])


class Model(eqx.Module):
    weights: Any
    layer: ConeLayer

    def __call__(self, features):
        return self.layer(self.weights @ features)


@eqx.filter_jit
def value_and_gradient(model, features, targets):
    """The squared loss on a batch and its gradient, with the predictions."""

    def loss(model):
        predictions = jax.vmap(model)(features)
        return jnp.sum((predictions - targets) ** 2) / 2, predictions

    return eqx.filter_value_and_grad(loss, has_aux=True)(model)


def simplex_projection(point):
    """The projection by sorting, and its Jacobian: centring on the support."""
    ordered = np.sort(point)[::-1]
    excess = (np.cumsum(ordered) - 1) / np.arange(1, len(point) + 1)
    shift = excess[np.flatnonzero(ordered > excess)[-1]]
    projected = np.maximum(point - shift, 0)
    on = (projected > 0).astype(float)
    return projected, np.diag(on) - np.outer(on, on) / np.sum(on)


def model_and_data(rng):
    features, targets = rng.standard_normal((8, SIZE)), rng.dirichlet(np.ones(SIZE), 8)
    layer = ConeLayer(OntoSimplex(np.array(0.5)), ACCURATE)
    return Model(rng.standard_normal((SIZE, SIZE)), layer), features, targets


def test_values_and_gradients_are_those_of_the_closed_form(rng):
    model, features, targets = model_and_data(rng)
    (_, predictions), gradient = value_and_gradient(model, features, targets)
    of_weights, of_sharpness, supports = np.zeros((SIZE, SIZE)), 0.0, set()
    for found, x, target in zip(predictions, features, targets, strict=True):
        point = model.weights @ x
        projected, jacobian = simplex_projection(0.5 * point)
        np.testing.assert_allclose(found, projected, atol=1e-8)
        pulled = jacobian.T @ (projected - target)
        of_weights += 0.5 * np.outer(pulled, x)
        of_sharpness += pulled @ point
        supports.add(int(np.sum(projected > 0)))
    assert len(supports) > 1  # the lanes differ in what is active
    np.testing.assert_allclose(gradient.weights, of_weights, atol=1e-7)
    np.testing.assert_allclose(gradient.layer.build.sharpness, of_sharpness, atol=1e-7)
    assert gradient.layer.solver.max_steps is None  # settings are not trained


def test_a_model_with_a_layer_learns(rng):
    model, features, targets = model_and_data(rng)
    optimizer = optax.adam(0.1)
    state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))
    update = jax.jit(optimizer.update)
    losses, before = [], model.layer.build.sharpness
    for _ in range(30):
        (loss, _), gradient = value_and_gradient(model, features, targets)
        updates, state = update(gradient, state)
        model = eqx.apply_updates(model, updates)
        losses.append(float(loss))
    assert losses[-1] < losses[0] / 3
    assert abs(float(model.layer.build.sharpness - before)) > 0.1


def test_the_solution_of_a_layer_tells_lanes_without_one(rng):
    layer = ConeLayer(OntoSimplex(np.array(1.0)), ACCURATE)
    points = rng.standard_normal((2, SIZE))
    totals = np.array([1.0, -1.0])  # nothing nonnegative sums to -1
    found = eqx.filter_jit(eqx.filter_vmap(layer.solution))(points, totals)
    assert list(found.status == Status.solved) == [True, False]
    assert list(found.status == Status.primal_infeasible) == [False, True]
    np.testing.assert_allclose(found.x[0], simplex_projection(points[0])[0], atol=1e-8)
    assert np.all(np.isnan(found.x[1]))


def test_a_layer_takes_any_solver(rng):
    point = rng.standard_normal(SIZE)
    layer = ConeLayer(OntoSimplex(np.array(2.0)), InteriorPoint(tolerance=1e-11))
    projected, jacobian = simplex_projection(2 * point)
    found, x = jax.jacfwd(lambda p: (layer(p),) * 2, has_aux=True)(point)
    np.testing.assert_allclose(x, projected, atol=1e-9)
    np.testing.assert_allclose(found, 2 * jacobian, atol=1e-6)


# --- progress -------------------------------------------------------------------------------------


def solution_at(steps: int, status: Any = Status.running) -> Any:
    residuals = SimpleNamespace(primal_relative=2e-3, dual_relative=3e-4, gap_relative=4e-5)
    return SimpleNamespace(steps=np.int32(steps), status=status, residuals=residuals)


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


def reported(watch: Callable, clock, *, count: int, seconds: float) -> None:
    for index in range(1, count + 1):
        assert watch(solution_at(50 * index)) is None  # True would end the solve
        clock.seconds += seconds


@pytest.mark.parametrize(
    ("every", "steps"), [(1.0, [50, 250, 450]), (0.0, range(50, 600, 50)), (1e9, [50])], ids=str
)
def test_lines_are_at_most_one_per_interval(clock, every, steps):
    stream = io.StringIO()
    reported(jaxcone.report(every, stream), clock, count=11, seconds=0.25)
    assert [int(line.split()[0]) for line in stream.getvalue().splitlines()] == list(steps)


@pytest.mark.parametrize("status", [Status.solved, Status.max_steps, Status.primal_infeasible])
def test_the_last_state_is_always_reported(clock, status):
    stream = io.StringIO()
    watch = jaxcone.report(1e9, stream)
    reported(watch, clock, count=3, seconds=0.5)
    watch(solution_at(200, status))
    first, last = stream.getvalue().splitlines()
    assert first.split() == "50 steps primal 2.0e-03 dual 3.0e-04 gap 4.0e-05 0.0 s".split()
    assert last.split()[0] == "200" and last.endswith("1.5 s")


def test_the_report_goes_to_standard_error(capsys):
    jaxcone.report()(solution_at(50))
    captured = capsys.readouterr()
    assert captured.out == "" and "50 steps" in captured.err


@pytest.mark.parametrize("every", [float("nan"), -1.0])
def test_an_interval_that_is_none_is_refused(every):
    with pytest.raises(ValueError, match="every"):
        jaxcone.report(every)


# --- solves from the host -------------------------------------------------------------------------


def test_solve_in_chunks_reports_and_a_warm_start_saves_steps(rng):
    build = OntoSimplex(np.array(1.0))
    point = rng.standard_normal(SIZE)
    solver = Splitting(tolerance=1e-8, check_every=5, memory=0)
    stream = io.StringIO()
    cold = jaxcone.solve_in_chunks(
        build(point), solver, blocks_per_chunk=1, watch=jaxcone.report(0, stream=stream)
    )
    assert cold.solved
    lines = [int(line.split()[0]) for line in stream.getvalue().splitlines()]
    assert lines == list(range(5, int(cold.steps) + 1, 5))
    near = build(point + 1e-6)
    for start in (cold, (cold.s, cold.y)):
        warm = jaxcone.solve_in_chunks(near, solver, blocks_per_chunk=1, warm_start=start)
        assert warm.solved and int(warm.steps) < int(cold.steps) / 2
        np.testing.assert_allclose(warm.x, simplex_projection(point + 1e-6)[0], atol=1e-6)
    advanced = jaxcone.extend.advance(near, solver, warm_start=cold, blocks=int(warm.steps) // 5)
    np.testing.assert_array_equal(advanced.x, warm.x)
