"""No certificate is ever above a network: for any residual, any multipliers, any data."""

import cvxpy as cp
import hypothesis
import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from jaxcvxnn import TrainingProblem, TwoLayerReLU
from jaxcvxnn.proof import certify_dual, certify_reduced
from jaxcvxnn.proof.lifted import _constraint_holds
from jaxcvxnn.reduction import reduce

from .. import oracles


def polished(X, Y, weight_decay, rng, width):
    """The objective of a random network after L-BFGS, in NumPy and SciPy alone."""
    shapes = (X.shape[1], width), (width, Y.shape[1])
    cut = shapes[0][0] * width

    def objective(weights):
        U, V = weights[:cut].reshape(shapes[0]), weights[cut:].reshape(shapes[1])
        hidden = X @ U
        active = np.maximum(hidden, 0)
        residual = active @ V - Y
        value = np.sum(residual**2) / 2 + weight_decay / 2 * np.sum(weights**2)
        slope_U = X.T @ ((residual @ V.T) * (hidden > 0))
        slope = np.concatenate([np.ravel(slope_U), np.ravel(active.T @ residual)])
        return value, slope + weight_decay * weights

    start = rng.standard_normal(cut + width * Y.shape[1])
    found = scipy.optimize.minimize(objective, start, jac=True, method="L-BFGS-B")
    U, V = found.x[:cut].reshape(shapes[0]), found.x[cut:].reshape(shapes[1])
    return U, V


def competitors(X, Y, weight_decay, rng):
    """Networks worth beating: none, random ones, and descended ones."""
    d, c = X.shape[1], Y.shape[1]
    yield np.zeros((d, 0)), np.zeros((0, c))
    for size in (0.1, 1.0):
        yield size * rng.standard_normal((d, 6)), size * rng.standard_normal((6, c))
    for _ in range(2):
        yield polished(X, Y, weight_decay, rng, width=8)


def make_data(rng, n, d, c, flaws):
    """Random data with the flaws asked for."""
    X, Y = rng.standard_normal((n, d)), rng.standard_normal((n, c))
    if "features" in flaws:
        X = X[:, :1] @ rng.standard_normal((1, d))
    if "targets" in flaws:
        Y = Y[:, :1] @ rng.standard_normal((1, c))
    if "copies" in flaws:
        X[n // 2 :] = X[: n - n // 2] * rng.choice([-2.0, -1.0, 1.0, 0.5], (n - n // 2, 1))
    if "zeros" in flaws:
        X[rng.integers(n)] = 0
    if "scales" in flaws:
        X = X * 10.0 ** rng.uniform(-6, 3, (n, 1)) * 10.0 ** rng.uniform(-6, 3, d)
        Y = Y * 10.0 ** rng.uniform(-3, 3)
    return X, Y


FLAWS = ["features", "targets", "copies", "zeros", "scales"]


def dual_pairs(X, Y, networks, rng):
    """Residuals and multipliers from good to absurd."""
    n, c = Y.shape
    for U, V in networks:
        yield np.maximum(X @ U, 0) @ V - Y, None
    noise = rng.standard_normal((n, c))
    N = rng.standard_normal((2 * n, 2 * n))
    yield noise, N
    yield -Y, np.abs(N + N.T)
    yield -0.5 * Y + 1e-3 * noise, 1e-3 * np.maximum(N, 0) - 0.01 * np.roll(np.eye(2 * n), n, 1)
    yield 1e6 * noise, 1e-9 * N
    yield np.zeros((n, c)), N


@hypothesis.settings(max_examples=40)
@hypothesis.given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 8),
    d=st.integers(1, 3),
    c=st.integers(1, 3),
    flaws=st.sets(st.sampled_from(FLAWS)),
    weight_decay=st.sampled_from([1e-4, 0.01, 0.1, 1.0]),
)
def test_no_bound_is_above_any_network(seed, n, d, c, flaws, weight_decay):
    rng = np.random.default_rng(seed)
    X, Y = make_data(rng, n, d, c, flaws)
    hypothesis.assume(np.any(X))
    networks = list(competitors(X, Y, weight_decay, rng))
    least = min(oracles.network_objective(X, Y, U, V, weight_decay) for U, V in networks)
    problem = TrainingProblem(X, Y, weight_decay)
    for R, N in dual_pairs(X, Y, networks[:1] + networks[-2:], rng):
        certificate = certify_dual(problem, R, N)
        assert 0 <= certificate.lower_bound <= least


