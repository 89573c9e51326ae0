"""streamwork: distributed tasks on Redis Streams."""

from __future__ import annotations

from streamwork.app import Streamwork
from streamwork.context import Context
from streamwork.errors import (
    ArgumentError,
    BodyTooLarge,
    ConfigError,
    EnqueueUnknown,
    Reject,
    ResultGone,
    ResultTimeout,
    RetryLater,
    Skip,
    StoreUnavailable,
    StreamworkError,
    TaskFailed,
    TaskNotFound,
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
    "EnqueueUnknown",
    "Handle",
    "Reject",
    "ResultGone",
    "ResultTimeout",
    "Retry",
    "RetryLater",
    "Skip",
    "State",
    "StoreUnavailable",
    "Streamwork",
    "StreamworkError",
    "Task",
    "TaskFailed",
    "TaskNotFound",
]
