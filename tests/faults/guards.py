"""The guards of the protocol as places in the source: what stands there, and what would stand there without it.

A test switches one off (`tests.faults.unguarded`) to see its scenario fail. Nothing in the product knows of this, so no
setting of a user can. `test_guards.py` fails when a guard's text has moved on and the table has not.
"""

from __future__ import annotations

from tests.faults.guards_living import LIVING
from tests.faults.guards_sending import SENDING

GUARDS = {**SENDING, **LIVING}

# Those that do work for every task message; `ops/bench --peers streamwork,streamwork:unguarded` shows what that costs.
HOT = (
    "gate", "types_first", "numbers_first", "entries_first", "settle_mark", "counted", "sender_numbers",
    "room_rechecked", "noted start", "young beat", "cancel_mark_heeded", "unsent_bound",
)  # fmt: skip
