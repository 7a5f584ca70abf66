"""`python -m towers.cli`, for environments in which the command `towers` is not on the PATH."""

import sys

from towers.cli import main

sys.exit(main())
