"""The convex programs of training, and the methods of their own."""

from .cone_lasso import (
    ConeGroupLasso as ConeGroupLasso,
    ConeLassoData as ConeLassoData,
    ConeLassoSolution as ConeLassoSolution,
    cone_lasso_network as cone_lasso_network,
    cone_lasso_objective as cone_lasso_objective,
)
from .cone_lasso_optimum import (
    ConeLassoOptimum as ConeLassoOptimum,
    solve_cone_lasso as solve_cone_lasso,
)
from .cone_lasso_splitting import (
    ConeLassoSplit as ConeLassoSplit,
    ConeLassoSplitting as ConeLassoSplitting,
    split_cone_lasso as split_cone_lasso,
)
from .convolutional import (
    ConvolutionalData as ConvolutionalData,
    ConvolutionalSolution as ConvolutionalSolution,
    ConvolutionalSpectrahedron as ConvolutionalSpectrahedron,
    convolutional_network as convolutional_network,
)
from .copositive import (
    CopositiveRelaxation as CopositiveRelaxation,
    CopositiveSolution as CopositiveSolution,
    NuclearNormRelaxation as NuclearNormRelaxation,
    copositive_network as copositive_network,
)
from .planar import (
    ExactPlanar as ExactPlanar,
    PlanarSolution as PlanarSolution,
    planar_network as planar_network,
)
from .relaxation import (
    LiftedSolution as LiftedSolution,
    SDPRelaxation as SDPRelaxation,
    certify_solution as certify_solution,
    full_moments as full_moments,
)
from .spectrahedra import (
    NeuralSpectrahedron as NeuralSpectrahedron,
    SpectrahedraData as SpectrahedraData,
    SpectrahedraSolution as SpectrahedraSolution,
)
from .spectrahedron_points import effective_width as effective_width
from .spectrahedron_splitting import (
    SpectrahedronPath as SpectrahedronPath,
    SpectrahedronSplit as SpectrahedronSplit,
    solve_spectrahedron as solve_spectrahedron,
    spectrahedron_path as spectrahedron_path,
)
from .spectrahedron_steps import SpectrahedronSplitting as SpectrahedronSplitting
