"""Lower bounds on the optimum of training, valid in floating point."""

from .lifted import (
    LiftedProof as LiftedProof,
    certify_dual as certify_dual,
    certify_reduced as certify_reduced,
)
from .network import certify_network as certify_network
