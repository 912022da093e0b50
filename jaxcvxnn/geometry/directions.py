"""Samples as lengths times few unit vectors, in the coordinates of the space that they span."""

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from jaxcone import verified

# Relative: singular values below it times the largest count as zero, directions closer as parallel.
TOLERANCE = 1e-9


class Directions(eqx.Module):
    """Samples as lengths times few unit vectors in the coordinates of their span.

    Sample i is `lengths[i] * signs[i] * units[classes[i]] @ basis.T` up to rounding; zero samples
    have class -1. All arrays are NumPy's.
    """

    basis: Float[np.ndarray, "features r"]
    units: Float[np.ndarray, "k r"]
    classes: Int[np.ndarray, " n"]
    signs: Float[np.ndarray, " n"]
    lengths: Float[np.ndarray, " n"]

    @property
    def rank(self) -> int:
        """r."""
        return self.basis.shape[1]

    def approximation(self, features: np.ndarray) -> Float[np.ndarray, " n"]:
        """Upper bounds, proven, on the distances of the samples from what they are written as."""
        scaled = np.zeros((len(features), self.rank))
        alive = self.classes >= 0
        scaled[alive] = (self.lengths * self.signs)[alive, None]
        scaled[alive] *= self.units[self.classes[alive]]
        if np.array_equal(self.basis, np.eye(len(self.basis))):
            rebuilt, operations = scaled, 2
            size = np.abs(rebuilt) + np.abs(features)
        else:
            rebuilt, operations = scaled @ self.basis.T, scaled.shape[1] + 4
            size = np.abs(scaled) @ np.abs(self.basis.T) + np.abs(features)
        rounding = 2 * verified.gamma(operations) * size
        return verified.vector_norm_bound(np.abs(features - rebuilt) + rounding)

    def basis_norm(self) -> float:
        """An upper bound, proven, on the 2-norm of the basis, whose columns are nearly orthonormal."""
        gram = self.basis.T @ self.basis
        distance = np.abs(gram - np.eye(len(gram)))
        distance += verified.product_error(self.basis.T, self.basis)
        bound = 1 + verified.norm_bound(distance + 2 * verified.UNIT)
        return float(np.sqrt(bound)) * (1 + 1e-15)


def neglected_price(residual: np.ndarray, distances: np.ndarray) -> float:
    """A bound on what moving samples by these distances changes in ||R' relu(X u)|| for |u| <= 1.

    relu is 1-Lipschitz, so each sample contributes at most |R_i| times its distance.
    """
    sizes = verified.vector_norm_bound(residual)
    return float(np.sum(sizes * distances)) * verified.INFLATION


def find_directions(features: np.ndarray, *, tolerance: float = TOLERANCE) -> Directions:
    """Samples (n, features) in NumPy float64 as `Directions`.

    `tolerance`: see TOLERANCE.
    """
    basis = row_space(features, tolerance)
    coordinates = features @ basis
    lengths = np.linalg.norm(coordinates, axis=1)
    alive = lengths > tolerance * max(float(lengths.max(initial=0.0)), np.finfo(float).tiny)
    unit = coordinates / np.where(alive, lengths, 1)[:, None]
    classes, signs = _parallel_classes(unit, alive, tolerance)
    units = unit[[int(np.argmax(classes == k)) for k in range(classes.max(initial=-1) + 1)]]
    return Directions(basis=basis, units=units, classes=classes, signs=signs, lengths=lengths)


def row_space(matrix: np.ndarray, tolerance: float = TOLERANCE) -> np.ndarray:
    """Orthonormal columns that span the rows of `matrix`; at least one column.

    A matrix of full column rank keeps its own coordinates, so that nothing is rounded needlessly.
    """
    _, values, right = np.linalg.svd(matrix, full_matrices=False)
    rank = int(np.sum(values > tolerance * values[0])) if values[0] > 0 else 1
    return np.eye(matrix.shape[1]) if rank == matrix.shape[1] else right[:rank].T


def _parallel_classes(
    unit: np.ndarray, alive: np.ndarray, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """(class, sign) per sample: samples of one class are parallel (+1) or antiparallel (-1)."""
    classes = np.full(len(unit), -1)
    signs = np.ones(len(unit))
    members: list[int] = []
    for i in np.flatnonzero(alive):
        known = unit[members]
        same = np.linalg.norm(known - unit[i], axis=1) <= tolerance
        opposite = np.linalg.norm(known + unit[i], axis=1) <= tolerance
        if np.any(same | opposite):
            classes[i] = int(np.argmax(same | opposite))
            signs[i] = 1.0 if same[classes[i]] else -1.0
        else:
            classes[i] = len(members)
            members.append(int(i))
    return classes, signs
