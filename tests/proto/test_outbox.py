"""The sender's log against a model of it, seen through the eyes of a strict receiver.

The model knows each message and what became of it, in the plainest way; the receiver decodes every byte that the outbox
gives out and closes (here: fails) at everything that the specification lets a receiver close for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from struct import unpack_from

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from networkio_proto.config import COST_PER_MESSAGE
from networkio_proto.errors import Outcome
from networkio_proto.frames import DATA, FIN, SKIP, DataFlag, SkipReason
from networkio_proto.ledger import Failure
from networkio_proto.maps import decode_map, encode_map
from networkio_proto.outbox import MAX_BUFFERS, SMALL, Entry, Outbox
from tests.proto.helpers import frames

MORE, CONTINUED = DataFlag.FRAGMENT_MORE, DataFlag.FRAGMENT_CONTINUED
FRAME = 8192
PLENTY = 1 << 40
RUN = b"r" * 16


def outbox_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


def filled(text: str, size: int) -> bytes:
    """A payload of this size that tells its fragments apart."""
    return (text.encode() * (size // len(text) + 1))[:size]


# -- a receiver that forgives nothing ----------------------------------------------------------------------------------


@dataclass
class Message:
    """What a receiver made of one sequence."""

    sequence: int
    payload: bytes = b""
    headers: dict[str, object] = field(default_factory=dict)
    flags: int = 0
    skip: int = 0
    fin: bool = False


class Receiver:
    """The receiver of one connection: takes frames in order, counts their cost, insists on every rule."""

    def __init__(self, position: int, frame_limit: int, message_limit: int, credit: int) -> None:
        self.expected = position + 1
        #: it told meanwhile that it has everything up to here, from an earlier connection
        self.holds = position
        self.frame_limit = frame_limit
        self.message_limit = message_limit
        self.credit = credit
        self.used = 0
        self.partial: Message | None = None
        self.missing = 0

    def feed(self, data: bytes) -> list[Message]:
        """The sequences that these frames complete."""
        complete: list[Message] = []
        for frame in frames(data):
            assert 2 + len(frame.body) <= self.frame_limit
            if frame.kind == DATA:
                complete += self._data(frame.flags, frame.body)
                continue
            assert frame.kind in (SKIP, FIN)
            assert frame.flags == 0
            self._begin(frame.u64(), COST_PER_MESSAGE)
            if frame.kind == FIN:
                complete.append(Message(frame.u64(), fin=True))
                self.expected += 1
            else:
                first, last, reason = unpack_from(">QQH", frame.body)
                assert first <= last
                complete += [Message(sequence, skip=reason) for sequence in range(first, last + 1)]
                self.expected = last + 1
        return complete

    def _begin(self, sequence: int, cost: int) -> None:
        assert self.partial is None, "something inside of a fragmented message"
        assert sequence == self.expected
        assert self.used < self.credit, "begun without credit"
        self.used += cost

    def _data(self, flags: int, body: bytes) -> list[Message]:
        sequence, position = unpack_from(">Q", body)[0], 8
        if flags & CONTINUED:
            assert flags in (CONTINUED, CONTINUED | MORE)
            message = self.partial
            assert message is not None
            assert message.sequence == sequence
            assert position < len(body), "an empty continued fragment"
        else:
            message = Message(sequence, flags=flags & ~(MORE | DataFlag.HEADERS))
            total = -1
            if flags & MORE:
                total, position = unpack_from(">I", body, position)[0], position + 4
            size = 0
            if flags & DataFlag.HEADERS:
                size, position = unpack_from(">H", body, position)[0], position + 2
                message.headers = decode_map(body[position : position + size])
                position += size
            total = size + len(body) - position if total < 0 else total
            assert total <= self.message_limit + 64
            self._begin(sequence, COST_PER_MESSAGE + total)
            self.missing = total - size
        chunk = body[position:]
        message.payload += chunk
        self.missing -= len(chunk)
        assert self.missing > 0 if flags & MORE else self.missing == 0
        self.partial = message if flags & MORE else None
        if self.partial is None:
            self.expected = max(self.expected, self.holds) + 1
            return [message]
        return []


# -- the model ---------------------------------------------------------------------------------------------------------


@dataclass
class Item:
    """One accepted entry, and its end if it has one."""

    name: bytes
    payload: bytes = b""
    headers: dict[str, object] = field(default_factory=dict)
    flags: int = 0
    expires: float | None = None
    fin: bool = False
    outcome: Outcome | None = None
    #: the SKIP reason that stands in its place
    skip: int = 0
    #: right behind another of the same reason, a tombstone costs no more than its place
    behind: bool = False

    @property
    def size(self) -> int:
        return len(self.payload) + (len(encode_map(self.headers)) if self.headers else 0)

    @property
    def cost(self) -> int:
        if self.skip:
            return 8 if self.behind else COST_PER_MESSAGE
        return COST_PER_MESSAGE + self.size


payload_sizes = st.sampled_from([0, 1, 7, SMALL - 1, SMALL, SMALL + 1, FRAME - 15, FRAME - 10, FRAME - 9, 20_000])
header_maps = st.sampled_from([{}, {"kind": "x"}, {"a": 1, "long": "y" * 300}])


class OutboxMachine(RuleBasedStateMachine):
    """Everything that a session may ask of an outbox, in any order."""

    @initialize()
    def begin(self) -> None:
        self.now = 100.0
        self.outbox = Outbox(outbox_id(1), RUN)
        self.items: dict[int, Item] = {}
        self.first = self.next = 1
        self.marked = self.sent = self.complete = 0
        self.names = 1
        self.fin = 0
        self.fin_read = False
        #: the last sequence that may leave
        self.sendable = PLENTY
        #: what is past its time, but may be at the peer
        self.overdue: set[int] = set()
        self.connect(0, PLENTY)

    def connect(self, position: int, credit: int, frame: int = FRAME, message: int = PLENTY) -> None:
        """A new connection, whose receiver holds everything up to ``position``."""
        self.outbox.attach(frame, message, credit)
        self.outbox.expire_overdue()
        self.receiver = Receiver(position, frame, message, credit)
        overdue, self.overdue = self.overdue, set()
        for sequence in overdue:
            self.expire_one(sequence)

    # what the model says

    def alive(self, sequence: int) -> bool:
        item = self.items[sequence]
        return item.outcome is None and not item.fin

    def held(self, sequence: int) -> bool:
        """May the peer hold it, wholly or in part?"""
        begun = self.receiver.expected - (0 if self.receiver.partial else 1)
        return sequence <= begun

    def retained(self) -> range:
        return range(self.first, self.next)

    def ended(self, sequence: int, outcome: Outcome, skip: int) -> None:
        item = self.items[sequence]
        item.outcome = outcome
        item.skip = skip
        item.behind = sequence > self.first and self.items[sequence - 1].skip == skip
        self.overdue.discard(sequence)

    def trim(self, read: int) -> None:
        for sequence in range(self.first, read + 1):
            if self.alive(sequence):
                self.items[sequence].outcome = Outcome.READ
        self.first = max(self.first, read + 1)

    def accept(self, item: Item) -> int:
        item.name = self.outbox.outbox_id
        self.items[self.next] = item
        self.next += 1
        self.outbox.ledger.accepted += 1
        return self.next - 1

    # accepting

    @precondition(lambda self: not self.fin)
    @rule(sizes=st.lists(payload_sizes.filter(lambda size: size <= SMALL), min_size=1, max_size=4), raw=st.booleans())
    def append(self, sizes: list[int], raw: bool) -> None:
        for size in sizes:
            item = Item(b"", filled(f"{self.next}.", size), flags=DataFlag.RAW if raw else 0)
            sequence = self.accept(item)
            assert self.outbox.append(item.payload, raw) == sequence

    @precondition(lambda self: not self.fin)
    @rule(
        sizes=st.lists(payload_sizes, min_size=1, max_size=3),
        headers=header_maps,
        flags=st.sampled_from([0, DataFlag.RAW, DataFlag.ACK_NOW]),
        ttl=st.none() | st.integers(1, 9),
    )
    def append_entry(self, sizes: list[int], headers: dict[str, object], flags: int, ttl: int | None) -> None:
        expires = None if ttl is None else self.now + ttl
        encoded = encode_map(headers) if headers else b""
        for size in sizes:
            item = Item(b"", filled(f"{self.next}.", size), headers, flags, expires)
            sequence = self.accept(item)
            assert self.outbox.append_entry(Entry(item.payload, encoded, flags, expires)) == sequence

    def append_fin(self) -> None:
        if not self.fin:
            self.fin = self.accept(Item(b"", fin=True))
            self.outbox.ledger.accepted -= 1
            assert self.outbox.append_fin() == self.fin

    # transmitting

    @rule()
    def pull_everything(self) -> None:
        while self.receiver.partial or (
            self.receiver.expected <= min(self.next - 1, self.sendable) and self.receiver.used < self.receiver.credit
        ):
            before = len(self.items), self.outbox.cursor, self.outbox.fragment, self.receiver.expected
            self.pull(PLENTY)
            after = len(self.items), self.outbox.cursor, self.outbox.fragment, self.receiver.expected
            assert before != after, "what may be transmitted is not"

    @rule(max_bytes=st.sampled_from([1, 100, 5000, 65536, PLENTY]))
    def pull(self, max_bytes: int) -> None:
        out: list[bytes | memoryview] = []
        size = self.outbox.pull(out, max_bytes, self.now)
        data = b"".join(out)
        assert size == len(data)
        assert len(out) <= MAX_BUFFERS
        half = self.receiver.partial
        for message in self.receiver.feed(data):
            if message is half:  # it goes on as it began, whatever has become of it
                assert message.payload == self.items[message.sequence].payload
            else:
                self.check(message)
        partial = self.receiver.partial
        if partial is not None and partial is not half:
            self.check_begun(partial)
        assert self.outbox.used == self.receiver.used
        if data:
            last = frames(data)[-1]
            assert size - (6 + len(last.body)) < max_bytes, "a frame was begun beyond max_bytes"
        if size < max_bytes and len(out) < MAX_BUFFERS - 2:
            assert partial is None
            through = min(self.next - 1, self.sendable)
            assert self.receiver.expected > through or self.receiver.used >= self.receiver.credit
        self.complete = max(self.complete, self.receiver.expected - 1)
        self.sent = max(self.sent, self.receiver.expected - (0 if partial else 1))

    def check(self, message: Message) -> None:
        item = self.items[message.sequence]
        assert message.sequence <= self.sendable
        if message.fin:
            assert item.fin
        elif not message.skip:
            self.check_begun(message)
            assert message.payload == item.payload
        elif item.outcome is not None:
            assert message.skip == item.skip
        elif message.skip == SkipReason.EXPIRED:
            assert item.expires is not None
            assert item.expires <= self.now
            self.ended(message.sequence, Outcome.EXPIRED, SkipReason.EXPIRED)
        else:
            assert message.skip == SkipReason.TOO_LARGE
            assert item.size > self.receiver.message_limit
            self.ended(message.sequence, Outcome.LOST, SkipReason.TOO_LARGE)

    def check_begun(self, message: Message) -> None:
        """The first fragment of a message says all there is to say."""
        item = self.items[message.sequence]
        assert item.outcome is None
        assert item.size <= self.receiver.message_limit
        assert item.payload.startswith(message.payload)
        expected = dict(item.headers)
        if item.name != self.outbox.outbox_id:
            expected["id"] = item.name + message.sequence.to_bytes(8, "big")
        assert message.headers == expected
        redelivered = DataFlag.REDELIVERED if message.sequence <= self.marked else 0
        assert message.flags == item.flags | redelivered

    @rule(credit=st.sampled_from([1, 64, 200, 5000, 100_000]))
    def grant(self, credit: int) -> None:
        self.receiver.credit += credit
        self.outbox.credit += credit

    @rule(data=st.data(), credit=st.sampled_from([PLENTY, 20_000, 300, 0]), small=st.integers(0, 5))
    def reconnect(self, data: st.DataObject, credit: int, small: int) -> None:
        position = data.draw(st.integers(self.first - 1, self.complete), label="position")
        frame = data.draw(st.sampled_from([FRAME, FRAME + 1, 65536]), label="frame limit")
        message = (PLENTY, FRAME, SMALL, SMALL - 1, 100, 1)[small]
        self.outbox.resume(position)
        self.fin_read = self.fin_read and position >= self.fin
        self.connect(position, credit, frame, message)

    # a disk before which nothing leaves

    @rule(behind=st.integers(0, 4))
    def write(self, behind: int) -> None:
        """Some of it is on disk now; what left before was, too."""
        self.sendable = self.outbox.sendable = max(self.sent, self.first - 1, self.next - 1 - behind)

    @precondition(lambda self: self.sendable < self.next)
    @rule()
    def fail_to_write(self) -> None:
        """What is retained of the rest was never accepted, and its numbers are given anew."""
        after = max(self.sendable, self.first - 1)
        gone = [self.items.pop(sequence) for sequence in range(after + 1, self.next)]
        self.next = after + 1
        self.fin = 0 if self.fin >= self.next else self.fin
        assert self.outbox.withdraw(self.sendable) == sum(not item.fin for item in gone)

    # what the peer says

    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        """Perhaps the peer holds more than came on this connection, from an earlier one."""
        received = data.draw(st.integers(0, max(self.receiver.expected - 1, self.complete)), label="received")
        self.judge_acknowledgement(received, data.draw(st.integers(0, received), label="read"))

    @rule(unread=st.integers(0, 3), unreceived=st.integers(0, 1))
    def acknowledge_almost_everything(self, unread: int, unreceived: int) -> None:
        received = max(0, self.receiver.expected - 1 - unreceived)
        self.judge_acknowledgement(received, max(0, received - unread))

    def judge_acknowledgement(self, received: int, read: int) -> None:
        before = self.outbox.received, self.first
        gained, settled = self.outbox.acknowledge(received, read)
        self.receiver.holds = max(self.receiver.holds, received)
        if self.receiver.partial is None:  # else what is half sent is sent to its end first
            self.receiver.expected = max(self.receiver.expected, received + 1)
        if self.fin and read >= self.fin:  # FIN is kept until the session is over
            self.fin_read, read = True, self.fin - 1
        self.trim(read)
        assert gained == max(0, received - before[0])
        assert settled == self.first - before[1]
        assert self.outbox.received == max(received, before[0])

    @rule(data=st.data(), code=st.integers(0, 9))
    def reject(self, data: st.DataObject, code: int) -> None:
        sequence = data.draw(st.integers(0, max(self.receiver.expected - 1, self.complete)), label="sequence")
        expected = sequence >= self.first and self.alive(sequence)
        assert self.outbox.reject(sequence, code, "no") == expected
        if expected:
            self.ended(sequence, Outcome.REJECTED, SkipReason.ALREADY_READ)
            failure = self.outbox.ended_early(sequence)
            assert failure is not None
            assert (failure.code, failure.reason, failure.seen) == (code, "no", "yes")

    # ending early

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        sequence = data.draw(st.integers(0, self.next), label="sequence")
        possible = sequence in self.retained() and not self.held(sequence) and self.alive(sequence)
        assert self.outbox.cancel(sequence) == (possible and sequence > self.marked)
        if possible:
            self.ended(sequence, Outcome.CANCELLED, SkipReason.CANCELLED)

    @rule()
    def drop_oldest(self) -> None:
        droppable = [s for s in self.retained() if not self.held(s) and self.alive(s)]
        assert self.outbox.drop_oldest() == bool(droppable)
        if droppable:
            self.ended(droppable[0], Outcome.LOST, SkipReason.OVERFLOW)

    @rule(seconds=st.integers(1, 6))
    def expire(self, seconds: int) -> None:
        self.now += seconds
        self.outbox.expire(self.now)
        due = [(expires, s) for s in self.retained() if (expires := self.items[s].expires) is not None]
        for expires, sequence in sorted(due):  # in the order of their times: a tombstone behind another costs less
            if expires <= self.now:
                self.expire_one(sequence)
        following = self.outbox.next_expiry
        assert following is None or following > self.now
        waiting = [self.items[s].expires for s in self.retained() if self.alive(s)]
        later = [expires for expires in waiting if expires is not None and expires > self.now]
        assert not later or following is not None
        assert following is None or following <= min(later, default=following)

    def expire_one(self, sequence: int) -> None:
        if sequence < self.first or not self.alive(sequence):
            return
        if self.held(sequence):
            self.overdue.add(sequence)
        else:
            self.ended(sequence, Outcome.EXPIRED, SkipReason.EXPIRED)

    @rule(data=st.data(), what=st.sampled_from(["rename", "mark", "restart", "report", "fin", "finish", *4 * [""]]))
    def upheaval(self, data: st.DataObject, what: str) -> None:
        """What happens once in a session's life, or never."""
        if what in ("rename", "mark"):
            self.rename(mark=what == "mark")
        elif what in ("restart", "report"):
            self.peer_restarts(report=what == "report")
        elif what == "fin":
            self.append_fin()
        elif what == "finish":
            self.finish(data.draw(st.none() | st.integers(0, self.next + 1), label="through"))

    def rename(self, mark: bool) -> None:
        self.names += 1
        self.outbox.rename(outbox_id(self.names), mark=mark)
        self.marked = max(self.marked, self.sent) if mark else self.marked
        if self.fin_read:
            self.trim(self.fin)
        self.complete, self.fin_read = self.first - 1, False
        if self.fin < self.first:
            self.fin = 0
        assert self.outbox.outbox_id == outbox_id(self.names)
        self.connect(self.first - 1, PLENTY)

    def peer_restarts(self, report: bool) -> None:
        """What was transmitted may have been seen by a process that is gone."""
        if report:
            self.outbox.give_up_transmitted()
            for sequence in range(self.first, self.sent + 1):
                if self.alive(sequence):
                    self.ended(sequence, Outcome.LOST, SkipReason.PEER_RESTARTED)
        else:
            self.marked = self.outbox.marked = max(self.marked, self.sent)
        self.outbox.resume(self.first - 1)
        self.fin_read = False
        self.connect(self.first - 1, PLENTY)

    def finish(self, through: int | None) -> None:
        """The session ended at the peer, which had everything up to a position; the rest goes on under a new name."""
        last = self.next - 1 if through is None else min(through, self.next - 1)
        maybe = {s for s in range(self.first, last + 1) if self.alive(s) and s <= max(self.sent, self.marked)}
        finished = {s for s in range(self.first, last + 1) if self.alive(s)}
        self.outbox.finish(Outcome.ABANDONED, "over", through)
        for sequence in finished:
            self.ended(sequence, Outcome.ABANDONED, SkipReason.ALREADY_READ)
            failure = self.outbox.ended_early(sequence)
            assert failure is not None
            assert failure.seen == ("unknown" if sequence in maybe else "no")
        self.trim(last)
        self.rename(mark=False)

    # always

    @invariant()
    def the_cost_is_that_of_what_is_retained(self) -> None:
        assert self.outbox.cost == sum(self.items[sequence].cost for sequence in self.retained())

    @invariant()
    def positions_agree(self) -> None:
        outbox = self.outbox
        assert (outbox.first, outbox.next, outbox.fin) == (self.first, self.next, self.fin)
        assert outbox.read == self.first - 1
        assert outbox.all_read == (self.first == self.next or (self.fin_read and self.first == self.fin))
        assert outbox.fin_read == self.fin_read
        assert outbox.unread == sum(self.alive(sequence) for sequence in self.retained())
        assert outbox.untransmitted == (self.receiver.expected < self.next)
        assert outbox.facts().runs == {RUN: self.next - 1}
        assert outbox.facts().first == self.first

    @invariant()
    def every_end_is_on_record_once(self) -> None:
        ledger = self.outbox.ledger
        ends = [item.outcome for item in self.items.values() if not item.fin]
        counted = {outcome: ends.count(outcome) for outcome in Outcome}
        assert counted == {outcome: getattr(ledger, outcome.value) for outcome in Outcome}
        assert ledger.accepted == len(ends)
        assert ledger.unread == sum(self.alive(sequence) for sequence in self.retained())
        for sequence, item in self.items.items():
            failure = self.outbox.ended_early(sequence)
            assert (None if failure is None else failure.outcome) == (
                item.outcome if item.outcome is not Outcome.READ else None
            )
        failed = any(end not in (None, Outcome.READ) for end in ends)
        assert self.outbox.newly_failed or not failed


