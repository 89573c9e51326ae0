"""When a worker must end and Redis is away: its outcomes go to files, and the next start settles them (rule 24)."""

from __future__ import annotations

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
    except OSError:
        logger.exception(
            "outcomes could not be spooled: these deliveries will run again", extra={"outcomes": len(unsent)}
        )
        return None
    logger.error("Redis is away: outcomes are spooled", extra={"outcomes": len(unsent), "file": str(path)})
    return path


async def settle_spooled(settler: Settler, folder: Path, namespace: str) -> None:
    """Settle what earlier processes left; two at once do no harm, since each outcome carries its token.

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
        await settler.settle_spooled(namespace, outcomes)
        path.unlink(missing_ok=True)
        logger.info("spooled outcomes are settled", extra={"file": str(path), "outcomes": len(outcomes)})
