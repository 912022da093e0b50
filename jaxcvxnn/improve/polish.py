"""Improve a network on the true objective: L-BFGS, Adam with falling steps, balance, pruning."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from ..job import Job, Pace
from ..networks import AbstractTwoLayer, from_first_layer, two_layer
from ..problem import TrainingProblem


def balance(network: AbstractTwoLayer) -> AbstractTwoLayer:
    """The same function with |u_j| = |v_j| for every neuron, which weight decay likes best.

    relu(c x) = c relu(x) for c > 0, and |u|^2 + |v|^2 >= 2 |u| |v| with equality when balanced. A
    neuron with a zero on either side computes nothing and becomes zero on both.
    """
    first = jnp.linalg.norm(network.first_layer, axis=0)
    second = jnp.linalg.norm(network.V, axis=1)
    alive = (first > 0) & (second > 0)
    ratio = jnp.sqrt(jnp.where(alive, second, 1) / jnp.where(alive, first, 1))
    up, down = jnp.where(alive, ratio, 0), jnp.where(alive, 1 / ratio, 0)
    bias = None if network.b is None else network.b * up
    weights, outputs = network.U * up, network.V * down[:, None]
    return two_layer(weights, outputs, bias, activation=network.activation)


def prune(network: AbstractTwoLayer, *, threshold: float = 0.0) -> AbstractTwoLayer:
    """Without the neurons whose |u_j| |v_j| is at most `threshold` times the largest. Host only."""
    strength = np.linalg.norm(network.first_layer, axis=0) * np.linalg.norm(network.V, axis=1)
    keep = strength > threshold * strength.max(initial=0.0)
    bias = None if network.b is None else np.asarray(network.b)[keep]
    weights, outputs = np.asarray(network.U)[:, keep], np.asarray(network.V)[keep]
    return two_layer(weights, outputs, bias, activation=network.activation)


def merge(network: AbstractTwoLayer, *, tolerance: float = 1e-6) -> AbstractTwoLayer:
    """Each group of neurons that are parallel in both layers made one. Host only.

    Parallel means 1 - cosine <= `tolerance`, to the strongest neuron of the group. Exactly parallel
    neurons merge without changing the function, and a merged one never weighs more:
    |sum_j w_j u_j| |sum_j w_j v_j| / sum_j w_j <= sum_j w_j for unit u_j, v_j. Between neurons that
    share their activation pattern the change of the function is of second order in their angles.
    """
    first, second = np.asarray(network.first_layer), np.asarray(network.V)
    lengths = np.linalg.norm(first, axis=0), np.linalg.norm(second, axis=1)
    strength = lengths[0] * lengths[1]
    order = np.argsort(-strength, kind="stable")
    order = order[strength[order] > 0]
    strength = strength[order]
    first, second = first[:, order] / lengths[0][order], second[order] / lengths[1][order, None]
    weights, outputs = np.zeros((0, len(first))), np.zeros((0, second.shape[1]))
    free = np.ones(len(order), bool)
    while free.any():
        strongest = int(np.argmax(free))
        cosines = np.minimum(first.T @ first[:, strongest], second @ second[strongest])
        group = free & (cosines >= 1 - tolerance)
        group[strongest] = True  # its cosine may be rounded below 1 - tolerance
        free &= ~group
        # Relative to the strongest: squares of the strengths themselves may underflow.
        share = strength[group] / strength[strongest]
        u, v = first[:, group] @ share, share @ second[group]
        size = np.sqrt(strength[strongest] * np.linalg.norm(u) * np.linalg.norm(v) / share.sum())
        weights = np.vstack([weights, u * (size / np.linalg.norm(u))])
        outputs = np.vstack([outputs, v * (size / np.linalg.norm(v))])
    biased = network.b is not None
    return from_first_layer(weights.T, outputs, bias=biased, activation=network.activation)


# L-BFGS stalls at the kinks of ReLU; Adam with small falling steps slides along them, and L-BFGS
# then finishes inside the cell. Steps, and Adam's step relative to the root mean square weight.
SCHEDULE = (("lbfgs", 500), ("adam", 20_000), ("lbfgs", 500))
ADAM_STEP = 0.02


def polish(
    problem: TrainingProblem,
    network: AbstractTwoLayer,
    *,
    tolerance: float = 1e-9,
    job: Job | None = None,
    watch: Callable[[AbstractTwoLayer, float, int, int], object] | None = None,
) -> AbstractTwoLayer:
    """Descend on `problem.objective`; returns the best network seen, balanced, never a worse one.

    **Arguments:** an L-BFGS phase ends when a chunk of steps gains less than `tolerance` relative.
    `job` ends the polish with the best so far. `watch(network, objective, step, steps)` is told after
    every chunk.
    """
    job = Job() if job is None else job
    best, first = _judged(problem, jax.tree.map(jnp.asarray, network))
    value = float(first)
    total, done = sum(steps for _, steps in SCHEDULE), 0
    for name, steps in SCHEDULE:
        phase, chunk = _Phase(name, steps), max(steps // 10, 50)
        descent, pace = _start(phase, problem, best), Pace(job)

        def further(count, phase=phase):
            nonlocal descent
            descent = jax.block_until_ready(_descend(phase, problem, descent, jnp.asarray(count)))
            return descent

        for start in range(0, steps, chunk):
            pace.run(chunk, further)
            candidate, reached = _judged(problem, descent.best)
            gained = value - float(reached)
            if gained > 0:
                best, value = candidate, float(reached)
            job.tell(watch, best, value, done + start + chunk, total)
            if job.over():
                return best
            if name == "lbfgs" and not gained > tolerance * abs(value):
                break
        done += steps
    return best


@eqx.filter_jit
def _judged(problem: TrainingProblem, network: AbstractTwoLayer):
    """The network balanced, and its objective."""
    balanced = balance(network)
    return balanced, problem.objective(balanced)


class _Phase(eqx.Module):
    """One optimiser, and the number of steps over which Adam's fall to zero."""

    name: str = eqx.field(static=True)
    steps: int = eqx.field(static=True)