@pytest.mark.slow
def test_an_outbox_agrees_with_its_model_whatever_is_asked_of_it() -> None:
    run_state_machine_as_test(
        OutboxMachine,
        settings=settings(max_examples=150, stateful_step_count=50, deadline=None, derandomize=True, database=None),
    )


# -- single promises ---------------------------------------------------------------------------------------------------


def an_outbox(*, frame: int = 65536, message: int = PLENTY, credit: int = PLENTY) -> Outbox:
    outbox = Outbox(outbox_id(1), RUN)
    outbox.attach(frame, message, credit)
    return outbox


def pulled(outbox: Outbox, max_bytes: int = PLENTY, now: float = 0.0) -> bytes:
    """Everything that one pull after another gives."""
    data = b""
    while True:
        out: list[bytes | memoryview] = []
        outbox.pull(out, max_bytes, now)
        if not out:
            return data
        data += b"".join(out)


def messages(outbox: Outbox, max_bytes: int = PLENTY, now: float = 0.0) -> list[Message]:
    """The same, as a receiver takes it that was at the outbox's cursor."""
    receiver = Receiver(outbox.cursor - 1, outbox.frame_limit, outbox.message_limit, outbox.credit)
    return receiver.feed(pulled(outbox, max_bytes, now))


@pytest.mark.parametrize("headers", [{}, {"k": "v"}, {"k": "v" * 3000}], ids=["bare", "headers", "long headers"])
@pytest.mark.parametrize("fragments", [1, 2, 3])
@pytest.mark.parametrize("max_bytes", [1, PLENTY])
def test_a_message_of_any_size_around_a_fragments_bound_arrives_whole(
    headers: dict[str, object], fragments: int, max_bytes: int
) -> None:
    encoded = encode_map(headers) if headers else b""
    first = FRAME - 10 - 4 - (2 + len(encoded) if headers else 0)
    bound = first + (fragments - 1) * (FRAME - 10)
    for size in range(bound - 6, bound + 8):
        outbox = an_outbox(frame=FRAME)
        payload = filled(f"{size}.", size)
        outbox.append_entry(Entry(payload, encoded, DataFlag.RAW))
        outbox.append(b"next", raw=False)
        one, two = messages(outbox, max_bytes)
        assert (one.payload, one.headers, one.flags) == (payload, headers, DataFlag.RAW)
        assert two.payload == b"next"
        assert outbox.used == 2 * COST_PER_MESSAGE + len(encoded) + size + 4


