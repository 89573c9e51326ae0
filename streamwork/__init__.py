"""streamwork: distributed tasks on Redis Streams."""

from __future__ import annotations

from streamwork.app import Streamwork
from streamwork.context import Context
from streamwork.errors import (
    ArgumentError,
    BodyTooLarge,
    ConfigError,
    DuplicateTaskName,
    EnqueueUnknown,
    QueueFull,
    Reject,
    ResultGone,
    ResultTimeout,
    RetryLater,
    RouteError,
    Skip,
    StoreError,
    StoreFull,
    StoreUnavailable,
    StreamworkError,
    TaskFailed,
    TaskNotFound,
    TooManyLanes,
    UseAsync,
)
from streamwork.handle import Call, Handle
from streamwork.model.policy import Retry
from streamwork.model.state import State
from streamwork.task import Task

__version__ = "0.1.0"

__all__ = [
    "ArgumentError",
    "BodyTooLarge",
    "Call",
    "ConfigError",
    "Context",
    "DuplicateTaskName",
    "EnqueueUnknown",
    "Handle",
    "QueueFull",
    "Reject",
    "ResultGone",
    "ResultTimeout",
    "Retry",
    "RetryLater",
    "RouteError",
    "Skip",
    "State",
    "StoreError",
    "StoreFull",
    "StoreUnavailable",
    "Streamwork",
    "StreamworkError",
    "Task",
    "TaskFailed",
    "TaskNotFound",
    "TooManyLanes",
    "UseAsync",
]
