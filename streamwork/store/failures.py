"""Turn what redis-py and the network raise into streamwork's errors."""

from __future__ import annotations

import re

import redis

from streamwork.errors import QueueFull, StoreError, StoreFull, StoreRejected, StoreUnavailable

# Not executed, and worth sending again (rule 23); with what a person can do about it.
_NOT_NOW = {
    "BUSY": "a script of another client runs too long there",
    "LOADING": "it reads its data from disk; wait until it is ready",
    "READONLY": "give the URL of the master",
    "MISCONF": "it cannot write to its disk; see its log",
    "NOREPLICAS": "it has fewer replicas than min-replicas-to-write asks for",
    "CLUSTERDOWN": "a part of the cluster has no master",
    "MASTERDOWN": "give the URL of the master",
    "TRYAGAIN": "the cluster moves these keys; try again",
    "UNBLOCKED": "the wait was ended; try again",
}
# 6.2 puts the code of an error inside a script far behind "Error running script (call to f_…)", after a dash.
_NOT_NOW_CODE = re.compile(rf"(?:^|\s-)({'|'.join(_NOT_NOW)})\b")

_BACKLOG = re.compile(r"ENQUEUE-BACKLOG (\S+) (\d+) (\d+)")


class NoGroup(StoreError):
    """The consumer group, or its stream, is gone: heal it and read again (rule 8)."""

    code = "no_group"


class NoScript(StoreError):
    """The server does not have the script; it was not executed."""

    code = "no_script"


class NotPermitted(StoreRejected):
    """The login, or this user's rights, are not enough now; nothing was executed."""


def full_text(error: BaseException) -> str:
    """Return what the server said, with the code word that redis-py cuts off for classes it knows."""
    text, code = str(error), getattr(error, "status_code", None)
    return text if code in {None, "ERR"} or text.startswith(str(code)) else f"{code} {text}"


def is_reply(error: BaseException) -> bool:
    """Whether the server answered with an error, so that the request surely had no effect; else no answer came."""
    return isinstance(error, (redis.ResponseError, redis.AuthenticationError, redis.exceptions.BusyLoadingError))


def translated(error: BaseException, where: str) -> StoreError:
    """Return streamwork's error for something that redis-py or a socket raised.

    Args:
        error: What was raised.
        where: ``host:port`` or the socket's path, for the message.
    """
    if isinstance(error.__cause__, redis.AuthenticationError):
        error = error.__cause__  # redis-py's asyncio connection to a unix socket wraps it
    if isinstance(error, redis.AuthenticationError):
        return NotPermitted(f"Redis at {where} refuses the login ({error}): check the user and password in the URL")
    if is_reply(error):
        return _from_reply(full_text(error), where)
    return StoreUnavailable(
        f"no Redis at {where} ({_reason(error)}): start it, or correct the URL", maybe_executed=False
    )


def _from_reply(text: str, where: str) -> StoreError:
    if "NOSCRIPT" in text[:40]:
        return NoScript(text)
    if "NOGROUP" in text or "requires the key to exist" in text or "no such key" in text:
        return NoGroup(text)
    if text.startswith(("WRONGPASS", "NOAUTH", "NOPERM")) or "invalid username-password" in text:
        return NotPermitted(f"Redis at {where} refuses: {text}: check the user, password and ACL of the URL")
    if text.startswith("OOM") or "OOM command not allowed" in text:
        return StoreFull(f"Redis at {where} is at maxmemory: raise it, or let the queues drain")
    beyond = _BACKLOG.search(text)
    if beyond is not None:
        return QueueFull(beyond[1], int(beyond[2]), int(beyond[3]))
    not_now = _NOT_NOW_CODE.search(text)
    if not_now is not None:
        return StoreUnavailable(
            f"Redis at {where} cannot serve now: {text.rstrip('.')}: {_NOT_NOW[not_now[1]]}", maybe_executed=False
        )
    return StoreRejected(f"Redis at {where} answered: {text}")


def unloaded(where: str) -> StoreUnavailable:
    """Return the error for a script that was gone again as soon as it was loaded; it was not executed."""
    return StoreUnavailable(f"Redis at {where} forgets its scripts: who runs SCRIPT FLUSH there?", maybe_executed=False)


def _reason(error: BaseException) -> str:
    return (str(error) or type(error).__name__).rstrip(".")
