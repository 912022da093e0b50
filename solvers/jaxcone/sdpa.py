"""Semidefinite programs in files of the SDPA sparse format (`.dat-s`), the format of SDPLIB.

    (P)  min c'x      s.t.  X = sum_i F_i x_i - F_0,  X psd
    (D)  max tr(F_0 Y)  s.t.  tr(F_i Y) = c_i for i = 1..m,  Y psd

(Fujisawa, Kojima and Nakata, SDPA user's manual, 1998; Borchers, SDPLIB, 1999.) The F_i share one
block structure. As a cone program x is free, s = svec(X) and y = svec(Y), block by block.
"""

import dataclasses
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TextIO

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .cone_program import ConeProgram
from .cones import PSD, Nonnegative, ProductCone, _triangle, smat


@dataclasses.dataclass(frozen=True, eq=False)
class SDPAProblem:
    """min c'x such that sum_i F_i x_i - F_0 is positive semidefinite, as NumPy data on the host.

    **Arguments:**

    - `c`: costs, shape `(m,)`.
    - `block_sizes`: the side of each block; -k is a diagonal block with k entries.
    - `matrix`, `block`, `row`, `column`, `value`: one entry each, shape `(entries,)`. `matrix` is i
      of F_i, from 0 to m; the others count from 0. Of a symmetric pair only one may be given; it is
      kept with row <= column. What is not given is zero.
    - `comments`: lines of the file, each with its first `"` or `*`.

    Raises a `ValueError` for entries that lie outside, that are given twice or are not finite, for
    entries off the diagonal of a diagonal block, and for a block size 0.
    """

    c: Float[np.ndarray, " m"]
    block_sizes: tuple[int, ...]
    matrix: Int[np.ndarray, " entries"]
    block: Int[np.ndarray, " entries"]
    row: Int[np.ndarray, " entries"]
    column: Int[np.ndarray, " entries"]
    value: Float[np.ndarray, " entries"]
    comments: tuple[str, ...] = ()

    def __post_init__(self):
        indices = [np.asarray(a) for a in (self.matrix, self.block, self.row, self.column)]
        c, value = np.asarray(self.c, np.float64), np.asarray(self.value, np.float64)
        if c.ndim != 1 or not np.all(np.isfinite(c)):
            raise ValueError(f"c: expected one axis of finite numbers, got shape {c.shape}.")
        if value.ndim != 1 or any(a.shape != value.shape for a in indices):
            shapes = [a.shape for a in (*indices, value)]
            raise ValueError(f"entries: expected five arrays of one length, got shapes {shapes}.")
        if value.size and any(not np.issubdtype(a.dtype, np.integer) for a in indices):
            raise ValueError(
                f"entries: expected integer indices, got {[a.dtype for a in indices]}."
            )
        sizes = tuple(int(size) for size in self.block_sizes)
        if not sizes or 0 in sizes:
            raise ValueError(f"block_sizes: expected at least one and none of size 0, got {sizes}.")
        matrix, block, row, column = (a.astype(np.int64) for a in indices)
        _check_entries(len(c), sizes, matrix, block, row, column, value, "entry {}".format, 0)
        row, column = np.minimum(row, column), np.maximum(row, column)
        fields = (c, sizes, matrix, block, row, column, value, tuple(self.comments))
        for field, content in zip(dataclasses.fields(self), fields, strict=True):
            object.__setattr__(self, field.name, content)

    @property
    def cones(self) -> ProductCone:
        """One `PSD` for each block, one `Nonnegative` for each diagonal block."""
        return ProductCone(PSD(k) if k > 0 else Nonnegative(-k) for k in self.block_sizes)

    def cone_program(self, *, dense: bool = True) -> ConeProgram:
        """(P) as min c'x s.t. A x + s = b, s in K: column i of A is -svec(F_i), b is -svec(F_0).

        x is the x of (P), `blocks(s)` is its X, and `blocks(y)` is the Y of (D).

        **Arguments:** `dense`: A as an array with one row for each entry of svec(X) and m columns.
        Otherwise A is a pair of functions on the given entries: less memory, but each step solves
        its equations by conjugate gradients, and only the size of A as a whole is equilibrated.
        """
        cones = self.cones
        place, weight = self._svec_places(cones)
        data = -weight * self.value
        of_b = self.matrix == 0
        b = np.zeros(cones.rows)
        b[place[of_b]] = data[of_b]
        row, column, value = place[~of_b], self.matrix[~of_b] - 1, data[~of_b]
        if dense:
            A: Any = np.zeros((cones.rows, len(self.c)))
            A[row, column] = value
        else:
            row, column, value = jnp.asarray(row), jnp.asarray(column), jnp.asarray(value)
            forward = _SparseMap(row, column, value, cones.rows)
            A = (forward, _SparseMap(column, row, value, len(self.c)))
        return ConeProgram(None, self.c, A, b, cones)

    def blocks(self, vector: Float[Array, " rows"]) -> list[Array]:
        """The blocks of a slack s or of a dual y: matrices, and the diagonals of diagonal blocks."""
        cones = self.cones
        parts = zip(cones.cones, cones.split(vector), strict=True)
        return [smat(part) if isinstance(cone, PSD) else part for cone, part in parts]

    def _svec_places(self, cones: ProductCone) -> tuple[np.ndarray, np.ndarray]:
        """For each entry its row in the cone program, and the factor that svec gives it."""
        starts = np.cumsum([0, *(cone.rows for cone in cones.cones)])
        place, weight = starts[self.block], np.ones(self.value.shape)
        sizes = np.array(self.block_sizes)[self.block]
        for size in np.unique(sizes).tolist():
            here = sizes == size
            if size < 0:
                place[here] += self.row[here]
            else:
                rows, columns, weights = _triangle(size)
                order = np.zeros((size, size), np.int64)
                order[columns, rows] = np.arange(len(rows))
                inside = order[self.row[here], self.column[here]]
                place[here] += inside
                weight[here] = weights[inside]
        return place, weight


