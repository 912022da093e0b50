"""Training in closed form on whitened data: the soft-thresholded SVD of Sahiner et al. (2021), (16).

With X X' = s^2 I the outputs of a unit neuron are s a, for any a >= 0 of length at most one, so that
training factors Y into nonnegative and free parts. Without a >= 0 it is a linear network, whose optimum
thresholds the singular values of Y at wd / s. It is one of a ReLU network too if and only if
H = (F F')^(1/2), F its outputs, is a sum of a a' with a >= 0, that is completely positive.
docs/math/problem.md, "Whitened data".
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from jaxcone import verified

from ..arrays import Matrix, finite_matrix
from ..bound import AbstractCertified, Bound
from ..improve.output_layer import balanced_network, fit_outputs
from ..networks import AbstractTwoLayer
from ..pricing.ascent import normalised
from ..pricing.price import Price, prices
from ..problem import TrainingProblem, in_float64, require_relu, require_squared
from ..proof.dual_bound import dual_bound

# How far X X' / s^2 may be from the identity, entry by entry. Rigour does not depend on it: both bounds
# are for the samples as they are.
WHITE = 1e-5
# Entries and eigenvalues of H below this part of the largest count as zero.
ZERO = 1e-9
# Singular values below this part of the largest make samples linearly dependent.
DEPENDENT = 1e-9
# How much above the computed norm of the residual a bound is tried.
MARGINS = (1e-14, 1e-13, 1e-12, 1e-10, 1e-8, 1e-4)


class WhitenedSolution(AbstractCertified):
    """A network for whitened data, and the proof of how good it is.

    Where `exact`, the condition of (16) holds: the network is a global optimum, up to rounding. Else
    `reason` says what failed. The bounds hold in either case: the lower one is the optimum of linear
    networks; the network is then made of the positive and negative parts of theirs.
    """

    network: AbstractTwoLayer
    upper_bound: float
    certificate: Bound[Price]
    exact: bool
    reason: str


def whitened_optimum(problem: TrainingProblem) -> WhitenedSolution:
    """The optimum of training on whitened data in closed form: Sahiner et al. (2021), theorem 2.

    For the squared loss and ReLU, and samples X (n, d) with X X' = s^2 I, n <= d, as `whitening` makes
    them. It costs an SVD of Y. Labels meet the condition where Y is one-hot, or Y Y' nonnegative and
    the weight decay above s times Y's second singular value (their remark 5.2).

    In the condition's basis-free form, singular values may be equal, and singular vectors above the
    threshold may have entries of both signs as long as two of them at most overlap.

    **Raises** a `ValueError` for another loss or activation, more samples than features, and samples
    that are not white.
    """
    require_relu(problem)
    require_squared(problem)
    problem = in_float64(problem)
    X, Y, weight_decay = problem.features, problem.Y, float(problem.weight_decay)
    scale, distance = _whiteness(X)
    left, values, right = np.linalg.svd(Y, full_matrices=False)
    shrunk = np.maximum(values - weight_decay / scale, 0)
    kept = shrunk > 0
    left, shrunk, right = left[:, kept], shrunk[kept], right[kept]
    residual = (left * shrunk) @ right - Y
    atoms, reason = nonnegative_factor((left * shrunk) @ left.T)
    if reason:
        parts = np.concatenate([np.maximum(left, 0), np.maximum(-left, 0)], axis=1)
        first = normalised(parts.T @ X)
        second = fit_outputs(problem, first, np.zeros((len(first), Y.shape[1]))).V
    else:
        # a (a'W) with W the polar factor of the outputs is the function of the neuron X'a / s^2.
        first, second = atoms.T @ X / scale**2, atoms.T @ left @ right
        lengths = np.linalg.norm(first, axis=1)[:, None]
        first, second = first / lengths, second * lengths
    network = balanced_network(problem, first, second)
    upper = float(problem.objective(network))
    price = _price(residual, X, first, scale, distance)
    bound, dual_scale = dual_bound(problem.loss, residual, Y, weight_decay, price.upper)
    certificate = Bound(bound, dual_scale, residual, price)
    return WhitenedSolution(
        network=network,
        upper_bound=upper,
        certificate=certificate,
        exact=not reason,
        reason=reason,
    )


def whitening(X: Any) -> Float[np.ndarray, "d d"]:
    """W with (X W)(X W)' = I, symmetric: ZCA whitening without centring, for X (n, d) of rank n.

    Centred samples have 1'X = 0, hence linearly dependent rows, and no neuron has nonnegative outputs
    on them: (16) does not apply. `Z @ W` transforms other samples.

    **Raises** a `ValueError` for more samples than features, linearly dependent ones, and entries that
    are not finite.
    """
    X = finite_matrix(X, "X")
    _require_wide(X)
    _, values, right = np.linalg.svd(X, full_matrices=False)
    if not values[-1] > DEPENDENT * values[0]:
        raise ValueError(
            "X must have linearly independent rows (centred samples are dependent); its singular "
            f"values go from {values[0]:.3g} to {values[-1]:.3g}."
        )
    return (right.T / values) @ right


class NonnegativeFactor(NamedTuple):
    """A (n, k) >= 0 with A A' = H, or what keeps it from being found."""

    atoms: Matrix
    reason: str


