"""The convex programs of training, and the methods of their own."""

from .abstract import (
    AbstractFound as AbstractFound,
    AbstractMethod as AbstractMethod,
    AbstractProgram as AbstractProgram,
)
from .cone_lasso import (
    ConeGroupLasso as ConeGroupLasso,
    ConeLassoSolution as ConeLassoSolution,
    cone_lasso_network as cone_lasso_network,
    cone_lasso_objective as cone_lasso_objective,
)
from .cone_lasso_data import ConeLassoData as ConeLassoData
from .cone_lasso_optimum import (
    ConeLassoInterior as ConeLassoInterior,
    ConeLassoOptimum as ConeLassoOptimum,
)
from .cone_lasso_splitting import (
    ConeLassoSplit as ConeLassoSplit,
    ConeLassoSplitting as ConeLassoSplitting,
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
    SpectrahedronSplitting as SpectrahedronSplitting,
    spectrahedron_path as spectrahedron_path,
)
