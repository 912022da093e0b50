"""(planar): the global optimum for samples in a plane, its network, its batches and derivatives."""

import dataclasses
import functools

import cvxpy as cp
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcone import Splitting, Status
from jaxcvxnn import TrainingProblem, TwoLayerReLU, solve
from jaxcvxnn.conic import PlanarData
from jaxcvxnn.conic.planar import planar_program
from jaxcvxnn.improve import balance
from jaxcvxnn.programs import ExactPlanar, planar_network
from jaxcvxnn.reduction import reduce

from ..helpers import PAPER_DATA, lane

# Certified to 1e-9 by column generation with exact pricing (prototype runs).
OPTIMA = {
    ("random", 0.1): {0: 8.902057867, 1: 7.677998154, 4: 7.616049563},
    ("random", 0.01): {0: 1.030581622, 1: 0.907245448, 4: 0.833815257},
    ("spiral", 0.1): 16.592977235,
    ("spiral", 0.01): 15.155098179,
}


# All tests share few shapes: compiling takes most of the time.
SAMPLES = 6


def draw(rng, n=SAMPLES, d=2, c=2):
    return rng.standard_normal((n, d)), rng.standard_normal((n, c))


@eqx.filter_jit
def _solved(data, solver):
    found = solve(data, ExactPlanar(), solver)
    return found, planar_network(found)


def solved(problem, solver=None):
    """The solution and its network, compiled once per shape."""
    data = jax.tree.map(jnp.asarray, ExactPlanar().data(problem))
    return _solved(data, jax.tree.map(jnp.asarray, solver))


def optimum(X, Y, weight_decay=0.1):
    """The optimal value; samples without length and target, which change nothing, fill up X."""
    empty = ((0, max(SAMPLES - len(X), 0)), (0, 0))
    found, _ = solved(TrainingProblem(np.pad(X, empty), np.pad(Y, empty), weight_decay))
    assert found.status == Status.solved
    assert found.dual_objective <= found.objective * (1 + 1e-12)
    return float(found.objective)


def prices(X, R, count=20000):
    """|R' relu(X u)| on a circle of directions u."""
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)])
    return np.linalg.norm(np.maximum(X @ circle, 0).T @ R, axis=1)


def by_grid(X, Y, weight_decay, count=1500):
    """The optimum over networks of given directions: an upper bound on p*, by Clarabel.

    The lines of the samples are among the directions: there the price has kinks.
    """
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    kinks = np.arctan2(X[:, 0], -X[:, 1])
    angles = np.concatenate([angles, kinks, kinks + np.pi])
    activations = np.maximum(X @ np.stack([np.cos(angles), np.sin(angles)]), 0)
    R = cp.Variable(Y.shape)
    dual = -cp.sum(cp.multiply(R, Y)) - cp.sum_squares(R) / 2
    bounds = [cp.norm(activations.T @ R, axis=1) <= weight_decay]
    return float(cp.Problem(cp.Maximize(dual), bounds).solve(cp.CLARABEL))  # pyright: ignore


# ----------------------------------------------------------------------
# The optimum


@pytest.mark.parametrize("weight_decay", [5.0, 0.5, 0.05])
def test_one_sample(weight_decay):
    """One neuron t x y'/(|x| |y|), t >= 0: min 1/2 (t |x| - |y|)^2 + wd t."""
    X, Y = np.array([[0.6, -0.8]]) * 1.5, np.array([[2.0, 1.0]])
    length, size = 1.5, np.sqrt(5)
    strength = max(size / length - weight_decay / length**2, 0)
    expected = (strength * length - size) ** 2 / 2 + weight_decay * strength
    np.testing.assert_allclose(optimum(X, Y, weight_decay), expected, rtol=1e-8)


@pytest.mark.parametrize("weight_decay", [1.0, 0.1, 0.01])
def test_a_dense_grid_of_neurons_comes_near_and_never_below(rng, weight_decay):
    X, Y = draw(rng)
    found = optimum(X, Y, weight_decay)
    grid = by_grid(X, Y, weight_decay)
    assert found <= grid * (1 + 1e-7)
    np.testing.assert_allclose(found, grid, rtol=1e-5)


