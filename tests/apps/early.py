"""An app with a task that runs in a process, and one on a queue of its own that does not.

Where STREAMWORK_TEST_GATE names a file, its pool processes are not done with the import before that is there.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

from streamwork import Streamwork

app = Streamwork(os.environ.get("STREAMWORK_TEST_NAMESPACE", "test-apps-early"))

_gate = os.environ.get("STREAMWORK_TEST_GATE")
while _gate and multiprocessing.parent_process() is not None and not Path(_gate).exists():
    time.sleep(0.01)


@app.task(executor="process")
def where_in_process() -> int:
    return os.getpid()


@app.task(queue="plain")
async def where() -> int:
    return os.getpid()
