"""What a cell of a CSV file holds: a number, text, or nothing."""

import math

_MISSING = frozenset({"", "na", "n/a", "nan", "null", "?"})


def parse(cell: str) -> float | None:
    """The number in a cell, also an infinite one; None for text and for missing values."""
    try:
        number = float(cell)
    except ValueError:
        return None
    # Python reads 1_000 as a number, data files do not mean it so.
    return None if math.isnan(number) or "_" in cell else number


def is_missing(cell: str) -> bool:
    """Whether the cell says that there is no value."""
    return cell.lower() in _MISSING
