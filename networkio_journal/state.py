"""What a journal has to keep of one peer, and the records that bring it back.  Pure: no file, no SQL.

Theory of operation
-------------------
The core hands out a history: one record for everything that must outlive the process.  Kept as it came it would grow
for ever, so a :class:`Peer` keeps what the history comes to: where the outbox begins and ends, who receives it, where
the inboxes stand.  Messages and openings are only counted here; the store has them, a row each.  Of what came and is
kept for its reader (a durable inbox), the numbers are here as well, each with the place of its row.

:func:`records_of` goes the other way.  ``Endpoint.restore`` draws more from a history than its end: under which run and
which outbox id each sequence was accepted.  So the openings come back one by one, each with the retained messages that
were accepted under it; where those are gone, :class:`~networkio_proto.journal.OutboxTrimmed` moves the numbers on.  An
endpoint restored from these records equals one restored from the whole history, but for the counts of messages that
are over: ``ledger.accepted`` and ``ledger.read`` lack those that are gone, and their difference is the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import takewhile

from networkio_proto.errors import printable
from networkio_proto.handshake import Ended, InboxFacts, Why
from networkio_proto.journal import (
    InboxesEnded,
    InboxMoved,
    JournalRecord,
    KeptMessage,
    MessageAccepted,
    MessagesEnded,
    MessagesKept,
    OutboxOpened,
    OutboxTrimmed,
    ReceiverKnown,
    RestoredRecord,
)
from networkio_proto.ledger import Failure, FailureLog
from networkio_proto.ranges import Ranges

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
    #: by their place in the order, the latest last; without their messages
    inboxes: dict[int, InboxMoved] = field(default_factory=dict)
    #: the places of the messages that are kept in them, by outbox and sequence
    kept: dict[bytes, dict[int, int]] = field(default_factory=dict)
    #: the last such place
    last_kept: int = 0
    #: is the last of them the present one?
    present: bool = False
    #: does the inbox of the receiver outlive its process?
    receiver_durable: bool = False
    ended: tuple[Ended, ...] = ()
    #: how those ended that were not read, by the first of each range, in order
    failures: dict[int, Failure] = field(default_factory=dict)


class Draft:
    """A peer as it will be when a batch is on disk, and what is new about it."""

    __slots__ = ("_gone", "_new", "_touched", "before", "came", "ends", "messages", "openings", "peer")

    def __init__(self, before: Peer) -> None:
        self.before = before
        self.peer = replace(before)
        #: messages that came, by outbox
        self.came: dict[bytes, dict[int, KeptMessage]] = {}
        self._touched: set[bytes] = set()
        self._gone: dict[bytes, list[int]] = {}
        self._new: dict[bytes, dict[int, int]] = {}
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
            peer.receiver, peer.receiver_durable = record.incarnation, record.durable
            peer.marked = max(peer.marked, record.marked)
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
        over = outbox_id == _NO_OUTBOX
        nothing = not moved.facts.received and not moved.settled
        ended = {item.outbox_id for item in peer.ended}
        passing = nothing or outbox_id in ended
        left = {old.facts.outbox_id: old for old in moved.old}
        inboxes: dict[int, InboxMoved] = {}
        for at, box in peer.inboxes.items():
            if box.facts.outbox_id in left:
                again = self._filled(left.pop(box.facts.outbox_id))
                if again.facts.received > again.facts.read or again.facts.outbox_id not in ended:
                    inboxes[at] = again
            elif not (over or box.facts.outbox_id in ended) and (passing or box.facts.outbox_id != outbox_id):
                inboxes[at] = box if box.facts.received == box.facts.read else self._emptied(box)
        last = max(peer.inboxes, default=0)
        for old in left.values():
            last += 1
            inboxes[last] = self._filled(old)
        if over or (passing and moved.old):
            peer.present = False
        elif not passing:
            mine = last and last in peer.inboxes and peer.inboxes[last].facts.outbox_id == outbox_id
            inboxes[last if mine else last + 1] = self._filled(moved)
            peer.present = True
        peer.inboxes = inboxes

    def _filled(self, moved: InboxMoved) -> InboxMoved:
        """An inbox, without the messages: those are kept beside it."""
        outbox_id = moved.facts.outbox_id
        self._touched.add(outbox_id)
        came = self.came.setdefault(outbox_id, {})
        for message in moved.messages:
            came[message.sequence] = message
        return replace(moved, messages=(), old=()) if moved.messages or moved.old else moved

    def _emptied(self, box: InboxMoved) -> InboxMoved:
        """All that came is settled."""
        self._touched.add(box.facts.outbox_id)
        received = box.facts.received
        facts, beyond = replace(box.facts, read=received), Ranges(box.settled)
        beyond.pass_over(box.facts.read, received)
        settled = tuple((max(first, received + 1), last) for first, last in beyond if last > received)
        return replace(box, facts=facts, settled=settled, gap=(), restarted=None, turn=0)

    def _end(self, ended: tuple[Ended, ...]) -> None:
        """They are no more, but for those that hold something for their reader."""
        peer, gone = self.peer, {item.outbox_id for item in ended}
        last = max(peer.inboxes, default=0)
        gone -= {box.facts.outbox_id for box in peer.inboxes.values() if box.facts.received > box.facts.read}
        ends = last in peer.inboxes and any(peer.inboxes[last].facts.outbox_id == item.outbox_id for item in ended)
        peer.inboxes = {at: box for at, box in peer.inboxes.items() if box.facts.outbox_id not in gone}
        peer.present = peer.present and not ends
        peer.ended = ended

    # -- what came ------------------------------------------------------------------------------------------------

    @property
    def all_messages(self) -> Iterator[MessageAccepted | KeptMessage]:
        """The new ones: those to be sent, and those that came."""
        yield from self.messages
        for came in self.came.values():
            yield from came.values()

    def changes(self) -> tuple[list[int], list[tuple[int, bytes, KeptMessage]]]:
        """The places of messages that are kept no longer, and those that are new: place, outbox and message.

        It costs as much as there is of these; :meth:`taken_over` makes the peer have it so.
        """
        peer, at = self.peer, self.peer.last_kept
        boxes = {box.facts.outbox_id: box for box in peer.inboxes.values()}
        settled = {box.facts.outbox_id: box.settled for box in self.before.inboxes.values()}
        gone: list[int] = []
        new: list[tuple[int, bytes, KeptMessage]] = []
        for outbox_id in self._touched | (peer.kept.keys() - boxes.keys()):
            before, box = peer.kept.get(outbox_id, {}), boxes.get(outbox_id)
            came = self.came.get(outbox_id, {})
            over = list(before) if box is None else _over(before, set(settled.get(outbox_id, ())), box, came)
            gone += [before[sequence] for sequence in over]
            fresh = {} if box is None else {sequence: at + i for i, sequence in enumerate(_held(came, box), 1)}
            new += [(place, outbox_id, came[sequence]) for sequence, place in fresh.items()]
            at += len(fresh)
            self._gone[outbox_id], self._new[outbox_id] = over, fresh
        return gone, new

    def taken_over(self) -> Peer:
        """It is on disk: the peer as it is now."""
        peer = self.peer
        for outbox_id, over in self._gone.items():
            places = peer.kept.setdefault(outbox_id, {})
            for sequence in over:
                del places[sequence]
            places.update(self._new[outbox_id])
            peer.last_kept += len(self._new[outbox_id])
            if not places:
                del peer.kept[outbox_id]
        return peer


def _held(came: Iterable[int], box: InboxMoved) -> list[int]:
    """Which of these are kept in the inbox, in order."""
    settled = Ranges(box.settled)
    return sorted(n for n in came if box.facts.read < n <= box.facts.received and n not in settled)


def _over(before: dict[int, int], known: set[tuple[int, int]], box: InboxMoved, came: Iterable[int]) -> list[int]:
    """Which of these sequences (in order) are in the inbox no longer; none is within the ranges ``known``."""
    read = box.facts.read
    end = min([box.facts.received + 1, *came])  # from there on nothing of it counts
    over = list(takewhile(lambda sequence: sequence <= read, before))
    over += takewhile(lambda sequence: sequence >= end and sequence > read, reversed(before))
    for first, last in set(box.settled) - known:
        first, last = max(first, read + 1), min(last, end - 1)
        few = range(first, last + 1) if last - first < len(before) else [n for n in before if first <= n <= last]
        over += [sequence for sequence in few if sequence in before]
    return over


def records_of(
    peer: Peer,
    openings: Iterable[Opening],
    messages: Iterable[MessageAccepted | MessagesKept],
    kept: Mapping[bytes, Iterable[KeptMessage]],
) -> list[RestoredRecord]:
    """What ``Endpoint.restore`` makes this peer of; at least one record, for it was known.

    ``kept``: what came and is kept, by outbox, in order.
    """
    records: list[RestoredRecord] = []
    records += _outbox(peer, list(openings), messages)
    if peer.receiver is not None:
        records.append(ReceiverKnown(peer.peer_id, peer.receiver, peer.marked, peer.receiver_durable))
    records += _inboxes(peer, kept)
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


def _inboxes(peer: Peer, kept: Mapping[bytes, Iterable[KeptMessage]]) -> Iterator[JournalRecord]:
    old: tuple[InboxMoved, ...] = ()
    for moved in peer.inboxes.values():
        yield replace(moved, messages=tuple(kept.get(moved.facts.outbox_id, ())), old=old)
        if moved.facts.received > moved.facts.read:
            old += (moved,)
    if peer.inboxes and not peer.present:  # the one that came last has ended
        yield InboxMoved(peer.peer_id, InboxFacts(_GONE, _GONE, 1, 1, 1), (), old=old)
        yield InboxesEnded(peer.peer_id, (Ended(_GONE, _GONE, 1, 1, 1, Why.EXPIRED),))
    if peer.ended or (peer.inboxes and not peer.present):
        yield InboxesEnded(peer.peer_id, peer.ended)
