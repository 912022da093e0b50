"""(copositive): Sahiner's relaxation against the optimum, the printed program, and its certificate."""

import functools

import cvxpy as cp
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcone import Splitting, Status
from jaxcvxnn import LeakyReLU, TrainingProblem, certify_residual, solve
from jaxcvxnn.conic.copositive import copositive_program
from jaxcvxnn.geometry import sign_patterns
from jaxcvxnn.geometry.pattern_cones import cone_sides, facets, interior_direction, pattern_cones
from jaxcvxnn.pricing.pricer import Pricer
from jaxcvxnn.programs import CopositiveRelaxation, NuclearNormRelaxation, copositive_network
from jaxcvxnn.proof.dual_bound import dual_bound
from jaxcvxnn.training import generate_columns

from ..helpers import lane
from ..oracles import copositive_relaxation

# All tests share few shapes: compiling takes most of the time.
SAMPLES, OUTPUTS = 5, 3
TRACES = []


def draw(rng, n=SAMPLES, d=2, c=OUTPUTS):
    return rng.standard_normal((n, d)), rng.standard_normal((n, c))


@eqx.filter_jit
@functools.partial(eqx.filter_vmap, in_axes=(None, 0))
def _lanes(data, weight_decay):
    TRACES.append(None)
    data = eqx.tree_at(lambda d: d.weight_decay, data, weight_decay)
    return solve(data, CopositiveRelaxation())


def solved(problem):
    """The solution for a problem or data, as a lane beside another decay; compiled once per shape."""
    data = jax.tree.map(jnp.asarray, CopositiveRelaxation().data(problem))
    return lane(_lanes(data, data.weight_decay * jnp.array([1.0, 0.3])), 0)


def printed(X, Y, weight_decay, patterns):
    """Sahiner et al. (2021), eq. (19), as printed, by Clarabel."""
    return float(copositive_relaxation(X, Y, weight_decay, patterns).solve(cp.CLARABEL))  # pyright: ignore


# ----------------------------------------------------------------------
# The value


@pytest.mark.parametrize(("weight_decay", "outputs"), [(0.5, 3), (0.02, 2), (0.1, 1)])
def test_at_rank_two_value_network_and_certificate_are_the_optimum(rng, weight_decay, outputs):
    """Outputs without targets change nothing; they keep the shape."""
    X, Y = draw(rng)
    Y[:, outputs:] = 0
    problem = TrainingProblem(X, Y, weight_decay)
    found, exact = (
        solved(problem),
        generate_columns(TrainingProblem(X, Y[:, :outputs], weight_decay)),
    )
    assert found.status == Status.solved
    np.testing.assert_allclose(found.objective, exact.upper_bound, rtol=1e-7)
    certificate = certify_residual(problem, found.residual)
    assert certificate.lower_bound <= exact.upper_bound
    assert certificate.lower_bound >= float(found.objective) * (1 - 1e-7)
    objective = float(problem.objective(copositive_network(problem, found)))
    assert objective >= certificate.lower_bound
    np.testing.assert_allclose(objective, found.objective, rtol=1e-7)
    active = zip(found.data.patterns, found.models, strict=True)
    predicted = sum(pattern[:, None] * (X @ V) for pattern, V in active)
    np.testing.assert_allclose(predicted - Y, found.residual, atol=1e-6)
    assert np.linalg.eigvalsh(found.moments).min() >= -1e-9


def test_at_rank_three_the_printed_program_and_below_the_optimum(rng):
    X, Y = draw(rng, n=4, d=3, c=2)
    problem = TrainingProblem(X, Y, 0.1)
    found, exact = solved(problem), generate_columns(problem)
    assert found.status == Status.solved
    patterns = sign_patterns(X)
    assert len(patterns) == len(found.moments) == 14
    np.testing.assert_allclose(found.objective, printed(X, Y, 0.1, patterns), rtol=1e-5)
    assert float(found.dual_objective) <= exact.upper_bound * (1 + 1e-5)
    # Of four planes' cells none has more than four facets: nothing is lost.
    np.testing.assert_allclose(found.objective, exact.upper_bound, rtol=2e-5)
    assert certify_residual(problem, found.residual).lower_bound <= exact.upper_bound