class _SparseMap(eqx.Module):
    """x -> M x, with M given by its entries."""

    row: Int[Array, " entries"]
    column: Int[Array, " entries"]
    value: Float[Array, " entries"]
    size: int = eqx.field(static=True)

    def __call__(self, x):
        products = self.value.astype(x.dtype) * x[self.column]
        return jnp.zeros(self.size, x.dtype).at[self.row].add(products)


def read_sdpa(source: str | os.PathLike[str] | TextIO) -> SDPAProblem:
    """The problem in a file of the SDPA sparse format, given by its path or as an open text file.

    Commas, parentheses and braces are blanks. Text after the numbers of the first four lines is
    ignored, as is a line that is empty or begins with `"` or `*`. The block sizes and the costs may
    run over several lines, an entry may not. Exponents may have a Fortran D.

    Raises a `ValueError` with file, line number, what was expected and what was found. An entry that
    is given twice, also as (i, j) and (j, i), is refused as CSDP does: SDPLIB's description of the
    format does not say what it means, and readers differ. So are the sections `*INTEGER` and `*RANK1`
    of SCIP-SDP's extension: a reader that takes them for comments would solve another problem.
    """
    if isinstance(source, str | os.PathLike):
        # Comments may be in any encoding; the numbers are ASCII.
        with Path(source).open(encoding="utf-8-sig", errors="replace") as file:
            return _read(_Lines(file, str(source)))
    return _read(_Lines(source, str(getattr(source, "name", "SDPA text"))))


def write_sdpa(problem: SDPAProblem, path: str | os.PathLike[str]) -> None:
    """Write a file from which `read_sdpa` gives back the same problem, to the last bit."""
    comments = [line if line[:1] in _COMMENT else f'"{line}' for line in problem.comments]
    entries = zip(
        problem.matrix.tolist(),
        (problem.block + 1).tolist(),
        (problem.row + 1).tolist(),
        (problem.column + 1).tolist(),
        problem.value.tolist(),
        strict=True,
    )
    lines = [
        *(" ".join(comment.splitlines()) for comment in comments),
        f"{len(problem.c)} = mDIM",
        f"{len(problem.block_sizes)} = nBLOCK",
        f"({', '.join(map(str, problem.block_sizes))}) = bLOCKsTRUCT",
        f"{{{', '.join(map(repr, problem.c.tolist()))}}}",
        *(f"{matrix} {block} {i} {j} {value!r}" for matrix, block, i, j, value in entries),
    ]
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


_COMMENT = ('"', "*")
_REFUSED = ("*INTEGER", "*RANK1")
_BLANKS = str.maketrans(",(){}", "     ")
_WHOLE = r"[+-]?\d{1,18}"
_REAL = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][+-]?\d+)?"
_NO_MORE = r"(?=[^\w.+-]|$)"  # "2.5" must not pass as the integer 2
_NEXT_WHOLE = re.compile(rf"\s*({_WHOLE}){_NO_MORE}", re.ASCII)
_NEXT_REAL = re.compile(rf"\s*({_REAL}){_NO_MORE}", re.ASCII)
_ENTRY = re.compile(r"\s*" + rf"({_WHOLE})\s+" * 4 + rf"({_REAL})\s*", re.ASCII)


class _Lines:
    """The lines of a file that are no comments, and where we are in it."""

    def __init__(self, file: Iterable[str], name: str):
        self.name, self.number, self.comments = name, 0, []
        self._file = iter(file)

    def next(self) -> str | None:
        for line in self._file:
            if not isinstance(line, str):
                raise ValueError(f"{self.name}: expected a file opened as text, found bytes.")
            self.number += 1
            text = line.strip()
            if text.startswith(_COMMENT):
                if text.upper() in _REFUSED:
                    raise self.error("a convex program", text)
                self.comments.append(text)
            elif text:
                return text
        return None

    def place(self, number: int) -> str:
        return f"{self.name}, line {number}"

    def error(self, expected: str, found: str | None) -> ValueError:
        shown = "the end of the file" if found is None else repr(_shortened(found))
        return ValueError(f"{self.place(max(self.number, 1))}: expected {expected}, found {shown}.")


