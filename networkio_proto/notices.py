"""What a session tells its application: notices, at most one of a kind, made when they are taken.

Theory of operation
-------------------
A notice is light: it says *that* there is something, and the session says what.  So one of a kind is enough however
often the thing happens before somebody looks: a kind waits as one bit, the endpoint's queue holds the order of peers
and kinds, and the event is built from the facts of the moment at which it is taken.  Connected and disconnected are one
kind, and the present is told.  Only gaps add up: they are ranges, the last of which melt when there are too many.

Notices are for whoever minds the whole node.  Whoever waits for one thing of one peer sets a bit of :class:`Watch` and
is woken instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .errors import ConnectionLost
from .events import (
    Event,
    Gap,
    GapRange,
    MessagesFailed,
    MessagesRead,
    MessagesReady,
    MessagesReceived,
    PeerConnected,
    PeerDisconnected,
    PeerEnded,
    PeerRestarted,
    Positions,
    ResumeReport,
    SessionEnded,
)

if TYPE_CHECKING:
    from .endpoint import Endpoint
    from .session import Session

__all__ = ["Notice", "Notices", "Watch"]

#: separate gaps told by one notice; further ones melt into the last
_GAP_RANGES = 1024


class Notice:
    """Kinds of notices, as bits: at most one of a kind waits per session."""

    READY: Final = 1
    RECEIVED: Final = 2
    READ: Final = 4
    FAILED: Final = 8
    LINK: Final = 16
    RESTARTED: Final = 32
    GAP: Final = 64
    PEER_ENDED: Final = 128
    ENDED: Final = 256


class Watch:
    """What somebody waits for, as bits of ``Session.watch``; a Wake follows when it may be there."""

    #: a message to take, or the end of them
    READABLE: Final = 1
    #: room in the outbox
    ROOM: Final = 2
    #: positions or outcomes of our messages
    PROGRESS: Final = 4
    #: a connection went live or was lost
    LINK: Final = 8
    #: a reply to a request
    REPLY: Final = 16


class Notices:
    """The notices of one session."""

    __slots__ = ("_endpoint", "_gaps", "_pending", "_restarted", "_session", "report")

    def __init__(self, session: Session, endpoint: Endpoint) -> None:
        self._session = session
        self._endpoint = endpoint
        self._pending = 0
        self._gaps: list[GapRange] = []
        #: where the outbox of the peer's last process stood
        self._restarted: Positions | None = None
        #: of the present connection
        self.report = ResumeReport(False, 0, False, "", 0, 0.0)

    def add(self, kind: int) -> None:
        """Queue a notice unless one of its kind waits already."""
        if not self._pending & kind:
            self._pending |= kind
            self._endpoint.queue_notice(self._session, kind)

    def gap(self, gap: GapRange) -> None:
        """Messages of the peer will never come."""
        last = self._gaps[-1] if self._gaps else None
        adjacent = last is not None and last.reason == gap.reason and last.last + 1 == gap.first
        if last is not None and (adjacent or len(self._gaps) >= _GAP_RANGES):
            self._gaps[-1] = GapRange(last.first, gap.last, gap.reason)
        else:
            self._gaps.append(gap)
        self.add(Notice.GAP)

    def restarted(self, positions: Positions | None) -> None:
        """The peer is another process than before, which left an outbox at ``positions``."""
        self._restarted = positions
        self.add(Notice.RESTARTED)

    def take(self, kind: int) -> Event:
        """Build the notice of a kind from the present facts; it no longer waits."""
        self._pending &= ~kind
        session = self._session
        peer = session.handle
        if kind == Notice.READY:
            return MessagesReady(peer)
        if kind == Notice.RECEIVED:
            return MessagesReceived(peer, session.outbox.received)
        if kind == Notice.READ:
            return MessagesRead(peer, session.outbox.read)
        if kind == Notice.FAILED:
            return MessagesFailed(peer)
        if kind == Notice.LINK:
            if session.connection is not None:
                return PeerConnected(peer, self.report)
            return PeerDisconnected(peer, session.error or ConnectionLost(), session.retry_at)
        if kind == Notice.RESTARTED:
            return PeerRestarted(peer, self._restarted)
        if kind == Notice.GAP:
            gaps, self._gaps = tuple(self._gaps), []
            return Gap(peer, gaps)
        if kind == Notice.PEER_ENDED:
            return PeerEnded(peer)
        return SessionEnded(peer, session.ledger)