entries = st.floats(-100, 100, width=32) | st.sampled_from([0.0, 1.0, -1.0, 1e-8, 1e-30, 1e30])


@hypothesis.settings(max_examples=60)
@hypothesis.given(
    data=st.data(),
    n=st.integers(1, 4),
    d=st.integers(1, 2),
    weight_decay=st.sampled_from([0.01, 1.0]),
)
def test_odd_numbers_break_nothing(data, n, d, weight_decay):
    X = data.draw(arrays.arrays(np.float64, (n, d), elements=entries))
    Y = data.draw(arrays.arrays(np.float64, (n, 1), elements=entries))
    R = data.draw(arrays.arrays(np.float64, (n, 1), elements=entries))
    N = data.draw(arrays.arrays(np.float64, (2 * n, 2 * n), elements=entries))
    hypothesis.assume(np.any(X))
    problem = TrainingProblem(X, Y, weight_decay)
    bound = certify_dual(problem, R, N).lower_bound
    assert 0 <= bound <= np.sum(Y**2) / 2
    rng = np.random.default_rng(0)
    for U, V in competitors(X, Y, weight_decay, rng):
        assert bound <= oracles.network_objective(X, Y, U, V, weight_decay)


@pytest.mark.slow
@hypothesis.settings(max_examples=30)
@hypothesis.given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(2, 8),
    c=st.integers(1, 3),
    flaws=st.sets(st.sampled_from(["targets", "copies", "zeros"])),
    weight_decay=st.sampled_from([0.01, 0.1, 1.0]),
)
def test_planted_duals_are_close_and_below_the_exact_optimum(seed, n, c, flaws, weight_decay):
    rng = np.random.default_rng(seed)
    X, Y = make_data(rng, n, 2, c, flaws)
    hypothesis.assume(np.linalg.matrix_rank(X) == 2)
    exact = oracles.exact_rank2(X, Y, weight_decay)
    relaxed = oracles.lifted_form(X, Y, weight_decay)
    hypothesis.assume(np.isfinite(relaxed.solve(cp.CLARABEL)))
    R, N = relaxed.dual_pair()
    problem = TrainingProblem(X, Y, weight_decay)
    certificate = certify_dual(problem, R, N)
    assert 0.99 * relaxed.value <= certificate.lower_bound <= exact
    # The same without the repair, and from a disturbed pair.
    assert certify_dual(problem, R, N, repair=False).lower_bound <= exact
    for size in (1e-6, 1e-3, 0.1):
        noisy = (
            R * (1 + size * rng.standard_normal(R.shape)),
            N + size * rng.standard_normal(N.shape),
        )
        assert certify_dual(problem, *noisy).lower_bound <= exact
        assert certify_dual(problem, *noisy, repair=False).lower_bound <= exact


def small_problem(rng, n=5, d=2, c=2, weight_decay=0.1):
    X, Y = rng.standard_normal((n, d)), 2 * rng.standard_normal((n, c))
    return TrainingProblem(X, Y, weight_decay)


def planted(problem):
    relaxed = oracles.lifted_form(problem.X, problem.Y, float(problem.weight_decay))
    relaxed.solve(cp.CLARABEL)
    return relaxed


def test_two_samples_are_exact(rng):
    # The (alpha, omega) block has side 4, where doubly nonnegative means completely positive.
    problem = small_problem(rng, n=2, c=1)
    bracket = oracles.rank2_bracket(problem.X, problem.Y, 0.1)
    bound = certify_dual(problem, *planted(problem).dual_pair()).lower_bound
    assert 0.9999 * bracket.lower <= bound <= bracket.upper


