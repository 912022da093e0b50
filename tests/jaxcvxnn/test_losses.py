"""Losses: values, derivatives, prox and conjugates, and the proofs that certificates take from them."""

import decimal
import functools
import math
from decimal import Decimal
from fractions import Fraction

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from jaxcone import verified
from jaxcvxnn import Absolute, Hinge, Huber, Logistic, SoftmaxCrossEntropy, Squared
from jaxcvxnn.losses import named
from jaxcvxnn.losses.base import AbstractMarginLoss
from jaxcvxnn.losses.named import loss_named

LOSSES = {
    "squared": Squared(),
    "logistic": Logistic(),
    "softmax": SoftmaxCrossEntropy(),
    "soft labels": SoftmaxCrossEntropy(),
    "hinge": Hinge(),
    "huber": Huber(),
    "narrow huber": Huber(0.3),
    "absolute": Absolute(),
}
ENTRYWISE = [case for case in LOSSES if not case.startswith("soft")]
SMOOTH = [case for case in LOSSES if LOSSES[case].smooth]
NAMES = list(named.LOSSES)

every_loss = pytest.mark.parametrize("case", LOSSES)
every_entrywise_loss = pytest.mark.parametrize("case", ENTRYWISE)
every_smooth_loss = pytest.mark.parametrize("case", SMOOTH)


def targets(rng, case, shape=(7, 3)):
    if isinstance(LOSSES[case], AbstractMarginLoss):
        return rng.choice([-1.0, 1.0], shape)
    if case == "softmax":
        return np.eye(shape[1])[rng.integers(0, shape[1], shape[0])]
    if case == "soft labels":
        weights = rng.exponential(size=shape) * (rng.random(shape) < 0.8)
        weights[:, -1] += 0.1
        return weights / weights.sum(axis=1, keepdims=True)
    return rng.standard_normal(shape)


def predictions(rng, shape=(7, 3)):
    return 2 * rng.standard_normal(shape)


@functools.cache
def compiled(method):
    """One program per method instead of one per operation: most of the time here is compilation."""
    return jax.jit(method)


# --- values and derivatives -----------------------------------------------------------------------


def test_values_by_hand():
    Z, Y = np.array([[3.0, -0.5]]), np.array([[1.0, -1.0]])
    soft = np.array([[0.25, 0.75]])
    assert np.isclose(Squared().value(Z, Y), (4 + 0.25) / 2)
    assert np.isclose(Logistic().value(Z, Y), math.log1p(math.exp(-3)) + math.log1p(math.exp(-0.5)))
    assert np.isclose(Hinge().value(Z, Y), 0 + 0.5)
    assert np.isclose(Huber().value(Z, Y), (2 - 0.5) + 0.125)
    assert np.isclose(Huber(0.25).value(Z, Y), (0.5 - 0.03125) + (0.125 - 0.03125))
    assert np.isclose(Absolute().value(Z, Y), 2.5)
    first = 1 / (1 + math.exp(-3.5))
    by_hand = -0.25 * math.log(first) - 0.75 * math.log(1 - first)
    assert np.isclose(SoftmaxCrossEntropy().value(Z, soft), by_hand)


def test_value_is_summed_not_averaged(rng):
    for case, loss in LOSSES.items():
        Z, Y = predictions(rng), targets(rng, case)
        rows = [compiled(loss.value)(Z[i : i + 1], Y[i : i + 1]) for i in range(len(Z))]
        assert np.isclose(compiled(loss.value)(Z, Y), sum(rows), rtol=1e-13)


@every_loss
def test_large_predictions(rng, case):
    loss, Y = LOSSES[case], targets(rng, case).astype(np.float32)
    Z = (1e4 * rng.standard_normal(Y.shape)).astype(np.float32)
    value, gradient = jax.jit(jax.value_and_grad(loss.value))(Z, Y)
    assert value.dtype == np.float32 and np.isfinite(value) and np.all(np.isfinite(gradient))
    if case == "logistic":
        assert np.isclose(value, np.sum(np.maximum(0, -Y * Z)), rtol=1e-3)
    if case.startswith("soft"):
        assert np.isclose(value, np.sum(Y * (Z.max(axis=1, keepdims=True) - Z)), rtol=1e-3)


