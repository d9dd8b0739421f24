"""The judge of worlds in which some hosts keep a journal: what was promised must be there after a crash.

Theory of operation
-------------------
A :class:`DurableJudge` is a :class:`~networkio_testing.judges.Judge` that knows what is on each disk.  It holds three
things against the nodes:

* **What leaves rests on the disk** (I10).  Every frame that a durable host writes is compared with the records that
  its disk has synced by then: sequences, the outbox and the run that they go under, the process of the peer that they
  go to (P-MODEL-15, P-OUT-8, P-RUN-1, P-MARK-6), ``first`` (P-MODEL-14), ``read`` and rejections (guarantee G4).
* **What is on the disk outlives the process.**  When a process begins, a small model of the journal is replayed, and
  the core must have made the same of it: the messages and their numbers, what is trimmed, where the inboxes stand, and
  what a durable inbox holds, which is handed over from there, and only from there, in the end, and with a flag.  The
  ghosts of the old process's messages go on with the new one, so outcomes, READ, order and flags are judged across
  crashes as within a life.  What an application acknowledged, and the disk had, never comes again (guarantee G5).
* **A failed batch** takes exactly those messages back that were not on disk.

What restarts may legitimately do is weaker in these places, each named where it is excused:

* *Old copies* (guarantees, Restarts).  A sender that is rolled back may have lost what the copy does not hold, and
  gives the numbers of that to new messages, which then go by the same first names (P-OUT-6).  What the copy holds comes
  again under a new name of the outbox, flagged, also where it was read (case C).  Flags follow what its journal knows
  (P-MARK-6): a copy from before it met the receiver knows of no transmission, until they meet again; nor does a copy of
  a copy, from before they met again, of what was accepted in between.  A receiver that
  is rolled back gets again what it had acknowledged since.  All that ends when the two have met under the run that came
  after the copy.
* *Second processes* (guarantees, Words: a node is one process under its name), for the two nodes that met them.
* *Outcomes.*  A message that was cancelled, expired, lost or rejected, and whose end is not on disk, is back after a
  crash.  The peer cannot have been told to pass it over, but for an old copy; it may have rejected it.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf
from struct import Struct

from networkio_proto import COST_PER_MESSAGE, Connection, Delivery, Outcome
from networkio_proto.frames import ACK, ATTACH, DATA, FIN, PREAMBLE, REJECT, SKIP
from networkio_proto.handshake import Ended, parse_attach
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
)
from networkio_proto.notices import Notice
from networkio_proto.outbox import Outbox, Spilled
from networkio_proto.session import Session

from .judges import Judge, _Ghost, _Log, _Message, _Tap
from .world import Host, Wire, World

__all__ = ["DurableJudge"]

_HEADER = Struct(">IBB")
_SEQUENCE = Struct(">Q")
_RANGE = Struct(">QQ")
_POSITIONS = Struct(">QQQQ")

#: what a journal may not have of a message that is still retained: it ended early
_FORGOTTEN = frozenset({Outcome.CANCELLED, Outcome.EXPIRED, Outcome.LOST, Outcome.REJECTED})


@dataclass(slots=True)
class _Kept:
    """What the disk of one host has of one peer: a model of the journal, replayed record by record."""

    outbox: tuple[bytes, bytes] | None = None
    #: every outbox that there ever was
    outboxes: set[bytes] = field(default_factory=set)
    first: int = 1
    next: int = 1
    fin: int = 0
    #: by its number; those below ``first`` too
    messages: dict[int, MessageAccepted] = field(default_factory=dict)
    #: those that ended early
    ends: set[int] = field(default_factory=set)
    receiver: bytes | None = None
    marked: int = 0
    #: does the inbox of that receiver outlive it?
    durable: bool = False
    #: ``read`` of each inbox, what is settled beyond, and the rejections that are kept with it
    inboxes: dict[bytes, int] = field(default_factory=dict)
    settled: dict[bytes, frozenset[int]] = field(default_factory=dict)
    rejects: dict[bytes, frozenset[int]] = field(default_factory=dict)
    #: up to where a durable inbox has what came, under which run, and what it holds of that
    received: dict[bytes, int] = field(default_factory=dict)
    runs: dict[bytes, bytes] = field(default_factory=dict)
    holds: dict[bytes, frozenset[int]] = field(default_factory=dict)
    #: the last positions of inboxes that are no more
    ended: tuple[Ended, ...] = ()

    def add(self, record: JournalRecord) -> None:
        """One more record is on disk."""
        if isinstance(record, OutboxOpened):
            if self.outbox is None:
                self.first = self.next = record.first
            self.outbox = (record.outbox_id, record.run)
            self.outboxes.add(record.outbox_id)
        elif isinstance(record, MessageAccepted):
            self.messages[record.sequence] = record
            self.next = record.sequence + 1
            self.fin = record.sequence if record.fin else self.fin
            if record.skip:
                self.ends.add(record.sequence)
        elif isinstance(record, MessagesEnded):
            self.ends.update(sequence for sequence, _ in record.ends)
        elif isinstance(record, OutboxTrimmed):
            self.fin = 0 if record.first > self.fin else self.fin
            self.first = max(self.first, record.first)
            self.next = max(self.next, self.first)
        elif isinstance(record, ReceiverKnown):
            self.receiver, self.durable = record.incarnation, record.durable
            self.marked = max(self.marked, record.marked)
        elif isinstance(record, InboxesEnded):
            self.ended = record.ended
            for outbox_id in {ended.outbox_id for ended in record.ended} & self.inboxes.keys():
                if not self.holds[outbox_id]:  # else its reader gets that
                    self._drop(outbox_id)
        else:
            self._move(record)

    def _move(self, record: InboxMoved) -> None:
        mine, ends = record.facts.outbox_id, {ended.outbox_id for ended in self.ended}
        parts = {part.facts.outbox_id: part for part in (*record.old, record) if part is not record or mine not in ends}
        for outbox_id in self.inboxes.keys() - parts.keys():
            if mine == bytes(16) or outbox_id in ends:
                self._drop(outbox_id)
            elif self.holds[outbox_id]:
                self.inboxes[outbox_id], self.holds[outbox_id] = self.received[outbox_id], frozenset()
        for outbox_id, part in parts.items():
            if part.facts.received or part.settled:
                self._fill(outbox_id, part)
            if outbox_id in ends and not self.holds.get(outbox_id):
                self._drop(outbox_id)

    def _fill(self, outbox_id: bytes, part: InboxMoved) -> None:
        read, received, settled = part.facts.read, part.facts.received, _numbers(part.settled)
        came = {message.sequence for message in part.messages}
        before = {number for number in self.holds.get(outbox_id, ()) if number < min(came, default=received + 1)}
        self.inboxes[outbox_id], self.settled[outbox_id] = read, settled
        self.rejects[outbox_id] = frozenset(sequence for sequence, _, _ in part.rejects)
        self.received[outbox_id], self.runs[outbox_id] = received, part.facts.run
        self.holds[outbox_id] = frozenset(n for n in before | came if read < n <= received and n not in settled)

    def _drop(self, outbox_id: bytes) -> None:
        for facts in (self.inboxes, self.settled, self.rejects, self.received, self.runs, self.holds):
            facts.pop(outbox_id, None)

    def read(self, outbox_id: bytes) -> int:
        """Up to where what came in this outbox was read, be its inbox no more."""
        ends = (ended.read for ended in self.ended if ended.outbox_id == outbox_id)
        return max(self.inboxes.get(outbox_id, 0), *ends, 0)


class DurableJudge(Judge):
    """Watches all hosts of a world, some of which have a disk."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        #: what is on the disks, by host and peer
        self._kept: defaultdict[str, dict[str, _Kept]] = defaultdict(dict)
        #: the ghost of each record of a message that was ever written
        self._written: dict[int, tuple[MessageAccepted, _Message]] = {}
        #: messages that a sender was told are on disk
        self._promised: defaultdict[str, dict[int, tuple[str, _Message]]] = defaultdict(dict)
        #: so many batches of each host were looked at for what was read
        self._noted: Counter[str] = Counter()
        #: the process of each durable host, and the last log that any of its dead ones had for a peer
        self._lives: dict[str, bytes] = {}
        self._latest: dict[tuple[str, str], _Log] = {}
        #: the log of the process before, by that of its successor
        self._before_it: dict[int, _Log] = {}
        #: what was read, as far as a sender told a process: the ``first`` that reached it, less one, by outbox
        self._stated: defaultdict[tuple[bytes, bytes], int] = defaultdict(int)
        #: those that are under way: behind so many bytes of each end of a wire
        self._stating: defaultdict[tuple[int, int], deque[tuple[int, bytes, int]]] = defaultdict(deque)
        #: the highest ``first`` that a host ever stated to a peer
        self._firsts: defaultdict[tuple[str, str], int] = defaultdict(int)
        #: up to where messages came from the journal, by log
        self._loaded: dict[int, int] = {}
        #: the process that gave an outbox its name
        self._named: dict[bytes, _Log] = {}
        #: messages of which a sender may not know who has them, by log
        self._forgetful: dict[int, list[_Message]] = {}
        #: senders and receivers (hosts) of which an old copy was restored, and that have not met again since
        self._rolled_back: set[tuple[str, str]] = set()
        #: of those: so many batches the copy had, and so many there were when the two met again
        self._went_on: dict[tuple[str, str], tuple[int, float]] = {}
        #: processes that saw what was accepted in between, under a name that its sender lost; by turn of the message
        self._unknown: dict[int, set[bytes]] = {}
        #: what was read, and is on disk: turns of messages, and the outboxes that they came in, by host and peer
        self._done: defaultdict[tuple[str, str], dict[int, set[bytes]]] = defaultdict(dict)
        #: what a durable inbox had on disk and nobody got yet, by host
        self._owed: defaultdict[str, dict[int, _Message]] = defaultdict(dict)
        #: turns of messages that it got and an old copy of it has not, and whose senders did not know by then
        self._unlearnt: defaultdict[str, set[int]] = defaultdict(set)
        #: senders and receivers (hosts): an old copy of the receiver was restored, and the two have not met since
        self._behind: set[tuple[str, str]] = set()
        #: the same, be it that they have met since
        self._were_behind: set[tuple[str, str]] = set()
        #: what it told at most of having received, by host and outbox
        self._said: defaultdict[tuple[str, bytes], int] = defaultdict(int)
        #: what a process found there when it began
        self._found: dict[tuple[bytes, bytes], frozenset[int]] = {}
        #: turns of messages that were retained when their outbox got this name: they may come once in it, with a flag
        self._again: defaultdict[bytes, set[int]] = defaultdict(set)

    def _disk(self, host: Host, peer: str) -> _Kept:
        kept = self._kept[host.name].get(peer)
        if kept is None:
            kept = self._kept[host.name][peer] = _Kept()
        return kept

    # -- what is written ------------------------------------------------------------------------------------------

    def journaling(self, host: Host, batch: JournalBatch) -> None:
        for record in batch.records:
            if isinstance(record, MessageAccepted) and not record.fin:
                message = self._log(host, record.peer_id).messages.get(record.sequence)
                same = message is not None and (record.skip or record.payload == message.payload)
                if message is None or not same:
                    self._object("I3", "{} writes {} to its journal, and accepted no such message", host, record)
                self._written[id(record)] = (record, message)
            elif isinstance(record, OutboxTrimmed):  # a later process takes everything below for READ
                first = host.session(record.peer_id).outbox.first
                over = record.first <= first
                self._demand(over, "I10", "{} writes that all below {} is over, it keeps {}", host, record.first, first)

    def journaled(self, host: Host, batch: JournalBatch, error: OSError | None) -> None:
        self.tally["journaled" if error is None else f"journal: {error.strerror}"] += 1
        if error is not None:
            self._take_back(host)
            return
        self._noted[host.name] += 1
        for record in batch.records:
            kept = self._disk(host, record.peer_id)
            if isinstance(record, MessageAccepted) and id(record) in self._written:
                message = self._written[id(record)][1]
                self._promised[host.name][id(record)] = (record.peer_id, message)
            elif isinstance(record, InboxMoved):
                for part in (record, *record.old):
                    self._note_read(host, part, kept)
                    self._note_kept(host, part)
            kept.add(record)

    def _note_kept(self, host: Host, part: InboxMoved) -> None:
        """What came is on disk now, and somebody gets it (guarantee G5)."""
        log = self._outboxes.get(part.facts.outbox_id)
        for came in part.messages:
            for message in () if log is None else self._candidates(log, came.sequence, part.facts.outbox_id):
                if message.payload == came.payload and not message.seen_by:
                    self._owed[host.name][message.turn] = message
                    self.tally["kept"] += 1

    def _note_read(self, host: Host, record: InboxMoved, kept: _Kept) -> None:
        """What the application acknowledged is on disk now, and never comes again, be it out of turn."""
        pair, facts = (host.name, record.peer_id), record.facts
        log = self._outboxes.get(facts.outbox_id)
        ahead = _numbers(record.settled) - kept.settled.get(facts.outbox_id, frozenset())
        for sequence in sorted(ahead.union(range(kept.inboxes.get(facts.outbox_id, 0) + 1, facts.read + 1))):
            for message in () if log is None else self._candidates(log, sequence, facts.outbox_id):
                if any(where[1] == facts.outbox_id for where in message.settled_by):
                    self._done[pair].setdefault(message.turn, set()).add(facts.outbox_id)

    def _take_back(self, host: Host) -> None:
        """A batch failed: its messages, and all accepted since, were never accepted.

        Guarantees, Each await: with a journal, ``send()`` returns when its effect is on disk.
        """
        for peer, session in host.endpoint.sessions.items():
            log, outbox = self._log(host, peer), session.outbox
            kept = self._kept[host.name].get(peer)
            durable = 1 if kept is None else kept.next
            again = outbox.fin if outbox.fin >= durable else 0  # an end stays one, under another number
            end = again or outbox.next
            if end < max(durable, log.first):
                self._object("I10", "{} took back {}, and has {} on disk", host, end, durable - 1)
            for sequence in [sequence for sequence in log.messages if sequence >= end]:
                message = log.messages.pop(sequence)
                if message.outcome is not None:
                    log.outcomes[message.outcome] -= 1
            log.fins = {fin for fin in log.fins if fin < end} | {again} - {0}
            log.failed = outbox.ledger.failed

    # -- a new process --------------------------------------------------------------------------------------------

    def booted(self, host: Host) -> None:
        super().booted(host)
        if host.disk is None:
            return
        dead, self._lives[host.name] = self._lives.get(host.name), host.endpoint.incarnation
        self._latest |= {(host.name, log.receiver): log for key, log in self._logs.items() if key[0] == dead}
        copied, host.disk.missing = host.disk.missing > 0, 0
        if copied:
            self._roll_back(host)
            self._copy_copies(host, len(host.disk.batches))
        on_disk = set()
        self._kept[host.name] = {}
        for number, batch in enumerate(host.disk.batches):
            for record in batch:
                kept = self._disk(host, record.peer_id)
                if number >= self._noted[host.name] and isinstance(record, InboxMoved):
                    for part in record.old:
                        self._note_read(host, part, kept)
                    self._note_read(host, record, kept)
                kept.add(record)
                on_disk.add(id(record))
        self._noted[host.name] = len(host.disk.batches)
        self._keep_promises(host, on_disk, copied)
        for peer, kept in self._kept[host.name].items():
            self._restored(host, host.endpoint.sessions[peer], kept, copied)
        for peer in self._kept[host.name].keys() ^ host.endpoint.sessions.keys():
            self._object("I10", "{} begins with another peer than {}", host, peer)

    def _roll_back(self, host: Host) -> None:
        """An old copy is in place: what it does not have was not read, and nobody else knows that yet.

        Guarantees, Restarts: a receiver gets again what it acknowledged after the copy was made, and nothing else.
        """
        self.tally["old copy"] += 1
        for name in self.world.hosts:
            self._rolled_back |= {(host.name, name), (name, host.name)}
            self._behind.add((name, host.name))
            self._were_behind.add((name, host.name))
        self._noted[host.name] = 0
        for pair, done in self._done.items():
            if pair[0] == host.name:
                done.clear()
        if host.disk is not None and host.disk.inbox:
            self._unlearnt[host.name] |= {
                message.turn
                for log in self._logs.values()
                if log.receiver == host.peer_id
                for sequence, message in log.messages.items()
                if sequence > log.received and message.seen_by
            }
        self._owed[host.name].clear()
        for key in [key for key in self._said if key[0] == host.name]:
            del self._said[key]
        for other in self.world.hosts.values():
            session = other.endpoint.sessions.get(host.peer_id)
            if session is not None:
                self._let_begin_anew(other, session)
                known = {inbox.outbox_id for inbox in session.inboxes}
                for outbox_id, log in self._outboxes.items():
                    if log.host == host.name and outbox_id not in known and not session.inboxes.is_ended(outbox_id):
                        self._held.pop((other.endpoint.incarnation, outbox_id), None)  # it was empty, and dropped

    def _copy_copies(self, host: Host, kept: int) -> None:
        """A copy of an old copy, from before the two had met again, knows nothing of what followed from that.

        Guarantees, Restarts, the last of the four cases: it sends unflagged what was accepted between the copies.
        """
        assert host.disk is not None
        for other in self.world.hosts.values():
            pair = (host.name, other.name)
            first, met = self._went_on.get(pair, (kept, 0.0))
            goes_on = first <= kept <= met
            self._went_on[pair] = (first if goes_on else kept, inf)
            for record in (record for batch in host.disk.batches[first:kept] for record in batch if goes_on):
                if isinstance(record, MessageAccepted) and record.peer_id == other.peer_id and not record.fin:
                    message = self._written[id(record)][1]
                    self._unknown[message.turn] = set(message.seen_by)

    def _keep_promises(self, host: Host, on_disk: set[int], copied: bool) -> None:
        """What was promised is there, unless an old copy was restored just now: that lacks the newest.

        Guarantees, Restarts: an old copy is a journal as it was at some time.

        This judges the disk and its driver alone: what the core makes of what is there, :meth:`_restored` compares.
        """
        promised = self._promised[host.name]
        gone = promised.keys() - on_disk
        newest = set(list(promised)[len(promised) - len(gone) :]) if copied else set()
        self._demand(gone <= newest, "I10", "{} lost {} messages that were on disk", host, len(gone))
        for name in gone:
            del promised[name]

    def _restored(self, host: Host, session: Session, kept: _Kept, copied: bool) -> None:
        """The core and the model made the same of the journal, and the ghosts live on."""
        outbox, peer = session.outbox, session.peer_id
        before = self._latest.get((host.name, peer))
        log = self._log(host, peer)
        told = (outbox.first, outbox.next, outbox.fin, outbox.receiver, outbox.receiver_durable)
        model = (kept.first, kept.next, kept.fin, kept.receiver, kept.durable)
        if before is not None:
            log.eldest = before.eldest or before
            log.reached = max(before.reached, before.transmitted, before.first - 1)
        self._demand(told == model, "I10", "{} made {} of {} in its journal for {}", host, told, model, peer)
        for sequence, record in kept.messages.items():
            if not record.fin:
                message = self._written[id(record)][1]
                ended = sequence in kept.ends
                self._restored_message(host, outbox, sequence, record, message, ended=ended)
            if record.fin or sequence in kept.ends:  # it holds a place
                log.fins.add(sequence)
            else:
                log.messages[sequence] = message
        log.outcomes[Outcome.READ] = outbox.ledger.read
        log.first, log.received = outbox.first, outbox.received
        log.outbox_id, log.incarnation, log.durable = outbox.outbox_id, outbox.receiver, kept.durable
        log.transmitted = outbox.next - 1 if kept.receiver is not None else 0
        log.marked = log.markable = kept.marked
        log.burden = outbox.cost + COST_PER_MESSAGE  # and FIN.  G6: what is unread returns, also what ended early once
        self._loaded[id(log)] = outbox.next - 1
        if before is not None:
            self._before_it[id(log)] = before
        if kept.receiver is None:
            self._forget(log)
        if kept.durable:
            self._forget_received(host, log, self._were_behind if copied else self._behind)
        if copied:  # it may have lost the name in which all this was read
            self._again[outbox.outbox_id] |= _retained(outbox, log).keys()
            self._forget_order(log)
        for outbox_id in kept.outboxes:
            self._outboxes[outbox_id] = log
        self._restored_inboxes(host, session, kept)
        self.tally["restored"] += 1

    def _forget(self, log: _Log) -> None:
        """The journal knows of no receiver: whoever has some of its messages got them before the copy was restored.

        Guarantees, Restarts, the third of the four cases: a sender restored to a copy from before it first met its
        receiver believes that nothing was transmitted, until they meet again.
        """
        everybody = self._dead | {host.endpoint.incarnation for host in self.world.hosts.values()}
        for sequence, message in log.messages.items():
            if sequence <= log.reached:
                message.forgotten = frozenset(everybody)
                self._forgetful.setdefault(id(log), []).append(message)

    def _forget_received(self, host: Host, log: _Log, behind: set[tuple[str, str]]) -> None:
        """What a sender had learned to be received it has forgotten, and an old copy of the receiver tells of less.

        Guarantees, Restarts, the first of the four cases: "or had learned before a restart of its own".
        A copy of the sender may be from before the two met again, and lack the marks that it made then.
        """
        for other in self.world.hosts.values():
            if other.peer_id == log.receiver and (host.name, other.name) in behind:
                self._unlearnt[other.name] |= {message.turn for message in log.messages.values() if message.seen_by}

    def _forget_order(self, log: _Log) -> None:
        """Guarantees, Restarts: "the order is that of what the copy holds"; whoever has more had it before."""
        for line in self._furthest:
            if line[1] is (log.eldest or log):
                turns = [message.turn for message in log.messages.values() if line[0] in message.seen_by]
                self._furthest[line] = max(turns, default=0)

    def _unknown_now(self, log: _Log, message: _Message, sequence: int) -> bool:
        """Did its sender lose it to an old copy, and may have given its number to another one?"""
        present = self._log(self.world.hosts[log.host], log.receiver)
        return present is not log and sequence >= present.first and present.messages.get(sequence) is not message

    def _restored_message(
        self, host: Host, outbox: Outbox, sequence: int, record: MessageAccepted, message: _Message, *, ended: bool
    ) -> None:
        """A message is back: its outcome is open again, if it is not on disk."""
        if ended or sequence < outbox.first:
            message.outcome = message.outcome or Outcome.READ
            failure = outbox.failures.find(sequence)
            told = Outcome.READ if failure is None else failure.outcome if failure.exact else message.outcome
            text = "{} of {} was {}, and is {} after a restart"
            self._demand(told is message.outcome, "I10", text, sequence, host, message.outcome, told)
        if sequence < outbox.first:
            return
        entry = outbox.entry(sequence)
        payload, headers = (b"", b"") if ended else (record.payload, record.headers)
        same = (entry.payload, entry.headers, entry.skip > 0) == (payload, headers, ended)
        if isinstance(entry, Spilled):
            same = entry.cost == COST_PER_MESSAGE + len(record.payload) + len(record.headers) and not ended
        self._demand(same, "I10", "{} has another {} than its journal", host, sequence)
        if not ended:
            message.given_up = message.given_up or message.outcome in _FORGOTTEN
            message.outcome, message.unseen = None, False

    def _restored_inboxes(self, host: Host, session: Session, kept: _Kept) -> None:
        """An inbox goes on behind what was read, and the rest comes again."""
        stand = {
            box.outbox_id: (box.received, box.read, _numbers(box.ahead), frozenset(each[1] for each in box.ready))
            for box in session.inboxes
        }
        journal = {
            outbox_id: (kept.received[outbox_id], read, kept.settled[outbox_id], kept.holds[outbox_id])
            for outbox_id, read in kept.inboxes.items()
        }
        self._demand(stand == journal, "I10", "{} begins with {}, its journal has {}", host, stand, journal)
        ended = session.inboxes.ended(-inf)
        self._demand(ended == kept.ended, "I10", "{} begins with {} ended, its journal has {}", host, ended, kept.ended)
        told = not session.unread or session.notices._pending & Notice.READY
        self._demand(bool(told), "I23", "{} begins with messages of {}, and there is no notice", host, session.peer_id)
        self._ghost(host, session).unread = session.unread
        incarnation = host.endpoint.incarnation
        for inbox in session.inboxes:
            self._held[(incarnation, inbox.outbox_id)] = (inbox.received, inbox.read)
            self._found[(incarnation, inbox.outbox_id)] = kept.holds[inbox.outbox_id]
            reader, settled = self._reader(incarnation, inbox.outbox_id), kept.settled[inbox.outbox_id]
            reader.last, reader.known = inbox.read, settled
            rejects = {number for number in kept.rejects[inbox.outbox_id] if number <= inbox.read or number in settled}
            same = set(inbox.rejects) == rejects
            self._demand(same, "I10", "{} rejects {}, in its journal {}", host, list(inbox.rejects), rejects)

    # -- across processes -----------------------------------------------------------------------------------------

    def _candidates(self, log: _Log, sequence: int, outbox_id: bytes) -> list[_Message]:
        """The messages that had this number in this outbox, newest first.

        More than one only where an old copy was restored, which gives the numbers anew of what it lost; guarantees,
        Restarts: "no new message is taken for an old one".  What was lost before an outbox got its name is not in it.
        """
        found: list[_Message] = []
        eldest = self._named.get(outbox_id)
        at: _Log | None = log
        while at is not None:
            message = at.messages.get(sequence)
            if message is not None and message not in found:
                found.append(message)
            at = None if at is eldest else self._before_it.get(id(at))
        return found

    def _find(self, host: Host, peer: str, delivery: Delivery) -> tuple[_Log, _Message]:
        log = self._outboxes.get(delivery[0].outbox_id)
        if log is not None and (log.sender, log.receiver) == (peer, host.peer_id):
            for message in self._candidates(log, delivery[1], delivery[0].outbox_id):
                if message.payload == delivery[2]:
                    return log, message
        return super()._find(host, peer, delivery)

    def _unseen(self, log: _Log, message: _Message, sequence: int) -> None:
        hosts = [host for host in self.world.hosts.values() if host.peer_id == log.receiver]
        unlearnt = any(message.turn in self._unlearnt[host.name] for host in hosts)  # see _forget_received
        forgotten = message.forgotten and message.seen_by <= message.forgotten  # see _forget
        if not (forgotten or unlearnt):
            super()._unseen(log, message, sequence)

    def _passed_over(self, log: _Log, message: _Message, sequence: int) -> bool:
        """Guarantees, Restarts, the second of the four cases; an end that is not on disk is like one that a copy lacks.

        So it may be READ that a message was taken as that by whoever passed it over: it was told to, or rejected it.
        """
        told = message.skipped or sequence < self._firsts[(log.host, log.receiver)]
        return message.given_up and (told or bool(message.rejections))

    def _ended_before(self, host: Host, log: _Log, sequence: int) -> bool:
        """G1 and G4, "across restarts too": it has an outcome, or this receiver has read it under another name.

        An outcome may have been forgotten since: nothing but ``first`` is on record, which the peer may have been told.
        """
        if sequence < self._firsts[(log.host, log.receiver)]:
            return True
        me, done = host.endpoint.incarnation, self._done[(host.name, log.sender)]
        at: _Log | None = log
        while at is not None:
            message = at.messages.get(sequence)
            if sequence in at.fins or (message is None and sequence < at.first):
                return True
            if message is not None and (message.outcome is not None or message.given_up or message.turn in done):
                return True
            if message is not None and any(where[0] == me for where in message.settled_by):
                return True
            at = self._before_it.get(id(at))
        return False

    def _hand_over(self, host: Host, peer: str, delivery: Delivery) -> None:
        incarnation, details = host.endpoint.incarnation, delivery[4]
        log, message = self._find(host, peer, delivery)
        flagged = details is not None and details.redelivered
        again = delivery[1] in self._reader(incarnation, delivery[0].outbox_id).attempts
        self._from_disk(host, peer, delivery, message, flagged, again)
        unaware = not again and message.turn in self._unknown and self._unaware(host, log, message, flagged)
        if not again and not flagged and incarnation in message.seen_by:
            self._object("I4", "{} from {} comes again to {} without a flag", delivery[1], peer, host)
        mine, done = delivery[0].outbox_id, self._done[(host.name, peer)].get(message.turn)
        # G2: what is in hand comes again by release() only, be another copy of it read meanwhile, and what is in a
        # durable inbox to the next process (G5); else see _doubtful
        kept = delivery[1] in self._found.get((incarnation, mine), ())
        if done and (mine in done or not (again or kept or message.turn in self._again[mine])):
            self._object("I4", "{} from {} comes again, and {} has on disk that it was read", delivery[1], peer, host)
        if done and not again and not flagged and not unaware:
            self._object("I4", "{} from {} comes again without a flag, and {} has read it", delivery[1], peer, host)
        if message.turn in self._unlearnt[host.name] and not again:
            self._unlearnt[host.name].discard(message.turn)
            if not flagged:  # guarantees, Restarts: what its sender had not learned is received may come without
                message.seen_by -= self._ancestors[incarnation]
                self.tally["not learned"] += 1
        if message.forgotten and not flagged:  # see _forget
            message.seen_by -= message.forgotten & self._ancestors[incarnation]
        line = (incarnation, log.eldest or log)
        before = self._furthest[line]
        super()._hand_over(host, peer, delivery)
        if self._unknown_now(log, message, delivery[1]):  # see _forget_order
            self._furthest[line] = before

    def _from_disk(
        self, host: Host, peer: str, delivery: Delivery, message: _Message, flagged: bool, again: bool
    ) -> None:
        """A durable inbox hands over what is on disk, with a flag what an earlier process may have handed over."""
        self._owed[host.name].pop(message.turn, None)
        if host.disk is None or not host.disk.inbox or again:
            return
        outbox_id, sequence = delivery[0].outbox_id, delivery[1]
        if sequence not in self._disk(host, peer).holds.get(outbox_id, ()):
            self._object("I10", "{} hands over {} from {}, which is not on disk", host, sequence, peer)
        found = sequence in self._found.get((host.endpoint.incarnation, outbox_id), ())
        if found and not flagged:
            self._object("I9", "{} from {} was on the disk of {}, and is not flagged", sequence, peer, host)
        self.tally["from disk"] += found

    def at_rest(self) -> None:
        """What was on disk was handed over, too."""
        for name, owed in self._owed.items():
            for message in owed.values() if self.world.hosts[name].up else ():
                self._demand(bool(message.seen_by), "I10", "{} had {} on disk, and nobody got it", name, message)
        super().at_rest()

    def _unaware(self, host: Host, log: _Log, message: _Message, flagged: bool) -> bool:
        """Who saw it in what its sender does not know of gets it once more, and without a flag; see _copy_copies."""
        incarnation = host.endpoint.incarnation
        if log is not self._log(self.world.hosts[log.host], log.receiver):  # a name that is lost
            self._unknown[message.turn].add(incarnation)
            return False
        seen = self._unknown.pop(message.turn) & (self._ancestors[incarnation] | {incarnation})
        if seen and not flagged:
            self.tally["copy of a copy"] += 1
            message.seen_by -= seen
            line = (incarnation, log.eldest or log)
            self._furthest[line] = min(self._furthest[line], message.turn - 1)
        return bool(seen)

    def _doubtful(self, host: Host, log: _Log) -> bool:
        """May the sender take what the peer tells for a sign that its own journal went back in time?

        Guarantees, Restarts: an old copy is "noticed, and said", as "messages sent again and flagged": by the run that
        the peer echoes, until that is the one that came after the copy, and by names that the copy lost, for as long as
        the peer tells them (case U).  A second process of either's id (Words: a node is one process) leads to the same:
        of the sender's id it had an outbox that the sender does not know, of the receiver's id it tells as ended what
        the first goes on with (case G).
        """
        pair = (log.sender, log.receiver)
        copied = any(
            (host.name, other.name) in self._rolled_back
            for other in self.world.hosts.values()
            if other.peer_id == log.receiver
        )
        unknown = any(other is not log and (other.sender, other.receiver) == pair for other in self._outboxes.values())
        return copied or unknown or self._doubled(log.receiver, log.sender)

    def _look_at_resumption(self, host: Host, session: Session, log: _Log) -> None:
        renamed, marked, markable = session.outbox.outbox_id != log.outbox_id, log.marked, log.markable
        super()._look_at_resumption(host, session, log)
        if host.disk is not None:  # a mark lasts (P-MARK-3)
            log.marked, log.markable = max(marked, log.marked), max(markable, log.markable)
        if not renamed:
            return
        self._named[session.outbox.outbox_id] = log
        doubtful = self._doubtful(host, log)
        if host.disk is not None:  # cases C and U mark what was ever transmitted, known or not (P-MARK-6)
            loaded = self._loaded.get(id(log), 0)
            log.markable = max(log.markable, log.transmitted, loaded if doubtful else min(loaded, log.reached))
        self._let_come_again(host, session, log, doubtful)

    def _let_come_again(self, host: Host, session: Session, log: _Log, doubtful: bool) -> None:
        """An outbox got a new name: of what it retains that comes again which is read, and flagged.

        Guarantees, Restarts: of an old copy "messages sent again and flagged".  Without one nothing is read that its
        sender sends under another name.
        """
        retained = _retained(session.outbox, log)
        for other in self.world.hosts.values():
            read = self._done[(other.name, host.peer_id)].keys() & retained.keys()
            if read and other.peer_id == session.peer_id:
                text = "{} names its outbox anew with {}, and {} has on disk that it was read"
                self._demand(doubtful, "I4", text, host, sorted(retained[turn] for turn in read), other)
        if doubtful:
            self._again[session.outbox.outbox_id] = set(retained)

    def _taken(self, host: Host, session: Session, connection: Connection, ghost: _Ghost) -> None:
        super()._taken(host, session, connection, ghost)
        wire, end = host.wires[connection]
        other = wire.hosts[1 - end]
        log, attach = ghost.log, connection.attached
        inbox = None if attach is None else attach.inbox
        if (host.name, other.name) in self._went_on and host.disk is not None:
            since, met = self._went_on[host.name, other.name]
            self._went_on[host.name, other.name] = since, min(met, len(host.disk.batches))
        if inbox is not None and (inbox.outbox_id, inbox.run) == (session.outbox.outbox_id, session.outbox.run):
            self._rolled_back.discard((host.name, other.name))
            self._behind.discard((host.name, other.name))
        for message in self._forgetful.get(id(log), ()):  # from now on the sender knows of this process
            message.forgotten -= {connection.peer_incarnation}

    def _look_at_positions(self, host: Host, session: Session) -> None:
        super()._look_at_positions(host, session)
        self._let_begin_anew(host, session)

    def _let_begin_anew(self, host: Host, session: Session) -> None:
        """An inbox that holds nothing takes its base anew (P-RES-4), and an old copy states a lower one.

        Guarantees, Restarts: an old copy is noticed, and only by its sender (P-RES-2).
        """
        for inbox in session.inboxes:
            log = self._outboxes[inbox.outbox_id]
            if inbox.empty and not inbox.barred and (log.host, host.name) in self._rolled_back:
                self._held.pop((host.endpoint.incarnation, inbox.outbox_id), None)

    # -- the wire -------------------------------------------------------------------------------------------------

    def wrote(self, wire: Wire, end: int, buffers: Sequence[bytes | memoryview]) -> None:
        host, connection, tap = wire.hosts[end], wire.ends[end], self._tap(wire, end)
        spoke, said, attach, first = tap.spoke, tap.size, tap.attach, tap.positions[3]
        super().wrote(wire, end, buffers)
        if tap.attach is not None and (tap.attach is not attach or tap.positions[3] != first):
            self._states(wire, end, tap, said)
        if host.disk is None or connection is None or connection.session is None:
            return
        data = b"".join(buffers)
        position = 0 if spoke else len(PREAMBLE)
        kept = self._disk(host, connection.session.peer_id)
        while position < len(data):
            length, kind, _ = _HEADER.unpack_from(data, position)
            self._rests(wire, end, connection.session, kept, kind, data[position + 6 : position + 4 + length])
            position += 4 + length

    def _states(self, wire: Wire, end: int, tap: _Tap, said: int) -> None:
        """A ``first`` goes out: when it is there, the peer counts everything below as read (P-RES-4, P-ACK-10)."""
        if tap.attach is not None:
            first = max(tap.attach.first, tap.positions[3])
            self._stating[(wire.number, end)].append((said, tap.attach.outbox_id, first - 1))
            key = (wire.hosts[end].name, wire.hosts[1 - end].peer_id)
            self._firsts[key] = max(self._firsts[key], first)

    def arriving(self, wire: Wire, end: int) -> None:
        super().arriving(wire, end)
        stating = self._stating.get((wire.number, 1 - end))
        while stating and stating[0][0] < wire.pipes[1 - end].delivered:
            _, outbox_id, read = stating.popleft()
            key = (wire.hosts[end].endpoint.incarnation, outbox_id)
            self._stated[key] = max(self._stated[key], read)

    def _rests(self, wire: Wire, end: int, session: Session, kept: _Kept, kind: int, body: bytes) -> None:
        """Does everything that this frame says rest on the disk?"""
        host, demand, me = wire.hosts[end], self._demand, wire.hosts[end].endpoint.incarnation
        if kind in (DATA, FIN):
            self._rests_on(wire, end, session, kept, _SEQUENCE.unpack_from(body)[0])
        elif kind == SKIP:
            first, last = _RANGE.unpack_from(body)
            self._rests_on(wire, end, session, kept, last)
            for sequence, message in self._log(host, session.peer_id).messages.items():
                if first <= sequence <= last:
                    message.skipped = True
                    over = sequence < kept.first or sequence in kept.ends
                    demand(over, "I10", "{} passes over {}, and on disk it is not ended", host, sequence)
        elif kind == ACK:
            received, read, _, first = _POSITIONS.unpack_from(body)
            demand(first <= kept.first, "I10", "{} acknowledges first {}, on disk is {}", host, first, kept.first)
            theirs = self._tap(wire, 1 - end).attach
            if theirs is not None:
                durable = max(kept.read(theirs.outbox_id), self._stated[(me, theirs.outbox_id)])
                demand(read <= durable, "I10", "{} acknowledges {} as read, on disk is {}", host, read, durable)
                self._rests_received(host, session, kept, theirs.outbox_id, received, None)
        elif kind == REJECT:
            outbox_id, sequence = body[:16], _SEQUENCE.unpack_from(body, 16)[0]
            written = sequence in kept.rejects.get(outbox_id, ())
            demand(written, "I10", "{} rejects {}, and that is not on disk", host, sequence)
        elif kind == ATTACH:
            attach = parse_attach(body)
            demand(attach.first <= kept.first, "I10", "{} states first {}, on disk {}", host, attach.first, kept.first)
            inbox = attach.inbox
            if inbox is not None:
                durable = max(kept.read(inbox.outbox_id), self._stated[(me, inbox.outbox_id)])
                demand(inbox.read <= durable, "I10", "{} states that {} is read, on disk {}", host, inbox.read, durable)
                self._rests_received(host, session, kept, inbox.outbox_id, inbox.received, inbox.run)

    def _rests_received(
        self, host: Host, session: Session, kept: _Kept, outbox_id: bytes, received: int, run: bytes | None
    ) -> None:
        """A durable inbox tells what is on disk, and does not forget what it told.  ``run``: as ATTACH tells it."""
        if host.disk is None or not host.disk.inbox or session.inboxes.is_ended(outbox_id):  # nothing comes of that
            return
        stated, said = self._stated[(host.endpoint.incarnation, outbox_id)], self._said[(host.name, outbox_id)]
        durable = max(kept.received.get(outbox_id, 0), stated)
        self._demand(received <= durable, "I10", "{} states {} as received, on disk is {}", host, received, durable)
        self._demand(received >= said, "I10", "{} states {} as received, after {}", host, received, said)
        if received > stated:  # else it is where the inbox begins
            self._said[(host.name, outbox_id)] = received
        if run is not None and received > stated:
            same = run == kept.runs.get(outbox_id)
            self._demand(same, "I10", "{} states {} under a run that is not on disk", host, received)

    def _rests_on(self, wire: Wire, end: int, session: Session, kept: _Kept, sequence: int) -> None:
        """An entry, its outbox, and the process that it goes to are on disk."""
        host, attach, demand = wire.hosts[end], self._tap(wire, end).attach, self._demand
        demand(sequence < kept.next, "I10", "{} sends {}, on disk is {}", host, sequence, kept.next - 1)
        outbox = None if attach is None else (attach.outbox_id, attach.run)
        demand(outbox == kept.outbox, "I10", "{} sends {} under an outbox or run that is not on disk", host, sequence)
        connection = wire.ends[end]
        receiver = None if connection is None else connection.peer_incarnation
        theirs = self._tap(wire, 1 - end).attach
        lasts = theirs is not None and theirs.durable
        known = (receiver, lasts) == (kept.receiver, kept.durable)
        demand(known, "I10", "{} sends {} to a process that is not on disk", host, sequence)


def _numbers(ranges: Iterable[tuple[int, int]]) -> frozenset[int]:
    """All that are in the ranges."""
    return frozenset(number for first, last in ranges for number in range(first, last + 1))


def _retained(outbox: Outbox, log: _Log) -> dict[int, int]:
    """The numbers of the messages that an outbox may still transmit, by their turns."""
    return {
        message.turn: sequence
        for sequence, message in log.messages.items()
        if sequence >= outbox.first and message.outcome is None
    }
