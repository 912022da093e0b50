"""Proofs in floating point, each checked against rational arithmetic."""

import math
from fractions import Fraction

import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies as st
import numpy as np
import pytest

from jaxcone import verified

from ..helpers import exact_dot, exactly_positive_definite, symmetric

# Products of these and their sums stay far from overflow; underflow is allowed.
WIDE = st.floats(-1e140, 1e140) | st.floats(-1e-140, 1e-140) | st.sampled_from([0.0, 5e-324, 1.0])
INTEGERS = st.integers(-9, 9).map(float)


def proven(matrix, error=None) -> bool:
    matrix = np.asarray(matrix, float)
    error = np.zeros_like(matrix) if error is None else error
    # Overflow inside is no reason for a wrong answer, and not what these tests are about.
    with np.errstate(all="ignore"):
        return verified.is_positive_definite(matrix, error)


def power_scales(rng, size, low=-26, high=27):
    """Powers of two between about 1e-8 and 1e8: a congruence by them is exact."""
    return 2.0 ** rng.integers(low, high, size)


# --- sums of products -----------------------------------------------------------------------------


def assert_bracket(left, right):
    left, right = np.asarray(left, float), np.asarray(right, float)
    with np.errstate(all="ignore"):
        low, high = verified.dot_interval(left, right)
    exact = exact_dot(left, right)
    assert low == -math.inf or Fraction(low) <= exact
    assert high == math.inf or exact <= Fraction(high)
    return low, high, exact


@hypothesis.given(st.lists(st.tuples(WIDE, WIDE), max_size=8))
@hypothesis.settings(max_examples=200)
def test_dot_interval_brackets(pairs):
    assert_bracket([a for a, _ in pairs], [b for _, b in pairs])


def test_dot_interval_is_tight_under_cancellation(rng):
    for _ in range(50):
        left, right = rng.standard_normal((2, 40)) * 10.0 ** rng.integers(-20, 20, (2, 40))
        left[20:], right[20:] = -left[:20], right[:20]
        left, right = (np.append(values, rng.standard_normal()) for values in (left, right))
        low, high, exact = assert_bracket(rng.permuted(left), rng.permuted(right))
        assert high - low <= 4 * math.ulp(float(exact))
        low, high, exact = assert_bracket(left, right)  # all but the last term cancel
        assert exact == Fraction(left[-1]) * Fraction(right[-1])
        assert high - low <= 4 * math.ulp(float(exact))


def test_dot_interval_of_matrices_and_of_nothing(rng):
    left, right = rng.standard_normal((2, 3, 4))
    assert_bracket(left, right)
    low, high, _ = assert_bracket(np.zeros((0, 3)), np.zeros((0, 3)))
    assert -1e-300 < low <= 0 <= high < 1e-300


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ([1e150, -1e150, 1.0], [1e150, 1e150, 1.0]),
        ([1e-160, 1e-160], [1e-160, -1e-161]),
        ([5e-324, 1.0], [5e-324, 1.0]),
        ([1e-300], [1e-20]),
        ([2.0**-1022], [0.5]),
        ([1e300, 1.0], [1e-300, 1.0]),
        ([1e308], [1e-308]),  # the splitting of one factor overflows
        ([1e301, 1.0], [1e-300, 1.0]),
        ([1e200], [1e200]),  # the product overflows
        ([1e200, -1e200], [1e200, 1e200]),  # the products overflow, their sum is zero
        ([1.2e154, 1.2e154], [1.2e154, 1.2e154]),  # only the sum overflows
    ],
    ids=str,
)
def test_dot_interval_at_the_ends_of_the_range(left, right):
    assert_bracket(left, right)


# --- error bounds ---------------------------------------------------------------------------------


def assert_product_error_covers(left, right):
    with np.errstate(over="ignore", invalid="ignore"):
        product, bound = left @ right, verified.product_error(left, right)
    assert bound.shape == product.shape
    for i, j in np.ndindex(*product.shape):
        if math.isfinite(bound[i, j]):
            exact = exact_dot(left[i], right[:, j])
            assert abs(Fraction(float(product[i, j])) - exact) <= Fraction(float(bound[i, j]))


@hypothesis.given(st.data(), st.integers(0, 5), st.sampled_from([WIDE, INTEGERS]))
@hypothesis.settings(max_examples=60)
def test_product_error_covers_the_rounding(data, inner, elements):
    left, right = (
        data.draw(hypothesis.extra.numpy.arrays(np.float64, shape, elements=elements))
        for shape in ((2, inner), (inner, 2))
    )
    assert_product_error_covers(left, right)


