"""Two-layer networks as equinox modules."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcone.extend import matmul

from .activations import RELU, AbstractActivation, LeakyReLU, Polynomial


class AbstractTwoLayer(eqx.Module):
    """f(x) = sum_j phi(x'u_j + b_j) v_j, on one example; `jax.vmap` or `predict` for a batch."""

    U: eqx.AbstractVar[Float[Array, "d m"]]
    V: eqx.AbstractVar[Float[Array, "m c"]]
    b: eqx.AbstractVar[Float[Array, " m"] | None]
    activation: eqx.AbstractVar[AbstractActivation]

    @property
    @abc.abstractmethod
    def penalty(self) -> Float[Array, ""]:
        """What `weight_decay` multiplies in the objective."""

    def __call__(self, x: Float[Any, " d"]) -> Float[Array, " c"]:
        """The output for one example."""
        return self.predict(x[None, :])[0]

    def predict(self, X: Float[Any, "n d"]) -> Float[Any, "n c"]:
        """The outputs for a batch."""
        if all(isinstance(a, np.ndarray) for a in (X, self.U, self.V)):
            # In their own precision, and without a compilation for every width.
            hidden = X @ self.U if self.b is None else X @ self.U + self.b
            return self.activation(hidden) @ self.V
        hidden = matmul(X, self.U)
        if self.b is not None:
            hidden = hidden + self.b
        return matmul(self.activation(hidden), self.V)

    @property
    def width(self) -> int:
        """Number of neurons m."""
        return self.U.shape[1]

    @property
    def in_features(self) -> int:
        """d."""
        return self.U.shape[0]

    @property
    def out_features(self) -> int:
        """c."""
        return self.V.shape[1]

    @property
    def first_layer(self) -> Float[Any, "features m"]:
        """U, with the bias as its last row where there is one: the weights of `problem.features`."""
        if self.b is None:
            return self.U
        library = np if isinstance(self.U, np.ndarray) else jnp
        return library.concatenate([self.U, self.b[None, :]])

    @property
    def squared_norm(self) -> Float[Array, ""]:
        """sum_j |u_j|^2 + b_j^2 + |v_j|^2."""
        return (self.first_layer**2).sum() + (self.V**2).sum()


class TwoLayerReLU(AbstractTwoLayer):
    """f(x) = sum_j relu(x'u_j + b_j) v_j, on one example; `jax.vmap` or `predict` for a batch.

    **Arguments:** first-layer weights `U` (d, m), second-layer weights `V` (m, c) and, where the
    first layer has a bias, `b` (m,). Prakhya et al. (2025), eq. (NN). Zero neurons are allowed.

    **Raises** a `ValueError` where the shapes do not fit together.
    """

    U: Float[Array, "d m"]
    V: Float[Array, "m c"]
    b: Float[Array, " m"] | None

    def __init__(self, U: Any, V: Any, b: Any = None):
        self.U, self.V, self.b = _weights(U, V, b, "TwoLayerReLU")

    @property
    def activation(self) -> LeakyReLU:
        """ReLU."""
        return RELU

    @property
    def penalty(self) -> Float[Array, ""]:
        """1/2 sum_j |u_j|^2 + b_j^2 + |v_j|^2."""
        return self.squared_norm / 2


class TwoLayerLeakyReLU(AbstractTwoLayer):
    """`TwoLayerReLU` with another slope on the negative side: leaky ReLU, or the absolute value.

    **Arguments:** as for `TwoLayerReLU`, and the `activation`.

    **Raises** a `ValueError` where the shapes do not fit together.
    """

    U: Float[Array, "d m"]
    V: Float[Array, "m c"]
    b: Float[Array, " m"] | None
    activation: LeakyReLU

    def __init__(self, U: Any, V: Any, b: Any = None, *, activation: LeakyReLU):
        self.U, self.V, self.b = _weights(U, V, b, "TwoLayerLeakyReLU")
        self.activation = activation

    @property
    def penalty(self) -> Float[Array, ""]:
        """1/2 sum_j |u_j|^2 + b_j^2 + |v_j|^2."""
        return self.squared_norm / 2


class PolynomialNetwork(AbstractTwoLayer):
    """f(x) = sum_j phi(x'u_j + b_j) v_j with phi(t) = a t^2 + b t + c and unit neurons.

    Bartan and Pilanci (2021), eq. (20): |u_j|^2 + b_j^2 = 1, and weight decay penalises
    sum_j |v_j|_1.

    **Arguments:** `U` (d, m), `V` (m, c), perhaps `b` (m,), and the `activation`. The neurons'
    lengths are not looked at: `penalty` is that of the regularised problem if they are 1.

    **Raises** a `ValueError` where the shapes do not fit together.
    """

    U: Float[Array, "d m"]
    V: Float[Array, "m c"]
    b: Float[Array, " m"] | None
    activation: Polynomial

    def __init__(self, U: Any, V: Any, b: Any = None, *, activation: Polynomial):
        self.U, self.V, self.b = _weights(U, V, b, "PolynomialNetwork")
        self.activation = activation

    @property
    def penalty(self) -> Float[Array, ""]:
        """sum_j |v_j|_1."""
        return abs(self.V).sum()


def with_unit_neurons(network: PolynomialNetwork) -> PolynomialNetwork:
    """The network with every neuron (bias included) divided by its length; a zero one gives NaN."""
    squares = (network.U**2).sum(axis=0)
    if network.b is None:
        unit = network.U / squares**0.5
        return PolynomialNetwork(unit, network.V, activation=network.activation)
    lengths = (squares + network.b**2) ** 0.5
    return PolynomialNetwork(
        network.U / lengths, network.V, network.b / lengths, activation=network.activation
    )


def two_layer(
    U: Any, V: Any, b: Any = None, *, activation: AbstractActivation = RELU
) -> AbstractTwoLayer:
    """The network of these weights and this activation: a `TwoLayerReLU` where that is ReLU."""
    if isinstance(activation, Polynomial):
        return PolynomialNetwork(U, V, b, activation=activation)
    if not isinstance(activation, LeakyReLU):
        raise ValueError(f"There is no network with the activation {activation!r}.")
    if activation == RELU:
        return TwoLayerReLU(U, V, b)
    return TwoLayerLeakyReLU(U, V, b, activation=activation)


def from_first_layer(
    weights: Any, V: Any, *, bias: bool, activation: AbstractActivation = RELU
) -> AbstractTwoLayer:
    """The network whose `first_layer` is `weights`."""
    if not bias:
        return two_layer(weights, V, activation=activation)
    return two_layer(weights[:-1], V, weights[-1], activation=activation)


def zero_network(
    features: int, outputs: int, *, bias: bool, activation: AbstractActivation = RELU
) -> AbstractTwoLayer:
    """The network without neurons, in NumPy."""
    nothing = np.zeros((features + bias, 0))
    return from_first_layer(nothing, np.zeros((0, outputs)), bias=bias, activation=activation)


def _weights(U: Any, V: Any, b: Any, kind: str) -> tuple[Any, Any, Any]:
    """The weights as arrays of floats that fit together."""
    U, V = float_array(U), float_array(V)
    b = None if b is None else float_array(b)
    fits = U.ndim == 2 and V.ndim == 2 and U.shape[1] == V.shape[0]
    if not fits or (b is not None and b.shape != U.shape[1:]):
        raise ValueError(
            f"{kind} takes U of shape (d, m), V of shape (m, c) and b of shape (m,) or "
            f"None; got U {U.shape}, V {V.shape}, b {None if b is None else b.shape}."
        )
    return U, V, b


def float_array(values: Any) -> Any:
    """`values` as an array of floats, of JAX or NumPy as they are."""
    if isinstance(values, jax.Array):
        return values if jnp.issubdtype(values.dtype, jnp.floating) else values.astype(float)
    values = np.asarray(values)
    return values if values.dtype.kind == "f" else values.astype(float)
