"""The sender's half of one direction: a numbered log of messages that are not read yet.

Theory of operation
-------------------
``entries[sequence - origin]`` is a message until the peer has *read* it; what the peer merely received is kept.
``cursor`` is the next sequence to transmit.  Retransmission is nothing but setting the cursor back
(:meth:`Outbox.resume`): there is no second list and no timer.

The usual entry **is its frame**: a ``bytes`` object built when the message was accepted, so that transmitting a hundred
of them is one ``join`` of a slice.  Everything out of the ordinary (headers, a ttl, a large payload, FIN, an early end)
is an :class:`Entry`.  A message that ends before the peer has it leaves a *tombstone* in its place, an Entry whose
``skip`` is set: the sequence was promised, so the peer must be told that it will not come.

With a journal, what lies far ahead of the cursor is in memory no longer: a :class:`Spilled` stands in its place
(:mod:`~networkio_proto.spill`).

Two watermarks make single messages special without touching them: everything up to ``marked`` may have been seen by a
dead process of the peer and goes out flagged REDELIVERED; everything up to ``origins[-1][0]`` was first accepted under
another outbox id and carries its old name in the reserved header ``id``.

Numbers go on when an outbox is renamed (:meth:`Outbox.rename`), so a receipt's sequence stays good for ever.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import replace
from struct import Struct
from typing import cast

from .config import COST_PER_MESSAGE
from .errors import Outcome
from .frames import DATA, MAX_SEQUENCE, DataFlag, SkipReason, encode_fin, encode_skip
from .ledger import Failure, FailureLog, Ledger
from .maps import decode_map, encode_map
from .resume import OutboxFacts

__all__ = ["MAX_BUFFERS", "SMALL", "Entry", "Outbox", "Spilled"]

#: payloads up to this size are joined into frames and writes; larger ones are handed on uncopied
SMALL = 2048

#: data_to_send returns at most so many buffers (sendmsg takes 1,024 at most, 64 are plenty)
MAX_BUFFERS = 64

#: so many runs of an outbox are remembered, the present one included (P-RUN-2)
_MAX_RUNS = 64

#: and so many of its earlier names
_MAX_NAMES = 64

_DATA = Struct(">IBBQ")
_pack_data = _DATA.pack
_TOTAL = Struct(">I")
_HEADER_LENGTH = Struct(">H")
_OVERHEAD = _DATA.size  # what a simple frame has beside its payload
_SIMPLE_COST = COST_PER_MESSAGE - _OVERHEAD  # cost of a simple frame = its length + this

# as plain numbers: operators of a flag are functions of Python, and slow
_MORE = int(DataFlag.FRAGMENT_MORE)
_CONTINUED = int(DataFlag.FRAGMENT_CONTINUED)
_REDELIVERED = int(DataFlag.REDELIVERED)
_HEADERS = int(DataFlag.HEADERS)
_RAW = int(DataFlag.RAW)

_SKIP_OUTCOME = {
    SkipReason.EXPIRED: Outcome.EXPIRED,
    SkipReason.CANCELLED: Outcome.CANCELLED,
    SkipReason.TOO_LARGE: Outcome.LOST,
    SkipReason.OVERFLOW: Outcome.LOST,
    SkipReason.PEER_RESTARTED: Outcome.LOST,
}
_SKIP_TEXT = {
    SkipReason.EXPIRED: "its ttl is over",
    SkipReason.CANCELLED: "cancelled by the sender",
    SkipReason.TOO_LARGE: "it is over the limit that the peer announced",
    SkipReason.OVERFLOW: "dropped for newer messages (overflow='drop_oldest')",
    SkipReason.PEER_RESTARTED: "peer restarted",
}


class Entry:
    """A message that is not simply its frame, a tombstone, or FIN."""

    __slots__ = ("cost", "expires", "fin", "flags", "headers", "payload", "skip")

    def __init__(self, payload: bytes, headers: bytes = b"", flags: int = 0, expires: float | None = None) -> None:
        self.payload = payload
        self.headers = headers
        self.flags = flags
        self.expires = expires
        self.cost = COST_PER_MESSAGE + len(headers) + len(payload)
        #: a SKIP reason when the message ended early, else 0
        self.skip = 0
        self.fin = False


class Spilled(Entry):
    """The place of a message that is on disk only; it knows what that costs."""

    __slots__ = ()


def _spilled(cost: int) -> Spilled:
    """Such places never change, so those of small messages are one object for each cost."""
    place = _SPILLED.get(cost)
    if place is None:
        place = Spilled(b"")
        place.cost = cost
        if cost <= _SHARED_COST:
            _SPILLED[cost] = place
    return place


_SPILLED: dict[int, Spilled] = {}
_SHARED_COST = COST_PER_MESSAGE + SMALL


def _tombstone(reason: int) -> Entry:
    entry = Entry(b"")
    entry.skip = reason
    return entry


def _tombstone_behind(reason: int) -> Entry:
    """A tombstone right behind one of the same reason: one SKIP tells of both, so it costs its place in the list."""
    entry = _tombstone(reason)
    entry.cost = 8
    return entry


#: tombstones never change, so all of a kind are one object
_FIRST_TOMBSTONES = {reason: _tombstone(reason) for reason in SkipReason}
_NEXT_TOMBSTONES = {reason: _tombstone_behind(reason) for reason in SkipReason}

_GONE = _tombstone(SkipReason.ALREADY_READ)  # fills the places of what was read until the list is compacted


class Outbox:
    """One outbox.  The session drives it; it knows no connection, only what it was told of the present one."""

    __slots__ = (
        "_dropped",
        "_sending",
        "_special",
        "_ttl",
        "cost",
        "credit",
        "cursor",
        "ends",
        "entries",
        "failures",
        "fin",
        "fin_read",
        "first",
        "fragment",
        "frame_limit",
        "history",
        "ledger",
        "marked",
        "message_limit",
        "names",
        "newly_failed",
        "nameless",
        "next",
        "on_outcome",
        "origin",
        "origins",
        "outbox_id",
        "overdue",
        "received",
        "receiver",
        "receiver_durable",
        "run",
        "runs",
        "sendable",
        "sent",
        "transmitted",
        "used",
    )

    def __init__(self, outbox_id: bytes, run: bytes) -> None:
        self.outbox_id = outbox_id
        self.run = run
        #: last sequence of each earlier run, oldest first
        self.runs: dict[bytes, int] = {}
        #: every id that this outbox had, if a journal brought it back; else None
        self.history: frozenset[bytes] | None = None
        self.entries: list[bytes | Entry] = []
        #: sequence of entries[0]; places below ``first`` are empty
        self.origin = 1
        #: the oldest sequence that is retained: the peer has read everything below
        self.first = 1
        self.next = 1
        self.received = 0
        #: the next sequence to transmit, and how many payload bytes of it are already out
        self.cursor = 1
        self.fragment = 0
        #: the highest sequence ever transmitted, wholly or in part
        self.sent = 0
        #: nothing beyond may be transmitted yet (with a journal: it is not on disk)
        self.sendable = MAX_SEQUENCE
        #: the highest sequence transmitted wholly under the present outbox id
        self.transmitted = 0
        #: the incarnation of the peer that ``sent`` speaks of
        self.receiver: bytes | None = None
        #: does its inbox outlive it?
        self.receiver_durable = False
        self.marked = 0
        #: (last sequence, outbox id) of earlier names, oldest first
        self.origins: list[tuple[int, bytes]] = []
        #: all of them, the newest 64, be there anything left of it or not; up to ``nameless`` they are forgotten
        self.names: list[tuple[int, bytes]] = []
        self.nameless = 0
        self.fin = 0
        #: the peer has read FIN; it is kept all the same until the session is over: a new process must hear of it too
        self.fin_read = False
        #: cost of everything retained
        self.cost = 0
        #: on the present connection: cost transmitted, and allowed by the peer
        self.used = 0
        self.credit = 0
        self.frame_limit = 8192
        self.message_limit = MAX_SEQUENCE
        self.failures = FailureLog()
        #: set when a failure was recorded; the session turns it into a notice
        self.newly_failed = False
        #: called with every message that ends, by its sequence; None: nobody wants to know
        self.on_outcome: Callable[[int, Outcome], None] | None = None
        self.ledger = Ledger()
        self._special = 0  # how many Entry objects are among the entries
        self._ttl: list[tuple[float, int]] = []
        self._sending: Entry | None = None  # the message whose fragments are going out, whatever becomes of it
        self._dropped = 0  # drop_oldest need not look below this again
        #: sequences whose ttl ran out while the peer may have held them
        self.overdue: set[int] = set()
        #: with a journal: the tombstones among the entries that are not on disk; else None
        self.ends: set[int] | None = None

    # -- accepting ----------------------------------------------------------------------------------------------

    def append(self, payload: bytes, raw: bool) -> int:
        """Accept a small message without headers or ttl; the hot path."""
        sequence = self.next
        self.next = sequence + 1
        size = len(payload)
        self.entries.append(_pack_data(size + 10, DATA, 0x40 if raw else 0, sequence) + payload)
        self.cost += size + COST_PER_MESSAGE
        return sequence

    def append_entry(self, entry: Entry) -> int:
        """Accept any message."""
        sequence = self.next
        self.next = sequence + 1
        self.entries.append(entry)
        self.cost += entry.cost
        self._special += 1
        if entry.expires is not None:
            heapq.heappush(self._ttl, (entry.expires, sequence))
            if len(self._ttl) > 64 + 2 * (self.next - self.first):  # most of them were read long before their time
                self._ttl = [item for item in self._ttl if item[1] >= self.first]
                heapq.heapify(self._ttl)
        return sequence

    def append_stored(self, payload: bytes, headers: bytes, flags: int) -> int:
        """A journal was read: accept a message as it was accepted first."""
        if _is_simple(payload, headers, flags):
            return self.append(payload, flags == _RAW)
        return self.append_entry(Entry(payload, headers, flags))

    def append_spilled(self, costs: Sequence[int]) -> None:
        """A journal was read: messages of these costs follow, and stay on disk."""
        self.entries += [_spilled(cost) for cost in costs]
        self.next += len(costs)
        self.cost += sum(costs)
        self._special += len(costs)

    def append_tombstone(self, skip: int) -> None:
        """A journal was read: a message that ended early follows."""
        self.append_entry(_FIRST_TOMBSTONES[SkipReason(skip)])

    def append_fin(self) -> int:
        """Accept the end of this outbox."""
        entry = Entry(b"")
        entry.fin = True
        self.fin = self.append_entry(entry)
        return self.fin

    def restart_at(self, first: int) -> None:
        """Begin with that sequence; nothing was accepted yet."""
        self.origin = self.first = self.next = self.cursor = first

    def withdraw(self, after: int) -> int:
        """Take back what was accepted after that sequence and never sendable; how many messages they were."""
        after = max(after, self.first - 1)  # what has ended and is gone keeps its number
        count = 0
        for stored in self.entries[after + 1 - self.origin :]:
            if type(stored) is bytes:
                self.cost -= len(stored) + _SIMPLE_COST
            else:
                entry = cast(Entry, stored)
                self._special -= 1
                self.cost -= entry.cost
                if entry.fin:
                    self.fin = 0
                    continue
                if entry.skip:
                    self.ledger.count(_SKIP_OUTCOME[SkipReason(entry.skip)], -1)
            count += 1
        del self.entries[after + 1 - self.origin :]
        self.next = after + 1
        self.ledger.accepted -= count
        self._forget(after)
        return count

    def _forget(self, after: int) -> None:
        """The numbers after that sequence will be given anew: nothing that is known of them holds any more."""
        if self.ends:
            self.ends = {sequence for sequence in self.ends if sequence <= after}
        self._ttl = [item for item in self._ttl if item[1] <= after]
        heapq.heapify(self._ttl)
        self._dropped = min(self._dropped, after + 1)
        self.origins = [(min(last, after), outbox_id) for last, outbox_id in self.origins]
        self.names = [(min(last, after), outbox_id) for last, outbox_id in self.names]
        failures, self.failures = self.failures, FailureLog()
        for failure in failures.ranges():
            if failure.first <= after:
                self.failures.add(replace(failure, last=min(failure.last, after)))

    def entry(self, sequence: int) -> Entry:
        """A retained message."""
        stored = self.entries[sequence - self.origin]
        return _unpacked(stored) if type(stored) is bytes else cast(Entry, stored)

    # -- what is on disk only -----------------------------------------------------------------------------------

    def cost_of(self, sequence: int) -> int:
        """What a retained message costs, be it here or not."""
        stored = self.entries[sequence - self.origin]
        return len(stored) + _SIMPLE_COST if type(stored) is bytes else cast(Entry, stored).cost

    def spill(self, sequence: int) -> bool:
        """It is on disk: keep only its place.  False for what the disk does not know as it is: a ttl, an end."""
        index = sequence - self.origin
        stored = self.entries[index]
        if type(stored) is bytes:
            self._special += 1
        elif (entry := cast(Entry, stored)).expires is not None or entry.fin or entry.skip:
            return False
        self.entries[index] = _spilled(self.cost_of(sequence))
        return True

    def unspill(self, sequence: int, payload: bytes, headers: bytes, flags: int) -> None:
        """It was read from the disk.  What has ended meanwhile has."""
        index = sequence - self.origin
        if sequence >= self.first and type(self.entries[index]) is Spilled:
            if _is_simple(payload, headers, flags):
                self._special -= 1
                self.entries[index] = _pack_data(len(payload) + 10, DATA, flags, sequence) + payload
            else:
                self.entries[index] = Entry(payload, headers, flags)

    # -- facts ----------------------------------------------------------------------------------------------------

    @property
    def read(self) -> int:
        """Everything up to here was read, or ended otherwise."""
        return self.first - 1

    @property
    def unread(self) -> int:
        """Messages without an outcome: queued, in flight, or received and not read."""
        return self.ledger.unread

    @property
    def all_read(self) -> bool:
        return self.first == self.next or (self.fin_read and self.first == self.fin)

    @property
    def untransmitted(self) -> bool:
        """Is there something the cursor has not passed?"""
        return self.cursor < self.next

    def facts(self) -> OutboxFacts:
        """What the verdict is judged by."""
        return OutboxFacts(self.outbox_id, {**self.runs, self.run: self.next - 1}, self.first, self.history)

    def ended_early(self, sequence: int) -> Failure | None:
        """How the message failed, if it did."""
        return self.failures.find(sequence)

    def seen_by_peer(self, sequence: int) -> bool:
        """May the peer hold it?  False: it was never transmitted, or a resume said so (specification, *SKIP*)."""
        return sequence < self.cursor or (sequence == self.cursor and self.fragment > 0)

    # -- one connection -------------------------------------------------------------------------------------------

    def attach(self, frame_limit: int, message_limit: int, credit: int) -> None:
        """A connection went live; credit and usage count from here."""
        self.frame_limit = frame_limit
        self.message_limit = message_limit
        self.used = 0
        self.credit = credit

    def resume(self, position: int) -> None:
        """The peer holds everything up to ``position``: the cursor goes to the message after it."""
        self.received = position
        self.cursor = position + 1
        self.fragment = 0
        self._sending = None
        self._dropped = 0
        self.fin_read = self.fin_read and position >= self.fin
        self.bar()

    def bar(self) -> None:
        """An end that is not on disk could be forgotten: the peer is not told of it, nor of anything behind it."""
        ahead = [sequence for sequence in self.ends or () if sequence >= self.cursor]
        if ahead:
            self.sendable = min(self.sendable, min(ahead) - 1)

    def pull(self, out: list[bytes | memoryview], max_bytes: int, now: float) -> int:
        """Append what may be transmitted now to ``out``; returns its size.

        Stops at ``max_bytes`` (a frame may pass it), at the peer's credit, at ``MAX_BUFFERS``, and at what is spilled.
        """
        size = 0
        while (
            self.cursor < self.next
            and self.cursor <= self.sendable
            and size < max_bytes
            and len(out) < MAX_BUFFERS - 1
            and (self.used < self.credit or self.fragment)
        ):
            if self._sending is not None:
                size += self._pull_entry(out, max_bytes - size, now)
                continue
            entry = self.entries[self.cursor - self.origin]
            if type(entry) is bytes and self.cursor > self._special_through():
                size += self._pull_frames(out, max_bytes - size)
            elif isinstance(entry, Entry) and entry.skip:
                size += self._pull_skip(out)
            elif type(entry) is Spilled:
                break
            else:
                size += self._pull_entry(out, max_bytes - size, now)
        if self.cursor > self.transmitted + 1:
            self.transmitted = self.cursor - 1
        begun = self.cursor if self.fragment else self.cursor - 1
        if begun > self.sent:
            self.sent = begun
        return size

    def _pull_frames(self, out: list[bytes | memoryview], max_bytes: int) -> int:
        """A run of simple messages as one buffer."""
        entries, used, credit = self.entries, self.used, self.credit
        start = index = self.cursor - self.origin
        size = 0
        for entry in entries[start : min(start + 1 + max_bytes // _OVERHEAD, self.sendable + 1 - self.origin)]:
            if type(entry) is not bytes or size >= max_bytes or used >= credit:
                break
            size += len(entry)
            used += len(entry) + _SIMPLE_COST
            index += 1
        self.used = used
        self.cursor = self.origin + index
        out.append(b"".join(cast(list[bytes], entries[start:index])))
        return size

    def _pull_skip(self, out: list[bytes | memoryview]) -> int:
        """One SKIP for all neighbours that ended for the same reason."""
        first = self.cursor
        reason = cast(Entry, self.entries[first - self.origin]).skip
        last = first
        while last + 1 < self.next and last < self.sendable:
            entry = self.entries[last + 1 - self.origin]
            if type(entry) is bytes or cast(Entry, entry).skip != reason:
                break
            last += 1
        self.cursor = last + 1
        self.used += COST_PER_MESSAGE
        frame = encode_skip(first, last, reason)
        out.append(frame)
        return len(frame)

    def _pull_entry(self, out: list[bytes | memoryview], max_bytes: int, now: float) -> int:
        """One message with anything special about it, or as many of its fragments as fit."""
        sequence = self.cursor
        if self._sending is not None:
            return self._pull_fragments(out, max_bytes, sequence, b"", self._sending.payload, 0)
        entry = self.entry(sequence)
        if entry.fin:
            out.append(encode_fin(sequence))
            self.used += COST_PER_MESSAGE
            self.cursor = sequence + 1
            return len(cast(bytes, out[-1]))
        if entry.expires is not None and entry.expires <= now:
            self.bury(sequence, SkipReason.EXPIRED)
            return 0
        if len(entry.headers) + len(entry.payload) > self.message_limit:
            self.bury(sequence, SkipReason.TOO_LARGE)
            return 0
        headers, flags = self._named(sequence, entry), entry.flags
        if sequence <= self.marked:
            flags |= _REDELIVERED
        if headers:
            flags |= _HEADERS
        self._sending = entry
        return self._pull_fragments(out, max_bytes, sequence, headers, entry.payload, flags)

    def _pull_fragments(
        self, out: list[bytes | memoryview], max_bytes: int, sequence: int, headers: bytes, payload: bytes, flags: int
    ) -> int:
        size = 0
        done = self.fragment
        room = self.frame_limit - 10 - (2 + len(headers) if headers else 0)
        if len(payload) <= room and not done:
            prefix = _HEADER_LENGTH.pack(len(headers)) + headers if headers else b""
            head = _pack_data(10 + len(prefix) + len(payload), DATA, flags, sequence) + prefix
            self.used += COST_PER_MESSAGE + len(headers) + len(payload)
            self.cursor = sequence + 1
            self._sending = None
            _emit(out, head, payload, 0, len(payload))
            return len(head) + len(payload)
        while size < max_bytes and len(out) < MAX_BUFFERS - 1:
            if not done:
                self.used += COST_PER_MESSAGE + len(headers) + len(payload)
                prefix = _TOTAL.pack(len(headers) + len(payload))
                if headers:
                    prefix += _HEADER_LENGTH.pack(len(headers)) + headers
                step, flags = room - 4, flags | _MORE
            else:
                prefix, flags, step = b"", _CONTINUED, self.frame_limit - 10
                if len(payload) - done > step:
                    flags |= _MORE
            end = min(done + step, len(payload))
            head = _pack_data(10 + len(prefix) + end - done, DATA, flags, sequence) + prefix
            _emit(out, head, payload, done, end)
            size += len(head) + end - done
            done = end
            if done == len(payload):
                # the peer may have told meanwhile that it has more, or has read it
                self.cursor = max(sequence + 1, self.received + 1, self.first)
                self.fragment = 0
                self._sending = None
                return size
            self.fragment = done
        return size

    def _special_through(self) -> int:
        """Up to here no message is simply its frame."""
        if self.message_limit < SMALL:
            return MAX_SEQUENCE
        return max(self.marked, self.origins[-1][0]) if self.origins else self.marked

    def _named(self, sequence: int, entry: Entry) -> bytes:
        """The entry's headers, with the name of its first acceptance where that was another outbox."""
        for last, outbox_id in self.origins:
            if sequence <= last:
                fields = decode_map(entry.headers) if entry.headers else {}
                return encode_map({**fields, "id": outbox_id + sequence.to_bytes(8, "big")})
        return entry.headers

    # -- what the peer says ---------------------------------------------------------------------------------------

    def acknowledge(self, received: int, read: int) -> tuple[int, int]:
        """Apply positions; lower ones than known mean nothing.  Returns by how much each moved."""
        gained = max(0, received - self.received)
        self.received += gained
        count = read - self.read
        if self.fin and read >= self.fin:
            self.fin_read = True
            count = min(count, self.fin - self.first)
        if received >= self.cursor and not self.fragment:  # a message that is half sent is sent to its end first
            self.cursor = received + 1
        if count <= 0:
            return gained, 0
        self._trim(count)
        return gained, count

    def _trim(self, count: int) -> None:
        """Forget the ``count`` oldest entries: they were read, or their end is on record."""
        start = self.first - self.origin
        gone = self.entries[start : start + count]
        if self._special:
            self._account(gone)
        else:
            cost = sum(map(len, cast(list[bytes], gone))) + _SIMPLE_COST * count
            self.cost -= cost
            self.ledger.read += count
        if self.on_outcome is not None:
            for sequence, entry in enumerate(gone, self.first):
                if not (isinstance(entry, Entry) and (entry.skip or entry.fin)):
                    self.on_outcome(sequence, Outcome.READ)
        self.first += count
        while self.origins and self.first > self.origins[0][0]:
            del self.origins[0]
        if self.overdue:
            self.overdue = {sequence for sequence in self.overdue if sequence >= self.first}
        if self.ends:
            self.ends = {sequence for sequence in self.ends if sequence >= self.first}
        if start + count == len(self.entries):
            self.entries = []
            self.origin = self.first
            self._ttl.clear()
        elif start + count > 256 and 2 * (start + count) > len(self.entries):
            del self.entries[: start + count]
            self.origin = self.first
        else:
            self.entries[start : start + count] = [_GONE] * count
        if self.cursor < self.first and not self.fragment:
            self.cursor = self.first

    def _account(self, gone: list[bytes | Entry]) -> None:
        for entry in gone:
            if type(entry) is bytes:
                self.cost -= len(entry) + _SIMPLE_COST
                self.ledger.read += 1
            else:
                special = cast(Entry, entry)
                self._special -= 1
                self.cost -= special.cost
                if not special.skip and not special.fin:
                    self.ledger.read += 1

    def reject(self, sequence: int, code: int, text: str) -> bool:
        """The peer's application refused a message; False if that means nothing (any more)."""
        if not self.first <= sequence <= self.transmitted or sequence == self.fin:
            return False
        entry = self.entries[sequence - self.origin]
        if isinstance(entry, Entry) and entry.skip:
            return False
        self._replace(sequence, SkipReason.ALREADY_READ)
        self._fail(Failure(sequence, sequence, Outcome.REJECTED, text, "yes", code))
        return True

    # -- ending early ---------------------------------------------------------------------------------------------

    def bury(self, sequence: int, reason: SkipReason) -> bool:
        """End a message that the peer does not hold; its place becomes a SKIP.  False if it has an end already."""
        entry = self.entries[sequence - self.origin]
        if isinstance(entry, Entry) and (entry.skip or entry.fin):
            return False
        self._replace(sequence, reason)
        seen = "unknown" if sequence <= self.marked else "no"
        self._fail(Failure(sequence, sequence, _SKIP_OUTCOME[reason], _SKIP_TEXT[reason], seen))
        return True

    def cancel(self, sequence: int) -> bool:
        """End a message by its sender's wish; True if no process of the peer has seen or will see it."""
        if not self.first <= sequence < self.next or self.seen_by_peer(sequence):
            return False
        return self.bury(sequence, SkipReason.CANCELLED) and sequence > self.marked

    def drop_oldest(self) -> bool:
        """Make room by the oldest message that :meth:`cancel` could act on; False if there is none."""
        sequence = max(self._dropped, self.cursor + 1 if self.fragment else self.cursor)
        while sequence < self.next:
            sequence += 1
            self._dropped = sequence
            if self.bury(sequence - 1, SkipReason.OVERFLOW):
                return True
        return False

    def expire(self, now: float) -> None:
        """End what outlived its ttl; what the peer may hold is looked at again when a resume tells."""
        while self._ttl and self._ttl[0][0] <= now:
            _, sequence = heapq.heappop(self._ttl)
            if sequence >= self.first:
                self._expire_one(sequence)

    def expire_overdue(self) -> None:
        """After a resume: end the overdue messages that the peer turned out not to hold."""
        overdue, self.overdue = self.overdue, set()
        for sequence in sorted(overdue):
            self._expire_one(sequence)

    def _expire_one(self, sequence: int) -> None:
        if self.seen_by_peer(sequence):
            self.overdue.add(sequence)
        else:
            self.bury(sequence, SkipReason.EXPIRED)

    @property
    def next_expiry(self) -> float | None:
        """When the next ttl runs out."""
        return self._ttl[0][0] if self._ttl else None

    def give_up_transmitted(self, after: int = 0, through: int | None = None) -> None:
        """What the peer's dead process may have seen ends as LOST (``on_peer_restart="report"``)."""
        for sequence in range(max(self.first, after + 1), (self.sent if through is None else through) + 1):
            entry = self.entries[sequence - self.origin]
            if not (isinstance(entry, Entry) and (entry.skip or entry.fin)):
                self._replace(sequence, SkipReason.PEER_RESTARTED)
                self._fail(
                    Failure(sequence, sequence, Outcome.LOST, _SKIP_TEXT[SkipReason.PEER_RESTARTED], "unknown")
                )

    def finish(self, outcome: Outcome, reason: str, through: int | None = None) -> None:
        """Everything up to ``through`` (default: everything) ends as ``outcome`` where it has no end yet."""
        last = self.next - 1 if through is None else min(through, self.next - 1)
        for sequence in range(self.first, last + 1):
            entry = self.entries[sequence - self.origin]
            if isinstance(entry, Entry) and (entry.skip or entry.fin):
                continue
            seen = "unknown" if self.seen_by_peer(sequence) or sequence <= max(self.marked, self.sent) else "no"
            self._replace(sequence, SkipReason.ALREADY_READ)
            self._fail(Failure(sequence, sequence, outcome, reason, seen))
        if self.cursor <= last:
            self.fragment, self._sending = 0, None
        if last >= self.first:
            self._trim(last - self.first + 1)

    def rename(self, outbox_id: bytes, *, mark: bool) -> None:
        """Go on under a new outbox id with everything that is retained; numbers stay.

        ``mark``: what was transmitted may have been seen, and goes out flagged.
        """
        if self.all_read:
            self._trim(self.next - self.first)  # FIN, if there was one
        self.fin_read = False
        self.keep_names()
        if mark:
            self.marked = max(self.marked, self.sent)
        self.outbox_id = outbox_id
        self.history = None
        self.runs.clear()
        if self.fin < self.first:
            self.fin = 0
        self.resume(self.first - 1)
        self.transmitted = self.first - 1

    def begin_run(self, run: bytes) -> None:
        """A journal was opened anew: what is retained goes on in this run (P-RUN-2)."""
        self.runs[self.run] = self.next - 1
        if len(self.runs) >= _MAX_RUNS:  # the present one is one of them
            del self.runs[next(iter(self.runs))]
        self.run = run

    def entomb(self, sequence: int, skip: int) -> None:
        """A journal is read: that message ended early."""
        self.ledger.accepted -= not self.entry(sequence).skip
        self._put(sequence, _FIRST_TOMBSTONES[SkipReason(skip)])

    def recall_ends(self) -> None:
        """A journal was read: how those ended of which it has but a tombstone.  They were never transmitted.

        In whatever order they ended, each that stands right behind another of its reason costs its place only.
        """
        before = 0
        for index in range(self.first - self.origin, len(self.entries)):
            entry = self.entries[index]
            skip = 0 if type(entry) is bytes else cast(Entry, entry).skip
            if skip and skip == before:
                self.cost += _NEXT_TOMBSTONES[SkipReason(skip)].cost - cast(Entry, entry).cost
                self.entries[index] = _NEXT_TOMBSTONES[SkipReason(skip)]
            if skip in _SKIP_OUTCOME:
                sequence, reason = self.origin + index, SkipReason(skip)
                self.failures.learn(Failure(sequence, sequence, _SKIP_OUTCOME[reason], _SKIP_TEXT[reason], "no"))
            before = skip

    def keep_names(self) -> None:
        """The id changes: what is retained was first accepted under the one until now, and goes on saying so."""
        last = self.next - 1
        if max(self.origins[-1][0] if self.origins else 0, self.first - 1) < last:
            self.origins.append((last, self.outbox_id))
        if (self.names[-1][0] if self.names else 0) < last:
            self.names.append((last, self.outbox_id))
            for forgotten, _ in self.names[:-_MAX_NAMES]:
                self.nameless = forgotten
            del self.names[:-_MAX_NAMES]

    def name_of(self, sequence: int) -> bytes | None:
        """The outbox id under which that message was accepted; None if that is forgotten."""
        if sequence <= self.nameless:
            return None
        return next((outbox_id for last, outbox_id in self.names if sequence <= last), self.outbox_id)

    def _replace(self, sequence: int, reason: SkipReason) -> None:
        before = self.entries[sequence - self.origin - 1] if sequence > self.first else None
        behind = isinstance(before, Entry) and before.skip == reason
        self._put(sequence, (_NEXT_TOMBSTONES if behind else _FIRST_TOMBSTONES)[reason])

    def _put(self, sequence: int, tombstone: Entry) -> None:
        index = sequence - self.origin
        entry = self.entries[index]
        if type(entry) is bytes:
            self._special += 1
            self.cost -= len(entry) + _SIMPLE_COST
        else:
            self.cost -= cast(Entry, entry).cost
        self.cost += tombstone.cost
        self.entries[index] = tombstone
        self.overdue.discard(sequence)
        if self.ends is not None:
            self.ends.add(sequence)
            if sequence >= self.cursor:
                self.sendable = min(self.sendable, sequence - 1)

    def _fail(self, failure: Failure) -> None:
        self.failures.add(failure)
        self.ledger.count(failure.outcome)
        self.newly_failed = True
        if self.on_outcome is not None:
            self.on_outcome(failure.first, failure.outcome)


def _is_simple(payload: bytes, headers: bytes, flags: int) -> bool:
    """Is such a message kept as its frame?"""
    return len(payload) <= SMALL and not headers and flags in (0, _RAW)


def _unpacked(frame: bytes) -> Entry:
    """The simple message that a frame carries, as an entry."""
    return Entry(frame[_OVERHEAD:], flags=frame[5])


def _emit(out: list[bytes | memoryview], head: bytes, payload: bytes, start: int, end: int) -> None:
    """A frame: joined when small, the payload uncopied when large."""
    if end - start <= SMALL:
        out.append(head + payload[start:end])
    elif start == 0 and end == len(payload):
        out.append(head)
        out.append(payload)
    else:
        out.append(head)
        out.append(memoryview(payload)[start:end])
