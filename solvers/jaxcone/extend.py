"""For those who write programs: what a cone program is made of, and what methods ask of it."""

from . import iteration as iteration
from .cone_program import DenseForm as DenseForm
from .methods.davis_yin import DavisYinSolution as DavisYinSolution, davis_yin as davis_yin
from .methods.interior_point import available_memory as available_memory, step_cost as step_cost
from .methods.settings import (
    given_or as given_or,
    inside as inside,
    require as require,
    whole as whole,
)
from .program import (
    AbstractConeProgram as AbstractConeProgram,
    AbstractInteriorForm as AbstractInteriorForm,
    NoScaling as NoScaling,
    Scaling as Scaling,
)
from .projections import (
    project_nonnegative as project_nonnegative,
    project_psd as project_psd,
    project_second_order as project_second_order,
)
from .pytrees import (
    after as after,
    combine as combine,
    inner as inner,
    matmul as matmul,
    norm as norm,
    subtract as subtract,
)
from .scalings import (
    EntryScaling as EntryScaling,
    Layout as Layout,
    MatrixScaling as MatrixScaling,
)
from .solve import advance as advance, prepare as prepare