def test_the_proof_can_be_checked_again(rng):
    problem = small_problem(rng)
    certificate = certify_dual(problem, *planted(problem).dual_pair())
    R = np.asarray(certificate.residual)
    t = certificate.scale
    assert 0 < t <= 1
    value = -t * np.sum(R * problem.Y) - t**2 * np.sum(R**2) / 2
    assert certificate.lower_bound <= value
    np.testing.assert_allclose(certificate.lower_bound, value, rtol=1e-12)
    assert oracles.sigma_rank2(t * R, problem.X) <= 0.1
    assert oracles.brute_force_sigma(t * R, problem.X) <= 0.1
    data = certificate.proof.reduction.data
    N = np.asarray(certificate.proof.multipliers)
    assert N[np.asarray(data.nonnegative)].min() >= 0
    M = -data.rows.T @ N @ data.rows
    reader = data.readout.T @ certificate.proof.reduction.reduce_residual(R)
    M -= reader @ reader.T / 0.2
    M[data.pairs :, data.pairs :] += 0.05 * np.eye(data.rank)
    assert np.linalg.eigvalsh(M)[0] > 0


def test_fields(rng):
    problem = small_problem(rng)
    relaxed = planted(problem)
    R, N = relaxed.dual_pair()
    certificate = certify_dual(problem, R, N)
    given = -np.sum(R * problem.Y) - np.sum(R**2) / 2
    np.testing.assert_allclose(certificate.proof.dual_objective, given, rtol=1e-12)
    expected = (given - certificate.lower_bound) / abs(given)
    np.testing.assert_allclose(certificate.proof.loss, expected, rtol=1e-9, atol=1e-15)
    assert certificate.proof.loss < 1e-3
    # A residual too large to be feasible promises more than it keeps.
    boasting = certify_dual(problem, -problem.Y, None)
    np.testing.assert_allclose(boasting.proof.dual_objective, np.sum(problem.Y**2) / 2, rtol=1e-12)
    assert 0 < boasting.proof.loss < 1


def test_repair_never_loses(rng):
    problem = small_problem(rng, n=6, d=3)
    R, N = planted(problem).dual_pair()
    for multipliers in (N, 0.5 * N, N + 0.01 * rng.standard_normal(N.shape), None):
        plain = certify_dual(problem, R, multipliers, repair=False).lower_bound
        assert certify_dual(problem, R, multipliers).lower_bound >= plain


def test_residual_alone_gives_a_bound(rng):
    problem = small_problem(rng)
    network = TwoLayerReLU(*polished(problem.X, problem.Y, 0.1, rng, width=10))
    residual = network.predict(problem.X) - problem.Y
    certificate = certify_dual(problem, residual)
    exact = oracles.exact_rank2(problem.X, problem.Y, 0.1)
    assert 0 < certificate.lower_bound <= exact


def test_feasible_residuals_keep_their_value(rng):
    # R so small that even the crudest multipliers prove it: nothing is lost but roundings.
    problem = small_problem(rng)
    R = -1e-6 * problem.Y
    certificate = certify_dual(problem, R, repair=False)
    np.testing.assert_allclose(certificate.lower_bound, certificate.proof.dual_objective, rtol=1e-6)
    assert certificate.lower_bound <= certificate.proof.dual_objective


def test_float32_and_jax_input(rng):
    problem = small_problem(rng)
    R, N = planted(problem).dual_pair()
    exact = certify_dual(problem, R, N).lower_bound
    small = certify_dual(problem, jnp.asarray(R, jnp.float32), jnp.asarray(N, jnp.float32))
    assert isinstance(small.lower_bound, float)
    np.testing.assert_allclose(small.lower_bound, exact, rtol=1e-3)
    rounded = TrainingProblem(problem.X.astype(np.float32), problem.Y.astype(np.float32), 0.1)
    bound = certify_dual(rounded, R.astype(np.float32), N.astype(np.float32)).lower_bound
    decay = float(rounded.weight_decay)
    wide = oracles.exact_rank2(rounded.X, rounded.Y, decay)
    assert 0.9 * exact <= bound <= wide


