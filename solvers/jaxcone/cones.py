"""The cones of the standard form, and their products.

Points are vectors. A PSD block holds the lower triangle of its matrix, column by column, with the
entries off the diagonal times sqrt(2), so that inner products agree (`svec`; O'Donoghue et al., 2016,
section 3.1: SCS's convention).
"""

import abc
import functools
import operator
from collections.abc import Iterable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from . import verified
from .projections import project_nonnegative, project_psd, project_second_order
from .pytrees import after


class AbstractCone(eqx.Module):
    """A closed convex cone of vectors with `rows` entries."""

    @property
    @abc.abstractmethod
    def rows(self) -> int:
        """How many entries its points have."""

    @abc.abstractmethod
    def project(self, point: Float[Array, " rows"]) -> Float[Array, " rows"]:
        """The nearest point of the cone, with a derivative that is finite everywhere."""

    @abc.abstractmethod
    def identity(self) -> Float[np.ndarray, " rows"]:
        """The unit of the cone's algebra, an interior point of it; zeros for `Zero`."""

    @abc.abstractmethod
    def entrywise(self) -> bool:
        """Whether each row may have a scale of its own: then it is a number that is nonnegative, or
        that is zero. Otherwise the rows must share one."""

    def into_dual(self, point: Float[np.ndarray, " rows"]) -> Float[np.ndarray, " rows"]:
        """A point of the dual cone near a point, proven to be in it; NaN where no proof is found."""
        raise ValueError(f"program: no proven way into the dual of {self!r} is known.")


class Zero(AbstractCone):
    """{0}: equalities. Its dual is the whole space."""

    size: int = eqx.field(static=True)

    def __check_init__(self):
        _check_size(self, "size", self.size)

    @property
    def rows(self):
        return self.size

    def project(self, point):
        return jnp.where(jnp.isnan(point), point, jnp.zeros_like(point))

    def identity(self):
        return np.zeros(self.size)

    def entrywise(self):
        return True

    def into_dual(self, point):
        return point


class Nonnegative(AbstractCone):
    """Vectors without a negative entry."""

    size: int = eqx.field(static=True)

    def __check_init__(self):
        _check_size(self, "size", self.size)

    @property
    def rows(self):
        return self.size

    def project(self, point):
        return project_nonnegative(point)

    def identity(self):
        return np.ones(self.size)

    def entrywise(self):
        return True

    def into_dual(self, point):
        return np.maximum(point, 0.0)


class SecondOrder(AbstractCone):
    """{(t, u): ||u||_2 <= t}, with `size` = 1 + the length of u."""

    size: int = eqx.field(static=True)

    def __check_init__(self):
        _check_size(self, "size", self.size)

    @property
    def rows(self):
        return self.size

    def project(self, point):
        return project_second_order(point)

    def identity(self):
        return (np.arange(self.size) == 0).astype(float)

    def entrywise(self):
        return self.size <= 1

    def into_dual(self, point):
        if point.size == 0:
            return point
        least = float(verified.vector_norm_bound(point[1:])) if point.size > 1 else 0.0
        return np.concatenate([[max(float(point[0]), least)], point[1:]])


class PSD(AbstractCone):
    """Symmetric positive semidefinite matrices of `side` rows, as vectors of `svec`."""

    side: int = eqx.field(static=True)

    def __check_init__(self):
        _check_size(self, "side", self.side)

    @property
    def rows(self):
        return self.side * (self.side + 1) // 2

    def project(self, point):
        return svec(project_psd(smat(point)))

    def identity(self):
        return np.asarray(svec_of_numpy(np.eye(self.side)))

    def entrywise(self):
        return self.side <= 1

    def into_dual(self, point):
        return _raised_diagonal(point) if point.size else point


