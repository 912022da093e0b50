"""Hyperplane arrangements: the activation patterns that single neurons have on the data.

The planes x_i'u = 0 cut the space of neurons into cells, on each of which the same samples are active.
The convex programs of Ergen and Pilanci (2023) and of Sahiner et al. (2021) have a block of variables
for each: for all of them, or for those that are sampled, that a rank-k approximation of the data has,
or that a network has. A pattern is a row of booleans, True where x_i'u >= 0 (Ergen, eq. 5) and x_i is
not zero. docs/math/patterns.md, "Hyperplane arrangements".
"""

import math
from typing import Any, Protocol

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float

from jaxcone import verified

from ..arrays import Matrix, finite_matrix
from .directions import row_space
from .planes import PARALLEL, distinct_patterns, on_plane, pattern_keys
from .scaling import scaled_rows

# Patterns beyond which enumeration is refused.
LIMIT = 1_000_000
# Traces of planes on a plane are parallel if they agree to this: finer ones are kept, and what they
# add is dropped at the end if its signs are not certain.
ROUNDING = verified.gamma(32)
# Pairs of unit rows whose cosine is further from 1 are not parallel to any tolerance in use here.
NEARLY_PARALLEL = 1e-9


def count_patterns(n: int, r: int) -> int:
    """2 sum_{k < r} C(n - 1, k): the patterns of n rows of rank r in general position.

    No rows have more: Ergen and Pilanci (2023), eq. (6), after Cover (1965). **Raises** a `ValueError`
    unless both are positive.
    """
    if min(n, r) < 1:
        raise ValueError(f"n and r must be positive; got {n} and {r}.")
    return 2 * sum(math.comb(n - 1, k) for k in range(min(n, r)))


def sign_patterns(features: Any, *, limit: int = LIMIT) -> Bool[np.ndarray, "m n"]:
    """The patterns F u > 0 of all cells of full dimension, for F (n, d) of any rank r: O(n^r).

    In general position there are `count_patterns(n, r)`. Zero rows are never active; rows whose
    directions agree to 1e-12 count as parallel. Each pattern is that of a point at which its signs
    are certain; cells that are only as wide as rounding errors may be missing.

    **Raises** a `ValueError` for another shape or entries that are not finite, and where
    `count_patterns` of the distinct directions exceeds `limit`.
    """
    rows, _ = scaled_rows(finite_matrix(features, "features"))
    basis = row_space(rows, PARALLEL)
    lines = _distinct_lines(_coordinates(rows, basis))
    if not len(lines):
        return np.zeros((1, len(rows)), bool)
    count = count_patterns(*lines.shape)
    if count > limit:
        raise ValueError(
            f"{len(lines)} directions of rank {lines.shape[1]} may have {count} patterns, more than "
            f"limit = {limit}; sample_patterns and low_rank_patterns take some of them."
        )
    points = _half_of_the_cells(lines) @ basis.T
    products = points @ rows.T
    sizes = np.outer(verified.vector_norm_bound(points), verified.vector_norm_bound(rows))
    unclear = np.abs(products) <= verified.gamma(rows.shape[1] + 8) * sizes
    products = products[~np.any(unclear & np.any(rows != 0, axis=1), axis=1)]
    return distinct_patterns(np.concatenate([products > 0, products < 0]))


def neuron_patterns(features: Any, neurons: Any) -> Bool[np.ndarray, "m n"]:
    """Where x_i'u_j >= 0, for F (n, d) and neurons (m, d) as rows, in their order; zero x_i excepted.

    **Raises** a `ValueError` for shapes that do not match or entries that are not finite.
    """
    features = finite_matrix(features, "features")
    neurons = finite_matrix(neurons, "neurons", least=0)
    if neurons.shape[1] != features.shape[1]:
        raise ValueError(
            f"neurons must have {features.shape[1]} columns, as features do; they have "
            f"{neurons.shape[1]}."
        )
    return (neurons @ features.T >= 0) & np.any(features != 0, axis=1)


