"""Bartan and Pilanci's program (21): its optimum by two methods, its symmetries, batches and paths."""

import itertools
import time

import chex
import cvxpy as cp
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcone import InteriorPoint, Status, svec
from jaxcone.extend import after
from jaxcvxnn import (
    ConvolutionalProblem,
    Job,
    Polynomial,
    PolynomialNetwork,
    TrainingProblem,
    solve,
)
from jaxcvxnn.conic.quadratic_forms import QuadraticForms, compress, largest_on_sphere
from jaxcvxnn.programs import (
    ConeGroupLasso,
    NeuralSpectrahedron,
    SpectrahedronSplitting,
    effective_width,
    spectrahedron_path,
)
from jaxcvxnn.programs.spectrahedron_points import balanced, samples_of
from jaxcvxnn.programs.spectrahedron_splitting import solve_on_host
from jaxcvxnn.programs.spectrahedron_systems import (
    CoordinateGram,
    ProductGram,
    SampleGram,
    prepare,
)

from ..helpers import lane, stack, symmetric

PHI = Polynomial.relu()
EXACT = SpectrahedronSplitting(tolerance=1e-9)
# All tests share few shapes: compiling takes most of the time.
SAMPLES, FEATURES, OUTPUTS = 24, 3, 2

solved = eqx.filter_jit(lambda problem: solve(problem, NeuralSpectrahedron(), EXACT))
solved_batch = jax.jit(
    jax.vmap(lambda problem, weights: solve(problem, NeuralSpectrahedron(weights), EXACT))
)


def draw(rng, c=OUTPUTS):
    """Samples and the noisy outputs of two neurons of unit length for each output."""
    X = rng.standard_normal((SAMPLES, FEATURES))
    U = rng.standard_normal((2 * c, FEATURES))
    hidden = PHI(X @ (U / np.linalg.norm(U, axis=1)[:, None]).T)
    Y = hidden.reshape(SAMPLES, c, 2) @ np.array([3.0, -2.0])
    return X, Y + 0.1 * rng.standard_normal(Y.shape)


def training(X, Y, weight_decay=0.5, **settings):
    settings = {"activation": PHI} | settings
    return jax.tree.map(jnp.asarray, TrainingProblem(X, Y, weight_decay, **settings))


def loss_of(name, Z, Y):
    match name:
        case "squared":
            return cp.sum_squares(Z - Y) / 2
        case "hinge":
            return cp.sum(cp.pos(1 - cp.multiply(Y, Z)))
        case _:
            return cp.sum(cp.logistic(-cp.multiply(Y, Z)))


def by_clarabel(problem):
    """The value of (21) as the paper states it, and m*."""
    X, Y = np.asarray(problem.features), np.asarray(problem.Y)
    (n, d), c, phi = X.shape, Y.shape[1], problem.activation
    Z = [[cp.Variable((d + 1, d + 1), PSD=True) for _ in range(2)] for _ in range(c)]
    squares = (X[:, :, None] * X[:, None, :]).reshape(n, -1)
    fitted = []
    for positive, negative in Z:
        M = positive - negative
        fitted.append(
            phi.a * squares @ cp.vec(M[:d, :d], order="F") + phi.b * X @ M[:d, d] + phi.c * M[d, d]
        )
    penalty = sum(one[d, d] for pair in Z for one in pair)
    balance = [cp.trace(one[:d, :d]) == one[d, d] for pair in Z for one in pair]
    loss = loss_of(problem.loss.name, cp.vstack(fitted).T, Y)
    program = cp.Problem(cp.Minimize(loss + float(problem.weight_decay) * penalty), balance)
    value = program.solve(
        solver="CLARABEL"
    )  # to its own 1e-8; asked for more it may give up and warn
    width = sum(np.sum(np.linalg.eigvalsh(one.value) > 1e-5) for pair in Z for one in pair)
    return float(value), int(width)


