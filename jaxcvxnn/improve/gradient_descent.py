"""Gradient descent on the weights: the baseline that the certified bounds are compared with.

Prakhya et al. (2025, appendix E) use plain SGD with small steps, 500,000 of them for Random and up
to 8 million for MNIST. Adam comes as close in far fewer steps, so it is the default here, and
`optimizer="sgd"` is the published recipe. On their Random trial 0 (weight decay 0.1, width 300, all
data in each step), where the optimum is 8.9021, 20,000 steps of Adam end at 8.9023, 100,000 plain
steps of 1e-3 at 8.9085, and plain steps of 3e-3 diverge. On half of Iris, optimum 2.5302, 50,000
steps of Adam end at 2.5387.

Each step uses all the data, so the only randomness is the start.

Polynomial neurons must be unit vectors (Bartan and Pilanci, 2021, eq. 20): they are trained as u / |u|
with u free, so that every network on the way is one of the problem's.
"""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, ScalarLike

from ..networks import AbstractTwoLayer, PolynomialNetwork, two_layer, with_unit_neurons
from ..problem import TrainingProblem


def train_sgd(
    problem: TrainingProblem,
    *,
    width: int = 300,
    steps: int = 20_000,
    learning_rate: ScalarLike = 1e-2,
    seed: int | Int[Array, ""] = 0,
    record_every: int = 10,
    optimizer: Literal["adam", "sgd"] = "adam",
    schedule: Literal["constant", "cosine"] = "cosine",
) -> tuple[AbstractTwoLayer, Float[Array, " k"], Int[np.ndarray, " k"]]:
    """Minimise `problem.objective` by gradient steps from random weights.

    Returns `(network, losses, steps)`: the best network seen at any step, and the objective of
    the *current* network at the recorded steps (0, every `record_every`-th, and the last), so
    `min(losses)` is never below the objective of the returned network. `seed` and
    `learning_rate` may be traced, so runs from many seeds go through one `jax.vmap`. A
    diverging run (NaN or inf losses) still returns the best network it saw. With a polynomial
    activation all objectives are those of the networks with unit neurons, and so is the one returned.

    Raises `ValueError` for a width, step count or recording interval below 1 and for unknown
    option names.
    """
    for name, value in (("width", width), ("steps", steps), ("record_every", record_every)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if optimizer not in ("adam", "sgd"):
        raise ValueError(f"optimizer must be 'adam' or 'sgd', got {optimizer!r}")
    if schedule not in ("constant", "cosine"):
        raise ValueError(f"schedule must be 'constant' or 'cosine', got {schedule!r}")
    start = random_network(jax.random.key(seed), problem, width)
    network, losses = _descend(
        problem, start, jnp.asarray(learning_rate), steps, optimizer, schedule
    )
    recorded = np.unique(np.append(np.arange(0, steps + 1, record_every), steps))
    return network, losses[recorded], recorded


def random_network(key: PRNGKeyArray, problem: TrainingProblem, width: int) -> AbstractTwoLayer:
    """Random weights that keep the size of the activations: He et al. (2015), eq. 10, for the
    hidden layer; variance 1 / width for the linear output layer; zero biases."""
    dtype = jnp.result_type(problem.X)
    d, c = problem.X.shape[1], problem.Y.shape[1]
    hidden_key, output_key = jax.random.split(key)
    U = jax.random.normal(hidden_key, (d, width), dtype) * (2 / d) ** 0.5
    V = jax.random.normal(output_key, (width, c), dtype) * (1 / width) ** 0.5
    biases = jnp.zeros(width, dtype) if problem.bias else None
    return two_layer(U, V, biases, activation=problem.activation)


@eqx.filter_jit
def _descend(
    problem: TrainingProblem,
    start: AbstractTwoLayer,
    learning_rate: ScalarLike,
    steps: int,
    optimizer: str,
    schedule: str,
) -> tuple[AbstractTwoLayer, Float[Array, " steps+1"]]:
    """The loop. Returns the best network and the objective before each step and after the last."""
    dtype = jnp.result_type(problem.X)
    step_size = (
        optax.cosine_decay_schedule(learning_rate, steps)
        if schedule == "cosine"
        else optax.constant_schedule(learning_rate)
    )
    rule = optax.scale_by_adam() if optimizer == "adam" else optax.identity()

    def objective(network):
        return problem.objective(_feasible(network))

    def keep_better(best, best_loss, network, loss):
        better = loss < best_loss  # False for NaN
        kept = jax.tree.map(lambda old, new: jnp.where(better, new, old), best, network)
        return kept, jnp.where(better, loss, best_loss)

    def step(carry, t):
        network, memory, best, best_loss = carry
        loss, slope = jax.value_and_grad(objective)(network)
        best, best_loss = keep_better(best, best_loss, network, loss)
        direction, memory = rule.update(slope, memory)
        size = jnp.asarray(step_size(t), dtype)
        network = jax.tree.map(lambda w, g: w - size * g, network, direction)
        return (network, memory, best, best_loss), loss

    memory = rule.init(start)  # pyright: ignore[reportArgumentType]
    carry = (start, memory, start, jnp.asarray(jnp.inf, dtype))
    (network, _, best, best_loss), losses = jax.lax.scan(step, carry, jnp.arange(steps))
    last = objective(network)
    best, _ = keep_better(best, best_loss, network, last)
    return _feasible(best), jnp.append(losses, last)


def _feasible(network: AbstractTwoLayer) -> AbstractTwoLayer:
    """The network of the problem that these weights stand for."""
    return with_unit_neurons(network) if isinstance(network, PolynomialNetwork) else network