def sample_patterns(features: Any, count: int, *, seed: int = 0) -> Bool[np.ndarray, "m n"]:
    """The distinct patterns of `count` standard normal neurons: Ergen and Pilanci, section III-A.

    Each cell is met with the probability that is its solid angle; `sample_size` says how many draws
    meet all of them.

    **Raises** a `ValueError` for features (n, d) that are not a finite matrix, and a count below 1.
    """
    features = finite_matrix(features, "features")
    if count < 1:
        raise ValueError(f"count must be at least 1; got {count}.")
    neurons = np.random.default_rng(seed).standard_normal((count, features.shape[1]))
    return distinct_patterns(neuron_patterns(features, neurons))


def sample_size(patterns: int, angle: float, epsilon: float) -> int:
    """Draws after which all of `patterns` were met with probability 1 - `epsilon` or more.

    log(P / epsilon) / theta_min, rounded up: Ergen and Pilanci (2023), Theorem III.2, where `angle` is
    theta_min, the smallest *probability* of a cell under the normal distribution. Their Remark III.2
    has angles in radians instead, 2 pi times too large: docs/math/patterns.md, "Hyperplane
    arrangements".

    **Raises** a `ValueError` unless patterns >= 1, 0 < angle <= 1 / patterns and 0 < epsilon < 1.
    """
    if patterns < 1:
        raise ValueError(f"patterns must be at least 1; got {patterns}.")
    if not 0 < angle <= (1 + 1e-9) / patterns:
        raise ValueError(
            f"angle must be a probability of at most 1 / {patterns}, as the smallest of {patterns} "
            f"cells has; got {angle}."
        )
    if not 0 < epsilon < 1:
        raise ValueError(f"epsilon must lie between 0 and 1; got {epsilon}.")
    return math.ceil(math.log(patterns / epsilon) / angle)


def solid_angles(
    features: Any,
) -> tuple[Bool[np.ndarray, "m n"], Float[np.ndarray, " m"]]:
    """All patterns of F (n, d) of rank 1 or 2 and the probabilities of their cells, lengths of arcs
    over 2 pi: the theta_i of Ergen and Pilanci (2023), section III-A.

    **Raises** a `ValueError` for another shape or rank, and entries that are not finite.
    """
    rows, _ = scaled_rows(finite_matrix(features, "features"))
    rows = _coordinates(rows, row_space(rows, PARALLEL))
    lines = _distinct_lines(rows)
    if lines.shape[1] > 2:
        raise ValueError(
            f"features must have rank 1 or 2; theirs is {lines.shape[1]}, where solid angles are no "
            "lengths of arcs."
        )
    if not len(lines):
        return np.zeros((1, len(rows)), bool), np.ones(1)
    if lines.shape[1] == 1:
        points, shares = np.ones((1, 1)), np.array([0.5])
    else:
        points, widths = _arcs(lines)
        shares = widths / (2 * np.pi)
    return (
        np.concatenate([points @ rows.T > 0, points @ rows.T < 0]),
        np.concatenate([shares, shares]),
    )


def low_rank_patterns(features: Any, rank: int, *, limit: int = LIMIT) -> Bool[np.ndarray, "m n"]:
    """All patterns of the nearest matrix of that rank to F (n, d): Ergen and Pilanci, eq. (10).

    **Raises** a `ValueError` as `sign_patterns` does, and for a rank below 1.
    """
    return sign_patterns(_low_rank_rows(features, rank)[0], limit=limit)


class LowRankGuarantee(eqx.Module):
    """The patterns of a rank-k approximation, and what training with them costs at most.

    `singular_value` is sigma_{k+1} of the data, its distance from the approximation. The network read
    from the minimiser of program (10) of Ergen and Pilanci (2023), the true data with these patterns,
    has at most `factor` times the optimal objective: (1 + L R sigma_{k+1} / weight_decay)^2, their
    eq. (11). So has the network that is optimal for the approximated data (Lemma F.1).
    """

    patterns: Bool[np.ndarray, "m n"]
    singular_value: float
    factor: float


