"""Whitened data in closed form: against column generation, by invariance, and where it fails."""

import numpy as np
import pytest

import jaxcvxnn
from jaxcvxnn.pricing.price import prices
from jaxcvxnn.studies import whitened_optimum, whitening
from jaxcvxnn.studies.whitened import nonnegative_factor
from jaxcvxnn.training import generate_columns


def white(rng, n, d) -> np.ndarray:
    X = rng.standard_normal((n, d))
    return X @ whitening(X)


def thresholded(Y, threshold) -> float:
    """min 1/2 |F - Y|^2 + threshold |F|_*: the optimum of linear networks."""
    values = np.linalg.svd(Y, compute_uv=False)
    return float(np.sum(Y**2) / 2 - np.sum(np.maximum(values - threshold, 0) ** 2) / 2)


def bracketed(found, X, Y, weight_decay) -> bool:
    """Whether column generation's bracket, which is independent, meets that of the closed form."""
    other = generate_columns(jaxcvxnn.TrainingProblem(X, Y, weight_decay), tolerance=1e-4)
    assert other.status == "solved"
    return other.lower_bound <= found.upper_bound and found.lower_bound <= other.upper_bound


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_one_hot_labels(rng, scale):
    X, Y = scale * white(rng, 4, 6), np.eye(2)[[0, 1, 0, 1]]  # equal singular values
    found = whitened_optimum(jaxcvxnn.TrainingProblem(X, Y, 0.3))
    assert found.exact and not found.reason
    assert found.network.width == 2
    np.testing.assert_allclose(found.upper_bound, thresholded(Y, 0.3 / scale), rtol=1e-13)
    assert 0 <= found.relative_gap < 1e-12
    assert bracketed(found, X, Y, 0.3)


def test_overlapping_singular_vectors(rng):
    """Beyond theorem 2: the second singular vector has both signs, and the optimum is still linear."""
    X, A = white(rng, 4, 5), np.array([[1.0, 0], [0.9, 0.2], [0.3, 0.8], [0.1, 1]])
    values, vectors = np.linalg.eigh(A @ A.T)
    left = vectors[:, 2:]
    assert np.max(np.min(left * np.sign(left[:1]), axis=0)) > 0 > np.min(left * np.sign(left[:1]))
    turn = np.array([[0.6, 0.8], [-0.8, 0.6]])
    Y = (left * (values[2:] + 0.1)) @ turn  # so that the linear optimum's H is A A'
    found = whitened_optimum(jaxcvxnn.TrainingProblem(X, Y, 0.1))
    assert found.exact and found.network.width == 2
    np.testing.assert_allclose(found.upper_bound, thresholded(Y, 0.1), rtol=1e-13)
    assert 0 <= found.relative_gap < 1e-12
    assert bracketed(found, X, Y, 0.1)


def test_perron_frobenius(rng):
    """Remark 5.2: Y Y' nonnegative, weight decay above the second singular value."""
    X, Y = white(rng, 40, 50), np.abs(rng.standard_normal((40, 7)))
    second = np.linalg.svd(Y, compute_uv=False)[1]
    found = whitened_optimum(jaxcvxnn.TrainingProblem(X, Y, 1.01 * second))
    assert found.exact and found.network.width == 1 and found.relative_gap < 1e-12
    below = whitened_optimum(jaxcvxnn.TrainingProblem(X, Y, 0.1 * second))
    assert not below.exact


def test_nothing_is_worth_its_weight(rng):
    X, Y = white(rng, 3, 3), rng.standard_normal((3, 2))
    found = whitened_optimum(jaxcvxnn.TrainingProblem(X, Y, 10.0))
    assert found.exact and found.network.width == 0
    np.testing.assert_allclose(found.lower_bound, np.sum(Y**2) / 2, rtol=1e-14)


