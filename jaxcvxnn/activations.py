"""Activations phi of the hidden layer."""

import abc
import math
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float


class AbstractActivation(eqx.Module):
    """A function of one real variable, applied entry by entry; settings are numbers, not arrays."""

    name: eqx.AbstractClassVar[str]

    @abc.abstractmethod
    def __call__(self, t: Float[Any, "..."]) -> Float[Any, "..."]:
        """phi(t), in NumPy where `t` is NumPy's."""


class LeakyReLU(AbstractActivation):
    """phi(t) = t for t >= 0 and `negative_slope` t below: Ergen and Pilanci (2023), eq. (2).

    Slope 0 is ReLU, -1 the absolute value. Positively homogeneous, so that weight decay is a group
    lasso: phi(|u| t) = |u| phi(t).

    **Raises** a `ValueError` for a slope of 1 or more, which is not convex, or not finite.
    """

    name: ClassVar[str] = "leaky_relu"

    negative_slope: float = eqx.field(static=True)

    def __init__(self, negative_slope: float = 0.0):
        slope = float(negative_slope)
        if not (math.isfinite(slope) and slope < 1):
            raise ValueError(f"negative_slope must be finite and below 1; got {negative_slope!r}.")
        self.negative_slope = slope

    def __call__(self, t):
        library: Any = np if isinstance(t, np.ndarray) else jnp
        if self.negative_slope == 0:
            return library.maximum(t, 0)
        return library.where(t >= 0, t, self.negative_slope * t)

    def slopes(self, pattern: Bool[Any, "..."]) -> Float[Any, "..."]:
        """phi' on each side: 1 where `pattern`, else the negative slope; Ergen's D, eq. (5)."""
        library: Any = np if isinstance(pattern, np.ndarray) else jnp
        return library.where(pattern, 1.0, self.negative_slope)


class Polynomial(AbstractActivation):
    """phi(t) = a t^2 + b t + c: Bartan and Pilanci (2021), section 2.

    `Polynomial.relu()` and `Polynomial.swish()` are their fits to ReLU and to swish.

    **Raises** a `ValueError` for coefficients that are not finite numbers, and for a = 0: then the
    network is an affine function of x, which linear regression trains.
    """

    name: ClassVar[str] = "polynomial"

    a: float = eqx.field(static=True)
    b: float = eqx.field(static=True)
    c: float = eqx.field(static=True)

    def __init__(self, a: float = 0.09, b: float = 0.5, c: float = 0.47):
        self.a, self.b, self.c = float(a), float(b), float(c)
        if not all(map(math.isfinite, (self.a, self.b, self.c))):
            raise ValueError(f"Polynomial's coefficients must be finite; got {(a, b, c)}.")
        if self.a == 0:
            raise ValueError(
                "Polynomial needs a quadratic term: with a = 0 the network is an affine function of "
                "x, which linear regression trains."
            )

    @classmethod
    def relu(cls) -> "Polynomial":
        """0.09 t^2 + 0.5 t + 0.47, near ReLU."""
        return cls(0.09, 0.5, 0.47)

    @classmethod
    def swish(cls) -> "Polynomial":
        """0.1 t^2 + 0.5 t + 0.24, near swish."""
        return cls(0.1, 0.5, 0.24)

    def __call__(self, t):
        return (self.a * t + self.b) * t + self.c


RELU = LeakyReLU(0.0)
ACTIVATIONS = {
    "relu": RELU,
    "absolute": LeakyReLU(-1.0),
    "leaky_relu": LeakyReLU(0.01),
    "polynomial": Polynomial.relu(),
}


def activation_named(name: str) -> AbstractActivation:
    """The activation of that `name`, with its usual settings.

    **Raises** a `ValueError` that lists the names, for any other.
    """
    if name not in ACTIVATIONS:
        raise ValueError(
            f"There is no activation {name!r}; the activations are {', '.join(ACTIVATIONS)}."
        )
    return ACTIVATIONS[name]
