"""Guards of liveness, reclaim, history, processes and loops: rules 11-19, 30-34, 38, 39."""

from __future__ import annotations

from tests.faults.guards_blame import BLAME
from tests.faults.guards_embedded import EMBEDDED
from tests.faults.guards_history import HISTORY
from tests.faults.guards_liveness import LIVENESS

LIVING = {**LIVENESS, **BLAME, **HISTORY, **EMBEDDED}
