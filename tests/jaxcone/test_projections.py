"""Projections onto the cones: nearest points, and derivatives that stay finite everywhere."""

import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcone.extend import project_nonnegative, project_psd

from ..helpers import symmetric

ENTRIES = st.floats(-1e3, 1e3, allow_subnormal=False)
SQUARES = hypothesis.extra.numpy.arrays(np.float64, (4, 4), elements=ENTRIES)
VECTORS = hypothesis.extra.numpy.arrays(np.float64, 5, elements=ENTRIES)

psd = jax.jit(project_psd)
psd_jvp = jax.jit(lambda point, direction: jax.jvp(project_psd, (point,), (direction,))[1])
psd_vjp = jax.jit(lambda point, direction: jax.vjp(project_psd, point)[1](direction)[0])
JACOBIANS = [jax.jit(jacobian(project_psd)) for jacobian in (jax.jacfwd, jax.jacrev)]


def rotation(rng: np.random.Generator, side: int) -> np.ndarray:
    return np.linalg.qr(rng.standard_normal((side, side)))[0]


def with_spectrum(rng: np.random.Generator, *values: float) -> np.ndarray:
    vectors = rotation(rng, len(values))
    return symmetric(vectors * np.array(values) @ vectors.T)


def least_eigenvalue(matrix) -> float:
    return float(np.linalg.eigvalsh(np.asarray(matrix))[0])


# --- positive semidefinite matrices ---------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize(
    ("spectrum", "nearest"),
    [
        ((1, 2, 3, 4), (1, 2, 3, 4)),
        ((0, 0, 2, 5), (0, 0, 2, 5)),
        ((0, 0, 0, 0), (0, 0, 0, 0)),
        ((-4, -3, -2, -1), (0, 0, 0, 0)),
        ((-3, -1, 0, 2), (0, 0, 0, 2)),
        ((-2, -2, 2, 2), (0, 0, 2, 2)),
    ],
    ids=["inside", "boundary", "zero", "polar", "outside", "repeated"],
)
def test_psd_clips_the_spectrum(rng, spectrum, nearest, scale):
    vectors = rotation(rng, 4)
    matrix, wanted = (symmetric(vectors * np.array(v) @ vectors.T) for v in (spectrum, nearest))
    np.testing.assert_allclose(psd(scale * matrix), scale * wanted, atol=1e-14 * scale * 10)


def test_psd_of_a_number():
    assert psd(jnp.array([[3.0]])) == 3 and psd(jnp.array([[-3.0]])) == 0


@hypothesis.given(SQUARES)
@hypothesis.settings(max_examples=60)
def test_psd_moreau_decomposition(square):
    matrix = symmetric(square)
    size = 1e-13 * float(1 + np.linalg.norm(matrix))
    kept, removed = np.asarray(psd(matrix)), np.asarray(psd(-matrix))
    np.testing.assert_allclose(kept, kept.T, rtol=1e-15, atol=size)
    assert least_eigenvalue(kept) >= -size and least_eigenvalue(removed) >= -size
    np.testing.assert_allclose(kept - removed, matrix, atol=10 * size)
    assert abs(np.sum(kept * removed)) <= 10 * size * (1 + np.linalg.norm(matrix))
    np.testing.assert_allclose(psd(kept), kept, atol=10 * size)  # idempotent


@hypothesis.given(SQUARES, SQUARES)
@hypothesis.settings(max_examples=60)
def test_psd_nearest_point_and_lipschitz(left, right):
    one, other = symmetric(left), symmetric(right)
    nearest, image = np.asarray(psd(one)), np.asarray(psd(other))
    size = 1 + np.linalg.norm(one) + np.linalg.norm(right) ** 2
    for member in (right @ right.T, image, 0 * one, 2 * nearest):
        assert np.sum((one - nearest) * (member - nearest)) <= 1e-12 * size**2
    apart = np.linalg.norm(one - other)
    assert np.linalg.norm(nearest - image) <= apart * (1 + 1e-12) + 1e-13 * size