def check(problem, found):
    """The bounds enclose each other's claim, and the point is feasible and worth what it says."""
    assert found.status == Status.solved
    assert found.dual_objective <= found.objective * (1 + 1e-12)
    X, wd, phi = np.asarray(problem.features), float(problem.weight_decay), problem.activation
    Z = np.stack([found.positive, found.negative])
    corner = Z[:, :, -1, -1]
    np.testing.assert_allclose(np.trace(Z[:, :, :-1, :-1], axis1=2, axis2=3), corner, rtol=1e-12)
    assert np.min(np.linalg.eigvalsh(Z)) >= -1e-12 * np.max(corner)
    M = Z[0] - Z[1]
    fitted = phi.a * np.einsum("ni,cij,nj->nc", X, M[:, :-1, :-1], X)
    fitted = fitted + phi.b * X @ M[:, :-1, -1].T + phi.c * M[:, -1, -1]
    objective = problem.loss.value(fitted, problem.Y) + wd * np.sum(corner)
    np.testing.assert_allclose(found.objective, objective, rtol=1e-10)
    # No neuron of a fine sample violates the dual constraint, and the best one nearly meets it.
    U = np.random.default_rng(0).standard_normal((X.shape[1], 20000))
    hidden = np.asarray(phi(X @ (U / np.linalg.norm(U, axis=0))))
    prices = np.abs(np.asarray(found.residual).T @ hidden)
    assert 0.98 * wd <= np.max(prices) <= wd * (1 + 1e-3)


@pytest.fixture(scope="module")
def batch():
    """Squared loss, two outputs: problems, weights and their solutions, in one batch."""
    rng = np.random.default_rng(7)
    X, Y = draw(rng)
    rotation = np.linalg.qr(rng.standard_normal((FEATURES, FEATURES)))[0]
    order = rng.permutation(SAMPLES)
    half = SAMPLES // 2
    twice = np.concatenate([np.arange(half), np.arange(half)])
    ones, fold = np.ones(SAMPLES), np.repeat([2.0, 0.0], half)
    lanes = {
        "base": (training(X, Y), ones),
        "rotated": (training(X @ rotation, Y), ones),
        "permuted": (training(X[order], Y[order]), ones),
        "scaled": (training(X, 10 * Y, 5.0), ones),
        "doubled": (training(X[twice], Y[twice]), ones),
        "weighted": (training(X, Y), fold),
        "strong": (training(X, Y, 5.0), ones),
        "weak": (training(X, Y, 0.05), ones),
    }
    found = solved_batch(
        stack(*(p for p, _ in lanes.values())), jnp.stack(list(w for _, w in lanes.values()))
    )
    return {name: (p, lane(found, i)) for i, (name, (p, _)) in enumerate(lanes.items())}


def test_vector_output_has_the_optimum_of_clarabel(batch):
    problem, found = batch["base"]
    check(problem, found)
    value, width = by_clarabel(problem)
    np.testing.assert_allclose(found.objective, value, rtol=1e-7)
    assert int(effective_width(found.positive, found.negative)) == width


def test_symmetries(batch):
    values = {name: float(found.objective) for name, (_, found) in batch.items()}
    assert all(found.status == Status.solved for _, found in batch.values())
    for name in ("rotated", "permuted"):
        np.testing.assert_allclose(values[name], values["base"], rtol=1e-8)
    np.testing.assert_allclose(values["scaled"], 100 * values["base"], rtol=1e-8)
    # Two copies of a sample are one of weight two, and a weight zero leaves a sample out.
    np.testing.assert_allclose(values["doubled"], values["weighted"], rtol=1e-8)