@every_loss
def test_gradient_is_the_derivative_of_the_value(rng, case):
    loss, Z, Y = LOSSES[case], predictions(rng), targets(rng, case)
    gradient = np.asarray(compiled(loss.gradient)(Z, Y))
    np.testing.assert_allclose(gradient, jax.grad(loss.value)(Z, Y), atol=1e-14)
    direction = rng.standard_normal(Z.shape)
    ahead, behind = (compiled(loss.value)(Z + h * direction, Y) for h in (1e-6, -1e-6))
    assert np.isclose(np.sum(gradient * direction), (ahead - behind) / 2e-6, rtol=1e-7, atol=1e-7)


@every_loss
def test_gradient_supports_the_value_at_kinks_too(rng, case):
    loss, Y = LOSSES[case], targets(rng, case)
    kinks = [Y, 0 * Y, Y + 1, Y - 0.3] if not isinstance(loss, AbstractMarginLoss) else [Y, 0 * Y]
    for Z in kinks:
        gradient = compiled(loss.gradient)(Z, Y)
        for _ in range(20):
            W = Z + 10 ** rng.uniform(-4, 1) * rng.standard_normal(Z.shape)
            gained = compiled(loss.value)(W, Y) - compiled(loss.value)(Z, Y)
            assert gained >= np.sum(gradient * (W - Z)) - 1e-13


@every_loss
def test_hessian_blocks(rng, case):
    loss, Z, Y = LOSSES[case], predictions(rng), targets(rng, case)
    hessian = np.asarray(compiled(loss.hessian)(Z, Y))
    full = np.asarray(jax.jacfwd(loss.gradient)(Z, Y))
    for i in range(len(Z)):
        np.testing.assert_allclose(hessian[i], full[i, :, i, :], atol=1e-14)
    step = 1e-5 * rng.standard_normal(Z.shape)
    change = compiled(loss.gradient)(Z + step, Y) - compiled(loss.gradient)(Z - step, Y)
    np.testing.assert_allclose(np.einsum("ijk,ik->ij", 2 * hessian, step), change, atol=1e-13)


@every_smooth_loss
def test_curvature_bounds_the_hessian_and_is_attained(rng, case):
    loss, Y = LOSSES[case], targets(rng, case)
    largest = max(
        np.max(np.linalg.eigvalsh(compiled(loss.hessian)(size * rng.standard_normal(Y.shape), Y)))
        for size in (1e-3, 1.0, 5.0)
    )
    assert largest <= loss.curvature * (1 + 1e-12)
    # The sup for softmax is approached as two classes share the weight.
    Z = Y if not case.startswith("soft") else np.array([[0.0, 0.0, -40.0]])
    Z, Y = (0 * Y, Y) if case == "logistic" else (Z, Y[: len(Z)])
    assert np.isclose(np.max(np.linalg.eigvalsh(compiled(loss.hessian)(Z, Y))), loss.curvature)


def test_what_is_not_smooth_has_no_curvature():
    assert [name for name in NAMES if not loss_named(name).smooth] == ["hinge", "absolute"]
    for name in NAMES:
        loss = loss_named(name)
        assert (loss.curvature < math.inf) == loss.smooth


# --- prox -----------------------------------------------------------------------------------------


def prox_error(loss, Z, Y, step, W):
    """How far (Z - W) / step is from being a subgradient at W: the gap of Fenchel and Young."""
    R = loss.into_domain((Z - W) / step, Y)  # which rounding may have left
    return float(compiled(loss.value)(W, Y) + compiled(loss.conjugate)(R, Y) - np.sum(R * W)), R


@every_loss
@pytest.mark.parametrize("step", [1e-3, 0.3, 1.0, 25.0])
def test_prox_is_optimal_and_splits_its_argument(rng, case, step):
    # Moreau: Z = W + step * R where R is the prox of the conjugate: L(W) + L*(R) = <R, W>.
    loss, Y = LOSSES[case], targets(rng, case)
    Z = predictions(rng) * (1 + step)
    W = np.asarray(compiled(loss.prox)(Z, Y, step))
    gap, R = prox_error(loss, Z, Y, step, W)
    assert abs(gap) <= 1e-11 * (1 + np.sum(np.abs(R * W)))
    np.testing.assert_allclose(W + step * R, Z, rtol=1e-11, atol=1e-11)


