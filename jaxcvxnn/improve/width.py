"""The same function by few neurons: at most as many as outputs on the samples.

A network's outputs on the samples are a conic combination of its neurons' outputs, points of dimension
n c, and its penalty is the sum of the coefficients: Sahiner et al. (2021), theorem 1 and its proof,
appendix A.3.1, have n c + 1 neurons at most by Helly's theorem. Caratheodory's steps find them, and one
fewer: the penalty needs no coordinate of its own, since it may fall. docs/math/patterns.md, "Copositive
programs".
"""

import numpy as np

from ..activations import LeakyReLU
from ..arrays import Matrix
from ..interior.lorentz import row_norms
from ..networks import AbstractTwoLayer
from ..problem import TrainingProblem, in_float64
from .output_layer import balanced_network

# Singular values below this part of the largest count as zero.
DEPENDENT = 1e-12


def reduce_width(problem: TrainingProblem, network: AbstractTwoLayer) -> AbstractTwoLayer:
    """A network with the same outputs on the samples, no larger penalty and at most n c neurons.

    Of the neurons that remain, in balance and in float64, the outputs on the samples are linearly
    independent: there are at most as many as their rank. Off the samples the function may change. On
    the host; the work grows as the width times (n c)^3.

    **Raises** a `ValueError` for activations that are not positively homogeneous, and a network that
    does not fit the problem.
    """
    if not isinstance(network.activation, LeakyReLU) or network.activation != problem.activation:
        raise ValueError(
            "network: reduce_width takes ReLU, leaky ReLU and the absolute value, the same in network "
            f"and problem; they have {network.activation} and {problem.activation}."
        )
    problem = in_float64(problem)
    features = problem.features
    first = np.asarray(network.first_layer, np.float64).T
    second = np.asarray(network.V, np.float64)
    if first.shape[1] != features.shape[1] or second.shape[1] != problem.Y.shape[1]:
        raise ValueError(
            f"network: the problem has {features.shape[1]} features (with the bias) and "
            f"{problem.Y.shape[1]} outputs; the network {first.shape[1]} and {second.shape[1]}."
        )
    lengths, sizes = row_norms(first), row_norms(second)
    alive = (lengths > 0) & (sizes > 0)
    first, second = first[alive] / lengths[alive, None], second[alive] / sizes[alive, None]
    hidden = problem.activation(features @ first.T)
    outputs = (hidden.T[:, :, None] * second[:, None, :]).reshape(len(first), -1)
    strengths = fewest_terms(outputs, lengths[alive] * sizes[alive])
    kept = strengths > 0
    return balanced_network(problem, first[kept], strengths[kept, None] * second[kept])


def fewest_terms(points: Matrix, strengths: Matrix) -> Matrix:
    """s' >= 0 with sum_j s'_j p_j = sum_j s_j p_j, sum s' <= sum s, and independent p_j where s'_j > 0.

    `points` (m, k) and `strengths` s >= 0 (m,). Caratheodory's step: along a null vector z of the
    points in use, with sum z >= 0, the strengths fall until one is zero.
    """
    sizes = row_norms(points)
    strengths = np.where(sizes > 0, strengths, 0.0)
    units = points / np.where(sizes > 0, sizes, 1)[:, None]
    used: list[int] = []
    # Strong terms first: what has to be moved is little.
    for new in np.argsort(-strengths * sizes, kind="stable"):
        if strengths[new] <= 0:
            continue
        used.append(int(new))
        while (null := _null_vector(units[used])) is not None:
            step = null / sizes[used]
            if np.sum(step) < 0:
                step = -step
            with np.errstate(divide="ignore"):
                ratios = np.where(step > 0, strengths[used] / step, np.inf)
            last = int(np.argmin(ratios))
            strengths[used] = np.maximum(strengths[used] - ratios[last] * step, 0)
            strengths[used[last]] = 0.0
            used = [j for j in used if strengths[j] > 0]
    return strengths


def _null_vector(rows: Matrix) -> Matrix | None:
    """z with z'rows = 0, for unit rows; None if they are independent."""
    left, values, _ = np.linalg.svd(rows, full_matrices=True)
    if len(values) == len(rows) and values[-1] > DEPENDENT * values[0]:
        return None
    return left[:, -1]
