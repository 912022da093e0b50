"""What a convex program must offer to be solved by this package.

Standard form, with its dual on the right:

    min  1/2 <x, P x> + <c, x>         max  -1/2 <x, P x> - <b, y>
    s.t. A x + s = b,  s in K          s.t. P x + c + A* y = 0,  y in K*

Points x and s are any pytrees of arrays with the inner product of `dot`, so that structured programs
keep their matrices as matrices. A program may restrict x to a linear subspace X that its `minimize`
respects; then the dual equality holds up to the orthogonal complement of X.
"""

import abc
import functools
from typing import TYPE_CHECKING, Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .ordering import after as after

if TYPE_CHECKING:
    from .interior_form import AbstractInteriorForm

Factor = TypeVar("Factor")


class AbstractConeProgram(eqx.Module, Generic[Factor]):
    """A program in the standard form above, given by what its operators do.

    All methods are pure and act on one problem; `jax.vmap` over the program's arrays solves many.
    """

    @abc.abstractmethod
    def quadratic(self, x: PyTree) -> PyTree:
        """P x."""

    @abc.abstractmethod
    def linear(self) -> PyTree:
        """c, a pytree like x."""

    @abc.abstractmethod
    def operator(self, x: PyTree) -> PyTree:
        """A x."""

    @abc.abstractmethod
    def adjoint(self, y: PyTree) -> PyTree:
        """A* y."""

    @abc.abstractmethod
    def offset(self) -> PyTree:
        """b, a pytree like s."""

    @abc.abstractmethod
    def project(self, s: PyTree) -> PyTree:
        """The point of K nearest to s."""

    @abc.abstractmethod
    def factor(self) -> Factor:
        """Whatever `minimize` needs that depends on neither the penalty nor the target."""

    @abc.abstractmethod
    def minimize(
        self, factor: Factor, penalty: Float[Array, ""], target: PyTree, guess: PyTree
    ) -> PyTree:
        """argmin over x in X of 1/2 <x, P x> + <c, x> + penalty/2 ||A x - target||^2.

        `guess` is the x of the step before, for programs that solve this by iteration.
        """

    @abc.abstractmethod
    def tangent_factor(self) -> PyTree:
        """Whatever `tangent` needs that does not depend on the gradient."""

    @abc.abstractmethod
    def tangent(self, factor: PyTree, gradient: PyTree) -> PyTree:
        """Orthogonal projection of a gradient (a pytree like x) onto the subspace X."""

    @abc.abstractmethod
    def initial(self) -> tuple[PyTree, PyTree]:
        """A starting point (s, y) with s in K and y in K*."""

    @abc.abstractmethod
    def equilibrate(self) -> tuple["AbstractConeProgram", "Scaling"]:
        """An equivalent program that is better conditioned, and the way between the two."""

    def interior(self) -> "AbstractInteriorForm":
        """The program in coordinates, for interior-point methods.

        **Raises** a `NotImplementedError` unless the program offers them.
        """
        raise NotImplementedError(f"{type(self).__name__} has no form for interior-point methods.")

    @property
    def solvable(self) -> bool:
        """Whether program and dual are known to be feasible; then nobody looks for a proof that not."""
        return False

    def units(self) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """What primal and dual residuals are small against; it depends on the data alone.

        By default 1 + the largest entry of b and of c, as in the DIMACS errors.
        """
        return 1 + largest(self.offset()), 1 + largest(self.linear())


class Scaling(eqx.Module):
    """The way between a program's points and those of its equilibrated twin."""

    @abc.abstractmethod
    def scale(self, s: PyTree, y: PyTree) -> tuple[PyTree, PyTree]:
        """(s, y) in the units of the equilibrated program."""

    @abc.abstractmethod
    def unscale(self, x: PyTree, s: PyTree, y: PyTree) -> tuple[PyTree, PyTree, PyTree]:
        """(x, s, y) in the units of the original program."""


def dot(left: PyTree, right: PyTree) -> Float[Array, ""]:
    """Inner product of two pytrees of arrays: the sum of all products of their entries."""
    products = jax.tree.map(lambda a, b: jnp.sum(a * b), left, right)
    return jax.tree.reduce(jnp.add, products)


def norm(tree: PyTree) -> Float[Array, ""]:
    """Euclidean norm that belongs to `dot`."""
    return jnp.sqrt(dot(tree, tree))


def largest(tree: PyTree) -> Float[Array, ""]:
    """The largest absolute value among all entries; 0 if there are none."""
    leaves = [jnp.max(jnp.abs(leaf), initial=0) for leaf in jax.tree.leaves(tree)]
    return functools.reduce(jnp.maximum, leaves)


def combine(weight_left, left: PyTree, weight_right, right: PyTree) -> PyTree:
    """weight_left * left + weight_right * right."""
    return jax.tree.map(lambda a, b: weight_left * a + weight_right * b, left, right)


def subtract(left: PyTree, right: PyTree) -> PyTree:
    """left - right."""
    return jax.tree.map(jnp.subtract, left, right)
