"""Endpoints compared field by field, a simulated disk that keeps its batches in SQLite, and histories at random."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

from networkio_journal.store import Store
from networkio_proto import Endpoint, Outcome
from networkio_proto.events import GapRange, Positions
from networkio_proto.handshake import Ended, InboxFacts
from networkio_proto.inbox import Inbox
from networkio_proto.journal import (
    InboxesEnded,
    InboxMoved,
    JournalBatch,
    JournalRecord,
    KeptMessage,
    MessageAccepted,
    MessagesEnded,
    OutboxOpened,
    OutboxTrimmed,
    ReceiverKnown,
    RestoredRecord,
)
from networkio_proto.ledger import Failure, FailureLog
from networkio_proto.maps import encode_map
from networkio_proto.outbox import Entry, Outbox
from networkio_proto.ranges import Ranges
from networkio_proto.session import Session
from networkio_proto.spill import JournalLoad
from networkio_testing.disk import Disk

#: of an outbox: what places of read messages, and counts of them, leave behind; and what is compared on its own
_OUTBOX = set(Outbox.__slots__) - {"entries", "origin", "ledger", "failures", "on_outcome", "_ttl"}


#: so much stays in memory when all does
ALL = 1 << 62


def restored(records: Sequence[RestoredRecord], *, durable: bool = False) -> Endpoint:
    """A new process over these records."""
    endpoint = Endpoint("node", random=Random(1), journal=True, durable_inbox=durable)
    endpoint.restore(list(records), 0.0)
    return endpoint


def picture(endpoint: Endpoint, *, spilled: bool = False) -> dict[str, Any]:
    """Everything that restoring may have an influence on, as comparable values; of ``spilled`` messages the cost."""
    queue = endpoint.journal
    assert queue is not None
    return {
        "sessions": {peer_id: _session(session, spilled) for peer_id, session in endpoint.sessions.items()},
        "order": list(endpoint.sessions),
        "cost": endpoint.outbox_cost,
        "pending": [(kind, sequence) for _, kind, sequence in queue._pending],
        "random": endpoint.random_bytes(8),
    }


def _session(session: Session, spilled: bool) -> dict[str, Any]:
    outbox, journal, inboxes = session.outbox, session.journal, session.inboxes
    ledger = {name: getattr(outbox.ledger, name) for name in outbox.ledger.__slots__}
    ledger["read"] = ledger.pop("accepted") - ledger["read"]
    fields: dict[str, Any] = {name: getattr(outbox, name) for name in _OUTBOX}
    if spilled:
        del fields["_special"]
    return {
        **fields,
        "runs": list(outbox.runs.items()),
        "entries": [_entry(outbox.entry(number), spilled) for number in range(outbox.first, outbox.next)],
        "failures": outbox.failures.ranges(),
        "ledger": ledger,
        "ending": session.ending,
        "outcome": [session.outcome(sequence) for sequence in range(outbox.first, outbox.next)],
        "journal": journal and (journal.accepted, journal.first, journal.open),
        "boxes": [_inbox(box) for box in inboxes.boxes],
        "present": inboxes.boxes.index(inboxes.present) if inboxes.present is not None else None,
        "dormant": inboxes.dormant,
        "ended": inboxes._ended,
        "since": session.since,
    }


def _entry(entry: Entry, spilled: bool) -> tuple[Any, ...]:
    if spilled:
        return entry.cost, entry.skip, entry.fin
    return entry.payload, entry.headers, entry.flags, entry.expires, entry.cost, entry.skip, entry.fin


def _inbox(inbox: Inbox) -> dict[str, Any]:
    messages: dict[str, Any] = {
        name: [delivery[1:] for delivery in getattr(inbox, name)] for name in ("ready", "staged", "arriving", "replies")
    }
    held = {sequence: delivery[1:] for sequence, delivery in inbox.held.items()}
    fields = {name: getattr(inbox, name) for name in Inbox.__slots__}
    return fields | messages | {"held": held, "ahead": tuple(inbox.ahead)}


def assert_same(
    left: Sequence[RestoredRecord], right: Sequence[RestoredRecord], *, spilled: bool = False, durable: bool = False
) -> None:
    """A process over one of these begins just as one over the other, be it ``spilled`` or whole what they have."""
    first = picture(restored(left, durable=durable), spilled=spilled)
    second = picture(restored(right, durable=durable), spilled=spilled)
    for peer_id, session in first["sessions"].items():
        other = second["sessions"].get(peer_id, {})
        differ = {name: (value, other.get(name)) for name, value in session.items() if value != other.get(name)}
        assert not differ, peer_id
    assert first == second


def batches(records: Sequence[JournalRecord], size: int = 1) -> Iterator[JournalBatch]:
    """These records, so many at a time."""
    for token, start in enumerate(range(0, len(records), size), 1):
        yield JournalBatch(token, tuple(records[start : start + size]))


class Kept(list[RestoredRecord]):
    """What a journal has, and how many messages, by peer, are over and no longer in it."""

    over: Mapping[str, int] = {}


class CountingEndpoint(Endpoint):
    """Counts the messages that are over, too: the judges of games know the whole history."""

    def restore(self, records: Iterable[RestoredRecord], now: float) -> None:
        super().restore(records, now)
        for peer_id, over in records.over.items() if isinstance(records, Kept) else ():
            ledger = self.sessions[peer_id].outbox.ledger
            ledger.accepted += over
            ledger.read += over


class StoreDisk(Disk):
    """A simulated disk whose batches go into an SQLite journal too, and whose processes begin with what that has.

    Play with :class:`CountingEndpoint`.
    """

    directory = Path()
    numbers = count()
    reopened = 0
    loaded = 0

    def __init__(self, *, inbox: bool = False) -> None:
        super().__init__(inbox=inbox)
        self._anew()

    def _anew(self) -> None:
        self._path = str(self.directory / f"{next(self.numbers)}.db")
        self._store = Store(self._path, "node", synchronous="OFF")

    def open(self, resident: int) -> list[RestoredRecord]:
        whole = super().open(ALL)
        for bound in (None, resident):
            self._store.close()
            self._store = Store(self._path, "node", bound, synchronous="OFF")
            assert_same(whole, self._store.records, spilled=bound is not None, durable=self.inbox)
        type(self).reopened += bool(whole)
        kept = Kept(self._store.records)
        sessions, others = restored(whole).sessions, restored(kept).sessions
        kept.over = {
            name: session.outbox.ledger.read - others[name].outbox.ledger.read for name, session in sessions.items()
        }
        return kept

    def _write(self, batch: JournalBatch) -> OSError | None:
        before = len(self.batches)
        error = super()._write(batch)
        if len(self.batches) > before:
            self._store.commit(batch)
        return error

    def _wanted(self, load: JournalLoad) -> list[MessageAccepted]:
        found = self._store.load(load)
        type(self).loaded += len(found)
        return found

    def rewind(self, share: float) -> None:
        super().rewind(share)
        self._store.close()
        self._anew()
        for records in self.batches:
            self._store.commit(JournalBatch(0, records))

    def end(self) -> None:
        self._store.close()


class History:
    """Records as a core might write them, and in orders in which it would not."""

    def __init__(self, chance: Random, peers: Sequence[str] = ("a", "b")) -> None:
        self.chance = chance
        self.peers = peers
        #: the next sequence, and the end, of the outbox to each peer
        self.next: dict[str, int] = {}
        self.fin: dict[str, int] = {}
        self.first: dict[str, int] = {}

    def record(self) -> JournalRecord:
        """One more."""
        chance, peer = self.chance, self.chance.choice(self.peers)
        if peer not in self.next:
            self.next[peer] = self.first[peer] = chance.choice([1, 1, 5])
            return OutboxOpened(peer, self._name(), chance.randbytes(16), self.next[peer])
        makers: list[Callable[[str], JournalRecord]] = [
            self.message, self.buried, self.trimmed, self.opened, self.receiver, self.moved, self.ended
        ]
        return chance.choices(makers, [8, 3, 3, 1, 1, 4, 3])[0](peer)

    def records(self, count: int) -> list[JournalRecord]:
        return [self.record() for _ in range(count)]

    def _name(self) -> bytes:
        return self.chance.choice(b"ABCDE").to_bytes(16, "big")

    def message(self, peer: str) -> MessageAccepted:
        chance, sequence = self.chance, self.next[peer]
        self.next[peer] = sequence + 1
        payload = chance.randbytes(chance.choice([0, 1, 30, 5000]))
        headers = chance.choice([b"", b"", b"headers"])
        fin = self.fin.get(peer, 0) < self.first[peer] and chance.random() < 0.1
        self.fin[peer] = sequence if fin else self.fin.get(peer, 0)
        skip = chance.choice([0, 0, 0, 0, 2, 3]) if not fin else 0
        return MessageAccepted(peer, sequence, payload, headers, chance.choice([0, 0x40]), fin, skip)

    def buried(self, peer: str) -> MessagesEnded:
        chance = self.chance
        there = [number for number in range(self.first[peer], self.next[peer]) if number != self.fin[peer]]
        ends = sorted(chance.sample(there, chance.randint(0, len(there))))
        failures = FailureLog()
        for sequence in ends:
            if chance.random() < 0.7:
                failures.learn(Failure(sequence, sequence, Outcome.CANCELLED, chance.choice(["", "no"]), "no"))
        return MessagesEnded(peer, tuple((number, chance.randint(1, 6)) for number in ends), tuple(failures.ranges()))

    def trimmed(self, peer: str) -> OutboxTrimmed:
        chance, before = self.chance, self.first[peer]
        first = self.chance.randint(self.first[peer], self.next[peer])
        if self.chance.random() < 0.1:
            first = self.next[peer] + 2  # what ended before it was written
        self.first[peer] = first
        self.next[peer] = max(first, self.next[peer])
        failures = FailureLog()
        for sequence in range(before, first):
            if chance.random() < 0.5:
                outcome, text = chance.choice([(Outcome.REJECTED, "n\u00e9\ud800"), (Outcome.EXPIRED, "")])
                exact = chance.random() < 0.8
                failures.add(Failure(sequence, sequence, outcome, text, chance.choice(["no", "yes"]), 7, exact))
        return OutboxTrimmed(peer, first, tuple(failures.ranges()))

    def opened(self, peer: str) -> OutboxOpened:
        return OutboxOpened(peer, self._name(), self.chance.randbytes(16), self.first[peer])

    def receiver(self, peer: str) -> ReceiverKnown:
        chance = self.chance
        incarnation, marked = chance.choice([b"", chance.randbytes(16)]), chance.randint(0, 9)
        return ReceiverKnown(peer, incarnation, marked, durable=chance.random() < 0.5)

    def moved(self, peer: str) -> InboxMoved:
        chance = self.chance
        if chance.random() < 0.1:
            return InboxMoved(peer, InboxFacts(bytes(16), bytes(16), 0, 0, 1), ())
        read = chance.randint(0, 9)
        rejects = tuple(
            (chance.randint(1, 12), chance.randint(0, 65535), chance.choice(["", "no", "né\ud800"]))
            for _ in range(chance.choice([0, 0, 2]))
        )
        facts = InboxFacts(self._name(), chance.randbytes(16), read, read, chance.randint(1, 9))
        settled = tuple((read + 2 + 3 * place, read + 3 + 3 * place) for place in range(chance.choice([0, 0, 1, 4])))
        return InboxMoved(peer, facts, rejects, chance.choice([0, 0, read]), settled)

    def ended(self, peer: str) -> InboxesEnded:
        names = self.chance.sample(range(65, 70), self.chance.randint(0, 3))
        ended = tuple(Ended(name.to_bytes(16, "big"), bytes(16), 9, 8, 7, 1 + name % 3) for name in names)
        return InboxesEnded(peer, ended)


class DurableHistory(History):
    """The same with a durable inbox: what came is kept until it is settled, in inboxes that were left as well."""

    def __init__(self, chance: Random, peers: Sequence[str] = ("a", "b")) -> None:
        super().__init__(chance, peers)
        #: by peer and outbox: how far it came, and what is kept
        self.boxes: dict[str, dict[bytes, tuple[int, dict[int, KeptMessage]]]] = {peer: {} for peer in peers}
        self.over: dict[str, set[bytes]] = {peer: set() for peer in peers}

    def moved(self, peer: str) -> InboxMoved:
        chance, boxes = self.chance, self.boxes[peer]
        for name, (received, kept) in list(boxes.items()):
            few = chance.sample(sorted(kept), chance.randint(0, len(kept)))
            boxes[name] = received, {number: kept[number] for number in sorted(set(kept) - set(few))}
        open_names = [name for name in (n.to_bytes(16, "big") for n in b"ABCDE") if name not in self.over[peer]]
        ended = chance.random() < 0.15 or not open_names
        mine = bytes(16) if ended else chance.choice(open_names)
        old = []
        for name in list(boxes):
            if name == mine:
                continue
            if boxes[name][1] and chance.random() < 0.8:
                old.append(self._of(peer, name, ()))
            elif ended:
                del boxes[name]
            else:
                boxes[name] = boxes[name][0], {}
        if ended:
            return InboxMoved(peer, InboxFacts(mine, mine, 0, 0, 1), (), old=tuple(old))
        return replace(self._of(peer, mine, self._come(peer, mine)), old=tuple(old))

    def _come(self, peer: str, name: bytes) -> tuple[KeptMessage, ...]:
        """More messages come into an inbox, some perhaps in the place of those that were not stated yet."""
        chance = self.chance
        received, kept = self.boxes[peer].get(name, (0, {}))
        received = max(0, received - chance.choice([0, 0, 0, 2]))
        kept = {number: message for number, message in kept.items() if number <= received}
        new = []
        for _ in range(chance.choice([0, 1, 3])):
            received += chance.choice([1, 1, 1, 3])  # a SKIP was before it
            new.append(self._message(received))
        received += chance.choice([0, 0, 0, 5])  # or after it
        self.boxes[peer][name] = received, kept | {message.sequence: message for message in new}
        return tuple(new)

    def _message(self, number: int) -> KeptMessage:
        chance = self.chance
        gap = (GapRange(number - 2, number - 1, 2),) if chance.random() < 0.2 else ()
        restarted = Positions(chance.randbytes(16), 7, 5) if chance.random() < 0.1 else None
        headers = encode_map(chance.choice([{}, {"a": 1}, {".reply": bytes(16)}]))
        origin = chance.choice([None, None, chance.randbytes(24)])
        return KeptMessage(number, chance.randbytes(chance.choice([0, 30, 5000])), headers, 0, gap, restarted, origin)

    def _of(self, peer: str, name: bytes, new: tuple[KeptMessage, ...]) -> InboxMoved:
        received, kept = self.boxes[peer][name]
        read = min(kept, default=received + 1) - 1
        settled = Ranges((n, n) for n in range(read + 1, received + 1) if n not in kept)
        facts = InboxFacts(name, self.chance.randbytes(16), received, read, 1)
        gap = (GapRange(received, received, 3),) if received not in kept else ()
        return InboxMoved(peer, facts, (), 0, tuple(settled), new, gap, None, 1 + name[-1])

    def ended(self, peer: str) -> InboxesEnded:
        record = super().ended(peer)
        self.over[peer] = {item.outbox_id for item in record.ended}
        for name in self.over[peer] & self.boxes[peer].keys():
            if not self.boxes[peer][name][1]:
                del self.boxes[peer][name]
        return record