@every_entrywise_loss
def test_prox_of_the_conjugate_by_minimisation(rng, case):
    # Moreau's identity with the other prox found by a search over its domain.
    loss, step = LOSSES[case], 0.7
    for _ in range(4):
        Y, Z = targets(rng, case, (1, 1)), predictions(rng, (1, 1))
        ends = np.ravel([loss.into_domain(np.full((1, 1), big), Y) for big in (-40.0, 40.0)])

        def objective(r, Y=Y, Z=Z):
            R = np.full((1, 1), r)
            return float(step * compiled(loss.conjugate)(R, Y) + np.sum((step * R - Z) ** 2) / 2)

        best = scipy.optimize.minimize_scalar(
            objective, bounds=ends, method="bounded", options={"xatol": 1e-10}
        )
        W = compiled(loss.prox)(Z, Y, step)
        assert np.isclose(float(W[0, 0]), Z[0, 0] - step * best.x, atol=1e-6)


@pytest.mark.parametrize("case", ["logistic", "softmax", "soft labels"])
@pytest.mark.parametrize("exponent", [-8, -3, 0, 3, 7])
def test_newton_reaches_the_prox_for_any_step(rng, case, exponent):
    loss, step = LOSSES[case], 10.0**exponent
    for spread in (1e-3, 1.0, 30.0, step, 10 * step):
        Z = spread * rng.standard_normal((50, 6))
        Z[::3] -= step * rng.random((17, 6))
        Y = targets(rng, case, Z.shape)
        W = np.asarray(compiled(loss.prox)(Z, Y, step))
        residual = W - Z + step * np.asarray(compiled(loss.gradient)(W, Y))
        slopes = np.eye(Z.shape[1]) + step * np.asarray(compiled(loss.hessian)(W, Y))
        error = np.linalg.solve(slopes, residual[:, :, None])  # one more step of Newton's
        assert np.max(np.abs(error)) <= 1e-12 * (1 + step + np.max(np.abs(Z)))


@pytest.mark.parametrize("case", NAMES)
def test_prox_under_jit_vmap_and_grad(rng, case):
    loss, Y = LOSSES[case], targets(rng, case)
    Z, steps = predictions(rng), np.array([0.01, 1.0, 40.0])
    batch = jax.jit(jax.vmap(loss.prox, in_axes=(None, None, 0)))(Z, Y, steps)
    for lane, step in zip(batch, steps, strict=True):
        np.testing.assert_allclose(
            lane, compiled(loss.prox)(Z, Y, float(step)), rtol=1e-13, atol=1e-13
        )
    # A gradient itself, of a convex function: its Jacobian is symmetric, with <d, J d> in [0, |d|^2].
    first, second = rng.standard_normal((2, *Z.shape))
    forward = jax.jit(lambda d: jax.jvp(lambda z: loss.prox(z, Y, 0.8), (Z,), (d,))[1])(first)
    backward = jax.jit(jax.grad(lambda z: jnp.sum(second * loss.prox(z, Y, 0.8))))(Z)
    assert np.isclose(np.sum(second * forward), np.sum(backward * first), rtol=1e-10)
    assert 0 <= np.sum(first * forward) <= np.sum(first**2)
    ahead, behind = (compiled(loss.prox)(Z + h * first, Y, 0.8) for h in (1e-6, -1e-6))
    np.testing.assert_allclose(forward, (ahead - behind) / 2e-6, atol=1e-8)


