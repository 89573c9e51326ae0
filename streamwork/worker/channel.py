"""Messages between a supervisor and its processes: one msgpack array per message, over a socket pair.

From the child: hello (namespace, queues, settings, schedules), ready, stats (taken, ended, in hand, idle), outage
(what keeps it from Redis, or None when that is over), recycling, failed (kind of failure, text), bye (spooled, ended).
To the child: go (consumer name, url), lanes (queue, lanes, fleet), returned (queue, lane), paused (queue, marks),
cancel (queue, ids), terminate (queue, ids), rename (name), fenced, drain, recycle (drain without a deadline), stop.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

import msgspec

_LENGTH = struct.Struct("<I")


class Channel:
    """One end of the pair, on a running loop; end of file means that the other side is gone.

    Args:
        end: This side's socket.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def open(self) -> None:
        """Attach to the running loop."""
        self._reader, self._writer = await asyncio.open_connection(sock=self._end)

    def send(self, kind: str, *values: Any) -> None:
        """Send one message; silently nothing when the other side is gone, which its reader notices."""
        if self._writer is None or self._writer.is_closing():
            return
        body = msgspec.msgpack.encode((kind, *values))
        self._writer.write(_LENGTH.pack(len(body)) + body)

    async def receive(self) -> list[Any] | None:
        """Return the next message, or None at the end."""
        assert self._reader is not None
        try:
            (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            message: list[Any] = msgspec.msgpack.decode(await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, OSError):
            return None
        return message

    def drop(self) -> None:
        """Close this end now, whatever was not sent."""
        if self._writer is None:
            self._end.close()
        else:
            # Closed behind the transport's back, its number would be reused while the loop still thinks it knows it.
            self._writer.transport.abort()

    async def close(self) -> None:
        """Flush and close this end."""
        if self._writer is not None:
            try:
                await self._writer.drain()
                self._writer.close()
                await self._writer.wait_closed()
            except OSError:
                pass  # the other side was faster
