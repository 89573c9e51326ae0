"""Stands in for `streamwork worker` where there is no command line: python -m tests.run_worker --app module:app."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys

from streamwork.config import load
from streamwork.worker.supervisor import Supervisor


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--app", required=True)
    parser.add_argument("--burst", action="store_true")
    parser.add_argument("--reload", action="store_true")
    options = parser.parse_args()
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(process)d %(name)s %(message)s")
    module, _, attribute = options.app.partition(":")
    config = load().config

    def find_app():
        return getattr(importlib.import_module(module), attribute)

    return Supervisor(find_app, config, burst=options.burst, reload=options.reload).run()


if __name__ == "__main__":
    sys.exit(main())
