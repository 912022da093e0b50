"""The price of polynomial neurons is proven, attained, and of the right invariances."""

import numpy as np
import pytest
import scipy.optimize

from jaxcvxnn import Polynomial
from jaxcvxnn.pricing import polynomial_price

PHI = Polynomial.relu()


def on_the_sphere(rng, count, d):
    u = rng.standard_normal((count, d))
    return u / np.linalg.norm(u, axis=1, keepdims=True)


def values(R, X, phi, neurons):
    """|R_k' phi(X u)|: (outputs, neurons)."""
    return np.abs(R.T @ phi(X @ neurons.T))


@pytest.mark.parametrize("d", [1, 2, 4])
@pytest.mark.parametrize("phi", [PHI, Polynomial(-1, 0, 0), Polynomial(1e-3, 2, -0.3)])
def test_never_below_what_neurons_attain(rng, phi, d):
    for scale in (1e-150, 1e-6, 1.0, 1e9):
        X, R = rng.standard_normal((12, d)), scale * rng.standard_normal((12, 2))
        price = polynomial_price(R, X, phi)
        attained = np.diag(values(R, X, phi, price.neurons))
        sampled = values(R, X, phi, on_the_sphere(rng, 4000, d)).max(axis=1)
        assert np.all(price.uppers >= sampled) and np.all(price.uppers >= attained)
        np.testing.assert_allclose(attained, price.lowers, rtol=1e-12)
        assert np.all(price.uppers <= price.lowers * (1 + 1e-11))
        assert price.upper == price.uppers.max() and price.lower == price.lowers.max()
        best = values(R, X, phi, price.neuron[None]).max()
        np.testing.assert_allclose(best, price.lower, rtol=1e-12)


def test_no_local_maximum_is_higher(rng):
    X, r = rng.standard_normal((15, 4)), rng.standard_normal((15, 1))
    price = polynomial_price(r, X, PHI)

    def loss(u, sign):
        return -sign * float(r[:, 0] @ PHI(X @ (u / np.linalg.norm(u))))

    found = [
        -scipy.optimize.minimize(loss, start, args=(sign,)).fun
        for start in on_the_sphere(rng, 15, 4)
        for sign in (1, -1)
    ]
    assert max(found) <= price.upper
    np.testing.assert_allclose(max(found), price.upper, rtol=1e-9)


def test_known_prices(rng):
    """One sample: max |a t^2 + b t + c| over |t| <= |x|. Squares only: the spectral norm."""
    x = np.array([[0.6, 0, -0.8]])
    for length, expected in ((2.0, 1.83), (0.1, 0.5209)):
        price = polynomial_price([1.0], length * x, PHI)
        np.testing.assert_allclose(price.upper, expected, rtol=1e-12)
        np.testing.assert_allclose(price.neuron, x[0], atol=1e-12)
    # t^2 - 1 on [-1, 1]: every neuron orthogonal to x attains -1 (the hard case).
    np.testing.assert_allclose(polynomial_price([1.0], x, Polynomial(1, 0, -1)).upper, 1.0)
    X, r = rng.standard_normal((9, 3)), rng.standard_normal(9)
    norm = np.linalg.norm((X.T * r) @ X, 2)
    np.testing.assert_allclose(polynomial_price(r, X, Polynomial(2, 0, 0)).upper, 2 * norm)


def test_degenerate_data(rng):
    X = rng.standard_normal((6, 3))
    assert polynomial_price(np.zeros((6, 1)), X, PHI).upper < 1e-290
    # Opposite residuals of equal samples cancel; what is proven is rounding.
    twice, r = np.vstack([X, X]), rng.standard_normal(6)
    assert polynomial_price(np.append(r, -r), twice, PHI).upper < 1e-12
    # Only the constant is left of zero samples.
    price = polynomial_price(np.ones(6), np.zeros((6, 3)), PHI)
    np.testing.assert_allclose(price.upper, 6 * 0.47, rtol=1e-12)
    # A multiple of the identity: all neurons are alike.
    price = polynomial_price(np.ones(3), np.eye(3), Polynomial(1, 0, 0))
    np.testing.assert_allclose(price.upper, 1, rtol=1e-12)
    assert polynomial_price(np.full(6, 1e300), 1e100 * X, PHI).upper == np.inf


def test_invariances(rng):
    X, R = rng.standard_normal((40, 4)), rng.standard_normal((40, 3))
    price = polynomial_price(R, X, PHI)
    turn = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    np.testing.assert_allclose(polynomial_price(R, X @ turn, PHI).uppers, price.uppers, rtol=1e-11)
    order = rng.permutation(40)
    np.testing.assert_allclose(polynomial_price(R[order], X[order], PHI).uppers, price.uppers)
    np.testing.assert_allclose(polynomial_price(-3 * R, X, PHI).uppers, 3 * price.uppers)
    mirrored = Polynomial(PHI.a, -PHI.b, PHI.c)
    np.testing.assert_allclose(polynomial_price(R, -X, mirrored).uppers, price.uppers, rtol=1e-11)
    # phi(s t) with X / s for X.
    scaled = Polynomial(4 * PHI.a, 2 * PHI.b, PHI.c)
    np.testing.assert_allclose(polynomial_price(R, X / 2, scaled).uppers, price.uppers, rtol=1e-11)


def test_many_samples_whose_residuals_nearly_cancel(rng):
    """The error of the sums is bounded, and the bound stays useful."""
    X, R = rng.standard_normal((5000, 3)), rng.standard_normal((5000, 1))
    rows = np.column_stack([X, np.ones(5000)])
    products = (rows[:, :, None] * rows[:, None, :])[:, *np.triu_indices(4)]
    R = R - products @ np.linalg.lstsq(products, R, rcond=None)[0]
    price = polynomial_price(R, X, PHI)
    attained = values(R, X, PHI, on_the_sphere(rng, 500, 3)).max()
    assert attained <= price.upper < 1e-9


def test_a_perturbed_residual_is_covered(rng):
    X, R = rng.standard_normal((10, 3)), rng.standard_normal((10, 2))
    slack = rng.uniform(0, 0.1, 10)
    price = polynomial_price(R, X, PHI, perturbation=slack)
    neurons = on_the_sphere(rng, 500, 3)
    for _ in range(20):
        shift = rng.standard_normal((10, 2))
        shift *= (slack / np.linalg.norm(shift, axis=1))[:, None]
        assert np.all(price.uppers >= values(R + shift, X, PHI, neurons).max(axis=1))


def test_bad_input(rng):
    X = rng.standard_normal((5, 3))
    with pytest.raises(ValueError, match="residual must have 5 rows"):
        polynomial_price(np.ones(4), X, PHI)
    with pytest.raises(ValueError, match="features must be finite"):
        polynomial_price(np.ones(5), X + np.inf, PHI)