def test_a_message_that_fits_one_frame_is_one_frame() -> None:
    outbox = an_outbox(frame=FRAME)
    outbox.append_entry(Entry(bytes(FRAME - 10)))
    outbox.append_entry(Entry(bytes(FRAME - 9)))
    assert [frame.flags for frame in frames(pulled(outbox))] == [0, MORE, CONTINUED]


@pytest.mark.parametrize("size", [SMALL - 1, SMALL, SMALL + 1])
def test_payloads_beyond_small_are_handed_on_uncopied(size: int) -> None:
    outbox, payload = an_outbox(), bytes(size)
    outbox.append_entry(Entry(payload))
    out: list[bytes | memoryview] = []
    outbox.pull(out, PLENTY, 0.0)
    assert any(buffer is payload for buffer in out) == (size > SMALL)


def test_fragments_are_views_of_the_payload() -> None:
    outbox, payload = an_outbox(frame=FRAME), bytes(3 * FRAME)
    outbox.append_entry(Entry(payload))
    out: list[bytes | memoryview] = []
    outbox.pull(out, PLENTY, 0.0)
    views = [buffer for buffer in out if isinstance(buffer, memoryview)]
    assert len(views) == 3
    assert all(view.obj is payload for view in views)


@pytest.mark.parametrize("size", [0, SMALL, SMALL + 1, 40 * FRAME])
def test_one_pull_gives_no_more_than_the_buffers_that_a_driver_takes(size: int) -> None:
    outbox, receiver, payload = an_outbox(frame=FRAME), Receiver(0, FRAME, PLENTY, PLENTY), bytes(size)
    for number in range(70):  # every other one is special, so that no two join
        outbox.append(b"simple", raw=True)
        outbox.append_entry(Entry(payload, encode_map({"n": number})))
    while outbox.untransmitted:
        out: list[bytes | memoryview] = []
        outbox.pull(out, PLENTY, 0.0)
        assert len(out) <= MAX_BUFFERS
        assert len(out) >= MAX_BUFFERS - 1 or not outbox.untransmitted
        receiver.feed(b"".join(out))
    assert receiver.expected == 141