@pytest.mark.parametrize("case", NAMES)
def test_float32_stays_float32(rng, case):
    loss = LOSSES[case]
    Z, Y = (jnp.asarray(a, jnp.float32) for a in (predictions(rng), targets(rng, case)))
    R = compiled(loss.gradient)(Z, Y)
    results = [
        compiled(loss.value)(Z, Y),
        R,
        compiled(loss.hessian)(Z, Y),
        compiled(loss.prox)(Z, Y, 0.5),
        compiled(loss.conjugate)(R, Y),
        compiled(loss.minimum)(Y),
    ]
    assert all(result.dtype == jnp.float32 for result in results)
    W = compiled(loss.prox)(Z, Y, 0.5)
    exact = compiled(loss.prox)(np.asarray(Z, float), np.asarray(Y, float), 0.5)
    np.testing.assert_allclose(W, exact, atol=2e-6)
    gap = compiled(loss.value)(Z, Y) + compiled(loss.conjugate)(R, Y) - jnp.sum(R * Z)
    assert abs(gap) <= 1e-4  # finite: rounding has not left the domain


# --- conjugates -----------------------------------------------------------------------------------


@every_loss
def test_fenchel_young(rng, case):
    loss, Y = LOSSES[case], targets(rng, case)
    for _ in range(10):
        Z, other = predictions(rng), predictions(rng)
        R = compiled(loss.gradient)(Z, Y)
        conjugate = compiled(loss.conjugate)(R, Y)
        assert np.isclose(
            conjugate, np.sum(R * Z) - compiled(loss.value)(Z, Y), rtol=1e-11, atol=1e-11
        )
        assert compiled(loss.value)(other, Y) + conjugate >= np.sum(R * other) - 1e-12
        inner = loss.into_domain(rng.standard_normal(Y.shape), Y)
        assert (
            compiled(loss.value)(Z, Y) + compiled(loss.conjugate)(inner, Y)
            >= np.sum(inner * Z) - 1e-12
        )


@every_entrywise_loss
def test_conjugate_is_the_supremum(rng, case):
    loss = LOSSES[case]
    for _ in range(5):
        Y = targets(rng, case, (1, 1))
        grid = np.sort(np.append(np.linspace(-60, 60, 240000), Y))  # where there may be a kink
        values = jax.vmap(lambda z, Y=Y: compiled(loss.value)(z[None, None], Y))(grid)
        R = loss.into_domain(rng.standard_normal((1, 1)), Y)
        inside = np.max(R * grid - values)
        assert np.isclose(compiled(loss.conjugate)(R, Y), inside, atol=1e-6)
        if case != "squared":
            outside = loss.into_domain(np.full((1, 1), 99.0), Y) + 0.2
            assert compiled(loss.conjugate)(outside, Y) == math.inf
            assert np.argmax(outside * grid - values) == len(grid) - 1  # still rising


@pytest.mark.parametrize("case", ["softmax", "soft labels"])
def test_conjugate_of_softmax_is_the_supremum(rng, case):
    loss, Y = LOSSES[case], targets(rng, case, (1, 3))
    R = rng.dirichlet(np.ones(3), 1) - Y

    def negative(z):
        return float(compiled(loss.value)(z[None], Y) - np.sum(R * z))

    found = scipy.optimize.minimize(negative, np.zeros(3), method="BFGS", options={"gtol": 1e-9})
    assert np.isclose(compiled(loss.conjugate)(R, Y), -found.fun, atol=1e-9)
    assert compiled(loss.conjugate)(R + 1e-3, Y) == math.inf
    vertex = np.eye(3)[:1] - Y  # on the boundary, where 0 log 0 = 0
    assert np.isclose(compiled(loss.conjugate)(vertex, Y), 0, atol=1e-15)
    assert compiled(loss.conjugate)(vertex + np.array([[1e-3, -1e-3, 0]]), Y) == math.inf


@every_entrywise_loss
def test_biconjugate(rng, case):
    loss = LOSSES[case]
    for _ in range(3):
        Y, Z = targets(rng, case, (1, 1)), predictions(rng, (1, 1))
        ends = np.ravel([loss.into_domain(np.full((1, 1), big), Y) for big in (-20.0, 20.0)])
        grid = np.linspace(*ends, 20001)
        conjugates = jax.vmap(lambda r, Y=Y: compiled(loss.conjugate)(r[None, None], Y))(grid)
        assert np.isclose(np.max(grid * Z - conjugates), compiled(loss.value)(Z, Y), atol=1e-6)


