"""The longest step inside a product of symmetric cones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcone import MatrixScaling
from jaxcone.symmetric import LONGEST

from .helpers import symmetric


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
