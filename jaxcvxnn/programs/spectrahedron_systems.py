"""The linear systems of the splitting method for spectrahedra: Phi'Phi, diagonalised or by products.

With Phi the linear map from matrices to outputs, <F_i, M>, on the coordinates of the matrices that
are orthogonal to G, every step solves one system with 1/2 I + kappa Phi'Phi. kappa changes with the
penalties, the eigenbasis does not. Derivation: docs/math/spectrahedra.md, "Neural spectrahedra".
"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcone.extend import matmul, norm

from ..conic.quadratic_forms import AbstractForms, compress
from ..losses.regression import Squared
from .spectrahedron_points import Samples


class AbstractGram(eqx.Module):
    """Solves with 1/2 I + kappa Phi'Phi for any kappa; Phi'Phi may hold the samples' weights."""

    @property
    @abc.abstractmethod
    def largest(self) -> Float[Array, ""]:
        """The largest eigenvalue of Phi'Phi, of which a rough idea is enough."""

    @abc.abstractmethod
    def solve(self, kappa: Array, right: Float[Array, "c D"]) -> Float[Array, "c D"]:
        """(1/2 I + kappa Phi'Phi)^-1, row by row."""


class CoordinateGram(AbstractGram):
    """Phi'Phi = B diag(values) B', of the order of the coordinates: for more samples than these."""

    values: Float[Array, " D"]
    basis: Float[Array, "D D"]

    @property
    def largest(self):
        return self.values[-1]

    def solve(self, kappa, right):
        return matmul(matmul(right, self.basis) / (0.5 + kappa * self.values), self.basis.T)


class SampleGram(AbstractGram):
    """Phi Phi' = B diag(values) B', of the order of the samples."""

    values: Float[Array, " k"]
    basis: Float[Array, "k k"]
    rows: Float[Array, "k D"]

    @property
    def largest(self):
        return self.values[-1]

    def solve(self, kappa, right):
        # (1/2 I + kappa Phi'Phi)^-1 = 2 (I - Phi' (Phi Phi' + I / (2 kappa))^-1 Phi).
        rotated = matmul(matmul(right, self.rows.T), self.basis) * (
            kappa / (0.5 + kappa * self.values)
        )
        return 2 * right - 2 * matmul(matmul(rotated, self.basis.T), self.rows)


class ProductGram(AbstractGram):
    """Phi'Phi by products with the forms alone, O(n f^2) each: conjugate gradients."""

    forms: AbstractForms
    weights: Float[Array, " n"] | None

    @property
    def largest(self):
        size, dtype = self.forms.coordinates, self.forms.features.dtype
        start = jnp.ones((1, size), dtype) / size**0.5
        image = jax.lax.fori_loop(0, POWER_ROUNDS, lambda _, v: self._unit(self._apply(v)), start)
        return norm(self._apply(image))

    def solve(self, kappa, right):
        tolerance = 100 * float(jnp.finfo(right.dtype).eps)
        found, _ = jax.scipy.sparse.linalg.cg(
            lambda m: m / 2 + kappa * self._apply(m), right, tol=tolerance, maxiter=MOST_PRODUCTS
        )
        return found

    def _apply(self, vectors: Float[Array, "c D"]) -> Float[Array, "c D"]:
        forms = self.forms
        outputs = forms.outputs(forms.balance(forms.matrices(vectors)))
        weighted = outputs if self.weights is None else self.weights[:, None] * outputs
        return forms.vectors(forms.balance(forms.adjoint(weighted)))

    @staticmethod
    def _unit(vectors: Array) -> Array:
        length = norm(vectors)
        return vectors / jnp.where(length > 0, length, 1)


POWER_ROUNDS, MOST_PRODUCTS = 20, 200
# Up to this order Phi'Phi or Phi Phi' is diagonalised; see docs/math/spectrahedra.md, "Neural
# spectrahedra".
LARGEST_GRAM = 2500


def _gram_and_pull(samples: Samples) -> tuple[AbstractGram, Float[Array, "*k s s"]]:
    """Phi'Phi and Phi'Y, both with the weights if the loss is the squared one."""
    forms, count = samples.forms, samples.targets.shape[0]
    weights = samples.weights if isinstance(samples.loss, Squared) else None
    if min(count, forms.coordinates) > LARGEST_GRAM:
        weighted = samples.targets if weights is None else weights[:, None] * samples.targets
        return ProductGram(forms, weights), forms.balance(forms.adjoint(weighted))
    loss = compress(forms, samples.targets, weights)
    pulled = forms.matrices(matmul(loss.targets.T, loss.rows))
    if count > forms.coordinates:
        values, basis = jnp.linalg.eigh(matmul(loss.rows.T, loss.rows))
        return CoordinateGram(jnp.maximum(values, 0), basis), pulled
    values, basis = jnp.linalg.eigh(matmul(loss.rows, loss.rows.T))
    return SampleGram(jnp.maximum(values, 0), basis, loss.rows), pulled


class PreparedSamples(eqx.Module):
    """What depends on the samples alone: Phi'Phi, its largest eigenvalue, Phi'Y and ||Z||, about."""

    samples: Samples
    gram: AbstractGram
    pulled: Float[Array, "*k s s"]
    largest: Float[Array, ""]
    size: Float[Array, ""]

    @property
    def quadratic(self) -> bool:
        """Whether the loss stays in the linear problem."""
        return isinstance(self.samples.loss, Squared)

    def solve(self, kappa: Any, right: Float[Array, "*k s s"]) -> Float[Array, "*k s s"]:
        """argmin over M orthogonal to G of 1/4 |M|^2 + kappa/2 |<F_i, M>|^2 - <right, M>."""
        forms = self.samples.forms
        vectors = forms.vectors(forms.balance(right))
        return forms.balance(forms.matrices(self.gram.solve(jnp.asarray(kappa), vectors)))


# Ridge of the fit whose size is the first guess of ||Z||, in units of the largest eigenvalue.
GUESS_RIDGE = 1e-3


def prepare(samples: Samples) -> PreparedSamples:
    """Compress and diagonalise, once for all weight decays."""
    gram, pulled = _gram_and_pull(samples)
    largest = gram.largest
    largest = jnp.where(largest > 0, largest, 1)
    prepared = PreparedSamples(samples, gram, pulled, largest, jnp.zeros_like(largest))
    kappa = 0.5 / (GUESS_RIDGE * largest)
    size = norm(prepared.solve(kappa, kappa * pulled))
    return eqx.tree_at(lambda p: p.size, prepared, jnp.where(size > 0, size, 1))
