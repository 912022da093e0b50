"""What a method must offer to the driver loops."""

import abc
from typing import Generic, TypeVar

import equinox as eqx
from jaxtyping import PyTree

from ..program import AbstractConeProgram
from ..solution import Solution
from .record import conclude

Prepared = TypeVar("Prepared")
State = TypeVar("State")


class AbstractSolver(eqx.Module, Generic[Prepared, State]):
    """Settings of a method. All methods are pure; a state has a `status` and nothing hidden."""

    @abc.abstractmethod
    def prepare(self, program: AbstractConeProgram) -> Prepared:
        """Everything that does not change during the iteration, computed once per call."""

    @abc.abstractmethod
    def init(self, prepared: Prepared, warm_start: tuple[PyTree, PyTree] | None = None) -> State:
        """The state before the first step; methods without warm starts ignore `warm_start`."""

    @abc.abstractmethod
    def block(self, prepared: Prepared, state: State) -> State:
        """Some steps and a check: the unit in which `solve_in_chunks` counts."""

    @abc.abstractmethod
    def judge_again(self, state: State) -> State:
        """The state with the status that these settings give it, which may differ from its own."""

    def finish(self, state: State) -> Solution:
        """The solution that a state holds; it has a `record`, a `status` and `steps`."""
        return conclude(state)