@pytest.mark.parametrize("k", [1e-6, 1e-3, 7.0, 1e3, 1e6])
def test_units_of_the_targets(rng, k):
    problem = small_problem(rng)
    R, N = planted(problem).dual_pair()
    plain = certify_dual(problem, R, N, repair=False).lower_bound
    scaled = TrainingProblem(problem.X, k * problem.Y, k * 0.1)
    bound = certify_dual(scaled, k * R, k * N, repair=False).lower_bound
    np.testing.assert_allclose(bound, k**2 * plain, rtol=1e-9)
    repaired = certify_dual(scaled, k * R, k * N).lower_bound
    np.testing.assert_allclose(repaired, k**2 * certify_dual(problem, R, N).lower_bound, rtol=1e-4)


@pytest.mark.parametrize("k", [1e-3, 1e3])
def test_units_of_the_samples(rng, k):
    # p* depends on the weight decay over the length of the samples.
    problem = small_problem(rng)
    R, N = planted(problem).dual_pair()
    scaled = TrainingProblem(k * problem.X, problem.Y, k * 0.1)
    bound = certify_dual(scaled, R, N / k).lower_bound
    np.testing.assert_allclose(bound, certify_dual(problem, R, N).lower_bound, rtol=1e-4)


def test_order_and_coordinates_do_not_matter(rng):
    problem = small_problem(rng)
    R, N = planted(problem).dual_pair()
    order = rng.permutation(5)
    both = np.concatenate([order, 5 + order])
    Q, _ = np.linalg.qr(rng.standard_normal((2, 2)))
    turned = TrainingProblem(problem.X[order] @ Q, problem.Y[order] @ Q.T, 0.1)
    bound = certify_dual(turned, R[order] @ Q.T, N[np.ix_(both, both)], repair=False).lower_bound
    plain = certify_dual(problem, R, N, repair=False).lower_bound
    np.testing.assert_allclose(bound, plain, rtol=1e-9)


@pytest.mark.parametrize("outputs", [1, 3])
def test_samples_that_no_network_sees_are_a_constant(rng, outputs):
    Y = rng.standard_normal((4, outputs))
    constant = TrainingProblem(np.zeros((4, 2)), Y, 0.1)
    value = np.sum(Y**2) / 2
    certificate = certify_dual(constant, -Y)
    assert certificate.lower_bound <= value
    np.testing.assert_allclose(certificate.lower_bound, value, rtol=1e-12)


def test_zero_samples_add_their_loss(rng):
    problem = small_problem(rng, n=5)
    X, Y = (
        np.vstack([problem.X, np.zeros((2, 2))]),
        np.vstack([problem.Y, rng.standard_normal((2, 2))]),
    )
    R, N = planted(problem).dual_pair()
    wide = np.zeros((14, 14))
    place = np.concatenate([np.arange(5), 7 + np.arange(5)])
    wide[np.ix_(place, place)] = N
    more = certify_dual(TrainingProblem(X, Y, 0.1), np.vstack([R, -Y[5:]]), wide)
    plain = certify_dual(problem, R, N)
    constant = np.sum(Y[5:] ** 2) / 2
    np.testing.assert_allclose(more.lower_bound, plain.lower_bound + constant, rtol=1e-4)
    assert more.lower_bound <= oracles.exact_rank2(X, Y, 0.1)


def test_zero_targets_have_the_bound_zero(rng):
    problem = TrainingProblem(rng.standard_normal((4, 2)), np.zeros((4, 2)), 0.1)
    for R in (np.zeros((4, 2)), rng.standard_normal((4, 2))):
        assert certify_dual(problem, R).lower_bound == 0


def test_large_weight_decay_proves_the_zero_network(rng):
    problem = small_problem(rng, weight_decay=1e3)
    bound = certify_dual(problem, -problem.Y).lower_bound
    value = np.sum(problem.Y**2) / 2
    assert bound <= value
    np.testing.assert_allclose(bound, value, rtol=1e-9)


