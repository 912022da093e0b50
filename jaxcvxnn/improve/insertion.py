"""Grow a network: insert neurons where they pay, and refit the whole output layer each time.

With R = f(X) - Y, a neuron in direction u lowers the objective to first order exactly where its price
||R' relu(X u)|| / |u| exceeds the weight decay (Sahiner et al., 2021, eq. 11). The search for such
directions is heuristic: it finds local maxima and proves nothing. With the directions fixed, what is
left is a group lasso in V, solved by iteratively reweighted ridge regression.
"""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ..job import Job
from ..networks import AbstractTwoLayer, from_first_layer
from ..problem import TrainingProblem

# The exponent of the multiplicative update below; 1 is the plain method, which is monotone.
OVERRELAXATION = 1.6
REWEIGHTINGS = 100
# Neurons weaker than this part of the strongest are dropped between rounds.
NEGLIGIBLE = 1e-5


def grow(
    problem: TrainingProblem,
    network: AbstractTwoLayer,
    key: PRNGKeyArray,
    *,
    width: int = 300,
    rounds: int = 40,
    per_round: int = 60,
    tolerance: float = 1e-6,
    job: Job | None = None,
    watch: Callable[[AbstractTwoLayer, float, int], object] | None = None,
) -> AbstractTwoLayer:
    """The best network found by rounds of insertion, refit and pruning, of at most `width` neurons.

    It ends when no direction was found whose price exceeds the weight decay by `tolerance`,
    relative, and where `job` is over, with the best so far. `watch(network, objective, round)` is told
    after each round.
    """
    job = Job() if job is None else job
    best, value = network, float(problem.objective(network))
    first, strength = _directions(network)
    current = network
    for done in range(rounds):
        key, draw = jax.random.split(key)
        search = functools.partial(best_directions, problem, pad(current, width), draw)
        found = job.chunk(lambda search=search: jax.block_until_ready(search(count=per_round)))
        if found is None:
            break
        candidates, prices = found
        pays = np.asarray(prices) > float(problem.weight_decay) * (1 + tolerance)
        if not pays.any():
            break
        new = np.asarray(candidates)[:, pays][:, : max(width - first.shape[1], 0)]
        size = 0.3 * strength.mean() if strength.size else 1.0
        first = np.concatenate([first, new], axis=1)
        strength = np.concatenate([strength, np.full(new.shape[1], size)])
        fit = functools.partial(_refit_padded, problem, first, strength, width)
        fitted = job.chunk(lambda fit=fit: jax.tree.map(np.asarray, fit()))
        if fitted is None:
            break
        first, strength = _directions(fitted)
        keep = strength > NEGLIGIBLE * strength.max(initial=0.0)
        first, strength, current = first[:, keep], strength[keep], fitted
        reached = float(problem.objective(fitted))
        if reached < value:
            best, value = fitted, reached
        job.tell(watch, best, value, done + 1)
    return best


def refit_network(
    problem: TrainingProblem, network: AbstractTwoLayer, *, width: int = 300
) -> AbstractTwoLayer:
    """`fit_strengths` of the directions that a network has, padded with zero neurons up to `width`."""
    return _refit_padded(problem, *_directions(network), width)


@eqx.filter_jit
def fit_strengths(
    problem: TrainingProblem, directions: Float[Any, "d m"], strength: Float[Any, " m"]
) -> AbstractTwoLayer:
    """The network with these unit first-layer directions and nearly optimal output weights.

    min over V of 1/2 ||A V - Y||^2 + wd sum_j |v_j|, A = phi(X U): since |v| = min over eta > 0 of
    (|v|^2 / eta + eta) / 2, alternate a ridge regression with penalties 1 / eta_j and eta_j = |v_j|,
    which multiplies eta_j by its price over the weight decay. `strength` is the first eta.
    """
    activations = problem.activation(jnp.asarray(problem.features) @ directions)
    ridge = problem.weight_decay * jnp.eye(activations.shape[0], dtype=activations.dtype)

    def dual(eta):
        return jnp.linalg.solve((activations * eta) @ activations.T + ridge, problem.Y)

    def reweight(_, eta):
        return eta * jnp.linalg.norm(activations.T @ dual(eta), axis=1) ** OVERRELAXATION

    eta = jax.lax.fori_loop(0, REWEIGHTINGS, reweight, jnp.asarray(strength))
    eta = eta * jnp.linalg.norm(activations.T @ dual(eta), axis=1)
    second = eta[:, None] * (activations.T @ dual(eta))
    size = jnp.sqrt(jnp.linalg.norm(second, axis=1))
    alive = size > 0
    second = second / jnp.where(alive, size, 1)[:, None]
    weights = directions * size
    return from_first_layer(weights, second, bias=problem.bias, activation=problem.activation)


