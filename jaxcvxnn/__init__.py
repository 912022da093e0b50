"""Two-layer networks by convex optimisation, with bounds on the global optimum of training."""

from .activations import LeakyReLU as LeakyReLU, Polynomial as Polynomial
from .arrangements import sign_patterns as sign_patterns
from .batch import CertifiedSolution as CertifiedSolution, solve_batch as solve_batch
from .certificate import (
    Certificate as Certificate,
    certify_dual as certify_dual,
    certify_reduced as certify_reduced,
)
from .certify import NetworkCertificate as NetworkCertificate, certify as certify
from .choice import choose_solver as choose_solver
from .columns import (
    ColumnGeneration as ColumnGeneration,
    PricedCertificate as PricedCertificate,
    certify_residual as certify_residual,
    generate_columns as generate_columns,
)
from .group_lasso import (
    GroupLassoSolution as GroupLassoSolution,
    solve_group_lasso as solve_group_lasso,
)
from .losses import (
    Absolute as Absolute,
    AbstractLoss as AbstractLoss,
    Hinge as Hinge,
    Huber as Huber,
    Logistic as Logistic,
    SoftmaxCrossEntropy as SoftmaxCrossEntropy,
    Squared as Squared,
)
from .networks import (
    AbstractTwoLayer as AbstractTwoLayer,
    PolynomialNetwork as PolynomialNetwork,
    TwoLayerLeakyReLU as TwoLayerLeakyReLU,
    TwoLayerReLU as TwoLayerReLU,
)
from .path import (
    PathPoint as PathPoint,
    RegularizationPath as RegularizationPath,
    path as path,
)
from .polish import (
    balance as balance,
    merge as merge,
    polish as polish,
    prune as prune,
)
from .pricing.cone_pca import ConePrices as ConePrices, cone_pca as cone_pca
from .pricing.price import Price as Price
from .pricing.pricer import best_neuron as best_neuron
from .problem import TrainingProblem as TrainingProblem
from .programs.lifted import LiftedData as LiftedData, LiftedProgram as LiftedProgram
from .programs.planar import (
    ExactPlanar as ExactPlanar,
    PlanarData as PlanarData,
    PlanarProgram as PlanarProgram,
    PlanarSolution as PlanarSolution,
    planar_network as planar_network,
)
from .reduction import (
    Reduction as Reduction,
    lifted_data as lifted_data,
    reduce as reduce,
)
from .relaxation import (
    LiftedSolution as LiftedSolution,
    SDPRelaxation as SDPRelaxation,
    certify_solution as certify_solution,
    full_moments as full_moments,
    solve as solve,
)
from .rounding import (
    SelectionMatrices as SelectionMatrices,
    round_moments as round_moments,
    selection_matrices as selection_matrices,
)
from .sgd import train_sgd as train_sgd
from .storage import load_network as load_network, save_network as save_network
from .theory import critical_width as critical_width, expected_kernel as expected_kernel
from .train import (
    Progress as Progress,
    TrainingResult as TrainingResult,
    train as train,
)
