"""Neural Decomposition (Bartan and Pilanci, 2021, section 4.1): from matrices to neurons.

A PSD matrix Z of order d + 1 with tr Z_1 = Z_4 is sum_j w_j (u_j, 1)(u_j, 1)' with |u_j| = 1, w_j >= 0
and as many terms as its rank: docs/math/spectrahedra.md, "Neural Decomposition".
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, ScalarLike

from ..conic.spectrahedron import symmetric_part
from ..networks import PolynomialNetwork
from ..problem import TrainingProblem, require_polynomial

# Eigenvalues are zero below this many roundings, per row, of the largest one.
ROUNDINGS = 8


def decompose(
    matrix: Float[Array, "side side"], tolerance: ScalarLike | None = None
) -> tuple[Float[Array, "side d"], Float[Array, " side"]]:
    """Unit neurons (d + 1, d), the heaviest first, and their weights (d + 1,), for Z = `matrix`.

    The weights are nonnegative, and at most rank(Z) of them are positive. Eigenvalues of Z below
    `tolerance` times the largest one, and negative ones, count as zero; by default that is rounding.
    `sum_j w_j (u_j, 1)(u_j, 1)'` is Z up to rounding if Z is in +M(inf). If tr Z_1 and Z_4 differ it
    is D Z D, D = diag(r, ..., r, 1/r) with r^4 = Z_4 / tr Z_1: the same rank and the same Z_2, and Z_1
    and Z_4 times r^2 and r^-2. Pure JAX, for `jit` and `vmap`.
    """
    matrix = symmetric_part(matrix)
    side, dtype = matrix.shape[0], matrix.dtype
    trace = jnp.trace(matrix)
    unit = jnp.where(trace > 0, trace, 1)
    values, basis = jnp.linalg.eigh(matrix / unit)
    if tolerance is None:
        tolerance = ROUNDINGS * side * float(jnp.finfo(dtype).eps)
    kept = (values > jnp.asarray(tolerance, dtype) * values[-1]) & (values > 0) & (trace > 0)
    columns = _balanced(jnp.sqrt(jnp.where(kept, values, 0)) * basis)
    rows, _, _ = jax.lax.fori_loop(0, side - 1, _retire_one, (columns.T, _forms(columns.T), kept))
    first, last = rows[:, :-1], rows[:, -1]
    lengths = jnp.linalg.norm(first, axis=1)
    # |u||w|, where both agree up to rounding: what is off the cone is divided between them.
    weights = unit * lengths * jnp.abs(last)
    alive = weights > 0
    neurons = first * (jnp.sign(last) / jnp.where(alive, lengths, 1))[:, None]
    neurons = jnp.where(alive[:, None], neurons, jnp.eye(1, side - 1, dtype=dtype))
    order = jnp.argsort(-weights, stable=True)
    return neurons[order], weights[order]


def spectrahedron_network(
    problem: TrainingProblem, positive: Any, negative: Any, tolerance: ScalarLike | None = None
) -> PolynomialNetwork:
    """The network of matrices Z_k and Z_k' of one pair per output, on the host.

    **Arguments:** `positive` and `negative`, (c, d + 1, d + 1), where d counts the bias; `tolerance`:
    see `decompose`. A solver's points are accurate to its tolerance: eigenvalues below that are
    noise, and dropping them makes the network narrower.

    **Returns** a `PolynomialNetwork` of at most sum_k rank(Z_k) + rank(Z_k') neurons, each with one
    output: Bartan and Pilanci (2021), eqs. (22), (36) and (37). Where the matrices are a solution of
    their program it is a global optimum.

    **Raises** a `ValueError` for another activation than a polynomial, matrices of other shapes, and
    entries that are not finite.
    """
    activation = require_polynomial(problem)
    outputs, side = problem.Y.shape[1], problem.features.shape[1] + 1
    neurons, strengths, places = signed_neurons(
        positive, negative, (outputs, side, side), tolerance
    )
    V = np.zeros((len(strengths), outputs), strengths.dtype)
    V[np.arange(len(strengths)), *places] = strengths
    first = neurons.T
    if problem.bias:
        return PolynomialNetwork(first[:-1], V, first[-1], activation=activation)
    return PolynomialNetwork(first, V, activation=activation)


def signed_neurons(
    positive: Any, negative: Any, shape: tuple[int, ...], tolerance: ScalarLike | None = None
) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, ...]]:
    """Neurons (m, d), weights (m,) that are not zero, and the indices of the pairs they belong to.

    Z and Z' are of `shape` (..., d + 1, d + 1): a pair per output, or per pool and output. All is in
    the precision of the matrices, also where JAX's 64-bit types are switched off.

    **Raises** a `ValueError` for matrices of another `shape`, and entries that are not finite.
    """
    matrices = []
    for name, given in (("positive", positive), ("negative", negative)):
        if np.shape(given) != shape:
            raise ValueError(
                f"{name} must have shape {shape}, a matrix of order d + 1 per output (and pool); its "
                f"shape is {np.shape(given)}."
            )
        if not np.all(np.isfinite(given)):
            raise ValueError(f"{name} must be finite; it holds NaN or infinite entries.")
        matrices.append(np.reshape(given, (-1, *shape[-2:])))
    with jax.enable_x64(True):
        neurons, weights = map(np.asarray, _decompose_all(np.stack(matrices), tolerance))
    alive = weights > 0
    signs = np.array([1, -1], weights.dtype)[:, None, None]
    weights = signs * weights
    return neurons[alive], weights[alive], np.unravel_index(np.nonzero(alive)[1], shape[:-2])


@jax.jit
def _decompose_all(matrices: Array, tolerance: Any) -> tuple[Array, Array]:
    return jax.vmap(jax.vmap(lambda matrix: decompose(matrix, tolerance)))(matrices)


def _balanced(columns: Array) -> Array:
    """P with tr Z_1 = Z_4 for Z = P P', by one factor for the first rows and its inverse for the last.

    Zero where one of them is zero: nothing of it is on the cone.
    """
    above, below = jnp.sum(columns[:-1] ** 2), jnp.sum(columns[-1] ** 2)
    usable = (above > 0) & (below > 0)
    ratio = jnp.where(usable, below, 1) / jnp.where(usable, above, 1)
    ratio = jnp.where(usable, ratio**0.25, 0)
    inverse = jnp.where(usable, 1 / jnp.where(usable, ratio, 1), 0)
    return jnp.concatenate([ratio * columns[:-1], inverse * columns[-1:]])


def _forms(rows: Array) -> Array:
    """p'G p of each row."""
    return jnp.sum(rows[..., :-1] ** 2, axis=-1) - rows[..., -1] ** 2


def _retire_one(_: Any, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    """One step of the procedure: two vectors become one on the cone and one that goes on.

    Taken are those of the largest and of the least p'G p, which have opposite signs unless all is done;
    a rotation of the two leaves the sum of p p' as it is. All vectors that are left come from
    different eigenvectors, hence are orthogonal, and none becomes shorter than the shortest.
    """
    rows, forms, left = state
    up = jnp.argmax(jnp.where(left, forms, -jnp.inf))
    down = jnp.argmin(jnp.where(left, forms, jnp.inf))
    p, q, above, below = rows[up], rows[down], forms[up], forms[down]
    opposite = (above > 0) & (below < 0)
    mixed = jnp.sum(p[:-1] * q[:-1]) - p[-1] * q[-1]
    # below t^2 + 2 mixed t + above = 0: the root of less size, without cancellation.
    root = jnp.sqrt(jnp.maximum(mixed**2 - above * below, 0))
    bottom = jnp.where(mixed < 0, mixed - root, mixed + root)
    tangent = jnp.where(opposite, -above / jnp.where(opposite, bottom, 1), 0)
    cosine = 1 / jnp.sqrt(1 + tangent**2)
    sine = tangent * cosine
    on_cone, rest = cosine * p + sine * q, cosine * q - sine * p
    # Where nothing is left to pair, `up` is on the cone already, and may be `down` as well.
    rows = rows.at[down].set(jnp.where(opposite, rest, q)).at[up].set(on_cone)
    forms = forms.at[down].set(jnp.where(opposite, _forms(rest), below))
    return rows, forms, left.at[up].set(False)
