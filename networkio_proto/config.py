"""Every number that shapes behaviour, with its default and the reason for it.

Theory of operation
-------------------
A :class:`Config` is immutable and shared by everything one :class:`~networkio_proto.endpoint.Endpoint` owns.  Times are
seconds on the caller's monotonic clock, sizes are bytes, and ``cost`` is the one unit of every bound:
``64 + headers + payload`` of a message, so that a million empty messages are not free.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import Literal

from .errors import ConfigurationError, printable

__all__ = ["COST_PER_MESSAGE", "Config", "Limits", "check_peer_id"]

#: What a message costs beside its bytes: about what it occupies in memory when it is empty (specification, *Credit*).
COST_PER_MESSAGE = 64

#: seconds; no longer time can be told to a peer (2^48 ms; specification, *HELLO*)
_LONGEST = 2**48 / 1000

_PEER_ID = re.compile(r"[A-Za-z0-9._:@-]{1,64}\Z")


def check_peer_id(peer_id: str) -> str:
    """Return ``peer_id`` if it is one; raises :class:`ConfigurationError` otherwise (specification, *Model*)."""
    if not isinstance(peer_id, str) or not _PEER_ID.match(peer_id):
        raise ConfigurationError(
            f"{printable(repr(peer_id))} is not a peer id: 1 to 64 characters of A-Z a-z 0-9 . _ : @ -"
        )
    return peer_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What this side announces in the handshake; the peer must stay within it."""

    #: bound of a frame's length field; small frames keep control frames from waiting behind big messages
    frame: int = 64 * 1024
    #: bound of headers + payload of one message
    message: int = 16 * 1024 * 1024

    def __post_init__(self) -> None:
        if not 8 * 1024 <= self.frame < 2**32:
            raise ConfigurationError(f"limits.frame is {self.frame}; it must be at least 8192 and below 2**32")
        if not 0 < self.message <= 2**31:
            raise ConfigurationError(f"limits.message is {self.message}; it must be from 1 to 2**31")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The settings of one node.  Every field has a safe default; ``Config(ack_delay=0.01)`` changes one of them."""

    limits: Limits = field(default_factory=Limits)

    # -- receiving ---------------------------------------------------------------------------------------------
    #: credit that a peer gets at first: covers 20 Gbit/s x 100 us or 20 Mbit/s x 100 ms
    window: int = 256 * 1024
    #: ceiling of a window that grows because it is used up
    window_max: int = 4 * 1024 * 1024
    #: the part of a window that each peer gets even when the node's budget is exhausted
    window_guaranteed: int = 64 * 1024
    #: ceiling of all windows of the node together, the guaranteed parts not counted
    inbox_budget: int = 256 * 1024 * 1024

    # -- sending -----------------------------------------------------------------------------------------------
    #: cost that one outbox holds before ``send`` waits
    outbox_limit: int = 8 * 1024 * 1024
    #: the same over all outboxes of the node
    outbox_node_limit: int = 1024 * 1024 * 1024
    #: with a journal: cost ahead of what was transmitted that each outbox keeps in memory; what is behind is on disk
    outbox_resident: int = 8 * 1024 * 1024
    #: at the bound: let ``send`` wait (``OutboxFull`` without waiting), or drop the oldest message that may be dropped
    overflow: Literal["wait", "drop_oldest"] = "wait"
    #: a message that the dead process of a restarted peer may have seen: send it again (flagged), or give it up as LOST
    on_peer_restart: Literal["redeliver", "report"] = "redeliver"

    # -- acknowledging -----------------------------------------------------------------------------------------
    #: an ACK waits at most so long for company
    ack_delay: float = 0.025
    #: or until so many messages ...
    ack_messages: int = 64
    #: ... or so much cost came in
    ack_cost: int = 64 * 1024

    # -- liveness ----------------------------------------------------------------------------------------------
    #: PING after so much silence
    ping_after: float = 20.0
    #: give the connection up after so much silence; announced to the peer
    dead_after: float = 45.0
    #: how long an incumbent may take to answer when somebody else claims its session
    probe_timeout: float = 2.0
    #: bytes are waiting and the transport took none for so long: the connection is dead
    write_stall: float = 30.0
    #: timers that fire later than this reveal that this process itself was paused; peers are probed, not killed
    pause_threshold: float = 5.0

    # -- connecting --------------------------------------------------------------------------------------------
    #: one absolute deadline from the first byte stream to the live session; a slow drip does not extend it
    handshake_timeout: float = 5.0
    #: so long a driver has for making one byte stream
    dial_timeout: float = 10.0
    #: handshakes under way that this node answers at a time, in all and per source address
    max_pending: int = 1024
    max_pending_per_source: int = 256
    #: full-jitter back-off: uniform(0, min(backoff_max, backoff_base * 2**n))
    backoff_base: float = 0.25
    backoff_max: float = 30.0
    #: the ceiling after refusals that only a human can mend (wrong key, duplicate id, version)
    backoff_slow_max: float = 300.0
    #: the first retry after a connection that worked comes within this
    retry_quick: float = 0.05
    #: where both sides dial, the lesser peer id lets the other go first
    dial_courtesy: float = 1.0

    # -- ending ------------------------------------------------------------------------------------------------
    #: a session without a connection ends after this; ``None`` = never.  ``"auto"``: never where this side dials,
    #: 24 hours where it only accepts
    session_expiry: float | Literal["auto"] | None = "auto"
    #: final positions of ended outboxes are remembered so long
    ended_retention: float = 7 * 24 * 3600.0
    #: an idle session without a connection gives its buffers back after this
    shrink_after: float = 15 * 60.0
    #: after CLOSE, so long it may take to go out, and is read and discarded, lest a reset overtake it
    linger: float = 1.0
    #: leaving a node waits at most so long for messages to be read
    drain_timeout: float = 5.0

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, (int, float)) and not isinstance(value, bool) and not value > 0:
                raise ConfigurationError(f"{item.name} is {value}; it must be greater than zero")
        if self.overflow not in ("wait", "drop_oldest"):
            raise ConfigurationError(f'overflow is {self.overflow!r}; it must be "wait" or "drop_oldest"')
        if self.on_peer_restart not in ("redeliver", "report"):
            raise ConfigurationError(f'on_peer_restart is {self.on_peer_restart!r}; "redeliver" or "report"')
        if isinstance(self.session_expiry, str) and self.session_expiry != "auto":
            raise ConfigurationError(f'session_expiry is {self.session_expiry!r}; seconds, None or "auto"')
        if isinstance(self.session_expiry, (int, float)) and self.session_expiry > _LONGEST:
            raise ConfigurationError(f"session_expiry is {self.session_expiry}; at most {_LONGEST} s, None is never")
        if not 0.25 <= self.dead_after <= _LONGEST:
            raise ConfigurationError(f"dead_after is {self.dead_after}; it must be at least 0.25 s, at most {_LONGEST}")
        if self.ping_after < 0.1:  # PINGs would be taken for a flood (P-ABUSE-1)
            raise ConfigurationError(f"ping_after is {self.ping_after}; it must be at least 0.1 s")
        if self.ping_after > self.dead_after * 4 / 9 + 1e-9:
            raise ConfigurationError(
                f"ping_after is {self.ping_after}; it must be at most 4/9 of dead_after ({self.dead_after})"
            )
        if not self.window_guaranteed <= self.window <= self.window_max:
            raise ConfigurationError("the windows must satisfy window_guaranteed <= window <= window_max")