def test_simple_messages_leave_in_one_buffer() -> None:
    outbox = an_outbox()
    for number in range(1000):
        outbox.append(b"%d" % number, raw=True)
    out: list[bytes | memoryview] = []
    outbox.pull(out, PLENTY, 0.0)
    assert len(out) == 1
    assert [frame.body[8:] for frame in frames(b"".join(out))] == [b"%d" % number for number in range(1000)]


@pytest.mark.parametrize("credit", [1, 70, 71, 140, 141])
def test_one_message_may_pass_the_credit(credit: int) -> None:
    outbox = an_outbox(credit=credit)
    for _ in range(4):
        outbox.append(b"sixsix", raw=True)
    assert len(messages(outbox)) == (credit + 69) // 70
    outbox.credit = PLENTY
    assert len(messages(outbox)) == 4 - (credit + 69) // 70


def test_a_message_that_was_begun_is_finished_without_further_credit() -> None:
    outbox = an_outbox(frame=FRAME, credit=1)
    outbox.append_entry(Entry(bytes(5 * FRAME)))
    outbox.append(b"later", raw=True)
    assert [len(message.payload) for message in messages(outbox, max_bytes=1)] == [5 * FRAME]


@pytest.mark.parametrize("limit", [1, 5, SMALL - 1])
def test_messages_over_a_small_limit_of_the_peer_are_lost_and_the_rest_goes_on(limit: int) -> None:
    outbox = an_outbox(message=limit)
    for size in (limit, limit + 1, 0, limit + 1, limit + 1, limit):
        outbox.append(bytes(size), raw=True)
    assert [message.skip for message in messages(outbox)] == [0, SkipReason.TOO_LARGE, 0] + 2 * [
        SkipReason.TOO_LARGE
    ] + [0]
    assert [(f.first, f.last, f.outcome, f.seen) for f in outbox.failures.ranges()] == [
        (2, 2, Outcome.LOST, "no"),
        (4, 5, Outcome.LOST, "no"),
    ]


