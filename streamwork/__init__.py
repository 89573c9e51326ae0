"""streamwork: distributed tasks on Redis Streams."""

from __future__ import annotations

from streamwork.app import Streamwork
from streamwork.context import Context
from streamwork.errors import (
    AlreadyQueued,
    ArgumentError,
    BodyTooLarge,
    ConfigError,
    DeadLetterRefused,
    DuplicateTaskName,
    EnqueueUnknown,
    HistoryTrimmed,
    NotSent,
    QueueFull,
    QueueNotFound,
    Reject,
    ReplayRefused,
    ResultGone,
    ResultTimeout,
    RetryLater,
    RouteError,
    ScheduleNotFound,
    Skip,
    SoftTimeout,
    StoreError,
    StoreFull,
    StoreUnavailable,
    StreamworkError,
    TaskCancelled,
    TaskFailed,
    TaskNotFound,
    TooManyLanes,
    UseAsync,
    WhereError,
)
from streamwork.handle import Call, Handle
from streamwork.model.dead import DeadDone, DeadRecord
from streamwork.model.event import Event, EventGap
from streamwork.model.history import HistoryGap, HistoryRecord
from streamwork.model.limits import Debounce, Group, Limit, Rate, Unique
from streamwork.model.policy import Retry
from streamwork.model.replay import Compared, Comparison, Ran, ReplayCall, Replayed
from streamwork.model.state import State
from streamwork.model.tap import TapGap, TapMessage
from streamwork.task import Task

__version__ = "0.1.0"

__all__ = [
    "AlreadyQueued",
    "ArgumentError",
    "BodyTooLarge",
    "Call",
    "Compared",
    "Comparison",
    "ConfigError",
    "Context",
    "DeadDone",
    "DeadLetterRefused",
    "DeadRecord",
    "Debounce",
    "DuplicateTaskName",
    "EnqueueUnknown",
    "Event",
    "EventGap",
    "Group",
    "Handle",
    "HistoryGap",
    "HistoryRecord",
    "HistoryTrimmed",
    "Limit",
    "NotSent",
    "QueueFull",
    "QueueNotFound",
    "Ran",
    "Rate",
    "Reject",
    "ReplayCall",
    "ReplayRefused",
    "Replayed",
    "ResultGone",
    "ResultTimeout",
    "Retry",
    "RetryLater",
    "RouteError",
    "ScheduleNotFound",
    "Skip",
    "SoftTimeout",
    "State",
    "StoreError",
    "StoreFull",
    "StoreUnavailable",
    "Streamwork",
    "StreamworkError",
    "TapGap",
    "TapMessage",
    "Task",
    "TaskCancelled",
    "TaskFailed",
    "TaskNotFound",
    "TooManyLanes",
    "Unique",
    "UseAsync",
    "WhereError",
]
