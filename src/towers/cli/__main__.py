"""`python -m towers.cli`, where the command itself is not on the path."""

import sys

from towers.cli import main

sys.exit(main())
