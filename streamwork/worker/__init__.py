"""The daemon: a supervisor that keeps liveness, and processes that read, run and settle."""