@pytest.mark.parametrize("inner", [1, 7, 200])
def test_product_error_covers_cancellation_and_is_small(rng, inner):
    left, right = rng.standard_normal((3, inner)), rng.standard_normal((inner, 3))
    assert_product_error_covers(left, right)
    assert_product_error_covers(
        np.hstack([left, -left]), np.vstack([right, right * (1 + 2.0**-50)])
    )
    assert np.max(verified.product_error(left, right)) < 1e-14 * inner**2 + 1e-14


@hypothesis.given(hypothesis.extra.numpy.arrays(np.float64, (3, 4), elements=WIDE))
@hypothesis.settings(max_examples=100)
def test_vector_norm_bound_is_above(values):
    with np.errstate(all="ignore"):
        bounds = verified.vector_norm_bound(values)
    for row, bound in zip(values, bounds, strict=True):
        assert bound == math.inf or Fraction(float(bound)) ** 2 >= exact_dot(row, row)


def test_norm_bound_covers_every_symmetric_matrix_in_the_box(rng):
    for _ in range(30):
        box = np.abs(symmetric(rng.standard_normal((6, 6))))
        bound = verified.norm_bound(box)
        for signs in (np.ones((6, 6)), symmetric(np.sign(rng.standard_normal((6, 6))))):
            assert np.linalg.norm(box * signs, 2) <= bound * (1 + 1e-12)
    assert verified.norm_bound(np.zeros((0, 0))) == 0


def test_gamma_bounds_compounded_roundings():
    unit = Fraction(1, 2**53)
    for operations in (0, 1, 3, 1000, 10**8):
        exact = operations * unit / (1 - operations * unit)
        assert abs(Fraction(verified.gamma(operations)) - exact) <= exact * Fraction(1, 10**15)
    with pytest.raises(ValueError, match="operations"):
        verified.gamma(2**53)


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 5e-324, 1e308, -1e-310])
def test_below_and_above_are_the_neighbours(value):
    assert verified.below(value) < value < verified.above(value)
    assert math.nextafter(verified.below(value), math.inf) == value
    assert math.nextafter(verified.above(value), -math.inf) == value


# --- positive definite matrices -------------------------------------------------------------------


@hypothesis.given(
    st.integers(1, 6).flatmap(
        lambda n: hypothesis.extra.numpy.arrays(
            np.float64, (n, n), elements=INTEGERS | st.floats(-3, 3)
        )
    ),
    st.integers(-60, 60),
)
@hypothesis.settings(max_examples=200)
def test_positive_definite_is_never_claimed_wrongly(root, exponent):
    # Gram matrices, often singular, lowered by very little or much: near the boundary on both sides.
    gram = symmetric(root @ root.T)
    for lowered in (gram, gram - 2.0**exponent * np.eye(len(gram)), symmetric(root)):
        assert not proven(lowered) or exactly_positive_definite(lowered)


@pytest.mark.parametrize("size", [2, 6, 40])
@pytest.mark.parametrize("eigenvalue", [0.0, 2.0**-40, 2.0**-30, 1.0], ids=lambda e: f"-{e:.0e}")
def test_planted_eigenvalue_is_always_seen(rng, size, eigenvalue):
    for _ in range(15):
        # Small integers: every product is exact. The rank is size - 1, so the least eigenvalue is
        # exactly -eigenvalue; the scaling by powers of two keeps its sign, exactly.
        root = rng.integers(-4, 5, (size, size - 1)).astype(float)
        matrix = root @ root.T - eigenvalue * np.eye(size)
        scale = power_scales(rng, size)
        scaled = matrix * np.outer(scale, scale)
        if size <= 6:
            assert not exactly_positive_definite(scaled)
        assert not proven(matrix)
        assert not proven(scaled)


@pytest.mark.parametrize("size", [1, 2, 6, 60])
def test_clearly_positive_definite_matrices_are_proven(rng, size):
    for spread in (1.0, 1e3, 1e9):  # condition numbers before scaling
        vectors = np.linalg.qr(rng.standard_normal((size, size)))[0]
        matrix = symmetric(vectors * np.geomspace(1 / spread, 1, size) @ vectors.T)
        scale = 10.0 ** rng.uniform(-8, 8, size)
        scaled = symmetric(matrix * np.outer(scale, scale))
        assert proven(matrix) and proven(scaled)
        assert proven(matrix, np.full((size, size), 0.1 / spread / size))
        units = np.sqrt(np.outer(scaled.diagonal(), scaled.diagonal()))
        least = np.linalg.eigvalsh(scaled / units)[0]
        assert proven(scaled, 0.1 * least / size * units)
    assert proven(np.diag(np.geomspace(1e-8, 1e8, size)))


