"""What the user can put right, told apart from errors of the code."""

import contextlib
from collections.abc import Iterator


class InputError(Exception):
    """Something the user can put right; shown without a traceback."""


@contextlib.contextmanager
def user_input() -> Iterator[None]:
    """Inside, an error is about what the user gave us and not about our code."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        raise InputError(f"{name}{error.strerror or error}") from error
    except (ValueError, TypeError, ImportError) as error:
        raise InputError(str(error)) from error
