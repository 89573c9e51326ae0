"""`python -m tests.faults`, which `ops/faults` calls."""

from __future__ import annotations

import sys

from tests.faults.cli import main

if __name__ == "__main__":  # not in the processes that play: they import this module under another name
    sys.exit(main())