def test_fewer_patterns_bound_from_above_and_match_the_printed_program(rng):
    """Patterns that see no sample are as good as none, and compile nothing."""
    X, Y = draw(rng)
    problem = TrainingProblem(X, Y, 0.1)
    data = CopositiveRelaxation().data(problem)
    keep = np.arange(len(data.patterns)) % 3 == 0
    fewer = eqx.tree_at(lambda d: d.readers, data, data.readers * keep[:, None, None])
    some, all_of_them = solved(fewer), solved(problem)
    assert float(some.objective) > float(all_of_them.objective) * (1 + 1e-4)
    expected = printed(X, Y, 0.1, data.patterns[keep])
    np.testing.assert_allclose(some.objective, expected, rtol=1e-6)
    chosen = CopositiveRelaxation(data.patterns[keep]).data(problem)
    np.testing.assert_array_equal(chosen.patterns, data.patterns[keep])
    np.testing.assert_allclose(chosen.readers, data.readers[keep])


@pytest.mark.slow
def test_the_nuclear_norm_alone_is_lower(rng):
    X, Y = draw(rng)
    problem = TrainingProblem(X, Y, 0.1)
    loose = solve(problem, NuclearNormRelaxation())
    V = [cp.Variable((2, OUTPUTS)) for _ in sign_patterns(X)]
    outputs = sum(p[:, None] * X @ v for p, v in zip(sign_patterns(X), V, strict=True))
    norms = sum(cp.normNuc(v) for v in V)
    expected = cp.Problem(cp.Minimize(cp.sum_squares(outputs - Y) / 2 + 0.1 * norms))  # pyright: ignore
    np.testing.assert_allclose(loose.objective, expected.solve(cp.CLARABEL), rtol=1e-5)  # pyright: ignore
    assert float(loose.objective) < float(solved(problem).objective)


def test_nothing_pays(rng):
    """Beyond a weight decay of the price of -Y no neuron is worth its cost."""
    X, Y = draw(rng)
    problem = TrainingProblem(X, Y, 1e3)
    found = solved(problem)
    np.testing.assert_allclose(found.objective, np.sum(Y**2) / 2, rtol=1e-8)
    network = copositive_network(problem, found)
    np.testing.assert_allclose(problem.objective(network), found.objective, rtol=1e-8)
    with pytest.raises(ValueError, match=r"with \(6, 2, 3\) samples.*it has \(5, 2, 3\)"):
        copositive_network(TrainingProblem(*draw(rng, n=6), 0.1), found)
    nothing = eqx.tree_at(lambda s: s.models, found, 0 * found.models)
    assert copositive_network(problem, nothing).width == 0


# ----------------------------------------------------------------------
# Losses and activations


@pytest.mark.parametrize("loss", ["huber", "absolute", "hinge"])
def test_losses_with_limits(rng, loss):
    X, Y = draw(rng, c=1)
    problem = TrainingProblem(X, np.sign(Y) if loss == "hinge" else Y, 0.2, loss=loss)
    found, exact = solved(problem), generate_columns(problem)
    np.testing.assert_allclose(found.objective, exact.upper_bound, rtol=1e-7)
    objective = float(problem.objective(copositive_network(problem, found)))
    np.testing.assert_allclose(objective, found.objective, rtol=1e-7)
    assert certify_residual(problem, found.residual).lower_bound <= exact.upper_bound


@pytest.mark.parametrize("slope", [-1.0, 0.3])
def test_leaky_units_are_priced_as_relu_on_stacked_samples(rng, slope):
    X, Y = draw(rng)
    problem = TrainingProblem(X, Y, 0.1, activation=LeakyReLU(slope))
    found = solved(problem)
    R = np.asarray(found.residual)
    price = Pricer(np.vstack([X, -X])).price(np.vstack([R, -slope * R])).upper
    bound, _ = dual_bound(problem.loss, R, Y, 0.1, price)
    objective = float(problem.objective(copositive_network(problem, found)))
    assert bound <= objective
    np.testing.assert_allclose([bound, objective], found.objective, rtol=1e-7)