def test_what_the_reduction_neglects_is_paid_for():
    # Two samples parallel to 2e-10 count as one direction, and one output cannot fit both signs. But
    # a network that uses the thin feature can, cheaply at this weight decay.
    X, Y = np.array([[1.0, 1e-10], [1.0, -1e-10]]), np.array([[1.0], [-1.0]])
    weight_decay = 1e-13
    problem = TrainingProblem(X, Y, weight_decay)
    assert reduce(problem).data.pairs == 1
    U = np.array([[0.0, 0.0], [1e5, -1e5]])
    V = np.array([[1e5], [-1e5]])
    upper = oracles.network_objective(X, Y, U, V, weight_decay)
    assert upper < 0.01
    for R in (-Y, -0.5 * Y, -0.01 * Y):
        for repair in (True, False):
            assert certify_dual(problem, R, repair=repair).lower_bound <= upper


@hypothesis.settings(max_examples=50)
@hypothesis.given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(2, 8),
    d=st.integers(1, 3),
    c=st.integers(1, 3),
    flaws=st.sets(st.sampled_from(FLAWS)),
    tolerance=st.sampled_from([1e-6, 1e-3, 0.1, 0.5]),
)
def test_a_coarse_reduction_is_paid_for(seed, n, d, c, flaws, tolerance):
    """Samples merged and features dropped that are not alike at all: weaker, never wrong."""
    rng = np.random.default_rng(seed)
    X, Y = make_data(rng, n, d, c, flaws)
    X[n // 2 :] += 0.3 * tolerance * rng.standard_normal(X[n // 2 :].shape)
    weight_decay = 10.0 ** rng.uniform(-4, 0)
    networks = list(competitors(X, Y, weight_decay, rng))
    least = min(oracles.network_objective(X, Y, U, V, weight_decay) for U, V in networks)
    reduction = reduce(TrainingProblem(X, Y, weight_decay), tolerance=tolerance)
    hypothesis.assume(reduction.data.pairs > 0)
    for R, N in dual_pairs(X, Y, networks[:1] + networks[-2:], rng):
        N = np.zeros((2 * n, 2 * n)) if N is None else N
        r, pulled = reduction.reduce_residual(R), reduction.reduce_multipliers(N)
        assert 0 <= certify_reduced(reduction, r, pulled).lower_bound <= least


# ----------------------------------------------------------------------
# What is proven is true


def least_false_scale(problem, R):
    """A scale of R at which sampling finds the dual constraint violated."""
    return float(problem.weight_decay) / oracles.brute_force_sigma(R, problem.X, 20_000)


@hypothesis.settings(max_examples=80)
@hypothesis.given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 6),
    d=st.integers(1, 3),
    c=st.integers(1, 2),
    flaws=st.sets(st.sampled_from(["features", "copies", "zeros"])),
)
def test_no_violated_constraint_is_proven(seed, n, d, c, flaws):
    rng = np.random.default_rng(seed)
    X, Y = make_data(rng, n, d, c, flaws)
    hypothesis.assume(np.any(X))
    problem = TrainingProblem(X, Y, 0.1)
    certificate = certify_dual(problem, -Y + 0.1 * rng.standard_normal(Y.shape))
    hypothesis.assume(np.any(certificate.residual))
    reduction, R = certificate.proof.reduction, np.asarray(certificate.residual)
    N = np.asarray(certificate.proof.multipliers)
    assert _constraint_holds(reduction, R, N)
    assert oracles.brute_force_sigma(R, X, 20_000) <= 0.1 * (1 + 1e-12)
    false = least_false_scale(problem, R)
    for excess in (1e-6, 1e-3, 1.0, 100.0):
        scale = false * (1 + excess)
        for multipliers in (N, scale * N, scale**2 * N, 0 * N, 10 * N):
            assert not _constraint_holds(reduction, scale * R, multipliers)


