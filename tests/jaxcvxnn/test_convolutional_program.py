"""Convolutional polynomial networks: the program, its networks and their certificates."""

import dataclasses

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxcvxnn
from jaxcone import InteriorPoint
from jaxcvxnn import (
    ConvolutionalPolynomialNetwork,
    ConvolutionalProblem,
    Polynomial,
    TrainingProblem,
    certify_residual,
    image_patches,
)
from jaxcvxnn.conic.quadratic_forms import QuadraticForms, pooled_forms
from jaxcvxnn.programs import (
    ConvolutionalSpectrahedron,
    SpectrahedronSplitting,
    convolutional_network,
)
from jaxcvxnn.proof import (
    certify_network,
)

from ..helpers import lane
from ..polynomial_oracle import LOSSES, fitted, minimise

PHI = Polynomial.relu()
PROGRAM = ConvolutionalSpectrahedron()
DECAYS = np.array([0.05, 0.2, 1e3])


@jax.jit
def solve_boxed(data):
    return jaxcvxnn.solve(data, PROGRAM)


@jax.jit
def solve_batch(data):
    def at(weight_decay):
        return jaxcvxnn.solve(dataclasses.replace(data, weight_decay=weight_decay), PROGRAM)

    return jax.vmap(at)(DECAYS)


def solve(problem):
    """The middle lane of a batch over weight decays; and the others' values."""
    batch = solve_batch(PROGRAM.data(problem))
    return lane(batch, 1), batch.objective


def draw(rng, *, pool=2, loss="squared", n=14, outputs=1, weight_decay=0.2):
    """Four patches of three entries, and targets that filters can see."""
    patches = rng.standard_normal((4, n, 3))
    Y = np.stack([patches[0, :, 0] ** 2 - patches[2, :, 1] * patches[3, :, 2], patches[1, :, 0]], 1)
    if loss == "softmax":
        Y = np.argmax(np.column_stack([Y, np.full(n, 0.3)]), axis=1)
    else:
        Y = Y[:, :outputs] + 0.1 * rng.standard_normal((n, outputs))
        Y = np.sign(Y) if loss in ("hinge", "logistic") else Y
    return ConvolutionalProblem(patches, Y, weight_decay, pool=pool, loss=loss, activation=PHI)


def oracle(problem):
    """The program in plain CVXPY, one pair of matrices per pool and output."""
    pools, side = problem.pools, problem.patches.shape[2] + 1
    outputs, matrices = [], []
    for _ in range(problem.Y.shape[1]):
        pairs = [[cp.Variable((side, side), PSD=True) for _ in pools] for _ in range(2)]
        outputs.append(
            sum(
                fitted(X, problem.activation, Z - W) / problem.pool
                for Z, W, pool in zip(*pairs, pools, strict=True)
                for X in pool
            )
        )
        matrices += pairs[0] + pairs[1]
    loss = LOSSES[problem.loss.name](cp.vstack(outputs).T, problem.Y)
    return minimise(loss, matrices, float(problem.weight_decay))


def test_value_network_and_certificate_agree(rng):
    problem = draw(rng)
    found, values = solve(problem)
    expected = oracle(problem)
    assert values[0] < values[1]
    np.testing.assert_allclose(values[2], np.sum(problem.Y**2) / 2, rtol=1e-8)
    np.testing.assert_allclose(found.objective, expected, rtol=1e-8)
    np.testing.assert_allclose(found.dual_objective, expected, rtol=1e-8)
    network = convolutional_network(problem, found.positive, found.negative, tolerance=1e-7)
    np.testing.assert_allclose(problem.objective(network), expected, rtol=1e-6)
    assert network.width <= 2 * 2 * 4
    np.testing.assert_allclose(
        network.predict(problem.patches) - problem.Y, found.residual, atol=1e-4
    )
    # The proof, from the program's residual and from that of the network.
    bound = certify_residual(problem, found.residual).lower_bound
    assert bound <= expected * (1 + 1e-9)
    np.testing.assert_allclose(bound, expected, rtol=1e-7)
    proof = certify_network(problem, network)
    better = certify_network(problem, network, residual=found.residual)
    assert better.lower_bound == bound > proof.lower_bound
    assert better.bound_source == "the residual given" and better.price == proof.price
    assert 0 <= proof.relative_gap < 1e-6 and np.shape(proof.neuron) == (3,)


@pytest.mark.parametrize("loss", ["huber", "absolute", "hinge"])
def test_losses_whose_dual_is_boxed(rng, loss):
    problem = draw(rng, loss=loss, outputs=2)
    found = solve_boxed(PROGRAM.data(problem))
    expected = oracle(problem)
    np.testing.assert_allclose(found.objective, expected, rtol=1e-7)
    assert found.positive.shape == (2, 2, 4, 4) and found.residual.shape == (14, 2)
    network = convolutional_network(problem, found.positive, found.negative)
    np.testing.assert_allclose(problem.objective(network), expected, rtol=1e-6)
    bound = certify_residual(problem, found.residual).lower_bound
    assert bound <= expected * (1 + 1e-8)
    np.testing.assert_allclose(bound, expected, rtol=1e-6)