def test_a_message_of_exactly_the_peers_limit_survives_the_id_that_a_new_outbox_adds() -> None:
    outbox = an_outbox(message=100)
    outbox.append(bytes(100), raw=True)
    outbox.rename(outbox_id(2), mark=False)
    outbox.attach(FRAME, 100, PLENTY)
    (message,) = messages(outbox)
    assert message.headers == {"id": outbox_id(1) + (1).to_bytes(8, "big")}
    assert len(message.payload) == 100


def test_neighbours_that_ended_for_one_reason_share_a_skip() -> None:
    outbox = an_outbox()
    for _ in range(7):
        outbox.append(b"x", raw=True)
    for sequence in (2, 3, 4, 6):
        assert outbox.cancel(sequence)
    assert outbox.drop_oldest()  # 1
    skips = [unpack_from(">QQH", frame.body) for frame in frames(pulled(outbox)) if frame.kind == SKIP]
    assert skips == [(1, 1, SkipReason.OVERFLOW), (2, 4, SkipReason.CANCELLED), (6, 6, SkipReason.CANCELLED)]


def test_of_what_a_dead_process_may_have_seen_only_what_had_no_end_is_lost() -> None:
    outbox = an_outbox()
    for _ in range(3):
        outbox.append(b"x", raw=True)
    assert outbox.cancel(2)
    pulled(outbox)
    outbox.give_up_transmitted()
    assert [(f.first, f.last, f.outcome) for f in outbox.failures.ranges()] == [
        (1, 1, Outcome.LOST), (2, 2, Outcome.CANCELLED), (3, 3, Outcome.LOST),
    ]  # fmt: skip


