"""From the moment matrix of (lifted) to a network: Prakhya et al. (2025), proposition 2.

    min ||Lambda - L L'||_F^2  s.t.  L in D1, L in D2        (L of size p x width, eq. (5))

D1: alpha and omega nonnegative and complementary entrywise; D2: alpha - omega = X u. Solved by
three-operator splitting. Everything here is in one coordinate system, (alpha, omega, u, v).
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcone.extend import DavisYinSolution, after, davis_yin, matmul

from ..job import Job, Pace
from ..networks import AbstractTwoLayer, from_first_layer


class SelectionMatrices(eqx.Module):
    """P_alpha, P_omega (the paper's P_beta), P_u, P_v of Prakhya et al. (2025), theorem 1, and
    `M` = -P_alpha + P_omega + X P_u."""

    alpha: Float[Array, "n p"]
    omega: Float[Array, "n p"]
    u: Float[Array, "d p"]
    v: Float[Array, "c p"]
    M: Float[Array, "n p"]

    @property
    def alpha_omega(self) -> Float[Array, "two_n p"]:
        """P_alpha on top of P_omega."""
        return jnp.concatenate([self.alpha, self.omega])


def selection_matrices(X: Float[Any, "n d"], outputs: int) -> SelectionMatrices:
    """The paper's selection matrices for features X and a number of outputs."""
    X = jnp.asarray(X)
    count, features = X.shape
    eye = jnp.eye(2 * count + features + outputs, dtype=X.dtype)
    alpha, omega, u, v = jnp.split(eye, [count, 2 * count, 2 * count + features])
    return SelectionMatrices(alpha, omega, u, v, -alpha + omega + X @ u)


def project_complementary(factor: Float[Array, "p m"], count: int) -> Float[Array, "p m"]:
    """Projection onto D1: of alpha_i and omega_i the larger stays if it is positive; eq. (6).

    A tie keeps alpha, where the paper's formula would keep both.
    """
    alpha, omega = factor[:count], factor[count : 2 * count]
    wins = alpha >= omega
    zero = jnp.zeros_like(alpha)
    kept_alpha = jnp.where(wins & (alpha > 0), alpha, zero)
    kept_omega = jnp.where(~wins & (omega > 0), omega, zero)
    return jnp.concatenate([kept_alpha, kept_omega, factor[2 * count :]])


def null_space_projector(X: Float[Array, "n d"]):
    """The projection onto D2 as a function: L -> (I - M^+ M) L, with M M' = 2 I + X X'."""
    count, features = X.shape
    gram = 2 * jnp.eye(count, dtype=X.dtype) + matmul(X, X.T)
    cholesky = jax.scipy.linalg.cho_factor(gram)

    def project(factor):
        alpha, omega = factor[:count], factor[count : 2 * count]
        u, v = factor[2 * count : 2 * count + features], factor[2 * count + features :]
        excess = jax.scipy.linalg.cho_solve(cholesky, omega - alpha + matmul(X, u))
        return jnp.concatenate([alpha + excess, omega - excess, u - matmul(X.T, excess), v])

    return project


# Steps of the paper (section 5.2).
MAX_STEPS = 1000


def round_moments(
    moments: Float[Any, "p p"],
    X: Float[Any, "n d"],
    *,
    width: int = 300,
    max_steps: int = MAX_STEPS,
    bias: bool = False,
    relative_step: float | Float[Array, ""] = 1.0,
) -> AbstractTwoLayer:
    """A network from Lambda (p, p), p = 2n + d + c, with the paper's defaults.

    The start is the square root of Lambda by its singular value decomposition, cut or padded with
    zeros to `width` columns; the step size is `relative_step` / ||Lambda||_2 (section 5.2 has 1). `X`
    are the features that Lambda belongs to, the column of ones included where `bias` is set.

    Nothing guarantees convergence, and with `relative_step` 1 the iteration as printed diverges on
    some data (then the weights are NaN); 0.25 has not been seen to.
    """
    relative_step = jnp.asarray(relative_step)  # traced: another one compiles nothing
    return _round(moments, X, width, max_steps, bias, relative_step)


@eqx.filter_jit
def _round(moments, X, width, max_steps, bias, relative_step):
    start, step = _start(moments, width, relative_step)
    return _network(_advance(moments, X, start, step, max_steps).x, X, bias)


def round_on_host(
    moments: Float[Any, "p p"],
    X: Float[Any, "n d"],
    *,
    width: int = 300,
    bias: bool = False,
    relative_step: float = 1.0,
    job: Job,
) -> AbstractTwoLayer:
    """`round_moments` in pieces between which the job is asked; the network of where it ends."""
    relative = jnp.asarray(relative_step)
    start, step = job.finish(
        lambda: jax.block_until_ready(_start_on_host(moments, width, relative))
    )

    def further(count: int) -> Array:
        nonlocal start
        start = jax.block_until_ready(
            _advance_on_host(moments, X, start, step, jnp.asarray(count)).z
        )
        return start

    Pace(job).run(MAX_STEPS, further)
    last = job.finish(lambda: _advance_on_host(moments, X, start, step, jnp.asarray(0)).x)
    return _network(last, X, bias)


def _start(moments: Any, width: int, relative_step: Any) -> tuple[Array, Array]:
    """The square root of Lambda, and the step size."""
    moments = jnp.asarray(moments)
    values, vectors = jnp.linalg.eigh((moments + moments.T) / 2)
    root = (vectors * jnp.sqrt(jnp.maximum(values, 0)))[:, ::-1][:, :width]
    start = jnp.pad(root, ((0, 0), (0, width - root.shape[1])))
    return start, relative_step / jnp.where(values[-1] > 0, values[-1], 1)


def _advance(moments: Any, X: Any, start: Array, step: Array, steps: Any) -> DavisYinSolution:
    """Some steps from z = `start`."""
    count = X.shape[0]
    return davis_yin(
        lambda z: project_complementary(z, count),
        null_space_projector(after(jnp.asarray(X), start)),
        lambda factor: 4 * (matmul(factor, matmul(factor.T, factor)) - matmul(moments, factor)),
        start,
        step=step,
        max_steps=steps,
    )


_start_on_host, _advance_on_host = eqx.filter_jit(_start), eqx.filter_jit(_advance)


def _network(factor: Array, X: Any, bias: bool) -> AbstractTwoLayer:
    count, features = X.shape
    weights = factor[2 * count : 2 * count + features]
    return from_first_layer(weights, factor[2 * count + features :].T, bias=bias)