class ProductCone(eqx.Module):
    """The product of some cones: a vector is cut into their blocks, in order.

    Equal cones are projected as one batch, wherever they stand.
    """

    cones: tuple[AbstractCone, ...] = eqx.field(static=True)

    def __init__(self, cones: AbstractCone | Iterable[AbstractCone]):
        try:
            listed = (cones,) if isinstance(cones, AbstractCone) else tuple(cones)
        except TypeError:
            raise ValueError(f"cones: expected a list of cones, got {cones!r}.") from None
        for cone in listed:
            if not isinstance(cone, AbstractCone):
                raise ValueError(f"cones: expected Zero, Nonnegative, ..., got {cone!r}.")
        self.cones = listed

    @property
    def rows(self) -> int:
        """The sum of the cones' rows."""
        return sum(cone.rows for cone in self.cones)

    def project(self, point: Float[Array, " m"]) -> Float[Array, " m"]:
        """The nearest point of the product."""
        batches, parts = self.batches(), []
        for cone, indices in batches:
            block = after(taken(point, indices), parts[-1:])  # PSD blocks factor: in one line
            # Matrices of different sides are factored in turn, although they share their code: a batch
            # of factorisations would bind `solve_batch` to one thread.
            one_by_one = isinstance(cone, PSD) and all_differ(indices, self.rows)
            each = jax.lax.map if one_by_one else lambda f, blocks: jax.vmap(f)(blocks)
            parts.append(jnp.ravel(each(cone.project, block)))
        places = [indices for _, indices in batches]
        return put_back(parts, places, self.rows) if parts else point

    def split(self, point: Float[Array, " m"]) -> list[Float[Array, " rows"]]:
        """The blocks of a vector, one per cone."""
        ends = np.cumsum([cone.rows for cone in self.cones])[:-1]
        return list(jnp.split(point, ends)) if self.cones else []

    def identity(self) -> Float[np.ndarray, " m"]:
        """The cones' identities, one after the other."""
        return np.concatenate([np.zeros(0), *(cone.identity() for cone in self.cones)])

    def equalities(self) -> np.ndarray:
        """Which rows belong to a `Zero`."""
        parts = [np.full(cone.rows, isinstance(cone, Zero)) for cone in self.cones]
        return np.concatenate([np.zeros(0, bool), *parts])

    def scale_groups(self) -> np.ndarray:
        """For each row, the number of the group with which it must share a positive scale."""
        groups, start = [np.zeros(0, int)], 0
        for cone in self.cones:
            count = cone.rows if cone.entrywise() else min(1, cone.rows)
            own = np.arange(count) if cone.entrywise() else np.zeros(cone.rows, int)
            groups.append(start + own)
            start += count
        return np.concatenate(groups)

    def batches(self) -> Sequence[tuple[AbstractCone, np.ndarray]]:
        """(cone, row numbers of shape (how many, rows of each)) for each kind that has rows.

        Cones of one kind that are almost of one size share a batch, padded to the largest: each batch
        is compiled. Row number `rows` stands for padding, which is zero.
        """
        starts = np.cumsum([0, *(cone.rows for cone in self.cones)])
        kinds: dict[AbstractCone, list[np.ndarray]] = {}
        for cone, start in zip(self.cones, starts, strict=False):
            if cone.rows:
                rows = np.arange(start, start + cone.rows)
                kind, blocks = cone, [rows]
                if cone.entrywise():  # of all sizes one batch of numbers
                    kind = Zero(1) if isinstance(cone, Zero) else Nonnegative(1)
                    blocks = list(rows[:, None])
                kinds.setdefault(kind, []).extend(blocks)
        found = []
        for group in _groups({cone: len(blocks) for cone, blocks in kinds.items()}):
            padded = [_padded(kinds[cone], cone, group[0], self.rows) for cone in group]
            found.append((group[0], np.concatenate(padded)))
        return found


# A block up to this size costs what a call does: twice the arithmetic may be, else a quarter more.
SMALL, SMALL_WASTE, WASTE = 8, 2.0, 1.25


def _groups(counts: dict[AbstractCone, int]) -> list[list[AbstractCone]]:
    """The kinds that share a batch, the largest of each first; in the order of their appearance."""
    groups: list[list[AbstractCone]] = []
    for cone in sorted(counts, key=_work, reverse=True):
        for group in groups:
            both = [*group, cone]
            exact = sum(counts[c] * _work(c) for c in both)
            padded = sum(counts[c] for c in both) * _work(group[0])
            small = _size(group[0]) <= SMALL
            if type(group[0]) is type(cone) and padded <= exact * (SMALL_WASTE if small else WASTE):
                group.append(cone)
                break
        else:
            groups.append([cone])
    places = {cone: place for place, cone in enumerate(counts)}
    return sorted(groups, key=lambda group: min(places[cone] for cone in group))


def _size(cone: AbstractCone) -> int:
    return cone.side if isinstance(cone, PSD) else cone.rows


def _work(cone: AbstractCone) -> int:
    return _size(cone) ** (3 if isinstance(cone, PSD) else 1)


