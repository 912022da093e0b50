"""Scalings of symmetric cones: the longest step, and second-order blocks near their boundary."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcone.extend import MatrixScaling
from jaxcone.scalings import LONGEST, LorentzScaling

from ..helpers import symmetric


@jax.jit
def least(values, ds, dz):
    """`MatrixScaling.least` at lam = diag(values); its transformation does not matter for it."""
    eye = jnp.broadcast_to(jnp.eye(values.shape[-1], dtype=values.dtype), ds.shape)
    return MatrixScaling(eye, eye, values).least(ds, dz)


def drawn(rng, side, size, dtype=float, blocks=2):
    """lam and two directions of that size in its units."""
    values = 10 ** rng.uniform(-3, 3, (blocks, side))
    units = np.sqrt(values[:, :, None] * values[:, None, :])
    both = [
        size * units * np.stack([symmetric(m) for m in rng.standard_normal((blocks, side, side))])
        for _ in range(2)
    ]
    return [np.asarray(part, dtype) for part in (values, *both)]


def exact(values, ds, dz) -> float:
    roots = np.sqrt(np.asarray(values, float))
    both = [u / (roots[:, :, None] * roots[:, None, :]) for u in (ds, dz)]
    return float(np.min(np.linalg.eigvalsh(np.stack(both))))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("side", [2, 3, 10, 40])
def test_steps_are_never_too_long_and_hardly_too_short(rng, side, dtype):
    for size in (1e-3, 0.3, 1.0, 10.0, 1e3):
        given = drawn(rng, side, size, dtype)
        found, longest = -1 / float(least(*given)), -1 / min(exact(*given), -1e-300)
        wanted = min(longest, LONGEST)
        # A step ends at 0.99 of this length: rounding is far from mattering.
        assert wanted * 0.98 <= found <= wanted * (1 + 200 * np.finfo(dtype).eps)


def test_each_of_the_directions_can_be_the_one_that_ends_the_step(rng):
    values, ds, dz = drawn(rng, 5, 1.0)
    for block in range(2):
        for which in range(2):
            both = [ds.copy(), dz.copy()]
            both[which][block] -= 100 * np.diag(values[block])
            found = float(least(values, *both))
            np.testing.assert_allclose(found, exact(values, *both), rtol=0.02)
            assert found <= -95


def test_no_direction_ends_no_step(rng):
    values, ds, _ = drawn(rng, 4, 1.0)
    inwards = np.stack([np.diag(v) for v in values])
    for direction in (0 * ds, inwards, 1e9 * inwards):
        # The wider the bracket, the coarser the answer; what counts is a step beyond 1.
        np.testing.assert_allclose(least(values, direction, direction), -1 / LONGEST, rtol=0.03)


@pytest.mark.parametrize(
    ("which", "number"), [(0, np.nan), (1, np.nan), (2, np.nan), (1, np.inf), (2, -np.inf)]
)
def test_no_step_along_what_is_no_number(rng, which, number):
    given = drawn(rng, 4, 1.0)
    given[which][(1, *(-1,) * (given[which].ndim - 1))] = number
    assert not -1 / float(least(*given)) > 0


def test_lanes_of_a_batch_are_alone(rng):
    given = [drawn(rng, 6, size) for size in (1e-3, 1.0, 1e4)]
    together = jax.vmap(least)(*(np.stack(parts) for parts in zip(*given, strict=True)))
    np.testing.assert_allclose(together, [least(*one) for one in given], rtol=1e-12)


# --- second-order blocks --------------------------------------------------------------------------


def resting(blocks, size) -> tuple[Any, Any]:
    """The scaling of blocks at the identity, and how it moves."""
    unit, one = jnp.eye(1, size).repeat(blocks, axis=0), jnp.ones(blocks)
    start = LorentzScaling(one, one, 0 * unit[:, 1:], unit)
    return start, jax.jit(lambda scaling, s, z: scaling.moved(s, z))


def boosted(rapidity, axis):
    """The identity after the boost of a unit vector by that rapidity."""
    return np.append(np.cosh(rapidity), np.sinh(rapidity) * axis)[None]


@pytest.mark.parametrize("size", [2, 5])
def test_lorentz_scalings_map_both_points_to_one(rng, size):
    scaling, move = resting(3, size)
    for _ in range(4):
        tails = rng.standard_normal((2, 3, size - 1))
        heads = np.linalg.norm(tails, axis=2, keepdims=True) + rng.uniform(0.2, 1, (2, 3, 1))
        s, z = np.concatenate([heads, tails], axis=2)
        wanted = scaling.up(s), scaling.to_dual(z)
        before, scaling = scaling, move(scaling, s, z)
        lam = scaling.point()
        np.testing.assert_allclose(scaling.up(lam), wanted[0], atol=1e-12 * np.max(wanted[0]))
        np.testing.assert_allclose(scaling.to_dual(lam), wanted[1], atol=1e-12 * np.max(wanted[1]))
        np.testing.assert_allclose(scaling.down(scaling.up(s)), s, atol=1e-10 * np.max(s))
        np.testing.assert_allclose(np.sum(lam**2, axis=1), np.sum(s * z, axis=1), rtol=1e-13)
        assert not np.allclose(scaling.axis, before.axis, atol=1e-2) or size == 2


def test_lorentz_scalings_keep_their_digits_near_the_boundary():
    # Boosts of one axis add up; then one across it, at a condition number of e^32 = 8e13.
    scaling, move = resting(1, 4)
    axis, across = np.array([2.0, -1, 2]) / 3, np.array([1.0, 2, 0]) / np.sqrt(5)
    for _ in range(16):
        scaling = move(scaling, boosted(1.0, axis), boosted(-1.0, axis))
        np.testing.assert_allclose(scaling.lam, np.eye(1, 4), atol=1e-14)
    np.testing.assert_allclose(scaling.stretch, np.exp(16), rtol=1e-14)
    np.testing.assert_allclose(scaling.axis, axis[None], atol=1e-15)
    scaling = move(scaling, boosted(0.7, across), boosted(-0.7, across))
    # W M^2 W (1, 0, 0, 0), of which no term cancels.
    head = np.cosh(16) ** 2 * np.cosh(1.4) + np.sinh(16) ** 2
    along, aside = np.sinh(16) * np.cosh(16) * (np.cosh(1.4) + 1), np.sinh(1.4) * np.cosh(16)
    tail = along * axis + aside * across
    stretch = np.sqrt(head + np.linalg.norm(tail))
    np.testing.assert_allclose(scaling.stretch, stretch, rtol=1e-14)
    np.testing.assert_allclose(scaling.axis[0], tail / np.linalg.norm(tail), atol=1e-15)
    np.testing.assert_allclose(scaling.beta, 1, rtol=1e-14)
    np.testing.assert_allclose(scaling.lam, np.eye(1, 4), atol=1e-14)
