"""When a task message may run: not before an instant, not behind another one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from streamwork.errors import ConfigError
from streamwork.model.span import Seconds, milliseconds

# The year 9999, the last that `datetime` knows.
_MOST_AT_MS = 253_402_300_799_000
_EPOCH, _MILLISECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(milliseconds=1)


class Timing(NamedTuple):
    """What a caller said of time; spans count from the moment of sending.

    Attributes:
        delay_ms: Not before so long; 0 = now.
        run_at_ms: Not before this instant; None = `delay_ms` counts.
        expires_ms: Not behind so long; None = for ever.
        expires_at_ms: Not behind this instant; None = `expires_ms` counts.
    """

    delay_ms: int = 0
    run_at_ms: int | None = None
    expires_ms: int | None = None
    expires_at_ms: int | None = None

    @property
    def when(self) -> str:
        """When it is due as the schedule script reads it: ``+ms`` from now on, or ms since 1970; empty = now.

        An instant is never compared here: only the server's clock says what is past.
        """
        if self.run_at_ms is not None:
            return str(self.run_at_ms)
        return f"+{self.delay_ms}" if self.delay_ms else ""

    def expiry_ms(self, now_ms: int) -> int | None:
        """Return behind which instant it does not begin; None = it does not expire.

        Raises:
            ConfigError: It would expire before it is due.
        """
        if self.expires_at_ms is None and self.expires_ms is None:
            return None
        expiry_ms = now_ms + (self.expires_ms or 0) if self.expires_at_ms is None else self.expires_at_ms
        due_ms = now_ms + self.delay_ms if self.run_at_ms is None else self.run_at_ms
        # Without either it is due now, and what is late already becomes `expired` in the history, as it should.
        if self.when and due_ms > expiry_ms:
            what = "delay" if self.run_at_ms is None else "run_at"
            raise ConfigError(f"{what} is behind expires: it would expire before it is due, and is not sent")
        return expiry_ms

    def changed(self, options: dict[str, object]) -> Timing:
        """Return this with the options `delay`, `run_at` and `expires` that are among these.

        Raises:
            ConfigError: One of them is no span or instant, or both `delay` and `run_at` are given.
        """
        made = self
        if options.get("delay") is not None and options.get("run_at") is not None:
            raise ConfigError("delay and run_at are two words for one thing: give one of them")
        if "delay" in options:
            delay = options["delay"]
            made = made._replace(delay_ms=0 if delay is None else _span_ms(delay, "delay"), run_at_ms=None)
        if options.get("run_at") is not None:
            made = made._replace(delay_ms=0, run_at_ms=instant_ms(options["run_at"], "run_at"))
        if "expires" in options:
            expires = options["expires"]
            if isinstance(expires, datetime):
                made = made._replace(expires_ms=None, expires_at_ms=instant_ms(expires, "expires"))
            else:
                made = made._replace(expires_ms=None if expires is None else _life_ms(expires), expires_at_ms=None)
        return made


NOW = Timing()


def instant_ms(value: object, what: str) -> int:
    """Return an instant as ms since 1970, the next whole one: nothing is to happen early.

    Raises:
        ConfigError: It is no datetime with a time zone, or before 1970.
    """
    if not isinstance(value, datetime):
        raise ConfigError(f"{what}={value!r}: give a datetime with a time zone")
    if value.utcoffset() is None:
        raise ConfigError(f"{what}={value!r}: say which time zone it is of, such as datetime.now(UTC)")
    at_ms = -((_EPOCH - value) // _MILLISECOND)
    if not 0 <= at_ms <= _MOST_AT_MS:
        raise ConfigError(f"{what}={value!r}: an instant between 1970 and 9999")
    return at_ms


def _span_ms(value: object, what: str) -> int:
    if not isinstance(value, (int, float, timedelta)):
        raise ConfigError(f"{what}={value!r}: give seconds as a number, or a timedelta")
    return milliseconds(value, what)


def _life_ms(value: Seconds | object) -> int:
    life_ms = _span_ms(value, "expires")
    if not life_ms:
        raise ConfigError("expires=0: it would never run; use None for no limit")
    return life_ms
