"""Lower bounds from any dual point: without tolerance, against rational arithmetic."""

import math
from fractions import Fraction

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
from hypothesis.extra.numpy import arrays

from jaxcone import (
    PSD,
    AbstractCone,
    ConeProgram,
    InteriorPoint,
    Nonnegative,
    SecondOrder,
    Splitting,
    Zero,
    safe_dual_bound,
    solve,
)

# Complementary points of integers, for each cone: s in K, y in K*, s'y = 0. Of a PSD matrix with
# integer `svec` the entries off the diagonal are irrational.
PAIRS = {
    "zero": (Zero(1), [0], [-2]),
    "nonnegative": (Nonnegative(2), [3, 0], [0, 4]),
    "second order": (SecondOrder(3), [5, 3, 4], [5, -3, -4]),
    "psd": (PSD(3), [2, 0, 0, 0, 0, 0], [0, 0, 0, 2, 1, 2]),
}
CONES = [cone for cone, _, _ in PAIRS.values()]
SLACK, DUAL = (np.concatenate([pair[i] for pair in PAIRS.values()]).astype(float) for i in (1, 2))


def integer_program(seed: int, size: int = 3):
    """(program, x, y, optimal value), all of them exact: the data are small integers."""
    rng = np.random.default_rng(seed)
    A = rng.integers(-3, 4, (len(DUAL), size)).astype(float)
    root, x = rng.integers(-2, 3, (size, size)), rng.integers(-3, 4, size).astype(float)
    P = (root @ root.T).astype(float)
    c = -P @ x - A.T @ DUAL
    return ConeProgram(P, c, A, A @ x + SLACK, CONES), x, DUAL, x @ P @ x / 2 + c @ x


PROGRAMS = [integer_program(seed) for seed in range(3)]
SCALES = st.sampled_from([0.0, 1e-300, 1e-16, 1e-12, 1e-9, 1e-6, 1e-3, 1.0, 1e6])


def vectors(size: int, elements=None):
    return arrays(np.float64, size, elements=st.floats(-1, 1) if elements is None else elements)


# --- soundness ------------------------------------------------------------------------------------


@hypothesis.given(
    st.sampled_from(PROGRAMS),
    SCALES,
    vectors(len(DUAL)),
    SCALES,
    vectors(3),
    st.floats(1, 3),
    st.booleans(),
)
@hypothesis.settings(max_examples=300)
def test_never_above_the_optimum(case, y_scale, y_noise, z_scale, z_noise, slack, ball):
    program, x, y, value = case
    x_bound = math.sqrt(float(x @ x) + 1) * slack if ball else np.abs(x) * slack
    bound = safe_dual_bound(
        program, y + y_scale * y_noise, x_bound=x_bound, z=x + z_scale * z_noise
    )
    assert bound <= value
    if max(y_scale, z_scale) <= 1e-12:
        assert value - bound <= 1e-7 * (1 + abs(value))


def rational(array: np.ndarray) -> np.ndarray:
    return np.vectorize(Fraction, otypes=[object])(array)


def assert_lagrangian_minimum(P, c, A, b, y, z, x_bound):
    """The bound from (y, z) against inf { L(x, y, z): |x| <= x_bound }, in rational arithmetic."""
    program = ConeProgram(P, c, A, b, [Zero(1), Nonnegative(len(b) - 1)])
    bound = Fraction(safe_dual_bound(program, y, x_bound=x_bound, z=z))
    inside = np.append(y[:1], np.maximum(y[1:], 0))
    A, b, y, c, z, x_bound, P = map(rational, (A, b, inside, c, z, x_bound, P))
    residual = P @ z + c + A.T @ y
    fixed = -(b @ y) - z @ P @ z / 2
    size = abs(b) @ abs(y) + abs(z) @ abs(P) @ abs(z)
    terms = abs(P) @ abs(z) + abs(c) + abs(A.T) @ abs(y)
    allowed = Fraction(1e-9) * (size + sum(terms) * np.max(x_bound)) + Fraction(1e-120)
    if x_bound.ndim:
        exact = fixed - abs(residual) @ x_bound
        assert bound <= exact
        assert exact - bound <= allowed
    else:  # fixed - bound >= ||residual|| x_bound, without the root
        square = residual @ residual * x_bound**2
        assert bound <= fixed and (fixed - bound) ** 2 >= square
        assert fixed - bound <= allowed or (fixed - bound - allowed) ** 2 <= square


