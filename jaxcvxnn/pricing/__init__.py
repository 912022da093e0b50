"""The price of the best new neuron, with proven bounds."""

from .budget import Budget as Budget
from .cone_pca import ConePrices as ConePrices, cone_pca as cone_pca
from .polynomial import PolynomialPrice as PolynomialPrice, polynomial_price as polynomial_price
from .slopes import stacked_features as stacked_features
