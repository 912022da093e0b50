"""The solver's state on disk, so that a long solve can go on where it was, bit for bit."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import equinox as eqx
import numpy as np

from jaxcone import AbstractSolver, InteriorPoint, Solution, Splitting
from jaxcone.extend import advance

from ..conic.lifted import LiftedProgram
from ..problem import TrainingProblem

_VERSION = 2
_METHODS = {method.__name__: method for method in (Splitting, InteriorPoint)}


def save_solution(
    path: str | Path, problem: TrainingProblem, solver: AbstractSolver, solution: Solution
) -> None:
    """Write the solver's state and settings, and a fingerprint of the problem."""
    header = {
        "version": _VERSION,
        "problem": _fingerprint(problem),
        "method": type(solver).__name__,
        "settings": {
            field.name: _plain(getattr(solver, field.name)) for field in dataclasses.fields(solver)
        },
    }
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write((json.dumps(header) + "\n").encode())
        eqx.tree_serialise_leaves(file, solution)
    partial.replace(path)  # an interrupt leaves the old file or the new one, never half of one


def load_solution(
    path: str | Path, problem: TrainingProblem, program: LiftedProgram
) -> tuple[AbstractSolver, Solution]:
    """The settings and the solution written by `save_solution`.

    **Raises** a `ValueError` if the file is not a checkpoint or belongs to another problem.
    """
    with Path(path).open("rb") as file:
        try:
            header: dict[str, Any] = json.loads(file.readline())
            version = header.pop("version")
            fingerprint = header.pop("problem")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(f"{path} is not a checkpoint of jaxcvxnn.") from None
        if version != _VERSION:
            raise ValueError(f"{path} has checkpoint version {version}; expected {_VERSION}.")
        if fingerprint != _fingerprint(problem):
            raise ValueError(f"{path} is a checkpoint of another training problem.")
        solver = _METHODS[header["method"]](**header["settings"])
        like = eqx.filter_eval_shape(advance, program, solver, blocks=0)
        try:
            return solver, eqx.tree_deserialise_leaves(file, like)
        except Exception as error:  # equinox, NumPy and the file system each have their own
            raise ValueError(f"{path} is damaged, or of another precision: {error}") from None


def _plain(value: Any) -> Any:
    """A setting as JSON has it."""
    return np.asarray(value).item() if value is not None else None


def _fingerprint(problem: TrainingProblem) -> str:
    digest = hashlib.sha256()
    for array in (problem.X, problem.Y, problem.weight_decay):
        digest.update(repr(np.shape(array)).encode() + np.ascontiguousarray(array).tobytes())
    digest.update(repr(problem.bias).encode())
    return digest.hexdigest()
