"""``python -m gristmill``: the command."""

import sys

from gristmill._command import main

sys.exit(main())
