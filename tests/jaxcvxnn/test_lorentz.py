"""Lorentz cones by rows: the Jordan algebra, the Nesterov-Todd scaling, and steps to the boundary."""

import numpy as np
import pytest

from jaxcvxnn.interior import lorentz


def interior(rng, count, outputs):
    """Points strictly inside the cones, some of them close to the boundary."""
    v = rng.standard_normal((count, outputs))
    distances = 10.0 ** -rng.uniform(1, 6, count)
    return np.column_stack([np.linalg.norm(v, axis=1) + distances, v])


def moderate(rng, count, outputs):
    """Points well inside the cones."""
    v = rng.standard_normal((count, outputs))
    return np.column_stack([np.linalg.norm(v, axis=1) + rng.uniform(0.1, 2, count), v])


@pytest.mark.parametrize("outputs", [1, 2, 5])
def test_jordan_algebra(rng, outputs):
    x, y = moderate(rng, 20, outputs), rng.standard_normal((20, 1 + outputs))
    unit = np.eye(1 + outputs)[:1].repeat(20, axis=0)
    np.testing.assert_allclose(lorentz.product(x, lorentz.inverses(x)), unit, atol=1e-12)
    np.testing.assert_allclose(lorentz.product(x, lorentz.quotient(x, y)), y, atol=1e-11)
    arrow = np.zeros((1 + outputs, 1 + outputs))
    arrow[0], arrow[:, 0] = x[3], x[3]
    arrow[np.diag_indices(1 + outputs)] = x[3, 0]
    np.testing.assert_allclose(lorentz.product(x, y)[3], arrow @ y[3], rtol=1e-12)
    size = np.linalg.norm(x[:, 1:], axis=1)
    eigenvalues = (x[:, 0] + size) * (x[:, 0] - size)
    np.testing.assert_allclose(lorentz.determinants(x), eigenvalues, rtol=1e-12)


@pytest.mark.parametrize("outputs", [1, 2, 5])
def test_scaling_maps_both_points_to_one(rng, outputs):
    x, z = interior(rng, 30, outputs), interior(rng, 30, outputs)
    nt = lorentz.scaling(x, z)
    matrices = np.stack([nt.apply(row[None].repeat(30, 0)) for row in np.eye(1 + outputs)], axis=2)
    np.testing.assert_allclose(matrices, matrices.swapaxes(1, 2), atol=1e-12)
    scaled = np.linalg.solve(matrices, x[:, :, None])[:, :, 0]
    tolerance = 1e-6 * np.linalg.norm(nt.center, axis=1).max()
    np.testing.assert_allclose(scaled, nt.center, atol=tolerance)
    np.testing.assert_allclose(nt.apply(z), nt.center, atol=tolerance)
    np.testing.assert_allclose(nt.apply(nt.apply(z)), x, rtol=1e-6, atol=1e-7)
    inner = np.sum(x * z, axis=1)
    np.testing.assert_allclose(np.sum(nt.center**2, axis=1), inner, rtol=1e-9)
    J = np.diag([1.0] + [-1.0] * outputs)
    square = 2 * nt.axis[:, :, None] * nt.axis[:, None, :] - J
    np.testing.assert_allclose(nt.size[:, None, None] * square, matrices @ matrices, rtol=1e-6)


def test_largest_step_ends_on_the_boundary(rng):
    x = interior(rng, 1, 3)
    for _ in range(50):
        direction = rng.standard_normal((1, 4)) - [[1.5, 0, 0, 0]]
        step = lorentz.largest_step(x, direction)
        assert lorentz.inside(x + (1 - 1e-9) * step * direction)
        assert not lorentz.inside(x + (1 + 1e-9) * step * direction)


def test_largest_step_of_cases_in_the_plane():
    point = np.array([[1.0, 0.0]])
    step = {
        name: lorentz.largest_step(point, np.array([direction]))
        for name, direction in {
            "into the cone": [1.0, 0.5],
            "along its boundary": [1.0, 1.0],
            "sideways": [0.0, 2.0],
            "to the apex": [-4.0, 0.0],
            "nowhere": [0.0, 0.0],
        }.items()
    }
    assert step == {
        "into the cone": np.inf,
        "along its boundary": np.inf,
        "sideways": 0.5,
        "to the apex": 0.25,
        "nowhere": np.inf,
    }
    two = np.array([[1.0, 0.0], [1.0, 0.0]])
    assert lorentz.largest_step(two, np.array([[0.0, 2.0], [0.0, 5.0]])) == 0.2