@eqx.filter_jit
def best_directions(
    problem: TrainingProblem,
    network: AbstractTwoLayer,
    key: PRNGKeyArray,
    *,
    starts: int = 150,
    ascents: int = 40,
    count: int = 60,
) -> tuple[Float[Array, "d count"], Float[Array, " count"]]:
    """Unit directions of high price and their prices, best first; near-duplicates get price 0.

    Power iteration u <- grad/|grad| from three kinds of random starts (u, X^+ of noise, and half-way
    between, since maxima of raw data sit in thin cells) and from the network's own neurons.
    """
    features = jnp.asarray(problem.features)
    residual = network.predict(problem.X) - problem.Y
    _, values, right = jnp.linalg.svd(features, full_matrices=False)
    floor = values[0] * 100 * jnp.finfo(values.dtype).eps
    safe = jnp.where(values > floor, values, jnp.inf)[:, None]
    noise = jax.random.normal(key, (3, len(values), starts), features.dtype)
    drawn = [right.T @ noise[0], right.T @ (noise[1] / jnp.sqrt(safe)), right.T @ (noise[2] / safe)]
    u = _unit(jnp.concatenate([*drawn, network.first_layer], axis=1))

    def price(u):
        return jnp.linalg.norm(residual.T @ jax.nn.relu(features @ u), axis=0)

    def ascend(_, carry):
        u, reached = carry
        hidden = features @ u
        image = _unit(residual.T @ jax.nn.relu(hidden))
        stepped = _unit(features.T @ ((hidden > 0) * (residual @ image)))
        ahead = price(stepped)
        better = ahead > reached
        return jnp.where(better, stepped, u), jnp.where(better, ahead, reached)

    u, prices = jax.lax.fori_loop(0, ascents, ascend, (u, price(u)))
    order = jnp.argsort(-prices)
    u, prices = u[:, order], prices[order]
    activity = _unit(jax.nn.relu(features @ u))
    alike = activity.T @ activity > 1 - 1e-6
    prices = jnp.where(jnp.tril(alike, -1).any(axis=1), 0, prices)
    kept = jnp.argsort(-prices)[:count]
    return u[:, kept], prices[kept]


def _directions(network: AbstractTwoLayer) -> tuple[np.ndarray, np.ndarray]:
    """Unit first-layer directions of the live neurons, and their |u| |v|."""
    first = np.asarray(network.first_layer)
    lengths = np.linalg.norm(first, axis=0)
    strength = lengths * np.linalg.norm(network.V, axis=1)
    alive = strength > 0
    return first[:, alive] / lengths[alive], strength[alive]


def _refit_padded(
    problem: TrainingProblem, first: np.ndarray, strength: np.ndarray, width: int
) -> AbstractTwoLayer:
    room = max(width - first.shape[1], 0)
    return fit_strengths(problem, np.pad(first, ((0, 0), (0, room))), np.pad(strength, (0, room)))


def pad(network: AbstractTwoLayer, width: int) -> AbstractTwoLayer:
    """The network with zero neurons up to `width`: one shape, one compilation. Host only."""
    room, biased = max(width - network.width, 0), network.b is not None
    first = np.pad(jax.tree.map(np.asarray, network).first_layer, ((0, 0), (0, room)))
    second = np.pad(np.asarray(network.V), ((0, room), (0, 0)))
    return from_first_layer(first, second, bias=biased, activation=network.activation)


def _unit(columns: Array) -> Array:
    lengths = jnp.linalg.norm(columns, axis=0)
    return columns / jnp.where(lengths > 0, lengths, 1)
