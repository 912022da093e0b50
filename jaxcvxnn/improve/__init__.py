"""Networks into better, narrower or rounded ones."""

from .decomposition import decompose as decompose, spectrahedron_network as spectrahedron_network
from .gradient_descent import train_sgd as train_sgd
from .output_layer import Refit as Refit, refit as refit
from .polish import balance as balance, merge as merge, polish as polish, prune as prune
from .rounding import (
    SelectionMatrices as SelectionMatrices,
    round_moments as round_moments,
    selection_matrices as selection_matrices,
)
from .semi_nmf import (
    SemiNonnegativeFactors as SemiNonnegativeFactors,
    semi_nonnegative_factorisation as semi_nonnegative_factorisation,
)
from .width import reduce_width as reduce_width
