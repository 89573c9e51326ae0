"""Harness of `ops/bench`: task systems on Redis, side by side.

The orchestrator needs the standard library only. Each peer's tasks (`peers/`) and the producer run inside that
peer's own virtual environment, with `ops/` on their path, so `benchlib.recorder` means the same file everywhere.
"""
