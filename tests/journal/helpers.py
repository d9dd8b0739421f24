"""Endpoints compared field by field, a simulated disk that keeps its batches in SQLite, and histories at random."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

from networkio_journal.store import Store
from networkio_proto import Endpoint, Outcome
from networkio_proto.handshake import Ended, InboxFacts
from networkio_proto.inbox import Inbox
from networkio_proto.journal import (
    InboxesEnded,
    InboxMoved,
    JournalBatch,
    JournalRecord,
    MessageAccepted,
    MessagesEnded,
    OutboxOpened,
    OutboxTrimmed,
    ReceiverKnown,
    RestoredRecord,
)
from networkio_proto.ledger import Failure, FailureLog
from networkio_proto.outbox import Entry, Outbox
from networkio_proto.session import Session
from networkio_proto.spill import JournalLoad
from networkio_testing.disk import Disk

#: of an outbox: what places of read messages, and counts of them, leave behind; and what is compared on its own
_OUTBOX = set(Outbox.__slots__) - {"entries", "origin", "ledger", "failures", "on_outcome", "_ttl"}


#: so much stays in memory when all does
ALL = 1 << 62


def restored(records: Sequence[RestoredRecord]) -> Endpoint:
    """A new process over these records."""
    endpoint = Endpoint("node", random=Random(1), journal=True)
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
    return {name: getattr(inbox, name) for name in Inbox.__slots__} | {"ahead": tuple(inbox.ahead)}


def assert_same(left: Sequence[RestoredRecord], right: Sequence[RestoredRecord], *, spilled: bool = False) -> None:
    """A process over one of these begins just as one over the other, be it ``spilled`` or whole what they have."""
    first, second = picture(restored(left), spilled=spilled), picture(restored(right), spilled=spilled)
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

    def __init__(self) -> None:
        super().__init__()
        self._anew()

    def _anew(self) -> None:
        self._path = str(self.directory / f"{next(self.numbers)}.db")
        self._store = Store(self._path, "node", synchronous="OFF")

    def open(self, resident: int) -> list[RestoredRecord]:
        whole = super().open(ALL)
        for bound in (None, resident):
            self._store.close()
            self._store = Store(self._path, "node", bound, synchronous="OFF")
            assert_same(whole, self._store.records, spilled=bound is not None)
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
        return ReceiverKnown(peer, self.chance.choice([b"", self.chance.randbytes(16)]), self.chance.randint(0, 9))

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
