"""What a convex program must offer to be solved by this package.

Standard form, with its dual on the right:

    min  1/2 <x, P x> + <c, x>         max  -1/2 <x, P x> - <b, y>
    s.t. A x + s = b,  s in K          s.t. P x + c + A* y = 0,  y in K*

Points x and s are any pytrees of arrays with the inner product of `inner`, so that structured programs
keep their matrices as matrices. A program may restrict x to a linear subspace X that its `minimize`
respects; then the dual equality holds up to the orthogonal complement of X.
"""

import abc
from typing import Generic, TypeVar

import equinox as eqx
from jaxtyping import Array, Float, PyTree

from .pytrees import largest
from .scalings import AbstractScaling, Blocks, Layout

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


Start = tuple[Float[Array, " n"], Blocks, Blocks]


class AbstractInteriorForm(eqx.Module):
    """min 1/2 x'P x + c'x subject to A x + s = b, s in a product of symmetric cones.

    x and the rows of s are vectors of plain coordinates, in which the normal matrix is formed;
    `points` maps them to the points of the program that this is a form of.
    """

    layout: eqx.AbstractVar[Layout]

    @abc.abstractmethod
    def linear(self) -> Float[Array, " n"]:
        """c."""

    @abc.abstractmethod
    def offset(self) -> Float[Array, " m"]:
        """b."""

    @abc.abstractmethod
    def quadratic(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        """P x."""

    @abc.abstractmethod
    def operator(self, x: Float[Array, " n"]) -> Float[Array, " m"]:
        """A x."""

    @abc.abstractmethod
    def adjoint(self, y: Float[Array, " m"]) -> Float[Array, " n"]:
        """A'y."""

    @abc.abstractmethod
    def normal(self, scaling: list[AbstractScaling]) -> Float[Array, "n n"]:
        """P + A'(W'W)^-1 A over the rows that are not equalities."""

    @abc.abstractmethod
    def equality_rows(self) -> Float[Array, "e n"]:
        """The rows of A that belong to `Zero` cones."""

    @abc.abstractmethod
    def initial(self) -> Start | None:
        """x and interior points s and z to start from; None for the method's own."""

    @abc.abstractmethod
    def points(
        self, x: Float[Array, " n"], s: Float[Array, " m"], y: Float[Array, " m"]
    ) -> tuple[PyTree, PyTree, PyTree]:
        """The program's own x, s and y."""

    @abc.abstractmethod
    def twin(self) -> tuple[AbstractConeProgram, Scaling] | None:
        """The equilibrated program with vectors for points, in whose units proofs are judged.

        None for programs that are known to be solvable.
        """

    @abc.abstractmethod
    def cost(self) -> tuple[float, float]:
        """(numbers held, operations) of forming the normal matrix, beyond the matrix itself."""

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """n, the side of the matrix that is factored in every step."""


class NoScaling(Scaling):
    """The units of the program itself, in which its constraints are of size one."""

    def scale(self, s, y):
        return s, y

    def unscale(self, x, s, y):
        return x, s, y
