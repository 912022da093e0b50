"""CSV files as training data, with errors that say which cell is wrong and what was expected there.

A table has one row per example. The columns that are not targets are the features, and every one of
them must hold finite numbers. `read_table` finds out the delimiter, the header and the task by
itself; each can be stated instead.

Delimiter and header: the rules at the top of `sheets`. Task: the one at the top of `values`; always
regression for several targets.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from .sheets import Sheet, column_name, find_column, is_index, listed, read_sheet
from .values import Task, labels, numbers


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
    of the modules `sheets` and `values`.

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
    sheet = read_sheet(path, header, delimiter, expected_names=_names_in(target))
    if len(sheet.names) < 2:
        raise ValueError(
            f"{path}: only one column was found, but features and a target are needed; if the "
            "cells are not separated by commas, semicolons, tabs or bars, name the delimiter"
        )
    targets = _find_targets(sheet, target)
    features = _find_features(sheet, targets, drop)
    X = numbers(sheet, features)
    Y, classes, found = _target_values(sheet, targets, task)
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
    sheet = read_sheet(path, header, delimiter, expected_names=feature_names)
    if sheet.header and set(feature_names) <= set(sheet.names):
        return numbers(sheet, [sheet.names.index(name) for name in feature_names])
    trained_without_header = all(
        name == column_name(j) for name, j in zip(feature_names, feature_columns, strict=True)
    )
    if sheet.header and not trained_without_header:
        missing = [name for name in feature_names if name not in sheet.names]
        raise ValueError(
            f"{path}: missing feature column{'s' * (len(missing) > 1)} {listed(missing)}; "
            f"the columns are {listed(sheet.names)}"
        )
    if len(sheet.names) == file_columns:
        return numbers(sheet, feature_columns)
    if len(sheet.names) == len(feature_names):
        return numbers(sheet, range(len(feature_names)))
    raise ValueError(
        f"{path}: {len(sheet.names)} columns and no header, expected {len(feature_names)} (the "
        f"features) or {file_columns} (as in the training file)"
    )


def _names_in(target: str | int) -> list[str]:
    """The targets that can only be meant by name."""
    named = [part.strip() for part in target.split(",")] if isinstance(target, str) else []
    return [name for name in named if not is_index(name)]


def _find_targets(sheet: Sheet, target: str | int) -> list[int]:
    if isinstance(target, int) or target in sheet.names or "," not in target:
        return [find_column(sheet, target, "target")]
    found = [find_column(sheet, part.strip(), "target") for part in target.split(",")]
    for k, j in enumerate(found):
        if j in found[:k]:
            raise ValueError(f"{sheet.path}: target column {sheet.names[j]!r} is given twice")
    return found


def _find_features(sheet: Sheet, targets: list[int], drop: Sequence[str | int]) -> list[int]:
    dropped = {find_column(sheet, name, "column to drop") for name in drop}
    if both := sorted(dropped & set(targets)):
        name = sheet.names[both[0]]
        raise ValueError(f"{sheet.path}: column {name!r} is both a target and dropped")
    features = [j for j in range(len(sheet.names)) if j not in dropped and j not in targets]
    if not features:
        raise ValueError(f"{sheet.path}: no feature columns are left beside the target")
    for j in features:
        if not sheet.names[j]:
            raise ValueError(
                f"{sheet.path}: column {j} has no name in the header; if it holds row numbers "
                f"(pandas writes them so), drop column {j}, else name it"
            )
    return features


def _target_values(
    sheet: Sheet, targets: list[int], task: Literal["auto"] | Task
) -> tuple[Float[np.ndarray, "n c"], tuple[str, ...] | None, Task]:
    if len(targets) == 1:
        return labels(sheet, targets[0], task)
    if task == "classification":
        count = len(targets)
        raise ValueError(f"{sheet.path}: classification takes one target column, got {count}")
    return numbers(sheet, targets), None, "regression"