@pytest.mark.parametrize("case", ["softmax", "soft labels"])
def test_biconjugate_of_softmax(rng, case):
    loss, Y, Z = LOSSES[case], targets(rng, case, (1, 2)), predictions(rng, (1, 2))
    chance = np.linspace(0, 1, 20001)
    R = np.stack([chance, 1 - chance], axis=1)[:, None] - Y
    conjugates = jax.vmap(loss.conjugate, in_axes=(0, None))(R, Y)
    supremum = np.max(np.sum(R * Z, axis=(1, 2)) - conjugates)
    assert np.isclose(supremum, compiled(loss.value)(Z, Y), atol=1e-6)


@every_loss
def test_minimum_is_minus_the_conjugate_at_zero(rng, case):
    loss, Y = LOSSES[case], targets(rng, case)
    assert np.isclose(compiled(loss.minimum)(Y), -compiled(loss.conjugate)(0 * Y, Y), atol=1e-15)
    assert (compiled(loss.minimum)(Y) > 0.1) == (case == "soft labels")
    if case == "soft labels":
        positive = np.where(Y > 0, Y, 1e-30)
        assert np.isclose(compiled(loss.value)(np.log(positive), Y), compiled(loss.minimum)(Y))
        assert np.all(compiled(loss.value)(predictions(rng), Y) >= compiled(loss.minimum)(Y))


# --- proven dual values ---------------------------------------------------------------------------


def as_decimal(value: Fraction) -> Decimal:
    return Decimal(value.numerator) / Decimal(value.denominator)


def entropy(weights: list[Fraction]) -> Decimal:
    """-sum q log(q / sum q), to the precision of the context."""
    total = as_decimal(sum(weights, Fraction(0)))
    parts = [as_decimal(q) for q in weights if q > 0]
    return -sum((q * (q / total).ln() for q in parts), Decimal(0))


def exact_rows(R, Y) -> list[list[Fraction]]:
    """R~: the entry of each row where R + Y is largest becomes minus the sum of the others."""
    rows = []
    for residual, target in zip(R, Y, strict=True):
        exact = [Fraction(float(r)) for r in residual]
        pivot = int(np.argmax(residual + target))
        exact[pivot] -= sum(exact, Fraction(0))
        rows.append(exact)
    return rows


def exact_dual_value(loss, R, Y, scale) -> Decimal | None:
    """-L*(scale * R~) to 310 digits, as what underflows in floats counts; None outside the domain."""
    t = Fraction(scale)
    residual = [[Fraction(float(r)) for r in row] for row in R]
    if isinstance(loss, SoftmaxCrossEntropy):
        residual = exact_rows(R, Y)
    pairs = [
        (t * r, Fraction(float(y)))
        for row, target in zip(residual, Y, strict=True)
        for r, y in zip(row, target, strict=True)
    ]
    inner = -sum((r * y for r, y in pairs), Fraction(0))
    square = sum((r * r for r, _ in pairs), Fraction(0)) / 2
    limit = {"huber": Fraction(getattr(loss, "delta", 1.0)), "absolute": Fraction(1)}.get(loss.name)
    with decimal.localcontext(prec=310):
        if limit is not None and any(abs(r) > limit for r, _ in pairs):
            return None
        if loss.name in ("squared", "huber"):
            return as_decimal(inner - square)
        if loss.name == "absolute":
            return as_decimal(inner)
        if loss.name == "softmax":
            weights = [r + y for r, y in pairs]
            if min(weights) < 0:
                return None
            size = len(Y[0])
            rows = [weights[i : i + size] for i in range(0, len(weights), size)]
            return sum((entropy(row) for row in rows), Decimal(0))
        chances = [-r * y for r, y in pairs]
        if min(chances) < 0 or max(chances) > 1:
            return None
        if loss.name == "hinge":
            return as_decimal(sum(chances, Fraction(0)))
        return sum((entropy([q, 1 - q]) for q in chances), Decimal(0))


