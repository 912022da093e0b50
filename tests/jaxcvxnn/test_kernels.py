"""Gaussian moments of ReLU activations against sampling and against values known in closed form."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvxnn.conic.kernels import relu_moments


def test_against_sampling(rng):
    P = rng.standard_normal((4, 3))
    P[3] = 0.3 * P[0]
    u = rng.standard_normal((400_000, 3))
    z = np.hstack([np.maximum(u @ P.T, 0), u])
    sampled = z.T @ z / len(z)
    # Five standard errors of each entry.
    error = 5 * np.sqrt(np.maximum((z**2).T @ z**2 / len(z) - sampled**2, 1e-12) / len(z))
    assert np.all(np.abs(relu_moments(P) - sampled) <= error)


@pytest.mark.parametrize("length", [1.0, 2.5])
def test_closed_values(length):
    # Angles 0, pi, pi/2 and pi/3 from the first row.
    angle = np.array([0, np.pi, np.pi / 2, np.pi / 3])
    P = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    P[0] *= length
    moments = relu_moments(P)
    # 1/2 |p|^2 for one direction, 0 for opposite ones, 1/(2 pi) for a right angle, and at pi/3
    # (sin t + (pi - t) cos t) / (2 pi) = sqrt(3) / (4 pi) + 1/6.
    expected = length * np.array([length / 2, 0, 1 / (2 * np.pi), np.sqrt(3) / (4 * np.pi) + 1 / 6])
    np.testing.assert_allclose(moments[0, :4], expected, rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(moments[:4, 4:], P / 2, rtol=1e-15)
    np.testing.assert_array_equal(moments[4:, 4:], np.eye(2))
    np.testing.assert_allclose(moments, moments.T, rtol=1e-15)


def test_copies_and_multiples(rng):
    p = rng.standard_normal(3)
    moments = np.asarray(relu_moments(np.stack([p, p, 3 * p, -2 * p])))
    square = p @ p / 2
    expected = square * np.array([[1, 1, 3, 0], [1, 1, 3, 0], [3, 3, 9, 0], [0, 0, 0, 4]])
    # arccos near 1 magnifies a rounding of the cosine to its square root; its sine is squared again.
    np.testing.assert_allclose(moments[:4, :4], expected, rtol=1e-11, atol=1e-11)


def test_zero_rows_have_no_moments():
    moments = relu_moments(np.array([[0.0, 0.0], [1.0, 0.0]]))
    np.testing.assert_array_equal(moments[0], np.zeros(4))
    assert np.isfinite(moments).all()


def test_it_is_positive_semidefinite_and_keeps_the_precision(rng):
    P = rng.standard_normal((12, 2))
    assert np.linalg.eigvalsh(relu_moments(P))[0] > -1e-14
    assert relu_moments(jnp.asarray(P, jnp.float32)).dtype == jnp.float32