def split(problem):
    return jaxcvxnn.solve(problem, PROGRAM, SpectrahedronSplitting(tolerance=1e-7))


@jax.jit
def split_batch(problem, weight_decays):
    def at(weight_decay):
        return split(dataclasses.replace(problem, weight_decay=weight_decay))

    return jax.vmap(at)(weight_decays)


def check_split(problem, found):
    """Value, network and proof agree with the oracle."""
    expected = oracle(problem)
    np.testing.assert_allclose(found.objective, expected, rtol=1e-6)
    (n, outputs), pools = problem.Y.shape, len(problem.pools)
    assert found.positive.shape == (pools, outputs, 4, 4) and found.residual.shape == (n, outputs)
    network = convolutional_network(problem, found.positive, found.negative, tolerance=1e-9)
    np.testing.assert_allclose(problem.objective(network), found.objective, rtol=1e-8)
    proof = certify_network(problem, network, residual=found.residual)
    assert proof.lower_bound <= expected * (1 + 1e-8)
    assert 0 <= proof.relative_gap < 1e-6
    # Every pool has a price for each of its outputs, and some neuron pays for itself.
    price = certify_residual(problem, found.residual).proof
    assert price.uppers.shape == (pools * outputs,)
    np.testing.assert_allclose(price.upper, problem.weight_decay, rtol=1e-3)


def test_several_outputs_that_the_loss_couples(rng):
    problem = draw(rng, loss="softmax", n=24)  # more than the coordinates of two pools
    assert problem.Y.shape == (24, 3)
    check_split(problem, jax.jit(split)(problem))


def test_a_batch_over_weight_decays(rng):
    """Every lane against an oracle that knows nothing of the others."""
    problem, weight_decays = draw(rng, loss="logistic"), np.array([0.2, 0.5])
    batch = split_batch(problem, weight_decays)
    for index, weight_decay in enumerate(weight_decays):
        check_split(dataclasses.replace(problem, weight_decay=weight_decay), lane(batch, index))


def test_forms_of_pools_agree_with_their_definition(rng):
    X, R = rng.standard_normal((3, 2, 5, 4)), rng.standard_normal((5, 2))
    M = rng.standard_normal((3, 2, 5, 5))
    M = M + M.swapaxes(2, 3)
    rows = np.concatenate([X, np.ones_like(X[..., :1])], axis=-1)
    C = np.full((5, 5), PHI.a)
    C[:, -1] = C[-1, :] = PHI.b / 2
    C[-1, -1] = PHI.c
    F = C * np.einsum("gpni,gpnj->ngij", rows, rows) / 2

    @jax.jit
    def at_work(X, R, M):
        forms = pooled_forms(X, PHI)
        balanced, rows = forms.balance(M), forms.rows()
        flat = rows @ forms.vectors(balanced).T, forms.outputs(balanced)
        # One patch per sample is the fully connected network.
        one, same = pooled_forms(X[:1, :1], PHI), QuadraticForms(X[0, 0], PHI)
        pairs = flat, (one.outputs(M[:1]), same.outputs(M[0])), (one.price(R), same.price(R))
        return forms, forms.outputs(M), forms.adjoint(R), forms.matrices(forms.vectors(M)), pairs

    forms, reached, pulled, back, pairs = at_work(X, R, M)
    np.testing.assert_allclose(reached, np.einsum("ngij,gcij->nc", F, M), atol=1e-12)
    np.testing.assert_allclose(pulled, np.einsum("ngij,nc->gcij", F, R), atol=1e-12)
    np.testing.assert_allclose(back, M, atol=1e-12)
    assert (forms.side, forms.coordinates) == (5, 3 * 15)
    for left, right in pairs:
        np.testing.assert_allclose(left, right, atol=1e-12)


def test_no_descent_goes_below_the_bound(rng):
    """Adam from many starts, with filters u / |u| shared by all pools."""
    problem = draw(rng)
    found, _ = solve(problem)
    bound = certify_residual(problem, found.residual).lower_bound

    def network(weights):
        filters, outputs = weights
        unit = filters / jnp.linalg.norm(filters, axis=0)
        return ConvolutionalPolynomialNetwork(unit, outputs, PHI, 2)

    def descend(key):
        rule = optax.adam(optax.cosine_decay_schedule(0.1, 600))
        first, second = jax.random.split(key)
        start = (jax.random.normal(first, (3, 12)), jax.random.normal(second, (12, 2)))

        def step(state, _):
            weights, memory = state
            loss, slope = jax.value_and_grad(lambda w: problem.objective(network(w)))(weights)
            change, memory = rule.update(slope, memory)
            return (optax.apply_updates(weights, change), memory), loss

        return jax.lax.scan(step, (start, rule.init(start)), None, 600)[1].min()

    values = np.asarray(jax.jit(jax.vmap(descend))(jax.random.split(jax.random.key(0), 8)))
    assert values.min() >= bound
    assert values.min() <= bound * 1.1


