"""Two-layer networks by convex optimisation, with bounds on the global optimum of training."""

from .activations import LeakyReLU as LeakyReLU, Polynomial as Polynomial
from .arrangements import (
    LowRankGuarantee as LowRankGuarantee,
    convolutional_patterns as convolutional_patterns,
    count_patterns as count_patterns,
    low_rank_guarantee as low_rank_guarantee,
    low_rank_patterns as low_rank_patterns,
    network_patterns as network_patterns,
    sample_patterns as sample_patterns,
    sample_size as sample_size,
    sign_patterns as sign_patterns,
    solid_angles as solid_angles,
    stack_patches as stack_patches,
)
from .batch import CertifiedSolution as CertifiedSolution, solve_batch as solve_batch
from .certificate import (
    Certificate as Certificate,
    certify_dual as certify_dual,
    certify_reduced as certify_reduced,
)
from .certify import certify as certify
from .choice import choose_solver as choose_solver
from .closed_form import (
    WhitenedSolution as WhitenedSolution,
    whitened_optimum as whitened_optimum,
    whitening as whitening,
)
from .columns import (
    ColumnGeneration as ColumnGeneration,
    PricedCertificate as PricedCertificate,
    certify_residual as certify_residual,
    generate_columns as generate_columns,
)
from .cone_lasso_optimum import (
    ConeLassoOptimum as ConeLassoOptimum,
    solve_cone_lasso as solve_cone_lasso,
)
from .convolution import (
    ConvolutionalPolynomialNetwork as ConvolutionalPolynomialNetwork,
    ConvolutionalProblem as ConvolutionalProblem,
    image_patches as image_patches,
)
from .decomposition import decompose as decompose, spectrahedron_network as spectrahedron_network
from .frank_wolfe import FrankWolfe as FrankWolfe, frank_wolfe as frank_wolfe
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
from .network_certificate import NetworkCertificate as NetworkCertificate
from .networks import (
    AbstractTwoLayer as AbstractTwoLayer,
    PolynomialNetwork as PolynomialNetwork,
    TwoLayerLeakyReLU as TwoLayerLeakyReLU,
    TwoLayerReLU as TwoLayerReLU,
)
from .neural_spectrahedron import (
    neural_spectrahedron_distance as neural_spectrahedron_distance,
    project_neural_spectrahedron as project_neural_spectrahedron,
    sphere_maximum as sphere_maximum,
    support_function as support_function,
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
from .polynomial_certificate import (
    PolynomialCertificate as PolynomialCertificate,
    certify_convolutional as certify_convolutional,
    certify_convolutional_residual as certify_convolutional_residual,
    certify_polynomial as certify_polynomial,
    certify_polynomial_residual as certify_polynomial_residual,
)
from .pricing.cone_pca import ConePrices as ConePrices, cone_pca as cone_pca
from .pricing.price import Price as Price
from .pricing.pricer import best_neuron as best_neuron
from .pricing.sphere import PolynomialPrice as PolynomialPrice, polynomial_price as polynomial_price
from .problem import TrainingProblem as TrainingProblem
from .programs.cone_lasso import (
    ConeGroupLasso as ConeGroupLasso,
    ConeLassoData as ConeLassoData,
    ConeLassoSolution as ConeLassoSolution,
    cone_lasso_network as cone_lasso_network,
    cone_lasso_objective as cone_lasso_objective,
)
from .programs.cone_lasso_splitting import (
    ConeLassoSplit as ConeLassoSplit,
    ConeLassoSplitting as ConeLassoSplitting,
    split_cone_lasso as split_cone_lasso,
)
from .programs.convolutional import (
    ConvolutionalData as ConvolutionalData,
    ConvolutionalSolution as ConvolutionalSolution,
    ConvolutionalSpectrahedron as ConvolutionalSpectrahedron,
    convolutional_network as convolutional_network,
)
from .programs.copositive import (
    CopositiveData as CopositiveData,
    CopositiveProgram as CopositiveProgram,
    CopositiveRelaxation as CopositiveRelaxation,
    CopositiveSolution as CopositiveSolution,
    NuclearNormRelaxation as NuclearNormRelaxation,
)
from .programs.lifted import LiftedData as LiftedData, LiftedProgram as LiftedProgram
from .programs.planar import (
    ExactPlanar as ExactPlanar,
    PlanarData as PlanarData,
    PlanarProgram as PlanarProgram,
    PlanarSolution as PlanarSolution,
    planar_network as planar_network,
)
from .programs.spectrahedra import (
    NeuralSpectrahedron as NeuralSpectrahedron,
    SpectrahedraData as SpectrahedraData,
    SpectrahedraProgram as SpectrahedraProgram,
    SpectrahedraSolution as SpectrahedraSolution,
)
from .programs.spectrahedron_points import effective_width as effective_width
from .programs.spectrahedron_splitting import (
    SpectrahedronPath as SpectrahedronPath,
    SpectrahedronSplit as SpectrahedronSplit,
    SpectrahedronSplitting as SpectrahedronSplitting,
    solve_spectrahedron as solve_spectrahedron,
    spectrahedron_path as spectrahedron_path,
)
from .reduction import (
    Reduction as Reduction,
    lifted_data as lifted_data,
    reduce as reduce,
)
from .refit import Refit as Refit, refit as refit
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
from .semi_nmf import (
    SemiNonnegativeFactors as SemiNonnegativeFactors,
    copositive_network as copositive_network,
    semi_nonnegative_factorisation as semi_nonnegative_factorisation,
)
from .settling import settle as settle
from .sgd import train_sgd as train_sgd
from .slopes import stacked_features as stacked_features
from .spike_free import is_spike_free as is_spike_free, spike_free_program as spike_free_program
from .stationarity import (
    Stationarity as Stationarity,
    pattern_prices as pattern_prices,
    stationarity as stationarity,
)
from .storage import load_network as load_network, save_network as save_network
from .theory import critical_width as critical_width, expected_kernel as expected_kernel
from .train import (
    Progress as Progress,
    TrainingResult as TrainingResult,
    train as train,
)
from .two_sided_projection import project_two_sided as project_two_sided
from .width import reduce_width as reduce_width
