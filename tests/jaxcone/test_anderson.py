"""Anderson acceleration: gains on linear maps, agrees with least squares, survives bad points."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcone.methods import anderson

from ..helpers import lane, stack

SIZE = 6


@jax.jit
def accelerate(state, point, image, regularization=0.0, growth=1e9):
    return anderson.accelerate(state, point, image, regularization=regularization, growth=growth)


class LinearMap:
    """u -> M u + shift, with M symmetric of the given spectral radius, or any M."""

    def __init__(self, rng, size, radius=0.9, *, normal=True):
        matrix = rng.standard_normal((size, size))
        matrix = matrix @ matrix.T if normal else matrix
        self.matrix = radius * matrix / np.max(np.abs(np.linalg.eigvals(matrix)))
        self.shift = rng.standard_normal(size)
        self.fixed = np.linalg.solve(np.eye(size) - self.matrix, self.shift)

    def __call__(self, point):
        return self.matrix @ np.asarray(point) + self.shift


def run(apply, start, memory, steps, state=None, **settings):
    """All points of the accelerated iteration, and its last state."""
    point, points = jnp.asarray(start), []
    state = anderson.start(point, memory) if state is None else state
    for _ in range(steps):
        image = jnp.asarray(apply(point), point.dtype)
        point, state = accelerate(state, point, image, **settings)
        points.append(np.asarray(point))
    return np.array(points), state


def reference(apply, start, memory, steps):
    """Type II (Walker and Ni, 2011, eq. 2.2) by least squares on the differences kept."""
    point, images, residuals, points = np.asarray(start), [], [], []
    for _ in range(steps):
        image = apply(point)
        images = [*images[-memory:], image]
        residuals = [*residuals[-memory:], image - point]
        point = image
        if len(images) > 1:
            weights = np.linalg.lstsq(np.diff(residuals, axis=0).T, residuals[-1], rcond=None)[0]
            point = image - weights @ np.diff(images, axis=0)
        points.append(point)
    return np.array(points)


def test_gains_orders_of_magnitude_on_a_slow_contraction(rng):
    apply = LinearMap(rng, 30, radius=0.999)
    plain = np.zeros(30)
    for _ in range(60):
        plain = apply(plain)
    points, _ = run(apply, np.zeros(30), 10, 60, regularization=1e-10, growth=2.0)
    distance = np.linalg.norm(points[-1] - apply.fixed)
    assert distance < 1e-4 * np.linalg.norm(plain - apply.fixed)


@pytest.mark.parametrize("memory", [4, 7])
@pytest.mark.parametrize("normal", [True, False])
def test_exact_once_the_memory_spans_the_space(rng, memory, normal):
    # Also where the plain iteration diverges: the radius is above one.
    apply = LinearMap(rng, 4, radius=1.3, normal=normal)
    points, _ = run(apply, np.zeros(4), memory, 5)
    assert np.linalg.norm(points[-1] - apply.fixed) < 1e-7 * np.linalg.norm(apply.fixed)
    assert np.linalg.norm(points[-2] - apply.fixed) > 1e-3 * np.linalg.norm(apply.fixed)


@pytest.mark.parametrize(("memory", "steps"), [(8, 6), (3, 12), (1, 12), (2, 3)])
def test_every_point_is_that_of_least_squares(rng, memory, steps):
    # (8, 6): slots that were never written; (3, 12), (1, 12): the buffer is written over many times.
    apply = LinearMap(rng, SIZE)
    start = rng.standard_normal(SIZE)
    points, state = run(apply, start, memory, steps)
    wanted = reference(apply, start, memory, steps)
    np.testing.assert_allclose(points, wanted, rtol=1e-5, atol=1e-6)
    assert int(state.filled) == steps - 1 and int(state.rejected) == 0


def test_restart_forgets_all_but_the_count(rng):
    apply = LinearMap(rng, SIZE)
    points, state = run(apply, np.zeros(SIZE), 3, 5)
    _, state = accelerate(state, points[-1], jnp.full(SIZE, jnp.nan))  # one rejection
    again, after_restart = run(apply, points[-1], 3, 7, anderson.restart(state))
    fresh, after_start = run(apply, points[-1], 3, 7)
    np.testing.assert_array_equal(again, fresh)
    assert int(after_restart.rejected) == 1 and int(after_start.rejected) == 0
    np.testing.assert_array_equal(again[0], apply(points[-1]))


BAD = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf, "far": 1e6}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize("steps", [1, 2, 9], ids="after {} steps".format)
def test_a_bad_point_is_thrown_away(rng, bad, steps):
    apply = LinearMap(rng, SIZE)
    points, state = run(apply, np.ones(SIZE), 3, steps, growth=2.0)
    spoiled = jnp.asarray(apply(points[-1])).at[2].set(bad)
    back, rejected = accelerate(state, jnp.asarray(points[-1]), spoiled, growth=2.0)
    accepted = apply(points[-2] if steps > 1 else np.ones(SIZE))
    np.testing.assert_allclose(back, accepted, rtol=1e-12)  # the last accepted image
    assert int(rejected.rejected) == 1 and int(rejected.filled) == 0
    # Nothing of what was forgotten shows up later: the same as a start from there.
    later, state = run(apply, back, 3, 8, rejected)
    np.testing.assert_allclose(later, reference(apply, back, 3, 8), rtol=1e-5, atol=1e-6)
    assert int(state.rejected) == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_first_image_leaves_the_start(bad):
    start = jnp.arange(3.0)
    image = jnp.zeros(3).at[0].set(bad)
    back, state = accelerate(anderson.start(start, 2), start, image)
    np.testing.assert_array_equal(back, start)
    assert int(state.rejected) == 1


@pytest.mark.parametrize("growth", [1.5, 3.0])
def test_growth_is_measured_against_the_last_accepted_residual(growth):
    start = jnp.zeros(2)
    first = jnp.array([3.0, 4.0])  # residual 5
    point, state = accelerate(anderson.start(start, 2), start, first, growth=growth)
    np.testing.assert_array_equal(point, first)
    for ratio, accepted in ((0.999 * growth, True), (1.001 * growth, False)):
        image = point + ratio * jnp.array([0.0, 5.0])
        _, after = accelerate(state, point, image, growth=growth)
        assert int(after.rejected) == (0 if accepted else 1)


def test_a_fixed_point_stays_where_it_is():
    # All differences are zero and the Gram matrix is singular, with and without a ridge.
    for regularization in (0.0, 1e-10):
        points, state = run(lambda u: u, np.arange(4.0), 3, 6, regularization=regularization)
        np.testing.assert_array_equal(points, np.tile(np.arange(4.0), (6, 1)))
        assert int(state.rejected) == 0


def test_an_exactly_linear_map_can_go_on_after_convergence(rng):
    apply = LinearMap(rng, 2, radius=0.5)
    points, _ = run(apply, np.zeros(2), 5, 40, regularization=1e-10, growth=2.0)
    np.testing.assert_allclose(points[-1], apply.fixed, rtol=1e-12)


def test_batch_is_a_loop_and_a_bad_lane_stays_alone(rng):
    def steps(matrix, shift, start):
        def step(carry, _):
            point, state = carry
            image = matrix @ point + shift
            following = anderson.accelerate(state, point, image, regularization=1e-10, growth=2.0)
            return following, following[0]

        return jax.lax.scan(step, (start, anderson.start(start, 3)), length=10)

    maps = [LinearMap(rng, SIZE) for _ in range(3)]
    lanes = [tuple(map(jnp.asarray, (m.matrix, m.shift, np.ones(SIZE)))) for m in maps]
    bad = (lanes[1][0], lanes[1][1].at[0].set(jnp.nan), lanes[1][2])
    batch = jax.jit(jax.vmap(steps))
    together = batch(*stack(*lanes))
    spoiled = batch(*stack(lanes[0], bad, lanes[2]))
    for k, one in enumerate(lanes):
        (_, state), points = jax.jit(steps)(*one)
        np.testing.assert_allclose(together[1][k], points, rtol=1e-8, atol=1e-10)
        assert int(together[0][1].filled[k]) == int(state.filled)
    for k in (0, 2):
        chex.assert_trees_all_equal(lane(together, k), lane(spoiled, k))
    assert int(spoiled[0][1].rejected[1]) == 10
    assert np.all(np.isfinite(spoiled[1]))


def test_float32_stays_float32(rng):
    apply = LinearMap(rng, SIZE)
    start = jnp.ones(SIZE, jnp.float32)
    points, state = run(apply, start, 3, 12, regularization=1e-6, growth=2.0)
    assert points.dtype == np.float32
    floats = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert {leaf.dtype for leaf in floats} == {jnp.dtype("float32")}
    np.testing.assert_allclose(points[-1], apply.fixed, rtol=1e-2, atol=1e-2)
