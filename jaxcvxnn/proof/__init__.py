"""Lower bounds on the optimum of training, valid in floating point."""

from .lifted import (
    Certificate as Certificate,
    certify_dual as certify_dual,
    certify_reduced as certify_reduced,
)
from .polynomial import (
    PolynomialCertificate as PolynomialCertificate,
    certify_convolutional as certify_convolutional,
    certify_convolutional_residual as certify_convolutional_residual,
    certify_polynomial as certify_polynomial,
    certify_polynomial_residual as certify_polynomial_residual,
)
from .residual import PricedCertificate as PricedCertificate