def low_rank_guarantee(
    features: Any,
    rank: int,
    *,
    weight_decay: float,
    loss_lipschitz: float = 1.0,
    activation_lipschitz: float = 1.0,
    limit: int = LIMIT,
) -> LowRankGuarantee:
    """`low_rank_patterns` with the guarantee of Theorem III.1 of Ergen and Pilanci (2023).

    **Arguments:** the Lipschitz constants L of the loss, |L(Z) - L(Z')| <= L ||Z - Z'||_F, and R of
    the activation: 1 for ReLU and leaky ReLU; 1 - slope where that is negative, which program (10)
    needs (docs/math/patterns.md, "Hyperplane arrangements"). The squared loss has no L.

    **Raises** a `ValueError` as `low_rank_patterns` does, and for numbers that are not positive.
    """
    for name, value in (
        ("weight_decay", weight_decay),
        ("loss_lipschitz", loss_lipschitz),
        ("activation_lipschitz", activation_lipschitz),
    ):
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite; got {value}.")
    coordinates, left_out = _low_rank_rows(features, rank)
    ratio = loss_lipschitz * activation_lipschitz * left_out / weight_decay
    return LowRankGuarantee(sign_patterns(coordinates, limit=limit), left_out, (1 + ratio) ** 2)


class _HasFirstLayer(Protocol):
    """A two-layer network, as far as its patterns go."""

    @property
    def b(self) -> Any: ...
    @property
    def first_layer(self) -> Any: ...


def network_patterns(network: _HasFirstLayer, X: Any) -> Bool[np.ndarray, "m n"]:
    """The distinct patterns of a network's neurons on samples X (n, d), biases included.

    Neurons with zero weights in the first layer have none.

    **Raises** a `ValueError` for samples that do not fit the network.
    """
    samples = finite_matrix(X, "X")
    if network.b is not None:
        samples = np.concatenate([samples, np.ones((len(samples), 1))], axis=1)
    neurons = np.asarray(network.first_layer, np.float64).T
    alive = np.any(neurons != 0, axis=1)
    return distinct_patterns(neuron_patterns(samples, neurons[alive]))


def stack_patches(patches: Any) -> Float[np.ndarray, "Kn d"]:
    """[X_1; ...; X_K] (K n, d) from patch matrices (K, n, d): Ergen and Pilanci (2023), eq. (14).

    A convolution with average pooling is a network on these samples whose outputs are averaged over
    the K places before the loss.

    **Raises** a `ValueError` for arrays of another shape.
    """
    array = np.asarray(patches, np.float64)
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(
            f"patches must have shape (K, n, d), one matrix per place; got {array.shape}."
        )
    return array.reshape(-1, array.shape[2])


def convolutional_patterns(
    patches: Any, *, count: int | None = None, seed: int = 0, limit: int = LIMIT
) -> Bool[np.ndarray, "m n K"]:
    """The patterns of filters on patch matrices (K, n, d): of all, or of `count` random filters.

    Entry (i, k) of a pattern says whether the filter is active at place k of sample i: Ergen and
    Pilanci (2023), section IV-A; random filters are their "Convex-Conv". A linear convolution
    (section IV-B) has no patterns: its program (18) needs the patch matrices alone.

    **Raises** a `ValueError` as `stack_patches`, `sign_patterns` and `sample_patterns` do.
    """
    stacked = stack_patches(patches)
    if count is None:
        patterns = sign_patterns(stacked, limit=limit)
    else:
        patterns = sample_patterns(stacked, count, seed=seed)
    places = len(patches)
    return patterns.reshape(len(patterns), places, -1).swapaxes(1, 2)


