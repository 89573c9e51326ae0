"""The embedded Redis as the settings want it: which folder, which binary."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from streamwork.config import Config, runtime_dir

if TYPE_CHECKING:
    from streamwork.store.server import EmbeddedServer


def join_configured(config: Config) -> EmbeddedServer:
    """Use the embedded Redis of the project, starting it if it does not run; see `store.server.join`.

    Blocks for a millisecond where it runs, some 200 ms where it does not. No thread is started, so a fork may follow.

    Raises:
        EmbeddedError: It cannot be started or reached.
    """
    from streamwork.store.server import join  # not needed by anyone who has a Redis

    return join(Path(config.folder).absolute(), binary=config.redis_server, runtime_dir=runtime_dir())
