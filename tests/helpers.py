"""Data, programs and checks that several tests share."""

import dataclasses
import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcone import PSD, AbstractCone, ConeProgram, Nonnegative, SecondOrder, Solution, Zero

# The papers' data, where they are beside the checkout.
PAPER_DATA = Path(
    os.environ.get("JAXCVXNN_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data"
)


@dataclasses.dataclass(frozen=True)
class Known:
    """A program together with its optimal points and value, in NumPy."""

    program: ConeProgram
    x: np.ndarray
    s: np.ndarray
    y: np.ndarray

    @property
    def value(self) -> float:
        P, c, _, _ = data(self.program)
        return float(self.x @ P @ self.x / 2 + c @ self.x)


def known_program(
    rng: np.random.Generator,
    size: int,
    cones: Sequence[AbstractCone],
    *,
    curvature: float = 1.0,
    active: int | None = None,
    decades: float = 0.0,
) -> Known:
    """Draw z, put y = proj_K*(z), s = y - z, then b = A x + s and c = -P x - A'y.

    With `curvature` 0 there is no P. `active` is how many of the nonnegative entries have y > 0 (a
    random number by default); with `curvature` 0 and as many equalities and active entries as
    variables the program is an LP with a single solution. Columns and rows (those of one
    second-order or PSD block by one number) are scaled by up to `decades` powers of ten up or down.
    """
    z = gaussian_rows(rng, cones, 1)[:, 0]
    if active is not None:
        signed = np.concatenate([np.full(k.rows, isinstance(k, Nonnegative)) for k in cones])
        sign = np.where(np.arange(signed.sum()) < active, 1, -1)
        z[signed] = sign * (0.5 + np.abs(z[signed]))
    s = nearest(cones, -z)
    y = z + s
    A = gaussian_rows(rng, cones, size)
    root = rng.standard_normal((size, size))
    P = curvature * (root @ root.T / size + np.eye(size))
    x = rng.standard_normal(size)
    rows, columns = block_scales(rng, cones, decades), 10 ** rng.uniform(-decades, decades, size)
    x, s, y = x / columns, rows * s, y / rows
    P, A = columns[:, None] * P * columns, rows[:, None] * A * columns
    c, b = -P @ x - A.T @ y, A @ x + s
    return Known(ConeProgram(P if curvature else None, c, A, b, cones), x, s, y)


def gaussian_rows(
    rng: np.random.Generator, cones: Sequence[AbstractCone], columns: int
) -> np.ndarray:
    """Columns of independent entries; in a PSD block, of symmetric parts of such matrices."""
    parts = [np.zeros((0, columns))]
    for cone in cones:
        if isinstance(cone, PSD):
            matrices = rng.standard_normal((cone.side, cone.side, columns))
            parts.append(to_vector((matrices + matrices.swapaxes(0, 1)) / 2))
        else:
            parts.append(rng.standard_normal((cone.rows, columns)))
    return np.concatenate(parts)


def block_scales(
    rng: np.random.Generator, cones: Sequence[AbstractCone], decades: float
) -> np.ndarray:
    """Positive factors of the rows that leave the cones what they are."""
    shared = [isinstance(cone, SecondOrder | PSD) for cone in cones]
    scales = [
        np.broadcast_to(10 ** rng.uniform(-decades, decades, 1 if one else cone.rows), cone.rows)
        for cone, one in zip(cones, shared, strict=True)
    ]
    return np.concatenate([np.zeros(0), *scales])


def nearest(cones: Sequence[AbstractCone], point: Any) -> np.ndarray:
    """The projection onto a product of cones, from eigenvalues, by NumPy."""
    ends = np.cumsum([0, *(cone.rows for cone in cones)])
    spans = zip(cones, ends[:-1], ends[1:], strict=True)
    parts = [_nearest(cone, np.asarray(point, float)[i:j]) for cone, i, j in spans]
    return np.concatenate([np.zeros(0), *parts])


def _nearest(cone: AbstractCone, block: np.ndarray) -> np.ndarray:
    match cone:
        case Zero():
            return 0 * block
        case Nonnegative():
            return np.maximum(block, 0)
        case SecondOrder() if len(block):
            length = np.linalg.norm(block[1:])
            unit = block[1:] / length if length else block[1:]
            above, below = np.maximum([block[0] + length, block[0] - length], 0) / 2
            return np.append(above + below, (above - below) * unit)
        case PSD() if len(block):
            values, vectors = np.linalg.eigh(to_matrix(block))
            return to_vector((vectors * np.maximum(values, 0)) @ vectors.T)
        case _:
            return block


def to_vector(matrix: np.ndarray) -> np.ndarray:
    """SCS's vector of a symmetric matrix (shape (side, side, ...)), entry by entry."""
    lower = [(i, j) for j in range(len(matrix)) for i in range(j, len(matrix))]
    entries = [matrix[i, j] * (1 if i == j else np.sqrt(2)) for i, j in lower]
    return np.array(entries).reshape(len(lower), *matrix.shape[2:])


def to_matrix(vector: np.ndarray) -> np.ndarray:
    """The symmetric matrix of SCS's vector."""
    side = int(np.sqrt(2 * len(vector)))
    matrix, entries = np.zeros((side, side)), iter(vector)
    for j in range(side):
        for i in range(j, side):
            matrix[i, j] = matrix[j, i] = next(entries) / (1 if i == j else np.sqrt(2))
    return matrix


def stack(*trees: Any) -> Any:
    """A batch from trees of one structure, for `jax.vmap`."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def lane(tree: Any, index: int) -> Any:
    """One lane of a batch."""
    return jax.tree.map(lambda leaf: leaf[index], tree)


def data(program: ConeProgram) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """P (zeros for None), c, A, b of a dense program."""
    c, A, b = (np.asarray(a, float) for a in (program.c, program.A.entries, program.b))
    P = np.zeros((len(c), len(c))) if program.P is None else np.asarray(program.P.entries, float)
    return P, c, A, b


def recomputed(program: ConeProgram, solution: Solution) -> dict[str, float]:
    """Residuals and objectives of the returned arrays, by NumPy, from the program's numbers alone."""
    P, c, A, b = data(program)
    x, s, y = (np.asarray(part, float) for part in (solution.x, solution.s, solution.y))
    primal, dual = np.linalg.norm(A @ x + s - b), np.linalg.norm(P @ x + c + A.T @ y)
    quadratic = x @ P @ x / 2
    objectives = quadratic + c @ x, -quadratic - b @ y
    gap = abs(objectives[0] - objectives[1])
    found = {
        "primal": primal,
        "dual": dual,
        "gap": gap,
        "primal_relative": primal / (1 + np.max(np.abs(b), initial=0)),
        "dual_relative": dual / (1 + np.max(np.abs(c), initial=0)),
        "gap_relative": gap / (1 + abs(objectives[0]) + abs(objectives[1])),
        "primal_objective": objectives[0],
        "dual_objective": objectives[1],
    }
    return {name: float(value) for name, value in found.items()}


def dimacs(program: ConeProgram, x: Any, s: Any, y: Any) -> np.ndarray:
    """The six DIMACS errors of a dense program, by NumPy."""
    P, c, A, b = data(program)
    x, s, y = (np.asarray(part, float) for part in (x, s, y))
    cones, norm = program.cones.cones, np.linalg.norm
    primal, dual = x @ P @ x / 2 + c @ x, -x @ P @ x / 2 - b @ y
    gap = 1 + abs(primal) + abs(dual)
    primal_unit, dual_unit = (1 + np.max(np.abs(part), initial=0) for part in (b, c))
    return np.array(
        [
            norm(A @ x + s - b) / primal_unit,
            norm(s - nearest(cones, s)) / primal_unit,
            norm(P @ x + c + A.T @ y) / dual_unit,
            norm(nearest(cones, -y)) / dual_unit,
            (primal - dual) / gap,
            s @ y / gap,
        ]
    )


def worst(program: ConeProgram, solution: Solution) -> float:
    """The largest relative residual, by NumPy; NaN if any is NaN."""
    found = recomputed(program, solution)
    return float(np.max([v for k, v in found.items() if k.endswith("_relative")]))


def symmetric(matrix: np.ndarray) -> np.ndarray:
    """The symmetric part."""
    return (matrix + matrix.T) / 2


def exact_dot(left: np.ndarray, right: np.ndarray) -> Fraction:
    """The sum of products, in rational arithmetic."""
    pairs = zip(np.ravel(left).tolist(), np.ravel(right).tolist(), strict=True)
    return sum((Fraction(a) * Fraction(b) for a, b in pairs), Fraction(0))


def exactly_positive_definite(matrix: np.ndarray) -> bool:
    """Whether a symmetric float matrix is positive definite, by rational elimination."""
    rows = [[Fraction(value) for value in row] for row in matrix.tolist()]
    for k, pivot in enumerate(rows):
        if pivot[k] <= 0:
            return False
        for i in range(k + 1, len(rows)):
            ratio = rows[i][k] / pivot[k]
            rows[i] = [a - ratio * b for a, b in zip(rows[i], pivot, strict=True)]
    return True