def test_what_has_ended_already_makes_no_room() -> None:
    outbox = an_outbox()
    for _ in range(3):
        outbox.append(b"x", raw=True)
    assert outbox.cancel(1)
    assert outbox.drop_oldest()
    assert [message.skip for message in messages(outbox)] == [SkipReason.CANCELLED, SkipReason.OVERFLOW, 0]


def test_what_was_cancelled_may_have_been_seen_if_a_dead_process_had_it() -> None:
    outbox = an_outbox()
    outbox.append(b"x", raw=True)
    outbox.append(b"y", raw=True)
    pulled(outbox)
    outbox.marked = 1
    outbox.resume(0)
    assert not outbox.cancel(1)
    assert outbox.cancel(2)
    assert [(f.first, f.seen) for f in outbox.failures.ranges()] == [(1, "unknown"), (2, "no")]


def test_what_outlived_its_time_at_a_peer_that_lost_it_is_ended_at_the_resume() -> None:
    outbox = an_outbox()
    outbox.append_entry(Entry(b"x", expires=5.0))
    outbox.append_entry(Entry(b"y", expires=5.0))
    assert outbox.next_expiry == 5.0
    pulled(outbox)
    outbox.expire(6.0)
    assert outbox.next_expiry is None
    assert outbox.failures.ranges() == []
    outbox.resume(1)
    outbox.expire_overdue()
    assert [(f.first, f.last, f.outcome) for f in outbox.failures.ranges()] == [(2, 2, Outcome.EXPIRED)]
    assert outbox.acknowledge(1, 1) == (0, 1)
    assert outbox.ledger.read == 1


