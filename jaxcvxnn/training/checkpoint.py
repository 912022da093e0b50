"""What a training has reached on disk, so that it can go on where it was."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any, TypeVar

import equinox as eqx
import numpy as np

from jaxcone import AbstractSolver, InteriorPoint, Splitting

from ..problem import TrainingProblem

Tree = TypeVar("Tree")

_VERSION = 3
_METHODS = {method.__name__: method for method in (Splitting, InteriorPoint)}


class Checkpoint:
    """A file of arrays, with a fingerprint of the problem, loss, activation, bias and program included.

    Routes write what they go on from after each piece of work, and read it when they begin.
    """

    def __init__(self, path: str | Path, problem: TrainingProblem):
        self.path, self.problem = Path(path), problem

    @property
    def exists(self) -> bool:
        """Whether there is a file to go on from."""
        return self.path.exists()

    def program(self) -> str:
        """The program that the file is of.

        **Raises** a `ValueError` if the file is not a checkpoint.
        """
        with self.path.open("rb") as file:
            return self._header(file)["program"]

    def save(self, program: str, tree: Any, **header: Any) -> None:
        """Write the leaves of a pytree, and a header for JSON."""
        fields = {
            "version": _VERSION,
            "program": program,
            "problem": _fingerprint(self.problem, program),
            "header": header,
        }
        partial = self.path.with_name(self.path.name + ".partial")
        with partial.open("wb") as file:
            file.write((json.dumps(fields) + "\n").encode())
            eqx.tree_serialise_leaves(file, tree)
        partial.replace(
            self.path
        )  # an interrupt leaves the old file or the new one, never half of one

    def header(self, program: str) -> dict[str, Any]:
        """The header that was saved.

        **Raises** a `ValueError` if the file is not a checkpoint, or belongs to another problem.
        """
        with self.path.open("rb") as file:
            return self._checked(file, program)

    def load(self, program: str, like: Tree) -> Tree:
        """The pytree that was saved; `like` has its structure, shapes and dtypes.

        **Raises** a `ValueError` as `header` does, and for a file that is damaged or of other shapes.
        """
        with self.path.open("rb") as file:
            self._checked(file, program)
            try:
                return eqx.tree_deserialise_leaves(file, like)
            except Exception as error:  # equinox, NumPy and the file system each have their own
                raise ValueError(
                    f"{self.path} is damaged, or of another precision: {error}"
                ) from None

    def _header(self, file: Any) -> dict[str, Any]:
        try:
            fields: dict[str, Any] = json.loads(file.readline())
            version, _ = fields["version"], fields["problem"]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(f"{self.path} is not a checkpoint of jaxcvxnn.") from None
        if version != _VERSION:
            raise ValueError(f"{self.path} has checkpoint version {version}; expected {_VERSION}.")
        return fields

    def _checked(self, file: Any, program: str) -> dict[str, Any]:
        fields = self._header(file)
        if fields["problem"] != _fingerprint(self.problem, program):
            raise ValueError(
                f"{self.path} is a checkpoint of another training problem, or of another program."
            )
        return fields["header"]


def described(solver: AbstractSolver) -> dict[str, Any]:
    """A solver's settings for a header."""
    settings = {
        field.name: _plain(getattr(solver, field.name)) for field in dataclasses.fields(solver)
    }
    return {"method": type(solver).__name__, "settings": settings}


def solver_of(header: dict[str, Any]) -> AbstractSolver:
    """The solver that a header describes."""
    return _METHODS[header["method"]](**header["settings"])


def _plain(value: Any) -> Any:
    """A setting as JSON has it."""
    return np.asarray(value).item() if value is not None else None


def _fingerprint(problem: TrainingProblem, program: str) -> str:
    digest = hashlib.sha256()
    for array in (problem.X, problem.Y, problem.weight_decay):
        digest.update(repr(np.shape(array)).encode() + np.ascontiguousarray(array).tobytes())
    digest.update(repr((problem.bias, problem.loss, problem.activation, program)).encode())
    return digest.hexdigest()
