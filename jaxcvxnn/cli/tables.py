"""CSV files as training data, with errors that say which cell is wrong and what was expected there.

A table has one row per example. The columns that are not targets are the features, and every one of
them must hold finite numbers. `read_table` finds out the delimiter, the header and the task by
itself; each can be stated instead.

Delimiter: the first of tab, semicolon, bar and comma that splits the first 50 rows into the same
number (> 1) of cells.

Header: the first row is a header if none of its cells is a number, or if it has text above a number
of the second row, or if its numbers just count the columns (0, 1, 2, ..., as pandas writes) beside
some text. A row of numbers is data.

Task: "classification" if the target holds text, or if it holds at most 20 different values, all of
them integers and each found twice on average; "regression" otherwise, and always for several
targets.
"""

import codecs
import csv
import io
import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
from jaxtyping import Float

Task = Literal["classification", "regression"]

MAX_INTEGER_CLASSES = 20
_MISSING = frozenset({"", "na", "n/a", "nan", "null", "?"})
_DELIMITERS = ("\t", ";", "|", ",")
_ROWS_LOOKED_AT = 50


@dataclass(frozen=True, eq=False)
class Table:
    """What `read_table` returns."""

    X: Float[np.ndarray, "n d"]
    """Features, float64."""
    Y: Float[np.ndarray, "n c"]
    """Targets, float64: one-hot rows for classification, the numbers themselves for regression."""
    feature_names: tuple[str, ...]
    """Names of the columns of X; without a header "x3" stands for the column of index 3."""
    target_names: tuple[str, ...]
    classes: tuple[str, ...] | None
    """Names of the columns of Y in sorted order (integers by value), or None for regression."""
    task: Task
    feature_columns: tuple[int, ...]
    """Where the features stand in the file, from 0."""
    file_columns: int
    """How many columns the file has."""
    header: bool
    """Whether the file has a header."""


def read_table(
    path: str | os.PathLike,
    target: str | int,
    *,
    header: Literal["auto"] | bool = "auto",
    task: Literal["auto"] | Task = "auto",
    delimiter: str | None = None,
    drop: Sequence[str | int] = (),
) -> Table:
    """Read training data from a UTF-8 CSV file. The rules for what is left on "auto" are at the top
    of this module.

    `target` is a column's name or index (from 0; -1 is the last column), or several of them
    separated by commas for regression with several outputs. A name goes before an index that is
    written alike. `drop` leaves columns out.

    Raises `ValueError`, naming the file and where it can the line and column, for a missing
    value, text or infinity where a finite number is expected, rows of differing length, an unknown
    column, repeated column names, a single class, an empty file and one that is not UTF-8;
    `OSError` for a file that cannot be opened.
    """
    if task not in ("auto", "classification", "regression"):
        raise ValueError(f"task must be 'auto', 'classification' or 'regression', got {task!r}")
    named = [part.strip() for part in target.split(",")] if isinstance(target, str) else []
    named = [name for name in named if not _is_index(name)]
    sheet = _read_sheet(path, header, delimiter, expected_names=named)
    if len(sheet.names) < 2:
        raise ValueError(
            f"{path}: only one column was found, but features and a target are needed; if the "
            "cells are not separated by "
            "commas, semicolons, tabs or bars, name the delimiter"
        )
    targets = _find_targets(sheet, target)
    dropped = {_find_column(sheet, name, "column to drop") for name in drop}
    if both := sorted(dropped & set(targets)):
        raise ValueError(f"{path}: column {sheet.names[both[0]]!r} is both a target and dropped")
    features = [j for j in range(len(sheet.names)) if j not in dropped and j not in targets]
    if not features:
        raise ValueError(f"{path}: no feature columns are left beside the target")
    for j in features:
        if not sheet.names[j]:
            raise ValueError(
                f"{path}: column {j} has no name in the header; if it holds row numbers (pandas "
                "writes them so), "
                f"drop column {j}, else name it"
            )
    X = _numbers(sheet, features)
    if len(targets) > 1:
        if task == "classification":
            raise ValueError(f"{path}: classification takes one target column, got {len(targets)}")
        Y, classes, found = _numbers(sheet, targets), None, "regression"
    else:
        Y, classes, found = _labels(sheet, targets[0], task)
    return Table(
        X=X,
        Y=Y,
        feature_names=tuple(sheet.names[j] for j in features),
        target_names=tuple(sheet.names[j] for j in targets),
        classes=classes,
        task=found,
        feature_columns=tuple(features),
        file_columns=len(sheet.names),
        header=sheet.header,
    )