def test_a_message_past_its_time_is_not_begun_even_if_nobody_looked() -> None:
    outbox = an_outbox()
    outbox.append_entry(Entry(b"x", expires=5.0))
    assert [message.skip for message in messages(outbox, now=5.0)] == [SkipReason.EXPIRED]


def test_overdue_sequences_are_forgotten_when_they_are_read() -> None:
    outbox = an_outbox()
    for _ in range(3):
        outbox.append_entry(Entry(b"x", expires=5.0))
    pulled(outbox)
    outbox.expire(6.0)
    outbox.acknowledge(3, 2)
    assert outbox.overdue == {3}
    assert outbox.reject(3, 0, "")
    assert outbox.overdue == set()


def test_times_to_live_of_what_was_read_are_forgotten() -> None:
    outbox = an_outbox()
    outbox.append(b"stays behind", raw=True)
    for number in range(1000):
        outbox.append_entry(Entry(b"x", expires=1000.0 + number))
        pulled(outbox)
        outbox.acknowledge(outbox.next - 1, outbox.next - 2)
    assert len(outbox._ttl) <= 64 + 2 * 2
    assert outbox.next_expiry is not None


@pytest.mark.parametrize("special", [False, True], ids=["simple", "special"])
def test_the_places_of_what_was_read_are_given_back(special: bool) -> None:
    outbox = an_outbox()
    for _ in range(2000):
        if special:
            outbox.append_entry(Entry(b"x"))
        else:
            outbox.append(b"x", raw=True)
    pulled(outbox)
    for read in range(1, 2001):
        outbox.acknowledge(read, read)
        retained = 2000 - read
        assert outbox.cost == 65 * retained
        assert len(outbox.entries) <= max(2 * retained + 1, retained + 256)
    assert outbox.entries == []
    outbox.append(b"y", raw=True)
    assert [message.payload for message in messages(outbox)] == [b"y"]


def test_an_acknowledgement_of_more_than_was_sent_on_this_connection_moves_the_cursor() -> None:
    outbox = an_outbox()
    for number in range(5):
        outbox.append(b"%d" % number, raw=True)
    pulled(outbox)
    outbox.resume(0)
    assert outbox.acknowledge(3, 2) == (3, 2)
    assert [message.payload for message in messages(outbox)] == [b"3", b"4"]


def test_a_message_that_is_half_sent_when_it_is_acknowledged_is_sent_to_its_end_and_the_cursor_moves_then() -> None:
    outbox = an_outbox(frame=FRAME)
    for number in range(4):
        outbox.append_entry(Entry(filled(f"{number}.", 2 * FRAME)))
    pulled(outbox)
    outbox.resume(0)
    receiver = Receiver(0, FRAME, PLENTY, PLENTY)
    out: list[bytes | memoryview] = []
    outbox.pull(out, 1, 0.0)
    assert receiver.feed(b"".join(out)) == []
    outbox.acknowledge(3, 2)
    out = []
    outbox.pull(out, 1, 0.0)
    outbox.pull(out, 1, 0.0)
    assert [message.sequence for message in receiver.feed(b"".join(out))] == [1]
    assert outbox.cursor == 4
    outbox.acknowledge(3, 2)
    assert outbox.first == 3


def test_the_newest_64_runs_are_remembered() -> None:
    outbox = an_outbox()
    runs = [RUN, *(number.to_bytes(16, "big") for number in range(1, 70))]
    for run in runs[1:]:
        outbox.append(b"x", raw=True)
        outbox.begin_run(run)
    outbox.append(b"x", raw=True)
    assert outbox.facts().runs == {run: last for last, run in enumerate(runs, 1) if last > 70 - 64}