def assert_proven(loss, R, Y, scale):
    """At most the exact value, without tolerance, and close to it; -inf only outside the domain."""
    bound = loss.dual_value_below(R, Y, scale)
    exact = exact_dual_value(loss, R, Y, scale)
    if exact is None:
        assert bound == -math.inf
    else:
        assert math.isfinite(bound)
        assert Decimal(bound) <= exact
        assert exact - Decimal(bound) <= Decimal(1e-12) * (
            1 + Decimal(float(np.sum(np.abs(R * Y))))
        )


SCALES = [0.0, 1.0, 0.5, 1 / 3, 1e-9, 1 - 2.0**-53, 1e-120]


@every_loss
def test_dual_value_of_gradients(rng, case):
    loss = LOSSES[case]
    for size in (1e-6, 1.0, 10.0, 30.0):
        Y = targets(rng, case, (4, 3))
        Z = size * rng.standard_normal(Y.shape)
        R = np.asarray(compiled(loss.gradient)(Z, Y))
        if not isinstance(loss, SoftmaxCrossEntropy):  # there R~ may leave the domain by rounding
            for scale in SCALES:
                assert_proven(loss, R, Y, scale)
        for scale in SCALES:
            assert_proven(loss, loss.into_domain(R, Y), Y, scale)
        dual = loss.dual_value_below(loss.into_domain(R, Y), Y, 1.0)
        assert np.isclose(dual, compiled(loss.value)(Z, Y) - np.sum(R * Z), rtol=1e-10, atol=1e-10)


SMALL = st.sampled_from([0.0, 2.0**-54, 2.0**-53, 1e-17, 1e-100, 5e-324, 1e-8, 2.0**-1022])
CHANCES = SMALL | SMALL.map(lambda small: 1 - small) | st.floats(0, 1)


@pytest.mark.parametrize("case", ENTRYWISE)
@hypothesis.given(
    entries=st.lists(st.tuples(CHANCES, st.booleans()), min_size=1, max_size=4),
    scale=CHANCES,
    beyond=st.sampled_from([1.0, 1 + 2.0**-52, 3.0]),
)
@hypothesis.settings(max_examples=40)
def test_dual_value_near_the_boundary(case, entries, scale, beyond):
    loss = LOSSES[case]
    chances = np.array([[chance * beyond for chance, _ in entries]])
    Y = np.array([[1.0 if positive else -1.0 for _, positive in entries]])
    assert_proven(loss, -chances * Y, Y, scale)


@hypothesis.given(
    first=st.lists(CHANCES, min_size=3, max_size=3),
    second=st.lists(CHANCES, min_size=3, max_size=3),
    label=st.integers(0, 2) | st.none(),
    scale=CHANCES,
)
@hypothesis.settings(max_examples=120)
def test_dual_value_of_softmax_near_the_boundary(first, second, label, scale):
    loss = SoftmaxCrossEntropy()
    hypothesis.assume(sum(first) > 0.1 and sum(second) > 0.1)
    Y = np.eye(3)[label : label + 1] if label is not None else np.array([second]) / sum(second)
    R = loss.into_domain(np.array([first]) / sum(first) - Y, Y)
    assert_proven(loss, R, Y, scale)


@pytest.mark.parametrize("case", ["softmax", "soft labels"])
def test_perturbation_leads_to_rows_that_sum_to_zero(rng, case):
    loss, Y = LOSSES[case], targets(rng, case, (30, 5))
    for size in (0.0, 1e-12, 1e-3):  # residuals of a solver, more and less accurate
        R = np.asarray(compiled(loss.gradient)(rng.standard_normal(Y.shape), Y))
        R = R + size * rng.standard_normal(Y.shape)
        bounds = loss.perturbation(R, Y)
        for row, exact, bound in zip(R, exact_rows(R, Y), bounds, strict=True):
            assert sum(exact) == 0
            distance = sum((q - Fraction(float(r))) ** 2 for q, r in zip(exact, row, strict=True))
            assert distance <= Fraction(float(bound)) ** 2
        assert np.all(bounds <= 1e-14 + 20 * size)
        assert np.all(loss.perturbation(loss.into_domain(R, Y), Y) <= 1e-15)
        assert_proven(loss, R, Y, 0.99)


def test_other_losses_are_not_perturbed(rng):
    for case in ENTRYWISE:
        assert not np.any(LOSSES[case].perturbation(predictions(rng), targets(rng, case)))


