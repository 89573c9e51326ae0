"""Fan-out: fetch many pages at once from async code, and use each as soon as it is there.

In this folder:

    streamwork worker --app fan_out         in one terminal
    python fan_out.py                       in another

The pages come from a small web server in this script that takes 0.2 s for each, so 100 of them one after the other
would take 20 s. One worker process awaits all of them together.
"""

from __future__ import annotations

import asyncio
import time
from urllib.parse import urlsplit

import msgspec

from streamwork import Streamwork

app = Streamwork("fan-out")
PAGES = 100


class Page(msgspec.Struct):
    url: str
    status: int
    size: int


@app.task(timeout=10)
async def fetch(url: str) -> Page:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(f"GET {parts.path} HTTP/1.0\r\nHost: {parts.hostname}\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return Page(url, int(head.split()[1]), len(body))


async def serve_slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    await asyncio.sleep(0.2)
    writer.write(b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 1000)
    await writer.drain()
    writer.close()


async def main() -> None:
    server = await asyncio.start_server(serve_slowly, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    began = time.perf_counter()
    async with server, app:
        handles = await app.aenqueue_many(fetch.call(f"http://{host}:{port}/page/{n}") for n in range(PAGES))
        pages = [await page for page in asyncio.as_completed([handle.aresult(timeout=30) for handle in handles])]
    good = sum(page.status == 200 for page in pages)
    print(f"{good} of {PAGES} pages, {sum(page.size for page in pages):,} bytes")
    print(f"{time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    asyncio.run(main())
