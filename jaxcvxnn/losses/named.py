"""Losses by their names."""

from .base import AbstractLoss
from .margin import Hinge, Logistic
from .regression import Absolute, Huber, Squared
from .softmax import SoftmaxCrossEntropy

LOSSES = {
    loss.name: loss for loss in (Squared, Logistic, SoftmaxCrossEntropy, Hinge, Huber, Absolute)
}


def loss_named(name: str) -> AbstractLoss:
    """The loss of that `name`, with its default settings.

    **Raises** a `ValueError` that lists the names, for any other.
    """
    if name not in LOSSES:
        raise ValueError(f"There is no loss {name!r}; the losses are {', '.join(LOSSES)}.")
    return LOSSES[name]()
