"""The quadratic forms that a network with a polynomial activation applies to its samples.

A neuron of unit length has phi(x'u) = a (x'u)^2 + b x'u + c = (u, 1)' F (u, 1) with

    F = [[a x x', b/2 x], [b/2 x', c]]

and a network's output is <F, M> with M = sum_j v_j (u_j, 1)(u_j, 1)', for which <G, M> = 0 with G =
diag(1, ..., 1, -1): Bartan and Pilanci (2021), section 3. For the square activation (b = c = 0) the
last row and column do nothing and are left out, G with them. A convolutional network has one M for
every pool of patches, and its form there is the mean over the pool: docs/math/spectrahedra.md,
"Convolutional polynomial networks".
"""

import abc
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcone import smat, svec
from jaxcone.extend import after, matmul

from ..activations import Polynomial

# Halvings of the bracket of the multiplier, which take it to the rounding of float64.
HALVINGS = 64


class AbstractForms(eqx.Module):
    """The forms F_i of n samples, and the linear maps that they are.

    Matrices have leading axes k, the last of them that of the outputs. `features` are what is kept of
    the samples.
    """

    features: eqx.AbstractVar[Float[Array, "n *rest"]]
    activation: eqx.AbstractVar[Polynomial]

    @property
    @abc.abstractmethod
    def side(self) -> int:
        """s, the side of the matrices: f + 1 for f features, or f for the square activation."""

    @abc.abstractmethod
    def places(self, outputs: int) -> tuple[int, ...]:
        """The leading axes k of matrices for so many outputs."""

    @abc.abstractmethod
    def outputs(self, matrices: Float[Array, "*k s s"]) -> Float[Array, "n c"]:
        """<F_i, M_k> for all samples i and outputs k."""

    @abc.abstractmethod
    def adjoint(self, residual: Float[Array, "n c"]) -> Float[Array, "*k s s"]:
        """sum_i R_ik F_i for all outputs k."""

    @abc.abstractmethod
    def written_out(self) -> Float[Array, "n *pools t"]:
        """The forms themselves, as `svec`."""

    @abc.abstractmethod
    def vectors(self, matrices: Float[Array, "*k s s"]) -> Float[Array, "c D"]:
        """Matrices as vectors (`svec`) of the same inner product, one per output."""

    @abc.abstractmethod
    def matrices(self, vectors: Float[Array, "c D"]) -> Float[Array, "*k s s"]:
        """What `vectors` was made of."""

    @property
    def square(self) -> bool:
        """Whether the activation is a t^2."""
        return self.activation.b == 0 and self.activation.c == 0

    @property
    def trace_price(self) -> float:
        """What weight decay takes for a unit of tr Z: Z_4 is half of it, or tr Z_1 is all of it."""
        return 1.0 if self.square else 0.5

    @property
    def coordinates(self) -> int:
        """D, the numbers in the matrices of one output."""
        return math.prod(self.places(1)) * self.side * (self.side + 1) // 2

    def balance(self, matrices: Float[Array, "*k s s"]) -> Float[Array, "*k s s"]:
        """The part orthogonal to G; for the square activation all of it."""
        if self.square:
            return matrices
        signs = _signs(self.side, matrices.dtype)
        share = jnp.trace(signs[:, None] * matrices, axis1=-2, axis2=-1) / self.side
        return matrices - share[..., None, None] * jnp.diag(signs)

    def rows(self) -> Float[Array, "n D"]:
        """The forms, orthogonal to G, as `vectors`."""
        forms = self.written_out()
        balance = jnp.vectorize(lambda v: svec(self.balance(smat(v))), signature="(t)->(t)")
        return balance(forms).reshape(len(forms), -1)

    def price(self, residual: Float[Array, "n c"]) -> Float[Array, ""]:
        """max over unit u and all k of |(u, 1)' M_k (u, 1)|, M = `adjoint(residual)`: what the best
        neuron gains. An upper bound but for rounding.

        Bartan and Pilanci (2021), eq. (28): one eigendecomposition, and one multiplier.
        """
        largest = jnp.vectorize(self._largest, signature="(s,s)->()")
        return jnp.max(largest(self.adjoint(residual)))

    def _largest(self, matrix: Float[Array, "s s"]) -> Float[Array, ""]:
        size = self.side - (not self.square)
        values, vectors = jnp.linalg.eigh(matrix[:size, :size])
        if self.square:
            return jnp.maximum(values[-1], -values[0])
        edge, corner = matmul(vectors.T, matrix[:size, size]), matrix[size, size]
        above = largest_on_sphere(values, edge) + corner
        below = largest_on_sphere(-values[::-1], edge[::-1]) - corner
        return jnp.maximum(above, below)


