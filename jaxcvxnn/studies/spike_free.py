"""Whether data are spike-free: then one arrangement trains ReLU networks with one output exactly."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import finite_matrix
from ..problem import TrainingProblem, require_relu
from ..programs.cone_lasso import ConeGroupLasso

# Rows whose directions agree to this are one; eigenvalues below this part of the largest are zero.
PARALLEL, SINGULAR = 1e-12, 1e-12
# Off-diagonal entries of the inverse correlations up to this above zero are rounding.
ROUNDING = 1e-10


def is_spike_free(features: Any) -> bool:
    """Whether {relu(X u) : |u| <= 1} = {X u >= 0 : |u| <= 1} for X (n, d).

    Ergen and Pilanci (2023), section VII-B; for a problem, pass its `features`. Decided for every X
    (docs/math/lasso.md, "Spike-free data"): zero rows and positive multiples of other rows play no
    part; the rest must be linearly independent, and their (X X')^-1 must have no positive entry off its
    diagonal. Whitened rows (X X' = I) are spike-free; antiparallel rows, and more directions than
    dimensions, never.

    Decided in floating point: entries within 1e-10 of zero, relative to the diagonal, count as zero.

    **Raises** a `ValueError` for another shape or entries that are not finite.
    """
    rows = _directions(finite_matrix(features, "features"))
    if len(rows) > rows.shape[1]:
        return False
    values, vectors = np.linalg.eigh(rows @ rows.T)
    if len(rows) and values[0] <= SINGULAR * values[-1]:
        return False
    inverse = (vectors / values) @ vectors.T
    roots = np.sqrt(np.diag(inverse))
    correlations = inverse / (roots[:, None] * roots)
    return bool(np.all(correlations - np.eye(len(rows)) <= ROUNDING))


def _directions(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit vectors along the rows that are not zero, one for each direction."""
    sizes = np.max(np.abs(features), axis=1, initial=0.0)
    rows = features[sizes > 0] / sizes[sizes > 0, None]
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    kept: list[int] = []
    for i, row in enumerate(rows):
        if np.all(np.linalg.norm(rows[kept] - row, axis=1) > PARALLEL):
            kept.append(i)
    return rows[kept]


def spike_free_program(problem: TrainingProblem) -> ConeGroupLasso:
    """Ergen and Pilanci (2023), eq. (26): (cone-lasso) with the one pattern that spike-free data need.

    min L(X (w - w'), y) + weight_decay (|w| + |w'|) subject to X w >= 0 and X w' >= 0, for each output.

    **Raises** a `ValueError` for another activation than ReLU, and features that are not spike-free.
    """
    require_relu(problem)
    if not is_spike_free(problem.features):
        raise ValueError("problem: its features are not spike-free; see `is_spike_free`.")
    return ConeGroupLasso(patterns=np.ones((1, len(problem.features)), bool))
