"""Convolutional polynomial networks: Bartan and Pilanci (2021), Table 1, "CNN" and "Pooling".

    f(x)_k = sum_j sum_g  v_jgk  1/P sum_l phi(x_{gP + l}'u_j),   |u_j| = 1,   penalty sum_jgk |v_jgk|

for the patches x_1, ..., x_K of one input, in pools of P neighbours; P = 1 is no pooling. Their convex
program: `programs/convolutional.py`, and for any loss and many samples `solve_spectrahedron`.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcone.extend import matmul

from .activations import AbstractActivation, Polynomial
from .losses.base import AbstractLoss
from .networks import float_array
from .problem import TrainingProblem, require_polynomial


class ConvolutionalPolynomialNetwork(eqx.Module):
    """One hidden layer of filters, average-pooled, and a linear output.

    **Arguments:** `filters` (f, m), of unit length if `penalty` is to be that of the regularised
    problem; `weights` (m, g, c), filter j's output weights in each of g = K/P pools, or (m, g) for one
    output; `activation`; `pool`, P.

    **Raises** a `ValueError` where the shapes do not fit together.
    """

    filters: Float[Any, "f m"]
    weights: Float[Any, "m g c"]
    activation: Polynomial
    pool: int = eqx.field(static=True)

    def __init__(self, filters: Any, weights: Any, activation: Polynomial, pool: int = 1):
        self.filters, weights = (float_array(part) for part in (filters, weights))
        self.weights = weights[:, :, None] if weights.ndim == 2 else weights
        self.activation, self.pool = activation, pool
        fits = self.filters.ndim == 2 and self.weights.ndim == 3
        if not fits or self.filters.shape[1] != self.weights.shape[0]:
            raise ValueError(
                "ConvolutionalPolynomialNetwork takes filters of shape (f, m) and weights of shape "
                f"(m, K/P, c) or (m, K/P); got {self.filters.shape} and {weights.shape}."
            )

    @property
    def width(self) -> int:
        """Number of filters m."""
        return self.filters.shape[1]

    @property
    def penalty(self) -> Float[Array, ""]:
        """sum_jgk |v_jgk|."""
        return abs(self.weights).sum()

    def predict(self, patches: Float[Any, "k n f"]) -> Float[Array, "n c"]:
        """The outputs for n inputs, given by their K patches."""
        count, samples, _ = patches.shape
        activated = self.activation(matmul(patches, self.filters))
        pools = activated.reshape(count // self.pool, self.pool, samples, self.width)
        pooled = jnp.mean(pools, axis=1)
        return jnp.einsum("gnm,mgc->nc", pooled, self.weights, precision="highest")


class ConvolutionalProblem(eqx.Module):
    """Train a convolutional polynomial network, of any number of filters, with weight decay.

        p* = min over m, |u_j| = 1, v_j of  L(f(x), Y) + weight_decay sum_jgk |v_jgk|

    **Arguments:** `patches` (K, n, f), patch k of all samples (`image_patches` cuts images); `pool`, P,
    a divisor of K, how many successive patches are averaged; `Y`, `weight_decay`, `loss`, `activation`:
    see `TrainingProblem`.

    **Raises** a `ValueError` for shapes that do not match, another activation than a polynomial, and as
    `TrainingProblem` does.
    """

    patches: Float[Any, "k n f"]
    Y: Float[Any, "n c"]
    weight_decay: Float[Any, ""]
    pool: int = eqx.field(static=True)
    loss: AbstractLoss
    activation: Polynomial

    def __init__(
        self,
        patches: Any,
        Y: Any,
        weight_decay: Any = 0.1,
        *,
        pool: int = 1,
        loss: AbstractLoss | str = "squared",
        activation: AbstractActivation | str = "polynomial",
    ):
        shape = np.shape(patches)
        if len(shape) != 3 or 0 in shape:
            raise ValueError(f"patches must have shape (K, n, f); their shape is {shape}.")
        if not (isinstance(pool, int) and pool >= 1 and shape[0] % pool == 0):
            raise ValueError(f"pool must divide the number of patches, {shape[0]}; got {pool!r}.")
        # The same data, one row per sample: what is wrong with them is told there.
        flat = patches if eqx.is_array(patches) else np.asarray(patches)
        flat = flat.swapaxes(0, 1).reshape(shape[1], -1)
        checked = TrainingProblem(flat, Y, weight_decay, loss=loss, activation=activation)
        self.patches = checked.X.reshape(shape[1], shape[0], shape[2]).swapaxes(0, 1)
        self.Y, self.weight_decay = checked.Y, checked.weight_decay
        self.loss, self.activation, self.pool = checked.loss, require_polynomial(checked), pool

    @property
    def pools(self) -> Float[Any, "g p n f"]:
        """The patches by pools."""
        count, samples, size = self.patches.shape
        return self.patches.reshape(count // self.pool, self.pool, samples, size)

    def objective(self, network: ConvolutionalPolynomialNetwork) -> Float[Array, ""]:
        """L(f(x), Y) + weight_decay sum_jgk |v_jgk|: above p* for filters of unit length."""
        if (network.activation, network.pool) != (self.activation, self.pool):
            raise ValueError(
                f"The network has the activation {network.activation} and pools of {network.pool}; "
                f"the problem {self.activation} and {self.pool}."
            )
        loss = self.loss.value(network.predict(self.patches), self.Y)
        return loss + self.weight_decay * network.penalty


def image_patches(images: Float[Any, "n h w"], size: int, stride: int = 1) -> Any:
    """All size x size patches of images, `stride` apart, row by row: (K, n, size^2).

    **Raises** a `ValueError` for arrays of another shape, and patches larger than the images.
    """
    shape = np.shape(images)
    if len(shape) != 3 or not 1 <= size <= min(shape[1:]) or stride < 1:
        raise ValueError(
            "image_patches takes images (n, h, w), a size from 1 to h and w and a stride of at least "
            f"1; got {shape}, {size} and {stride}."
        )
    images = images if eqx.is_array(images) else np.asarray(images)
    library = np if isinstance(images, np.ndarray) else jnp
    corners = [
        (i, j)
        for i in range(0, shape[1] - size + 1, stride)
        for j in range(0, shape[2] - size + 1, stride)
    ]
    cut = [images[:, i : i + size, j : j + size].reshape(shape[0], -1) for i, j in corners]
    return library.stack(cut)
