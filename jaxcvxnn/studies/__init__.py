"""What the literature shows about these networks, as functions."""

from .frank_wolfe import FrankWolfe as FrankWolfe, frank_wolfe as frank_wolfe
from .settling import settle as settle
from .spike_free import is_spike_free as is_spike_free, spike_free_program as spike_free_program
from .stationarity import (
    Stationarity as Stationarity,
    pattern_prices as pattern_prices,
    stationarity as stationarity,
)
from .theory import critical_width as critical_width, expected_kernel as expected_kernel
from .two_sided_projection import project_two_sided as project_two_sided
from .whitened import (
    WhitenedSolution as WhitenedSolution,
    whitened_optimum as whitened_optimum,
    whitening as whitening,
)