class _Descent(eqx.Module):
    """Where an optimiser is, and the best network that it has seen."""

    network: AbstractTwoLayer
    memory: Any
    size: Float[Array, ""]  # of Adam's first steps
    count: Int[Array, ""]
    best: AbstractTwoLayer
    lowest: Float[Array, ""]

    def record(self, value: Array) -> "_Descent":
        """With the present network, of this objective, as the best one if it is."""
        better = value < self.lowest
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), self.network, self.best)
        lowest = jnp.where(better, value, self.lowest)
        return eqx.tree_at(lambda d: (d.best, d.lowest), self, (best, lowest))


@eqx.filter_jit
def _start(phase: _Phase, problem: TrainingProblem, network: AbstractTwoLayer) -> _Descent:
    leaves = jax.tree.leaves(network)
    squares = sum(jnp.sum(leaf**2) for leaf in leaves)
    live = sum(jnp.sum(leaf != 0) for leaf in leaves)
    descent = _Descent(
        network=network,
        memory=_rule(phase).init(network),
        size=ADAM_STEP * jnp.sqrt(squares / jnp.maximum(live, 1)),
        count=jnp.zeros((), jnp.int32),
        best=network,
        lowest=problem.objective(network),
    )
    # Of the types that later states have, or the second piece would be compiled anew.
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, leaf.dtype), descent)


@eqx.filter_jit
def _descend(
    phase: _Phase, problem: TrainingProblem, descent: _Descent, steps: Int[Array, ""]
) -> _Descent:
    """The state after some more steps."""
    rule = _rule(phase)

    def step(_, now: _Descent) -> _Descent:
        network, memory = now.network, now.memory
        if phase.name == "lbfgs":
            value, slope = optax.value_and_grad_from_state(problem.objective)(network, state=memory)
            updates, memory = rule.update(
                slope, memory, network, value=value, grad=slope, value_fn=problem.objective
            )
        else:
            value, slope = jax.value_and_grad(problem.objective)(network)
            updates, memory = rule.update(slope, memory)
            fall = (1 + jnp.cos(jnp.pi * now.count / phase.steps)) / 2
            updates = jax.tree.map(lambda u: -now.size * fall * u, updates)
        kept = now.record(jnp.asarray(value))
        moved: Any = optax.apply_updates(network, updates)  # pyright: ignore[reportArgumentType]
        return _Descent(moved, memory, now.size, now.count + 1, kept.best, kept.lowest)

    descent = jax.lax.fori_loop(0, steps, step, descent)
    return descent.record(problem.objective(descent.network))


def _rule(phase: _Phase) -> Any:
    return optax.lbfgs(memory_size=20) if phase.name == "lbfgs" else optax.scale_by_adam()
