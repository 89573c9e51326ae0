"""taskiq on Redis Streams."""

from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from benchlib.peers._taskiq import install
from benchlib.recorder import MODE, URL

_TUNED = {"idle_timeout": 15000, "unacknowledged_lock_timeout": 5} if MODE == "tuned" else {}
broker = RedisStreamBroker(URL, queue_name="bench", **_TUNED).with_result_backend(RedisAsyncResultBackend(URL))
_adapter = install(broker)
open_session = _adapter.open_session
send = _adapter.send
send_bulk = _adapter.send_bulk
result = _adapter.result