def nonnegative_factor(H: Matrix) -> NonnegativeFactor:
    """A nonnegative factor of a positive semidefinite H (n, n), where it has one in closed form.

    Samples that no entry connects are apart. A connected block of rank one is a a' with a > 0 (Perron
    and Frobenius); the rows of a factor of one of rank two lie within a right angle, and are turned
    into the quadrant. For higher ranks it is hard, and not decided here.
    """
    largest = float(np.max(np.diag(H), initial=0.0))
    nothing = np.zeros((len(H), 0))
    row, column = np.unravel_index(np.argmin(H), H.shape)
    if H[row, column] < -ZERO * largest:
        return NonnegativeFactor(
            nothing,
            "the condition of (16) fails: the left singular vectors of the linear network's outputs F "
            f"are not nonnegative, and (F F')^(1/2) is {H[row, column]:.3g} at samples "
            f"{min(row, column)} and {max(row, column)}",
        )
    count, labels = connected_components(csr_array(H > ZERO * largest), directed=False)
    factors = [nothing]
    for block in range(count):
        members = np.flatnonzero(labels == block)
        values, vectors = np.linalg.eigh(H[np.ix_(members, members)])
        used = values > ZERO * largest
        rows = vectors[:, used] * np.sqrt(values[used])
        rank = rows.shape[1]
        if rank > 2:
            return NonnegativeFactor(
                nothing,
                f"whether the condition of (16) holds is not decided: {rank} singular vectors above "
                f"the threshold overlap on {len(members)} samples",
            )
        factor = np.zeros((len(H), rank))
        factor[members] = np.abs(rows) if rank < 2 else _into_quadrant(rows)
        factors.append(factor)
    return NonnegativeFactor(np.concatenate(factors, axis=1), "")


def _into_quadrant(rows: Matrix) -> Matrix:
    """Rows (n, 2) within a right angle of each other, turned to be nonnegative."""
    middle = np.arctan2(*np.sum(rows, axis=0)[::-1])
    angles = np.arctan2(rows[:, 1], rows[:, 0]) - middle
    angles = np.mod(angles + np.pi, 2 * np.pi) - np.pi
    angles = np.clip(angles - np.min(angles), 0, np.pi / 2)
    lengths = np.linalg.norm(rows, axis=1)
    return lengths[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _require_wide(X: Matrix) -> None:
    if X.shape[0] > X.shape[1]:
        raise ValueError(
            "X must have at most as many samples as features, for X X' = s^2 I; its shape is "
            f"{X.shape}."
        )


def _whiteness(X: Matrix) -> tuple[float, Matrix]:
    """s, and entrywise bounds on |X X' - s^2 I|."""
    _require_wide(X)
    gram = X @ X.T
    square = float(np.mean(np.diag(gram)))
    distance = np.abs(gram - square * np.eye(len(X)))
    if not float(np.max(distance)) <= WHITE * square:
        raise ValueError(
            f"X must be white, X X' = s^2 I; with s^2 = {square:.6g}, an entry differs by "
            f"{np.max(distance):.3g}. `X @ whitening(X)` is white where the rows of X are independent."
        )
    return float(np.sqrt(square)), distance + verified.product_error(X, X.T)


def _price(residual: Matrix, X: Matrix, neurons: Matrix, scale: float, distance: Matrix) -> Price:
    """||R' relu(X u)|| <= |R|_2 |X|_2 |u|, proven; white samples and their optimum attain it."""
    square = scale**2 + verified.norm_bound(distance)
    upper = _norm_above(residual) * float(np.sqrt(square)) * (1 + 16 * verified.UNIT)
    values = prices(residual, X, neurons)
    order = np.argsort(-values, kind="stable")
    lower = min(float(values[order[0]]), upper) if len(order) else 0.0
    return Price(lower, verified.above(upper), neurons[order], "spectral norm", 0)


def _norm_above(residual: Matrix) -> float:
    """A proven upper bound on the spectral norm of R (n, c)."""
    small = residual if residual.shape[0] >= residual.shape[1] else residual.T
    gram, error = small.T @ small, verified.product_error(small.T, small)
    top = float(np.linalg.eigvalsh(gram)[-1])
    for margin in MARGINS:
        square = top * (1 + margin)
        rounding = 2 * error + 2 * verified.UNIT * square * np.eye(len(gram))
        if verified.is_positive_definite(square * np.eye(len(gram)) - gram, rounding):
            return float(np.sqrt(square)) * (1 + 4 * verified.UNIT)
    return float(verified.vector_norm_bound(residual.reshape(1, -1))[0])
