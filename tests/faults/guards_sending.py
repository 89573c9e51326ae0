"""Guards of sending, reading and settling: rules 1-10, 20-29, 37."""

from __future__ import annotations

from tests.faults.guard import Guard
from tests.faults.guards_beginning import BEGINNING
from tests.faults.guards_calling import CALLING
from tests.faults.guards_enqueue import ENQUEUE
from tests.faults.guards_flow import FLOW
from tests.faults.guards_limits import LIMITS
from tests.faults.guards_pausing import PAUSING
from tests.faults.guards_planning import PLANNING
from tests.faults.guards_reading import READING
from tests.faults.guards_settling import SETTLING
from tests.faults.guards_sweeping import SWEEPING
from tests.faults.guards_waking import WAKING

SENDING: dict[str, Guard] = {
    **ENQUEUE, **READING, **SETTLING, **PLANNING, **CALLING, **LIMITS, **SWEEPING, **PAUSING, **FLOW,
    **WAKING, **BEGINNING,
}  # fmt: skip
