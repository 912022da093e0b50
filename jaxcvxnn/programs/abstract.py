"""What a convex program of training must offer to `jaxcvxnn.solve`."""

import abc
from typing import Any, Generic, TypeVar

import equinox as eqx

from jaxcone import AbstractSolver, Solution
from jaxcone.extend import AbstractConeProgram

Data = TypeVar("Data")
Found = TypeVar("Found")


class AbstractProgramSolution(eqx.Module):
    """Named blocks, and the cone solution that they were read from."""

    solution: eqx.AbstractVar[Solution]


class AbstractTrainingProgram(eqx.Module, Generic[Data, Found]):
    """A problem's numbers, the cone program that they define, and names for what solves it."""

    @abc.abstractmethod
    def data(self, problem: Any) -> Data:
        """The program's numbers; data of its own kind pass through."""

    @abc.abstractmethod
    def cone_program(self, data: Data) -> AbstractConeProgram:
        """The program in the standard form."""

    @abc.abstractmethod
    def default_solver(self, program: Any) -> AbstractSolver:
        """The settings in force where none are given; `program` is `cone_program(data)`."""

    @abc.abstractmethod
    def read_out(self, data: Data, program: Any, solution: Solution) -> Found:
        """The named blocks of a solution of `cone_program(data)`; the latter as `program`."""
