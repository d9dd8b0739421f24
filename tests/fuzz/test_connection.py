"""Machine: a live connection, and after it the next, on which the peer sends every kind of frame in every order.

The model is the receiver's half of the specification, frame by frame: what is taken, what is dropped, what is ignored,
and what closes the connection, with which code.  Credit is not its subject: there is plenty.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from networkio_proto import CloseCode, Config, Limits
from tests.fuzz.profiles import machine
from tests.proto import helpers_wire as wire
from tests.proto.helpers_wire import ACK_NOW, CONTINUED, HEADERS, MORE, RAW, REDELIVERED, Line, Node, Peer

MESSAGE = 20_000
CONFIG = Config(limits=Limits(frame=8192, message=MESSAGE), window=1 << 22, window_max=1 << 22)
LAST = 2**63 - 1

PROTOCOL, TOO_LARGE, ABUSE = CloseCode.PROTOCOL, CloseCode.TOO_LARGE, CloseCode.ABUSE

#: how far from the expected one
offsets = st.sampled_from((0, 0, 0, 0, 0, 0, -1, 1, -5, 5))


class Fault(Exception):
    """The specification has the connection closed with this code."""

    def __init__(self, code: CloseCode) -> None:
        self.code = code


@dataclass
class Receiver:
    """What came of the peer's outbox, by the specification."""

    expected: int = 1
    fin: int = 0
    #: the last sequence that there is was taken
    exhausted: bool = False
    #: a message whose fragments are coming: sequence, bytes still missing, payload, flags
    midst: tuple[int, int, bytes, int] | None = None
    #: what the application can read: sequence, payload, redelivered
    messages: list[tuple[int, bytes, bool]] = field(default_factory=list)
    gaps: list[tuple[int, int]] = field(default_factory=list)

    def data(self, sequence: int, flags: int, payload: bytes, total: int | None, headers: bytes | None) -> None:
        if flags & CONTINUED:
            if self.midst is None or self.midst[0] != sequence or flags & ~(MORE | CONTINUED) or not payload:
                raise Fault(PROTOCOL)
            _, missing, so_far, first = self.midst
            missing -= len(payload)
            if missing < 0 or (missing == 0) == bool(flags & MORE):
                raise Fault(PROTOCOL)
            self.midst = (sequence, missing, so_far + payload, first) if missing else None
            if not missing:
                self.take(sequence, so_far + payload, first)
            return
        if flags & ~(MORE | REDELIVERED | ACK_NOW | HEADERS | RAW) or self.midst is not None:
            raise Fault(PROTOCOL)
        size = (len(headers) if headers is not None else 0) + len(payload) if total is None else total
        if size > MESSAGE + 64:
            raise Fault(TOO_LARGE)
        if sequence > self.expected or not sequence or (sequence == self.expected and self.fin) or self.exhausted:
            raise Fault(PROTOCOL)
        if total is None:
            self.take(sequence, payload, flags)
            return
        missing = total - len(payload) - (len(headers) if headers is not None else 0)
        if missing <= 0:
            raise Fault(PROTOCOL)
        self.midst = (sequence, missing, payload, flags)

    def take(self, sequence: int, payload: bytes, flags: int) -> None:
        if sequence == self.expected:
            self.exhausted = sequence == LAST
            self.expected += 1
            self.messages.append((sequence, payload, bool(flags & REDELIVERED)))

    def skip(self, first: int, last: int) -> None:
        if self.midst is not None or first < 1 or last > LAST or last < first:
            raise Fault(PROTOCOL)
        if first > self.expected or (self.fin and last > self.fin) or self.exhausted:
            raise Fault(PROTOCOL)
        if last >= self.expected:
            self.exhausted = last == LAST
            self.gaps.append((self.expected, last))
            self.expected = last + 1

    def end(self, sequence: int) -> None:
        if self.midst is not None or not 1 <= sequence <= LAST or sequence > self.expected or self.exhausted:
            raise Fault(PROTOCOL)
        if sequence == self.expected:
            if self.fin:
                raise Fault(PROTOCOL)
            self.fin, self.expected = sequence, sequence + 1


