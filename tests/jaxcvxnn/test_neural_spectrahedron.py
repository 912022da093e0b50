"""Projections onto neural spectrahedra, and maxima of quadratic functions on the sphere."""

from typing import Any

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvxnn import Polynomial
from jaxcvxnn.conic import (
    neural_spectrahedron_distance,
    project_neural_spectrahedron,
    sphere_maximum,
    support_function,
)
from jaxcvxnn.conic.spectrahedron import coefficient_matrix

project = jax.jit(project_neural_spectrahedron)
distance = jax.jit(neural_spectrahedron_distance)
maximum = jax.jit(sphere_maximum)
support = jax.jit(support_function)

TIGHT = {"tol_gap_abs": 1e-10, "tol_gap_rel": 1e-10, "tol_feas": 1e-10}


def symmetric(rng, side):
    matrix = rng.standard_normal((side, side))
    return matrix + matrix.T


def on_the_sphere(rng, count, d):
    u = rng.standard_normal((count, d))
    return u / np.linalg.norm(u, axis=1, keepdims=True)


def lifted(u):
    return np.append(u, np.ones(u.shape[:-1] + (1,)), axis=-1)


# ----------------------------------------------------------------------
# The projection


@pytest.mark.parametrize("bound", [0.4, np.inf])
def test_projection_is_that_of_a_conic_solver(rng, bound):
    for _ in range(3):
        W = symmetric(rng, 5)
        Z = cp.Variable((5, 5), PSD=True)
        constraints: list[Any] = [cp.trace(Z[:4, :4]) == Z[4, 4]]
        if np.isfinite(bound):
            constraints.append(Z[4, 4] <= bound)
        cp.Problem(cp.Minimize(cp.sum_squares(Z - W)), constraints).solve(cp.CLARABEL, **TIGHT)
        found = np.asarray(project(W, bound))
        near = np.asarray(Z.value)
        np.testing.assert_allclose(found, near, atol=2e-5)
        assert np.linalg.norm(found - W) <= np.linalg.norm(near - W) * (1 + 1e-9)


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("bound", [0.0, 0.3, 2.0, np.inf])
def test_projection_is_feasible_and_nearest(rng, bound, scale):
    for size in (1e-3, 1.0, 30.0):
        W = scale * size * symmetric(rng, 5)
        found, rounding = np.asarray(project(W, bound * scale)), 1e-13 * float(np.linalg.norm(W))
        assert np.linalg.eigvalsh(found)[0] >= -rounding
        assert abs(np.trace(found) - 2 * found[-1, -1]) <= rounding
        assert found[-1, -1] <= bound * scale + rounding
        again = np.asarray(project(found, bound * scale))
        np.testing.assert_allclose(again, found, atol=10 * rounding)
        # <W - P, V - P> <= 0 for the extreme points V of the set, and for zero.
        mass = min(bound, 1e3) * scale
        points = lifted(on_the_sphere(rng, 300, 4))
        values = np.einsum("ni,ij,nj->n", points, W - found, points)
        most = mass * max(values.max(), 0) - np.sum((W - found) * found)
        assert most <= 1e-12 * np.linalg.norm(W) * (np.linalg.norm(W) + mass)


def test_projection_is_nonexpansive_and_rotates_with_the_data(rng):
    turn = np.eye(5)
    turn[:4, :4] = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    for _ in range(20):
        one, other = symmetric(rng, 5), symmetric(rng, 5)
        moved = np.linalg.norm(project(one, 0.7) - project(other, 0.7))
        assert moved <= np.linalg.norm(one - other) * (1 + 1e-12)
        turned = turn.T @ np.asarray(project(turn @ one @ turn.T, 0.7)) @ turn
        np.testing.assert_allclose(turned, project(one, 0.7), atol=1e-12)


