"""`python -m jaxcvxnn` is the command `jaxcvxnn`."""

import sys

from .cli import main

sys.exit(main())