WIDE = st.floats(-1e3, 1e3) | st.floats(-1e-60, 1e-60) | st.floats(-1e60, 1e60) | st.just(0.0)


@hypothesis.given(st.data(), st.booleans())
@hypothesis.settings(max_examples=100)
def test_is_the_lagrangian_minimum_rounded_down(data, ball):
    A, b, y, c, z, x_bound, diagonal = (
        data.draw(vectors(shape, WIDE)) for shape in ((3, 2), 3, 3, 2, 2, 2, 2)
    )
    P = np.diag(np.abs(diagonal))
    P[0, 1] = P[1, 0] = np.min(np.abs(diagonal)) * data.draw(st.floats(-1, 1))
    x_bound = np.abs(x_bound)
    assert_lagrangian_minimum(P, c, A, b, y, z, x_bound[0] if ball else x_bound)


@pytest.mark.parametrize("ball", [False, True], ids=["box", "ball"])
@pytest.mark.parametrize("curved", [False, True], ids=["linear", "quadratic"])
def test_rounding_is_accounted_for_where_all_cancels(rng, curved, ball):
    # Residual, b'y and z'P z are nothing but rounding errors, as they nearly are at an optimum.
    for _ in range(40):
        A, b, y = rng.standard_normal((6, 3)), rng.standard_normal(6), rng.uniform(0, 1, 6)
        b[0] = -(b[1:] @ y[1:]) / y[0]
        root = rng.integers(-9, 10, (3, 2)).astype(float)
        P, z = root @ root.T * curved, np.cross(*root.T) * rng.standard_normal()  # P z = 0, nearly
        if curved:
            y *= 1e-30  # so that only z counts
        x_bound = np.abs(rng.standard_normal(3)) * 10.0 ** rng.integers(-8, 8)
        x_bound = x_bound[0] if ball else x_bound
        assert_lagrangian_minimum(P, -P @ z - A.T @ y, A, b, y, z, x_bound)


# Columns orthogonal to s: A's = 0, so that y may leave K* along -s and stay dual feasible.
ACROSS = {
    "nonnegative": [[0, 0], [1, 2]],
    "second order": [[3, 4], [-5, 0], [0, -5]],
    "psd": [[0, 0], [1, 0], [0, 1], [2, 1], [0, 3], [1, 1]],
}


@pytest.mark.parametrize("outside", [1e-12, 1e-9, 1e-3])
@pytest.mark.parametrize("name", ACROSS)
def test_a_point_outside_the_dual_cone_is_moved_into_it(name, outside):
    # For "psd" the least eigenvalue of y is -2 * outside.
    cone, s, y = PAIRS[name]
    s, y, A, x = np.array(s, float), np.array(y, float), np.array(ACROSS[name], float), np.ones(2)
    c, b = -A.T @ y, A @ x + s
    value = c @ x
    left = y - outside * s
    assert -b @ left > value  # what it would "prove" as it is
    bound = safe_dual_bound(ConeProgram(None, c, A, b, cone), left, x_bound=np.abs(x))
    assert bound <= value
    assert value - bound <= 200 * outside + 1e-8  # heads of cones are raised by 1e-10 of them


def test_a_custom_cone_is_refused():
    # min -x s.t. x = s >= 0, |x| <= 10: the value is -10, and y = -1 is not in the dual cone.
    class Halfline(AbstractCone):
        rows = 1

        def project(self, point):
            return jnp.maximum(point, 0)

        def identity(self):
            return np.ones(1)

        def entrywise(self):
            return True

    program = ConeProgram(None, np.array([-1.0]), np.array([[-1.0]]), np.zeros(1), Halfline())
    with pytest.raises(ValueError, match="cone"):
        safe_dual_bound(program, [-1.0], x_bound=10.0)
    with pytest.raises(ValueError, match="no scaling of .*Halfline"):
        solve(program, InteriorPoint())


# --- tightness ------------------------------------------------------------------------------------


def test_is_tight_from_a_solve():
    program, x, _, value = PROGRAMS[0]
    found = jax.jit(solve)(program, Splitting(tolerance=1e-9))
    for x_bound in (2 * np.abs(x) + 1, 10.0):
        bound = safe_dual_bound(program, found.y, x_bound=x_bound, z=found.x)
        assert value - 1e-6 * (1 + abs(value)) <= bound <= value