def read_features(
    path: str | os.PathLike,
    feature_names: Sequence[str],
    feature_columns: Sequence[int],
    file_columns: int,
    *,
    header: Literal["auto"] | bool = "auto",
    delimiter: str | None = None,
) -> Float[np.ndarray, "n d"]:
    """Read the features of examples to predict, in the order of a table that `read_table` read
    before.

    The last three arguments describe that table. With a header, columns are found by name, in any
    order and among any others. Otherwise the file must have the training file's layout
    (`file_columns` columns; those that were not features are ignored) or the features alone.

    Raises `ValueError` for missing columns and for whatever `read_table` refuses in a feature;
    `OSError` for a file that cannot be opened.
    """
    sheet = _read_sheet(path, header, delimiter, expected_names=feature_names)
    if sheet.header and set(feature_names) <= set(sheet.names):
        return _numbers(sheet, [sheet.names.index(name) for name in feature_names])
    trained_without_header = all(
        name == _column_name(j) for name, j in zip(feature_names, feature_columns, strict=True)
    )
    if sheet.header and not trained_without_header:
        missing = [name for name in feature_names if name not in sheet.names]
        raise ValueError(
            f"{path}: missing feature column{'s' * (len(missing) > 1)} {_listed(missing)}; "
            f"the columns are {_listed(sheet.names)}"
        )
    if len(sheet.names) == file_columns:
        return _numbers(sheet, feature_columns)
    if len(sheet.names) == len(feature_names):
        return _numbers(sheet, range(len(feature_names)))
    raise ValueError(
        f"{path}: {len(sheet.names)} columns and no header, expected {len(feature_names)} (the "
        "features) "
        f"or {file_columns} (as in the training file)"
    )


@dataclass(frozen=True)
class _Sheet:
    """The cells of a file as text, stripped, with the line of the file on which each row starts."""

    path: str
    names: tuple[str, ...]
    rows: list[list[str]]
    lines: list[int]
    header: bool


def _read_sheet(
    path: str | os.PathLike,
    header: Literal["auto"] | bool,
    delimiter: str | None,
    expected_names: Sequence[str] = (),
) -> _Sheet:
    """`header="auto"` takes a first row that has all of `expected_names` for a header."""
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
        raise ValueError(f"the delimiter must be one character, got {delimiter!r}")
    text = _decode(path)
    rows, lines = _split(path, text, delimiter or _find_delimiter(text))
    if not rows:
        raise ValueError(f"{path}: the file is empty")
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(rows[0]):
            raise ValueError(
                f"{path}: line {line} has {_counted(len(row), 'cell')}, expected {len(rows[0])} as "
                f"in line {lines[0]}"
            )
    if header == "auto":
        header = bool(expected_names) and set(expected_names) <= set(rows[0])
        header = header or _looks_like_header(rows)
    if not header:
        return _Sheet(str(path), tuple(map(_column_name, range(len(rows[0])))), rows, lines, False)
    names = tuple(rows[0])
    for j, name in enumerate(names):
        if name and name in names[:j]:
            raise ValueError(
                f"{path}: column name {name!r} stands twice in the header (columns "
                f"{names.index(name)}, {j})"
            )
    if len(rows) == 1:
        raise ValueError(f"{path}: no rows below the header {_listed(names)}")
    return _Sheet(str(path), names, rows[1:], lines[1:], True)


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
    numeric = [_parse(cell) is not None for cell in first]
    if not any(numeric):
        # A row that is all missing values says nothing about names.
        return any(not _is_missing(cell) for cell in first)
    if all(is_number or _is_missing(cell) for is_number, cell in zip(numeric, first, strict=True)):
        return False
    if sum(numeric) > 1 and all(cell == str(j) for j, cell in enumerate(first) if numeric[j]):
        return True
    return len(rows) > 1 and any(
        not is_number and not _is_missing(above) and _parse(below) is not None
        for is_number, above, below in zip(numeric, first, rows[1], strict=True)
    )


def _find_targets(sheet: _Sheet, target: str | int) -> list[int]:
    if isinstance(target, int) or target in sheet.names or "," not in target:
        return [_find_column(sheet, target, "target")]
    found = [_find_column(sheet, part.strip(), "target") for part in target.split(",")]
    for k, j in enumerate(found):
        if j in found[:k]:
            raise ValueError(f"{sheet.path}: target column {sheet.names[j]!r} is given twice")
    return found


