"""What the core says: notices for the application, effects for the driver.

Theory of operation
-------------------
**Notices** are ready-sets, not logs (guarantees, *Notices*).  A peer has at most one notice of a kind
waiting; it is built from the facts when it is taken, so it always tells the present.  ``PeerConnected`` and
``PeerDisconnected`` are one kind: whichever is true.  ``peer`` is what the embedding program hung on the session
(``Session.handle``; the adapters hang their ``Peer`` there), and the peer id until then.

**Effects** tell the driver what to do next; each is in the set once, however often it was wanted.  The driver has no
clock of its own: that a dial takes too long, or a last word, is for the core's timers to notice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, final

from .errors import ConnectionFailure
from .ledger import Ledger

if TYPE_CHECKING:
    from .connection import Connection
    from .reconnect import Target
    from .session import Session

__all__ = [
    "Abandon",
    "Close",
    "Dial",
    "Effect",
    "Event",
    "Gap",
    "GapRange",
    "Log",
    "MessagesFailed",
    "MessagesRead",
    "MessagesReady",
    "MessagesReceived",
    "PeerConnected",
    "PeerDisconnected",
    "PeerEnded",
    "PeerRestarted",
    "Positions",
    "ResumeReport",
    "SessionEnded",
    "Transmit",
    "Wake",
]


@dataclass(frozen=True, slots=True)
class Positions:
    """Where an outbox stood at its receiver."""

    outbox_id: bytes
    received: int
    read: int


@dataclass(frozen=True, slots=True)
class GapRange:
    """The sequences ``first`` to ``last`` will not come; ``reason`` is a SKIP reason of the specification."""

    first: int
    last: int
    reason: int


@dataclass(frozen=True, slots=True)
class ResumeReport:
    """How a connection took the session up."""

    #: False for the first connection of a session, True when it goes on with an earlier one's
    resumed: bool
    #: how many connections this session has had, this one included
    connections: int
    #: the peer's process is another than on the connection before
    peer_restarted: bool
    #: letter of the resume verdict on our outbox (specification, *The verdict*)
    verdict: str
    #: messages that go out again on this connection
    retransmitted: int
    #: seconds without a connection before this one
    downtime: float


# -- notices ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MessagesReady:
    """Messages of this peer are there to be read."""

    peer: Any


@dataclass(frozen=True, slots=True)
class MessagesReceived:
    """The peer's library holds everything up to ``through``."""

    peer: Any
    through: int


@dataclass(frozen=True, slots=True)
class MessagesRead:
    """The peer's application has acknowledged (or rejected) everything up to ``through``."""

    peer: Any
    through: int


@dataclass(frozen=True, slots=True)
class MessagesFailed:
    """Messages to this peer ended otherwise than READ; ``failures()`` lists them."""

    peer: Any


@dataclass(frozen=True, slots=True)
class PeerConnected:
    """The session with this peer has a live connection."""

    peer: Any
    resumed: ResumeReport


@dataclass(frozen=True, slots=True)
class PeerDisconnected:
    """The session has no connection.

    ``error`` says why; ``retry_at`` is when this side dials again (the caller's clock), None if it does not.
    """

    peer: Any
    error: ConnectionFailure
    retry_at: float | None


@dataclass(frozen=True, slots=True)
class PeerRestarted:
    """The peer's process is a new one; ``positions`` is where its old outbox stood, if there was one."""

    peer: Any
    positions: Positions | None


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages of this peer that will not come: the ranges since this notice was last taken."""

    peer: Any
    ranges: tuple[GapRange, ...]


@dataclass(frozen=True, slots=True)
class PeerEnded:
    """The peer ended its outbox: what is unread can still be read, nothing new will come from it."""

    peer: Any


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """The session ended (both sides ended it, it was aborted, or it expired); ``ledger`` is the final account."""

    peer: Any
    ledger: Ledger


Event: TypeAlias = (
    MessagesReady
    | MessagesReceived
    | MessagesRead
    | MessagesFailed
    | PeerConnected
    | PeerDisconnected
    | PeerRestarted
    | Gap
    | PeerEnded
    | SessionEnded
)


# -- effects ----------------------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True, eq=False)
class Dial:
    """Make a byte stream to ``target.key``, then call ``Endpoint.connect`` or ``Endpoint.dial_failed`` with this dial.

    Every attempt is a dial of its own, hashable by identity.  It has ``Config.dial_timeout`` seconds.
    """

    target: Target


@final
@dataclass(frozen=True, slots=True, eq=False)
class Abandon:
    """Give the dial up, and close what it has begun.

    This is the last that the driver hears of any dial that comes to nothing: it took too long, nobody wants it any
    more, or the driver has reported that it failed.  Whatever is reported of it from now on changes nothing:
    ``Endpoint.dial_failed`` does nothing then, and ``Endpoint.connect`` returns a connection that only says goodbye.
    """

    dial: Dial


@final
@dataclass(frozen=True, slots=True, eq=False)
class Transmit:
    """``connection.data_to_send`` has something: write it out, and ask again until it returns an empty list."""

    connection: Connection


@final
@dataclass(frozen=True, slots=True, eq=False)
class Close:
    """Close the byte stream.

    With ``flush``: write what ``data_to_send`` still returns, half-close, and read on.  The same comes without
    ``flush`` when the driver has reported the end of the stream, and after ``Config.linger`` seconds at the latest.

    Without: close it now.  This is the last that the driver hears of any connection, those that it has reported as lost
    included; if it has closed the stream by then, there is nothing left to do.
    """

    connection: Connection
    flush: bool


@final
@dataclass(frozen=True, slots=True, eq=False)
class Wake:
    """Something that somebody waits for may have happened: look again.

    ``session`` is the one whose ``watch`` was set; None: there are notices (``Endpoint.next_event``), or a target
    changed.
    """

    session: Session | None


@final
@dataclass(frozen=True, slots=True, eq=False)
class Log:
    """Something rare happened that whoever runs this node may want to read of.  A driver may ignore it.

    ``level`` is one of the standard library's (20 INFO, 30 WARNING, 40 ERROR); ``text`` is a constant %-format and
    ``arguments`` what goes into it, escaped where another process chose it: ``logger.log(level, text, *arguments)``.
    ``error``: what the application's own code raised, if that is what the line is about; its traceback belongs to it.
    """

    level: int
    text: str
    arguments: tuple[object, ...]
    error: BaseException | None = None


Effect: TypeAlias = Dial | Abandon | Transmit | Close | Wake | Log
