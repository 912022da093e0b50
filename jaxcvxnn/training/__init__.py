"""From data to a network and both bounds: `train`, `path` and `certify` over the routes."""

from .certify import certify_by as certify_by, global_route as global_route
from .choose_route import choose_program as choose_program, choose_route as choose_route
from .columns import ColumnGeneration as ColumnGeneration, generate_columns as generate_columns
from .columns_route import ColumnsRoute as ColumnsRoute
from .lifted_route import LiftedRoute as LiftedRoute
from .method_choice import choose_solver as choose_solver
from .path import path_by as path_by
from .program_route import ProgramRoute as ProgramRoute
from .route import AbstractRoute as AbstractRoute, Outcome as Outcome
from .spectrahedron_route import SpectrahedronRoute as SpectrahedronRoute
from .train import train_by as train_by
