"""taskiq on a Redis list."""

from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend

from benchlib.peers._taskiq import install
from benchlib.recorder import URL

broker = ListQueueBroker(URL, queue_name="bench").with_result_backend(RedisAsyncResultBackend(URL))
_adapter = install(broker)
open_session = _adapter.open_session
send = _adapter.send
send_bulk = _adapter.send_bulk
result = _adapter.result
