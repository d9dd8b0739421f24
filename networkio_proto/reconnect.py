"""When to dial again: targets, back-off, and what each way of failing means for the next try.

Theory of operation
-------------------
A :class:`Target` is an address that the application wants a connection to.  It waits, dials, shakes hands, is
satisfied (its session is live, over whichever connection), or has stopped.  How long it waits is one pure function of
why the last attempt ended and how many attempts ended without moving a position: full jitter over an exponentially
growing interval, so that five thousand clients of a restarted server do not come back at the same instant.  A dial
that gets no answer for ``Config.dial_timeout`` is given up, and counts as one that failed.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

from .config import Config
from .errors import CloseCode, ConnectionFailure
from .timers import Timed

if TYPE_CHECKING:
    from .endpoint import Endpoint
    from .events import Dial
    from .session import Session

__all__ = ["RetryClass", "Target", "TargetState", "retry_class", "retry_delay"]


class RetryClass(Enum):
    """How a dialer takes an end of a connection (specification, *Close codes*)."""

    #: full-jitter back-off
    BACKOFF = "backoff"
    #: only a human can mend it: back off up to five minutes
    SLOW = "slow"
    #: the peer wants to be left alone for a while
    LATER = "later"
    #: at once
    AGAIN = "again"
    #: never
    STOP = "stop"


_CLASSES = {
    CloseCode.NORMAL: RetryClass.LATER,
    CloseCode.RESTARTING: RetryClass.BACKOFF,
    CloseCode.OVERLOAD: RetryClass.BACKOFF,
    CloseCode.COLLISION: RetryClass.BACKOFF,
    CloseCode.SUPERSEDED: RetryClass.BACKOFF,
    CloseCode.DUPLICATE_IDENTITY: RetryClass.SLOW,
    CloseCode.AUTH_FAILED: RetryClass.SLOW,
    CloseCode.VERSION: RetryClass.SLOW,
    CloseCode.PROTOCOL: RetryClass.BACKOFF,
    CloseCode.FLOW: RetryClass.BACKOFF,
    CloseCode.TOO_LARGE: RetryClass.BACKOFF,
    CloseCode.TIMEOUT: RetryClass.BACKOFF,
    CloseCode.ABORT: RetryClass.STOP,
    CloseCode.ABUSE: RetryClass.BACKOFF,
    CloseCode.SELF: RetryClass.STOP,
    CloseCode.RETRY: RetryClass.AGAIN,
    CloseCode.WRONG_PEER: RetryClass.STOP,
    CloseCode.CODEC: RetryClass.STOP,
}


def retry_class(error: ConnectionFailure) -> RetryClass:
    """What this end of a connection means for the dialer."""
    if error.code is CloseCode.NORMAL and not (error.remote and error.resumable):
        kind = RetryClass.STOP  # we closed it ourselves, or the session is over
    else:
        kind = _CLASSES[error.code]
    return RetryClass.SLOW if kind is RetryClass.STOP and error.unproven else kind  # P-CLOSE-10


def retry_delay(error: ConnectionFailure, attempts: int, draw: float, config: Config) -> float | None:
    """Seconds to wait before the next dial, None for never.

    ``attempts`` counts the ends since positions last moved, this one included (0: they moved on the connection that
    just ended); ``draw`` is uniform in [0, 1).
    """
    kind = retry_class(error)
    if kind is RetryClass.STOP:
        return None
    if kind is RetryClass.LATER:
        return max(error.retry_after, config.backoff_max) * (1 + draw / 4)
    if kind is RetryClass.AGAIN and attempts <= 3:
        return max(draw * config.retry_quick, error.retry_after)
    ceiling = config.backoff_slow_max if kind is RetryClass.SLOW else config.backoff_max
    if attempts == 0:
        delay = draw * config.retry_quick
    else:
        delay = draw * min(ceiling, config.backoff_base * 2.0 ** min(attempts, 40))
        if kind is RetryClass.SLOW:
            delay = max(delay, min(ceiling, config.backoff_base * 2.0 ** min(attempts, 40)) / 2)
    return max(delay, error.retry_after)


class TargetState(Enum):
    """What a target is doing."""

    WAITING = "waiting"
    DIALLING = "dialling"
    HANDSHAKING = "handshaking"
    SATISFIED = "satisfied"
    STOPPED = "stopped"


class Target(Timed):
    """An address to keep a connection to."""

    __slots__ = (
        "_endpoint",
        "attempts",
        "dial",
        "dial_until",
        "error",
        "key",
        "reported",
        "retries",
        "retry_at",
        "session",
        "state",
        "to",
        "told",
    )

    def __init__(self, endpoint: Endpoint, key: Any, to: str | None) -> None:
        super().__init__()
        self._endpoint = endpoint
        #: the driver's name for the address
        self.key = key
        #: the peer that must answer there; None until the first handshake if anyone will do
        self.to = to
        self.session: Session | None = None
        self.state = TargetState.WAITING
        #: the attempt that is under way, while DIALLING; what is reported of any other one comes too late
        self.dial: Dial | None = None
        #: when that has taken too long
        self.dial_until = 0.0
        #: ends of attempts since positions last moved
        self.attempts = 0
        #: attempts that ended with RETRY, in a row
        self.retries = 0
        #: why the last attempt ended
        self.error: ConnectionFailure | None = None
        #: the class of the last error that was made a notice, so that a slow one is told once
        self.reported: type[ConnectionFailure] | None = None
        #: the ways of failing that were logged since a connection stood
        self.told: set[tuple[type, ...]] = set()
        #: when the next dial is due, while WAITING
        self.retry_at: float | None = None

    def on_timer(self, now: float) -> float | None:
        if self.dial is not None:
            if now < self.dial_until:
                return self.dial_until
            self._endpoint.dial_failed(self.dial, now, TimeoutError("no answer in time"))
        elif self.state is TargetState.WAITING and self.retry_at is not None:
            if now < self.retry_at:
                return self.retry_at
            self._endpoint.dial(self, now)
        return None