def test_path_is_what_single_solves_find(batch):
    problem, _ = batch["base"]
    decays = [5.0, 0.5, 0.05]
    path = eqx.filter_jit(lambda p: spectrahedron_path(p, decays, EXACT))(problem)
    cold = [batch[name][1] for name in ("strong", "base", "weak")]
    np.testing.assert_allclose(path.solutions.objective, [f.objective for f in cold], rtol=1e-8)
    assert np.all(np.asarray(path.solutions.objective - path.solutions.dual_objective) >= -1e-12)
    widths = [int(effective_width(f.positive, f.negative)) for f in cold]
    np.testing.assert_array_equal(path.widths, widths)
    # The first solve has no neighbour: it is the batch's lane, alone.
    np.testing.assert_allclose(lane(path.solutions, 0).positive, cold[0].positive, atol=1e-7)
    np.testing.assert_array_less(
        path.solutions.steps[1:], 1 + np.array([f.steps for f in cold[1:]])
    )


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_chunks_are_one_solve(rng, loss):
    X, Y = rng.standard_normal((12, 2)), np.sign(rng.standard_normal(12))
    problem = TrainingProblem(X, Y, 0.1, loss=loss, activation=PHI)
    settings = SpectrahedronSplitting(tolerance=1e-10, check_every=5)
    prepared = jax.jit(lambda problem: prepare(samples_of(problem)))(problem)
    seen = []

    def chunked(watch=lambda so_far: seen.append(int(so_far.steps)), now=time.monotonic):
        return solve_on_host(settings, prepared, 0.1, None, Job(12.0, now=now), watch)

    program = NeuralSpectrahedron()
    whole, found = jax.jit(lambda p: solve(p, program, settings))(problem), chunked()
    assert found.status == Status.solved and seen[-1] == int(found.steps)
    chex.assert_trees_all_equal(chunked(), found)
    assert found.steps == whole.steps
    np.testing.assert_allclose(found.objective, whole.objective, rtol=1e-9)
    # A clock that a second passes between two looks at: one block at a time, until the job is over.
    ticks = itertools.count()
    part = chunked(now=lambda: float(next(ticks)))
    assert part.status == Status.running and 0 < part.steps < found.steps
    assert part.objective > found.objective and part.dual_objective < found.dual_objective
    stopped = chunked(watch=lambda so_far: True)
    assert stopped.steps <= 500


def test_interior_point_method_agrees(batch):
    problem, found = batch["base"]
    program = NeuralSpectrahedron()
    inner = eqx.filter_jit(lambda p: solve(p, program, InteriorPoint(tolerance=1e-9)))(problem)
    check(problem, inner)
    np.testing.assert_allclose(inner.objective, found.objective, rtol=1e-8)
    np.testing.assert_allclose(inner.positive, found.positive, atol=1e-3)
    np.testing.assert_allclose(inner.residual, found.residual, atol=1e-4)


def test_logistic_loss_of_one_feature_and_a_bias_against_all_neurons_of_a_grid(rng):
    X = rng.standard_normal((SAMPLES, 1))
    Y = np.sign(np.abs(X) - 0.6 + 0.3 * rng.standard_normal(X.shape))
    problem = training(X, Y, 0.3, bias=True, loss="logistic")
    found = solved(problem)
    check(problem, found)
    np.testing.assert_allclose(found.objective, by_clarabel(problem)[0], rtol=1e-7)
    angles = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    hidden = PHI(np.asarray(problem.features) @ np.stack([np.cos(angles), np.sin(angles)]))
    V = cp.Variable((len(angles), 1))
    grid = cp.Problem(cp.Minimize(loss_of("logistic", hidden @ V, Y) + 0.3 * cp.norm1(V)))
    value = grid.solve(solver="CLARABEL")
    assert found.dual_objective <= value
    np.testing.assert_allclose(found.objective, value, rtol=1e-3)


def test_square_activation_with_hinge_loss_and_cubic_regularisation(rng):
    X, _ = draw(rng, 1)
    Y = np.sign(np.sum(X[:, :2] ** 2, axis=1) - X[:, 2] ** 2 - 0.5)[:, None]
    problem = training(X, Y, 0.4, loss="hinge", activation=Polynomial(1, 0, 0))
    found = solved(problem)
    assert found.status == Status.solved
    value, _ = by_clarabel(problem)
    np.testing.assert_allclose(found.objective, value, rtol=1e-6)
    # Neurons of M's eigenvectors: the penalty is the nuclear norm of M.
    values, U = np.linalg.eigh((found.positive - found.negative)[0, :-1, :-1])
    network = PolynomialNetwork(U, values[:, None], activation=problem.activation)
    np.testing.assert_allclose(problem.objective(network), value, rtol=1e-6)
    # As lengths r with r^9 = 2 |v|^3 and weights v / r^2, under beta / c of (2), c = 3 / 2^(2/3).
    lengths = (2 * np.abs(values) ** 3) ** (1 / 9)
    weights = values / np.where(lengths > 0, lengths, 1) ** 2
    cubic = np.sum(np.abs(weights) ** 3 + lengths**3) * 2 ** (2 / 3) / 3
    np.testing.assert_allclose(cubic, network.penalty, rtol=1e-12)
    longer = lengths * 1.01
    more = np.sum(np.abs(values / longer**2) ** 3 + longer**3) * 2 ** (2 / 3) / 3
    assert more > cubic


