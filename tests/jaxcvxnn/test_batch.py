"""Many trainings as one program: that it ends, and that lanes are what they would be alone."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcone
import jaxcvxnn
from jaxcvxnn.files.demo_data import random_trial

SCRIPT = """
import jax, jax.numpy as jnp, numpy as np, jaxcone, jaxcvxnn
from jaxcvxnn.files.demo_data import random_trial
X, Y = map(np.stack, zip(*(random_trial(seed) for seed in range(40))))
solver = jaxcone.Splitting(max_steps=50, check_every=10)
def lane(x, y, weight_decay):
    found = jaxcvxnn.solve(jaxcvxnn.TrainingProblem(x, y, weight_decay), method=solver)
    return found.objective, found.moments, found.multipliers
run = jax.jit(jax.vmap(jax.vmap(lane, (None, None, 0)), (0, 0, None)))
for _ in range(3):
    jax.block_until_ready(run(X, Y, jnp.array([0.1, 0.01])))
"""


CONES = """
import jax, jax.numpy as jnp, numpy as np, jaxcone
cones = [jaxcone.Zero(1), jaxcone.PSD(3), jaxcone.Nonnegative(2), jaxcone.PSD(4), jaxcone.PSD(5)]
rng, m = np.random.default_rng(0), 34
A, x = rng.standard_normal((80, m, 8)), rng.standard_normal((80, 8))
identity = jaxcone.ProductCone(cones).identity()
b = np.einsum("kij,kj->ki", A, x) + identity
c = -np.einsum("kij,i->kj", A, identity)
solver = jaxcone.InteriorPoint(max_steps=15)
def lane(A, b, c):
    found = jaxcone.solve(jaxcone.ConeProgram(None, c, A, b, cones), solver)
    return found.solved
run = jax.jit(jax.vmap(lane))
for _ in range(3):
    assert np.mean(jax.block_until_ready(run(A, b, c))) > 0.9
"""


@pytest.mark.slow
@pytest.mark.parametrize("script", [SCRIPT, CONES], ids=["splitting", "interior point"])
def test_a_large_batch_ends(script):
    # Independent batched factorisations used to wait for each other for ever (see `after`).
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)


def test_a_batch_lane_leads_to_a_network_and_a_bound():
    X, Y = (jnp.asarray(part) for part in random_trial(0))
    solver = jaxcone.Splitting(max_steps=200)

    @jax.jit
    @jax.vmap
    def solve(weight_decay):
        problem = jaxcvxnn.TrainingProblem(X, Y, weight_decay)
        return jaxcvxnn.solve(problem, method=solver)

    solutions = solve(jnp.array([0.1, 0.01]))
    assert solutions.steps.shape == (2,)
    assert bool(jnp.all(jnp.isfinite(solutions.residuals.worst)))
    for index, weight_decay in enumerate((0.1, 0.01)):
        problem = jaxcvxnn.TrainingProblem(X, Y, weight_decay)
        lane = jax.tree.map(lambda leaf, i=index: leaf[i], solutions)
        certificate = jaxcvxnn.programs.SDPRelaxation().certify(problem, lane)
        Lambda = jaxcvxnn.programs.full_moments(problem, lane)
        np.testing.assert_allclose(Lambda, Lambda.T, atol=1e-9 * float(jnp.max(Lambda)))
        selection = jaxcvxnn.improve.selection_matrices(problem.features, 5)
        residual = selection.M @ Lambda @ selection.M.T  # alpha - omega = X u in every moment
        np.testing.assert_allclose(residual, 0, atol=1e-9 * float(jnp.max(Lambda)))
        network = jaxcvxnn.improve.round_moments(
            Lambda, problem.features, width=30, relative_step=0.25
        )
        assert certificate.lower_bound <= float(problem.objective(network))
        assert certificate.lower_bound > 0
        reduced = jaxcvxnn.reduction.reduce(problem)
        same = jaxcvxnn.proof.certify_reduced(reduced, lane.residual, lane.multipliers)
        np.testing.assert_allclose(same.lower_bound, certificate.lower_bound, rtol=1e-3)
