"""Two-layer networks as equinox modules."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .products import dot


class TwoLayerReLU(eqx.Module):
    """f(x) = sum_j relu(x'u_j + b_j) v_j, on one example; `jax.vmap` or `predict` for a batch.

    **Arguments:** first-layer weights `U` (d, m), second-layer weights `V` (m, c) and, where the
    first layer has a bias, `b` (m,). Prakhya et al. (2025), eq. (NN). Zero neurons are allowed.

    **Raises** a `ValueError` where the shapes do not fit together.
    """

    U: Float[Array, "d m"]
    V: Float[Array, "m c"]
    b: Float[Array, " m"] | None

    def __init__(self, U: Any, V: Any, b: Any = None):
        self.U = _float_array(U)
        self.V = _float_array(V)
        self.b = None if b is None else _float_array(b)
        shapes = self.U.shape, self.V.shape, None if self.b is None else self.b.shape
        fits = self.U.ndim == 2 and self.V.ndim == 2 and self.U.shape[1] == self.V.shape[0]
        if not fits or (self.b is not None and self.b.shape != self.U.shape[1:]):
            raise ValueError(
                "TwoLayerReLU takes U of shape (d, m), V of shape (m, c) and b of shape (m,) or "
                f"None; got U {shapes[0]}, V {shapes[1]}, b {shapes[2]}."
            )

    def __call__(self, x: Float[Any, " d"]) -> Float[Array, " c"]:
        """The output for one example."""
        return self.predict(x[None, :])[0]

    def predict(self, X: Float[Any, "n d"]) -> Float[Any, "n c"]:
        """The outputs for a batch."""
        if all(isinstance(a, np.ndarray) for a in (X, self.U, self.V)):
            # In their own precision, and without a compilation for every width.
            hidden = X @ self.U if self.b is None else X @ self.U + self.b
            return np.maximum(hidden, 0) @ self.V
        hidden = dot(X, self.U)
        if self.b is not None:
            hidden = hidden + self.b
        return dot(jax.nn.relu(hidden), self.V)

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
        """sum_j |u_j|^2 + b_j^2 + |v_j|^2, what weight decay penalises."""
        return (self.first_layer**2).sum() + (self.V**2).sum()


def from_first_layer(weights: Any, V: Any, *, bias: bool) -> TwoLayerReLU:
    """The network whose `first_layer` is `weights`."""
    if not bias:
        return TwoLayerReLU(weights, V)
    return TwoLayerReLU(weights[:-1], V, weights[-1])


def _float_array(values: Any) -> Any:
    if isinstance(values, jax.Array):
        return values if jnp.issubdtype(values.dtype, jnp.floating) else values.astype(float)
    values = np.asarray(values)
    return values if values.dtype.kind == "f" else values.astype(float)
