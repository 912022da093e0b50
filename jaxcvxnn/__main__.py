"""`python -m jaxcvxnn` is the command `jaxcvxnn`."""

import sys

from .cli.main import main

sys.exit(main())