@pytest.mark.parametrize("size", [0.0, 1e-320, 1e-9, 1.0, 1e6, 1e140, 1.7e308])
@every_loss
def test_into_domain(rng, case, size):
    loss, Y = LOSSES[case], targets(rng, case)
    R = size * rng.uniform(-1, 1, Y.shape)
    inside = loss.into_domain(R, Y)
    if not (case == "squared" and size > 1e150):  # whose conjugate overflows
        assert all(math.isfinite(loss.dual_value_below(inside, Y, scale)) for scale in SCALES)
    np.testing.assert_allclose(loss.into_domain(inside, Y), inside, atol=1e-15)
    # The nearest point: the segment to any other one leaves it at an obtuse angle.
    for _ in range(20):
        other = loss.into_domain(rng.standard_normal(Y.shape), Y)
        with np.errstate(over="ignore"):
            angle = np.sum((R - inside) * (other - inside))
        assert angle <= 1e-14 * (1 + min(size, 1e300)) * Y.size


def test_squared_loss_is_the_certificates_formula(rng):
    for _ in range(20):
        R, Y = rng.standard_normal((2, 6, 2))
        scale = rng.random()
        gain, square = -verified.dot_interval(R, Y)[1], verified.dot_interval(R, R)[1]
        second = verified.above(verified.above(scale * scale) * square) / 2
        expected = verified.below(verified.below(scale * gain) - second)
        assert Squared().dual_value_below(R, Y, scale) == expected


@every_loss
def test_dual_value_is_below_every_networks_objective(rng, case):
    # Weak duality itself, with a crude price: ||R' relu(X u)|| <= ||R|| ||X||.
    loss, Y = LOSSES[case], targets(rng, case, (12, 3))
    X, weight_decay = rng.standard_normal((12, 4)), 20.0
    for _ in range(10):
        U, V = rng.standard_normal((4, 5)), 0.1 * rng.standard_normal((5, 3))
        outputs = np.maximum(X @ U, 0) @ V
        penalty = np.sum(np.linalg.norm(U, axis=0) * np.linalg.norm(V, axis=1))
        objective = float(compiled(loss.value)(outputs, Y)) + weight_decay * penalty
        R = loss.into_domain(np.asarray(compiled(loss.gradient)(outputs, Y)), Y)
        price = np.linalg.norm(R) * np.linalg.norm(X)
        price += np.sum(loss.perturbation(R, Y) * np.linalg.norm(X, axis=1))
        bound = loss.dual_value_below(R, Y, min(1.0, weight_decay / price))
        assert -math.inf < bound <= objective


@every_loss
def test_useless_residuals_prove_nothing(rng, case):
    loss, Y = LOSSES[case], targets(rng, case)
    for bad in (math.nan, math.inf, -math.inf):
        R = np.zeros(Y.shape)
        R[2, 1] = bad
        assert loss.dual_value_below(R, Y, 0.5) == -math.inf
        with pytest.raises(ValueError, match="R must be finite"):
            loss.into_domain(R, Y)
    if case != "squared":
        assert loss.dual_value_below(np.full(Y.shape, 1.7e308), Y, 1.0) == -math.inf
    with pytest.raises(ValueError, match="same shape"):
        loss.dual_value_below(np.zeros((7, 2)), Y, 0.5)
    for scale in (-0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match="`scale`"):
            loss.dual_value_below(np.zeros(Y.shape), Y, scale)


def test_float32_and_jax_residuals_count_as_they_are(rng):
    for case, loss in LOSSES.items():
        Y = jnp.asarray(targets(rng, case), jnp.float32)
        R = jnp.asarray(compiled(loss.gradient)(predictions(rng), np.asarray(Y)), jnp.float32) * 0.9
        wide, labels = (np.asarray(a, np.float64) for a in (R, Y))
        bound = loss.dual_value_below(R, Y, np.float32(0.7))
        assert bound == loss.dual_value_below(wide, labels, float(np.float32(0.7)))
        assert_proven(loss, wide, labels, float(np.float32(0.7)))