# ----------------------------------------------------------------------
# Invariances, batches, other solvers


def test_invariances(rng):
    X, Y = draw(rng)
    expected = solved(TrainingProblem(X, Y, 0.1)).objective
    order = rng.permutation(len(X))
    mixed, _ = np.linalg.qr(rng.standard_normal((OUTPUTS, OUTPUTS)))
    turn, _ = np.linalg.qr(rng.standard_normal((2, 2)))
    for problem in [
        TrainingProblem(X @ turn, Y, 0.1),
        TrainingProblem(X[order], Y[order] @ mixed, 0.1),
        TrainingProblem(1e4 * X, Y, 1e3),
    ]:
        np.testing.assert_allclose(solved(problem).objective, expected, rtol=1e-8)
    scaled = solved(TrainingProblem(X, 1e4 * Y, 1e3)).objective
    np.testing.assert_allclose(scaled, 1e8 * expected, rtol=1e-8)


def test_rank_two_in_more_features_and_a_bias(rng):
    X, Y = draw(rng)
    expected = solved(TrainingProblem(X, Y, 0.1)).objective
    wide, _ = np.linalg.qr(rng.standard_normal((4, 2)))
    data = CopositiveRelaxation().data(TrainingProblem(X @ wide.T, Y, 0.1))
    assert data.basis.shape == (4, 2)
    narrow = eqx.tree_at(lambda d: d.basis, data, np.eye(2))
    np.testing.assert_allclose(solved(narrow).objective, expected, rtol=1e-8)
    line = np.column_stack([X[:, 0], np.ones(len(X))])
    biased = TrainingProblem(X[:, :1], Y, 0.1, bias=True)
    found = solved(biased)
    np.testing.assert_allclose(
        found.objective, solved(TrainingProblem(line, Y, 0.1)).objective, rtol=1e-10
    )
    network = copositive_network(biased, found)
    np.testing.assert_allclose(biased.objective(network), found.objective, rtol=1e-7)


def test_lanes_and_new_numbers_compile_nothing(rng):
    X, Y = draw(rng)
    solved(TrainingProblem(X, Y, 0.1))
    decays, traces = jnp.array([0.7, 0.04]), len(TRACES)
    data = CopositiveRelaxation().data(TrainingProblem(*draw(rng), 0.1))
    data = jax.tree.map(jnp.asarray, data)
    found, swapped = _lanes(data, decays), _lanes(data, decays[::-1])
    assert len(TRACES) == traces
    assert np.all(found.status == Status.solved)
    np.testing.assert_allclose(found.objective, swapped.objective[::-1], rtol=1e-8)
    # Inside vmap a problem whose decay alone is traced is as good as its data.
    shapes = jax.eval_shape(
        jax.vmap(lambda w: solve(TrainingProblem(X, Y, w), CopositiveRelaxation()).models), decays
    )
    assert shapes.shape == (2, 2 * SAMPLES, 2, OUTPUTS)


@pytest.mark.slow
def test_splitting_finds_the_same_and_starts_warm(rng):
    problem = TrainingProblem(*draw(rng), 0.1)
    splitting = Splitting(tolerance=1e-7, max_steps=5000)
    data = CopositiveRelaxation().data(problem)
    cold = copositive_program(data).initial()
    found = solve(data, CopositiveRelaxation(), splitting, warm_start=cold)
    assert found.status == Status.solved
    np.testing.assert_allclose(found.objective, solved(problem).objective, rtol=1e-5)
    again = solve(data, CopositiveRelaxation(), splitting, warm_start=found)
    assert again.steps < found.steps / 2


# ----------------------------------------------------------------------
# Cones and the form


