"""Which figures are published, under which names, and of whom: the part that both systems share.

Theory of operation
-------------------
A :class:`Figure` is a name, a meaning and a way to read it off :class:`~networkio_proto.statistics.Statistics`.  A
:class:`Source` asks a node for its statistics, in rows: one for the whole node, or, where peers are named, one for each
of these and one for all others together, which the core adds up.  So the number of time series is chosen by whoever
configures the monitoring, never by whoever connects.

Statistics belong to the core, which an event loop's thread owns; exporters read in threads of their own.  ``call`` is
how to get from there to here: it is given a function, has it run where the node may be touched, and returns its result.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Protocol, TypeAlias, TypeVar

from networkio_proto import NodeStatistics, Statistics

__all__ = ["COUNTERS", "GAUGES", "NODE_COUNTERS", "NODE_GAUGES", "OTHERS", "Call", "Figure", "Node", "Source"]

T = TypeVar("T")

#: exporters that ask for one figure after the other get them all from one look at the node (seconds)
_FRESH = 0.5

#: the label of the row that stands for all peers that were not named
OTHERS = "(others)"


class Node(Protocol):
    """A node of either driver."""

    @property
    def id(self) -> str: ...

    def statistics(self, peers: Collection[str] | None = None) -> NodeStatistics: ...


class Call(Protocol):
    """Has a function run where the node may be touched; returns its result."""

    def __call__(self, function: Callable[[], NodeStatistics], /) -> NodeStatistics: ...


#: one value, or one for each value of ``Figure.by``
Value: TypeAlias = float | Mapping[str, float] | None


@dataclass(frozen=True)
class Figure:
    """One figure of a peer, or of several together."""

    name: str
    meaning: str
    read: Callable[[Statistics], Value]
    #: the name of a further label, whose values are a closed set
    by: str = ""

    def values(self, statistics: Statistics) -> list[tuple[dict[str, str], float]]:
        """The figure as it stands: (further labels, value), nothing where there is none yet."""
        return _rows(self.read(statistics), self.by)


@dataclass(frozen=True)
class NodeFigure:
    """One figure that belongs to no peer."""

    name: str
    meaning: str
    read: Callable[[NodeStatistics], Value]
    by: str = ""

    def values(self, statistics: NodeStatistics) -> list[tuple[dict[str, str], float]]:
        """As of :class:`Figure`."""
        return _rows(self.read(statistics), self.by)


def _rows(value: Value, by: str) -> list[tuple[dict[str, str], float]]:
    if isinstance(value, Mapping):
        return [({by: key}, float(part)) for key, part in value.items()]
    return [] if value is None else [({}, float(value))]


#: what only grows
COUNTERS = (
    Figure("messages_accepted", "messages accepted for sending", lambda s: s.accepted),
    Figure("messages_read", "messages that the peer's application acknowledged", lambda s: s.read),
    Figure("messages_failed", "messages that ended otherwise than read, by outcome", lambda s: s.failed, "outcome"),
    Figure("messages_retransmitted", "messages set back to go out again at a resume", lambda s: s.retransmitted),
    Figure("messages_taken_in", "messages that came from the peer", lambda s: s.taken_in),
    Figure("messages_redelivered", "of them those flagged as redelivered", lambda s: s.redelivered),
    Figure("messages_duplicate", "messages that came once more and were dropped", lambda s: s.duplicates),
    Figure("replies_dropped", "replies that nobody waited for any more", lambda s: s.replies_dropped),
    Figure("connections", "connections that became live", lambda s: s.connections),
    Figure("disconnects", "live connections that ended, by cause", lambda s: s.disconnects, "cause"),
    Figure("dials_failed", "dials that came to nothing", lambda s: s.dials_failed),
)

#: what goes up and down
GAUGES = (
    Figure("connected", "1 with a live connection; together: how many peers have one", lambda s: s.connected),
    Figure("messages_unacknowledged", "own messages without an outcome", lambda s: s.unacknowledged),
    Figure("oldest_age_seconds", "since the oldest of them became the oldest", lambda s: s.oldest_age),
    Figure("outbox_cost", "cost of what the outboxes hold (64 + headers + payload)", lambda s: s.outbox_cost),
    Figure("credit", "cost that the peer would still take", lambda s: s.credit),
    Figure("messages_unread", "messages of the peer that wait to be taken", lambda s: s.unread),
    Figure("messages_held", "messages of the peer that were taken and are not settled", lambda s: s.held),
    Figure("unsettled_cost", "cost of what came and is not settled", lambda s: s.unsettled_cost),
    Figure("window", "cost that the peer may have under way or unsettled here", lambda s: s.window),
    Figure("round_trip_seconds", "the last round trip; together: the greatest", lambda s: s.round_trip),
    Figure("smoothed_round_trip_seconds", "round trips smoothed; together: the greatest",
           lambda s: s.smoothed_round_trip),
)  # fmt: skip

NODE_COUNTERS = (
    NodeFigure("handshakes_failed", "connections from others that never became live, by cause",
               lambda n: n.handshakes_failed, "cause"),
    NodeFigure("unnamed_dials_failed", "dials that failed before anybody had answered at their address",
               lambda n: n.dials_failed),
)  # fmt: skip

NODE_GAUGES = (
    NodeFigure("peers", "peers that the node knows", lambda n: n.known),
    NodeFigure("handshakes", "connections from others that are shaking hands", lambda n: n.handshakes),
    NodeFigure("inbox_reserved_cost", "cost promised to peers beyond their guaranteed windows",
               lambda n: n.inbox_reserved),
)  # fmt: skip


class Source:
    """The statistics of one node, in rows."""

    def __init__(self, node: Node, peers: Collection[str], call: Call | None) -> None:
        self._node = node
        self._call = call
        self.peers = tuple(dict.fromkeys(peers))
        self._last: tuple[float, NodeStatistics] | None = None

    @property
    def node_id(self) -> str:
        return self._node.id

    def look(self) -> NodeStatistics:
        """The node as it stands, from whatever thread this is."""
        look = partial(self._node.statistics, self.peers)
        return look() if self._call is None else self._call(look)

    def recent(self) -> NodeStatistics:
        """As :meth:`look`, or what was seen a moment ago."""
        if self._last is None or monotonic() - self._last[0] >= _FRESH:
            seen = self.look()  # its time is that of its end: a look may have to wait for the loop
            self._last = (monotonic(), seen)
        return self._last[1]

    def rows(self, seen: NodeStatistics) -> Iterator[tuple[str | None, Statistics]]:
        """(peer, its statistics): None for all peers together, or each named one and then :data:`OTHERS`."""
        yield from seen.peers.items()
        yield OTHERS if self.peers else None, seen.others