@pytest.mark.parametrize("weight_decay", [1e4, 1.0, 0.1, 0.01, 1e-4])
def test_residual_and_network_prove_the_optimum(rng, weight_decay):
    """R is feasible and worth `dual_objective`; the network's objective is the same number."""
    X, Y = draw(rng)
    problem = TrainingProblem(X, Y, weight_decay)
    found, network = solved(problem)
    R = np.asarray(found.residual)
    assert prices(X, R).max() <= weight_decay * (1 + 1e-9)
    np.testing.assert_allclose(found.dual_objective, -np.sum(R * Y) - np.sum(R**2) / 2, rtol=1e-9)
    objective = float(problem.objective(balance(network)))
    assert objective >= float(found.dual_objective) * (1 - 1e-10)
    assert objective <= float(found.dual_objective) * (1 + 1e-8)
    np.testing.assert_allclose(found.objective, found.dual_objective, rtol=1e-8)
    np.testing.assert_allclose(network.predict(X) - Y, R, atol=1e-4 * np.abs(Y).max())


def test_no_network_is_better(rng):
    X, Y = draw(rng)
    problem = TrainingProblem(X, Y, 0.1)
    found = optimum(X, Y)
    _, best = solved(problem)
    for _ in range(20):
        U = np.asarray(best.U) + 0.1 * rng.standard_normal(best.U.shape)
        other = balance(TwoLayerReLU(U, np.asarray(best.V)))
        assert float(problem.objective(other)) >= found * (1 - 1e-9)


# ----------------------------------------------------------------------
# Invariances and degenerate data


def test_rotations_and_permutations_change_nothing(rng):
    X, Y = draw(rng)
    turn = np.array([[np.cos(2), -np.sin(2)], [np.sin(2), np.cos(2)]])
    order, expected = rng.permutation(len(X)), optimum(X, Y)
    mixed, _ = np.linalg.qr(rng.standard_normal((2, 2)))
    np.testing.assert_allclose(optimum(X @ turn, Y), expected, rtol=1e-8)
    np.testing.assert_allclose(optimum(X * [1, -1], Y), expected, rtol=1e-8)
    np.testing.assert_allclose(optimum(X[order], Y[order] @ mixed), expected, rtol=1e-8)


@pytest.mark.parametrize("scale", [1e-5, 1e5])
def test_units_of_the_data_do_not_matter(rng, scale):
    X, Y = draw(rng)
    expected = optimum(X, Y)
    np.testing.assert_allclose(optimum(scale * X, Y, scale * 0.1), expected, rtol=1e-8)
    expected *= scale**2
    np.testing.assert_allclose(optimum(X, scale * Y, scale * 0.1), expected, rtol=1e-8)


def test_zero_and_repeated_samples(rng):
    """A zero sample adds its loss; a sample twice is one of sqrt(2) times the length and target."""
    X, Y = draw(rng, 3)
    expected = optimum(np.sqrt(2) * X, np.sqrt(2) * Y)
    np.testing.assert_allclose(optimum(np.tile(X, (2, 1)), np.tile(Y, (2, 1))), expected, rtol=1e-8)
    zeros = np.zeros_like(X)
    expected = optimum(X, Y) + np.sum(Y**2) / 2
    stacked = optimum(np.vstack([zeros, X]), np.tile(Y, (2, 1)))
    np.testing.assert_allclose(stacked, expected, rtol=1e-8)


@pytest.mark.parametrize("angle", [0.0, 1e-14, 1e-9, 1e-5])
def test_nearly_parallel_and_antiparallel_samples(rng, angle):
    """Continuous in the angle, down to where cells are thinner than rounding."""
    X, Y = draw(rng, 2)
    turned = X + angle * X[:, ::-1] * [-1, 1]
    close = optimum(np.vstack([X, -turned, turned]), np.tile(Y, (3, 1)) * [1, -1])
    data = reduce(TrainingProblem(np.vstack([X, -X, X]), np.tile(Y, (3, 1)) * [1, -1], 0.1)).data
    assert data.pairs == 2  # antiparallel samples are read from omega
    merged = ExactPlanar().data(data)
    expected = optimum(merged.features, merged.targets) + float(data.constant)
    np.testing.assert_allclose(close, expected, rtol=1e-7 + 100 * angle)