def test_where_the_condition_fails(rng):
    X = white(rng, 4, 6)
    Y = np.array([[1.0, 0.2], [-0.9, 0.3], [0.5, 1.0], [-0.4, 0.8]])
    found = whitened_optimum(jaxcvxnn.TrainingProblem(X, Y, 0.1))
    assert not found.exact
    assert "fails" in found.reason and "samples 0 and 1" in found.reason
    np.testing.assert_allclose(found.lower_bound, thresholded(Y, 0.1), rtol=1e-13)
    best = generate_columns(jaxcvxnn.TrainingProblem(X, Y, 0.1), tolerance=1e-4)
    assert found.lower_bound < best.lower_bound * (1 - 1e-3)  # the gap is not the proof's fault
    assert best.lower_bound <= found.upper_bound < 1.3 * best.upper_bound


def test_three_overlapping_vectors_are_not_decided(rng):
    X, Y = white(rng, 4, 4), 0.2 + np.eye(4)[:, :3] + np.eye(4)[:, [3, 0, 1]]
    found = whitened_optimum(jaxcvxnn.TrainingProblem(X, Y, 0.01))
    assert not found.exact and "not decided: 3 singular vectors" in found.reason
    assert found.lower_bound <= found.upper_bound


def test_certificate_holds_for_sampled_neurons(rng):
    X, Y = 2 * white(rng, 6, 8), rng.standard_normal((6, 3))
    found = whitened_optimum(jaxcvxnn.TrainingProblem(X, Y, 0.5))
    certificate = found.certificate
    neurons = rng.standard_normal((20_000, 8))
    neurons /= np.linalg.norm(neurons, axis=1)[:, None]
    assert np.max(prices(certificate.residual, X, neurons)) <= certificate.proof.upper
    R = certificate.scale * certificate.residual
    assert certificate.lower_bound <= -np.sum(R * Y) - np.sum(R**2) / 2
    assert certificate.proof.upper * certificate.scale <= 0.5


def test_almost_white_data_keep_rigorous_bounds(rng):
    X, Y = white(rng, 4, 6) + 1e-7 * rng.standard_normal((4, 6)), np.eye(2)[[0, 1, 0, 1]]
    found = whitened_optimum(jaxcvxnn.TrainingProblem(X.astype(np.float32), Y, 0.3))
    assert found.exact and 0 <= found.relative_gap < 1e-5
    assert bracketed(found, X.astype(np.float32), Y, 0.3)


@pytest.mark.parametrize("rank", [1, 2])
def test_nonnegative_factor(rng, rank):
    blocks = [np.abs(rng.standard_normal((5, rank))), np.abs(rng.standard_normal((4, rank)))]
    B = np.zeros((10, 2 * rank))
    B[[0, 2, 4, 6, 8], :rank], B[[1, 3, 5, 7], rank:] = blocks
    atoms, reason = nonnegative_factor(B @ B.T)
    assert reason == "" and atoms.shape == B.shape and np.all(atoms >= 0)
    np.testing.assert_allclose(atoms @ atoms.T, B @ B.T, atol=1e-12)


def test_whitening(rng):
    X = rng.standard_normal((5, 9)) * 10.0 ** rng.integers(-2, 3, 5)[:, None]
    W = whitening(X)
    np.testing.assert_allclose(X @ W @ (X @ W).T, np.eye(5), atol=1e-10)
    np.testing.assert_allclose(W, W.T, atol=1e-10 * np.max(np.abs(W)))
    centred = X - X.mean(axis=0)
    with pytest.raises(ValueError, match="centred samples are dependent"):
        whitening(centred)
    with pytest.raises(ValueError, match="at most as many samples as features"):
        whitening(X.T)


def test_refusals(rng):
    X, Y = white(rng, 4, 6), rng.standard_normal((4, 2))
    cases = [
        (dict(X=np.linalg.qr(rng.standard_normal((6, 4)))[0], Y=Y[[0] * 6]), "its shape is"),
        (dict(X=X + 0.1, Y=Y), "X must be white"),
        (dict(X=X - X.mean(axis=0), Y=Y), "X must be white"),
        (dict(X=X, Y=Y, loss="huber"), "squared loss only"),
        (dict(X=X, Y=Y, activation="absolute"), "ReLU only"),
        (dict(X=X, Y=Y, bias=True), "X must be white"),
    ]
    for data, message in cases:
        with pytest.raises(ValueError, match=message):
            whitened_optimum(jaxcvxnn.TrainingProblem(**data))  # pyright: ignore[reportArgumentType]
