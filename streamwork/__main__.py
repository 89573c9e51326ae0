"""`python -m streamwork` is the command line."""

from __future__ import annotations

from streamwork.cli.main import main

if __name__ == "__main__":
    main()