def test_a_linear_program_needs_no_z_and_float32_data_count_as_exact(rng):
    A, b, y = (rng.standard_normal(shape).astype(np.float32) for shape in ((5, 3), 5, 5))
    c = rng.standard_normal(3).astype(np.float32)
    cones = [Nonnegative(2), SecondOrder(3)]
    single = ConeProgram(None, c, A, b, cones)
    double = ConeProgram(None, *(part.astype(float) for part in (c, A, b)), cones)
    bound = safe_dual_bound(single, y, x_bound=1.0)
    assert -math.inf < bound == safe_dual_bound(double, y.astype(float), x_bound=1.0)


def test_programs_without_rows_or_unknowns():
    nothing = np.zeros(0)
    free = ConeProgram(np.eye(1), np.array([2.0]), np.zeros((0, 1)), nothing, [])
    assert -2 - 1e-12 < safe_dual_bound(free, nothing, x_bound=3.0, z=[-2.0]) <= -2
    constant = ConeProgram(None, nothing, np.zeros((2, 0)), np.ones(2), Nonnegative(2))
    assert -2 - 1e-12 < safe_dual_bound(constant, np.ones(2), x_bound=3.0) <= -2


# --- what is not proven, what is refused ----------------------------------------------------------

C, A, B = np.ones(2), np.array([[10.0, -10.0], [-10.0, 10.0]]), np.ones(2)
LINEAR = ConeProgram(None, C, A, B, Nonnegative(2))


@pytest.mark.parametrize("x_bound", [math.inf, np.array([1, math.inf])], ids=["ball", "box"])
def test_an_unbounded_set_proves_nothing_where_the_residual_is_not_zero(x_bound):
    assert safe_dual_bound(LINEAR, np.ones(2), x_bound=x_bound) == -math.inf


@pytest.mark.parametrize("x_bound", [0.0, np.zeros(2), 1.0], ids=str)
@pytest.mark.parametrize("y", [[1e308, 1e308], [1e308, 0.0]], ids=str)
def test_overflow_proves_nothing(y, x_bound):
    assert safe_dual_bound(LINEAR, y, x_bound=x_bound) == -math.inf


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": [1.0]}, "y: expected shape"),
        ({"y": [1.0, math.nan]}, "y: all entries must be finite"),
        ({"y": [1.0, math.inf]}, "y: all entries must be finite"),
        ({"z": [1.0]}, "z: expected shape"),
        ({"z": [1.0, math.inf]}, "z: all entries must be finite"),
        ({"x_bound": -1.0}, "x_bound: expected numbers >= 0"),
        ({"x_bound": math.nan}, "x_bound: expected numbers >= 0"),
        ({"x_bound": [1.0, -1.0]}, "x_bound: expected numbers >= 0"),
        ({"x_bound": np.ones(3)}, "x_bound: expected a number or shape"),
    ],
    ids=str,
)
def test_bad_input_is_named(change, message):
    arguments = {"y": np.ones(2), "x_bound": 1.0, **change}
    with pytest.raises(ValueError, match=message):
        safe_dual_bound(LINEAR, **arguments)


@pytest.mark.parametrize("part", ["A", "P"])
def test_structured_programs_are_refused(part):
    identity = lx.MatrixLinearOperator(jnp.eye(2))
    parts = {"P": np.eye(2), "A": A, part: identity}
    program = ConeProgram(parts["P"], C, parts["A"], B, Nonnegative(2))
    with pytest.raises(ValueError, match="program"):
        safe_dual_bound(program, np.ones(2), x_bound=1.0)


@pytest.mark.parametrize(
    "name",
    [
        "program",
        "y",
        "z",
        "x_bound",
    ],
)
def test_traced_input_is_refused(name):
    def bound(value):
        given = {"program": LINEAR, "y": np.ones(2), "z": np.ones(2), "x_bound": np.ones(2)}
        traced = ConeProgram(None, value, A, B, Nonnegative(2)) if name == "program" else value
        return safe_dual_bound(**{**given, name: traced})

    with pytest.raises(ValueError, match="outside jit"):
        jax.eval_shape(bound, np.ones(2))
