"""What a one-shot command works with: settings, the app if there is one, its namespace and its Redis."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from streamwork.app import Streamwork
from streamwork.broker.steps import Steps, ask
from streamwork.cli.discovery import load_app, locate
from streamwork.config import Config, Loaded, load
from streamwork.connection import Connection
from streamwork.errors import AppNotFound
from streamwork.store.keys import QueueKeys, checked_name
from streamwork.store.sync_driver import SyncDriver
from streamwork.telemetry import logs

# A person or a script waits for a one-shot command: what only looks or changes answers within two seconds when Redis is
# away, and may be asked again. What was to be sent would be lost with that, so a send is tried as the settings say.
_CONNECT_S = 1.0


class Session:
    """One run of a command; use it as a context manager.

    Args:
        app: --app, or None.
        url: --url, or None.
        namespace: --namespace: nothing is imported then. None asks the app.
        flags: Further settings by dotted name.
        sends: Bear a Redis that is away as long as the settings say (``client.send_timeout_s``).
    """

    def __init__(
        self,
        app: str | None = None,
        url: str | None = None,
        namespace: str | None = None,
        flags: Mapping[str, Any] | None = None,
        *,
        sends: bool = False,
    ) -> None:
        self.flags: dict[str, Any] = {"app": app, "url": url, "namespace": namespace, **(flags or {})}
        self.loaded = load(flags=self.flags)
        if not sends:
            self._hurry()
        logs.set_up("debug" if self.loaded.config.log_level == "debug" else "warning", self.loaded.config.log_format)
        self._wants_app = namespace is None
        self._looked = False
        self._app: Streamwork | None = None
        self._connection: Connection | None = None
        self._stack = ExitStack()

    def _hurry(self) -> None:
        client = self.loaded.config.client
        self.flags["client.connect_timeout_s"] = min(client.connect_timeout_s, _CONNECT_S)
        self.flags["client.send_timeout_s"] = 0.0
        self.loaded = Loaded(load(flags=self.flags).config, self.loaded.origins, self.loaded.unknown)

    @property
    def config(self) -> Config:
        """The settings that count: the app's, where there is one."""
        app = self.app_if_any()
        return app.config if app is not None else self.loaded.config

    def app_if_any(self) -> Streamwork | None:
        """Return the app, imported at the first call; None where none is to be found.

        Raises:
            AppNotFound: One was named that is not there, or there are several.
            AppBroken: Its module raises.
        """
        if not self._looked and self._wants_app:
            self._looked = True
            here = Path.cwd()
            named = self.loaded.config.app
            try:
                targets = locate(named, here)
            except AppNotFound:
                if named is not None:
                    raise
                return None
            self._app = load_app(targets, here)
            self._stack.callback(self._app.close)
            self._app.configure({name: value for name, value in self.flags.items() if name != "app"})
        return self._app

    def give_up_app(self) -> None:
        """Go on without the app, whatever is wrong with it."""
        self._wants_app = False

    def unbound(self) -> Streamwork:
        """Return an app without tasks under the namespace, for what is sent by name."""
        app = Streamwork(self.namespace())
        app.configure(self.flags)
        self._stack.callback(app.close)
        return app

    def namespace(self) -> str:
        """Return the app's name; raises AppNotFound where nothing says it."""
        app = self.app_if_any()
        if app is not None:
            return app.name
        name = self.loaded.config.namespace
        if name is None:
            try:
                locate(None, Path.cwd())
            except AppNotFound as error:
                raise AppNotFound(f"{error}; or say its name with --namespace NAME") from error
            raise AppNotFound("no namespace: give --namespace NAME")
        return checked_name("namespace", name)

    @property
    def connection(self) -> Connection:
        """The link to Redis; nothing is connected before its first use."""
        if self._connection is None:
            app = self.app_if_any()
            # Without a namespace only the server itself is looked at, and any name does.
            self._connection = (
                app.connection if app else Connection(self.loaded.config.namespace or "none", self.config)
            )
            self._stack.callback(self._connection.close)
        return self._connection

    @property
    def driver(self) -> SyncDriver:
        """The driver for this thread."""
        return self.connection.driver

    def keys(self, queue: str) -> QueueKeys:
        """Return the keys of a queue."""
        return QueueKeys(self.namespace(), queue)

    def ask(self, steps: Steps[Any]) -> Any:
        """Run a question."""
        return ask(self.driver, steps)

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
