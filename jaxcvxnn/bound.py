"""What is proven: a lower bound, and how far an upper bound is from it."""

import numpy as np


def relative_gap(lower: float, upper: float) -> float:
    """(upper - lower) / |upper|."""
    return (upper - lower) / max(abs(upper), float(np.finfo(float).tiny))
