"""The training problem: data, weight decay, and the one definition of the objective."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from .activations import RELU, AbstractActivation, LeakyReLU, Polynomial, activation_named
from .losses.base import AbstractLoss, AbstractRegressionLoss
from .losses.named import loss_named
from .losses.regression import Squared

Numbers = TypeVar("Numbers", bound=eqx.Module)

if TYPE_CHECKING:
    from .networks import AbstractTwoLayer


class TrainingProblem(eqx.Module):
    """Train a two-layer network of any width on (X, Y) with weight decay.

        p* = min over m, u_j, v_j of  L(f(X), Y) + weight_decay/2 sum_j (|u_j|^2 + |v_j|^2)

    with f(x) = sum_j phi(x'u_j) v_j and, unless others are given, phi = relu, L = 1/2 ||f(X) - Y||_F^2:
    Prakhya et al. (2025), eq. (NN-Train), with the 1/2 before the loss that their tables use.
    With a polynomial activation the penalty is weight_decay sum_j |v_j|_1, and |u_j| = 1: Bartan and
    Pilanci (2021), eq. (20).

    **Arguments:**

    - `X`: samples, shape `(n, d)`.
    - `Y`: targets, shape `(n, c)`, or `(n,)` for one output; labels as the loss takes them.
    - `weight_decay`: positive number.
    - `loss`: "squared" (the default), "logistic", "softmax", "hinge", "huber", "absolute", or one of
      these losses' objects (`jaxcvxnn.losses`). It is summed over samples, not averaged.
    - `bias`: whether the first layer has a bias: a column of ones appended to X, whose weights are
      regularised like the others (Prakhya et al., 2025, section 5.2).
    - `activation`: "relu" (the default), "leaky_relu", "absolute", "polynomial", or one of these
      activations' objects (`jaxcvxnn.activations`). Not every program takes every activation.

    float32 and float64 arrays keep their precision; integers and booleans become float64 (float32
    where JAX has 64-bit types switched off and the input is a JAX array).

    **Raises** a `ValueError` for empty data, shapes that do not match, entries that are NaN or
    infinite, complex numbers, and a weight decay that is not a positive finite number. Under `jit`
    and `vmap` the values cannot be looked at, so only the shapes are checked.
    """

    X: Float[Any, "n d"]
    Y: Float[Any, "n c"]
    weight_decay: Float[Any, ""]
    bias: bool = eqx.field(static=True)
    loss: AbstractLoss
    activation: AbstractActivation

    def __init__(
        self,
        X: Any,
        Y: Any,
        weight_decay: Any = 0.1,
        *,
        bias: bool = False,
        loss: AbstractLoss | str = "squared",
        activation: AbstractActivation | str = "relu",
    ):
        self.loss = loss_named(loss) if isinstance(loss, str) else loss
        if not isinstance(self.loss, AbstractLoss):
            raise ValueError(f"loss must be a name or an AbstractLoss; got {loss!r}.")
        named = isinstance(activation, str)
        self.activation = activation_named(activation) if named else activation
        if not isinstance(self.activation, AbstractActivation):
            raise ValueError(
                f"activation must be a name or an AbstractActivation; got {activation!r}."
            )
        samples = _real_array(X, "X")
        if isinstance(self.loss, AbstractRegressionLoss) or isinstance(Y, Tracer):
            targets = _real_array(Y, "Y")
        else:
            targets = _real_array(self.loss.encode_targets(Y), "Y").astype(samples.dtype)
        if targets.ndim == 1:
            targets = targets[:, None]
        _require_matrix(samples, "X", "(n, d)")
        _require_matrix(targets, "Y", "(n, c) or (n,)")
        if samples.shape[0] != targets.shape[0]:
            raise ValueError(
                f"X and Y must have one row per sample each: X has shape {samples.shape}, "
                f"Y has shape {targets.shape}."
            )
        dtype = np.result_type(samples.dtype, targets.dtype)
        self.X = _cast(samples, dtype)
        self.Y = _cast(targets, dtype)
        self.weight_decay = _positive(weight_decay, dtype)
        self.bias = bool(bias)

    @property
    def features(self) -> Float[Any, "n features"]:
        """X, with the column of ones appended when there is a bias."""
        if not self.bias:
            return self.X
        library = np if isinstance(self.X, np.ndarray) else jnp
        return library.concatenate([self.X, library.ones_like(self.X[:, :1])], axis=1)

    def training_loss(self, network: AbstractTwoLayer) -> Float[Array, ""]:
        """L(f(X), Y)."""
        require_same_activation(self, network)
        return self.loss.value(network.predict(self.X), self.Y)

    def objective(self, network: AbstractTwoLayer) -> Float[Array, ""]:
        """`training_loss` plus the weight decay's term: an upper bound on p*."""
        return self.training_loss(network) + self.weight_decay * network.penalty


def require_squared(problem: TrainingProblem) -> None:
    """Raise a `ValueError` for another loss: these programs are derived for the squared one."""
    if not isinstance(problem.loss, Squared):
        raise ValueError(
            f"This program takes the squared loss only; the problem's is {problem.loss.name!r}. "
            'Use train(..., program="columns") or certify.'
        )


def require_relu(problem: TrainingProblem) -> None:
    """Raise a `ValueError` for another activation: what is proven with ReLU holds for it alone."""
    if problem.activation != RELU:
        raise ValueError(f"This takes ReLU only; the problem's activation is {problem.activation}.")


def require_leaky(problem: TrainingProblem) -> LeakyReLU:
    """The problem's activation; a `ValueError` if it is a polynomial."""
    if not isinstance(problem.activation, LeakyReLU):
        raise ValueError(
            "This takes ReLU, leaky ReLU and the absolute value; the problem's activation is "
            f"{problem.activation}."
        )
    return problem.activation


def require_polynomial(problem: TrainingProblem) -> Polynomial:
    """The problem's activation; a `ValueError` if it is no polynomial."""
    if not isinstance(problem.activation, Polynomial):
        raise ValueError(
            "This takes activation=Polynomial(a, b, c); the problem's activation is "
            f"{problem.activation}."
        )
    return problem.activation


def require_same_activation(problem: TrainingProblem, network: AbstractTwoLayer) -> None:
    """Raise a `ValueError` for a network of another activation: the problem's bounds are not for it."""
    if network.activation != problem.activation:
        raise ValueError(
            f"The network's activation is {network.activation}, the problem's {problem.activation}."
        )


def in_float64(module: Numbers) -> Numbers:
    """The same problem or network for exact evaluation: arrays of NumPy, every float32 a float64."""
    return jax.tree.map(lambda a: np.asarray(a, np.float64), module)


def _real_array(values: Any, name: str) -> Any:
    """`values` as a finite floating-point array: JAX arrays stay JAX's, all else becomes NumPy's."""
    if not isinstance(values, jax.Array):
        try:
            values = np.asarray(values)
        except ValueError as error:
            raise ValueError(f"{name} must be a rectangular array of numbers: {error}") from None
    if values.dtype.kind in "iub":
        values = values.astype(float)
    if not jnp.issubdtype(values.dtype, jnp.floating):
        raise ValueError(f"{name} must hold real numbers; its dtype is {values.dtype}.")
    if values.dtype.itemsize < 4:
        values = values.astype(np.float32)
    if values.dtype.itemsize > 8:
        values = values.astype(np.float64)
    if not isinstance(values, Tracer):
        _require_finite(np.asarray(values), name)
    return values


def _require_finite(values: np.ndarray, name: str) -> None:
    bad = np.argwhere(~np.isfinite(values))
    if bad.size:
        where = tuple(int(i) for i in bad[0])
        raise ValueError(
            f"{name} must be finite: entry {where} is {values[where]} "
            f"({len(bad)} of {values.size} entries are NaN or infinite)."
        )


def _require_matrix(values: Any, name: str, expected: str) -> None:
    if values.ndim != 2:
        raise ValueError(f"{name} must have shape {expected}; its shape is {values.shape}.")
    if 0 in values.shape:
        raise ValueError(f"{name} is empty: its shape is {values.shape}, expected {expected}.")


def _positive(value: Any, dtype: Any) -> Any:
    if isinstance(value, Tracer):
        if value.ndim:
            raise ValueError(f"weight_decay must be a number; its shape is {value.shape}.")
        return _cast(value, dtype)
    try:
        if isinstance(value, str):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"weight_decay must be a positive number; got {value!r}.") from None
    if not 0 < number < np.inf:
        raise ValueError(f"weight_decay must be a positive finite number; got {number}.")
    with np.errstate(over="ignore"):
        rounded = float(np.asarray(number, dtype))
    if not 0 < rounded < np.inf:
        raise ValueError(f"weight_decay must be positive and finite in {dtype}; got {number}.")
    return _cast(value, dtype) if isinstance(value, jax.Array) else np.asarray(number, dtype)


def _cast(values: Any, dtype: Any) -> Any:
    """`values` in `dtype`, or in the widest that JAX has where they are JAX's."""
    if isinstance(values, jax.Array):
        dtype = jax.dtypes.canonicalize_dtype(dtype)
    return values.astype(dtype)
