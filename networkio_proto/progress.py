"""What the peer tells of our messages: ACK and REJECT, and what follows from them here.

Theory of operation
-------------------
The peer states positions, never events, so that a lost or repeated frame changes nothing: what counts is by how much
they exceed those that are known.  A position that no transmitted message explains is the peer's fault.

A rejection is repeated on every connection until our ``first`` has passed it at the peer.  ``_heard`` knows those of
this connection, so that a second one counts as a frame without meaning; whenever one is passed the peer is told so at
once, because it holds credit back for what it rejected, and may have no other left.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

from .errors import CloseCode
from .frames import PeerFault
from .inbox import Inbox
from .notices import Notice, Watch

if TYPE_CHECKING:
    from .session import Session

__all__ = ["Progress"]


class Progress:
    """How the messages of one session get on."""

    __slots__ = ("_heard", "_in_order", "_session")

    def __init__(self, session: Session) -> None:
        self._session = session
        #: rejections that came on this connection and that ``first`` has not passed yet; the same as a heap
        self._heard: set[int] = set()
        self._in_order: list[int] = []

    def begin(self) -> None:
        """A connection is live: rejections may come again."""
        self._heard.clear()
        self._in_order.clear()

    def receive_ack(self, inbox: Inbox, received: int, read: int, credit: int, first: int, now: float) -> bool:
        """ACK; ``first`` and the credit are about ``inbox``.  False if it moved nothing; raises PeerFault."""
        session, outbox = self._session, self._session.outbox
        if read > received or received > max(outbox.transmitted, outbox.received):
            raise PeerFault(
                CloseCode.PROTOCOL, f"ACK of received {received}, read {read} where {outbox.transmitted} was sent"
            )
        if first > inbox.received + 1 and first > inbox.first:
            raise PeerFault(CloseCode.PROTOCOL, f"ACK says first {first} where only {inbox.received} came")
        news = credit > outbox.credit or first > inbox.first
        if credit > outbox.credit:
            outbox.credit = credit
            session.transmit(now)
        if inbox.passed(first):
            session.acknowledger.hurry(now)
        gained, settled = outbox.acknowledge(received, read)
        if gained or settled:
            news = True
            session.account()
            self.made(gained, settled, now)
            session.overtake(now)
        session.farewell.check(now)
        return news

    def made(self, gained: int, settled: int, now: float) -> None:
        """So many more messages were received, and so many read."""
        session = self._session
        if gained:
            session.notices.add(Notice.RECEIVED)
        if settled:
            session.waiting_since = now
            session.notices.add(Notice.READ)
            if self._in_order and self._in_order[0] < session.outbox.first:
                self._forget_passed(session.outbox.first)
                session.acknowledger.hurry(now)  # the peer waits for our ``first`` to pass its rejection
        session.wake(Watch.PROGRESS | (Watch.ROOM if session.has_room else 0))

    def _forget_passed(self, first: int) -> None:
        while self._in_order and self._in_order[0] < first:
            self._heard.remove(heappop(self._in_order))

    def receive_reject(self, outbox_id: bytes, sequence: int, code: int, text: str, now: float) -> bool:
        """REJECT; False if it means nothing; raises PeerFault."""
        session, outbox = self._session, self._session.outbox
        if outbox_id != outbox.outbox_id:
            return False
        if sequence > max(outbox.transmitted, outbox.received):
            raise PeerFault(CloseCode.PROTOCOL, f"REJECT of {sequence} where {outbox.transmitted} was sent")
        if sequence < outbox.first:
            session.acknowledger.hurry(now)  # the peer has not seen how far we are
            return False
        if sequence in self._heard:
            return False
        self._heard.add(sequence)
        heappush(self._in_order, sequence)
        if not outbox.reject(sequence, code, text):
            return True  # it was told on an earlier connection
        session.account()
        session.after_failures()
        session.overtake(now)
        return True
