"""A program in coordinates, as interior-point methods need it: vectors, and a matrix to factor."""

import abc
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, PyTree

from .cones import PSD
from .operators import dot
from .program import AbstractConeProgram, Scaling
from .symmetric import AbstractScaling, Blocks, Layout

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


class DenseForm(AbstractInteriorForm):
    """A program given by arrays, equilibrated."""

    program: Any  # a ConeProgram with dense P and A
    scaling: Scaling
    layout: Layout

    def linear(self):
        return self.program.c

    def offset(self):
        return self.program.b

    def quadratic(self, x):
        return self.program.quadratic(x)

    def operator(self, x):
        return self.program.operator(x)

    def adjoint(self, y):
        return self.program.adjoint(y)

    def equality_rows(self):
        return self.program.A.entries[self.layout.equalities]

    def normal(self, scaling):
        def column(entries):
            blocks = self.layout.split(entries)
            return self.layout.vectors(
                [w.down(block) for w, block in zip(scaling, blocks, strict=True)], entries.dtype
            )

        scaled = jax.vmap(column, in_axes=1)(self.program.A.entries)
        gram = dot(scaled, scaled.T)
        return gram if self.program.P is None else gram + self.program.P.entries

    def initial(self):
        return None

    def points(self, x, s, y):
        return self.scaling.unscale(x, s, y)

    def twin(self):
        return self.program, self.scaling

    @property
    def size(self):
        return self.program.c.shape[0]

    def cost(self):
        m, n = self.program.b.shape[0], self.program.c.shape[0]
        cubes = sum(cone.side**3 for cone in self.layout.cones.cones if isinstance(cone, PSD))
        return 3.0 * m * n, 2.0 * m * n**2 + 4.0 * n * cubes
