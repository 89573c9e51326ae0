"""Guards of sending, reading and settling: rules 1-10, 20-25, 27, 29, 37."""

from __future__ import annotations

from tests.faults.guard import Guard
from tests.faults.guards_calling import CALLING
from tests.faults.guards_enqueue import ENQUEUE
from tests.faults.guards_planning import PLANNING
from tests.faults.guards_reading import READING
from tests.faults.guards_settling import SETTLING

SENDING: dict[str, Guard] = {**ENQUEUE, **READING, **SETTLING, **PLANNING, **CALLING}
