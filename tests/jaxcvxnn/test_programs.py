"""One contract for all convex programs: what they take, and what their solutions are worth."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcone import Status
from jaxcvxnn import (
    ConvolutionalProblem,
    TrainingProblem,
    TwoLayerReLU,
    path,
    solve,
    train,
)
from jaxcvxnn.programs import (
    ConeGroupLasso,
    ConeLassoInterior,
    ConeLassoSplitting,
    ConvolutionalSpectrahedron,
    CopositiveRelaxation,
    ExactPlanar,
    NeuralSpectrahedron,
    NuclearNormRelaxation,
    SDPRelaxation,
    SpectrahedronSplitting,
    spectrahedron_path,
)
from jaxcvxnn.training import generate_columns

from ..helpers import lane

DECAYS = np.array([1.0, 0.3, 0.1])
SAMPLES = 5


class Entry(NamedTuple):
    """A program, the method if not its own choice, the activation it is tried with, and whether its
    value is the optimum of training or only below it."""

    program: Any
    method: Any
    activation: str
    exact: bool = True


TABLE = {
    "planar": Entry(ExactPlanar(), None, "relu"),
    "copositive": Entry(CopositiveRelaxation(), None, "relu"),
    "nuclear norm": Entry(NuclearNormRelaxation(), None, "relu", False),
    "relaxation": Entry(SDPRelaxation(width=20), None, "relu", False),
    "cone group lasso": Entry(ConeGroupLasso(), None, "absolute"),
    "cone group lasso, interior": Entry(ConeGroupLasso(), ConeLassoInterior(), "leaky_relu"),
    "cone group lasso, split": Entry(ConeGroupLasso(), ConeLassoSplitting(tolerance=1e-8), "relu"),
    "spectrahedra": Entry(NeuralSpectrahedron(), None, "polynomial"),
    "spectrahedra, split": Entry(
        NeuralSpectrahedron(), SpectrahedronSplitting(tolerance=1e-9), "polynomial"
    ),
    "convolutional": Entry(ConvolutionalSpectrahedron(), None, "polynomial"),
    "convolutional, split": Entry(
        ConvolutionalSpectrahedron(), SpectrahedronSplitting(tolerance=1e-9), "polynomial"
    ),
}


def problem_for(entry, rng):
    """A problem of the entry's kind: the filters of a convolutional one are neurons of one patch."""
    X, y = rng.standard_normal((SAMPLES, 2)), rng.standard_normal(SAMPLES)
    if isinstance(entry.program, ConvolutionalSpectrahedron):
        return ConvolutionalProblem(X[None], y, activation=entry.activation)
    return TrainingProblem(X, y, activation=entry.activation)


def at(problem, weight_decay):
    return eqx.tree_at(lambda p: p.weight_decay, problem, np.asarray(weight_decay))


def solutions(entry, problem):
    """At every weight decay: one call under `jit` and `vmap`; of a method on the host, one by one."""
    if getattr(entry.method, "precise", False):
        return [solve(at(problem, w), entry.program, entry.method) for w in DECAYS]
    data = jax.tree.map(jnp.asarray, entry.program.data(problem))

    @jax.jit
    @jax.vmap
    def lanes(weight_decay):
        there = eqx.tree_at(lambda d: d.weight_decay, data, weight_decay)
        return solve(there, entry.program, entry.method)

    found = lanes(jnp.asarray(DECAYS))
    return [lane(found, k) for k in range(len(DECAYS))]


def optimum(problem):
    """The network's objective and the proven bound of the library's training, to 1e-8."""
    if isinstance(problem, ConvolutionalProblem):
        problem = TrainingProblem(
            problem.patches[0], problem.Y, problem.weight_decay, activation=problem.activation
        )
    if problem.activation.name == "polynomial":
        return train(
            problem.X,
            problem.Y,
            problem.weight_decay,
            activation=problem.activation,
            tolerance=1e-8,
        )
    return generate_columns(problem)


