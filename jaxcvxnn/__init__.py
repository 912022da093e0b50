"""Two-layer networks by convex optimisation, with bounds on the global optimum of training."""

from importlib.metadata import version as _version

from . import (
    conic as conic,
    files as files,
    geometry as geometry,
    improve as improve,
    interior as interior,
    pricing as pricing,
    programs as programs,
    proof as proof,
    reduction as reduction,
    studies as studies,
    training as training,
)
from .activations import LeakyReLU as LeakyReLU, Polynomial as Polynomial
from .bound import Bound as Bound
from .convolution import (
    ConvolutionalPolynomialNetwork as ConvolutionalPolynomialNetwork,
    ConvolutionalProblem as ConvolutionalProblem,
    image_patches as image_patches,
)
from .files.storage import load_network as load_network, save_network as save_network
from .job import Job as Job, Progress as Progress
from .losses.base import AbstractLoss as AbstractLoss
from .losses.margin import Hinge as Hinge, Logistic as Logistic
from .losses.regression import Absolute as Absolute, Huber as Huber, Squared as Squared
from .losses.softmax import SoftmaxCrossEntropy as SoftmaxCrossEntropy
from .networks import (
    AbstractTwoLayer as AbstractTwoLayer,
    PolynomialNetwork as PolynomialNetwork,
    TwoLayerLeakyReLU as TwoLayerLeakyReLU,
    TwoLayerReLU as TwoLayerReLU,
)
from .pricing.price import Price as Price
from .pricing.pricer import best_neuron as best_neuron
from .problem import TrainingProblem as TrainingProblem
from .programs.solve import solve as solve
from .proof.network import NetworkCertificate as NetworkCertificate
from .proof.residual import certify_residual as certify_residual
from .training.batch import CertifiedSolution as CertifiedSolution, solve_batch as solve_batch
from .training.certify import certify as certify
from .training.path import (
    PathPoint as PathPoint,
    RegularizationPath as RegularizationPath,
    path as path,
)
from .training.result import TrainingResult as TrainingResult
from .training.train import train as train

__version__ = _version("jaxcvxnn")