def test_a_message_that_moves_twice_keeps_its_first_name() -> None:
    outbox = an_outbox()
    outbox.append(b"one", raw=True)
    outbox.rename(outbox_id(2), mark=False)
    outbox.rename(outbox_id(3), mark=False)
    outbox.append_entry(Entry(b"two", encode_map({"k": 1})))
    outbox.rename(outbox_id(4), mark=True)
    outbox.append(b"three", raw=True)
    outbox.attach(FRAME, PLENTY, PLENTY)
    assert [message.headers for message in messages(outbox)] == [
        {"id": outbox_id(1) + (1).to_bytes(8, "big")},
        {"k": 1, "id": outbox_id(3) + (2).to_bytes(8, "big")},
        {},
    ]


def test_names_of_earlier_outboxes_are_forgotten_with_their_messages() -> None:
    outbox = an_outbox()
    for number in range(2, 10):
        outbox.append(b"x", raw=True)
        outbox.rename(outbox_id(number), mark=False)
    assert len(outbox.origins) == 8
    outbox.attach(FRAME, PLENTY, PLENTY)
    pulled(outbox)
    outbox.acknowledge(8, 8)
    assert outbox.origins == []


def test_a_finished_outbox_starts_again_without_its_fin() -> None:
    outbox = an_outbox()
    outbox.append(b"x", raw=True)
    outbox.ledger.accepted = 1
    assert outbox.append_fin() == 2
    assert outbox.unread == 1
    outbox.finish(Outcome.ABANDONED, "over")
    outbox.rename(outbox_id(2), mark=False)
    assert (outbox.fin, outbox.first, outbox.next, outbox.cost) == (0, 3, 3, 0)


def test_a_failure_knows_whether_the_peer_may_have_seen_the_message() -> None:
    outbox = an_outbox(frame=FRAME)
    outbox.append(b"whole", raw=True)
    outbox.append_entry(Entry(bytes(2 * FRAME)))
    outbox.append(b"never", raw=True)
    out: list[bytes | memoryview] = []
    outbox.pull(out, 50, 0.0)
    assert outbox.fragment
    outbox.finish(Outcome.EXPIRED, "late")
    assert [(f.first, f.last, f.seen) for f in outbox.failures.ranges()] == [(1, 2, "unknown"), (3, 3, "no")]
    assert outbox.ended_early(3) == Failure(3, 3, Outcome.EXPIRED, "late", "no")
    assert outbox.ended_early(4) is None
    assert outbox.fragment == 0


def test_an_outbox_may_begin_anywhere() -> None:
    outbox = an_outbox()
    outbox.restart_at(1000)
    assert (outbox.first, outbox.next, outbox.read, outbox.all_read) == (1000, 1000, 999, True)
    assert outbox.append(b"x", raw=True) == 1000
    assert [message.sequence for message in messages(outbox)] == [1000]


def test_numbers_that_are_given_anew_carry_nothing_of_those_who_had_them() -> None:
    """A disk that fails takes messages back: their ends, times and names go with them."""
    outbox = an_outbox()
    outbox.append_entry(Entry(b"written", expires=30.0))
    outbox.sendable = 1
    for expires in (5.0, None, 7.0):
        outbox.append_entry(Entry(b"x", expires=expires))
    outbox.append_fin()
    outbox.ledger.accepted = 4
    assert outbox.cancel(3)
    outbox.rename(outbox_id(2), mark=False)
    assert outbox.withdraw(1) == 3
    assert (outbox.next, outbox.fin, outbox.cost, outbox.ledger.accepted, outbox.ledger.cancelled) == (2, 0, 71, 1, 0)
    outbox.expire(10.0)
    assert outbox.append(b"two", raw=True) == 2
    assert outbox.append(b"three", raw=True) == 3
    outbox.expire(20.0)
    assert outbox.failures.ranges() == []
    assert outbox.next_expiry == 30.0
    outbox.sendable = 3
    outbox.attach(FRAME, PLENTY, PLENTY)
    first, *rest = messages(outbox)
    assert first.headers == {"id": outbox_id(1) + (1).to_bytes(8, "big")}
    assert [(message.payload, message.headers) for message in rest] == [(b"two", {}), (b"three", {})]


def test_what_has_ended_and_is_gone_keeps_its_number_whatever_the_disk_does() -> None:
    outbox = an_outbox()
    outbox.sendable = 0
    outbox.append(b"x", raw=True)
    outbox.append(b"y", raw=True)
    outbox.finish(Outcome.ABANDONED, "over")
    assert outbox.withdraw(0) == 0
    assert (outbox.first, outbox.next) == (3, 3)
    assert outbox.ledger.abandoned == 2