@pytest.mark.parametrize("entry", TABLE.values(), ids=TABLE.keys())
def test_value_network_and_certificate_at_every_weight_decay(entry, rng):
    problem, program = problem_for(entry, rng), entry.program
    assert program.refuses(problem) == ""
    for weight_decay, one in zip(DECAYS, solutions(entry, problem), strict=True):
        here = at(problem, weight_decay)
        best = optimum(here)
        value = float(one.objective)
        network = program.network(here, one)
        reached = float(here.objective(network))
        assert reached >= best.lower_bound  # what is proven, without tolerance
        bound = program.certify(here, one)
        assert bound.lower_bound <= best.upper_bound
        residual = program.residual(here, one)
        assert residual.shape == np.shape(here.Y) and residual.dtype == np.float64
        if entry.exact:
            assert one.status == Status.solved and int(one.steps) > 0
            np.testing.assert_allclose(value, best.upper_bound, rtol=1e-6)
            np.testing.assert_allclose(reached, value, rtol=1e-5)
            np.testing.assert_allclose(bound.lower_bound, value, rtol=1e-4)
            assert abs(float(one.relative_gap)) <= 1e-5
        else:
            assert value <= best.upper_bound * (1 + 1e-4)


@pytest.mark.parametrize("name", TABLE)
def test_what_a_program_does_not_take_is_refused(name):
    entry = TABLE[name]
    X, labels = np.eye(3)[:, :2], np.array([0, 1, 1])
    other = "relu" if entry.activation == "polynomial" else "polynomial"
    for refused in (TrainingProblem(X, labels, activation=other), TwoLayerReLU(X.T, X)):
        assert entry.program.refuses(refused)
        with pytest.raises(ValueError):
            solve(refused, entry.program, entry.method)
    if entry.activation == "polynomial":  # all losses, by one of the two methods
        return
    with pytest.raises(ValueError):
        problem = TrainingProblem(X, labels, loss="softmax", activation=entry.activation)
        solve(problem, entry.program, entry.method)


@pytest.mark.parametrize("name", [n for n in TABLE if not n.startswith("convolutional")])
def test_every_program_trains(name, rng):
    """`train` and `path` take the program objects: a network, its objective, and a bound below p*."""
    entry = TABLE[name]
    problem = problem_for(entry, rng)
    options = {"program": entry.program, "solver": entry.method, "width": 20}
    result = train(problem.X, problem.Y, 0.1, activation=entry.activation, **options)
    best = optimum(at(problem, 0.1))
    assert result.lower_bound <= best.upper_bound and best.lower_bound <= result.upper_bound
    assert result.upper_bound == float(result.problem.objective(result.network))
    assert result.network.width <= 20 and result.solution is not None
    np.testing.assert_allclose(result.upper_bound, best.upper_bound, rtol=1e-3)
    if entry.exact:
        assert result.status == "solved" and result.relative_gap <= 1e-4
    points = path(problem, [0.1, 0.3], **options)
    assert points.lower_bounds[0] >= result.lower_bound * (1 - 1e-6)
    assert np.all(points.lower_bounds <= points.upper_bounds)


def test_names_stand_for_programs(rng):
    problem = problem_for(TABLE["planar"], rng)
    for name in ("planar", "copositive", "cone_lasso"):
        result = train(problem.X, problem.Y, 0.1, program=name)
        assert result.program == name and result.relative_gap <= 1e-6
    with pytest.raises(ValueError, match="ExactPlanar: .*rank 1 or 2; theirs is 3"):
        train(np.eye(3), np.ones(3), 0.1, program="planar")


def test_planar_data_in_many_features(rng):
    """Samples of rank two in five features: reduced for the program, and its network expanded."""
    X = rng.standard_normal((6, 2)) @ rng.standard_normal((2, 5))
    problem = TrainingProblem(X, rng.standard_normal((6, 2)), 0.2)
    program = ExactPlanar()
    found = solve(problem, program)
    best = generate_columns(problem)
    np.testing.assert_allclose(found.objective, best.upper_bound, rtol=1e-7)
    network = program.network(problem, found)
    assert network.in_features == 5
    np.testing.assert_allclose(problem.objective(network), best.upper_bound, rtol=1e-6)
    bound = program.certify(problem, found).lower_bound
    assert best.upper_bound * (1 - 1e-5) <= bound <= best.upper_bound


def test_a_path_in_one_call_is_what_single_solves_find(rng):
    problem = problem_for(TABLE["spectrahedra, split"], rng)
    settings = SpectrahedronSplitting(tolerance=1e-9)
    problem = jax.tree.map(jnp.asarray, problem)
    found = jax.jit(lambda p: spectrahedron_path(p, DECAYS, settings).solutions)(problem)
    alone = solutions(TABLE["spectrahedra, split"], problem)
    values = [float(one.objective) for one in alone]
    np.testing.assert_allclose(found.objective, values, rtol=1e-7)