# --- targets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["logistic", "hinge"])
def test_labels_of_two_classes(name):
    loss = loss_named(name)
    expected = [[1.0], [-1.0], [-1.0]]
    for labels in ([1, 0, 0], [True, False, False], [1, -1, -1], np.float32([[1], [0], [0]])):
        assert loss.encode_targets(labels).tolist() == expected
    assert loss.encode_targets([[1, 0], [0, 1]]).tolist() == [[1, -1], [-1, 1]]
    assert loss.encode_targets([1, 1]).tolist() == [[1], [1]]
    for bad in ([0, 1, 2], [-1, 0, 1], [0.5, 1]):
        with pytest.raises(ValueError, match=rf"{name} loss takes rows of labels \+1 and -1"):
            loss.encode_targets(bad)
    with pytest.raises(ValueError, match=r"row 1 is \[0\.\]"):
        loss.check_targets(np.array([[1.0], [0.0]]))
    with pytest.raises(ValueError, match=name):
        loss.dual_value_below(np.zeros((2, 1)), np.array([[1.0], [0.5]]), 1.0)


def test_labels_of_many_classes():
    loss = SoftmaxCrossEntropy()
    assert loss.encode_targets([2, 0]).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert loss.encode_targets(np.array([1, 0]), classes=4).tolist() == [[0, 1, 0, 0], [1, 0, 0, 0]]
    soft = np.array([[0.2, 0.8], [1.0, 0.0]])
    assert np.array_equal(loss.encode_targets(soft), soft)
    loss.check_targets((soft / 3 * 3).astype(np.float32))
    for bad in ([-1, 0], [0.5, 1.0]):
        with pytest.raises(ValueError, match="class labels 0, 1, 2"):
            loss.encode_targets(bad)
    with pytest.raises(ValueError, match="labels go up to 5"):
        loss.encode_targets([0, 5], classes=3)
    with pytest.raises(ValueError, match="softmax loss takes rows of weights that sum to one"):
        loss.check_targets([[0.5, 0.4]])
    with pytest.raises(ValueError, match="nonnegative weights; row 1"):
        loss.check_targets([[0.5, 0.5], [1.5, -0.5]])


@pytest.mark.parametrize("name", NAMES)
def test_targets_that_no_loss_takes(name):
    loss = loss_named(name)
    with pytest.raises(ValueError, match=rf"{name} loss must be finite"):
        loss.check_targets([[1.0], [math.nan]])
    with pytest.raises(ValueError, match="shape"):
        loss.check_targets(np.ones(3))
    with pytest.raises(ValueError, match="empty"):
        loss.encode_targets(np.zeros((0, 2)))
    for bad in (["a", "b"], np.array([1 + 2j])):
        with pytest.raises(ValueError, match=f"{name} loss must be real numbers"):
            loss.encode_targets(bad)
    with pytest.raises(ValueError, match=name):
        loss.encode_targets([[1.0], [1.0, 2.0]])


@pytest.mark.parametrize("name", ["squared", "huber", "absolute"])
def test_numbers_are_targets_as_they_are(name):
    assert loss_named(name).encode_targets([3, -1]).tolist() == [[3.0], [-1.0]]


def test_losses_by_name():
    assert [loss_named(name).name for name in NAMES] == NAMES
    assert loss_named("huber") == Huber(1.0)
    with pytest.raises(ValueError, match="'l2'; the losses are squared, logistic, softmax"):
        loss_named("l2")
    for delta in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="delta"):
            Huber(delta)


@pytest.mark.parametrize("loss", [Hinge(), Huber(0.7), Absolute()], ids=lambda loss: loss.name)
def test_quadratic_conjugates_are_the_conjugates(rng, loss):
    Y = np.sign(rng.standard_normal((6, 2)))
    linear, curvature, (lower, upper) = loss.quadratic_conjugate(Y)
    for _ in range(5):
        R = lower + rng.random(Y.shape) * (upper - lower)
        value = np.sum(R * linear) + curvature / 2 * np.sum(R**2)
        np.testing.assert_allclose(loss.conjugate(R, Y), value, rtol=1e-12, atol=1e-12)
    outside = upper + 1e-6
    assert np.isinf(loss.conjugate(outside, Y))