def test_facets_and_interior(rng):
    square = np.array([[1.0, 0, 1], [-1, 0, 1], [0, 1, 1], [0, -1, 1]])
    redundant = np.vstack([square, square[:1], [[0, 0, 1], [0.5, 0.5, 1]]])
    sides = cone_sides(redundant, np.ones(7, bool))
    kept = facets(sides)
    np.testing.assert_allclose(np.sort(sides[kept], axis=0), np.sort(square / np.sqrt(2), axis=0))
    np.testing.assert_allclose(interior_direction(sides), [0, 0, 1], atol=1e-12)
    np.testing.assert_array_equal(interior_direction(np.vstack([sides, -sides[:1]])), np.zeros(3))
    cones = pattern_cones(redundant, np.array([np.ones(7, bool), np.eye(7, dtype=bool)[5]]))
    assert len(cones.patterns) == 1  # the other has no interior
    for _ in range(20):  # all products are nonnegative inside
        a = np.linalg.solve(cones.frames[0], [0, 0, 1] + 0.5 * rng.uniform(-1, 1, 3))
        assert np.all(np.einsum("i,qij,j->q", a, cones.products, a) >= 0)


def test_operators_of_the_program_and_its_form(rng):
    """Adjoint, normal matrix and inverse, at rank three and with limits."""
    X, Y = draw(rng, n=4, d=3)
    data = CopositiveRelaxation(sign_patterns(X)[:3]).data(TrainingProblem(X, Y, 0.1, loss="huber"))

    @jax.jit
    def parts(data, seed):
        program = copositive_program(data)
        form = program.interior()
        A = jax.vmap(form.operator, out_axes=1)(jnp.eye(form.size))
        P = jax.vmap(form.quadratic, out_axes=1)(jnp.eye(form.size))
        back = jax.vmap(form.adjoint, out_axes=1)(jnp.eye(A.shape[0]))
        _, s, (duals, signs) = form.initial()
        bent = 0.3 * jax.random.normal(jax.random.key(seed), duals.shape)
        scaling = form.layout.scaling(s, [duals + bent @ bent.swapaxes(1, 2), signs * 1.7])

        def column(entries):
            blocks = form.layout.split(entries)
            down = [w.down(block) for w, block in zip(scaling, blocks, strict=True)]
            return form.layout.vectors(down, entries.dtype)

        scaled = jax.vmap(column, in_axes=1)(A)
        target = program.project(program.offset())
        x = program.minimize(program.factor(), 0.7, target, None)
        miss = jax.tree.map(jnp.subtract, program.operator(x), target)
        slope = jax.tree.map(
            lambda q, c, a: q + c + 0.7 * a,
            program.quadratic(x),
            program.linear(),
            program.adjoint(miss),
        )
        return A, back, form.normal(scaling), P + scaled @ scaled.T, slope

    A, back, normal, dense, slope = parts(data, 0)
    np.testing.assert_allclose(back, A.T, atol=1e-12)
    np.testing.assert_allclose(normal, dense, atol=1e-11 * np.abs(dense).max())
    for part in slope:
        np.testing.assert_allclose(part, 0, atol=1e-10)


# ----------------------------------------------------------------------
# What it refuses


def test_bad_input(rng):
    X, Y = draw(rng)
    relaxation = CopositiveRelaxation()
    with pytest.raises(ValueError, match="softmax loss has no quadratic conjugate"):
        relaxation.data(TrainingProblem(X, np.arange(SAMPLES) % 2, 0.1, loss="softmax"))
    with pytest.raises(ValueError, match="the problem's activation is Polynomial"):
        relaxation.data(TrainingProblem(X, Y, 0.1, activation="polynomial"))
    with pytest.raises(ValueError, match="sample_patterns"):
        relaxation.data(TrainingProblem(*draw(rng, n=60, d=5), 0.1))
    for wrong in (np.ones((2, 3), bool), np.ones((1, SAMPLES)), np.ones((0, SAMPLES), bool)):
        with pytest.raises(ValueError, match="patterns must be booleans"):
            CopositiveRelaxation(wrong).data(TrainingProblem(X, Y, 0.1))
    opposite = TrainingProblem(np.vstack([X, -X]), np.vstack([Y, Y]), 0.1)
    with pytest.raises(ValueError, match="no cone .* has an interior"):
        CopositiveRelaxation(np.ones((1, 2 * SAMPLES), bool)).data(opposite)
    with pytest.raises(ValueError, match="need concrete samples"):
        jax.jit(lambda X: relaxation.data(TrainingProblem(X, Y, 0.1)).readers)(X)