def test_rank_one_and_rank_two_in_more_features(rng):
    X, Y = draw(rng, d=1)
    problem = TrainingProblem(X, Y, 0.1)
    line = ExactPlanar().data(problem)
    plane = PlanarData(line.features, line.targets, line.weight_decay, line.constant, rank=2)
    found, _ = solved(plane)
    np.testing.assert_allclose(optimum(X * [0.6, -0.8], Y), found.objective, rtol=1e-8)
    network = planar_network(dataclasses.replace(found, data=line))
    assert network.U.shape[0] == 1
    objective = problem.objective(balance(network))
    np.testing.assert_allclose(objective, found.objective, rtol=1e-8)
    basis, _ = np.linalg.qr(rng.standard_normal((4, 2)))
    X, Y = draw(rng)
    wide = TrainingProblem(X @ basis.T, Y, 0.1)
    with pytest.raises(ValueError, match="at most two features under jit"):
        jax.jit(lambda X: solve(TrainingProblem(X, Y, 0.1), ExactPlanar()).objective)(wide.X)
    reduction = reduce(wide)
    found, network = solved(reduction.data)
    np.testing.assert_allclose(found.objective, optimum(X, Y), rtol=1e-8)
    lifted = TwoLayerReLU(
        reduction.directions.basis @ network.U, network.V @ reduction.output_basis.T
    )
    np.testing.assert_allclose(wide.objective(balance(lifted)), found.objective, rtol=1e-8)


def test_a_bias_is_a_second_feature(rng):
    X, Y = draw(rng, d=1)
    expected = optimum(np.hstack([X, np.ones_like(X)]), Y)
    found, _ = solved(TrainingProblem(X, Y, 0.1, bias=True))
    np.testing.assert_allclose(found.objective, expected, rtol=1e-12)


def test_nothing_to_learn(rng):
    X, Y = draw(rng)
    found, network = solved(TrainingProblem(X, 0 * Y, 0.1))
    assert abs(found.objective) < 1e-9
    assert np.abs(network.V).max() < 1e-9
    np.testing.assert_allclose(optimum(0 * X, Y), np.sum(Y**2) / 2, rtol=1e-8)


# ----------------------------------------------------------------------
# Batches, compilation, derivatives, precision, methods


def test_lanes_and_their_derivatives_and_new_numbers_compile_nothing(rng):
    traces = []

    @jax.jit
    @jax.vmap
    @functools.partial(jax.value_and_grad, argnums=(0, 1, 2), has_aux=True)
    def lanes(X, Y, weight_decay):
        traces.append(None)
        found = solve(TrainingProblem(X, Y, weight_decay), ExactPlanar())
        return found.objective, (found.status, found.steps)

    decays = np.array([1.0, 0.1, 0.01])
    for _ in range(2):
        X, Y = (rng.standard_normal((3, SAMPLES, 2)) for _ in range(2))
        (objective, (status, steps)), gradient = lanes(X, Y, decays)
        for k in range(3):
            at = X[k], Y[k], decays[k]
            alone, _ = solved(TrainingProblem(*at))
            assert lane(status, k) == alone.status == Status.solved
            assert steps[k] == alone.steps
            np.testing.assert_allclose(objective[k], alone.objective, rtol=1e-9)
            for i, part in enumerate(lane(gradient, k)):
                move = 1e-3 * decays[k] * rng.standard_normal(part.shape)
                there, back = (
                    optimum(*[a + s * move if i == place else a for place, a in enumerate(at)])
                    for s in (1, -1)
                )
                np.testing.assert_allclose(2 * np.sum(part * move), there - back, rtol=1e-2)
    assert len(traces) == 1


@pytest.mark.slow
def test_single_precision(rng):
    X, Y = draw(rng)
    found, network = solved(TrainingProblem(X.astype(np.float32), Y.astype(np.float32), 0.1))
    assert found.objective.dtype == network.V.dtype == np.float32
    np.testing.assert_allclose(found.objective, optimum(X, Y), rtol=1e-3)


