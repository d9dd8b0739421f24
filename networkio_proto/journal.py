"""The seam to a durable store: what must be on disk before something else may happen.  No disk here.

Theory of operation
-------------------
With ``Endpoint(..., journal=True)`` the core writes nothing itself; it asks.  ``Endpoint.journal_request`` hands out
one :class:`JournalBatch` at a time, however many messages and positions it holds; when the driver has made it durable
it says so with ``Endpoint.journal_done``.  Until then nothing that rests on the batch leaves this node:

* a message is transmitted only after its :class:`MessageAccepted`, and after the :class:`OutboxOpened` of its outbox
  and the :class:`ReceiverKnown` of the process that it goes to;
* ``read`` in ACK and ATTACH stays at the last :class:`InboxMoved`, and a REJECT waits for the one that holds it;
* in a durable inbox so does ``received``, and a message that came is not handed over before it is in one;
* ``first`` stays at the last :class:`OutboxTrimmed`;
* a message that ended early is passed over only after its :class:`MessagesEnded`, and nothing behind it goes before.

What is durable need not stay in memory: :mod:`~networkio_proto.spill` says what does, and what is read back.

The last positions of a session that is over are kept too (:class:`InboxesEnded`), for a peer that has not heard them.

A transaction of the application goes with a batch (:mod:`~networkio_proto.transactions`).

What comes into durable inboxes must not keep the rest from the disk where there is no room for it: a peer decides how
much that is.  So after such a batch has failed, what came is written apart (:attr:`JournalBatch.optional`): one peer's
at a time, as much as there was room for of late, and with a pause after each that failed.

A failed batch fails whole, and with it every message accepted since: they were never sendable, and their sequences are
used again.  Positions of a failed batch are asked for again with the next one.  A message that has its outcome before
its batch is made (the session was aborted) is in no batch: the ``first`` of the next record passes its number.  At the
start of a process the records that the store kept go to ``Endpoint.restore``, oldest first.  Without a journal none of
this exists.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import inf
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from .errors import JournalError, JournalFull, printable
from .events import GapRange, Positions
from .handshake import Ended, InboxFacts
from .inbox import Delivery, Details, Inbox, Reject, cost_of
from .ledger import Failure, FailureLog
from .maps import decode_map, encode_map
from .outbox import Outbox
from .ranges import Ranges
from .spill import JournalLoad, LoadQueue, Spill
from .timers import Timed, Timers

if TYPE_CHECKING:
    from .handles import ReceiptHandle
    from .operations import Token
    from .session import Session

__all__ = [
    "InboxMoved",
    "InboxesEnded",
    "JournalBatch",
    "JournalQueue",
    "JournalRecord",
    "KeptMessage",
    "MessageAccepted",
    "MessagesEnded",
    "MessagesKept",
    "OutboxOpened",
    "OutboxTrimmed",
    "ReceiverKnown",
    "RestoredRecord",
    "SessionJournal",
    "Store",
    "restore",
    "restored",
]

#: so long (seconds) what came waits after there was no room for some of it; and so much is tried at first
_PAUSE = 0.5
_LITTLE = 64 * 1024

#: where there was room for so much there is room
_ENOUGH = 16 * 1024 * 1024

#: in place of an id where the session is over, and its inboxes with it
_NO_OUTBOX = bytes(16)

#: so much of an error of the store is told, which says what to do, too
_TOLD = 400


@dataclass(frozen=True, slots=True)
class OutboxOpened:
    """From here on the outbox to this peer has this id and run; what is retained goes on in it."""

    peer_id: str
    outbox_id: bytes
    run: bytes
    first: int


@dataclass(frozen=True, slots=True)
class MessageAccepted:
    """An entry of the outbox: ``flags`` are its DATA flags, ``headers`` the encoded map.

    ``fin``: it is the end of the outbox.  ``skip``: it ended early, for this SKIP reason, before it was written.
    """

    peer_id: str
    sequence: int
    payload: bytes
    headers: bytes
    flags: int
    fin: bool = False
    skip: int = 0


@dataclass(frozen=True, slots=True)
class MessagesEnded:
    """Messages that are on disk ended early, and hold only a place from now on.

    ``ends``: their sequences, in order, each with its SKIP reason.  ``failures``: how they ended, as far as is known.
    """

    peer_id: str
    ends: tuple[tuple[int, int], ...]
    failures: tuple[Failure, ...]


@dataclass(frozen=True, slots=True)
class OutboxTrimmed:
    """Everything below ``first`` has its outcome and may be forgotten.

    ``failures``: the outcomes of those among them that were not read.  What an earlier record says stays as it is.
    """

    peer_id: str
    first: int
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True, slots=True)
class ReceiverKnown:
    """The incarnation of the peer that is transmitted to from here on.

    ``marked``: everything up to there may have been seen by another one, and is transmitted with REDELIVERED.
    ``durable``: its inbox outlives it; a later incarnation that has it goes on there.
    """

    peer_id: str
    incarnation: bytes
    marked: int = 0
    durable: bool = False


@dataclass(frozen=True, slots=True)
class KeptMessage:
    """A message that came, as a durable inbox keeps it; ``flags`` are its DATA flags, ``headers`` the encoded map."""

    sequence: int
    payload: bytes
    headers: bytes
    flags: int
    #: as in :class:`~networkio_proto.inbox.Details`
    gap: tuple[GapRange, ...] = ()
    restarted: Positions | None = None
    origin: bytes | None = None


@dataclass(frozen=True, slots=True)
class InboxMoved:
    """Where the inbox stands: ``facts.read`` is everything settled; rejections that the peer may not know of.

    What lies beyond that up to ``facts.received``, and is not ``settled``, is on disk.
    """

    peer_id: str
    facts: InboxFacts
    rejects: tuple[tuple[int, int, str], ...]
    #: the peer's outbox ended there, and that is read, or kept: the peer does not say it again
    fin: int = 0
    #: ranges beyond ``read``, in order; what is settled out of turn is settled for good
    settled: tuple[tuple[int, int], ...] = ()
    #: what came last, in order; whatever was on disk from the first of these on, or beyond ``received``, never came
    messages: tuple[KeptMessage, ...] = ()
    #: what the next message will say beside itself
    gap: tuple[GapRange, ...] = ()
    restarted: Positions | None = None
    #: its place among the inboxes that are read, lowest first; 0: nothing of it is kept
    turn: int = 0
    #: the other inboxes of this peer that hold messages: one that is not among them has none any more
    old: tuple[InboxMoved, ...] = ()


@dataclass(frozen=True, slots=True)
class InboxesEnded:
    """The final positions of all inboxes of this peer that are no more, newest first; the peer settles by them."""

    peer_id: str
    ended: tuple[Ended, ...]


@dataclass(frozen=True, slots=True)
class MessagesKept:
    """At the start of a process, in place of many :class:`MessageAccepted`: they stay on disk, and cost this.

    ``first`` is the sequence of the first, and the others follow.  None of them is FIN, or ended early.
    """

    peer_id: str
    first: int
    costs: array[int]


JournalRecord: TypeAlias = (
    OutboxOpened | MessageAccepted | MessagesEnded | OutboxTrimmed | ReceiverKnown | InboxMoved | InboxesEnded
)

#: what a process begins with
RestoredRecord: TypeAlias = JournalRecord | MessagesKept


@dataclass(frozen=True, slots=True)
class JournalBatch:
    """Records to be made durable together, in this order; ``token`` comes back with ``journal_done``.

    ``optional``: for want of room it may fail, and nothing else has to wait for that.
    """

    token: int
    records: tuple[JournalRecord, ...]
    optional: bool = False


class Store(Protocol):
    """Where a driver keeps the journal of one node: a file, with a thread of its own that writes to it."""

    def open(self, node_id: str, resident: int) -> Iterable[RestoredRecord]:
        """Everything that is on disk, oldest first.  May take long.  Raises JournalError.

        Of messages to a peer that cost more than ``resident`` together, those behind may come as MessagesKept.
        """

    def write(self, batch: JournalBatch, done: Callable[[BaseException | None], None]) -> None:
        """Begin to make the batch durable, and what :meth:`run` has left open with it.

        ``done(error)`` is called in any thread when that is over; all of it is durable then, or nothing.
        """

    def load(
        self, load: JournalLoad, done: Callable[[Sequence[MessageAccepted], BaseException | None], None]
    ) -> None:
        """Begin to read messages of :meth:`written <write>` batches; one load at a time, beside one batch.

        ``done(records, error)`` is called in any thread: with those of the messages that no batch has trimmed.
        """

    def run(self, call: Callable[[Any], object], done: Callable[[BaseException | None], None]) -> None:
        """Begin a transaction, and call ``call(db)`` in it with the database, in the store's own thread.

        What that returns from is left open for the next :meth:`write`, or for :meth:`undo`; what it raises is handed to
        ``done``, and nothing is left open.  ``call`` may write whatever is not the store's own.  What of the
        database is in its value, the store closes: it belongs to this thread.
        """

    def undo(self) -> None:
        """What :meth:`run` has left open comes to nothing."""

    def here(self) -> bool:
        """Is this the store's own thread?  It waits for nobody, so nothing may be waited for in it."""

    def close(self) -> None:
        """Nothing is written any more.  May take long.  Idempotent."""


