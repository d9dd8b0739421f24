"""Taking up a connection: what this side states in ATTACH, and what follows from the peer's.

Theory of operation
-------------------
Both sides state where their outbox and their inbox stand (:meth:`Attachment.facts`); each then judges the *other's*
inbox against its own outbox by :func:`~networkio_proto.resume.judge`, as the sender, and finds or makes the inbox for
the other's outbox, as the receiver (:meth:`Attachment.take`).  The dialer states its facts first; what moves between
that and the acceptor's answer is looked for when the connection is taken, and is not taken when the outbox is no more.

The sender *marks* what a dead process of the peer may have seen (specification, *Marks*): such messages go out flagged
as redelivered, or end as LOST where the application would rather not have them twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .config import COST_PER_MESSAGE
from .errors import CloseCode, Outcome
from .events import Positions, ResumeReport
from .frames import SkipReason, encode_skip
from .handshake import Attach, Ended, InboxFacts, Why
from .inbox import Inbox
from .journal import ReceiverKnown
from .notices import Watch
from .resume import Verdict, judge

if TYPE_CHECKING:
    from .connection import Connection
    from .endpoint import Endpoint
    from .session import Session

__all__ = ["Attachment"]


class Attachment:
    """How one session and its connections come together."""

    __slots__ = (
        "_endpoint",
        "_known",
        "_position",
        "_session",
        "hole",
    )

    def __init__(self, session: Session, endpoint: Endpoint) -> None:
        self._session = session
        self._endpoint = endpoint
        #: sums of positions at the beginning of the connection, and whether its ATTACH alone moved any
        self._position = (0, 0)
        self._known = False
        #: what the peer lost, or was led to expect, and has ended: it is told so before anything else
        self.hole: tuple[int, int] | None = None

    # -- our facts ----------------------------------------------------------------------------------------------

    def facts(self, connection: Connection, now: float) -> Attach:
        """What our ATTACH on ``connection`` says."""
        session = self._session
        outbox, inboxes, arbitration = session.outbox, session.inboxes, session.arbitration
        unsettled = inboxes.unsettled
        session.window.open(unsettled)
        credit = max(0, session.window.size - unsettled)
        connection.credit_told = credit
        connection.settled_told = self._settled()
        connection.outbox_told = outbox.outbox_id
        connection.first_told = first = session.durable_first()
        connection.inbox_told = inboxes.reported()
        return Attach(
            outbox_id=outbox.outbox_id,
            run=outbox.run,
            first=first,
            next=outbox.next,
            inbox=connection.inbox_told,
            ended=inboxes.ended(now - self._endpoint.config.ended_retention),
            durable=self._endpoint.durable_inbox,
            expiry=session.own_expiry(),
            credit=credit,
            generation=connection.generation if arbitration.arbiter else None,
            seen=None if arbitration.arbiter else arbitration.seen(connection.peer_incarnation),
            mac=None,
        )

    def _settled(self) -> tuple[int, int]:
        """What changes when the application settles something, or the peer learns of a rejection."""
        inboxes = self._session.inboxes
        return (0 if inboxes.present is None else inboxes.present.told_read, inboxes.unsettled)

    # -- the peer's facts ---------------------------------------------------------------------------------------

    def take(self, connection: Connection, attach: Attach, now: float) -> CloseCode | None:
        """Judge a verified connection; None, or the code to close it with: RETRY to dial again, NORMAL when over."""
        session = self._session
        if self._overstated(attach):
            return CloseCode.PROTOCOL
        if connection.dialer and connection.outbox_told != session.outbox.outbox_id:
            return CloseCode.RETRY  # the session ended meanwhile: what the peer would take is no more
        if session.inboxes.in_doubt:
            return CloseCode.RETRY
        verdict = self._resume_outbox(connection, attach, now)
        over = verdict is Verdict.ENDED and session.ending
        if over:
            session.farewell.dropped_by_peer(now)
        if over or (connection.dialer and verdict in (Verdict.ROLLED_BACK, Verdict.ENDED)):
            session.account()
            session.after_failures()
            # what the dialer wants now is not what ended: as acceptor let it come again
            return CloseCode.NORMAL if over and connection.dialer else CloseCode.RETRY
        restarted = self._open_inbox(connection, attach)
        if restarted:
            self._endpoint.logbook.restarted(session.peer_id, now)
        connections = session.connections + 1
        session.notices.report = ResumeReport(
            resumed=connections > 1,
            connections=connections,
            peer_restarted=restarted,
            verdict=verdict.value,
            retransmitted=max(0, session.outbox.sent - session.outbox.cursor + 1),
            downtime=max(0.0, now - session.since) if connections > 1 else 0.0,
        )
        session.counters.retransmitted += session.notices.report.retransmitted
        self._position = self._positions()
        return None

    def _overstated(self, attach: Attach) -> bool:
        """Does the peer claim messages of the present run that were never transmitted (P-ACK-3)?"""
        outbox = self._session.outbox
        most = max(outbox.first - 1, outbox.transmitted, outbox.received)
        claims: list[tuple[InboxFacts | Ended, int]] = [(claim, claim.received) for claim in attach.ended]
        if attach.inbox is not None:
            claims.append((attach.inbox, max(attach.inbox.received, attach.inbox.seen)))
        return any(
            claim.outbox_id == outbox.outbox_id and claim.run == outbox.run and most < last < outbox.next
            for claim, last in claims
        )

    def _resume_outbox(self, connection: Connection, attach: Attach, now: float) -> Verdict:
        """As the sender: judge what the peer says that it holds, set the cursor and the marks."""
        session = self._session
        outbox, inbox = session.outbox, attach.inbox
        verdict, ended = judge(outbox.facts(), inbox, attach.ended)
        self._mark(connection, attach)
        self.hole = None
        self._known = False
        if verdict is Verdict.ROLLED_BACK:
            # An old copy does not know how far it went out, nor the peer: others may have gone on from the same copy.
            # What was accepted since it was loaded is new.
            self._doubt(0, max(outbox.sent, *outbox.runs.values(), 0))
            session.rename_outbox(mark=True)
        elif verdict is Verdict.ENDED and ended is not None:
            self._settle_ended(ended)
        elif verdict is Verdict.NORMAL and inbox is not None:
            gained, settled = outbox.acknowledge(inbox.received, inbox.read)
            self._known = bool(gained or settled)
            session.progress.made(gained, settled, now)
            outbox.resume(inbox.received)
        else:
            outbox.resume(outbox.first - 1)
        if verdict is not Verdict.NORMAL:
            expected = connection.first_told if connection.dialer else session.durable_first()
            if verdict is Verdict.HOLE and inbox is not None:
                expected = inbox.received + 1
            if expected < outbox.first:
                self.hole = (expected, outbox.first - 1)
        outbox.attach(connection.peer_limits.frame, connection.peer_limits.message, attach.credit)
        outbox.expire_overdue()
        return verdict

    def _mark(self, connection: Connection, attach: Attach) -> None:
        """Which messages a dead process of the peer may have seen."""
        outbox, inbox = self._session.outbox, attach.inbox
        echoed = inbox is not None and inbox.outbox_id == outbox.outbox_id
        other = outbox.receiver is not None and outbox.receiver != connection.peer_incarnation
        position = inbox.received if inbox is not None and echoed else outbox.first - 1
        if outbox.marked and self._endpoint.config.on_peer_restart == "report":
            outbox.give_up_transmitted(0, outbox.marked)  # a journal brought it back
        if other and not (outbox.receiver_durable and echoed):
            self._doubt(0, outbox.sent)
        elif position < outbox.received:
            self._doubt(position, outbox.received)
        receiver = connection.peer_incarnation, attach.durable
        if (outbox.receiver, outbox.receiver_durable) != receiver:
            outbox.receiver, outbox.receiver_durable = receiver
            journal = self._session.open_journal()
            if journal is not None:
                journal.barrier(ReceiverKnown)

    def _doubt(self, after: int, through: int) -> None:
        """A dead process of the peer may have seen these messages: flag them, or give them up."""
        outbox, journal = self._session.outbox, self._session.open_journal()
        report = self._endpoint.config.on_peer_restart == "report"
        if report:
            outbox.give_up_transmitted(after, through)
        if through > outbox.marked and (journal is not None or not report):
            outbox.marked = through
            if journal is not None:  # a mark lasts (P-MARK-3); what is given up would be back after a crash
                journal.barrier(ReceiverKnown)

    def _settle_ended(self, ended: Ended) -> None:
        """The peer dropped our outbox: what it had is settled, the rest goes on under a new name."""
        outbox = self._session.outbox
        outbox.acknowledge(ended.read, ended.read)
        if ended.why == Why.ABORTED:
            outbox.finish(Outcome.ABANDONED, "the session was aborted by the peer", ended.received)
        else:
            outbox.finish(Outcome.EXPIRED, "the session expired at the peer", ended.received)
        self._session.rename_outbox(mark=False)
        self._session.wake(Watch.PROGRESS)

    def _open_inbox(self, connection: Connection, attach: Attach) -> bool:
        """As the receiver: take up the inbox of the peer's outbox.  True if the peer's process is a new one."""
        session = self._session
        restarted = session.peer_incarnation is not None and session.peer_incarnation != connection.peer_incarnation
        durable = session.open_journal() is not None
        inbox, previous = session.inboxes.open(attach, durable=durable, since=session.since)
        if restarted:
            left = None
            if previous is not None and previous.outbox_id != inbox.outbox_id:
                left = inbox.restarted = Positions(previous.outbox_id, previous.received, previous.read)
            session.notices.restarted(left)
        inbox.attach(connection.credit_told)
        told = connection.inbox_told
        untold = not inbox.empty and (told is None or told.outbox_id != inbox.outbox_id)
        if connection.dialer and untold:
            self._pass_over(inbox, attach.first)
        news = untold or connection.settled_told != self._settled()
        session.acknowledger.begin(inbox, news=connection.dialer and news)
        return restarted

    def _pass_over(self, inbox: Inbox, first: int) -> None:
        """The peer was told of another inbox, and knows of no hole before its ``first``: nobody will say a SKIP."""
        hole = first > inbox.received + 1 and not inbox.fin
        gap = inbox.skip(inbox.received + 1, first - 1, SkipReason.ALREADY_READ) if hole else None
        if gap is not None:
            self._session.notices.gap(gap)

    # -- afterwards ---------------------------------------------------------------------------------------------

    def moved(self) -> bool:
        """Did any position move on the present connection, or is known only by its ATTACH to have moved before?"""
        return self._known or self._positions() != self._position

    def leave(self) -> None:
        """The connection is gone, and what moved on it may be taken back now: it did move."""
        self._known = self.moved()

    def _positions(self) -> tuple[int, int]:
        outbox, inbox = self._session.outbox, self._session.inboxes.present
        return (outbox.received + outbox.first, inbox.received + inbox.read if inbox is not None else 0)

    def forget(self) -> None:
        """The session is over, and the connection may not be: nothing is left to tell.  Each connection asks anew."""
        self.hole = None

    def fill(self, out: list[bytes | memoryview]) -> None:
        """Append what tells the peer of its hole, if there is credit for it; no message goes before.

        With a journal not before the ends of those messages are on disk: after a crash they would be back.
        """
        outbox, journal = self._session.outbox, self._session.journal
        durable = journal is None or self.hole is None or (journal.open and journal.first > self.hole[1])
        if self.hole is not None and durable and outbox.used < outbox.credit:
            out.append(encode_skip(*self.hole, SkipReason.ALREADY_READ))
            outbox.used += COST_PER_MESSAGE
            self.hole = None