@pytest.mark.slow
def test_splitting_finds_the_same_and_starts_warm(rng):
    X, Y = draw(rng)
    splitting = Splitting(tolerance=1e-7, max_steps=3000)
    data = ExactPlanar().data(TrainingProblem(X, Y, 0.1))
    cold = planar_program(data).initial()
    found = solve(data, ExactPlanar(), splitting, warm_start=cold)
    assert found.status == Status.solved
    np.testing.assert_allclose(found.objective, optimum(X, Y), rtol=1e-6)
    again = solve(data, ExactPlanar(), splitting, warm_start=found)
    assert again.steps < found.steps / 2


# ----------------------------------------------------------------------
# The form


@pytest.fixture
def data(rng):
    return ExactPlanar().data(TrainingProblem(*draw(rng), 0.1))


@pytest.fixture
def program(data):
    return planar_program(data)


def test_the_adjoint(program, rng):
    form = program.interior()
    x = rng.standard_normal(form.size)
    y = rng.standard_normal(form.layout.cones.rows)
    np.testing.assert_allclose(form.operator(x) @ y, x @ form.adjoint(y), rtol=1e-12)


def test_the_normal_matrix_is_the_dense_product(program, rng):
    roots = jnp.asarray(0.3 * rng.standard_normal(program.offset()[0].shape))
    multipliers = jnp.asarray(rng.random(len(roots)))

    @jax.jit
    def matrices():
        form = program.interior()
        identity = jnp.eye(form.size)
        A = jax.vmap(form.operator, out_axes=1)(identity)
        P = jax.vmap(form.quadratic, out_axes=1)(identity)
        _, s, (duals, _) = form.initial()
        scaling = form.layout.scaling(s, [duals + roots @ roots.swapaxes(1, 2), multipliers])

        def column(entries):
            blocks = form.layout.split(entries)
            down = [w.down(block) for w, block in zip(scaling, blocks, strict=True)]
            return form.layout.vectors(down, entries.dtype)

        scaled = jax.vmap(column, in_axes=1)(A)
        return form.normal(scaling), P + scaled @ scaled.T

    found, expected = matrices()
    np.testing.assert_allclose(found, expected, atol=1e-12 * np.abs(expected).max())


def test_the_start_is_inside(program):
    _, (matrices, mu), (duals, multipliers) = program.interior().initial()
    assert np.linalg.eigvalsh(matrices).min() > 0 and mu.min() > 0
    assert np.linalg.eigvalsh(duals).min() > 0 and multipliers.min() > 0


def test_data_of_its_own_kind_pass_through(rng):
    X, Y = draw(rng)
    data = PlanarData(X, Y, np.asarray(0.1), np.asarray(7.0), rank=2)
    assert ExactPlanar().data(data) is data
    found, _ = solved(data)
    np.testing.assert_allclose(found.objective, 7 + optimum(X, Y), rtol=1e-9)


def test_the_solution_fits_the_program(data, program):
    """Points in the program's own units, whatever those of the form are."""
    found, _ = solved(data)
    solution = found.solution
    (residual, mu), (matrices, slack) = solution.x, solution.s
    image, image_mu = program.operator((residual, mu))
    np.testing.assert_allclose(image + matrices, program.offset()[0], atol=1e-10)
    np.testing.assert_allclose(-image_mu, slack, atol=1e-10)
    gradient, _ = program.adjoint(solution.y)
    np.testing.assert_allclose(residual + program.targets + gradient, 0, atol=1e-6)
    assert np.linalg.eigvalsh(matrices).min() >= -1e-12


# ----------------------------------------------------------------------
# The papers' data


def load(name):
    path = PAPER_DATA / name
    if not path.exists():
        pytest.skip(f"no data of the papers: {path} (set JAXCVXNN_DATA)")
    with np.load(path) as arrays:
        return arrays["X"], arrays["Y"]


@pytest.mark.slow
@pytest.mark.parametrize("weight_decay", [0.1, 0.01])
def test_known_optima(weight_decay):
    X, Y = load("random_trials_00_49.npz")
    for trial, expected in OPTIMA["random", weight_decay].items():
        np.testing.assert_allclose(optimum(X[trial], Y[trial], weight_decay), expected, rtol=5e-9)
    X, Y = load("spiral.npz")
    problem = TrainingProblem(X, Y, weight_decay)
    expected = OPTIMA["spiral", weight_decay]
    found, _ = solved(reduce(problem).data)
    assert found.status == Status.solved
    np.testing.assert_allclose(found.objective, expected, rtol=5e-9)