def _find_column(sheet: _Sheet, wanted: str | int, what: str) -> int:
    count = len(sheet.names)
    if isinstance(wanted, str):
        if wanted and wanted in sheet.names:
            return sheet.names.index(wanted)
        if not _is_index(wanted):
            known = f"the columns are {_listed(sheet.names)}"
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


def _labels(
    sheet: _Sheet, j: int, task: Literal["auto"] | Task
) -> tuple[Float[np.ndarray, "n c"], tuple[str, ...] | None, Task]:
    cells = [row[j] for row in sheet.rows]
    for row, cell in enumerate(cells):
        if _is_missing(cell):
            _reject(sheet, row, j, "a number" if task == "regression" else "a number or a class")
    numbers = [_parse(cell) for cell in cells]
    for row, number in enumerate(numbers):
        if number is not None and math.isinf(number):
            _reject(sheet, row, j, "a finite number")
    text = [row for row, number in enumerate(numbers) if number is None]
    if task == "auto":
        if text and 2 * len(text) < len(cells):
            _reject(
                sheet, text[0], j, "a number as in most rows (or ask for task 'classification')"
            )
        task = "classification" if text or _looks_like_classes(numbers) else "regression"
        if text and len(set(cells)) == len(cells) > 2:
            raise ValueError(
                f"{sheet.path}: column {sheet.names[j]!r} holds a different text in every row, "
                "expected classes (is this the target?)"
            )
    if task == "regression":
        return _numbers(sheet, [j]), None, task
    values: Sequence[Any] = cells if text else numbers
    classes: Sequence[Any] = sorted(set(values))
    if text:
        names = tuple(classes)
    else:
        names = tuple(str(int(x)) if x.is_integer() else repr(x) for x in classes)
    if len(classes) < 2:
        raise ValueError(
            f"{sheet.path}: column {sheet.names[j]!r} holds a single class, {names[0]!r}; expected "
            "at least two"
        )
    position = {value: k for k, value in enumerate(classes)}
    return np.eye(len(classes))[[position[value] for value in values]], names, task


def _looks_like_classes(numbers: Iterable[float | None]) -> bool:
    values = list(numbers)
    distinct = set(values)
    integers = all(value is not None and value.is_integer() for value in distinct)
    return integers and len(distinct) <= MAX_INTEGER_CLASSES and 2 * len(distinct) <= len(values)


def _numbers(sheet: _Sheet, columns: Iterable[int]) -> Float[np.ndarray, "n d"]:
    columns = list(columns)
    values = np.empty((len(sheet.rows), len(columns)))
    for i, row in enumerate(sheet.rows):
        for k, j in enumerate(columns):
            number = _parse(row[j])
            if number is None or not math.isfinite(number):
                expected = "a number" if number is None else "a finite number"
                if all(_parse(other[j]) is None for other in sheet.rows):
                    expected += "; encode this column as numbers or drop it"
                _reject(sheet, i, j, expected)
            values[i, k] = number
    return values


def _parse(cell: str) -> float | None:
    """The number in a cell, also an infinite one; None for text and for missing values."""
    try:
        number = float(cell)
    except ValueError:
        return None
    # Python reads 1_000 as a number, data files do not mean it so.
    return None if math.isnan(number) or "_" in cell else number


def _is_missing(cell: str) -> bool:
    return cell.lower() in _MISSING


def _reject(sheet: _Sheet, row: int, column: int, expected: str) -> NoReturn:
    cell = sheet.rows[row][column]
    if not cell:
        found = "an empty cell"
    elif _is_missing(cell):
        found = f"{cell!r} (a missing value)"
    else:
        found = repr(cell if len(cell) <= 40 else cell[:37] + "...")
    if re.fullmatch(r"[-+]?\d+,\d+", cell):
        expected += " with a decimal point"
    raise ValueError(
        f"{sheet.path}: line {sheet.lines[row]}, column {sheet.names[column]!r}: found {found}, "
        f"expected {expected}"
    )


def _is_index(text: str) -> bool:
    return re.fullmatch(r"-?\d+", text) is not None


def _column_name(j: int) -> str:
    return f"x{j}"


def _listed(names: Iterable[str], most: int = 20) -> str:
    names = [repr(name) for name in names]
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown}, ... ({len(names)} in all)"


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"
