"""A polite crawler: so many pages a second of each site, so many at once, and no site waits behind a large one.

In this folder:

    streamwork worker --app crawler         in one terminal
    python crawler.py                       in another

The sites are three names of a small web server in this script, which counts what it sees.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from urllib.parse import urlsplit

from streamwork import Limit, Rate, Streamwork

app = Streamwork("crawler")
SITES = {"large": 60, "small": 3, "other": 3}


def site_of(url: str) -> str:
    return urlsplit(url).path.split("/")[1]


@app.task(
    rate=Rate("20/s", burst=5, key=site_of),
    concurrency=Limit(4, key=site_of),
    group=site_of,  # the sites take turns
    timeout=10,
)
async def fetch(url: str) -> int:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(f"GET {parts.path} HTTP/1.0\r\nHost: {parts.hostname}\r\n\r\n".encode())
    _, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return len(body)


async def main() -> None:
    now: Counter[str] = Counter()
    most: Counter[str] = Counter()
    order: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode().split("/")[1]
        now[name] += 1
        most[name] = max(most[name], now[name])
        order.append(name)
        await asyncio.sleep(0.05)
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 1000)
        await writer.drain()
        writer.close()
        now[name] -= 1

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    urls = [f"http://{host}:{port}/{site}/{n}" for site, pages in SITES.items() for n in range(pages)]
    async with server, app:
        handles = await app.aenqueue_many(fetch.call(url) for url in urls)
        sizes = [await handle.aresult(timeout=60) for handle in handles]
    print(f"{len(sizes)} pages, {sum(sizes):,} bytes")
    print(f"most at once of one site: {max(most.values())}")
    print(f"the small ones were done while the large one had {order[: _last(order)].count('large')} of 60 pages")


def _last(order: list[str]) -> int:
    return max(place for place, site in enumerate(order) if site != "large")


if __name__ == "__main__":
    asyncio.run(main())
