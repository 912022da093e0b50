"""Two small data sets for the demonstration, the documentation and the tests."""

import numpy as np
from jaxtyping import Float


def iris(half: str = "train") -> tuple[Float[np.ndarray, "75 4"], Float[np.ndarray, "75 3"]]:
    """Fisher's iris flowers (1936) from scikit-learn: raw features in cm, one-hot labels.

    The split is fixed: every other flower (rows 0, 2, 4, ...) is in the "train" half and the rest
    in the "test" half, so each has 25 flowers of each of the 3 classes.

    Raises `ImportError` without scikit-learn and `ValueError` for another `half`.
    """
    if half not in ("train", "test"):
        raise ValueError(f"half must be 'train' or 'test', got {half!r}")
    try:
        from sklearn.datasets import load_iris
    except ImportError as error:
        raise ImportError(
            "the iris data come with scikit-learn: pip install 'jaxcvxnn[estimators]'"
        ) from error
    data = load_iris()
    rows = slice(0 if half == "train" else 1, None, 2)
    features = np.asarray(data.data, np.float64)[rows]  # pyright: ignore[reportAttributeAccessIssue]
    labels = np.eye(3)[data.target[rows]]  # pyright: ignore[reportAttributeAccessIssue]
    return features, labels


def random_trial(seed: int) -> tuple[Float[np.ndarray, "25 2"], Float[np.ndarray, "25 5"]]:
    """One trial like Prakhya's Random data: 25 points in the plane, labelled by a network of 100
    neurons, all entries standard normal. (The distribution is the paper's; the draws are not, so
    single trials differ from its own.)"""
    draw = np.random.default_rng(seed).standard_normal
    X, U, V = draw((25, 2)), draw((2, 100)), draw((100, 5))
    return X, np.maximum(X @ U, 0) @ V
