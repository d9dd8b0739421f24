"""What two nodes share and what outlives connections: my outbox to you, and yours to me.

Theory of operation
-------------------
A session owns one :class:`~networkio_proto.outbox.Outbox`, the inboxes of the peer's outboxes (one, unless the peer
changed its outbox while messages of the old one were unread), the acknowledgement policy, the credit, and the notices.
It has at most one live connection, which feeds it (:meth:`receive_message` and its neighbours) and drains it
(:meth:`fill`).  Taking up a connection is :meth:`attach`: a symmetric exchange of facts, judged by
:mod:`~networkio_proto.resume`; losing one is :meth:`detach`, which changes no position.

Commands (:meth:`send`, :meth:`settle`, ...) are what the application does.  They raise for local misuse, and then have
changed nothing.  After any of them the endpoint's effects may have something for the driver.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import TYPE_CHECKING, Any

from .arbiter import Arbitration
from .config import COST_PER_MESSAGE
from .errors import (
    CloseCode,
    ConfigurationError,
    ConnectionFailure,
    ConnectionLost,
    EncodeError,
    MessageTooLarge,
    NodeClosed,
    OutboxFull,
    Outcome,
    SessionClosed,
)
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
    Wake,
)
from .frames import DataFlag, PeerFault, SkipReason, encode_ack, encode_reject, encode_skip
from .handshake import MAX_ENDED, Attach, Ended, InboxFacts, Why
from .inbox import Delivery, Inbox, Reject
from .journal import InboxMoved, OutboxOpened, OutboxTrimmed, ReceiverKnown, SessionJournal
from .ledger import Failure, Ledger
from .maps import encode_map
from .outbox import SMALL, Entry, Outbox
from .receipts import ReceiptWaiters
from .requests import Requests
from .resume import Verdict, judge
from .timers import Timed
from .why import explain
from .window import Window

if TYPE_CHECKING:
    from .connection import Connection
    from .endpoint import Endpoint
    from .reconnect import Target

__all__ = ["Notice", "Session", "Watch"]

#: separate gaps told by one notice; further ones melt into the last
_GAP_RANGES = 1024

#: inboxes of outboxes that the peer left are kept, newest last, while they hold something unread, and so many beyond
_OLD_INBOXES = 8

#: users' headers leave room for the reserved ``id`` in the map's 64 items and 4 KiB (specification, P-DATA-21)
_HEADER_ITEMS = 63
_HEADER_BYTES = 4064


class Notice:
    """Kinds of notices, as bits: at most one of a kind waits per session."""

    READY = 1
    RECEIVED = 2
    READ = 4
    FAILED = 8
    LINK = 16
    RESTARTED = 32
    GAP = 64
    PEER_ENDED = 128
    ENDED = 256


class Watch:
    """What somebody waits for, as bits of ``Session.watch``; a Wake follows when it may be there."""

    #: a message to take, or the end of them
    READABLE = 1
    #: room in the outbox
    ROOM = 2
    #: positions or outcomes of our messages
    PROGRESS = 4
    #: a connection went live or was lost
    LINK = 8
    #: a reply to a request
    REPLY = 16


class Session(Timed):
    """One peer, as this node knows it.  Made by ``Endpoint.session``."""

    __slots__ = (
        "_accounted",
        "_acked_cost",
        "_acked_received",
        "_ack_pending",
        "_ack_timer",
        "_ack_urgent",
        "_attach_position",
        "_attach_progress",
        "_draining",
        "_ended",
        "_endpoint",
        "_gaps",
        "_hole",
        "_message_limit",
        "_pending",
        "_receiver_durable",
        "_rejects_unsent",
        "_reject_seen",
        "_rejects_heard",
        "_stated",
        "_told",
        "_report",
        "_restart",
        "_wake",
        "_waking",
        "arbitration",
        "closed",
        "connection",
        "connections",
        "dormant",
        "ending",
        "error",
        "finished",
        "handle",
        "inbox",
        "inboxes",
        "journal",
        "outbox",
        "parked",
        "peer_dials",
        "peer_expiry",
        "peer_incarnation",
        "peer_id",
        "peer_message_limit",
        "receipts",
        "requests",
        "since",
        "targets",
        "waiting_since",
        "watch",
        "window",
    )

    def __init__(self, endpoint: Endpoint, peer_id: str, now: float) -> None:
        super().__init__()
        self._endpoint = endpoint
        self.peer_id = peer_id
        #: what notices carry as ``peer``: the embedding program's own object, or the peer id
        self.handle: Any = peer_id
        self.arbitration = Arbitration(endpoint.peer_id, peer_id)
        self.outbox = Outbox(endpoint.random_bytes(16), endpoint.run)
        #: what of this session waits for the disk; None without a journal, and until there is something
        self.journal: SessionJournal | None = None
        #: the present inbox, None until the peer attached; and all of them, the present one last
        self.inbox: Inbox | None = None
        self.inboxes: list[Inbox] = []
        #: inboxes that shrank to their positions
        self.dormant: list[InboxFacts] = []
        self.connection: Connection | None = None
        #: newcomers of another incarnation that wait for the probe of the incumbent
        self.parked: list[Connection] = []
        self.targets: list[Target] = []
        self.connections = 0
        self.peer_incarnation: bytes | None = None
        self.peer_dials = False
        self.peer_message_limit: int | None = None
        #: the lesser of both sides', as far as it is known
        self._message_limit = endpoint.config.limits.message
        self.peer_expiry: float | None = None
        #: since when it is connected, or not; and since when the oldest unread message is the oldest
        self.since = now
        self.waiting_since = now
        #: why it is not connected
        self.error: ConnectionFailure | None = None
        #: bits of :class:`Watch` that somebody waits for
        self.watch = 0
        #: who waits for the outcome of a message; look there after a Wake for ``Watch.PROGRESS``
        self.receipts = ReceiptWaiters()
        #: who waits for a reply; look there after a Wake for ``Watch.REPLY``
        self.requests = Requests()
        #: ``end`` was called, FIN is on its way
        self.ending = False
        #: ended or aborted; a new connection or target opens it again
        self.closed = False
        #: both FINs are read; as dialer we stay only to hear the acceptor say so
        self.finished = False
        self._draining = 0
        self._ended: list[tuple[float, Ended]] = []
        self._pending = 0
        self._waking = False
        self._wake = Wake(self)
        self._gaps: list[GapRange] = []
        self._restart: Positions | None = None
        self._report = ResumeReport(False, 0, False, "", 0, 0.0)
        self._receiver_durable = False
        self._hole: tuple[int, int] | None = None
        self._accounted = 0
        self.window = Window(endpoint)
        self._ack_pending = False
        self._ack_urgent = False
        self._ack_timer = False
        self._acked_received = 0
        self._acked_cost = 0
        self._attach_position = (0, 0)
        self._stated = (0, 0)
        #: received, read, credit and first as the peer was told on this connection
        self._told = (0, 0, 0, 0)
        self._attach_progress = False
        self._rejects_unsent: list[Reject] = []
        self._reject_seen = 0
        self._rejects_heard: set[int] = set()

    # -- facts --------------------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Is there a live connection?"""
        return self.connection is not None

    @property
    def can_send(self) -> bool:
        """May :meth:`send` be called, room permitting?"""
        return not (self.closed or self.ending or self._draining or self._endpoint.closed)

    @property
    def has_room(self) -> bool:
        """Would a message be accepted now, as far as bounds go?"""
        endpoint = self._endpoint
        return (
            self.outbox.cost < endpoint.config.outbox_limit
            and endpoint.outbox_cost < endpoint.config.outbox_node_limit
        )

    @property
    def unread(self) -> int:
        """Messages of the peer that wait to be taken."""
        return sum(inbox.unread for inbox in self.inboxes)

    @property
    def unsettled(self) -> int:
        """Cost of what came from the peer and is not settled."""
        return sum(inbox.unsettled + inbox.partial for inbox in self.inboxes)

    @property
    def held(self) -> int:
        """Messages of the peer that were taken and are not settled."""
        return sum(len(inbox.held) for inbox in self.inboxes)

    @property
    def unacknowledged(self) -> int:
        """Own messages that the peer's application has not read."""
        return self.outbox.unread

    @property
    def ledger(self) -> Ledger:
        """What became of the messages accepted for this peer, up to now."""
        return self.outbox.ledger.copy()

    @property
    def positions(self) -> Positions:
        """Where our outbox stands at the peer, as far as it is known here."""
        return Positions(self.outbox.outbox_id, self.outbox.received, self.outbox.read)

    @property
    def nothing_follows(self) -> bool:
        """Will nothing more come: did the peer end its outbox, or is the session over?"""
        return self.closed or (self.inbox is not None and self.inbox.fin > 0)

    @property
    def peer_ended(self) -> bool:
        """Will nothing more come, and was all that came taken?"""
        return self.nothing_follows and not self.unread

    @property
    def stalled(self) -> bool:
        """Do messages that nobody settles fill the window, so that the peer cannot send?"""
        return self.unsettled >= self.window.size

    def outcome(self, sequence: int) -> Outcome | None:
        """How a message ended, None while it is under way."""
        failure = self.outbox.failures.find(sequence)
        if failure is not None:
            return failure.outcome if failure.exact else None  # it ended; how is no longer on record
        return Outcome.READ if sequence < self.outbox.first else None

    def failure(self, sequence: int) -> Failure | None:
        """The record of a message that ended otherwise than READ."""
        return self.outbox.failures.find(sequence)

    def failures(self) -> list[Failure]:
        """All such records, oldest first; the oldest melt past 1,024 ranges."""
        return self.outbox.failures.ranges()

    # -- commands: sending --------------------------------------------------------------------------------------

    def send(
        self,
        payload: bytes,
        now: float,
        *,
        headers: Mapping[str, object] | None = None,
        raw: bool = False,
        ttl: float | None = None,
        ack_now: bool = False,
        reserved: Mapping[str, object] | None = None,
    ) -> int:
        """Accept a message; returns its sequence (guarantees, *Words*).

        ``payload`` is retained uncopied when it is large and must not change.  ``raw`` marks bytes that no codec made.
        ``headers``: at most 63 items of the closed map set.  ``ttl`` seconds from now it ends as EXPIRED if the peer
        does not hold it.  ``ack_now`` asks the peer to acknowledge without delay.  ``reserved`` are headers of the
        library itself (:mod:`~networkio_proto.requests`).

        Raises OutboxFull, SessionClosed, NodeClosed, MessageTooLarge, EncodeError (headers); nothing was changed then.
        """
        if self.closed or self.ending or self._draining or self._endpoint.closed:
            self._refuse()
        if ttl is not None and not 0 < ttl < inf:
            raise ConfigurationError(f"ttl is {ttl}; it must be a number of seconds greater than zero")
        outbox, endpoint = self.outbox, self._endpoint
        size = len(payload)
        encoded = encode_headers(headers, reserved) if headers or reserved else b""
        if size + len(encoded) > self._message_limit:
            self._too_large(size + len(encoded))
        config = endpoint.config
        if outbox.cost >= config.outbox_limit or endpoint.outbox_cost >= config.outbox_node_limit:
            self._make_room(now)
        if size <= SMALL and not encoded and ttl is None and not ack_now:
            sequence = outbox.append(payload, raw)
        else:
            flags = (DataFlag.RAW if raw else 0) | (DataFlag.ACK_NOW if ack_now else 0)
            sequence = outbox.append_entry(Entry(payload, encoded, flags, None if ttl is None else now + ttl))
            if ttl is not None:
                self._endpoint.timers.schedule(self, now + ttl)
        outbox.ledger.accepted += 1
        if sequence == outbox.first:
            self.waiting_since = now
        cost = outbox.cost
        endpoint.outbox_cost += cost - self._accounted
        self._accounted = cost
        if endpoint.journal is not None:
            self._journal_entry(sequence)
        connection = self.connection
        if connection is not None and not connection.dirty:
            connection.want_write(now)
        return sequence

    def check_size(self, payload: bytes, headers: Mapping[str, object] | None = None) -> None:
        """Raise MessageTooLarge or EncodeError where :meth:`send` would, and send nothing."""
        size = len(payload) + (len(encode_headers(headers)) if headers else 0)
        if size > self._message_limit:
            self._too_large(size)

    def _refuse(self) -> None:
        if self._endpoint.closed:
            raise NodeClosed(f"node {self._endpoint.peer_id} is closed")
        why = "it is draining" if self._draining else "the session was ended; connect again to begin a new one"
        raise SessionClosed(f"{self.peer_id} takes no new messages from this side: {why}")

    def _make_room(self, now: float) -> None:
        config = self._endpoint.config
        if config.overflow == "drop_oldest":
            while not self.has_room and self.outbox.drop_oldest():
                self.account()
            self._after_failures()
        if not self.has_room:
            self._endpoint.starved[self.peer_id] = self
            raise OutboxFull(
                f"the outbox to {self.peer_id} holds {self.outbox.unread} unread messages of cost "
                f"{self.outbox.cost} (outbox_limit {config.outbox_limit}, node {self._endpoint.outbox_cost} of "
                f"{config.outbox_node_limit}): {self.why(now)}"
            )

    def _too_large(self, size: int) -> None:
        limit = self._endpoint.config.limits.message
        raise MessageTooLarge(
            f"a message of {size} bytes to {self.peer_id} is over the limit: {limit} here, "
            f"{self.peer_message_limit or 'unknown'} at the peer; split it or raise limits.message on both sides"
        )

    def cancel(self, sequence: int, now: float) -> bool:
        """End a message that no process of the peer has seen; False if that is not certain (it may still be read)."""
        done = self.outbox.cancel(sequence)
        self.account()
        self._after_failures()
        if self.connection is not None:
            self.connection.want_write(now)
        return done

    # -- commands: receiving ------------------------------------------------------------------------------------

    def take(self, limit: int = 1) -> list[Delivery]:
        """Hand over up to ``limit`` messages; they are held until settled or released."""
        taken: list[Delivery] = []
        for inbox in self.inboxes:
            while len(taken) < limit and (delivery := inbox.take()) is not None:
                taken.append(delivery)
        return taken

    def take_settled(self, limit: int, now: float) -> list[Delivery]:
        """Hand over up to ``limit`` messages and settle them at once."""
        taken: list[Delivery] = []
        for inbox in self.inboxes:
            taken += inbox.take_settled(limit - len(taken))
        if taken:
            self._after_settling(now)
        return taken

    def settle(
        self, delivery: Delivery, now: float, *, reject: tuple[int, str] | None = None
    ) -> None:
        """The application is done with a held message: acknowledge it, or reject it with a code and a reason.

        Raises MessageNotHeld if it was settled or released before.
        """
        inbox = delivery[0]
        if reject is None:
            inbox.settle(delivery[1])
        else:
            told = inbox.reject(delivery[1], *reject)
            if told is not None and inbox is self.inbox:
                self._rejects_unsent.append(told)
        self._after_settling(now)

    def release(self, delivery: Delivery, now: float) -> None:
        """Give a held message back to its old place; it is handed over again.  Raises MessageNotHeld."""
        delivery[0].release(delivery[1])
        self._ready(now)

    def _after_settling(self, now: float) -> None:
        self._journal_inbox()
        self._ack_pending = True
        connection = self.connection
        if connection is not None:
            if not self._ack_urgent and (not self.held or self.ending or self._draining):
                self._ack_urgent = True
                if not connection.dirty:
                    connection.want_write(now)
            elif not self._ack_urgent:
                self._delay_ack(now)
        elif self.window.reserved:
            self.window.release(self.unsettled)
        if len(self.inboxes) > 1:
            self._drop_old_inboxes()
        if self.ending:
            self.check_finished(now)

    # -- commands: ending ---------------------------------------------------------------------------------------

    def drain(self, now: float) -> None:
        """Refuse new messages and hurry acknowledgements until :meth:`undrain` (guarantees, *Each await*)."""
        self._draining += 1
        self._hurry(now)

    def undrain(self) -> None:
        """The drain is over, for better or worse."""
        self._draining -= 1

    def disconnect(self, now: float) -> None:
        """Close the connection and dial no more; the session can be resumed by either side."""
        self._drop_targets()
        self._endpoint.close_pending(self, now)
        if self.connection is not None:
            self.connection.close(CloseCode.NORMAL, "", now)

    def end(self, now: float) -> None:
        """Send FIN: nothing follows.  When both sides' FINs are read the session is over."""
        if self.ending or self.closed:
            return
        self.ending = True
        sequence = self.outbox.append_fin()
        if self._endpoint.journal is not None:
            self._journal_entry(sequence)
        self.account()
        self.wake(Watch.ROOM)  # whoever waits for room waits in vain
        self._hurry(now)
        self.check_finished(now)

    def abort(self, now: float) -> None:
        """Give everything up: unread messages end as ABANDONED, the peer learns it at the next chance."""
        self.closed = True
        self.ending = False
        self.outbox.finish(Outcome.ABANDONED, "the session was aborted by this side")
        self._over(Why.ABORTED, now)
        self._drop_targets()
        self._endpoint.close_pending(self, now)
        if self.connection is not None:
            self.connection.close(CloseCode.ABORT, "", now, resumable=False)

    def aborted_by_peer(self, now: float) -> None:
        """The peer gave the session up on our live connection: what it had not read, nobody will."""
        self.closed = True
        self.ending = False
        self.outbox.finish(Outcome.ABANDONED, "the session was aborted by the peer")
        self._over(Why.ABORTED, now)
        self._drop_targets()

    def _hurry(self, now: float) -> None:
        self._ack_pending = self._ack_urgent = True
        if self.connection is not None:
            self.connection.want_write(now)

    def _drop_targets(self) -> None:
        for target in list(self.targets):
            self._endpoint.remove_target(target)

    def check_finished(self, now: float) -> None:
        """Both FINs read: drop the state, keep the positions."""
        inbox = self.inbox
        if not (self.ending and self.outbox.all_read and inbox is not None and inbox.finished):
            return
        self.ending = False
        self.closed = self.finished = True
        connection = self.connection
        if connection is not None:
            connection.last_words(encode_ack(inbox.received, inbox.read, inbox.allowed, self.outbox.first))
        self._over(Why.FINISHED, now)
        if connection is not None and not connection.dialer:
            connection.close(CloseCode.NORMAL, "both sides ended the session", now, resumable=False)

    def confirmed(self, connection: Connection, now: float) -> None:
        """Live again, as the dialer, only because the acceptor's last CLOSE was lost: now both know (P-END-6)."""
        self.finished = False
        self.closed = True
        self._drop_targets()
        connection.close(CloseCode.NORMAL, "both sides ended the session", now, resumable=False)

    def reopen_for_peer(self) -> None:
        """The peer goes on: a new session has begun on the connection that was to confirm the old one's end."""
        self.closed = self.finished = False

    def reopen(self, now: float) -> None:
        """The application wants it again; a connection that only waits for the old one's last word is in the way."""
        lingering = self.connection if self.finished else None
        self.closed = self.finished = False
        if lingering is not None:
            lingering.close(CloseCode.RETRY, "", now)

    def _over(self, why: int, now: float) -> None:
        """The common end: final positions on record, a fresh outbox, a notice."""
        self._pass_replies_on(now)  # they may have come in the same chunk as the end
        for facts in self.dormant + [box.facts() for box in self.inboxes if not box.empty]:
            if not self._is_ended(facts.outbox_id):
                self._record(facts, why, now)
        for old in self.inboxes:
            if not old.forsaken:
                old.forsake()
        self.inboxes = [old for old in self.inboxes if old.unread or old.held]
        self.dormant = []
        self.inbox = None
        if self.journal is not None:
            self.journal.want(InboxMoved)
        self._rejects_unsent = []
        self._hole = None
        self._rename_outbox(mark=False)
        self.account()
        self._after_failures()
        self.requests.give_up()
        self.wake(Watch.READABLE | Watch.PROGRESS | Watch.ROOM | Watch.REPLY)
        self.notify(Notice.ENDED)

    def _record(self, f: InboxFacts, why: int, now: float) -> None:
        """The final positions of an inbox that is dropped, to be told as ``ended``."""
        self._ended.insert(0, (now, Ended(f.outbox_id, f.run, f.received, f.read, f.first, why)))
        del self._ended[MAX_ENDED:]

    # -- taking up and losing connections -----------------------------------------------------------------------

    def facts(self, connection: Connection, now: float) -> Attach:
        """What our ATTACH on ``connection`` says."""
        arbitration = self.arbitration
        incarnation = connection.peer_incarnation
        retention = self._endpoint.config.ended_retention
        self._ended = [item for item in self._ended if now - item[0] < retention]
        self.window.open(self.unsettled)
        self._stated = self._settled()
        credit = max(0, self.window.size - self.unsettled)
        connection.credit_told = credit
        connection.outbox_told = self.outbox.outbox_id
        return Attach(
            outbox_id=self.outbox.outbox_id,
            run=self.outbox.run,
            first=self._stated_first(),
            next=self.outbox.next,
            inbox=self._reported(),
            ended=tuple(ended for _, ended in self._ended),
            durable=False,
            expiry=self._own_expiry(),
            credit=credit,
            generation=connection.generation if arbitration.arbiter else None,
            seen=None if arbitration.arbiter else arbitration.seen(incarnation),
            mac=None,
        )

    def _settled(self) -> tuple[int, int]:
        """What changes when the application settles something."""
        return (0 if self.inbox is None else self.inbox.read, self.unsettled)

    def _reported(self) -> InboxFacts | None:
        """The newest inbox that holds something."""
        for inbox in reversed(self.inboxes):
            if not inbox.empty and (inbox is self.inbox or not self._is_ended(inbox.outbox_id)):
                return inbox.facts()
        return self.dormant[-1] if self.dormant else None

    def _is_ended(self, outbox_id: bytes) -> bool:
        return any(ended.outbox_id == outbox_id for _, ended in self._ended)

    def attach(self, connection: Connection, attach: Attach, now: float) -> CloseCode | None:
        """Take a verified connection up; or the code to close it with: RETRY to dial again, NORMAL if all is over."""
        if self._overstated(attach):
            return CloseCode.PROTOCOL
        if connection.dialer and connection.outbox_told != self.outbox.outbox_id:
            return CloseCode.RETRY  # the session ended meanwhile: what the peer would take is no more
        verdict = self._attach_outbox(connection, attach, now)
        over = verdict is Verdict.ENDED and self.ending
        if over:
            self._give_up_ending(now)
        if over or (connection.dialer and verdict in (Verdict.ROLLED_BACK, Verdict.ENDED)):
            self.account()
            self._after_failures()
            # what the dialer wants now is not what ended: as acceptor let it come again
            return CloseCode.NORMAL if over and connection.dialer else CloseCode.RETRY
        restarted = self._attach_inbox(connection, attach)
        self.peer_incarnation = connection.peer_incarnation
        self.peer_expiry = attach.expiry
        self.peer_dials = self.peer_dials or not connection.dialer
        self.peer_message_limit = connection.peer_limits.message
        self._message_limit = min(self._endpoint.config.limits.message, self.peer_message_limit)
        self.connections += 1
        self._report = ResumeReport(
            resumed=self.connections > 1,
            connections=self.connections,
            peer_restarted=restarted,
            verdict=verdict.value,
            retransmitted=max(0, self.outbox.sent - self.outbox.cursor + 1),
            downtime=max(0.0, now - self.since) if self.connections > 1 else 0.0,
        )
        self.connection = connection
        self.closed = False
        self._rejects_heard.clear()
        self._told = (0, 0, 0, 0)
        self.since = now
        self.error = None
        # Rejections, and what was settled since a dialer's ATTACH: there may be no other reason to write.
        self._ack_pending = True
        self._ack_urgent = bool(self._rejects_unsent) or (connection.dialer and self._stated != self._settled())
        self._attach_position = self._moved()
        self.account()
        self._after_failures()
        self.notify(Notice.LINK)
        self.wake(Watch.LINK | Watch.PROGRESS | Watch.ROOM)
        return None

    def _overstated(self, attach: Attach) -> bool:
        """Does the peer claim messages of the present run that were never transmitted (P-ACK-3)?"""
        outbox = self.outbox
        most = max(outbox.first - 1, outbox.transmitted, outbox.received)
        claims: list[InboxFacts | Ended] = [*attach.ended]
        if attach.inbox is not None:
            claims.append(attach.inbox)
        return any(
            claim.outbox_id == outbox.outbox_id and claim.run == outbox.run and most < claim.received < outbox.next
            for claim in claims
        )

    def _attach_outbox(self, connection: Connection, attach: Attach, now: float) -> Verdict:
        """As the sender: judge what the peer says that it holds, set the cursor and the marks."""
        outbox = self.outbox
        verdict, ended = judge(outbox.facts(), attach.inbox, attach.ended)
        self._mark(connection, attach)
        self._hole = None
        self._attach_progress = False
        inbox = attach.inbox
        if verdict is Verdict.ROLLED_BACK:
            self._doubt(0, outbox.sent)
            self._rename_outbox(mark=True)
        elif verdict is Verdict.ENDED and ended is not None:
            self._settle_ended(ended)
        elif verdict is Verdict.NORMAL and inbox is not None:
            outbox.echoed(inbox)
            gained, settled = outbox.acknowledge(inbox.received, inbox.read)
            self._attach_progress = bool(gained or settled)
            self._progress(gained, settled, now)
            outbox.resume(inbox.received)
        else:
            outbox.resume(outbox.first - 1)
            if verdict is Verdict.HOLE and inbox is not None:
                self._hole = (inbox.received + 1, outbox.first - 1)
        outbox.attach(connection.peer_limits.frame, connection.peer_limits.message, attach.credit)
        outbox.expire_overdue()
        return verdict

    def _mark(self, connection: Connection, attach: Attach) -> None:
        """Which messages a dead process of the peer may have seen (specification, *Marks*)."""
        outbox, inbox = self.outbox, attach.inbox
        echoed = inbox is not None and inbox.outbox_id == outbox.outbox_id
        other = outbox.receiver is not None and outbox.receiver != connection.peer_incarnation
        position = inbox.received if inbox is not None and echoed else outbox.first - 1
        if other and not (self._receiver_durable and echoed):
            self._doubt(0, outbox.sent)
        elif position < outbox.received:
            self._doubt(position, outbox.received)
        if outbox.receiver != connection.peer_incarnation:
            outbox.receiver = connection.peer_incarnation
            journal = self.open_journal()
            if journal is not None:
                journal.barrier(ReceiverKnown)
        self._receiver_durable = attach.durable

    def _doubt(self, after: int, through: int) -> None:
        """A dead process of the peer may have seen these messages: flag them, or give them up."""
        if self._endpoint.config.on_peer_restart == "report":
            self.outbox.give_up_transmitted(after, through)
        else:
            self.outbox.marked = max(self.outbox.marked, through)

    def _settle_ended(self, ended: Ended) -> None:
        """The peer dropped our outbox: what it had is settled, the rest goes on under a new name."""
        outbox = self.outbox
        outbox.acknowledge(ended.read, ended.read)
        if ended.why == Why.ABORTED:
            outbox.finish(Outcome.ABANDONED, "the session was aborted by the peer", ended.received)
        else:
            outbox.finish(Outcome.EXPIRED, "the session expired at the peer", ended.received)
        self._rename_outbox(mark=False)
        self.wake(Watch.PROGRESS)

    def _give_up_ending(self, now: float) -> None:
        """We sent FIN, and the peer has dropped the session meanwhile: it is over here too."""
        self.outbox.finish(Outcome.ABANDONED, "the peer ended the session")
        self.ending = False
        self.closed = True
        self._over(Why.FINISHED, now)
        self._drop_targets()

    def _attach_inbox(self, connection: Connection, attach: Attach) -> bool:
        """As the receiver: find or make the inbox for the peer's outbox.  True if the peer's process is a new one."""
        self.inboxes = [Inbox.restored(facts) for facts in self.dormant] + self.inboxes
        self.dormant = []
        old = self.inbox
        barred = self._is_ended(attach.outbox_id)
        inbox = None if barred else next((box for box in self.inboxes if box.outbox_id == attach.outbox_id), None)
        restarted = self.peer_incarnation is not None and self.peer_incarnation != connection.peer_incarnation
        if inbox is None or inbox.empty:
            if inbox is None:
                inbox = Inbox(attach.outbox_id, attach.run, attach.first)
            inbox.rebase(attach.first, attach.run)
            inbox.barred = barred
        else:
            inbox.passed(attach.first)
        if inbox.empty and self.open_journal() is not None:
            inbox.durable_read = inbox.base
        inbox.forsaken = False
        if old is not None and old is not inbox:
            old.forsake()
        previous = self._reported()
        self.inboxes = [box for box in self.inboxes if box is not inbox and not (box.empty and box.idle)]
        self.inboxes.append(inbox)
        self.inbox = inbox
        self._drop_old_inboxes()
        if restarted:
            self._restart = None
            if previous is not None and previous.outbox_id != inbox.outbox_id:
                self._restart = Positions(previous.outbox_id, previous.received, previous.read)
                inbox.restarted = self._restart
            self.notify(Notice.RESTARTED)
        inbox.attach(connection.credit_told)
        self._rejects_unsent = sorted(inbox.rejects.values(), key=lambda reject: reject.sequence)
        self._acked_received, self._acked_cost = inbox.received, 0
        return restarted

    def _drop_old_inboxes(self) -> None:
        """Old inboxes without anything unread are only positions; a few of the newest are kept."""
        idle = [box for box in self.inboxes if box is not self.inbox and not box.unread and not box.held]
        if len(idle) > _OLD_INBOXES:
            for box in idle[: len(idle) - _OLD_INBOXES]:
                self.inboxes.remove(box)
                self._record(box.facts(), Why.EXPIRED, self.since)

    def detach(self, error: ConnectionFailure, now: float) -> None:
        """The live connection is gone; no position changes."""
        self.connection = None
        self.since = now
        self.error = error
        if self.inbox is not None:
            self.inbox.partial = 0
        self.window.release(self.unsettled)
        self.notify(Notice.LINK)
        self.wake(Watch.LINK)
        expiry = self._expiry()
        shrink = self._endpoint.config.shrink_after
        self._endpoint.timers.schedule(self, now + (shrink if expiry is None else min(expiry, shrink)))

    def moved(self) -> bool:
        """Did any position move on the present connection, or is known only by its ATTACH to have moved before?"""
        return self._attach_progress or self._moved() != self._attach_position

    def _moved(self) -> tuple[int, int]:
        inbox = self.inbox
        return (self.outbox.received + self.outbox.first, inbox.received + inbox.read if inbox is not None else 0)

    def credit_granted(self, connection: Connection) -> None:
        """The acceptor's ATTACH is out: this much the peer may send."""
        self._inbox().attach(connection.credit_told)

    def peer_is_done(self) -> None:
        """The peer closed for good: so does this side, if it has nothing to say."""
        self._drop_targets()
        self.closed = self.closed or self.outbox.all_read
        if self.closed:
            self.requests.give_up()
        self.wake(Watch.READABLE | Watch.REPLY)

    def wake_for_room(self) -> None:
        """There may be room in the node's outboxes."""
        self.wake(Watch.ROOM)

    def wake_all(self) -> None:
        """Everybody who waits must look again."""
        self.wake(Watch.READABLE | Watch.ROOM | Watch.PROGRESS | Watch.LINK | Watch.REPLY)

    # -- what the live connection brings ------------------------------------------------------------------------

    def receive_skip(self, first: int, last: int, reason: int) -> bool:
        """SKIP; False if it moved nothing."""
        inbox = self._inbox()
        inbox.admit(COST_PER_MESSAGE)
        gap = inbox.skip(first, last, reason)
        if gap is None:
            return False
        if self._gaps and self._gaps[-1].reason == reason and self._gaps[-1].last + 1 == gap.first:
            self._gaps[-1] = GapRange(self._gaps[-1].first, gap.last, reason)
        elif len(self._gaps) < _GAP_RANGES:
            self._gaps.append(gap)
        else:
            self._gaps[-1] = GapRange(self._gaps[-1].first, gap.last, reason)
        self.notify(Notice.GAP)
        return True

    def receive_fin(self, sequence: int, now: float) -> bool:
        """FIN; False if it moved nothing."""
        inbox = self._inbox()
        inbox.admit(COST_PER_MESSAGE)
        if not inbox.expect(sequence):
            return False
        inbox.finish(sequence)
        self.notify(Notice.PEER_ENDED)
        self.requests.give_up()
        self.wake(Watch.READABLE | Watch.REPLY)
        self._hurry(now)
        self.check_finished(now)
        return True

    def receive_ack(self, received: int, read: int, credit: int, first: int, now: float) -> bool:
        """ACK; False if it moved nothing."""
        outbox, inbox = self.outbox, self._inbox()
        if read > received or received > max(outbox.transmitted, outbox.received):
            raise PeerFault(
                CloseCode.PROTOCOL, f"ACK of received {received}, read {read} where {outbox.transmitted} was sent"
            )
        if first > inbox.received + 1 and first > inbox.first:
            raise PeerFault(CloseCode.PROTOCOL, f"ACK says first {first} where only {inbox.received} came")
        news = credit > outbox.credit or first > inbox.first
        if credit > outbox.credit:
            outbox.credit = credit
            self._transmit(now)
        if inbox.passed(first):
            self._hurry(now)
        gained, settled = outbox.acknowledge(received, read)
        if gained or settled:
            news = True
            self.account()
            self._progress(gained, settled, now)
        self.check_finished(now)
        return news

    def _progress(self, gained: int, settled: int, now: float) -> None:
        if gained:
            self.notify(Notice.RECEIVED)
        if settled:
            self.waiting_since = now
            self.notify(Notice.READ)
            if self._reject_seen and self.outbox.first > self._reject_seen:
                self._reject_seen = 0
                self._rejects_heard.clear()
                self._hurry(now)  # the peer waits for our ``first`` to pass its rejection
        self.wake(Watch.PROGRESS | (Watch.ROOM if self.has_room else 0))

    def receive_reject(self, outbox_id: bytes, sequence: int, code: int, text: str, now: float) -> bool:
        """REJECT; False if it means nothing."""
        outbox = self.outbox
        if outbox_id != outbox.outbox_id:
            return False
        if sequence > max(outbox.transmitted, outbox.received):
            raise PeerFault(CloseCode.PROTOCOL, f"REJECT of {sequence} where {outbox.transmitted} was sent")
        if sequence < outbox.first:
            self._hurry(now)  # the peer has not seen how far we are
            return False
        if sequence in self._rejects_heard:
            return False
        self._rejects_heard.add(sequence)
        self._reject_seen = max(self._reject_seen, sequence)
        if not outbox.reject(sequence, code, text):
            return True  # it was told on an earlier connection
        self.account()
        self._after_failures()
        return True

    def received_something(self, fresh: int, urgent: bool, now: float) -> None:
        """A chunk was worked through that brought messages, SKIPs or duplicates: notices and acknowledgement."""
        inbox = self.inbox
        self._pass_replies_on(now)
        if fresh:
            self._ready(now)
        if inbox is None:  # the session ended with the same chunk; what came before can be read
            return
        self._ack_pending = True
        self._journal_inbox()
        config = self._endpoint.config
        if (
            urgent
            or self.ending
            or self._draining
            or inbox.received - self._acked_received >= config.ack_messages
            or inbox.used - self._acked_cost >= config.ack_cost
            or inbox.allowed - inbox.used < self.window.size // 2
        ):
            self._hurry(now)
        else:
            self._delay_ack(now)

    def _pass_replies_on(self, now: float) -> None:
        """Replies that came: to those who wait for them, or away with them."""
        if self.inbox is None:
            return
        replies, self.inbox.replies = self.inbox.replies, []
        for delivery in replies:
            if self.requests.answer(delivery):
                self.wake(Watch.REPLY)
            else:
                self.settle(delivery, now)

    def _inbox(self) -> Inbox:
        if self.inbox is None:
            raise PeerFault(CloseCode.PROTOCOL, "the session is over")
        return self.inbox

    def _ready(self, now: float) -> None:
        self.notify(Notice.READY)
        self.wake(Watch.READABLE)

    # -- what goes out on the live connection -------------------------------------------------------------------

    def fill(self, out: list[bytes | memoryview], max_bytes: int, now: float) -> None:
        """Append what this session has to say: rejections, one ACK if it is time, messages."""
        outbox = self.outbox
        if self._ack_pending and (self._ack_urgent or outbox.cursor < outbox.next) and (acknowledgement := self._ack()):
            out.append(acknowledgement)
        if self._hole is not None and outbox.used < outbox.credit:
            out.append(encode_skip(*self._hole, SkipReason.ALREADY_READ))
            outbox.used += COST_PER_MESSAGE
            self._hole = None
        if self._hole is None:
            outbox.pull(out, max_bytes, now)
        if outbox.newly_failed:
            self.account()
            self._after_failures()

    def _ack(self) -> bytes:
        """Everything there is to acknowledge; rejections go first, so that no ``read`` passes one untold."""
        inbox = self.inbox
        if inbox is None:
            self._ack_pending = self._ack_urgent = False
            return b""
        ready = [r for r in self._rejects_unsent if self.journal is None or r.sequence in self.journal.rejects]
        rejects = b"".join(encode_reject(inbox.outbox_id, r.sequence, r.code, r.text) for r in ready)
        self._rejects_unsent = [r for r in self._rejects_unsent if r not in ready] if self.journal is not None else []
        self._ack_pending = self._ack_urgent = False
        self._acked_received, self._acked_cost = inbox.received, inbox.used
        unsettled = self.unsettled
        if inbox.allowed - inbox.used < self.window.size // 4 and unsettled <= self.window.size // 4:
            self.window.grow()
        inbox.allowed = max(inbox.allowed, inbox.used + self.window.size - unsettled)
        news = (inbox.received, inbox.stated_read, inbox.allowed, self._stated_first())
        if news == self._told:  # a peer counts what tells it nothing as abuse
            return rejects
        self._told = news
        return rejects + encode_ack(*news)

    def on_ack_timer(self, now: float) -> None:
        self._ack_timer = False
        if self._ack_pending:
            self._hurry(now)

    def _delay_ack(self, now: float) -> None:
        if not self._ack_timer:
            self._ack_timer = True
            self._endpoint.timers.schedule_ack(self, now + self._endpoint.config.ack_delay)

    def _transmit(self, now: float) -> None:
        if self.connection is not None and not self.connection.dirty:
            self.connection.want_write(now)

    # -- the journal's seam ---------------------------------------------------------------------------------------

    def _rename_outbox(self, *, mark: bool) -> None:
        """A new outbox id for what is retained; with a journal nothing leaves under it before it is on disk."""
        self.outbox.rename(self._endpoint.random_bytes(16), mark=mark)
        if self.journal is not None:
            self.journal.barrier(OutboxOpened)

    def _stated_first(self) -> int:
        """``first`` as it may be told: with a journal, as it is on disk."""
        return self.outbox.first if self.journal is None else min(self.outbox.first, self.journal.first)

    def open_journal(self, accepted: int = 0) -> SessionJournal | None:
        """The session's part of the journal, from the first thing on that must not be lost; None without a journal."""
        if self.journal is None and self._endpoint.journal is not None:
            self.journal = SessionJournal(self._endpoint.journal, self, accepted)
        return self.journal

    def _journal_entry(self, sequence: int) -> None:
        journal = self.open_journal()
        assert journal is not None  # whoever calls has looked
        journal.message(sequence)

    def _journal_inbox(self) -> None:
        """``read`` or a rejection is to be told: not before it is on disk."""
        journal, inbox = self.journal, self.inbox
        if journal is not None and inbox is not None:
            unwritten = inbox.rejects.keys() - journal.rejects
            if inbox.read != inbox.durable_read or unwritten:
                journal.want(InboxMoved)

    def journaled(self, now: float) -> None:
        """A batch with something of this session is durable."""
        self._hurry(now)
        self.check_finished(now)
        self.wake(Watch.ROOM | Watch.PROGRESS)

    def unaccept(self, after: int) -> None:
        """A batch failed: the messages after that sequence were never accepted."""
        self.outbox.withdraw(after)
        self.ending = self.ending and self.outbox.fin > 0
        self.account()
        self.wake_all()

    # -- time ---------------------------------------------------------------------------------------------------

    def _own_expiry(self) -> float | None:
        expiry = self._endpoint.config.session_expiry
        if expiry == "auto":
            return None if self.targets else 24 * 3600.0
        return expiry if not isinstance(expiry, str) else None

    def _expiry(self) -> float | None:
        """The lesser of both sides'."""
        both = [value for value in (self._own_expiry(), self.peer_expiry) if value is not None]
        return min(both) if both and self.connections else None

    def on_timer(self, now: float) -> float | None:
        self.outbox.expire(now)
        self.account()
        self._after_failures()
        if self.outbox.newly_failed or self.outbox.untransmitted:
            self._transmit(now)
        deadlines = [self.outbox.next_expiry or inf]
        if self.connection is None and self.connections:
            expiry = self._expiry()
            if expiry is not None and not self.closed:
                if now >= self.since + expiry:
                    self._expire(now)
                else:
                    deadlines.append(self.since + expiry)
            if now >= self.since + self._endpoint.config.shrink_after:
                self._shrink()
            else:
                deadlines.append(self.since + self._endpoint.config.shrink_after)
        deadline = min(deadlines)
        return None if deadline == inf else deadline

    def _expire(self, now: float) -> None:
        """Nobody came back in time: the session is over, but for what is still to be read here."""
        self.outbox.finish(Outcome.EXPIRED, "the session expired without a connection")
        self.ending = False
        self.peer_expiry = None
        self.connections = 0
        self._over(Why.EXPIRED, now)

    def _shrink(self) -> None:
        """Idle for long: inboxes with nothing in them, and nothing to tell, become their positions."""
        boxes = self.inboxes
        busy = any(box.unread or box.held or box.fin or not box.idle or box.gap or box.restarted for box in boxes)
        if busy or not boxes:  # without any it has shrunk before
            return
        self.dormant = [inbox.facts() for inbox in self.inboxes if not inbox.empty]
        self.inboxes = []
        self.inbox = None

    # -- telling ------------------------------------------------------------------------------------------------

    def notify(self, kind: int) -> None:
        """Queue a notice unless one of its kind waits already."""
        if not self._pending & kind:
            self._pending |= kind
            self._endpoint.queue_notice(self, kind)

    def wake(self, what: int) -> None:
        """Tell the driver if somebody waits for ``what``."""
        if self.watch & what and not self._waking:
            self._waking = True
            self._endpoint.effects.append(self._wake)

    def woken(self) -> None:
        """The driver took the Wake."""
        self._waking = False

    def notice(self, kind: int) -> Event:
        """Build the notice of a kind from the present facts; it no longer waits."""
        self._pending &= ~kind
        peer = self.handle
        if kind == Notice.READY:
            return MessagesReady(peer)
        if kind == Notice.RECEIVED:
            return MessagesReceived(peer, self.outbox.received)
        if kind == Notice.READ:
            return MessagesRead(peer, self.outbox.read)
        if kind == Notice.FAILED:
            return MessagesFailed(peer)
        if kind == Notice.LINK:
            if self.connection is not None:
                return PeerConnected(peer, self._report)
            return PeerDisconnected(peer, self.error or ConnectionLost(), self.retry_at)
        if kind == Notice.RESTARTED:
            return PeerRestarted(peer, self._restart)
        if kind == Notice.GAP:
            gaps, self._gaps = tuple(self._gaps), []
            return Gap(peer, gaps)
        if kind == Notice.PEER_ENDED:
            return PeerEnded(peer)
        return SessionEnded(peer, self.ledger)

    def _after_failures(self) -> None:
        if self.outbox.newly_failed:
            self.outbox.newly_failed = False
            self.receipts.failed = True
            self.notify(Notice.FAILED)
            self.wake(Watch.PROGRESS | (Watch.ROOM if self.has_room else 0))

    def account(self) -> None:
        """Keep the node's total in step."""
        gained = self.outbox.cost - self._accounted
        self._endpoint.outbox_cost += gained
        self._accounted += gained
        if self.journal is not None and self.outbox.first != self.journal.first:
            self.journal.want(OutboxTrimmed)
        if gained < 0 and self._endpoint.starved:
            self._endpoint.feed_starved()

    @property
    def retry_at(self) -> float | None:
        """When this side dials next, None if it does not."""
        times = [target.retry_at for target in self.targets if target.retry_at is not None]
        return min(times, default=None)

    def why(self, now: float) -> str:
        """One sentence that says what the messages to this peer are waiting for."""
        return explain(self, now)


def encode_headers(headers: Mapping[str, object] | None, reserved: Mapping[str, object] | None = None) -> bytes:
    """Users' headers, and the library's own, as they go on the wire; raises EncodeError that says what is wrong."""
    headers, reserved = headers or {}, reserved or {}
    most = _HEADER_ITEMS - len(reserved)
    if len(headers) > most:
        raise EncodeError(f"{len(headers)} headers are more than {most}", "headers")
    taken = [key for key in headers if isinstance(key, str) and (key == "id" or key.startswith("."))]
    if taken:
        raise EncodeError(f"the header {taken[0]!r} is reserved for networkio", "headers")
    try:
        encoded = encode_map({**headers, **reserved})
    except ValueError as error:
        raise EncodeError(str(error), "headers") from None
    if len(encoded) > _HEADER_BYTES:
        raise EncodeError(f"the headers take {len(encoded)} bytes, at most {_HEADER_BYTES} are allowed", "headers")
    return encoded


