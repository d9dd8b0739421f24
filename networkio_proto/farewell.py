"""How a session comes to its end, and how it begins anew.

Theory of operation
-------------------
There are five ways out.  Both sides *end* it, and it is over when both FINs are read (:meth:`Farewell.check`); one side
*aborts* it, here or there; it *expires* because nobody came back; the peer *dropped* it while we were ending it; or the
peer closed for good and we have nothing to say.  All but the last meet in :meth:`Farewell._over`: the final positions
of what came are put on record for the peer, and what is left of the outbox goes on under a new name.

Three facts of the session say where it stands, and they are not one state: ``ending`` (our FIN is on its way), which
may outlast that the peer closed for good; ``closed`` (nothing more goes out), which a connection or a target takes
back; and ``finished`` (both FINs are read): the acceptor says that it is over by its CLOSE, and if that was lost the
dialer comes back only to hear it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import CloseCode, Outcome
from .frames import encode_ack
from .handshake import Attach, Why
from .journal import InboxesEnded, InboxMoved
from .notices import Notice, Watch

if TYPE_CHECKING:
    from .connection import Connection
    from .endpoint import Endpoint
    from .session import Session

__all__ = ["Farewell"]


class Farewell:
    """The end of one session."""

    __slots__ = ("_endpoint", "_session")

    def __init__(self, session: Session, endpoint: Endpoint) -> None:
        self._session = session
        self._endpoint = endpoint

    # -- by this side -------------------------------------------------------------------------------------------

    def end(self, now: float) -> None:
        """Send FIN: nothing follows.  When both sides' FINs are read the session is over."""
        session = self._session
        if session.ending or session.closed:
            return
        session.ending = True
        session.journal_entry(session.outbox.append_fin())
        session.account()
        session.wake(Watch.ROOM)  # whoever waits for room waits in vain
        session.acknowledger.hurry(now)
        self.check(now)

    def abort(self, now: float) -> None:
        """Give everything up, and say so at the next chance."""
        session = self._session
        self._give_up("the session was aborted by this side", Why.ABORTED, now)
        self._endpoint.close_pending(session, now)
        if session.connection is not None:
            session.connection.close(CloseCode.ABORT, "", now, resumable=False)

    def expire(self, now: float) -> None:
        """Nobody came back in time: the session is over, but for what is still to be read here."""
        session = self._session
        session.outbox.finish(Outcome.EXPIRED, "the session expired without a connection")
        session.ending = False
        session.peer_expiry = None
        session.connections = 0
        self._over(Why.EXPIRED, now)

    # -- by the peer --------------------------------------------------------------------------------------------

    def aborted_by_peer(self, now: float) -> None:
        """The peer gave the session up on our live connection: what it had not read, nobody will."""
        self._give_up("the session was aborted by the peer", Why.ABORTED, now)

    def dropped_by_peer(self, now: float) -> None:
        """We sent FIN, and the peer has dropped the session meanwhile: it is over here too."""
        self._give_up("the peer ended the session", Why.FINISHED, now)

    def peer_is_done(self) -> None:
        """The peer closed for good: so does this side, if it has nothing to say."""
        session = self._session
        session.drop_targets()
        session.closed = session.closed or session.outbox.all_read
        if session.closed:
            session.requests.give_up()
        session.wake(Watch.READABLE | Watch.REPLY)

    # -- by both ------------------------------------------------------------------------------------------------

    def check(self, now: float) -> None:
        """Both FINs read: drop the state, keep the positions.

        With a journal not before it knows: our last ``first`` is what frees the peer of its rejections, and a process
        that came back without it would believe read what was rejected.
        """
        session, outbox = self._session, self._session.outbox
        inbox = session.inboxes.present
        if not (session.ending and outbox.all_read and inbox is not None and inbox.finished):
            return
        if session.durable_first() < outbox.first:
            return
        session.ending = False
        session.closed = session.finished = True
        connection = session.connection
        if connection is not None:
            connection.last_words(encode_ack(inbox.received, inbox.read, inbox.allowed, session.stated_first()))
        self._over(Why.FINISHED, now)
        if connection is not None and not connection.dialer:
            connection.close(CloseCode.NORMAL, "both sides ended the session", now, resumable=False)

    def taken(self, connection: Connection, attach: Attach, now: float) -> None:
        """Live again.  A dialer whose session is finished is so only because the acceptor's last CLOSE was lost."""
        session = self._session
        finished, session.finished = session.finished, False
        if not (finished and connection.dialer):
            self.check(now)  # the two ATTACHes may have said what a lost ACK did not
        elif attach.first == attach.next:  # now both know (P-END-6)
            session.closed = True
            session.drop_targets()
            connection.close(CloseCode.NORMAL, "both sides ended the session", now, resumable=False)
        # else a new process of the peer has something to say: a new session has begun

    # -- anew ---------------------------------------------------------------------------------------------------

    def reopen(self, now: float) -> None:
        """The application wants it again; a connection that only waits for the old one's last word is in the way."""
        session = self._session
        lingering = session.connection if session.finished else None
        session.closed = session.finished = False
        if lingering is not None:
            lingering.close(CloseCode.RETRY, "", now)

    # -- what all have in common --------------------------------------------------------------------------------

    def _give_up(self, reason: str, why: int, now: float) -> None:
        """Nobody will read what is unread, and nobody dials any more."""
        session = self._session
        session.closed = True
        session.ending = False
        session.outbox.finish(Outcome.ABANDONED, reason)
        self._over(why, now)
        session.drop_targets()

    def _over(self, why: int, now: float) -> None:
        """The common end: final positions on record, a fresh outbox, a notice."""
        session = self._session
        session.pass_replies_on(now)  # they may have come in the same chunk as the end
        session.inboxes.close(why, now)
        if session.journal is not None:
            session.journal.want(InboxMoved)
            session.journal.want(InboxesEnded)
        session.acknowledger.forget()
        session.attachment.forget()
        session.rename_outbox(mark=False)
        session.account()
        session.after_failures()
        session.requests.give_up()
        session.wake(Watch.READABLE | Watch.PROGRESS | Watch.ROOM | Watch.REPLY)
        session.notices.add(Notice.ENDED)
        ledger = session.outbox.ledger
        self._endpoint.logbook.over(session.peer_id, why, ledger.read, ledger.failed, now)