def test_known_projections(rng):
    """A point of the set; its outside along the normal -I or G; the one of order two by hand."""
    u = lifted(on_the_sphere(rng, 2, 4))
    inside = 0.2 * np.outer(u[0], u[0]) + 0.1 * np.outer(u[1], u[1])
    np.testing.assert_allclose(project(inside, 1.0), inside, atol=1e-14)
    np.testing.assert_allclose(distance(inside, 1.0), 0, atol=1e-13)
    lorentz = np.diag([1.0, 1, 1, 1, -1])
    full = inside + 0.05 * np.diag([0.25, 0.25, 0.25, 0.25, 1])
    np.testing.assert_allclose(project(full + 0.01 * lorentz, 1.0), full, atol=1e-13)
    away = distance(full + 0.01 * lorentz, 1.0)
    np.testing.assert_allclose(away, 0.01 * np.sqrt(5), rtol=1e-10)
    for matrix in (-np.eye(5), np.zeros((5, 5))):
        np.testing.assert_array_equal(project(matrix, 1.0), np.zeros((5, 5)))
    # Order two: [[z, y], [y, z]] with |y| <= z <= t.
    np.testing.assert_allclose(project(np.diag([1.0, 3.0]), 5.0), 2 * np.eye(2), atol=1e-14)
    np.testing.assert_allclose(project(np.array([[0.0, 4], [4, 0]]), 9.0), np.full((2, 2), 2.0))


def test_a_batch_is_its_lanes(rng):
    batch = np.stack([symmetric(rng, 5) * 10.0**k for k in range(-2, 3)])
    bounds = np.array([0.1, 1, np.inf, 0, 3])
    together = jax.jit(jax.vmap(project_neural_spectrahedron))(batch, bounds)
    for matrix, bound, found in zip(batch, bounds, together, strict=True):
        np.testing.assert_allclose(found, project(matrix, bound), atol=1e-12)
    single = project(jnp.asarray(batch[2], jnp.float32), 1.0)
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, project(batch[2], 1.0), atol=1e-5)


# ----------------------------------------------------------------------
# Maxima on the sphere


def matrices(rng, d):
    """General ones, no linear part, weak linear parts, and the hard case."""
    for power in (0, -4, -9, 3):
        M = symmetric(rng, d + 1)
        M[:-1, -1] *= 10.0**power
        M[-1, :-1] = M[:-1, -1]
        yield M
    for size in (0.0, 0.05, 10.0):
        M = symmetric(rng, d + 1)
        values, vectors = np.linalg.eigh(M[:-1, :-1])
        top = vectors[:, -1]
        M[:-1, -1] = size * (M[:-1, -1] - top * (top @ M[:-1, -1]))
        M[-1, :-1] = M[:-1, -1]
        yield M
        # A largest eigenvalue of multiplicity two, where there is room.
        values[-2:] = values[-1]
        M = M.copy()
        M[:-1, :-1] = vectors @ np.diag(values) @ vectors.T
        yield M


@pytest.mark.parametrize("d", [1, 2, 6])
def test_the_multiplier_proves_the_maximum(rng, d):
    for M in matrices(rng, d):
        value, u, rho = (np.asarray(part) for part in maximum(M))
        point = lifted(u)
        np.testing.assert_allclose(np.linalg.norm(u), 1, rtol=1e-14)
        np.testing.assert_allclose(point @ M @ point, value, atol=1e-13 * np.abs(M).max())
        pencil = np.diag(np.append(np.full(d, rho), value - rho)) - M
        assert np.linalg.eigvalsh(pencil)[0] >= -1e-12 * np.linalg.norm(M)
        points = lifted(on_the_sphere(rng, 3000, d))
        sampled = np.einsum("ni,ij,nj->n", points, M, points).max()
        assert sampled <= value + 1e-13 * np.linalg.norm(M)
        assert sampled >= value - 0.2 * np.linalg.norm(M)


def test_support_function_and_its_derivative(rng):
    M = symmetric(rng, 5)
    points = lifted(on_the_sphere(rng, 20_000, 4))
    values = np.abs(np.einsum("ni,ij,nj->n", points, M, points))
    found, slope = jax.jit(jax.value_and_grad(support_function))(M)
    assert values.max() <= found <= values.max() * 1.05
    np.testing.assert_allclose(np.sum(slope * M), found, rtol=1e-12)  # homogeneous
    direction = symmetric(rng, 5)
    ends = [support(M + step * direction) for step in (1e-6, -1e-6)]
    np.testing.assert_allclose(np.sum(slope * direction), (ends[0] - ends[1]) / 2e-6, rtol=1e-6)
    np.testing.assert_allclose(support(-3 * M), 3 * found, rtol=1e-13)


def test_the_coefficients_give_the_activation(rng):
    phi = Polynomial.swish()
    x, u = rng.standard_normal(4), rng.standard_normal(4)
    form = coefficient_matrix(phi, 5) * np.outer(lifted(x), lifted(x))
    np.testing.assert_allclose(lifted(u) @ form @ lifted(u), phi(x @ u), rtol=1e-13)
