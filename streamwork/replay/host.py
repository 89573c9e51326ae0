"""What a replay needs of an app."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from streamwork.config import Config
from streamwork.dead import Burying
from streamwork.handle import Switch
from streamwork.model.resources import Lifespan
from streamwork.task import Task


class Host(Burying):
    """An app with its history, its tasks and where they send to.

    Attributes:
        config: Its settings.
        sending: What its tasks send through.
        lifespan_of: Makes its resources; None = it has none.
    """

    config: Config
    sending: Switch
    lifespan_of: Lifespan[Any] | None

    @abstractmethod
    def find(self, name: str) -> Task[..., Any]:
        """Return a declared task; raises TaskNotFound, naming the nearest."""
