"""Turn what redis-py and the network raise into streamwork's errors."""

from __future__ import annotations

import redis

from streamwork.errors import StoreError, StoreFull, StoreRejected, StoreUnavailable

# Not executed, and worth sending again (rule 23).
_NOT_NOW = ("BUSY", "LOADING", "READONLY", "MISCONF", "NOREPLICAS", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN", "UNBLOCKED")


class NoGroup(StoreError):
    """The consumer group, or its stream, is gone: heal it and read again (rule 8)."""

    code = "no_group"


class NoScript(StoreError):
    """The server does not have the script; it was not executed."""

    code = "no_script"


class Unavailable(StoreUnavailable):
    """Redis could not serve.

    Attributes:
        maybe_executed: False when the request surely had no effect; True when it was sent and the answer is missing.
    """

    def __init__(self, message: str, *, maybe_executed: bool) -> None:
        super().__init__(message)
        self.maybe_executed = maybe_executed


def full_text(error: redis.ResponseError) -> str:
    """Return what the server said, with the code word that redis-py cuts off for classes it knows."""
    codes = {
        redis.exceptions.NoScriptError: "NOSCRIPT",
        redis.exceptions.BusyLoadingError: "LOADING",
        redis.exceptions.ReadOnlyError: "READONLY",
        redis.exceptions.OutOfMemoryError: "OOM",
        redis.exceptions.NoPermissionError: "NOPERM",
    }
    text = str(error)
    code = codes.get(type(error))
    return text if code is None or text.startswith(code) else f"{code} {text}"


def translated(error: BaseException, where: str) -> StoreError:
    """Return streamwork's error for something that redis-py or a socket raised.

    Args:
        error: What was raised.
        where: ``host:port`` or the socket's path, for the message.
    """
    if isinstance(error, redis.AuthenticationError):
        return StoreRejected(f"Redis at {where} refuses the login ({error}): check the user and password in the URL")
    if isinstance(error, redis.ResponseError) or isinstance(error, redis.exceptions.BusyLoadingError):
        return _from_reply(full_text(error), where)
    return Unavailable(f"no Redis at {where} ({_reason(error)})", maybe_executed=False)


def _from_reply(text: str, where: str) -> StoreError:
    if "NOSCRIPT" in text[:40]:
        return NoScript(text)
    if "NOGROUP" in text or "requires the key to exist" in text:
        return NoGroup(text)
    if text.startswith(("WRONGPASS", "NOAUTH", "NOPERM")) or "invalid username-password" in text:
        return StoreRejected(f"Redis at {where} refuses: {text}: check the user, password and ACL of the URL")
    if text.startswith("OOM") or "OOM command not allowed" in text:
        return StoreFull(f"Redis at {where} is at maxmemory: raise it, or let the queues drain")
    if any(code in text[:60] for code in _NOT_NOW):
        return Unavailable(f"Redis at {where} cannot serve now: {text}", maybe_executed=False)
    return StoreRejected(f"Redis at {where} answered: {text}")


def _reason(error: BaseException) -> str:
    return (str(error) or type(error).__name__).rstrip(".")