class QuadraticForms(AbstractForms):
    """The forms of a fully connected network, one matrix per output (c, s, s).

    They are not written out unless `rows` is asked for.

    **Arguments:** `features` (n, f), with the column of ones where there is a bias, and the
    `activation`.
    """

    features: Float[Array, "n f"]
    activation: Polynomial

    @property
    def side(self):
        return self.features.shape[1] + (not self.square)

    def places(self, outputs):
        return (outputs,)

    def outputs(self, matrices):
        X, phi = self.features, self.activation
        size = X.shape[1]

        def of_one(matrix):
            values = phi.a * jnp.sum(matmul(X, matrix[:size, :size]) * X, axis=1)
            if self.square:
                return values
            return values + phi.b * matmul(X, matrix[:size, size]) + phi.c * matrix[size, size]

        return jax.vmap(of_one, out_axes=1)(matrices)

    def adjoint(self, residual):
        X, phi = self.features, self.activation

        def of_one(weights):
            block = phi.a * matmul(X.T, weights[:, None] * X)
            block = (block + block.T) / 2
            if self.square:
                return block
            edge = phi.b / 2 * matmul(X.T, weights)
            corner = phi.c * jnp.sum(weights)
            return jnp.block([[block, edge[:, None]], [edge[None, :], corner[None, None]]])

        return jax.vmap(of_one, in_axes=1)(residual)

    def written_out(self):
        def of_one(x):
            alone = QuadraticForms(x[None, :], self.activation)
            return svec(alone.adjoint(jnp.ones((1, 1), x.dtype))[0])

        return jax.vmap(of_one)(self.features)

    def vectors(self, matrices):
        return jax.vmap(svec)(matrices)

    def matrices(self, vectors):
        return jax.vmap(smat)(vectors)


class PooledForms(AbstractForms):
    """The forms of a convolutional network, one matrix per pool and output (g, c, s, s).

    <F_i, M> = sum_g <F_ig, M_g>, and F_ig is the mean of the forms of a pool's patches. Here they are
    written out: the patches take more room unless a pool has fewer than s / 2.

    **Arguments:** `features` (n, g, s (s + 1) / 2), the F_ig as `svec`: see `pooled_forms`; and the
    `activation`.
    """

    features: Float[Array, "n g t"]
    activation: Polynomial

    @property
    def side(self):
        return math.isqrt(2 * self.features.shape[2])

    def places(self, outputs):
        return (self.features.shape[1], outputs)

    def outputs(self, matrices):
        return matmul(self._flat, self.vectors(matrices).T)

    def adjoint(self, residual):
        return self.matrices(matmul(residual.T, self._flat))

    def written_out(self):
        return self.features

    def vectors(self, matrices):
        each = jax.vmap(jax.vmap(svec), in_axes=1)(matrices)
        return each.reshape(len(each), -1)

    def matrices(self, vectors):
        each = vectors.reshape(len(vectors), self.features.shape[1], -1)
        return jax.vmap(jax.vmap(smat), out_axes=1)(each)

    @property
    def _flat(self) -> Float[Array, "n D"]:
        return self.features.reshape(len(self.features), -1)


def pooled_forms(patches: Float[Array, "g p n f"], activation: Polynomial) -> PooledForms:
    """The forms of patches by pools; besides the means only those of one patch per sample exist."""

    def of_patches(X):
        return QuadraticForms(X, activation).written_out()

    def mean(pool):
        def add(total, X):
            return total + of_patches(X), None

        total, _ = jax.lax.scan(add, of_patches(pool[0]), pool[1:])
        return total / len(pool)

    return PooledForms(jnp.swapaxes(jax.lax.map(mean, patches), 0, 1), activation)


