"""The cone programs of training and their operators, in pure JAX; they know no `TrainingProblem`."""

from .copositive import CopositiveData as CopositiveData, CopositiveProgram as CopositiveProgram
from .lifted import LiftedData as LiftedData, LiftedProgram as LiftedProgram
from .planar import PlanarData as PlanarData, PlanarProgram as PlanarProgram
from .spectrahedra import SpectrahedraProgram as SpectrahedraProgram
from .spectrahedron import (
    neural_spectrahedron_distance as neural_spectrahedron_distance,
    project_neural_spectrahedron as project_neural_spectrahedron,
    sphere_maximum as sphere_maximum,
    support_function as support_function,
)
