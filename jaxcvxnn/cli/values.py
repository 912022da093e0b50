"""Columns of a sheet as numbers, with errors that say which cell is wrong and what was expected there.

Task: "classification" if the target holds text, or if it holds at most 20 different values, all of
them integers and each found twice on average; "regression" otherwise.
"""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NoReturn

import numpy as np
from jaxtyping import Float

from .cells import is_missing, parse
from .sheets import Sheet

Task = Literal["classification", "regression"]

_MAX_INTEGER_CLASSES = 20


def numbers(sheet: Sheet, columns: Iterable[int]) -> Float[np.ndarray, "n d"]:
    """The columns, where every cell must be a finite number."""
    columns = list(columns)
    values = np.empty((len(sheet.rows), len(columns)))
    for i, row in enumerate(sheet.rows):
        for k, j in enumerate(columns):
            number = parse(row[j])
            if number is None or not math.isfinite(number):
                expected = "a number" if number is None else "a finite number"
                if all(parse(other[j]) is None for other in sheet.rows):
                    expected += "; encode this column as numbers or drop it"
                _reject(sheet, i, j, expected)
            values[i, k] = number
    return values


def labels(
    sheet: Sheet, j: int, task: Literal["auto"] | Task
) -> tuple[Float[np.ndarray, "n c"], tuple[str, ...] | None, Task]:
    """A target column: one-hot rows and the classes they stand for, or the numbers; and the task."""
    parsed = _parse_targets(sheet, j, task)
    if task == "auto":
        task = _task(sheet, j, parsed)
    if task == "regression":
        return numbers(sheet, [j]), None, task
    return *_one_hot(sheet, j, parsed), task


def _parse_targets(sheet: Sheet, j: int, task: Literal["auto"] | Task) -> list[float | None]:
    """The numbers of a column, None for text; refuses missing and infinite values."""
    cells = [row[j] for row in sheet.rows]
    for row, cell in enumerate(cells):
        if is_missing(cell):
            _reject(sheet, row, j, "a number" if task == "regression" else "a number or a class")
    parsed = [parse(cell) for cell in cells]
    for row, number in enumerate(parsed):
        if number is not None and math.isinf(number):
            _reject(sheet, row, j, "a finite number")
    return parsed


def _task(sheet: Sheet, j: int, parsed: list[float | None]) -> Task:
    cells = [row[j] for row in sheet.rows]
    text = [row for row, number in enumerate(parsed) if number is None]
    if text and 2 * len(text) < len(cells):
        _reject(sheet, text[0], j, "a number as in most rows (or ask for task 'classification')")
    if text and len(set(cells)) == len(cells) > 2:
        raise ValueError(
            f"{sheet.path}: column {sheet.names[j]!r} holds a different text in every row, "
            "expected classes (is this the target?)"
        )
    return "classification" if text or _looks_like_classes(parsed) else "regression"


def _looks_like_classes(parsed: list[float | None]) -> bool:
    distinct = set(parsed)
    integers = all(value is not None and value.is_integer() for value in distinct)
    few = len(distinct) <= _MAX_INTEGER_CLASSES and 2 * len(distinct) <= len(parsed)
    return integers and few


def _one_hot(
    sheet: Sheet, j: int, parsed: list[float | None]
) -> tuple[Float[np.ndarray, "n c"], tuple[str, ...]]:
    """Classes are told apart as numbers where all of them are numbers, else as text."""
    text = None in parsed
    values: Sequence[Any] = [row[j] for row in sheet.rows] if text else parsed
    classes: Sequence[Any] = sorted(set(values))
    names = tuple(classes if text else map(_class_name, classes))
    if len(classes) < 2:
        raise ValueError(
            f"{sheet.path}: column {sheet.names[j]!r} holds a single class, {names[0]!r}; expected "
            "at least two"
        )
    position = {value: k for k, value in enumerate(classes)}
    return np.eye(len(classes))[[position[value] for value in values]], names


def _class_name(number: float) -> str:
    return str(int(number)) if number.is_integer() else repr(number)


def _reject(sheet: Sheet, row: int, column: int, expected: str) -> NoReturn:
    cell = sheet.rows[row][column]
    if not cell:
        found = "an empty cell"
    elif is_missing(cell):
        found = f"{cell!r} (a missing value)"
    else:
        found = repr(cell if len(cell) <= 40 else cell[:37] + "...")
    if re.fullmatch(r"[-+]?\d+,\d+", cell):
        expected += " with a decimal point"
    raise ValueError(
        f"{sheet.path}: line {sheet.lines[row]}, column {sheet.names[column]!r}: found {found}, "
        f"expected {expected}"
    )
