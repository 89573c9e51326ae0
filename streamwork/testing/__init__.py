"""Testing kit for users: a pytest plugin, tasks that run in place, queues that are drained here, what to assert on.

`app.inline()` needs no Redis. The plugin's fixtures `streamwork_app`, `streamwork_redirect` (for an app of your own),
`streamwork_namespace` and `streamwork_redis_url` give a private Redis that starts when the first test asks for it.
Under pytest, what looks into queues or drains them refuses an app that is neither there nor inline; see `allow`.
"""

from __future__ import annotations

from streamwork.testing.asserts import Enqueued, aassert_enqueued, aenqueued, assert_enqueued, enqueued
from streamwork.testing.clock import ManualClock
from streamwork.testing.idle import Drained, arun_until_idle, run_until_idle
from streamwork.testing.private import allow
from streamwork.testing.server import PrivateServer

__all__ = [
    "Drained", "Enqueued", "ManualClock", "PrivateServer", "aassert_enqueued", "aenqueued", "allow",
    "arun_until_idle", "assert_enqueued", "enqueued", "run_until_idle",
]  # fmt: skip