@jax.jit
def forms_at_work(X, R, M):
    forms = QuadraticForms(X, PHI)
    rows, right = forms.rows(), jax.vmap(svec)(forms.balance(M))
    of_samples = SampleGram(*jnp.linalg.eigh(rows @ rows.T), rows)
    of_coordinates = CoordinateGram(*jnp.linalg.eigh(after(rows.T @ rows, of_samples)))
    by_products = ProductGram(forms, None)
    solves = [gram.solve(3.0, right) for gram in (of_samples, of_coordinates, by_products)]
    return forms.outputs(M), forms.adjoint(R), rows, right, solves, by_products.largest


def test_forms_agree_with_their_definition(rng):
    X, R = rng.standard_normal((7, 3)), rng.standard_normal((7, 2))
    M = np.stack([symmetric(rng.standard_normal((4, 4))) for _ in range(2)])
    F = np.zeros((7, 4, 4))
    F[:, :3, :3] = PHI.a * X[:, :, None] * X[:, None, :]
    F[:, :3, 3] = F[:, 3, :3] = PHI.b / 2 * X
    F[:, 3, 3] = PHI.c
    outputs, pulled, rows, right, solves, largest = forms_at_work(X, R, M)
    np.testing.assert_allclose(outputs, np.einsum("nij,cij->nc", F, M), atol=1e-12)
    np.testing.assert_allclose(pulled, np.einsum("nij,nc->cij", F, R), atol=1e-12)
    G = np.diag([1.0, 1.0, 1.0, -1.0])
    off = F - np.einsum("nij,ij->n", F, G)[:, None, None] / 4 * G
    kernel = np.einsum("nij,mij->nm", off, off)
    np.testing.assert_allclose(rows @ rows.T, kernel, atol=1e-12)
    np.testing.assert_allclose(largest, np.linalg.eigvalsh(kernel)[-1], rtol=0.01)
    exact = np.linalg.solve(np.eye(10) / 2 + 3 * rows.T @ rows, right.T).T
    for found in solves:
        np.testing.assert_allclose(found, exact, atol=1e-9)


def test_compressed_loss_is_the_loss(rng):
    X, Y, w = rng.standard_normal((60, 2)), rng.standard_normal((60, 2)), rng.uniform(0, 2, 60)

    @jax.jit
    def compressed(X, Y, w):
        forms = QuadraticForms(X, PHI)
        loss = compress(forms, Y, w)
        rows = forms.rows()
        return loss, rows, loss.expand(forms, Y, loss.targets)

    loss, rows, expanded = compressed(X, Y, w)
    assert loss.rows.shape == (6, 6)
    for m in rng.standard_normal((3, 6, 2)):
        short = np.sum((loss.rows @ m - loss.targets) ** 2) / 2 + loss.constant
        np.testing.assert_allclose(short, np.sum(w[:, None] * (rows @ m - Y) ** 2) / 2, rtol=1e-12)
    # What `expand` returns has an m that fits the short residual, up to the direction of G.
    m = np.linalg.lstsq(loss.rows, 2 * loss.targets, rcond=1e-9)[0]
    np.testing.assert_allclose(expanded, rows @ m - Y, atol=1e-7)


@eqx.filter_jit
def products(problem, seed):
    """<A x, y> and <x, A*y>; the normal matrix as it is formed, and from A column by column."""
    program = NeuralSpectrahedron()
    form = program.to_cone(program.data(problem)).interior()
    x = jax.random.normal(seed, form.linear().shape)
    y = jax.random.normal(jax.random.fold_in(seed, 1), form.offset().shape)
    (matrices,) = form.layout.split(form.offset() + 0.05 * y)
    (w,) = scaling = form.layout.scaling([matrices], [2 * matrices @ matrices])

    def column(x):
        (block,) = form.layout.split(form.operator(x))
        return form.layout.vectors([w.down(block)], x.dtype), form.quadratic(x)

    A, P = jax.vmap(column)(jnp.eye(form.size))
    balance = (form.operator(x) @ y, form.adjoint(y) @ x)
    return balance, form.normal(scaling), P + A @ A.T