def _read(lines: _Lines) -> SDPAProblem:
    m = _read_count(lines, "m, the number of the matrices F_1..F_m")
    blocks = _read_count(lines, "the number of blocks")
    sizes = [int(text) for text in _read_numbers(lines, blocks, "block sizes", _NEXT_WHOLE)]
    if 0 in sizes:
        raise lines.error("block sizes that are not 0", str(sizes))
    c = [_float(text) for text in _read_numbers(lines, m, "costs c", _NEXT_REAL)]
    if not np.all(np.isfinite(c)):
        raise lines.error("costs c within the range of float64", str(c))
    indices, values, numbers = [], [], []
    while (line := lines.next()) is not None:
        entry = _ENTRY.fullmatch(line.translate(_BLANKS))
        if entry is None:
            raise lines.error("an entry: matrix, block, row, column (integers), value", line)
        *index, value = entry.groups()
        indices.append([int(text) for text in index])
        values.append(_float(value))
        numbers.append(lines.number)
    matrix, block, row, column = np.array(indices, np.int64).reshape(-1, 4).T
    coordinates = (matrix, block - 1, row - 1, column - 1, np.array(values))
    _check_entries(m, tuple(sizes), *coordinates, lambda k: lines.place(numbers[k]), 1)
    return SDPAProblem(np.array(c), tuple(sizes), *coordinates, tuple(lines.comments))


def _read_count(lines: _Lines, what: str) -> int:
    line = lines.next()
    found = None if line is None else _NEXT_WHOLE.match(line.translate(_BLANKS))
    if found is None or int(found[1]) < 1:
        raise lines.error(f"{what} (an integer >= 1)", line)
    return int(found[1])


def _read_numbers(lines: _Lines, count: int, what: str, pattern: re.Pattern[str]) -> list[str]:
    kind = "integers" if pattern is _NEXT_WHOLE else "numbers"
    numbers = []
    while len(numbers) < count:
        line = lines.next()
        text, end, before = (line or "").translate(_BLANKS), 0, len(numbers)
        while (found := pattern.match(text, end)) is not None:
            numbers.append(found[1])
            end = found.end()
        stuck = len(numbers) < count and text[end:].strip()
        if len(numbers) == before or len(numbers) > count or stuck:
            raise lines.error(
                f"{count} {kind}, the {what}, {before} of them before this line", line
            )
    return numbers


def _check_entries(
    m: int,
    sizes: tuple[int, ...],
    matrix: np.ndarray,
    block: np.ndarray,
    row: np.ndarray,
    column: np.ndarray,
    value: np.ndarray,
    place: Callable[[int], str],
    base: int,
) -> None:
    """Raise for the first entry that does not fit. `place` names an entry, counting is from `base`."""
    outside = (block < 0) | (block >= len(sizes))
    size = np.array(sizes)[np.where(outside, 0, block)]
    side = np.abs(size)
    low, high = np.minimum(row, column), np.maximum(row, column)
    # Equal entries become neighbours, the earlier one first.
    order = np.lexsort((high, low, block, matrix))
    ordered = np.stack([matrix, block, low, high])[:, order]
    same = np.all(ordered[:, 1:] == ordered[:, :-1], axis=0)
    earlier = np.full(len(value), -1)
    earlier[order[1:][same]] = order[:-1][same]
    faults: list[tuple[np.ndarray, Callable[[int], str]]] = [
        ((matrix < 0) | (matrix > m), lambda k: f"a matrix from 0 to {m}, found {matrix[k]}"),
        (
            outside,
            lambda k: f"a block from {base} to {len(sizes) - 1 + base}, found {block[k] + base}",
        ),
        (
            (low < 0) | (high >= side),
            lambda k: (
                f"rows and columns from {base} to {side[k] - 1 + base} in block "
                f"{block[k] + base}, found row {row[k] + base}, column {column[k] + base}"
            ),
        ),
        (
            (size < 0) & (row != column),
            lambda k: (
                f"only diagonal entries in the diagonal block {block[k] + base}, "
                f"found row {row[k] + base}, column {column[k] + base}"
            ),
        ),
        (~np.isfinite(value), lambda k: f"a finite number, found {value[k]}"),
        (
            earlier >= 0,
            lambda k: (
                f"each entry once (a symmetric pair is one entry), found matrix {matrix[k]}, "
                f"block {block[k] + base}, row {row[k] + base}, column {column[k] + base} again after "
                f"{place(int(earlier[k]))}"
            ),
        ),
    ]
    wrong = np.logical_or.reduce([mask for mask, _ in faults])
    if np.any(wrong):
        first = int(np.argmax(wrong))
        says = next(says for mask, says in faults if mask[first])
        raise ValueError(f"{place(first)}: expected {says(first)}.")


def _float(text: str) -> float:
    return float(text.upper().replace("D", "E"))


def _shortened(text: str, most: int = 80) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."
