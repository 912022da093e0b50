"""The cones of the standard form: svec, nearest points, products, and finite derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcone
from jaxcone import PSD, Nonnegative, ProductCone, SecondOrder, Zero, smat, svec

from ..helpers import nearest, symmetric, to_matrix, to_vector

ROOT = np.sqrt(2)
# Equal kinds stand apart, and blocks without rows between them.
INTERLEAVED = [
    PSD(2),
    Nonnegative(2),
    SecondOrder(3),
    Zero(2),
    PSD(0),
    PSD(2),
    Nonnegative(0),
    SecondOrder(1),
    Nonnegative(1),
    SecondOrder(3),
    Zero(0),
    PSD(1),
    PSD(3),
]
CONES = {
    "zero": [Zero(3)],
    "nonnegative": [Nonnegative(4)],
    "second order": [SecondOrder(4)],
    "line": [SecondOrder(2)],
    "psd": [PSD(3)],
    "interleaved": INTERLEAVED,
    "empty blocks": [PSD(0), SecondOrder(0), Nonnegative(0), Zero(0)],
    "nothing": [],
}


# --- matrices as vectors --------------------------------------------------------------------------


def test_svec_is_the_lower_triangle_by_columns():
    matrix = np.array([[1.0, 2, 3], [2, 4, 5], [3, 5, 6]])
    vector = np.array([1, 2 * ROOT, 3 * ROOT, 4, 5 * ROOT, 6])
    np.testing.assert_allclose(svec(matrix), vector, rtol=1e-15)
    np.testing.assert_allclose(smat(vector), matrix, rtol=1e-15)


@pytest.mark.parametrize("side", [0, 1, 2, 7])
def test_svec_is_an_isometry(rng, side):
    one, other = (symmetric(matrix) for matrix in rng.standard_normal((2, side, side)))
    vectors = svec(one), svec(other)
    np.testing.assert_allclose(vectors[0] @ vectors[1], np.sum(one * other), atol=1e-13)
    np.testing.assert_allclose(vectors[0], to_vector(one), rtol=1e-15)
    back = np.asarray(smat(vectors[0]))
    np.testing.assert_allclose(back, one, rtol=1e-15)
    np.testing.assert_array_equal(back, back.T)


@pytest.mark.parametrize("rows", [2, 4, 5, 7, 5049])
def test_smat_of_no_triangle(rows):
    with pytest.raises(ValueError, match=f"no lower triangle has {rows} entries"):
        smat(jnp.zeros(rows))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_svec_and_projections_keep_the_dtype(rng, dtype):
    assert svec(jnp.ones((2, 2), dtype)).dtype == smat(jnp.ones(3, dtype)).dtype == dtype
    point = jnp.asarray(rng.standard_normal(ProductCone(INTERLEAVED).rows), dtype)
    found = jax.jit(ProductCone(INTERLEAVED).project)(point)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, nearest(INTERLEAVED, point), atol=20 * np.finfo(dtype).eps)


# --- nearest points -------------------------------------------------------------------------------


@pytest.mark.parametrize("cones", CONES.values(), ids=CONES.keys())
def test_projection_is_the_nearest_point(rng, cones):
    product = ProductCone(cones)
    z = rng.standard_normal((60, product.rows)) * 10.0 ** rng.integers(-6, 7, (60, 1))
    z[0], z[1], z[2] = 0, product.identity(), -product.identity()
    project = jax.jit(jax.vmap(product.project))
    found, opposite = np.asarray(project(z)), np.asarray(project(-z))
    eps = 1e-13 * np.max(np.abs(z), axis=1, initial=0, keepdims=True)
    assert np.all(np.abs(found - [nearest(cones, point) for point in z]) <= eps)
    assert np.all(np.abs(project(found) - found) <= eps)
    # Moreau: what was taken away is minus a point of the same cone (Zero aside), at a right angle.
    own = ~product.equalities()
    assert np.all(np.abs(found - opposite - z)[:, own] <= eps)
    for image, rest, small in zip(found, opposite, eps[:, 0], strict=True):
        for one, other in zip(product.split(image), product.split(rest), strict=True):
            assert abs(one @ other) <= small * np.linalg.norm(image)
    # No member of the cone is nearer: the angle is obtuse for all of them.
    for member in found[:20]:
        gaps = np.sum((z - found) * (member - found), axis=1)
        assert np.all(gaps <= eps[:, 0] * np.linalg.norm(np.abs(z) + np.abs(member), axis=1))
    np.testing.assert_array_equal(found[0], 0)
    np.testing.assert_allclose(found[1], z[1], rtol=1e-15)  # the identity lies inside,
    np.testing.assert_allclose(found[2], 0, atol=1e-15)  # its negative in the polar cone


def test_one_row_of_any_kind_is_one_inequality():
    points = jnp.array([-2.0, -0.0, 0.0, 1e-300, 3.0])
    for cone in (PSD(1), SecondOrder(1), Nonnegative(1)):
        slope = jax.jit(jax.vmap(lambda t, k=cone: jax.jvp(k.project, (t,), (jnp.ones(1),))))
        values, slopes = slope(points[:, None])
        np.testing.assert_array_equal(values[:, 0], [0, 0, 0, 1e-300, 3])
        np.testing.assert_array_equal(slopes[:, 0], [0, 0, 0, 1, 1])
        assert cone.rows == 1 and cone.entrywise()


@pytest.mark.parametrize("cone", [Zero(3), Nonnegative(3), SecondOrder(3), PSD(2)], ids=str)
def test_nan_does_not_become_a_point_of_the_cone(cone):
    found = jax.jit(jax.vmap(cone.project))(jnp.where(jnp.eye(3), jnp.nan, 1))
    assert np.all(np.isnan(np.diag(found)))


# --- products -------------------------------------------------------------------------------------


def test_blocks_are_in_the_order_of_the_cones(rng):
    product = ProductCone(INTERLEAVED)
    point = rng.standard_normal(product.rows)
    blocks = product.split(point)
    assert [block.size for block in blocks] == [cone.rows for cone in INTERLEAVED]
    np.testing.assert_array_equal(np.concatenate(blocks), point)
    assert ProductCone([]).split(point[:0]) == [] and ProductCone([]).rows == 0


def test_equal_cones_are_one_batch():
    def factorisations(*cones):
        product = ProductCone(cones)
        return str(jax.make_jaxpr(product.project)(jnp.ones(product.rows))).count(" eigh[")

    once = factorisations(PSD(3))
    assert once >= 1
    assert factorisations(PSD(3), Zero(2), PSD(3), Nonnegative(1), PSD(3)) == once
    assert factorisations(PSD(3), PSD(2), PSD(3), PSD(2)) == once  # padded
    assert factorisations(PSD(30), PSD(3), PSD(30), PSD(3)) == 2 * once  # too wasteful
    assert factorisations(PSD(1), PSD(0), Nonnegative(3)) == 0


def test_rows_that_share_a_scale():
    product = ProductCone(
        [PSD(2), Zero(2), SecondOrder(0), SecondOrder(3), PSD(1), PSD(0), Nonnegative(2), PSD(2)]
    )
    groups = [0, 0, 0, 1, 2, 3, 3, 3, 4, 5, 6, 7, 7, 7]
    np.testing.assert_array_equal(product.scale_groups(), groups)
    np.testing.assert_array_equal(np.flatnonzero(product.equalities()), [3, 4])


def test_identities():
    expected = [1, 0, 1, 1, 1, 1, 0, 0, 0, 0, 1]
    cones = [PSD(2), Nonnegative(2), SecondOrder(3), Zero(2), PSD(0), PSD(1)]
    np.testing.assert_array_equal(ProductCone(cones).identity(), expected)
    np.testing.assert_array_equal(to_matrix(PSD(4).identity()), np.eye(4))


@pytest.mark.parametrize("kind", [Zero, Nonnegative, SecondOrder, PSD])
@pytest.mark.parametrize("size", [-1, 2.0, np.nan, True, "3", None])
def test_bad_sizes_are_named(kind, size):
    name = "side" if kind is PSD else "size"
    with pytest.raises(ValueError, match=f"{kind.__name__}: `{name}` must be an integer >= 0"):
        kind(size)


@pytest.mark.parametrize("cones", [[3], [PSD], [Zero(1), "psd"], ["nonnegative"]], ids=str)
def test_what_is_no_cone_is_named(cones):
    with pytest.raises(ValueError, match="cones: expected Zero, Nonnegative"):
        ProductCone(cones)


# --- derivatives ----------------------------------------------------------------------------------

project = jax.jit(jaxcone.extend.project_second_order)
jvp = jax.jit(lambda z, d: jax.jvp(jaxcone.extend.project_second_order, (z,), (d,))[1])
JACOBIANS = [
    jax.jit(jacobian(jaxcone.extend.project_second_order)) for jacobian in (jax.jacfwd, jax.jacrev)
]
TAIL = np.array([0.6, 0.0, -0.8])


@pytest.mark.parametrize(
    "point",
    [(2.0, *TAIL), (-2.0, *TAIL), (0.3, *TAIL), (-0.7, *TAIL), (0.0, *TAIL), (0.999999, *TAIL)],
    ids=["inside", "polar", "outside", "below", "level", "near the boundary"],
)
def test_second_order_derivative_is_the_limit_of_differences(rng, point):
    z, step = np.array(point), 1e-7
    for direction in rng.standard_normal((3, 4)):
        ahead, behind = (project(z + t * direction) for t in (step, -step))
        np.testing.assert_allclose(jvp(z, direction), (ahead - behind) / (2 * step), atol=1e-8)


KINKS = {
    "apex": (np.zeros(4), 0),
    "boundary": (np.array([1.0, *TAIL]), 1),
    "polar's boundary": (np.array([-1.0, *TAIL]), 0),
    "axis": (np.array([1.0, 0, 0, 0]), 1),
    "lower axis": (np.array([-1.0, 0, 0, 0]), 0),
    "subnormal": (np.array([0, 5e-324, 0, 0]), None),
    "tiny": (np.array([0, 1e-150, 0, 0]), None),
    "tiny off the apex": (np.array([1e-200, 1e-200, 0, 0]), None),
    "huge": (np.array([1e150, 1e150, -1e150, 0]), None),
    "next to the axis": (np.array([1e-16, 1e-16, 1e-17, 0]), None),
}


@pytest.mark.parametrize(("point", "identity"), KINKS.values(), ids=KINKS.keys())
def test_second_order_jacobian_is_a_contraction_at_kinks(point, identity):
    forward, reverse = (np.asarray(jacobian(jnp.asarray(point))) for jacobian in JACOBIANS)
    assert np.all(np.isfinite(forward))
    np.testing.assert_allclose(reverse, forward.T, rtol=0, atol=1e-15)
    np.testing.assert_allclose(forward, forward.T, rtol=0, atol=1e-15)
    spectrum = np.linalg.eigvalsh(forward)
    assert -1e-15 <= spectrum[0] and spectrum[-1] <= 1 + 1e-15
    if identity is not None:
        np.testing.assert_array_equal(forward, identity * np.eye(4))


def test_the_derivative_of_a_product_is_finite_at_its_apex(rng):
    product = ProductCone(INTERLEAVED)
    jacobian = jax.jit(jax.jacrev(product.project))
    np.testing.assert_array_equal(jacobian(jnp.zeros(product.rows)), 0)
    point, step = rng.standard_normal(product.rows), 1e-6
    directions = np.eye(product.rows)
    project = jax.jit(jax.vmap(product.project))
    differences = (project(point + step * directions) - project(point - step * directions)) / step
    np.testing.assert_allclose(jacobian(point).T, differences / 2, atol=1e-8)