def _padded(
    blocks: list[np.ndarray], cone: AbstractCone, largest: AbstractCone, padding: int
) -> np.ndarray:
    """The row numbers of some blocks as rows of a larger cone of their kind."""
    inside = np.arange(largest.rows) < cone.rows
    if isinstance(largest, PSD):  # the matrix is the leading block
        inside = _triangle(largest.side)[0] < _size(cone)  # a lower triangle: columns are smaller
    places = np.full((len(blocks), largest.rows), padding)
    places[:, inside] = np.stack(blocks)
    return places


def all_differ(places: np.ndarray, rows: int) -> bool:
    """Whether several blocks share a batch of which no two are of one size."""
    sizes = np.sum(places < rows, axis=1).tolist()
    return len(sizes) == len(set(sizes)) > 1


def taken(point: Float[Array, " m"], places: np.ndarray) -> Array:
    """The entries of a vector at these row numbers; row m is zero."""
    if np.all(places < len(point)):
        return point[places]
    return jnp.concatenate([point, jnp.zeros(1, point.dtype)])[places]


def put_back(parts: list[Array], places: list[np.ndarray], rows: int) -> Float[Array, " m"]:
    """The vector whose entries at the row numbers `places` are `parts`, raveled; without padding."""
    order = np.argsort(np.concatenate([numbers.ravel() for numbers in places]), kind="stable")
    whole = jnp.concatenate(parts)
    return whole if np.array_equal(order, np.arange(rows)) else whole[order[:rows]]


def svec(matrix: Float[Array, "side side"]) -> Float[Array, " rows"]:
    """Lower triangle column by column, entries off the diagonal times sqrt(2)."""
    rows, columns, weights = _triangle(matrix.shape[0])
    return matrix[rows, columns] * jnp.asarray(weights, matrix.dtype)


def smat(vector: Float[Array, " rows"]) -> Float[Array, "side side"]:
    """The symmetric matrix whose `svec` is the given vector.

    Raises a `ValueError` if no triangle has that many entries.
    """
    side = side_of(vector.shape[0])
    rows, columns, weights = _triangle(side)
    place = np.zeros((side, side), int)
    place[rows, columns] = place[columns, rows] = np.arange(len(rows))
    return (vector / jnp.asarray(weights, vector.dtype))[place]


def side_of(rows: int) -> int:
    """The side of the matrices whose `svec` has `rows` entries; a `ValueError` if there is none."""
    side = (int(np.sqrt(8 * rows + 1)) - 1) // 2
    if side * (side + 1) // 2 != rows:
        raise ValueError(f"svec: no lower triangle has {rows} entries.")
    return side


@functools.lru_cache(maxsize=256)
def _triangle(side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    columns, rows = np.triu_indices(side)  # row-major upper = column-major lower
    return rows, columns, np.where(rows == columns, 1.0, np.sqrt(2))


def svec_of_numpy(matrix: np.ndarray) -> np.ndarray:
    """`svec` on the host, in the precision of the matrix."""
    rows, columns, weights = _triangle(matrix.shape[0])
    return matrix[rows, columns] * weights


def smat_of_numpy(vector: np.ndarray) -> np.ndarray:
    """`smat` on the host, in the precision of the vector."""
    rows, columns, weights = _triangle(side_of(len(vector)))
    matrix = np.zeros((side_of(len(vector)),) * 2, vector.dtype)
    matrix[rows, columns] = matrix[columns, rows] = vector / weights
    return matrix


def _raised_diagonal(block: np.ndarray) -> np.ndarray:
    """The block with its diagonal raised until it is proven positive semidefinite."""
    matrix = smat_of_numpy(block)
    error = 2 * verified.UNIT * np.abs(matrix) * (1 - np.eye(len(matrix)))
    scale = float(np.max(np.abs(matrix)))
    if scale == 0:
        return block
    least = float(np.linalg.eigvalsh(matrix)[0])
    shift = max(-least, 0.0)
    for extra in (0.0, *(scale * 10.0**k for k in range(-15, 1))):
        raised = matrix + (shift + extra) * np.eye(len(matrix))
        if verified.is_positive_definite(raised, error):
            # svec of the diagonal is the diagonal itself; the rest of the block stays bit for bit.
            moved = block.copy()
            diagonal = svec_of_numpy(np.eye(len(matrix))) > 0
            moved[diagonal] = np.diag(raised)
            return moved
    return np.full_like(block, np.nan)


def _check_size(cone: AbstractCone, name: str, value: int) -> None:
    try:
        sound = operator.index(value) >= 0 and not isinstance(value, bool)
    except TypeError:
        sound = False
    if not sound:
        raise ValueError(f"{type(cone).__name__}: `{name}` must be an integer >= 0, got {value!r}.")
