"""The command `jaxcvxnn`: train a network on a CSV file and prove how good it is, without writing
Python.

Exit codes: 0 done, 1 the self test failed, 2 wrong input (one line on standard error says what),
130 interrupted. Results go to standard output, progress and errors to standard error. JAX is
imported only by the commands that use it.
"""

import os
import sys
from collections.abc import Sequence

from .certify import run_certify
from .check import run_check
from .demo import run_demo
from .errors import InputError
from .options import options
from .predict import run_predict
from .training import run_path, run_train

_COMMANDS = {
    "train": run_train,
    "path": run_path,
    "predict": run_predict,
    "certify": run_certify,
    "demo": run_demo,
    "check": run_check,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: that of the process) and return the exit code."""
    try:
        arguments = options().parse_args(argv)
        return _COMMANDS[arguments.command](arguments)
    except InputError as error:
        print(f"jaxcvxnn: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("jaxcvxnn: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output has gone (as with `| head`). Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