def test_one_patch_is_the_fully_connected_network(rng):
    """Also in its certificate: one pool, one output."""
    X, Y = rng.standard_normal((14, 3)), rng.standard_normal((14, 1))
    problem = ConvolutionalProblem(X[None], Y, 0.2, activation=PHI)
    flat = TrainingProblem(X, Y, 0.2, activation=PHI)
    R = rng.standard_normal((14, 1))
    one = certify_residual(problem, R)
    other = certify_residual(flat, R)
    np.testing.assert_allclose(one.lower_bound, other.lower_bound, rtol=1e-12)
    np.testing.assert_allclose(one.proof.uppers, other.proof.uppers, rtol=1e-12)


def test_repeated_patches_are_pooled_to_themselves(rng):
    problem = draw(rng, pool=1)
    twice = np.repeat(problem.patches, 2, axis=0)
    pooled = ConvolutionalProblem(twice, problem.Y, 0.2, pool=2, activation=PHI)
    R = rng.standard_normal(problem.Y.shape)
    prices = [certify_residual(p, R).proof for p in (problem, pooled)]
    np.testing.assert_allclose(prices[0].uppers, prices[1].uppers, rtol=1e-12)
    network = ConvolutionalPolynomialNetwork(np.eye(3), rng.standard_normal((3, 4)), PHI, 2)
    same = ConvolutionalPolynomialNetwork(network.filters, network.weights, PHI)
    np.testing.assert_allclose(network.predict(twice), same.predict(problem.patches), rtol=1e-12)
    assert network.weights.shape == (3, 4, 1)
    expected = sum(
        PHI(problem.patches[k] @ network.filters) @ network.weights[:, k] for k in range(4)
    )
    np.testing.assert_allclose(same.predict(problem.patches), expected, rtol=1e-12)


def test_patches_of_images(rng):
    images = rng.standard_normal((2, 4, 5))
    patches = image_patches(images, 3, stride=2)
    assert patches.shape == (2, 2, 9)
    np.testing.assert_array_equal(patches[1, 0].reshape(3, 3), images[0, :3, 2:5])
    assert image_patches(images, 2).shape == (12, 2, 4)
    with pytest.raises(ValueError, match="image_patches takes images"):
        image_patches(images, 5)


def test_bad_input(rng):
    problem = draw(rng)
    patches, Y = problem.patches, problem.Y
    with pytest.raises(ValueError, match="pool must divide the number of patches, 4; got 3"):
        ConvolutionalProblem(patches, Y, pool=3)
    with pytest.raises(ValueError, match=r"patches must have shape \(K, n, f\)"):
        ConvolutionalProblem(patches[0], Y)
    with pytest.raises(ValueError, match=r"takes activation=Polynomial\(a, b, c\)"):
        ConvolutionalProblem(patches, Y, activation="relu")
    with pytest.raises(ValueError, match="one row per sample"):
        ConvolutionalProblem(patches, Y[1:])
    with pytest.raises(ValueError, match="hinge losses, without weights; got 'logistic'"):
        labels = np.where(Y > 0, 1, -1)
        jaxcvxnn.solve(
            ConvolutionalProblem(patches, labels, loss="logistic"), PROGRAM, InteriorPoint()
        )
    with pytest.raises(ValueError, match="problem must be a ConvolutionalProblem"):
        jaxcvxnn.solve(TrainingProblem(patches[0], Y), PROGRAM)
    with pytest.raises(ValueError, match=r"takes filters of shape \(f, m\)"):
        ConvolutionalPolynomialNetwork(np.eye(3), np.ones((2, 4)), PHI)
    with pytest.raises(ValueError, match=r"positive must have shape \(2, 1, 4, 4\)"):
        convolutional_network(problem, np.ones((2, 4, 4)), np.ones((2, 4, 4)))
    other = ConvolutionalPolynomialNetwork(np.eye(3), np.ones((3, 4)), PHI)
    with pytest.raises(ValueError, match="4 pools and 1 outputs; the problem has 3, 2 and 1"):
        certify_network(problem, other)
    wide = ConvolutionalPolynomialNetwork(2 * np.eye(3), np.ones((3, 2)), PHI, 2)
    with pytest.raises(ValueError, match="unit vectors"):
        certify_network(problem, wide)
    with pytest.raises(ValueError, match="pools of 1; the problem"):
        problem.objective(other)
