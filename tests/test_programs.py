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
from jaxcvxnn import (
    ConeGroupLasso,
    CopositiveRelaxation,
    ExactPlanar,
    NeuralSpectrahedron,
    TrainingProblem,
    balance,
    certify_polynomial_residual,
    certify_residual,
    cone_lasso_network,
    copositive_network,
    generate_columns,
    planar_network,
    solve,
    spectrahedron_network,
    train,
)

from .helpers import lane

DECAYS = np.array([1.0, 0.3, 0.1])
SAMPLES = 5


class Entry(NamedTuple):
    """A program, the activation it is tried with, and how a solution becomes a network."""

    program: Any
    activation: str
    network: Any


TABLE = {
    "planar": Entry(ExactPlanar(), "relu", lambda _, found: balance(planar_network(found))),
    "copositive": Entry(CopositiveRelaxation(), "relu", copositive_network),
    "cone group lasso": Entry(ConeGroupLasso(), "absolute", cone_lasso_network),
    "spectrahedra": Entry(
        NeuralSpectrahedron(),
        "polynomial",
        lambda problem, found: spectrahedron_network(
            problem, found.positive, found.negative, tolerance=1e-9
        ),
    ),
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
    data = jax.tree.map(jnp.asarray, entry.program.data(problem))

    @jax.jit
    @jax.vmap
    def lanes(weight_decay):
        there = eqx.tree_at(lambda d: d.weight_decay, data, weight_decay)
        return solve(there, entry.program)

    found = lanes(jnp.asarray(DECAYS))
    for k, weight_decay in enumerate(DECAYS):
        here = TrainingProblem(X, y, weight_decay, activation=entry.activation)
        one, best = lane(found, k), optimum(here)
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


@pytest.mark.parametrize("entry", TABLE.values(), ids=TABLE.keys())
def test_what_a_program_does_not_take_is_refused(entry):
    X, labels = np.eye(3)[:, :2], np.array([0, 1, 1])
    other = "relu" if entry.activation == "polynomial" else "polynomial"
    with pytest.raises(ValueError):
        solve(TrainingProblem(X, labels, activation=other), entry.program)
    with pytest.raises(ValueError):
        solve(
            TrainingProblem(X, labels, loss="softmax", activation=entry.activation), entry.program
        )