def largest_on_sphere(values: Float[Array, " f"], edge: Float[Array, " f"]) -> Float[Array, ""]:
    """max over |w| = 1 of sum_i values_i w_i^2 + 2 edge_i w_i, for ascending `values`.

    It is the least of m + sum_i edge_i^2 / (m - values_i) over m >= values_f (the S-lemma); every m
    gives an upper bound. The slope has one root, within |edge| of the largest value.
    """
    length = jnp.linalg.norm(edge)
    gaps = values[-1] - values
    tiny = jnp.finfo(values.dtype).tiny

    def halve(_, bracket):
        low, high = bracket
        middle = (low + high) / 2
        falling = jnp.sum((edge / (gaps + middle + tiny)) ** 2) > 1
        return jnp.where(falling, middle, low), jnp.where(falling, high, middle)

    _, high = jax.lax.fori_loop(0, HALVINGS, halve, (jnp.zeros_like(length), length))
    return values[-1] + high + jnp.sum(edge**2 / (gaps + high + tiny))


class Compressed(eqx.Module):
    """T, t, e with 1/2 |Phi m - Y|^2 = 1/2 |T m - t|^2 + e for all m: at most D rows."""

    rows: Float[Array, "k D"]
    targets: Float[Array, "k c"]
    constant: Float[Array, ""]

    def expand(
        self, forms: AbstractForms, targets: Float[Array, "n c"], residual: Float[Array, "k c"]
    ) -> Float[Array, "n c"]:
        """Phi m - Y for the m with T m - t = `residual`; no proof hangs on how well it is met."""
        if self.rows.shape[0] == targets.shape[0]:
            return residual
        gram = after(matmul(self.rows.T, self.rows), residual)
        ridge = EXPANSION_RIDGE * float(jnp.finfo(gram.dtype).eps) * jnp.trace(gram)
        root = jnp.linalg.cholesky(gram + ridge * jnp.eye(gram.shape[0], dtype=gram.dtype))

        def refine(_, found):
            rest = matmul(self.rows.T, residual + self.targets - matmul(self.rows, found))
            return found + jax.scipy.linalg.cho_solve((root, True), rest)

        start = jnp.zeros((gram.shape[0], targets.shape[1]), gram.dtype)
        found = jax.lax.fori_loop(0, EXPANSION_ROUNDS, refine, start)
        return forms.outputs(forms.balance(forms.matrices(found.T))) - targets


# The Gram matrix is singular along G; each round takes the ridge's effect to its square.
EXPANSION_RIDGE, EXPANSION_ROUNDS = 10.0, 5
# Samples that are lifted at a time, in units of the columns of the lifted matrix.
CHUNK = 4


def compress(
    forms: AbstractForms, targets: Float[Array, "n c"], weights: Float[Array, " n"] | None = None
) -> Compressed:
    """The squared loss on at most D rows: the triangular factor of (Phi, Y), chunk by chunk.

    2 n D^2 operations once; of the (n, D) matrix no more than a few D rows exist at a time. With n <=
    D the rows are the samples. `weights` multiply the samples' losses.
    """
    samples, size = targets.shape[0], forms.coordinates
    roots = jnp.ones(samples, targets.dtype) if weights is None else jnp.sqrt(weights)
    if samples <= size:
        rows, wanted = roots[:, None] * forms.rows(), roots[:, None] * targets
        return Compressed(rows, wanted, jnp.zeros((), targets.dtype))
    width = size + targets.shape[1]
    chunk = min(CHUNK * width, samples)
    count = -(-samples // chunk)

    def pieces_of(values):
        rest = values.shape[1:]
        padded = jnp.pad(values, ((0, count * chunk - samples), *((0, 0) for _ in rest)))
        return padded.reshape(count, chunk, *rest)

    def absorb(factor, piece):
        of_piece, wanted, scales = piece
        block = jnp.concatenate([of_piece.rows(), wanted], axis=1)
        stacked = jnp.concatenate([factor, scales[:, None] * block])
        return jnp.linalg.qr(after(stacked, factor), mode="r"), None

    pieces = jax.tree.map(pieces_of, (forms, targets, roots))
    factor, _ = jax.lax.scan(absorb, jnp.zeros((width, width), targets.dtype), pieces)
    rest = factor[size:, size:]
    return Compressed(factor[:size, :size], factor[:size, size:], jnp.sum(rest**2) / 2)


def _signs(side: int, dtype: Any) -> Float[Array, " s"]:
    """The diagonal of G."""
    return jnp.ones(side, dtype).at[-1].set(-1)
