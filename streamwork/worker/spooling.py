"""When a worker must end and Redis is away: its outcomes go to files, and the next start settles them (rule 24)."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

from streamwork import spool
from streamwork.errors import DecodeError
from streamwork.worker.settle import Settler

logger = logging.getLogger(__name__)


def spool_unsent(settler: Settler, folder: Path, namespace: str) -> Path | None:
    """Write what Redis has not answered for to a file; None where the disk refuses too, and then it will run again."""
    unsent = [spool.Spooled(run.lane.queue.name, run.consumer, run.server, item) for run, item in settler.take_unsent()]
    try:
        path = spool.write(folder, namespace, unsent)
    except OSError as error:
        facts = {"outcomes": len(unsent), "error": str(error)}
        logger.error("outcomes could not be spooled: these deliveries will run again", extra=facts)  # noqa: TRY400 - ours
        return None
    logger.error("Redis is away: outcomes are spooled", extra={"outcomes": len(unsent), "file": str(path)})
    return path


async def settle_spooled(settler: Settler, folder: Path, namespace: str) -> None:
    """Settle what earlier processes left; two at once do no harm, since each outcome carries its token.

    A file of which Redis refuses an outcome is set aside as ``.refused``, with all the others of it settled; the
    deliveries of the refused ones run again.

    Raises:
        StoreError: Redis is away; the files stay.
    """
    for path in list(spool.files(folder, namespace)):
        try:
            outcomes = spool.read(path)
        except FileNotFoundError:
            continue  # another process was faster
        except DecodeError as error:
            logger.error("a spool file cannot be read and is left", extra={"file": str(path), "error": str(error)})  # noqa: TRY400
            continue
        refused = await settler.settle_spooled(namespace, outcomes)
        with contextlib.suppress(FileNotFoundError):  # another process did the same
            if refused:
                aside = path.rename(path.with_suffix(".refused"))
                facts = {"file": str(aside), "outcomes": len(refused), "error": str(refused[0])}
                logger.error("Redis refuses spooled outcomes: they are set aside", extra=facts)
            else:
                path.unlink()
        done = len(outcomes) - len(refused)
        done = len(outcomes) - len(refused)
        if done:
            logger.info("spooled outcomes are settled", extra={"file": str(path), "outcomes": done})
