"""`streamwork demo`: real work through two workers, one of which is killed half-way, checked against one process."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click
import msgspec
from rich.console import Console

from streamwork.cli.demo_facts import Facts, gather, journal
from streamwork.cli.demo_show import progress_of, report
from streamwork.cli.demo_tasks import FileFacts, app, scan
from streamwork.cli.demo_watch import Observed, scan_all
from streamwork.cli.demo_workers import Daemon, wait_until_registered
from streamwork.clock import SYSTEM_CLOCK
from streamwork.config import load, runtime_dir
from streamwork.ids import random_id
from streamwork.store.commands import plain
from streamwork.store.filelock import wait_lock
from streamwork.store.keys import QueueKeys, events, events_trimmed, queues
from streamwork.store.place import Place
from streamwork.store.server import join
from streamwork.store.sync_driver import SyncDriver

# The embedded server promises to be gone ten seconds after its last user.
_SERVER_STOP_S = 12.0
_FOREIGN = {"site-packages", "dist-packages"}


@click.command()
@click.option("--files", "most", type=click.IntRange(min=2), metavar="N", help="Scan N files, spread evenly.")
@click.option(
    "--source",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Scan the Python files below FOLDER instead of the standard library.",
)
@click.option(
    "--url", metavar="URL", help="Use this Redis instead of a private one; the demo removes its keys at the end."
)
@click.option("--keep", is_flag=True, help="Keep the folder with Redis's data and the workers' logs.")
@click.option("--json", "as_json", is_flag=True, help="Print the facts as one JSON object, and nothing else.")
def demo(most: int | None, source: Path | None, url: str | None, keep: bool, as_json: bool) -> None:
    """Scan Python's standard library with two workers, kill one half-way, and check every total.

    Exit status: 0 if all is equal and nothing was lost or committed twice, 1 if not.
    """
    console = Console(highlight=False, quiet=as_json)
    paths = python_files(source or Path(sysconfig.get_path("stdlib")), most)
    with sigterm_interrupts(), private_folder(console, keep=keep) as folder:
        facts = run(console, paths, folder, url, keep=keep)
        if as_json:
            click.echo(msgspec.json.encode(facts))
        report(console, facts)
        if facts.problems:
            raise click.exceptions.Exit(1)


def python_files(source: Path, most: int | None) -> list[Path]:
    """Return the Python files below a folder, installed packages apart; at most so many, spread evenly.

    Raises:
        ClickException: Fewer than two, too few to kill a worker half-way.
    """
    inside = (path for path in source.absolute().rglob("*.py") if path.is_file())
    paths = sorted(path for path in inside if not _FOREIGN & set(path.relative_to(source.absolute()).parts))
    if len(paths) < 2:
        raise click.ClickException(f"{source} has {len(paths)} Python files: two at least are needed")
    if most is None or most >= len(paths):
        return paths
    return [paths[number * len(paths) // most] for number in range(most)]


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Make SIGTERM what Ctrl-C is, so that both leave nothing behind."""

    def interrupt(*_: object) -> None:
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a shell's `&` leaves it so
            signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def private_folder(console: Console, *, keep: bool) -> Iterator[Path]:
    """Make the run's own folder; removed at the end, unless the run failed or it is to be kept."""
    folder = Path(tempfile.mkdtemp(prefix="streamwork-demo-"))
    try:
        yield folder
    except KeyboardInterrupt:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except BaseException:
        if any(log.stat().st_size for log in folder.glob("*.log")):
            click.echo(f"logs and data are kept in {folder}", err=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    if keep:
        console.print(f"kept: {folder}")
    else:
        shutil.rmtree(folder)


@contextmanager
def redis_of(folder: Path, url: str | None) -> Iterator[str]:
    """Give the URL of the run's Redis; a private one is gone at the end, its data stay in the folder."""
    if url is not None:
        yield url
        return
    place = folder / "redis"
    with join(place, binary=load().config.redis_server, runtime_dir=runtime_dir()) as server:
        yield server.url
    stopped = wait_lock(Place(server.folder).start_lock, shared=False, timeout_s=_SERVER_STOP_S)
    if stopped is None:
        raise click.ClickException(f"the embedded Redis in {place} still runs")
    stopped.close()


def run(console: Console, paths: Sequence[Path], folder: Path, url: str | None, *, keep: bool) -> Facts:
    """Run the demo in a folder and return what it found; no process of it is left."""
    queue = f"demo-{random_id(48)}"
    with ExitStack() as stack:
        where = stack.enter_context(redis_of(folder, url))
        app.configure({"url": where})
        stack.callback(app.close)
        driver, keys = app.connection.driver, app.connection.keys(queue)
        driver.run(plain("PING"))
        if url is not None and not keep:
            stack.callback(remove_keys, driver, keys)
        daemons = [Daemon(number, where, queue, folder / f"worker-{number}.log") for number in (1, 2)]
        for daemon in daemons:
            stack.callback(daemon.kill)
            daemon.start()
        wait_until_registered(daemons, driver, keys)
        console.print(
            f"{len(paths):,} files, two workers of two processes each, Redis at {driver.endpoint.where}", soft_wrap=True
        )
        seen = watch(console, queue, paths, daemons[0])
        status = daemons[1].stop()
        if status:
            seen.failures.append(f"worker 2 ended with status {status} instead of 0: {daemons[1].last_words()}")
        records = list(journal(driver, keys))
    began_at_ms = SYSTEM_CLOCK.steady_ms()
    direct = count_directly(paths)
    return gather(seen, records, direct, SYSTEM_CLOCK.steady_ms() - began_at_ms, daemons[0].consumer)


def watch(console: Console, queue: str, paths: Sequence[Path], victim: Daemon) -> Observed:
    """Scan the files through the queue with progress on the console."""

    async def session() -> Observed:
        try:
            with progress_of(console, len(paths)) as progress:
                return await scan_all(queue, paths, victim, progress)
        finally:
            await app.connection.aclose()

    return asyncio.run(session())


def count_directly(paths: Sequence[Path]) -> dict[Path, FileFacts]:
    """Scan the files one after the other, in this process and without any queue."""
    return {path: scan(path) for path in paths}


def remove_keys(driver: SyncDriver, keys: QueueKeys) -> None:
    """Remove what the run left in a Redis that is not its own."""
    cursor: bytes = b"0"
    while True:
        cursor, found = driver.run(plain("SCAN", cursor, "MATCH", keys.tag + ":*", "COUNT", 1000))
        if found:
            driver.run(plain("UNLINK", *found))
        if cursor == b"0":
            break
    driver.run(plain("SREM", queues(keys.namespace), keys.queue))
    driver.run(plain("DEL", events(keys.namespace), events_trimmed(keys.namespace)))