@pytest.mark.parametrize("activation", [PHI, Polynomial(1, 0, 0)], ids=["general", "square"])
def test_cone_program_is_consistent(rng, activation):
    X, Y = rng.standard_normal((4, 2)), rng.standard_normal((4, 2))
    problem = training(X, Y, activation=activation)
    balance, normal, expected = products(problem, jax.random.key(0))
    np.testing.assert_allclose(balance[0], balance[1], rtol=1e-10)
    np.testing.assert_allclose(normal, expected, atol=1e-10 * np.max(expected))


def test_largest_on_sphere_is_above_every_sample_and_hardly_more(rng):
    angles = np.linspace(0, 2 * np.pi, 100001)
    circle = np.stack([np.cos(angles), np.sin(angles)])
    # The last two are the hard case, where the multiplier is the largest eigenvalue, and no edge.
    for values, edge in [([-1.0, 2.0], [0.7, 0.4]), ([0, 1], [0.1, 0]), ([0, 1], [0, 0])]:
        values, edge = np.array(values, float), np.array(edge, float)
        sampled = np.max(values @ circle**2 + 2 * edge @ circle)
        found = float(largest_on_sphere(jnp.asarray(values), jnp.asarray(edge)))
        assert sampled <= found * (1 + 1e-14) and found - sampled < 1e-8


def test_balancing_keeps_rank_and_semidefiniteness(rng):
    factors = rng.standard_normal((3, 4, 2))
    Z = np.einsum("cij,ckj->cik", factors, factors)
    Z[2] = np.diag([1, 0, 0, 0])  # has no balanced multiple
    forms = QuadraticForms(jnp.ones((1, 3)), PHI)
    found = np.asarray(jax.jit(lambda Z: balanced(forms, Z))(Z))
    np.testing.assert_allclose(np.trace(found[:, :3, :3], axis1=1, axis2=2), found[:, 3, 3])
    assert np.all(np.linalg.matrix_rank(found[:2], tol=1e-10) == 2)
    np.testing.assert_array_equal(found[2], np.zeros((4, 4)))


def test_bad_input_is_refused():
    X, Y = np.ones((4, 2)), np.ones(4)
    relu, poly = TrainingProblem(X, Y), TrainingProblem(X, Y, activation=PHI)
    with pytest.raises(ValueError, match="activation=Polynomial"):
        solve(relu, NeuralSpectrahedron())
    with pytest.raises(ValueError, match="problem must be a TrainingProblem; got Convolutional"):
        solve(ConvolutionalProblem(X[None], Y), NeuralSpectrahedron())
    with pytest.raises(ValueError, match="activation=Polynomial"):
        solve(relu, NeuralSpectrahedron(), EXACT)
    with pytest.raises(ValueError, match="squared loss only"):
        hinge = TrainingProblem(X, Y, loss="hinge", activation=PHI)
        solve(hinge, NeuralSpectrahedron(), InteriorPoint())
    with pytest.raises(ValueError, match="programs of polynomial activations"):
        solve(relu, ConeGroupLasso(np.ones((1, 4), bool)), EXACT)
    for weights in (np.ones(3), -np.ones(4), np.full(4, np.nan)):
        with pytest.raises(ValueError, match="sample_weights"):
            solve(poly, NeuralSpectrahedron(weights))
    for decays in ([], 0.1, [0.1, -1.0], [np.inf]):
        with pytest.raises(ValueError, match="weight_decays"):
            spectrahedron_path(poly, decays)
    # Constants are looked at inside `jit` too.
    with pytest.raises(ValueError, match="weight_decays"):
        jax.jit(lambda _: spectrahedron_path(poly, [0.1, -1.0]))(0)
    bad = {"tolerance": 0.0, "max_steps": 0, "check_every": 0, "relaxation": 2.0, "memory": -1}
    for name, value in bad.items():
        with pytest.raises(ValueError, match=name):
            SpectrahedronSplitting(**{name: value})
    for name, value in {"tolerance": jnp.zeros(()), "max_steps": 9.5, "memory": "many"}.items():
        with pytest.raises(ValueError, match=f"SpectrahedronSplitting: `{name}` must be"):
            SpectrahedronSplitting(**{name: value})
