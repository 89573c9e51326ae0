"""One adapter per task system: its tasks, and how to send them. `producer.py` says what an adapter offers.

Tasks: `noop(i)` and `noop_sync(i)` record once; `sleep(i, seconds)` and `burn(i)` record their start and their end.
"""