class JournalQueue(Timed):
    """What waits to be written, of all sessions."""

    __slots__ = (
        "_apart", "_optional", "_pausing", "_pending", "_room", "_timers", "_token", "_under_way",
        "error", "loads", "resident",
    )  # fmt: skip

    def __init__(self, timers: Timers, resident: int = 8 * 1024 * 1024) -> None:
        super().__init__()
        self._timers = timers
        #: so much of what came is written at a time, and apart; infinite while there is room for all of it
        self._room = inf
        #: the sessions of which something came that is to be written apart, the next one first
        self._apart: dict[SessionJournal, None] = {}
        #: there was no room for some of it just now
        self._pausing = False
        #: is that under way?
        self._optional = False
        #: what each outbox keeps in memory (``Config.outbox_resident``)
        self.resident = resident
        self.loads = LoadQueue()
        #: why the last batch failed; None if it did not
        self.error: BaseException | None = None
        self._pending: list[tuple[SessionJournal, type[JournalRecord], int]] = []
        self._under_way: list[tuple[SessionJournal, JournalRecord]] | None = None
        self._token = 0

    @property
    def trouble(self) -> str:
        """What is wrong with the journal, until something is written or read again; "" if nothing is."""
        if self.loads.error is not None:
            return f"the journal cannot be read ({printable(self.loads.error, _TOLD)})"
        return "" if self.error is None else f"the journal cannot be written ({printable(self.error, _TOLD)})"

    def add(self, journal: SessionJournal, kind: type[JournalRecord], sequence: int = 0) -> None:
        """Something is to be written; what exactly is looked up when the batch is made."""
        self._pending.append((journal, kind, sequence))

    def request(self, *, empty: bool = False) -> JournalBatch | None:
        """The next batch; None while one is under way, or when there is nothing to write (``empty``: then too)."""
        if self._under_way is not None:
            return None
        self._optional = not (self._pending or empty)
        if not self._optional:
            pending, self._pending = self._pending, []
            room = inf if self._room == inf else 0
            self._under_way = [
                (journal, journal.record(kind, sequence, room))
                for journal, kind, sequence in pending
                if kind is not MessageAccepted or journal.retains(sequence)
            ]
        elif self._apart and not self._pausing:
            journal = next(iter(self._apart))
            del self._apart[journal]
            self._under_way = [(journal, journal.record(InboxMoved, 0, self._room))]
        else:
            return None
        self._token += 1
        return JournalBatch(self._token, tuple(record for _, record in self._under_way), self._optional)

    def set_apart(self, journal: SessionJournal) -> None:
        """Something came that is in no batch yet."""
        self._apart[journal] = None

    def on_timer(self, now: float) -> float | None:
        """There may be room now."""
        self._pausing = False
        return None

    def done(self, token: int, now: float, error: BaseException | None) -> None:
        """The batch is durable, or (``error``) failed.  Raises ValueError for a token that is not under way."""
        if self._under_way is None or token != self._token:
            raise ValueError(f"no journal batch with token {token} is under way")
        batch, self._under_way = self._under_way, None
        self.error = None if self._optional and isinstance(error, JournalFull) else error
        if error is None:
            for journal, record in batch:
                journal.written(record)
            for journal in dict.fromkeys(journal for journal, _ in batch):
                journal.proceed(now)
            if self._optional:
                self._had_room(batch[0][0])
            return
        if self._optional or any(isinstance(record, InboxMoved) and record.messages for _, record in batch):
            self._had_none(now)
        if self._optional:
            self._unwritten(batch[0][0])
            return
        pending, self._pending = self._pending, []
        again = [(journal, type(record)) for journal, record in batch] + [each[:2] for each in pending]
        for journal, kind in again:
            journal.unwant(kind)
        for journal in dict.fromkeys(journal for journal, _ in again):
            journal.not_written()
        for journal, kind in again:  # each once: what is written is looked up then
            if kind is not MessageAccepted:
                journal.want(kind)
        for journal in dict.fromkeys(journal for journal, kind in again if kind is MessageAccepted):
            journal.unaccept(error)


    def _had_room(self, journal: SessionJournal) -> None:
        if journal.staged:
            self.set_apart(journal)
        self._room = inf if self._room >= _ENOUGH or not self._apart else self._room * 4

    def _had_none(self, now: float) -> None:
        self._room = _LITTLE if self._room == inf else max(1.0, self._room // 4)
        self._pausing = True
        self._timers.schedule(self, now + _PAUSE)

    def _unwritten(self, journal: SessionJournal) -> None:
        journal.not_written()
        if journal.staged:
            self.set_apart(journal)


class SessionJournal:
    """One session's part of the seam."""

    __slots__ = (
        "_barriers",
        "_end",
        "_fresh",
        "_landed",
        "_queue",
        "_session",
        "_unwritten",
        "_wanted",
        "accepted",
        "first",
        "spill",
    )

    def __init__(self, queue: JournalQueue, session: Session, accepted: int) -> None:
        self._queue = queue
        self._session = session
        #: is something on disk that came, of which the session was not told; how many messages; the peer's end, too?
        self._landed = False
        self._fresh = 0
        self._end = False
        #: kinds of records that wait already; their content is looked up when they are written
        self._wanted: set[type[JournalRecord]] = set()
        #: records without which nothing may be transmitted
        self._barriers: set[type[JournalRecord]] = set()
        #: the highest sequence on disk
        self.accepted = accepted
        #: what was accepted since, as far as somebody has its receipt, in order
        self._unwritten: deque[tuple[ReceiptHandle, Token | None]] = deque()
        #: ``first`` as it is on disk
        self.first = session.outbox.first
        session.outbox.ends = set()
        #: what of the outbox is on disk only
        self.spill = Spill(session.outbox, queue.resident, accepted)
        self.barrier(OutboxOpened)

    def message(self, sequence: int) -> None:
        """A message was accepted."""
        self._queue.add(self, MessageAccepted, sequence)

    def want(self, kind: type[JournalRecord]) -> None:
        """A position moved."""
        if kind not in self._wanted:
            self._wanted.add(kind)
            self._queue.add(self, kind)

    def unwant(self, kind: type[JournalRecord]) -> None:
        """It waits no longer."""
        self._wanted.discard(kind)

    def not_written(self) -> None:
        """A batch failed, and what came and was in it is not on disk."""
        inboxes = self._session.inboxes
        for inbox in inboxes:
            inbox.writing = None
        if self._session.connection is None:
            inboxes.unstage()

    def barrier(self, kind: type[JournalRecord]) -> None:
        """Nothing may be transmitted before this is on disk."""
        self._barriers.add(kind)
        self._session.outbox.sendable = 0
        self.want(kind)

    @property
    def open(self) -> bool:
        """Is everything on disk without which nothing may be transmitted?"""
        return not self._barriers

    def retains(self, sequence: int) -> bool:
        """Is the message still there, or has everything up to it come to its end meanwhile?"""
        return sequence >= self._session.outbox.first

    @property
    def staged(self) -> bool:
        """Is there something that came, and is not on disk?"""
        return any(inbox.staged for inbox in self._session.inboxes)

    def record(self, kind: type[JournalRecord], sequence: int, room: float) -> JournalRecord:
        """What is to be written, as it stands now; of what came so much as there is ``room`` for."""
        session, outbox = self._session, self._session.outbox
        self._wanted.discard(kind)
        if kind is MessageAccepted:
            entry = outbox.entry(sequence)
            return MessageAccepted(
                session.peer_id, sequence, entry.payload, entry.headers, entry.flags, entry.fin, entry.skip
            )
        if kind is OutboxOpened:
            return OutboxOpened(session.peer_id, outbox.outbox_id, outbox.run, outbox.first)
        if kind is MessagesEnded:
            return self._ended()
        if kind is OutboxTrimmed:
            return OutboxTrimmed(session.peer_id, outbox.first, outbox.failures.within(self.first, outbox.first - 1))
        if kind is ReceiverKnown:
            return ReceiverKnown(session.peer_id, outbox.receiver or b"", outbox.marked, outbox.receiver_durable)
        if kind is InboxesEnded:
            return InboxesEnded(session.peer_id, session.inboxes.ended(-inf))
        return self._moved(room)

    def _moved(self, room: float) -> InboxMoved:
        session, inboxes = self._session, self._session.inboxes
        present = inboxes.present
        left = [box for box in inboxes if box is not present and box.kept and (box.holding or box.outdated)]
        old = tuple(_inbox_record(session.peer_id, box, room) for box in left)
        if room != inf and self.staged:
            self._queue.set_apart(self)
        if inboxes.dormant:  # they have shrunk since this was asked for, with all of it on disk
            return InboxMoved(session.peer_id, inboxes.dormant[-1], ())
        if present is None:  # the session is over
            return InboxMoved(session.peer_id, InboxFacts(_NO_OUTBOX, _NO_OUTBOX, 0, 0, 1), (), old=old)
        record = _inbox_record(session.peer_id, present, room)
        return replace(record, old=old) if old else record

    def _ended(self) -> MessagesEnded:
        """What is not on disk yet goes there as the tombstone that it is."""
        outbox, failures = self._session.outbox, FailureLog()
        ends = sorted(sequence for sequence in outbox.ends or () if sequence <= self.accepted)
        for sequence in ends:
            known = outbox.failures.find(sequence)
            if known is not None and known.exact:
                failures.add(replace(known, first=sequence, last=sequence))
        tombstones = tuple((sequence, outbox.entry(sequence).skip) for sequence in ends)
        return MessagesEnded(self._session.peer_id, tombstones, tuple(failures.ranges()))

    def written(self, record: JournalRecord) -> None:
        """It is durable: what rested on it may happen."""
        if isinstance(record, MessageAccepted):
            self.accepted = record.sequence
            if record.skip:
                self._mourned({record.sequence})
        elif isinstance(record, MessagesEnded):
            self._mourned({sequence for sequence, _ in record.ends})
        elif isinstance(record, OutboxTrimmed):
            self.first = record.first
        elif isinstance(record, InboxMoved):
            for each in (record, *record.old):
                if each.facts.received or each.settled:
                    self._inbox_written(each)
        elif type(record) not in self._wanted:  # else it is outdated: the barrier moved on
            self._barriers.discard(type(record))

    def _mourned(self, ends: set[int]) -> None:
        """These tombstones are on disk."""
        known = self._session.outbox.ends
        assert known is not None
        known.difference_update(ends)

    def _inbox_written(self, record: InboxMoved) -> None:
        mine = (box for box in self._session.inboxes if box.outbox_id == record.facts.outbox_id and not box.barred)
        inbox = next(mine, None)
        if inbox is None or (inbox.durable and inbox.writing is None):
            return
        # an inbox that is not durable may have been empty, and have begun anew further on, since the record was made
        inbox.durable_read = max(record.facts.read, inbox.durable_read or 0)
        inbox.durable_rejects = frozenset(sequence for sequence, _, _ in record.rejects)
        if inbox.durable:
            before = inbox.ended
            self._fresh += inbox.landed(record.facts)
            self._landed = True
            self._end = self._end or (inbox.ended and not before and inbox is self._session.inbox)
        elif inbox.durable_read >= inbox.stored:
            inbox.stored = 0

    def proceed(self, now: float) -> None:
        """A batch with something of this session is durable."""
        self.spill.put_away(self.accepted)
        if self.open:
            self._session.outbox.sendable = self.accepted
            self._session.outbox.bar()
        if self._landed:
            fresh, end = self._fresh, self._end
            self._landed, self._fresh, self._end = False, 0, False
            self._session.stored(fresh, now, end=end)
        self._session.journaled(now)
        while self._unwritten and self.has(self._unwritten[0][0].sequence):
            _, token = self._unwritten.popleft()
            if token is not None:
                token.set()

    def prefetch(self) -> None:
        """Messages went out, or cannot: ask for those that come next, if they are on disk only."""
        missing = self.spill.missing()
        if missing is not None:
            self._queue.loads.add(self._session, self.spill, *missing)

    def unaccept(self, error: BaseException) -> None:
        """The messages that are not on disk were never accepted; their sequences are used again."""
        refusal = error if isinstance(error, JournalError) else JournalError(str(error))
        waiting, self._unwritten = self._unwritten, deque()
        for receipt, _ in waiting:
            if not self.has(receipt.sequence):  # else it is on disk, or has its end
                receipt.refusal = refusal
        self._session.unaccept(self.accepted)
        for token in [*(token for _, token in waiting if token is not None), *self._session.receipts.all()]:
            token.set()  # those that wait for one of these to be read look again, and the others as well

    def has(self, sequence: int) -> bool:
        """Is that message on disk, or has it ended before it was?"""
        return sequence <= self.accepted or not self.retains(sequence)

    def follow(self, receipt: ReceiptHandle, token: Token | None = None) -> None:
        """The message that was accepted last is this one's; it is told if that will never be on disk.

        ``token`` is set when it is, or will not be.
        """
        self._unwritten.append((receipt, token))

    def waiters(self) -> list[Token]:
        """The tokens of all who wait."""
        return [token for _, token in self._unwritten if token is not None]


# -- what comes -------------------------------------------------------------------------------------------------------


def _inbox_record(peer_id: str, inbox: Inbox, room: float) -> InboxMoved:
    """Where an inbox stands, and what of it is not on disk yet, as far as there is room."""
    if inbox.empty:  # it is as if it were not
        return InboxMoved(peer_id, InboxFacts(inbox.outbox_id, inbox.run, 0, 0, inbox.first), ())
    count, received, run = inbox.part(room)
    read, settled = inbox.outlook(received)
    received = received if inbox.durable else max(read, inbox.stored)
    facts = InboxFacts(inbox.outbox_id, run, received, read, inbox.first)
    rejects = tuple((reject.sequence, reject.code, reject.text) for reject in inbox.rejects.values())
    fin = inbox.fin if inbox.fin <= received else 0
    inbox.unwritten = False
    if not inbox.kept:
        return InboxMoved(peer_id, facts, rejects, fin, tuple(settled))
    inbox.writing = (count, received, run)
    messages = tuple(map(_kept, islice(inbox.staged, count)))
    gap = tuple(part for part in inbox.gap if part.last <= received)
    return InboxMoved(peer_id, facts, rejects, fin, tuple(settled), messages, gap, inbox.restarted, inbox.turn)


def _kept(delivery: Delivery) -> KeptMessage:
    _, sequence, payload, flags, details = delivery
    if details is None:
        return KeptMessage(sequence, payload, b"", flags)
    headers = b"" if details.headers is None else encode_map(details.headers)
    return KeptMessage(sequence, payload, headers, flags, details.gap, details.peer_restarted, details.origin)


def _delivery(inbox: Inbox, kept: KeptMessage) -> Delivery:
    """As it is handed over by a later process: an earlier one's application may have seen it."""
    details = Details(
        headers=decode_map(kept.headers) if kept.headers else None, headers_size=len(kept.headers), redelivered=True,
        gap=kept.gap, peer_restarted=kept.restarted, origin=kept.origin,
    )  # fmt: skip
    return inbox, kept.sequence, kept.payload, kept.flags, details


# -- a new process ----------------------------------------------------------------------------------------------------


def restore(session: Session, record: RestoredRecord) -> None:
    """Take in one record of the journal, in its order, before anything else happens to the session."""
    outbox = session.outbox
    if isinstance(record, OutboxOpened):
        if outbox.history is None:
            outbox.restart_at(record.first)
        else:
            outbox.begin_run(record.run)
            if record.outbox_id != outbox.outbox_id:
                outbox.keep_names()
        outbox.history = (outbox.history or frozenset()) | {record.outbox_id}
        outbox.outbox_id, outbox.run = record.outbox_id, record.run
    elif isinstance(record, MessageAccepted):
        _restore_message(outbox, record)
    elif isinstance(record, MessagesEnded):
        for sequence, skip in record.ends:
            outbox.entomb(sequence, skip)
        for failure in record.failures:
            outbox.failures.learn(failure)
    elif isinstance(record, MessagesKept):
        outbox.append_spilled(record.costs)
        outbox.ledger.accepted += len(record.costs)
    elif isinstance(record, OutboxTrimmed):
        for failure in record.failures:
            outbox.failures.learn(failure)
        _trim(outbox, record.first)
    elif isinstance(record, ReceiverKnown):
        outbox.receiver, outbox.receiver_durable = record.incarnation, record.durable
        outbox.marked = max(outbox.marked, record.marked)
    elif isinstance(record, InboxesEnded):
        session.inboxes.restore_ended(record.ended, session.since)
    else:
        _restore_inbox(session, record)


def _restore_message(outbox: Outbox, record: MessageAccepted) -> None:
    if record.fin:
        outbox.append_fin()
    elif record.skip:
        outbox.append_tombstone(record.skip)
    else:
        outbox.append_stored(record.payload, record.headers, record.flags)
        outbox.ledger.accepted += 1  # what ended early has been counted by then


def _trim(outbox: Outbox, first: int) -> None:
    """Everything below ``first`` has its outcome, what was never written included."""
    if first > outbox.fin:  # FIN stays until the session is over (P-END-16): so it was
        outbox.fin = 0
    written = min(first, outbox.next) - 1
    outbox.acknowledge(written, written)
    if first > outbox.next:
        outbox.restart_at(first)


def _restore_inbox(session: Session, record: InboxMoved) -> None:
    inboxes, mine = session.inboxes, record.facts.outbox_id
    before, left = {box.outbox_id: box for box in inboxes}, {old.facts.outbox_id: old for old in record.old}
    nothing = not record.facts.received and not record.settled
    passing = nothing or inboxes.is_ended(mine)  # nothing has come of it, or its sender stated it once more
    over = mine == _NO_OUTBOX
    boxes: list[Inbox] = []
    for outbox_id, box in before.items():
        if outbox_id in left:
            again = _inbox(left.pop(outbox_id), box, inboxes.durable)
            if again.ready or not inboxes.is_ended(outbox_id):
                boxes.append(again)
        elif not (over or inboxes.is_ended(outbox_id)) and (passing or outbox_id != mine):
            if box.read < box.received:
                box.emptied()
            boxes.append(box)
    boxes += [_inbox(old, None, inboxes.durable) for old in left.values()]
    if not passing:
        inbox = _inbox(record, before.get(mine), inboxes.durable)
        inboxes.restore([*boxes, inbox], inbox)
    elif over or record.old or inboxes.present not in boxes:
        inboxes.restore(boxes, None)
    else:
        inboxes.restore(boxes, inboxes.present)


def _inbox(record: InboxMoved, before: Inbox | None, durable: bool) -> Inbox:
    """The inbox as a record says it is; what had come of it earlier is in ``before``."""
    inbox = Inbox.restored(record.facts, durable=durable)
    read, received = inbox.read, inbox.received
    inbox.durable_read = read
    inbox.fin = record.fin
    inbox.ahead = Ranges(record.settled)
    inbox.known = inbox.ahead.lasts[-1] if record.settled else 0
    inbox.foreseen = record.settled
    # Of what comes again the application decides anew.
    settled = [reject for reject in record.rejects if reject[0] <= read or reject[0] in inbox.ahead]
    kept = [Reject(sequence, code, text, 0) for sequence, code, text in settled]
    inbox.rejects = {reject.sequence: reject for reject in kept}
    inbox.durable_rejects = frozenset(inbox.rejects)
    inbox.gap, inbox.restarted, inbox.turn = list(record.gap), record.restarted, record.turn
    messages = {} if before is None else {delivery[1]: delivery for delivery in before.ready}
    messages |= {message.sequence: _delivery(inbox, message) for message in record.messages}
    for sequence, delivery in sorted(messages.items(), key=itemgetter(0)):
        if read < sequence <= received and sequence not in inbox.ahead:
            inbox.ready.append((inbox, *delivery[1:]))
            inbox.unsettled += cost_of(delivery)
    inbox.stored = received if durable or inbox.ready else 0
    return inbox


def restored(session: Session, run: bytes, now: float) -> None:
    """All records are in: go on under a new run."""
    outbox = session.outbox
    outbox.recall_ends()
    if outbox.history is not None:
        outbox.begin_run(run)
        outbox.sent = outbox.next - 1 if outbox.receiver is not None else 0
        outbox.transmitted = outbox.next - 1
        outbox.resume(outbox.first - 1)
        outbox.cursor = max(outbox.first, outbox.sent + 1)  # until a resume says otherwise, the peer may hold it all
        session.ending = outbox.fin >= outbox.first
    session.open_journal(outbox.next - 1)
    session.account()
    session.recall(now)
