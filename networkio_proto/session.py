"""What two nodes share and what outlives connections: my outbox to you, and yours to me.

Theory of operation
-------------------
A session owns one :class:`~networkio_proto.outbox.Outbox` and the :class:`~networkio_proto.inboxes.Inboxes` of the
peer's outboxes.  What happens between these and the peer is the work of its parts, each with one question:

* :class:`~networkio_proto.attachment.Attachment`: what is resumed when a connection is taken up?
* :class:`~networkio_proto.acknowledger.Acknowledger`: when is the peer told what came and what was read?
* :class:`~networkio_proto.window.Window`: how much may the peer send?
* :class:`~networkio_proto.progress.Progress`: what does the peer tell of our messages?
* :class:`~networkio_proto.notices.Notices`: what is the application told?
* :class:`~networkio_proto.farewell.Farewell`: when is it over?

It has at most one live connection, which feeds it and drains it (:meth:`fill`).  Taking one up is :meth:`attach`;
losing it is :meth:`detach`, which changes no position.

Commands (:meth:`send`, :meth:`settle`, ...) are what the application does.  They raise for local misuse, and then have
changed nothing.  After any of them the endpoint's effects may have something for the driver.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Any

from .acknowledger import Acknowledger
from .arbiter import Arbitration
from .attachment import Attachment
from .config import COST_PER_MESSAGE
from .errors import (
    CloseCode,
    ConfigurationError,
    ConnectionFailure,
    MessageTooLarge,
    NodeClosed,
    OutboxFull,
    Outcome,
    SessionClosed,
)
from .events import Positions, Wake
from .farewell import Farewell
from .frames import DataFlag, PeerFault
from .handshake import Attach
from .headers import encode_headers
from .inbox import Delivery, Inbox
from .inboxes import Inboxes
from .journal import InboxMoved, MessagesEnded, OutboxOpened, OutboxTrimmed, SessionJournal
from .ledger import Failure, Ledger
from .notices import Notice, Notices, Watch
from .outbox import SMALL, Entry, Outbox
from .progress import Progress
from .quotas import Bounds
from .reading import Reading
from .receipts import ReceiptWaiters
from .requests import Requests
from .statistics import Counters, Statistics, statistics
from .timers import Timed
from .why import explain
from .window import Window

if TYPE_CHECKING:
    from .connection import Connection
    from .endpoint import Endpoint
    from .reconnect import Target

__all__ = ["Session"]

# as plain numbers: operators of a flag are functions of Python, and slow
_RAW = int(DataFlag.RAW)
_ACK_NOW = int(DataFlag.ACK_NOW)


class Session(Timed):
    """One peer, as this node knows it.  Made by ``Endpoint.session``."""

    __slots__ = (
        "_accounted",
        "_draining",
        "_endpoint",
        "_linked",
        "_message_limit",
        "_wake",
        "_waking",
        "acknowledger",
        "arbitration",
        "attachment",
        "bounds",
        "closed",
        "connection",
        "connections",
        "counters",
        "ending",
        "error",
        "farewell",
        "finished",
        "handle",
        "inboxes",
        "journal",
        "notices",
        "outbox",
        "overfull",
        "parked",
        "peer_dials",
        "peer_expiry",
        "peer_id",
        "peer_incarnation",
        "peer_message_limit",
        "progress",
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
        if endpoint.observer is not None:
            self.outbox.on_outcome = endpoint.observer.outcomes(peer_id)
        #: what of this session waits for the disk; None without a journal, and until there is something
        self.journal: SessionJournal | None = None
        self.inboxes = Inboxes(durable=endpoint.durable_inbox)
        #: what this peer may have
        self.bounds = endpoint.quotas.of(peer_id)
        self.window = Window(endpoint, self.bounds)
        self.acknowledger = Acknowledger(self, endpoint)
        self.attachment = Attachment(self, endpoint)
        self.progress = Progress(self)
        self.notices = Notices(self, endpoint)
        self.farewell = Farewell(self, endpoint)
        self.connection: Connection | None = None
        #: newcomers of another incarnation that wait for the probe of the incumbent
        self.parked: list[Connection] = []
        self.targets: list[Target] = []
        self.connections = 0
        self.peer_incarnation: bytes | None = None
        self.peer_dials = False
        self.peer_message_limit: int | None = None
        #: the lesser of both sides', as far as it is known
        self._message_limit = self.bounds.limits.message
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
        #: for :meth:`statistics`: what no position tells
        self.counters = Counters()
        #: ``end`` was called, FIN is on its way
        self.ending = False
        #: ended or aborted; a new connection or target opens it again
        self.closed = False
        #: both FINs are read; as dialer we stay only to hear the acceptor say so
        self.finished = False
        self._draining = 0
        #: what is sent now is part of a transaction, and gets its place whether there is room or not
        self.overfull = False
        self._waking = False
        self._wake = Wake(self)
        self._accounted = 0
        self._linked = False  # a live connection was told of, and not its end

    # -- facts --------------------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Is there a live connection?"""
        return self.connection is not None

    @property
    def inbox(self) -> Inbox | None:
        """The inbox of the peer's present outbox; None until it attached, and when the session is over."""
        return self.inboxes.present

    @property
    def leaving(self) -> bool:
        """Does somebody wait for the last acknowledgements?"""
        return self.ending or self._draining > 0

    @property
    def can_send(self) -> bool:
        """May :meth:`send` be called, room permitting?"""
        return not (self.closed or self.ending or self._draining or self._endpoint.closed)

    @property
    def has_room(self) -> bool:
        """Would a message be accepted now, as far as bounds go?"""
        endpoint = self._endpoint
        return (
            self.outbox.cost < self.bounds.outbox_limit
            and endpoint.outbox_cost < endpoint.config.outbox_node_limit
        )

    @property
    def unread(self) -> int:
        """Messages of the peer that wait to be taken."""
        return self.inboxes.unread

    @property
    def unsettled(self) -> int:
        """Cost of what came from the peer and is not settled."""
        return self.inboxes.unsettled

    @property
    def held(self) -> int:
        """Messages of the peer that were taken and are not settled."""
        return self.inboxes.held

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
        return self.closed or (self.inboxes.present is not None and self.inboxes.present.ended)

    @property
    def peer_ended(self) -> bool:
        """Will nothing more come, and was all that came taken?"""
        return self.nothing_follows and not self.unread and not any(box.staged for box in self.inboxes)

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

    def statistics(self, now: float) -> Statistics:
        """What has happened so far with this peer, and how it stands."""
        return statistics(self, now)

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
        if outbox.cost >= self.bounds.outbox_limit or endpoint.outbox_cost >= endpoint.config.outbox_node_limit:
            self._make_room(now)
        if endpoint.observer is not None:
            headers, encoded = endpoint.observer.sending(
                self.peer_id, headers, reserved, encoded, self._message_limit - size
            )
        if size <= SMALL and not encoded and ttl is None and not ack_now:
            sequence = outbox.append(payload, raw)
        else:
            flags = (_RAW if raw else 0) | (_ACK_NOW if ack_now else 0)
            sequence = outbox.append_entry(Entry(payload, encoded, flags, None if ttl is None else now + ttl))
            if ttl is not None:
                self._endpoint.timers.schedule(self, now + ttl)
        outbox.ledger.accepted += 1
        if sequence == outbox.first:
            self.waiting_since = now
        cost = outbox.cost
        endpoint.outbox_cost += cost - self._accounted
        self._accounted = cost
        if endpoint.followed:
            self._follow(sequence, headers or {})
        connection = self.connection
        if connection is not None and not connection.dirty:
            connection.want_write(now)
        return sequence

    def streaming(self) -> bool:
        """Is a write due anyway?  Then :meth:`stream` may be used, until anything else is done with the core."""
        connection, outbox, endpoint = self.connection, self.outbox, self._endpoint
        return (
            connection is not None
            and connection.dirty
            and outbox.first != outbox.next  # else it waits from now on
            and not (self.closed or self.ending or self._draining or endpoint.closed or endpoint.followed)
        )

    def stream(self, payload: bytes, raw: bool) -> int:
        """The short way of :meth:`send`, for a plain small message while :meth:`streaming`; the hot path.

        Nothing but the outbox changes, so no effect comes of it, and the time does not matter.  0: :meth:`send` has to
        see to it, and nothing was changed.
        """
        outbox, endpoint = self.outbox, self._endpoint
        cost, size = outbox.cost, len(payload)
        if (
            size > SMALL
            or size > self._message_limit
            or cost >= self.bounds.outbox_limit
            or endpoint.outbox_cost >= endpoint.config.outbox_node_limit
        ):
            return 0
        sequence = outbox.append(payload, raw)
        outbox.ledger.accepted += 1
        self._accounted = outbox.cost
        endpoint.outbox_cost += size + COST_PER_MESSAGE
        return sequence

    def _follow(self, sequence: int, headers: Mapping[str, object]) -> None:
        """A message was accepted: for the journal, and for whoever is told of every message."""
        if self._endpoint.journal is not None:
            self.journal_entry(sequence)
        if self._endpoint.observer is not None:
            self._endpoint.observer.accepted(self.peer_id, sequence, headers)

    def check_open(self) -> None:
        """Raise SessionClosed or NodeClosed where :meth:`send` would."""
        if not self.can_send:
            self._refuse()

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
        if self.overfull:
            return
        if config.overflow == "drop_oldest":
            while not self.has_room and self.outbox.drop_oldest():
                self.account()
            self.after_failures()
            self.overtake(now)
        if not self.has_room:
            self._endpoint.starved[self.peer_id] = self
            raise OutboxFull(
                f"the outbox to {self.peer_id} holds {self.outbox.unread} unread messages of cost "
                f"{self.outbox.cost} (outbox_limit {self.bounds.outbox_limit}, node {self._endpoint.outbox_cost} of "
                f"{config.outbox_node_limit}): {self.why(now)}"
            )

    def _too_large(self, size: int) -> None:
        limit = self.bounds.limits.message
        raise MessageTooLarge(
            f"a message of {size} bytes to {self.peer_id} is over the limit: {limit} here, "
            f"{self.peer_message_limit or 'unknown'} at the peer; {self._endpoint.quotas.advice(self.peer_id)}"
        )

    def cancel(self, sequence: int, now: float) -> bool:
        """End a message that no process of the peer has seen; False if that is not certain (it may still be read)."""
        done = self.outbox.cancel(sequence)
        self.account()
        self.after_failures()
        if self.connection is not None:
            self.connection.want_write(now)
        return done

    # -- commands: receiving ------------------------------------------------------------------------------------

    def take(self, limit: int = 1) -> list[Delivery]:
        """Hand over up to ``limit`` messages; they are held until settled or released."""
        taken = self.inboxes.take(limit)
        observer = self._endpoint.observer
        if observer is not None:
            observer.receiving(self.peer_id, taken)
        return taken

    def take_one(self) -> Delivery | None:
        """Hand over the next message, if there is one; it is held until settled or released."""
        for inbox in self.inboxes.in_turn():
            delivery = inbox.take()
            if delivery is not None:
                if self._endpoint.observer is not None:
                    self._endpoint.observer.receiving(self.peer_id, [delivery])
                return delivery
        return None

    def reading(self) -> Reading | None:
        """The short way to :meth:`take_one` and :meth:`settle`, good until anything else is done with the core.

        None: there is nothing to read, or somebody has to be told.
        """
        boxes = self.inboxes.boxes
        if len(boxes) != 1 or self.connection is None or self.ending or self._endpoint.followed:
            return None
        inbox = boxes[0]
        if not inbox.ready or inbox.returned or inbox.ahead.firsts:
            return None
        return Reading(inbox, self.acknowledger)

    def take_settled(self, limit: int, now: float) -> list[Delivery]:
        """Hand over up to ``limit`` messages and settle them at once."""
        taken = self.inboxes.take_settled(limit)
        if taken:
            self._after_settling(now)
        observer = self._endpoint.observer
        if observer is not None:
            for delivery in taken:
                observer.receiving(self.peer_id, [delivery])
                observer.settled(self.peer_id, delivery, "acknowledged")
        return taken

    def settle(
        self, delivery: Delivery, now: float, *, reject: tuple[int, str] | None = None
    ) -> None:
        """The application is done with a held message: acknowledge it, or reject it with a code and a reason.

        Raises MessageNotHeld if it was settled or released before, ConfigurationError for a code that is none.
        """
        inbox = delivery[0]
        if reject is None:
            inbox.settle(delivery[1])
        else:
            if not isinstance(reject[0], int) or not 0 <= reject[0] < 2**16:
                raise ConfigurationError(f"the code of a rejection is {reject[0]!r}; it must be from 0 to 65535")
            if not isinstance(reject[1], str):
                raise ConfigurationError(f"the reason of a rejection is {type(reject[1]).__name__}; it must be a str")
            told = inbox.reject(delivery[1], *reject)
            if told is not None and inbox is self.inbox:
                self.acknowledger.reject(told)
        self._after_settling(now)
        observer = self._endpoint.observer
        if observer is not None:
            observer.settled(self.peer_id, delivery, "acknowledged" if reject is None else "rejected")

    def settle_all(self, deliveries: Sequence[Delivery], now: float) -> None:
        """Acknowledge held messages; what their sender is told is thought over once."""
        for delivery in deliveries:
            delivery[0].settle(delivery[1])
        self._after_settling(now)
        if self._endpoint.observer is not None:
            for delivery in deliveries:
                self._endpoint.observer.settled(self.peer_id, delivery, "acknowledged")

    def release(self, delivery: Delivery, now: float) -> None:
        """Give a held message back to its old place; it is handed over again.  Raises MessageNotHeld."""
        delivery[0].release(delivery[1])
        self._ready(now)
        observer = self._endpoint.observer
        if observer is not None:
            observer.settled(self.peer_id, delivery, "released")

    def _after_settling(self, now: float) -> None:
        if self.journal is not None:
            self._journal_inbox()
        self.acknowledger.settled(now)
        if self.connection is None and self.window.reserved:
            self.window.release(self.unsettled)
        if len(self.inboxes.boxes) > 1:
            self.inboxes.drop_old(self.since)
        if self.ending:
            self.farewell.check(now)

    # -- commands: ending ---------------------------------------------------------------------------------------

    def drain(self, now: float) -> None:
        """Refuse new messages and hurry acknowledgements until :meth:`undrain` (guarantees, *Each await*)."""
        self._draining += 1
        self.acknowledger.hurry(now)

    def undrain(self) -> None:
        """The drain is over, for better or worse."""
        self._draining -= 1

    def measure(self, now: float) -> None:
        """Ask the peer for the round trip, at most once a second; nothing without a connection."""
        if self.connection is not None:
            self.connection.liveness.measure(now)

    def disconnect(self, now: float) -> None:
        """Close the connection and dial no more; the session can be resumed by either side."""
        self.drop_targets()
        self._endpoint.close_pending(self, now)
        if self.connection is not None:
            self.connection.close(CloseCode.NORMAL, "", now)

    def end(self, now: float) -> None:
        """Send FIN: nothing follows.  When both sides' FINs are read the session is over."""
        self.farewell.end(now)

    def abort(self, now: float) -> None:
        """Give everything up: unread messages end as ABANDONED, the peer learns it at the next chance."""
        self.farewell.abort(now)

    def drop_targets(self) -> None:
        """Dial no more."""
        for target in list(self.targets):
            self._endpoint.remove_target(target)

    # -- taking up and losing connections -----------------------------------------------------------------------

    def attach(self, connection: Connection, attach: Attach, now: float) -> CloseCode | None:
        """Take a verified connection up; or the code to close it with: RETRY to dial again, NORMAL if all is over."""
        refused = self.attachment.take(connection, attach, now)
        if refused is not None:
            return refused
        self.peer_incarnation = connection.peer_incarnation
        self.peer_expiry = attach.expiry
        self.peer_dials = self.peer_dials or not connection.dialer
        self.peer_message_limit = connection.peer_limits.message
        self._message_limit = min(self.bounds.limits.message, self.peer_message_limit)
        self.connections += 1
        self.connection = connection
        self.closed = False
        self.progress.begin()
        self.since = now
        self.error = None
        self.account()
        self._journal_inbox()  # of an inbox that the peer had left nothing was written
        self.after_failures()
        self.notices.add(Notice.LINK)
        self.wake(Watch.LINK | Watch.PROGRESS | Watch.ROOM)
        self._link_up(now)
        return None

    def _link_up(self, now: float) -> None:
        """Tell of the live connection to those who keep books."""
        self._linked = True
        self.counters.connections += 1
        report, endpoint = self.notices.report, self._endpoint
        endpoint.logbook.connected(self.peer_id, report, now)
        if endpoint.observer is not None:
            endpoint.observer.connected(self.peer_id, report)

    def link_down(self, error: ConnectionFailure, now: float) -> None:
        """Tell of its end, once: before a newer one takes its place, or when it is gone."""
        if not self._linked:
            return
        self._linked = False
        self.counters.ended(error)
        endpoint = self._endpoint
        endpoint.logbook.disconnected(self.peer_id, error, now)
        if endpoint.observer is not None:
            endpoint.observer.disconnected(self.peer_id, error)

    def detach(self, error: ConnectionFailure, now: float) -> None:
        """The live connection is gone; no position changes, but for what a durable inbox has not on disk."""
        self.attachment.leave()
        self.connection = None
        self.since = now
        self.error = error
        if self.inbox is not None:
            self.inbox.partial = 0
        self.inboxes.unstage()
        self.window.release(self.unsettled)
        self.notices.add(Notice.LINK)
        self.wake(Watch.LINK)
        self.link_down(error, now)
        expiry = self._expiry()
        shrink = self._endpoint.config.shrink_after
        self._endpoint.timers.schedule(self, now + (shrink if expiry is None else min(expiry, shrink)))

    def set_bounds(self, bounds: Bounds) -> None:
        """The peer's quota has changed.  What it was promised on the present connection stands as long as that."""
        self.bounds = self.window.bounds = bounds
        known = self.peer_message_limit
        self._message_limit = bounds.limits.message if known is None else min(bounds.limits.message, known)
        self.wake_for_room()

    def credit_granted(self, connection: Connection) -> None:
        """The acceptor's ATTACH is out: this much the peer may send."""
        self._inbox().attach(connection.credit_told)

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
        self.notices.gap(gap)
        return True

    def receive_fin(self, sequence: int, now: float) -> bool:
        """FIN; False if it moved nothing."""
        inbox = self._inbox()
        inbox.admit(COST_PER_MESSAGE)
        if not inbox.expect(sequence):
            return False
        inbox.finish(sequence)
        if inbox.ended:  # else when it is on disk, with all that came before it
            self._tell_end()
        self.acknowledger.hurry(now)
        self.farewell.check(now)
        return True

    def _tell_end(self) -> None:
        """The peer's FIN came."""
        self.notices.add(Notice.PEER_ENDED)
        self.requests.give_up()
        self.wake(Watch.READABLE | Watch.REPLY)

    def received_something(self, fresh: int, urgent: bool, now: float) -> None:
        """A chunk was worked through that brought messages, SKIPs or duplicates: notices and acknowledgement."""
        inbox = self.inboxes.present
        self.pass_replies_on(now)
        if fresh and not self.inboxes.durable:  # else when it is on disk
            self.counters.taken_in += fresh
            self._ready(now)
        if inbox is None:  # the session ended with the same chunk; what came before can be read
            return
        self._journal_inbox()
        self.acknowledger.came(inbox, now, urgent=urgent)

    def pass_replies_on(self, now: float) -> None:
        """Replies that came: to those who wait for them, or away with them."""
        replies: list[Delivery] = []
        for inbox in self.inboxes:
            if inbox.replies:
                replies += inbox.replies
                inbox.replies = []
        self.counters.taken_in += len(replies)
        for delivery in replies:
            if not self.requests.answer(delivery):
                delivery[0].settle(delivery[1])
                self._after_settling(now)
                continue
            self.wake(Watch.REPLY)
            if self._endpoint.observer is not None:
                self._endpoint.observer.receiving(self.peer_id, [delivery])

    def _inbox(self) -> Inbox:
        if self.inbox is None:
            raise PeerFault(CloseCode.PROTOCOL, "the session is over")
        return self.inbox

    def _ready(self, now: float) -> None:
        self.notices.add(Notice.READY)
        self.wake(Watch.READABLE)

    # -- what goes out on the live connection -------------------------------------------------------------------

    def fill(self, out: list[bytes | memoryview], max_bytes: int, now: float) -> None:
        """Append what this session has to say: rejections, one ACK if it is time, messages."""
        outbox, attachment = self.outbox, self.attachment
        if attachment.hole is not None:
            attachment.fill(out)
        if self.acknowledger.pending:
            self.acknowledger.fill(out)
        if attachment.hole is None:
            outbox.pull(out, max_bytes, now)
            if self.journal is not None:
                self.journal.prefetch()
        if outbox.newly_failed:
            self.account()
            self.after_failures()

    def transmit(self, now: float) -> None:
        """Messages that had to wait may be sent, if there are any."""
        if self.connection is not None and (self.outbox.untransmitted or self.attachment.hole is not None):
            self.connection.want_write(now)

    def overtake(self, now: float) -> None:
        """Messages have ended that perhaps were being read back: what stands behind them need not wait for that."""
        if self.journal is not None and self.journal.spill.loading:
            self.transmit(now)

    # -- the journal's seam ---------------------------------------------------------------------------------------

    def rename_outbox(self, *, mark: bool) -> None:
        """A new outbox id for what is retained; with a journal nothing leaves under it before it is on disk."""
        self.outbox.rename(self._endpoint.random_bytes(16), mark=mark)
        if self.journal is not None:
            self.journal.barrier(OutboxOpened)

    def durable_first(self) -> int:
        """``first`` as ATTACH tells it: with a journal, as it is on disk."""
        return self.outbox.first if self.journal is None else min(self.outbox.first, self.journal.first)

    def stated_first(self) -> int:
        """``first`` as ACK tells it: the same, but while a SKIP has to close a hole not beyond what ATTACH said."""
        first = self.durable_first()
        if self.attachment.hole is None or self.connection is None:
            return first
        return min(first, self.connection.first_told)

    def open_journal(self, accepted: int = 0) -> SessionJournal | None:
        """The session's part of the journal, from the first thing on that must not be lost; None without a journal."""
        if self.journal is None and self._endpoint.journal is not None:
            self.journal = SessionJournal(self._endpoint.journal, self, accepted)
        return self.journal

    def journal_entry(self, sequence: int) -> None:
        """A message or a FIN was accepted."""
        journal = self.open_journal()
        if journal is not None:
            journal.message(sequence)

    def _journal_inbox(self) -> None:
        """``read`` or a rejection is to be told: not before it is on disk.  So is what was settled out of turn.

        And what came, where the inbox is durable.
        """
        journal = self.journal
        if journal is not None:
            for inbox in self.inboxes:
                if (inbox is self.inboxes.present or inbox.kept) and inbox.outdated:
                    journal.want(InboxMoved)

    def recall(self, now: float) -> None:
        """An earlier process had messages on disk that it had not settled: they are handed over again."""
        for inbox in self.inboxes:
            stored, inbox.ready = inbox.ready, deque()
            inbox.arriving = inbox.staged if inbox.durable else inbox.ready
            inbox.admit_stored(stored)
        self.pass_replies_on(now)
        if self.unread:
            self._ready(now)

    def stored(self, fresh: int, now: float, *, end: bool) -> None:
        """What came is on disk; ``fresh`` messages may be read now; ``end``: the peer's FIN is there, too."""
        self.pass_replies_on(now)
        if fresh:
            self.counters.taken_in += fresh
            self._ready(now)
        if end:
            self._tell_end()

    def journaled(self, now: float) -> None:
        """A batch with something of this session is durable."""
        self.acknowledger.hurry(now)
        self.farewell.check(now)
        self.wake(Watch.ROOM | Watch.PROGRESS)

    def unaccept(self, after: int) -> None:
        """A batch failed: the messages after that sequence were never accepted."""
        ended = self.outbox.fin > 0
        self.outbox.withdraw(after)
        if ended and not self.outbox.fin:  # nothing follows all the same
            self.journal_entry(self.outbox.append_fin())
        self.account()
        self.wake_all()

    # -- time ---------------------------------------------------------------------------------------------------

    def own_expiry(self) -> float | None:
        """What the configuration says."""
        expiry = self._endpoint.config.session_expiry
        if expiry == "auto":
            return None if self.targets else 24 * 3600.0
        return expiry if not isinstance(expiry, str) else None

    def _expiry(self) -> float | None:
        """The lesser of both sides'."""
        both = [value for value in (self.own_expiry(), self.peer_expiry) if value is not None]
        return min(both) if both and self.connections else None

    def on_timer(self, now: float) -> float | None:
        self.outbox.expire(now)
        self.account()
        self.after_failures()
        self.transmit(now)
        deadlines = [self.outbox.next_expiry or inf]
        if self.connection is None and self.connections:
            expiry = self._expiry()
            if expiry is not None and not self.closed:
                if now >= self.since + expiry:
                    self.farewell.expire(now)
                else:
                    deadlines.append(self.since + expiry)
            if now >= self.since + self._endpoint.config.shrink_after:
                self.inboxes.shrink()
            else:
                deadlines.append(self.since + self._endpoint.config.shrink_after)
        deadline = min(deadlines)
        return None if deadline == inf else deadline

    # -- telling ------------------------------------------------------------------------------------------------

    def wake(self, what: int) -> None:
        """Tell the driver if somebody waits for ``what``."""
        if self.watch & what and not self._waking:
            self._waking = True
            self._endpoint.effects.append(self._wake)

    def woken(self) -> None:
        """The driver took the Wake."""
        self._waking = False

    def after_failures(self) -> None:
        """Tell of messages that ended otherwise than READ, if there are new ones."""
        if self.outbox.newly_failed:
            self.outbox.newly_failed = False
            self.receipts.failed = True
            self.notices.add(Notice.FAILED)
            self.wake(Watch.PROGRESS | (Watch.ROOM if self.has_room else 0))

    def account(self) -> None:
        """Keep the node's total in step."""
        gained = self.outbox.cost - self._accounted
        self._endpoint.outbox_cost += gained
        self._accounted += gained
        if self.journal is not None and self.outbox.first != self.journal.first:
            self.journal.want(OutboxTrimmed)
        if self.journal is not None and self.outbox.newly_failed and self.outbox.ends:
            self.journal.want(MessagesEnded)
        if gained < 0 and self._endpoint.starved:
            self._endpoint.feed_starved()

    @property
    def retry_at(self) -> float | None:
        """When this side dials next, None if it does not."""
        times = [target.retry_at for target in self.targets if target.retry_at is not None]
        return min(times, default=None)

    def why(self, now: float) -> str:
        """One sentence that says what the messages to this peer are waiting for."""
        return explain(self, self._endpoint.journal, now)
