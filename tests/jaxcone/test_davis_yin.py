"""Davis-Yin splitting: its formula, known optima, and when it stops."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from jaxcone.extend import davis_yin, project_nonnegative, project_psd

from ..helpers import lane, stack


def to_nonnegative(point):
    return jax.tree.map(project_nonnegative, point)


def below(bound):
    return lambda point: jax.tree.map(lambda leaf: jnp.minimum(leaf, bound), point)


@functools.partial(jax.jit, static_argnames=("max_steps",))
def box_least_squares(A, b, start, bound, step, relaxation=1.0, tolerance=0.0, max_steps=1000):
    """min 1/2 ||A x - b||^2 over 0 <= x <= bound."""
    return davis_yin(
        to_nonnegative,
        below(bound),
        lambda x: A.T @ (A @ x - b),
        start,
        step=step,
        max_steps=max_steps,
        tolerance=tolerance,
        relaxation=relaxation,
    )


def drawn(rng, rows=8, size=4):
    A = rng.standard_normal((rows, size))
    return A, A @ rng.uniform(-1, 1.5, size) + 0.1 * rng.standard_normal(rows)


def stepsize(A):
    return float(1 / np.linalg.norm(A, 2) ** 2)


@pytest.mark.parametrize("relaxation", [1.0, 0.5, 1.2])
@pytest.mark.parametrize("bound", [0.4, 1e6], ids=["box", "nonnegative"])
def test_least_squares_on_a_box(rng, bound, relaxation):
    A, b = drawn(rng)
    found = box_least_squares(
        A, b, jnp.zeros(4), bound, stepsize(A), relaxation, 1e-14, max_steps=20_000
    )
    wanted = scipy.optimize.lsq_linear(A, b, (0, bound), method="bvls", tol=1e-14).x
    np.testing.assert_allclose(found.x, wanted, atol=1e-9)
    np.testing.assert_allclose(found.w, wanted, atol=1e-9)
    x, gradient = np.asarray(found.x), A.T @ (A @ np.asarray(found.x) - b)
    np.testing.assert_allclose(x, np.clip(x - gradient, 0, bound), atol=1e-9)  # KKT
    if bound == 1e6:
        np.testing.assert_allclose(found.x, scipy.optimize.nnls(A, b)[0], atol=1e-9)
    assert float(found.residual) <= 1e-14 and int(found.steps) < 20_000


def test_projection_onto_an_intersection():
    # The nearest correlation matrix to T, as one Lagrange multiplier d for the diagonal shows:
    # X = project_psd(T + diag(d)) with diag(X) = 1 is optimal (Higham, 2002, theorem 2.4).
    T = jnp.array([[2.0, 2, -1], [2, 1, 2], [-1, 2, 1]])
    found = jax.jit(
        lambda start: davis_yin(
            project_psd,
            lambda matrix: matrix.at[jnp.diag_indices(3)].set(1.0),
            lambda x: x - T,
            start,
            step=1.0,
            max_steps=5000,
            tolerance=1e-13,
        )
    )(T)
    assert float(found.residual) <= 1e-13
    x = np.asarray(found.x)
    np.testing.assert_allclose(x.diagonal(), 1, atol=1e-11)
    assert np.linalg.eigvalsh(x)[0] >= -1e-14
    # z - x is the normal of the PSD cone at x, and T - x - (z - x) that of the diagonals.
    normal = np.asarray(found.z) - x
    remainder = np.asarray(T) - x + (x - np.asarray(found.z))
    assert np.linalg.eigvalsh(normal)[-1] <= 1e-12 and abs(np.sum(normal * x)) <= 1e-10
    np.testing.assert_allclose(remainder - np.diag(remainder.diagonal()), 0, atol=1e-10)


def test_two_steps_by_hand():
    # f: x >= 0, g: w <= 1, h = 1/2 |x - 3|^2, step 1/2, relaxation 2.
    # z = (-1, 2): x = (0, 2), gradient (-3, -1), 2 x - z - gradient / 2 = (2.5, 2.5), w = (1, 1),
    #   z <- z + 2 (w - x) = (1, 0).
    # z = (1, 0): x = (1, 0), gradient (-2, -3), 2 x - z - gradient / 2 = (2, 1.5), w = (1, 1),
    #   z <- (1, 2); there x = (1, 2), gradient (-2, -1), w = min((2, 2.5), 1) = (1, 1).
    def run(steps):
        start = {"a": jnp.array(-1.0), "b": [jnp.array(2.0)]}
        return davis_yin(
            to_nonnegative,
            below(1.0),
            lambda point: jax.tree.map(lambda leaf: leaf - 3, point),
            start,
            step=0.5,
            max_steps=steps,
            relaxation=2.0,
        )

    def point(a, b):
        return {"a": jnp.array(a), "b": [jnp.array(b)]}

    once, twice = run(1), run(2)
    chex.assert_trees_all_equal(
        (once.z, once.x, once.w), (point(1.0, 0.0),) * 2 + (point(1.0, 1.0),)
    )
    chex.assert_trees_all_equal(
        (twice.z, twice.x, twice.w), (point(1.0, 2.0), point(1.0, 2.0), point(1.0, 1.0))
    )
    assert (int(once.steps), int(twice.steps)) == (1, 2)
    np.testing.assert_allclose(once.residual, 1 / (1 + 1))  # |w - x| / (1 + |x|)
    np.testing.assert_allclose(twice.residual, 1 / (1 + np.sqrt(5)))


def test_no_steps_evaluate_the_start(rng):
    A, b = drawn(rng)
    found = box_least_squares(A, b, -jnp.ones(4), 1.0, stepsize(A), max_steps=0)
    np.testing.assert_array_equal(found.z, -np.ones(4))
    np.testing.assert_array_equal(found.x, np.zeros(4))
    assert int(found.steps) == 0


def test_tolerance_stops_early_and_the_residual_is_that_of_the_returned_points(rng):
    A, b = drawn(rng)
    steps = []
    for tolerance in (1e-2, 1e-6, 1e-10):
        found = box_least_squares(A, b, jnp.zeros(4), 0.4, stepsize(A), 1.0, tolerance)
        x, w = np.asarray(found.x), np.asarray(found.w)
        np.testing.assert_allclose(
            found.residual, np.linalg.norm(w - x) / (1 + np.linalg.norm(x)), rtol=1e-12
        )
        assert float(found.residual) <= tolerance
        steps.append(int(found.steps))
    assert steps == sorted(set(steps)) and steps[-1] < 1000
    assert int(box_least_squares(A, b, jnp.zeros(4), 0.4, stepsize(A), max_steps=7).steps) == 7


@pytest.mark.parametrize("prox", ["minimum", "project_nonnegative"])
def test_nan_stops_the_iteration_and_shows(prox):
    # Neither side may report a small residual for a problem with a NaN in it.
    proxes = below(1.0), to_nonnegative
    f, g = proxes if prox == "project_nonnegative" else proxes[::-1]
    found = davis_yin(
        f, g, lambda x: x - jnp.array([jnp.nan, 2.0]), jnp.zeros(2), step=0.5, max_steps=100
    )
    assert np.isnan(found.residual)
    assert int(found.steps) <= 2


def test_batch_is_a_loop(rng):
    problems = [drawn(rng) for _ in range(3)]
    problems[1] = (problems[1][0], problems[1][1] * np.nan)
    lanes = [
        (jnp.asarray(A), jnp.asarray(b), jnp.zeros(4), 0.4, stepsize(A), 1.0, tolerance)
        for (A, b), tolerance in zip(problems, (1e-3, 1e-8, 1e-10), strict=True)
    ]
    lanes = [tuple(map(jnp.asarray, one)) for one in lanes]
    together = jax.vmap(functools.partial(box_least_squares, max_steps=1000))(*stack(*lanes))
    for k in (0, 2):
        alone = box_least_squares(*lanes[k], max_steps=1000)
        assert int(together.steps[k]) == int(alone.steps) < 1000
        chex.assert_trees_all_close(lane(together, k), alone, atol=1e-12)
    assert np.isnan(together.residual[1]) and int(together.steps[1]) <= 2


def test_float32_stays_float32(rng):
    A, b = (jnp.asarray(a, jnp.float32) for a in drawn(rng))
    found = davis_yin(
        to_nonnegative,
        below(0.4),
        lambda x: A.T @ (A @ x - b),
        jnp.zeros(4, jnp.float32),
        step=stepsize(A),
        tolerance=1e-5,
    )
    assert found.x.dtype == found.residual.dtype == jnp.float32
    wanted = scipy.optimize.lsq_linear(np.asarray(A, float), np.asarray(b, float), (0, 0.4)).x
    np.testing.assert_allclose(found.x, wanted, atol=1e-3)
