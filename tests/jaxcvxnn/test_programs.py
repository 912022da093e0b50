"""One contract for the exact programs: value, network and certificate, over weight decays at once.

The relaxation (lifted), whose value is below the optimum, has tests of its own.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcone import Status
from jaxcvxnn import TrainingProblem, certify_residual, solve, train
from jaxcvxnn.improve import balance, spectrahedron_network
from jaxcvxnn.programs import (
    ConeGroupLasso,
    ConeLassoSplitting,
    CopositiveRelaxation,
    ExactPlanar,
    NeuralSpectrahedron,
    SpectrahedronSplitting,
    cone_lasso_network,
    copositive_network,
    planar_network,
    solve_cone_lasso,
    spectrahedron_path,
    split_cone_lasso,
)
from jaxcvxnn.proof import certify_polynomial_residual
from jaxcvxnn.training import generate_columns

from ..helpers import lane

DECAYS = np.array([1.0, 0.3, 0.1])
SAMPLES = 5


class Entry(NamedTuple):
    """How a problem is solved at several weight decays, the activation it is tried with, and how a
    solution becomes a network."""

    solutions: Any
    activation: str
    network: Any


def by(program):
    """`solve` under jit, and under vmap over weight decays."""

    def solutions(problem, weight_decays):
        data = jax.tree.map(jnp.asarray, program.data(problem))

        @jax.jit
        @jax.vmap
        def lanes(weight_decay):
            there = eqx.tree_at(lambda d: d.weight_decay, data, weight_decay)
            return solve(there, program)

        return lanes_of(lanes(jnp.asarray(weight_decays)), weight_decays)

    return solutions


def one_by_one(method):
    """Of a method on the host."""

    def solutions(problem, weight_decays):
        return [method(at(problem, weight_decay)) for weight_decay in weight_decays]

    return solutions


def along_the_path(problem, weight_decays):
    settings = SpectrahedronSplitting(tolerance=1e-9)
    problem = jax.tree.map(jnp.asarray, problem)
    found = jax.jit(lambda p: spectrahedron_path(p, weight_decays, settings).solutions)(problem)
    return lanes_of(found, weight_decays)


def lanes_of(found, weight_decays):
    return [lane(found, k) for k in range(len(weight_decays))]


def at(problem, weight_decay):
    return eqx.tree_at(lambda p: p.weight_decay, problem, np.asarray(weight_decay))


def polynomial_network(problem, found):
    return spectrahedron_network(problem, found.positive, found.negative, tolerance=1e-9)


def split(problem):
    return split_cone_lasso(problem, settings=ConeLassoSplitting(tolerance=1e-8))


TABLE = {
    "planar": Entry(by(ExactPlanar()), "relu", lambda _, found: balance(planar_network(found))),
    "copositive": Entry(by(CopositiveRelaxation()), "relu", copositive_network),
    "cone group lasso": Entry(by(ConeGroupLasso()), "absolute", cone_lasso_network),
    "cone group lasso, interior": Entry(
        one_by_one(solve_cone_lasso), "leaky_relu", cone_lasso_network
    ),
    "cone group lasso, split": Entry(one_by_one(split), "relu", cone_lasso_network),
    "spectrahedra": Entry(by(NeuralSpectrahedron()), "polynomial", polynomial_network),
    "spectrahedra, split": Entry(along_the_path, "polynomial", polynomial_network),
}


def optimum(problem):
    """The network's objective and the proven bound of the library's training, to 1e-8."""
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
    X, y = rng.standard_normal((SAMPLES, 2)), rng.standard_normal(SAMPLES)
    problem = TrainingProblem(X, y, activation=entry.activation)
    for weight_decay, one in zip(DECAYS, entry.solutions(problem, DECAYS), strict=True):
        here = at(problem, weight_decay)
        best = optimum(here)
        assert one.status == Status.solved
        value = float(one.objective)
        np.testing.assert_allclose(value, best.upper_bound, rtol=1e-6)
        network = entry.network(here, one)
        np.testing.assert_allclose(here.objective(network), value, rtol=1e-5)
        assert here.objective(network) >= best.lower_bound  # what is proven, without tolerance
        prove = certify_residual
        if entry.activation == "polynomial":
            prove = certify_polynomial_residual
        bound = prove(here, np.asarray(one.residual)).lower_bound
        assert bound <= best.upper_bound
        np.testing.assert_allclose(bound, value, rtol=1e-4)


@pytest.mark.parametrize("name", TABLE)
def test_what_a_program_does_not_take_is_refused(name):
    entry = TABLE[name]
    X, labels = np.eye(3)[:, :2], np.array([0, 1, 1])
    other = "relu" if entry.activation == "polynomial" else "polynomial"
    with pytest.raises(ValueError):
        entry.solutions(TrainingProblem(X, labels, activation=other), DECAYS)
    if name == "spectrahedra, split":  # it takes all losses
        return
    with pytest.raises(ValueError):
        problem = TrainingProblem(X, labels, loss="softmax", activation=entry.activation)
        entry.solutions(problem, DECAYS)
