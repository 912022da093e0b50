"""From data to a network and both bounds."""

from .columns import ColumnGeneration as ColumnGeneration, generate_columns as generate_columns
from .method_choice import choose_solver as choose_solver
