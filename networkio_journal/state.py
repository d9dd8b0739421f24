"""What a journal has to keep of one peer, and the records that bring it back.  Pure: no file, no SQL.

Theory of operation
-------------------
The core hands out a history: one record for everything that must outlive the process.  Kept as it came it would grow
for ever, so a :class:`Peer` keeps what the history comes to: where the outbox begins and ends, who receives it, where
the inboxes stand.  Messages and openings are only counted here; the store has them, a row each.

:func:`records_of` goes the other way.  ``Endpoint.restore`` draws more from a history than its end: under which run and
which outbox id each sequence was accepted.  So the openings come back one by one, each with the retained messages that
were accepted under it; where those are gone, :class:`~networkio_proto.journal.OutboxTrimmed` moves the numbers on.  An
endpoint restored from these records equals one restored from the whole history, but for the counts of messages that
are over: ``ledger.accepted`` and ``ledger.read`` lack those that are gone, and their difference is the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from networkio_proto.errors import printable
from networkio_proto.handshake import Ended, InboxFacts, Why
from networkio_proto.journal import (
    InboxesEnded,
    InboxMoved,
    JournalRecord,
    MessageAccepted,
    MessagesEnded,
    MessagesKept,
    OutboxOpened,
    OutboxTrimmed,
    ReceiverKnown,
    RestoredRecord,
)
from networkio_proto.ledger import Failure, FailureLog

__all__ = ["Draft", "Opening", "Peer", "records_of"]

#: stands in InboxMoved where the session is over
_NO_OUTBOX = bytes(16)

#: no outbox has this id; it takes the place of an inbox that is no more, see _inboxes
_GONE = bytes(15) + b"\x01"


@dataclass(frozen=True, slots=True)
class Opening:
    """From here on the outbox had this id and run; ``after`` is the last sequence before."""

    outbox_id: bytes
    run: bytes
    after: int


@dataclass(slots=True)
class Peer:
    """What the journal has of one peer, without its messages and openings."""

    #: its place among the peers, from 1 on
    number: int
    peer_id: str
    #: the retained messages are ``first`` to ``next - 1``
    first: int = 1
    next: int = 1
    #: None: the process that receives is not known
    receiver: bytes | None = None
    marked: int = 0
    #: how many openings there are
    openings: int = 0
    #: by their place in the order, the latest last
    inboxes: dict[int, InboxMoved] = field(default_factory=dict)
    #: is the last of them the present one?
    present: bool = False
    ended: tuple[Ended, ...] = ()
    #: how those ended that were not read, by the first of each range, in order
    failures: dict[int, Failure] = field(default_factory=dict)


class Draft:
    """A peer as it will be when a batch is on disk, and what is new about it."""

    __slots__ = ("before", "ends", "messages", "openings", "peer")

    def __init__(self, before: Peer) -> None:
        self.before = before
        self.peer = replace(before)
        self.openings: list[Opening] = []
        self.messages: list[MessageAccepted] = []
        #: the SKIP reasons of messages that have become tombstones
        self.ends: dict[int, int] = {}

    def take(self, record: JournalRecord) -> None:
        """One more record.  Raises ValueError for a message that does not follow the one before."""
        peer = self.peer
        if isinstance(record, MessageAccepted):
            if record.sequence != peer.next or not peer.openings:
                name = printable(peer.peer_id)
                raise ValueError(f"message {record.sequence} to {name} does not follow {peer.next - 1}")
            self.messages.append(record)
            peer.next += 1
        elif isinstance(record, OutboxOpened):
            if not peer.openings:
                peer.first = peer.next = record.first
            self.openings.append(Opening(record.outbox_id, record.run, peer.next - 1))
            peer.openings += 1
        elif isinstance(record, MessagesEnded):
            self.ends.update(record.ends)
            self._fail(record.failures)
        elif isinstance(record, OutboxTrimmed):
            peer.first = max(peer.first, record.first)
            peer.next = max(peer.next, peer.first)
            self._fail(record.failures)
        elif isinstance(record, ReceiverKnown):
            peer.receiver, peer.marked = record.incarnation, max(peer.marked, record.marked)
        elif isinstance(record, InboxesEnded):
            self._end(record.ended)
        else:
            self._move(record)

    @property
    def retained(self) -> Iterator[MessageAccepted]:
        """The new messages, but for those that have their outcome already."""
        return (message for message in self.messages if message.sequence >= self.peer.first)

    @property
    def tombstones(self) -> Iterator[MessageAccepted]:
        """What is left of the messages that were retained, and ended early."""
        for sequence, skip in self.ends.items():
            if sequence >= self.peer.first:
                yield MessageAccepted(self.peer.peer_id, sequence, b"", b"", 0, skip=skip)

    def _fail(self, failures: tuple[Failure, ...]) -> None:
        """As in the core, the oldest melt where there are too many."""
        if failures:
            log = FailureLog()
            for known in self.peer.failures.values():
                log.add(known)
            for failure in failures:
                log.learn(failure)
            self.peer.failures = {failure.first: failure for failure in log.ranges()}

    def _move(self, moved: InboxMoved) -> None:
        peer, outbox_id = self.peer, moved.facts.outbox_id
        if outbox_id == _NO_OUTBOX:
            peer.inboxes, peer.present = {}, False
        elif (moved.facts.read or moved.settled) and all(ended.outbox_id != outbox_id for ended in peer.ended):
            last = max(peer.inboxes, default=0)
            place = last if last and peer.inboxes[last].facts.outbox_id == outbox_id else last + 1
            others = {at: box for at, box in peer.inboxes.items() if box.facts.outbox_id != outbox_id}
            peer.inboxes, peer.present = {**others, place: moved}, True

    def _end(self, ended: tuple[Ended, ...]) -> None:
        peer, gone = self.peer, {item.outbox_id for item in ended}
        last = max(peer.inboxes, default=0)
        peer.inboxes = {at: box for at, box in peer.inboxes.items() if box.facts.outbox_id not in gone}
        peer.present = peer.present and last in peer.inboxes
        peer.ended = ended


def records_of(
    peer: Peer, openings: Iterable[Opening], messages: Iterable[MessageAccepted | MessagesKept]
) -> list[RestoredRecord]:
    """What ``Endpoint.restore`` makes this peer of; at least one record, for it was known."""
    records: list[RestoredRecord] = []
    records += _outbox(peer, list(openings), messages)
    if peer.receiver is not None:
        records.append(ReceiverKnown(peer.peer_id, peer.receiver, peer.marked))
    records += _inboxes(peer)
    return records or [OutboxTrimmed(peer.peer_id, 1)]


def _outbox(
    peer: Peer, openings: list[Opening], messages: Iterable[MessageAccepted | MessagesKept]
) -> Iterator[RestoredRecord]:
    """Each opening, and the messages that were accepted under it as far as they are retained."""
    left = deque(messages)
    for index, opening in enumerate(openings):
        last = openings[index + 1].after if index + 1 < len(openings) else peer.next - 1
        begin = min(peer.first, last + 1)  # of messages that are gone only the numbers are left
        yield OutboxOpened(peer.peer_id, opening.outbox_id, opening.run, begin)
        if index and begin > opening.after + 1:
            yield OutboxTrimmed(peer.peer_id, begin)
        yield from _through(last, left)
    if peer.failures or (not openings and peer.first > 1):
        yield OutboxTrimmed(peer.peer_id, peer.first, tuple(peer.failures.values()))


def _through(last: int, left: deque[MessageAccepted | MessagesKept]) -> Iterator[MessageAccepted | MessagesKept]:
    """Take out of ``left`` all messages up to ``last``; what goes beyond is divided."""
    while left:
        item = left.popleft()
        if isinstance(item, MessageAccepted):
            first, count = item.sequence, 1
        else:
            first, count = item.first, len(item.costs)
        if first > last:
            left.appendleft(item)
            return
        if isinstance(item, MessagesKept) and first + count > last + 1:
            here = last + 1 - first
            left.appendleft(replace(item, first=last + 1, costs=item.costs[here:]))
            item = replace(item, costs=item.costs[:here])
        yield item


def _inboxes(peer: Peer) -> Iterator[JournalRecord]:
    yield from peer.inboxes.values()
    if peer.inboxes and not peer.present:  # the one that came last has ended
        yield InboxMoved(peer.peer_id, InboxFacts(_GONE, _GONE, 1, 1, 1), ())
        yield InboxesEnded(peer.peer_id, (Ended(_GONE, _GONE, 1, 1, 1, Why.EXPIRED),))
    if peer.ended or (peer.inboxes and not peer.present):
        yield InboxesEnded(peer.peer_id, peer.ended)
