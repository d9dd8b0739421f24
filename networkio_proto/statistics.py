"""What a node and its peers have done so far, and how they stand: counted as little as possible, made when asked for.

Theory of operation
-------------------
Nearly every figure is a position or a counter that the protocol keeps for its own sake, and is only read here.  What no
position tells is counted in :class:`Counters`: per chunk of bytes what came in it, and the rest on ways that are rarely
gone (a duplicate, a connection, a failed dial).  Nothing is counted or timed for each message.

A :class:`Statistics` is of one peer, or the sum of several (:meth:`Statistics.total`).  Where a sum would mean nothing
the field says what stands in its place.  Figures that only grow do so as long as the process lives, over any number of
connections and sessions.

The round trip is that of PING and PONG.  An ACK would be no measure: it waits for company, up to ``Config.ack_delay``.
A connection on which messages go both ways all the time sends no PING by itself; ``Session.measure`` asks for one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from .errors import ConnectionFailure, ConnectionLost

if TYPE_CHECKING:
    from .endpoint import Endpoint
    from .session import Session

__all__ = ["Counters", "NodeStatistics", "Statistics", "cause", "node_statistics", "statistics"]

#: of a new round trip in the smoothed one, as TCP does it
_SMOOTHING = 1 / 8


class Counters:
    """What is counted because no position tells it."""

    __slots__ = (
        "connections",
        "dials_failed",
        "duplicates",
        "ends",
        "redelivered",
        "retransmitted",
        "round_trip",
        "smoothed_round_trip",
        "taken_in",
    )

    def __init__(self) -> None:
        self.taken_in = 0
        self.redelivered = 0
        self.duplicates = 0
        self.retransmitted = 0
        self.connections = 0
        #: how connections ended, by :func:`cause`
        self.ends: dict[str, int] = {}
        self.dials_failed = 0
        self.round_trip: float | None = None
        self.smoothed_round_trip: float | None = None

    def ended(self, error: ConnectionFailure) -> None:
        """A connection ended."""
        name = cause(error)
        self.ends[name] = self.ends.get(name, 0) + 1

    def measured(self, seconds: float) -> None:
        """A PONG came so long after its PING."""
        self.round_trip = seconds
        smoothed = self.smoothed_round_trip
        self.smoothed_round_trip = seconds if smoothed is None else smoothed + _SMOOTHING * (seconds - smoothed)


def cause(error: ConnectionFailure) -> str:
    """Why a connection ended, in one word of a closed set: the name of the close code in lower case, or ``lost``."""
    return "lost" if isinstance(error, ConnectionLost) else error.code.name.lower()


def _greatest(column: tuple[Any, ...]) -> Any:
    return max((value for value in column if value is not None), default=None)


def _least(column: tuple[Any, ...]) -> Any:
    return min((value for value in column if value is not None), default=None)


def _together(column: tuple[Mapping[str, int], ...]) -> dict[str, int]:
    together: dict[str, int] = {}
    for counts in column:
        for name, count in counts.items():
            together[name] = together.get(name, 0) + count
    return together


def _in_total(how: Any, default: Any) -> Any:
    """A field that is not summed up by ``+``."""
    return field(default=default, metadata={"total": how})


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """One peer, or the total of several; times in seconds, ``cost`` as everywhere (``64 + headers + payload``)."""

    # -- our messages to the peer --
    #: messages accepted; grows
    accepted: int = 0
    #: the highest sequence that was transmitted, wholly or in part; grows
    transmitted: int = 0
    #: everything up to this sequence is with the peer's library; goes back when the peer's process dies with it
    received: int = 0
    #: messages that the peer's application acknowledged; grows
    read: int = 0
    #: messages that the peer's application refused; grows
    rejected: int = 0
    #: messages whose ttl ran out, or whose session did; grows
    expired: int = 0
    #: messages that this side cancelled; grows
    cancelled: int = 0
    #: messages given up as LOST; grows
    lost: int = 0
    #: messages whose session was aborted; grows
    abandoned: int = 0
    #: sequences that had been transmitted and were set back to go out again at a resume; grows
    retransmitted: int = 0
    #: messages without an outcome: queued, in flight, or received and not read
    unacknowledged: int = 0
    #: cost of what the outbox holds
    outbox_cost: int = 0
    #: since the oldest message without an outcome became the oldest, 0 without one; in a total the greatest
    oldest_age: float = _in_total(_greatest, 0.0)
    #: cost that the peer would still take on this connection
    credit: int = 0

    # -- the peer's messages to us --
    #: messages that came, replies included, duplicates not; grows
    taken_in: int = 0
    #: of them those flagged as redelivered; grows
    redelivered: int = 0
    #: messages that came once more and were dropped; grows
    duplicates: int = 0
    #: replies that nobody waited for any more; grows
    replies_dropped: int = 0
    #: messages that wait to be taken
    unread: int = 0
    #: messages that were taken and are not settled
    held: int = 0
    #: cost of what came and is not settled
    unsettled_cost: int = 0
    #: cost that the peer may have under way or unsettled here at a time
    window: int = 0

    # -- connections --
    #: 1 with a live connection, else 0; in a total how many peers have one
    connected: int = 0
    #: when the live connection was taken up (the caller's clock), None without one; in a total the earliest
    connected_since: float | None = _in_total(_least, None)
    #: connections that became live; grows
    connections: int = 0
    #: how live connections ended: close code in lower case or ``lost``, and how often; each grows
    disconnects: Mapping[str, int] = field(default_factory=dict, metadata={"total": _together})
    #: dials that came to nothing, COLLISION and RETRY not counted; grows
    dials_failed: int = 0
    #: the last round trip, None before the first; in a total the greatest
    round_trip: float | None = _in_total(_greatest, None)
    #: round trips smoothed, each new one counts 1/8; in a total the greatest
    smoothed_round_trip: float | None = _in_total(_greatest, None)

    @property
    def failed(self) -> dict[str, int]:
        """The messages that ended otherwise than READ, by the name of the outcome."""
        return {name: getattr(self, name) for name in _FAILED}

    @classmethod
    def total(cls, parts: Iterable[Statistics]) -> Statistics:
        """Several peers as one."""
        return _total([_values(part) for part in parts])


_FAILED = ("rejected", "expired", "cancelled", "lost", "abandoned")
_TOTALS: dict[str, Any] = {
    name: item.metadata.get("total", sum) for name, item in Statistics.__dataclass_fields__.items()
}
_values = attrgetter(*_TOTALS)


def _total(rows: list[tuple[Any, ...]]) -> Statistics:
    """Of rows in the order of the fields."""
    if not rows:
        return Statistics()
    columns = zip(*rows, strict=True)
    return Statistics(**{name: how(column) for (name, how), column in zip(_TOTALS.items(), columns, strict=True)})


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatistics:
    """One node: its peers, and what belongs to no peer."""

    #: by peer id: all peers, or those that were asked for and are known
    peers: Mapping[str, Statistics]
    #: all other peers together
    others: Statistics
    #: how many peers the node knows
    known: int
    #: dials that came to nothing before anybody had answered at their address; grows, and is not in ``total``
    dials_failed: int
    #: connections that others dialled and that never became live, by cause as in ``disconnects``; each grows
    handshakes_failed: Mapping[str, int]
    #: connections that others dialled and that are shaking hands now
    handshakes: int
    #: cost promised to peers out of ``Config.inbox_budget``
    inbox_reserved: int

    @property
    def total(self) -> Statistics:
        """All peers together."""
        return Statistics.total([*self.peers.values(), self.others])


def statistics(session: Session, now: float) -> Statistics:
    """One session as it stands."""
    return Statistics(**_figures(session, now))


def _figures(session: Session, now: float) -> dict[str, Any]:
    """By the names of the fields and in their order, so that thousands can be added up without an object for each."""
    outbox, inboxes, counters, ledger = session.outbox, session.inboxes, session.counters, session.outbox.ledger
    live = session.connection is not None
    return {
        "accepted": ledger.accepted,
        "transmitted": outbox.sent,
        "received": max(outbox.received, outbox.read),
        "read": ledger.read,
        "rejected": ledger.rejected,
        "expired": ledger.expired,
        "cancelled": ledger.cancelled,
        "lost": ledger.lost,
        "abandoned": ledger.abandoned,
        "retransmitted": counters.retransmitted,
        "unacknowledged": ledger.unread,
        "outbox_cost": outbox.cost,
        "oldest_age": max(0.0, now - session.waiting_since) if ledger.unread else 0.0,
        "credit": max(0, outbox.credit - outbox.used) if live else 0,
        "taken_in": counters.taken_in,
        "redelivered": counters.redelivered,
        "duplicates": counters.duplicates,
        "replies_dropped": session.requests.dropped,
        "unread": inboxes.unread,
        "held": inboxes.held,
        "unsettled_cost": inboxes.unsettled,
        "window": session.window.size,
        "connected": int(live),
        "connected_since": session.since if live else None,
        "connections": counters.connections,
        "disconnects": dict(counters.ends),
        "dials_failed": counters.dials_failed,
        "round_trip": counters.round_trip,
        "smoothed_round_trip": counters.smoothed_round_trip,
    }


def node_statistics(endpoint: Endpoint, now: float, peers: Collection[str] | None) -> NodeStatistics:
    """A node as it stands; ``peers`` are told one by one, None: all."""
    sessions = endpoint.sessions
    chosen = sessions if peers is None else [peer for peer in peers if peer in sessions]
    told = {peer: statistics(sessions[peer], now) for peer in chosen}
    others = [tuple(_figures(session, now).values()) for peer, session in sessions.items() if peer not in told]
    return NodeStatistics(
        peers=told,
        others=_total(others),
        known=len(sessions),
        dials_failed=endpoint.counters.dials_failed,
        handshakes_failed=dict(endpoint.counters.ends),
        handshakes=endpoint.handshakes,
        inbox_reserved=endpoint.inbox_reserved,
    )