@pytest.mark.parametrize("size", [2, 5])
def test_error_radius_beyond_the_least_eigenvalue_is_refused(rng, size):
    for _ in range(30):
        root = rng.standard_normal((size, size))
        matrix = symmetric(root @ root.T)
        values, vectors = np.linalg.eigh(matrix)
        radius = np.abs(np.outer(vectors[:, 0], vectors[:, 0])) * values[0] * (1 + 1e-6) + 1e-12
        # A member of the box that a rational number proves to be indefinite.
        member = matrix - np.sign(np.outer(vectors[:, 0], vectors[:, 0])) * radius
        assert not exactly_positive_definite(symmetric(member))
        assert not proven(matrix, radius)
        assert not proven(matrix, np.eye(size) * values[0] * (1 + 1e-12))


@pytest.mark.parametrize("radius", [0.3, 0.34])
def test_error_radius_is_not_wasted(radius):
    # I - radius * (all ones, 3 x 3) is positive definite exactly for radius < 1/3.
    assert proven(np.eye(3), np.full((3, 3), radius)) == (radius < 1 / 3)


def test_error_on_one_triangle_counts_in_both():
    # Upper triangle known and not zero: I + 0.75 (e1 e2' + e2 e1' + e1 e3' + e3 e1') is in the box,
    # with least eigenvalue 1 - 0.75 sqrt(2) < 0.
    matrix, error = np.eye(3), np.zeros((3, 3))
    matrix[0, 1:] = 0.75
    error[1:, 0] = 0.75
    member = np.eye(3)
    member[0, 1:] = member[1:, 0] = 0.75
    assert np.all(np.abs(member - matrix) <= error) and not exactly_positive_definite(member)
    assert not proven(matrix, error)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0), (2, 1), (1, 2)])
def test_not_a_number_is_no_proof(bad, place):
    broken, fine = np.eye(3), np.zeros((3, 3))
    broken[place] = bad
    assert not proven(broken)
    fine[place] = abs(bad)
    assert not proven(np.eye(3), fine)


@pytest.mark.parametrize("diagonal", [0.0, -1.0, -1e-300])
def test_a_diagonal_that_is_not_positive_is_no_proof(diagonal):
    assert not proven(np.diag([1.0, diagonal, 1.0]))


@pytest.mark.parametrize(
    ("tiny", "large"), [(1e-200, 1e200), (1e-230, 1e160), (1e-100, 1e300)], ids=str
)
def test_overflow_inside_is_no_proof(tiny, large):
    # Finite, indefinite, and infinite once its rows are scaled to a unit diagonal.
    matrix = np.array([[tiny, 0, large], [0, 1, 0], [large, 0, tiny]])
    assert not exactly_positive_definite(matrix)
    assert not proven(matrix)
    error = np.array([[0, 0, large], [0, 0, 0], [large, 0, 0]])
    assert not proven(np.diag([tiny, 1, tiny]), error)


@pytest.mark.parametrize("size", [1e-300, 1e-150, 1e150, 1e300])
def test_uniformly_tiny_or_huge_matrices_are_judged_right(size):
    # A False is allowed at the ends of the range, a wrong True is not.
    assert not proven(size * np.array([[1.0, 2.0], [2.0, 1.0]]))
    if 1e-200 < size < 1e200:
        assert proven(size * np.array([[2.0, 1.0], [1.0, 2.0]]))


def test_small_diagonals_from_cancellation_do_not_spoil_a_proof():
    """With unit diagonals the error of the first row would exceed its eigenvalue."""
    matrix, error = np.diag([1e-9, 1.0]), np.full((2, 2), 1e-13)
    matrix[0, 1] = matrix[1, 0] = 3e-5
    error[0, 1] = error[1, 0] = 1e-11
    assert np.linalg.eigvalsh(matrix)[0] > 5e-11
    assert proven(matrix, error)
    # Graded the other way round, only unit diagonals prove it.
    assert proven(np.diag([1e-20, 1.0]), np.diag([1e-30, 1e-10]))
