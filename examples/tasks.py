"""Tasks for `hello.py`: one async, one sync, one that needs a tag. A worker finds this file by its name.

In this folder:

    streamwork worker --tags backend        in one terminal
    python hello.py                         in another

No Redis is needed: both use the embedded one of this folder. Set STREAMWORK_URL to use your own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from streamwork import Streamwork

app = Streamwork("hello")


@dataclass
class Size:
    path: Path
    lines: int
    size: int


@app.task
async def greet(name: str, *, loudly: bool = False) -> str:
    return f"HELLO {name.upper()}!" if loudly else f"hello {name}"


@app.task
def measure(path: Path) -> Size:
    """Runs in a thread, since it is not async; the path and the dataclass keep their types on the way."""
    content = path.read_bytes()
    return Size(path, content.count(b"\n"), len(content))


@app.task(tags={"backend"}, priority=8, timeout=30)
async def restock(order_id: int) -> str:
    """Runs only on workers that offer `backend`, before what has a lower priority."""
    return f"order {order_id} restocked"
