"""The proof through (lifted) that no neuron has a price above a bound.

For the directions P (k, r) and V with V (relu(P w), w) = (relu(P w), relu(-P w)): where a symmetric N,
nonnegative except at the pairs (i, k + i), makes

    [[0, 0], [0, b/2 I]] - V'NV - C C' / (2 b)

positive semidefinite, ||C'(relu(P w), w)|| <= b |w| for all w. In NumPy float64 with all rounding
errors accounted for. Derivation: docs/math/certificate.md, "The certificate".
"""

import numpy as np

from jaxcone import verified

from ..arrays import Matrix
from ..geometry.directions import Directions


def constraint_holds(
    rows: Matrix, pairs: int, reader: tuple[Matrix, Matrix], multipliers: Matrix, bound: float
) -> bool:
    """Whether the matrix above is proven positive definite.

    **Arguments:** V (m, q), k, C (q, c) with entrywise bounds on its errors, N (m, m), b > 0.
    """
    matrix_c, error_c = reader
    half = multipliers @ rows
    pulled = rows.T @ half
    pulled_error = verified.product_error(np.abs(rows.T), np.abs(half))
    pulled_error += np.abs(rows.T) @ verified.product_error(multipliers, rows)
    square = matrix_c @ matrix_c.T
    square_error = verified.product_error(matrix_c, matrix_c.T)
    cross = np.abs(matrix_c) @ error_c.T
    square_error += cross + cross.T + error_c @ error_c.T
    matrix = -pulled - square / (2 * bound)
    index = np.arange(pairs, len(matrix))
    matrix[index, index] += bound / 2
    error = pulled_error + square_error / (2 * bound)
    error += 8 * verified.UNIT * (np.abs(pulled) + np.abs(square) / bound + bound)
    error = verified.INFLATION * (error + error.T)
    return verified.is_positive_definite((matrix + matrix.T) / 2, error)


def reader(directions: Directions, rows: Matrix, residual: Matrix) -> tuple[Matrix, Matrix]:
    """C (q, c) with sum_i R_i relu(x_i'u) = C'(relu(P w), w) for w = basis'u, and its error.

    Holds exactly for the samples' approximations by class, sign and length; `neglected_price`
    bounds what those leave out.
    """
    pairs = len(directions.units)
    select = np.zeros((rows.shape[1], len(residual)))
    alive = np.flatnonzero(directions.classes >= 0)
    # relu(-p'w) = relu(p'w) - p'w: antiparallel samples read omega = alpha - p'w.
    read = directions.classes[alive] + np.where(directions.signs[alive] > 0, 0, pairs)
    select[:, alive] = (directions.lengths[alive, None] * rows[read]).T
    error = verified.product_error(select, residual)
    error += 2 * verified.UNIT * (np.abs(select) @ np.abs(residual)) * verified.INFLATION
    return select @ residual, error


def interior_multipliers(rows: Matrix, pairs: int, bound: float) -> Matrix:
    """N = -b / (4 |P|^2) at the pairs: with C = 0 strictly feasible, four times over."""
    directions = rows[pairs : 2 * pairs, pairs:]
    spread = max(float(np.linalg.norm(directions, 2)) ** 2, 1e-300)
    index = np.arange(pairs)
    interior = np.zeros((len(rows), len(rows)))
    interior[index, pairs + index] = -bound / (4 * spread)
    return interior + interior.T
