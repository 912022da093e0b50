"""What a convex program must offer to be solved by this package.

Standard form, with its dual on the right:

    min  1/2 <x, P x> + <c, x>         max  -1/2 <x, P x> - <b, y>
    s.t. A x + s = b,  s in K          s.t. P x + c + A* y = 0,  y in K*

Points x and s are any pytrees of arrays with the inner product of `dot`, so that structured programs
keep their matrices as matrices. A program may restrict x to a linear subspace X that its `minimize`
respects; then the dual equality holds up to the orthogonal complement of X.
"""

import abc
from typing import Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

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
    def minimize(self, factor: Factor, penalty: Float[Array, ""], target: PyTree) -> PyTree:
        """argmin over x in X of 1/2 <x, P x> + <c, x> + penalty/2 ||A x - target||^2."""

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


def combine(weight_left, left: PyTree, weight_right, right: PyTree) -> PyTree:
    """weight_left * left + weight_right * right."""
    return jax.tree.map(lambda a, b: weight_left * a + weight_right * b, left, right)


def after(tree: PyTree, earlier: PyTree) -> PyTree:
    """`tree`, with a data dependence on `earlier` that no compiler removes.

    On CPU (seen with jax 0.10.2) a batched factorisation waits, on a thread of the pool that runs
    the program, for work queued in that pool. Two of them that do not depend on each other may
    start at once and, with two threads, wait for ever. So all factorisations of a program stand in
    one line. A NaN in `earlier` spreads.
    """
    ends = [jnp.ravel(leaf)[0] for leaf in jax.tree.leaves(earlier) if jnp.size(leaf)]
    if not ends:
        return tree
    token = 0 * jnp.sum(jnp.stack(ends))
    return jax.tree.map(lambda leaf: leaf + token.astype(jnp.result_type(leaf)), tree)


def subtract(left: PyTree, right: PyTree) -> PyTree:
    """left - right."""
    return jax.tree.map(jnp.subtract, left, right)
