"""CSV files as rows of text under column names.

Delimiter: the first of tab, semicolon, bar and comma that splits the first 50 rows into the same
number (> 1) of cells.

Header: the first row is a header if none of its cells is a number, or if it has text above a number
of the second row, or if its numbers just count the columns (0, 1, 2, ..., as pandas writes) beside
some text. A row of numbers is data.
"""

import codecs
import csv
import io
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .cells import is_missing, parse

_DELIMITERS = ("\t", ";", "|", ",")
_ROWS_LOOKED_AT = 50


@dataclass(frozen=True)
class Sheet:
    """The cells of a file as text, stripped, with the line of the file on which each row starts."""

    path: str
    names: tuple[str, ...]
    rows: list[list[str]]
    lines: list[int]
    header: bool


def read_sheet(
    path: str | os.PathLike,
    header: Literal["auto"] | bool,
    delimiter: str | None,
    expected_names: Sequence[str] = (),
) -> Sheet:
    """`header="auto"` takes a first row that has all of `expected_names` for a header."""
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
        raise ValueError(f"the delimiter must be one character, got {delimiter!r}")
    text = _decode(path)
    rows, lines = _split(path, text, delimiter or _find_delimiter(text))
    _check_rows(path, rows, lines)
    if header == "auto":
        header = bool(expected_names) and set(expected_names) <= set(rows[0])
        header = header or _looks_like_header(rows)
    if not header:
        return Sheet(str(path), tuple(map(column_name, range(len(rows[0])))), rows, lines, False)
    names = tuple(rows[0])
    _check_names(path, names)
    if len(rows) == 1:
        raise ValueError(f"{path}: no rows below the header {listed(names)}")
    return Sheet(str(path), names, rows[1:], lines[1:], True)


def column_name(j: int) -> str:
    """What a column without a header is called."""
    return f"x{j}"


def find_column(sheet: Sheet, wanted: str | int, what: str) -> int:
    """Where a column stands, given by its name or else by its index; `what` it is, for errors."""
    count = len(sheet.names)
    if isinstance(wanted, str):
        if wanted and wanted in sheet.names:
            return sheet.names.index(wanted)
        if not is_index(wanted):
            known = f"the columns are {listed(sheet.names)}"
            if not sheet.header:
                known = f"the file has no header, so use an index from 0 to {count - 1}"
            raise ValueError(f"{sheet.path}: no {what} {wanted!r}; {known}")
    index = int(wanted)
    if not -count <= index < count:
        raise ValueError(
            f"{sheet.path}: no {what} {index}: the file has {count} columns, indices from 0 to "
            f"{count - 1}"
        )
    return index % count


def is_index(text: str) -> bool:
    """Whether a column that is called so may be meant by its index."""
    return re.fullmatch(r"-?\d+", text) is not None


def listed(names: Iterable[str], most: int = 20) -> str:
    """The names as an error shows them, the first `most` of them."""
    names = [repr(name) for name in names]
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown}, ... ({len(names)} in all)"


def _check_rows(path: str | os.PathLike, rows: list[list[str]], lines: list[int]) -> None:
    if not rows:
        raise ValueError(f"{path}: the file is empty")
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(rows[0]):
            raise ValueError(
                f"{path}: line {line} has {_counted(len(row), 'cell')}, expected {len(rows[0])} as "
                f"in line {lines[0]}"
            )


def _check_names(path: str | os.PathLike, names: tuple[str, ...]) -> None:
    for j, name in enumerate(names):
        if name and name in names[:j]:
            raise ValueError(
                f"{path}: column name {name!r} stands twice in the header (columns "
                f"{names.index(name)}, {j})"
            )


def _decode(path: str | os.PathLike) -> str:
    data = Path(path).read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ValueError(f"{path}: the file is UTF-16, expected UTF-8")
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{data[error.start]:02x}"
        raise ValueError(f"{path}: line {line}: found {found}, expected UTF-8 text") from None


def _split(
    path: str | os.PathLike, text: str, delimiter: str, limit: int | None = None
) -> tuple[list[list[str]], list[int]]:
    """The rows that are not blank and the line on which each starts (quoted cells may contain line
    breaks)."""
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True
    )
    rows: list[list[str]] = []
    lines: list[int] = []
    line = 1
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if len(cells) > 1 or any(cells):
                rows.append(cells)
                lines.append(line)
            line = reader.line_num + 1
            if limit is not None and len(rows) >= limit:
                break
    except csv.Error as error:
        hint = "a quoted cell is not closed" if "end of data" in str(error) else str(error)
        raise ValueError(f"{path}: line {line} is not valid CSV: {hint}") from None
    return rows, lines


def _find_delimiter(text: str) -> str:
    widest, width = ",", 1
    for delimiter in _DELIMITERS:
        try:
            rows, _ = _split("", text, delimiter, _ROWS_LOOKED_AT)
        except ValueError:
            continue
        if not rows:
            break
        if len(rows[0]) > 1 and all(len(row) == len(rows[0]) for row in rows):
            return delimiter
        if len(rows[0]) > width:
            widest, width = delimiter, len(rows[0])
    return widest


def _looks_like_header(rows: list[list[str]]) -> bool:
    first = rows[0]
    numeric = [parse(cell) is not None for cell in first]
    if not any(numeric):
        # A row that is all missing values says nothing about names.
        return any(not is_missing(cell) for cell in first)
    if all(is_number or is_missing(cell) for is_number, cell in zip(numeric, first, strict=True)):
        return False
    if sum(numeric) > 1 and all(cell == str(j) for j, cell in enumerate(first) if numeric[j]):
        return True
    return len(rows) > 1 and any(
        not is_number and not is_missing(above) and parse(below) is not None
        for is_number, above, below in zip(numeric, first, rows[1], strict=True)
    )


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"
