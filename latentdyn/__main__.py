"""``python -m latentdyn`` is ``latentdyn``."""

import sys

from latentdyn.cli.main import main

sys.exit(main())