@pytest.mark.parametrize("n", [2, 5])
def test_a_tight_proof_breaks_just_above(rng, n):
    """Two samples: the relaxation is exact, so what is true is provable up to the last digits."""
    problem = small_problem(rng, n=n, c=1)
    R, N = planted(problem).dual_pair()
    reduction = certify_dual(problem, R, N).proof.reduction
    r, pulled = reduction.reduce_residual(R), reduction.reduce_multipliers(oracles.signed(N))
    best = certify_reduced(reduction, r, pulled)
    R, N = np.asarray(best.residual), np.asarray(best.proof.multipliers)
    assert _constraint_holds(reduction, R, N)
    sigma = oracles.sigma_rank2(R, problem.X)
    assert sigma <= 0.1
    assert not _constraint_holds(reduction, R * (1 + 1e-6) * 0.1 / sigma, N)
    if n == 2:
        assert sigma > 0.0999


def test_multipliers_do_not_prove_more_than_is_true(rng):
    problem = small_problem(rng)
    reduction = reduce(problem)
    assert _constraint_holds(reduction, np.zeros((5, 2)), np.zeros((10, 10)))
    assert not _constraint_holds(reduction, -problem.Y, np.zeros((10, 10)))
    assert not _constraint_holds(reduction, np.full((5, 2), np.nan), np.zeros((10, 10)))


# ----------------------------------------------------------------------
# Bad input


@pytest.mark.parametrize(
    ("R", "N", "message"),
    [
        (np.zeros((4, 2)), None, r"residual must have shape \(5, 2\); its shape is \(4, 2\)"),
        (np.zeros(5), None, r"residual must have shape \(5, 2\); its shape is \(5,\)"),
        (np.full((5, 2), np.nan), None, "residual must be finite"),
        (np.full((5, 2), np.inf), None, "residual must be finite"),
        (np.zeros((5, 2)), np.zeros((5, 5)), r"multipliers must have shape \(10, 10\).*\(5, 5\)"),
        (np.zeros((5, 2)), np.full((10, 10), np.nan), "multipliers must be finite"),
        (np.zeros((5, 2)), np.full((10, 10), -np.inf), "multipliers must be finite"),
    ],
)
def test_bad_pairs_are_named(rng, R, N, message):
    with pytest.raises(ValueError, match=message):
        certify_dual(small_problem(rng), R, N)


def test_bad_reduced_pairs_are_named(rng):
    reduction = reduce(small_problem(rng))
    with pytest.raises(ValueError, match=r"residual must have shape \(5, 2\)"):
        certify_reduced(reduction, np.zeros((5, 1)), np.zeros((10, 10)))
    with pytest.raises(ValueError, match=r"multipliers must have shape \(10, 10\)"):
        certify_reduced(reduction, np.zeros((5, 2)), np.zeros((9, 9)))
    with pytest.raises(ValueError, match="multipliers must be finite"):
        certify_reduced(reduction, np.zeros((5, 2)), np.full((10, 10), np.nan))


@pytest.mark.parametrize("size", [1e50, 1e100, 1e200, 1e-100, 1e-200])
def test_absurd_sizes_give_a_weak_bound(rng, size):
    problem = small_problem(rng)
    exact = oracles.exact_rank2(problem.X, problem.Y, 0.1)
    noise, N = rng.standard_normal((5, 2)), rng.standard_normal((10, 10))
    assert 0 <= certify_dual(problem, -size * problem.Y, N).lower_bound <= exact
    assert 0 <= certify_dual(problem, noise, size * N).lower_bound <= exact


def test_it_needs_concrete_data(rng):
    problem = small_problem(rng)

    def bound(R):
        return certify_dual(problem, R).lower_bound

    with pytest.raises(ValueError, match="outside jit"):
        jax.jit(bound)(np.zeros((5, 2)))
    with pytest.raises(ValueError, match="concrete data"):
        jax.jit(lambda X: certify_dual(TrainingProblem(X, problem.Y, 0.1), -problem.Y).lower_bound)(
            problem.X
        )