class OneConnection(RuleBasedStateMachine):
    """A node, its peer, and one connection at a time, which lives until the peer breaks a rule."""

    @initialize(first=st.sampled_from((1, 1, 7, LAST - 2)))
    def begin(self, first: int) -> None:
        self.node, self.peer, self.first = Node(config=CONFIG), Peer(), first
        self.model = Receiver(first)
        self.line: Line = self.connect()
        self.taken = 0
        self.told_gaps: list[tuple[int, int]] = []

    def connect(self) -> Line:
        """A connection; what was incomplete on the one before is forgotten (P-DATA-17)."""
        self.model.midst = None
        line = self.node.connect(self.peer, first=self.first, next=min(self.model.expected, LAST),
                                 seen=self.node.session(self.peer).arbitration.generation)  # fmt: skip
        line.raw()
        return line

    @precondition(lambda self: not self.line.live)
    @rule()
    def reconnect(self) -> None:
        self.line = self.connect()

    @rule()
    def cut(self) -> None:
        self.line.lose()
        self.line = self.connect()

    @property
    def session_inbox(self) -> tuple[int, int]:
        inbox = self.node.session(self.peer).inbox
        assert inbox is not None
        return inbox.received + 1, inbox.fin

    def say(self, frame: bytes, code: CloseCode | None, chunk: int = 1 << 30) -> None:
        """The node must do as the model did."""
        self.line.say(frame, chunk=chunk)
        if code is None:
            assert self.line.live, self.line.connection.error
        else:
            assert self.line.farewell() is code

    # DATA

    @precondition(lambda self: self.line.live)
    @rule(
        offset=offsets,
        size=st.sampled_from((0, 1, 100, 8000)),
        flags=st.sampled_from((0, RAW, RAW, RAW | ACK_NOW, RAW | REDELIVERED, REDELIVERED, 0x20, 0x80)),
        chunk=st.sampled_from((1 << 30, 1 << 30, 11)),
    )
    def whole(self, offset: int, size: int, flags: int, chunk: int) -> None:
        self.play_data(offset, flags, bytes(size), None, None, chunk)

    @precondition(lambda self: self.line.live)
    @rule(offset=offsets, headers=st.sampled_from(({}, {"k": [1, {"x": None}]}, {"id": b"o" * 24}, {"z" * 40: "v"})))
    def with_headers(self, offset: int, headers: dict[str, object]) -> None:
        self.play_data(offset, RAW, b"payload", None, headers)

    @precondition(lambda self: self.line.live)
    @rule(
        packed=st.sampled_from((b"", b"\x80\x80", b"\xa1x", b"\x81\x01\x02", bytes.fromhex("82a16101a16102"),
                                bytes.fromhex("81a16bff"), bytes.fromhex("81a26964c410") + bytes(16)))
    )  # fmt: skip
    def with_bad_headers(self, packed: bytes) -> None:
        """P-MAP-9, P-DATA-23, P-DATA-27: whether it is new or not."""
        sequence = min(self.model.expected, LAST)
        body = sequence.to_bytes(8, "big") + len(packed).to_bytes(2, "big") + packed + b"payload"
        self.say(wire.frame(wire.DATA, body, RAW | HEADERS), PROTOCOL)

    @precondition(lambda self: self.line.live)
    @rule(offset=offsets, total=st.sampled_from((0, 1, 2, 3, 900, 8001, MESSAGE, MESSAGE + 64, MESSAGE + 65)),
          size=st.sampled_from((0, 1, 2, 300, 8000)), flags=st.sampled_from((RAW, RAW | ACK_NOW, REDELIVERED)),
          headers=st.sampled_from((None, None, {"k": 1})))  # fmt: skip
    def first_fragment(self, offset: int, total: int, size: int, flags: int, headers: dict[str, object] | None) -> None:
        self.play_data(offset, flags | MORE, bytes(size), total, headers)

    @precondition(lambda self: self.line.live)
    @rule(size=st.sampled_from((0, 1, 300, 8000)), flags=st.sampled_from((0, 0, 0, 0, RAW, ACK_NOW)),
          strange=st.booleans())  # fmt: skip
    def next_fragment(self, size: int, flags: int, strange: bool) -> None:
        """One that fits, or of that size."""
        midst = self.model.midst
        sequence = self.model.expected if midst is None else midst[0]
        if midst is not None and not strange:
            size, flags = min(midst[1], size or 1), 0
            flags = MORE if size < midst[1] else 0
        self.play_data(sequence - self.model.expected, flags | CONTINUED, bytes(size), None, None)

    @precondition(lambda self: self.line.live and self.model.midst is not None)
    @rule()
    def last_fragments(self) -> None:
        """The rest of the message, as a sender would send it."""
        while self.model.midst is not None and self.line.live:
            self.next_fragment(8000, 0, False)

    def play_data(
        self,
        offset: int,
        flags: int,
        payload: bytes,
        total: int | None,
        headers: dict[str, object] | None,
        chunk: int = 1 << 30,
    ) -> None:
        sequence = max(0, self.model.expected + offset)
        packed = None if headers is None else wire.mapping(headers)
        frame = wire.data(sequence, payload, flags, total=total, headers=headers)
        code = PROTOCOL if sequence > LAST else None
        if code is None:
            try:
                self.model.data(sequence, flags | (HEADERS if packed is not None else 0), payload, total, packed)
            except Fault as fault:
                code = fault.code
        self.say(frame, code, chunk)

    # the others

    @precondition(lambda self: self.line.live)
    @rule(offset=offsets, count=st.sampled_from((1, 1, 2, 5, 0, LAST)), reason=st.sampled_from((1, 2, 6, 0, 99)))
    def skip(self, offset: int, count: int, reason: int) -> None:
        first = max(0, self.model.expected + offset)
        last = max(0, min(first + count - 1, LAST))
        try:
            self.model.skip(first, last)
        except Fault as fault:
            self.say(wire.skip(first, last, reason), fault.code)
            return
        self.say(wire.skip(first, last, reason), None)

    @precondition(lambda self: self.line.live)
    @rule(offset=offsets)
    def fin(self, offset: int) -> None:
        sequence = max(0, self.model.expected + offset)
        try:
            self.model.end(sequence)
        except Fault as fault:
            self.say(wire.fin(sequence), fault.code)
            return
        self.say(wire.fin(sequence), None)

    @precondition(lambda self: self.line.live)
    @rule(opaque=st.integers(0, 2**64 - 1), chunk=st.sampled_from((1 << 30, 3)))
    def ping(self, opaque: int, chunk: int) -> None:
        self.line.raw()
        self.say(wire.ping(opaque), None, chunk)
        assert [item.u64() for item in self.line.heard() if item.kind == wire.PONG] == [opaque]

    @precondition(lambda self: self.line.live)
    @rule(frame=st.sampled_from((wire.pong(77), wire.frame(0x80), wire.frame(0xFF, b"x" * 99, 0xFF),
                                 wire.reject(b"?" * 16, 2**64 - 1))))  # fmt: skip
    def ignored(self, frame: bytes) -> None:
        self.say(frame, None)

    @precondition(lambda self: self.line.live)
    @rule(frame=st.sampled_from((wire.frame(wire.HELLO), wire.frame(wire.HELLO_ACK), wire.frame(wire.ATTACH),
                                 wire.frame(0x15), wire.frame(0x7F, b"x"), wire.frame(wire.PING, bytes(8), 1),
                                 wire.frame(wire.ACK, bytes(32), 0x80), wire.frame(wire.PING, bytes(7)),
                                 bytes(6), wire.ack(1, 0), wire.ack(0, 1), wire.ack(0, 0, first=LAST))))  # fmt: skip
    def forbidden(self, frame: bytes) -> None:
        if frame == wire.ack(0, 0, first=LAST) and self.model.expected >= LAST:
            return
        self.say(frame, PROTOCOL)

    @precondition(lambda self: self.line.live)
    @rule()
    def flood(self) -> None:
        """P-ABUSE-1: 256 at once are borne, not more."""
        self.line.say(*[wire.frame(0x80)] * 258)
        assert self.line.farewell() is ABUSE

    @rule(frame=st.sampled_from((wire.data(1), wire.ping(), wire.fin(1), wire.frame(0x55))))
    def after_the_end(self, frame: bytes) -> None:
        if not self.line.live:
            self.line.raw()
            self.line.say(frame)
            assert self.line.raw() == b""

    # the application

    @rule(limit=st.sampled_from((1, 3, 100)))
    def read(self, limit: int) -> None:
        for _, sequence, payload, _, details in self.node.session(self.peer).take_settled(limit, self.node.now):
            assert (sequence, payload, details is not None and details.redelivered) == self.model.messages[self.taken]
            self.taken += 1
            for gap in details.gap if details is not None else ():
                assert gap.last < sequence
                self.told_gaps.append((gap.first, gap.last))

    @invariant()
    def both_know_the_same(self) -> None:
        session = self.node.session(self.peer)
        assert self.session_inbox == (self.model.expected, self.model.fin)
        assert session.unread == len(self.model.messages) - self.taken
        if not self.line.live:
            assert session.unsettled == sum(64 + len(message[2]) for message in self.unread())

    def unread(self) -> list[tuple[int, int, bytes]]:
        session = self.node.session(self.peer)
        return [(0, 0, bytes(len(item[2]) + (item[4].headers_size if item[4] else 0)))
                for box in session.inboxes for item in box.ready]  # fmt: skip

    def teardown(self) -> None:
        self.read(1 << 30)
        assert self.taken == len(self.model.messages)
        covered = [sequence for first, last in self.told_gaps for sequence in (first, last)]
        assert covered == sorted(covered)


pytestmark = pytest.mark.slow
TestOneConnection = OneConnection.TestCase
TestOneConnection.settings = machine(examples=60, steps=40)
