"""When an ACK goes out, and what it says.

Theory of operation
-------------------
There is at most one ACK to be sent, however much there is to acknowledge: it is built at the last moment, from the
positions of that moment.  Three things send it.  It is *urgent* when the sender could be waiting: the application has
settled all that there is, or much since the last ACK; many messages or bytes came; half of the credit is used up; the
sender asked; or one of the sides is ending or draining.  It joins messages that go the same way anyway.  Or its delay
is over.

With an ACK goes the credit: as much as the window leaves beside what is not settled, and a greater window if this one
is used up although the application keeps up.  Rejections go before the ACK that passes them, so that no ``read`` tells
of a message as read that was refused.  An ACK that would say again what the peer was told on this connection is not
sent: a peer counts it as abuse.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .frames import MAX_SEQUENCE, encode_ack, encode_reject
from .inbox import Inbox, Reject
from .timers import Timed

if TYPE_CHECKING:
    from .endpoint import Endpoint
    from .session import Session

__all__ = ["Acknowledger"]


#: as many messages as there are
_ANY = MAX_SEQUENCE


class Acknowledger(Timed):
    """The acknowledgements of one session, to its peer."""

    __slots__ = (
        "_cost",
        "_delayed",
        "_endpoint",
        "_received",
        "_rejects",
        "_session",
        "_told",
        "_urgent",
        "pending",
    )

    def __init__(self, session: Session, endpoint: Endpoint) -> None:
        super().__init__()
        self._session = session
        self._endpoint = endpoint
        #: there is something to acknowledge; it must not wait; the timer that ends the wait runs
        self.pending = False
        self._urgent = False
        self._delayed = False
        #: as of the last ACK: ``received`` and the cost that came
        self._received = 0
        self._cost = 0
        #: received, read, credit and first as the peer was told on this connection
        self._told = (0, 0, 0, 0)
        #: rejections that were not told on this connection
        self._rejects: list[Reject] = []

    def begin(self, inbox: Inbox, *, news: bool) -> None:
        """A connection is taken up.  ``news``: in its handshake the peer was told other positions than these."""
        self._received, self._cost = inbox.received, 0
        self._told = (0, 0, 0, 0)
        self._rejects = sorted(inbox.rejects.values(), key=lambda reject: reject.sequence)
        # Rejections, and what a dialer's ATTACH could not say: there may be no other reason to write.
        self.pending = True
        self._urgent = news or bool(self._rejects)

    def forget(self) -> None:
        """The session is over: what was refused needs no telling."""
        self._rejects = []

    # -- when ---------------------------------------------------------------------------------------------------

    def hurry(self, now: float) -> None:
        """The peer waits for what there is to say, even if nothing else goes its way."""
        self.pending = self._urgent = True
        connection = self._session.connection
        if connection is not None:
            connection.want_write(now)

    def reject(self, reject: Reject) -> None:
        """The application refused a message of the present outbox."""
        self._rejects.append(reject)

    def settled(self, now: float) -> None:
        """The application is done with messages."""
        self.pending = True
        session = self._session
        connection = session.connection
        if connection is None or self._urgent:
            return
        if self._worth_telling(session) or session.leaving:
            self._urgent = True
            if not connection.dirty:
                connection.want_write(now)
        elif not self._delayed:
            self._delay(now)

    def allowance(self, inbox: Inbox) -> tuple[int, int]:
        """How many messages may be settled, and how far ``inbox.unsettled`` may not quite fall by it, so that
        :meth:`settled` would do nothing about them but note that they are ``pending``.

        They are the next ones in order, and another stays with the application.
        """
        if self._urgent:
            return _ANY, -1
        if not self._delayed or self._rejects or self._session.leaving:
            return 0, 0
        return max(0, self._told[1] + self._endpoint.config.ack_messages - inbox.read - 1), self._floor(inbox)

    def _lags(self, inbox: Inbox) -> bool:
        """Was so much settled that the sender could be waiting for it?"""
        behind = inbox.read - self._told[1]
        return behind >= self._endpoint.config.ack_messages or inbox.unsettled <= self._floor(inbox)

    def _floor(self, inbox: Inbox) -> int:
        """Where ``unsettled`` arrives when as much as half of the window could be given back."""
        window = self._session.window.size
        return inbox.used - inbox.allowed + window - window // 2

    def _worth_telling(self, session: Session) -> bool:
        """Is nothing left with the application, or was so much settled that the sender could be waiting for it?

        A rejection does not wait for what is unread: it is rare, and bad news.
        """
        inboxes = session.inboxes
        for box in inboxes.boxes:
            if box.held or ((box.ready or box.returned) and not self._rejects):
                break
        else:
            return True
        return inboxes.present is not None and self._lags(inboxes.present)

    def came(self, inbox: Inbox, now: float, *, urgent: bool) -> None:
        """Messages, SKIPs or duplicates came; ``urgent``: the sender asks for an acknowledgement."""
        self.pending = True
        config = self._endpoint.config
        if (
            urgent
            or self._session.leaving
            or inbox.received - self._received >= config.ack_messages
            or inbox.used - self._cost >= config.ack_cost
            or inbox.allowed - inbox.used < self._session.window.size // 2
        ):
            self.hurry(now)
        else:
            self._delay(now)

    def _delay(self, now: float) -> None:
        if not self._delayed:
            self._delayed = True
            self._endpoint.timers.schedule_ack(self, now + self._endpoint.config.ack_delay)

    def on_ack_timer(self, now: float) -> None:
        self._delayed = False
        if self.pending:
            self.hurry(now)

    # -- what ---------------------------------------------------------------------------------------------------

    def fill(self, out: list[bytes | memoryview]) -> None:
        """Append what is pending if it is time."""
        outbox = self._session.outbox
        if (self._urgent or outbox.cursor < outbox.next) and (acknowledgement := self._encode()):
            out.append(acknowledgement)

    def last_words(self) -> bytes:
        """What is pending, for a connection that closes now: it may be long before the peer could hear it again."""
        return self._encode() if self.pending else b""

    def _encode(self) -> bytes:
        """Everything there is to acknowledge; rejections go first, so that no ``read`` passes one untold."""
        session = self._session
        inbox, journal, window = session.inboxes.present, session.journal, session.window
        self.pending = self._urgent = False
        if inbox is None:
            return b""
        rejects = b""
        if self._rejects:
            ready = [r for r in self._rejects if journal is None or r.sequence in inbox.durable_rejects]
            rejects = b"".join([encode_reject(inbox.outbox_id, r.sequence, r.code, r.text) for r in ready])
            self._rejects = [r for r in self._rejects if r not in ready] if journal is not None else []
        self._received, self._cost = inbox.received, inbox.used
        unsettled = session.inboxes.unsettled
        if inbox.allowed - inbox.used < window.size // 4 and unsettled <= window.size // 4:
            window.grow()
        inbox.allowed = max(inbox.allowed, inbox.used + window.size - unsettled)
        news = (inbox.stated_received, inbox.stated_read, inbox.allowed, session.stated_first())
        if news == self._told:  # a peer counts what tells it nothing as abuse
            return rejects
        self._told = news
        return rejects + encode_ack(*news)