def _low_rank_rows(features: Any, rank: int) -> tuple[Matrix, float]:
    """The nearest matrix of that rank, in coordinates of its row space, and its distance."""
    features = finite_matrix(features, "features")
    if rank < 1:
        raise ValueError(f"rank must be at least 1; got {rank}.")
    _, values, right = np.linalg.svd(features, full_matrices=False)
    coordinates = features @ right[:rank].T
    # Rows that the approximation loses are zero there, not rounding errors with signs.
    coordinates[np.linalg.norm(coordinates, axis=1) <= PARALLEL * values[0]] = 0
    return coordinates, float(values[rank]) if rank < len(values) else 0.0


def _coordinates(rows: Matrix, basis: Matrix) -> Matrix:
    """Rows in a basis of their span; left as they are where that is the whole space."""
    return rows if basis.shape[0] == basis.shape[1] else rows @ basis


def _distinct_lines(rows: Matrix, tolerance: float = PARALLEL) -> Matrix:
    """The rows that are not zero and not parallel, up to `tolerance`, to an earlier one."""
    lengths = np.linalg.norm(rows, axis=1)
    rows, lengths = rows[lengths > 0], lengths[lengths > 0]
    units = rows / lengths[:, None]
    cosines = units @ units.T
    first, second = np.nonzero(np.triu(np.abs(cosines) > 1 - NEARLY_PARALLEL, 1))
    opposite = np.sign(cosines[first, second])[:, None]
    distances = np.linalg.norm(units[first] - opposite * units[second], axis=1)
    return np.delete(rows, second[distances <= tolerance], axis=0)


def _half_of_the_cells(lines: Matrix) -> Matrix:
    """A point inside each cell on the positive side of `lines[0]`; the others are their negatives.

    Plane by plane: the cells that a new plane cuts in two are the cells of the earlier planes' traces
    on it, an arrangement of one rank less. `lines` (k, r) are pairwise independent.
    """
    if lines.shape[1] == 1:
        return np.sign(lines)
    if lines.shape[1] == 2:
        points, _ = _arcs(lines)
        return points
    points, sides = lines[:1] / np.linalg.norm(lines[0]), np.ones((1, 1), bool)
    for k in range(1, len(lines)):
        normal = lines[k] / np.linalg.norm(lines[k])
        basis = np.linalg.qr(np.column_stack([normal, np.eye(len(normal))]))[0][:, 1:]
        traces, _ = on_plane(lines[:k], lines[k], basis, 0.0)
        crossings = _half_of_the_cells(_distinct_lines(traces, ROUNDING))
        crossings /= np.linalg.norm(crossings, axis=1)[:, None]
        products = crossings @ traces.T
        cut_sides = products > 0
        # Half of the way to the first plane that is met when leaving plane k, if there is one.
        speeds = np.maximum(np.abs(lines[:k] @ normal), 1e-100)
        ways = np.min(np.abs(products) / speeds, axis=1)
        steps = np.minimum(ways / 2, 1)[:, None] * normal
        crossings = crossings @ basis.T
        whole = ~np.isin(pattern_keys(sides), pattern_keys(cut_sides))
        points, sides = points[whole], sides[whole]
        sides = np.column_stack([sides, points @ normal > 0])
        ends = np.ones((len(crossings), 1), bool)
        points = np.concatenate([points, crossings + steps, crossings - steps])
        sides = np.concatenate([sides, np.hstack([cut_sides, ends]), np.hstack([cut_sides, ~ends])])
    return points


def _arcs(lines: Matrix) -> tuple[Matrix, Matrix]:
    """The middles of the arcs between `lines` (k, 2), on the positive side of the first; lengths."""
    ends = np.sort(np.mod(np.arctan2(lines[:, 1], lines[:, 0]) + np.pi / 2, np.pi))
    widths = np.diff(ends, append=ends[0] + np.pi)
    middles = ends + widths / 2
    points = np.column_stack([np.cos(middles), np.sin(middles)])
    return np.where(points @ lines[0] > 0, 1, -1)[:, None] * points, widths