def test_psd_takes_the_symmetric_part_only(rng):
    square, direction = rng.standard_normal((2, 4, 4))
    skew = direction - direction.T
    np.testing.assert_allclose(psd(square + skew), psd(symmetric(square)), atol=1e-14)
    np.testing.assert_allclose(psd_jvp(square, skew), 0, atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_psd_keeps_the_dtype(rng, dtype):
    matrix, direction = (jnp.asarray(a, dtype) for a in rng.standard_normal((2, 3, 3)))
    value, slope, pulled = psd(matrix), psd_jvp(matrix, direction), psd_vjp(matrix, direction)
    assert value.dtype == slope.dtype == pulled.dtype == dtype
    wanted = psd(np.asarray(matrix, np.float64))
    np.testing.assert_allclose(value, wanted, atol=20 * np.finfo(dtype).eps)


def test_psd_batch_is_a_loop(rng):
    batch, directions = (jnp.asarray(a) for a in rng.standard_normal((2, 6, 3, 3)))
    batched = jax.jit(lambda *pair: jax.jvp(jax.vmap(project_psd), pair[:1], pair[1:]))
    together, slopes = batched(batch, directions)
    for k, (matrix, direction) in enumerate(zip(batch, directions, strict=True)):
        np.testing.assert_allclose(together[k], psd(matrix), atol=1e-14)
        np.testing.assert_allclose(slopes[k], psd_jvp(matrix, direction), atol=1e-14)


def test_psd_of_nan_is_nan():
    bad = jnp.eye(3).at[0, 1].set(jnp.nan)
    assert np.all(np.isnan(psd(bad)))
    batch = jax.jit(jax.vmap(project_psd))(jnp.stack([jnp.eye(3), bad]))
    np.testing.assert_allclose(batch[0], np.eye(3), atol=1e-15)
    assert np.all(np.isnan(batch[1]))


@pytest.mark.parametrize(
    "spectrum",
    [(-2, -1, 1, 2), (1, 2, 3, 4), (-4, -3, -2, -1), (-1, -1, 2, 2), (3, 3, 3, -2)],
    ids=str,
)
def test_psd_derivative_is_the_limit_of_differences(rng, spectrum):
    matrix, step = with_spectrum(rng, *spectrum), 1e-5
    for direction in rng.standard_normal((3, 4, 4)):
        slope = psd_jvp(matrix, direction)
        ahead, behind = (psd(matrix + t * direction) for t in (step, -step))
        np.testing.assert_allclose(slope, (ahead - behind) / (2 * step), atol=2e-9)
        np.testing.assert_allclose(psd_vjp(matrix, direction), slope, atol=1e-12)  # self-adjoint


KINKS = {
    "I": np.eye(3),
    "0": np.zeros((3, 3)),
    "-I": -np.eye(3),
    "signs": np.diag([1.0, 1, -1]),
    "rank one": np.ones((3, 3)),
    "minus rank one": -np.ones((3, 3)),
    "rank two": np.diag([1.0, 2, 0]),
    "repeated": np.diag([2.0, 2, 1]) + 1,
    "nearly repeated": np.diag([1.0, 1 + 1e-15, 1 - 1e-15]),
    "around zero": np.diag([1e-17, 0, -1e-17]),
    "subnormal": np.diag([1e-310, 0, -1e-310]),
    "smallest normal": np.diag([2.0**-1022, 0, -(2.0**-1022)]),
    "huge": np.diag([1e300, 1, -1e300]),
    "badly scaled": np.diag([1e-12, 1, -1e12]),
}


@pytest.mark.parametrize("matrix", KINKS.values(), ids=KINKS.keys())
def test_psd_jacobian_is_finite_symmetric_and_between_0_and_1(matrix):
    forward, reverse = (np.asarray(jacobian(matrix)).reshape(9, 9) for jacobian in JACOBIANS)
    assert np.all(np.isfinite(forward))
    np.testing.assert_allclose(reverse, forward.T, rtol=0, atol=1e-10)
    np.testing.assert_allclose(forward, forward.T, rtol=0, atol=1e-10)
    spectrum = np.linalg.eigvalsh(symmetric(forward))
    assert -1e-10 <= spectrum[0] and spectrum[-1] <= 1 + 1e-10


@pytest.mark.parametrize(
    ("diagonal", "multipliers"),
    [
        ((1, 1, 1), [[1, 1, 1], [1, 1, 1], [1, 1, 1]]),
        ((0, 0, 0), np.zeros((3, 3))),
        ((-1, -1, -1), np.zeros((3, 3))),
        ((1, 1, -1), [[1, 1, 0.5], [1, 1, 0.5], [0.5, 0.5, 0]]),
        ((2, 0, 0), [[1, 1, 1], [1, 0, 0], [1, 0, 0]]),
        ((3, 0, -1), [[1, 1, 0.75], [1, 0, 0], [0.75, 0, 0]]),
    ],
    ids=str,
)
def test_psd_derivative_at_diagonal_matrices(rng, diagonal, multipliers):
    # Divided differences (Lewis and Sendov, 2001), and 0 for a pair of eigenvalues <= 0.
    direction = symmetric(rng.standard_normal((3, 3)))
    slope = psd_jvp(np.diag(np.array(diagonal, float)), direction)
    np.testing.assert_allclose(slope, np.array(multipliers) * direction, atol=1e-14)


# --- nonnegative entries --------------------------------------------------------------------------


@hypothesis.given(VECTORS, VECTORS)
@hypothesis.settings(max_examples=60)
def test_nonnegative_is_the_nearest_point(one, other):
    kept, removed = (np.asarray(project_nonnegative(jnp.asarray(v))) for v in (one, -one))
    assert np.min(kept) >= 0 and not np.any(kept * removed)
    np.testing.assert_array_equal(kept - removed, one)  # Moreau
    np.testing.assert_array_equal(project_nonnegative(jnp.asarray(kept)), kept)
    for member in (np.abs(other), 0 * one, 2 * kept):
        assert np.sum((one - kept) * (member - kept)) <= 0
    image = np.asarray(project_nonnegative(jnp.asarray(other)))
    assert np.linalg.norm(kept - image) <= np.linalg.norm(one - other) * (1 + 1e-15)


def test_nonnegative_derivative():
    points = jnp.array([-2.0, -1e-300, -0.0, 0.0, 1e-300, 3.0])
    _, slope = jax.jvp(project_nonnegative, (points,), (jnp.ones(6),))
    np.testing.assert_array_equal(slope, [0, 0, 0, 0, 1, 1])
    (pulled,) = jax.vjp(project_nonnegative, points)[1](jnp.ones(6))
    np.testing.assert_array_equal(pulled, slope)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nonnegative_keeps_dtype_and_shape(rng, dtype):
    values = jnp.asarray(rng.standard_normal((2, 3, 4)), dtype)
    found = project_nonnegative(values)
    assert found.dtype == dtype and found.shape == values.shape
    np.testing.assert_array_equal(jax.vmap(project_nonnegative)(values), found)


def test_nonnegative_keeps_infinity_and_nan():
    found = project_nonnegative(jnp.array([jnp.inf, -jnp.inf, jnp.nan]))
    np.testing.assert_array_equal(found, [np.inf, 0, np.nan])
