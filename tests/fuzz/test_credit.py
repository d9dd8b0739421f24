"""Machines: credit and windows, once at the sender and once at the receiver, against the arithmetic of P-CRED."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from networkio_proto import CloseCode, Config, Delivery, Limits, Outcome
from tests.fuzz.profiles import machine
from tests.proto import helpers_wire as wire
from tests.proto.helpers import Frame
from tests.proto.helpers_wire import Line, Node, Peer

sizes = st.sampled_from((0, 1, 64, 500, 2049, 9000))


class Sender(RuleBasedStateMachine):
    """The node sends whatever the credit allows, at once, and not a message more."""

    @initialize(credit=st.sampled_from((0, 1, 64, 65, 1000, 50_000)))
    def begin(self, credit: int) -> None:
        self.node, self.peer = Node(config=Config(limits=Limits(frame=8192))), Peer()
        self.peer.limits = {**self.peer.limits, "frame": 8192}
        self.session = self.node.session(self.peer)
        #: cost of every sequence, and what was cancelled
        self.costs: dict[int, int] = {}
        self.cancelled: set[int] = set()
        self.received = self.read = 0
        self.connect(credit)

    @rule(credit=st.sampled_from((0, 1, 64, 65, 1000, 50_000)))
    def connect(self, credit: int) -> None:
        outbox = self.session.outbox
        inbox = None
        if self.received:
            inbox = {"outbox": outbox.outbox_id, "run": outbox.run, "received": self.received, "read": self.read,
                     "first": 1}  # fmt: skip
        self.used, self.credit, self.cursor = 0, credit, self.received + 1
        seen = self.session.arbitration.generation
        self.line: Line = self.node.connect(self.peer, credit=credit, inbox=inbox, seen=seen)
        self.look()

    @precondition(lambda self: not self.session.ending)
    @rule(size=sizes)
    def send(self, size: int) -> None:
        sequence = self.session.send(bytes(size), self.node.now, raw=True)
        self.costs[sequence] = 64 + size
        self.node.pump()
        self.look()

    @precondition(lambda self: self.costs)
    @rule(back=st.integers(0, 5))
    def cancel(self, back: int) -> None:
        sequence = max(1, len(self.costs) - back)
        if self.session.cancel(sequence, self.node.now):
            assert sequence >= self.cursor, "the peer may have it"
            self.cancelled.add(sequence)
        self.node.pump()
        self.look()

    @precondition(lambda self: not self.session.ending)
    @rule(chance=st.integers(0, 9))
    def end(self, chance: int) -> None:
        if not chance:
            self.session.end(self.node.now)
            self.costs[len(self.costs) + 1] = 64
            self.node.pump()
            self.look()

    @rule(more=st.sampled_from((-100, 0, 1, 63, 64, 65, 1000, 20_000)), settled=st.integers(0, 3))
    def acknowledge(self, more: int, settled: int) -> None:
        """Values that are not greater than what is known mean nothing (P-ACK-1)."""
        self.received = self.cursor - 1
        self.read = min(self.received, self.read + settled)
        told = max(0, self.used + more)
        self.credit = max(self.credit, told)
        self.line.say(wire.ack(self.received, self.read, told))
        self.look()

    def look(self) -> None:
        """Everything that the node said since the last look was covered, and what it did not say was not."""
        for item in self.line.heard():
            if item.kind == wire.SKIP:
                first, last = item.u64(), item.u64(1)
                assert first == self.cursor
                assert set(range(first, last + 1)) <= self.cancelled
                self.spend(64, last)
            elif item.kind in (wire.DATA, wire.FIN) and not item.flags & wire.CONTINUED:
                assert item.u64() == self.cursor
                assert self.cursor not in self.cancelled
                self.spend(self.costs[self.cursor], self.cursor)
        assert self.line.live
        assert self.cursor > len(self.costs) or self.used >= self.credit, "it could send, and does not"

    def spend(self, cost: int, last: int) -> None:
        assert self.used < self.credit, "begun without credit"
        self.used += cost
        self.cursor = last + 1

    @invariant()
    def outcomes_follow_the_acknowledgements(self) -> None:
        for sequence in range(1, len(self.costs) + 1 - self.session.ending):
            expected = Outcome.CANCELLED if sequence in self.cancelled else None
            if expected is None and sequence <= self.read:
                expected = Outcome.READ
            assert self.session.outcome(sequence) is expected


WINDOW = Config(
    limits=Limits(frame=8192), window=5000, window_guaranteed=2000, window_max=20_000, inbox_budget=9000, ack_messages=5
)


class Receiver(RuleBasedStateMachine):
    """The node grants what its window leaves, and closes the connection of whoever takes more."""

    @initialize()
    def begin(self) -> None:
        self.node, self.peer = Node(config=WINDOW), Peer()
        self.session = self.node.session(self.peer)
        self.next = self.first = 1
        #: cost by sequence of what came and is not settled, rejections that the peer has not passed included
        self.unsettled: dict[int, int] = {}
        self.rejected: set[int] = set()
        self.held: list[Delivery] = []
        self.connect()

    @rule()
    def connect(self) -> None:
        self.passed()
        seen = self.session.arbitration.generation
        self.line: Line = self.node.connect(self.peer, first=self.first, next=self.next, seen=seen)
        self.used, self.credit = 0, -1
        self.look()

    def passed(self) -> None:
        """The peer states its ``first``: what it rejects no more is settled."""
        for sequence in [sequence for sequence in self.rejected if sequence < self.first]:
            self.rejected.discard(sequence)
            del self.unsettled[sequence]

    @rule(size=sizes)
    def data(self, size: int) -> None:
        if self.used >= self.credit:
            self.line.say(wire.data(self.next, bytes(min(size, 8000))))
            assert self.line.farewell() is CloseCode.FLOW
            self.connect()
            return
        self.used += 64 + size
        self.unsettled[self.next] = 64 + size
        frames = [wire.data(self.next, bytes(size))]
        if size > 8000:
            frames = [wire.data(self.next, bytes(8000), total=size),
                      wire.data(self.next, bytes(size - 8000), wire.CONTINUED)]  # fmt: skip
        self.next += 1
        self.line.say(*frames)
        self.look()

    @precondition(lambda self: self.next > 1)
    @rule(size=sizes)
    def duplicate(self, size: int) -> None:
        """Its cost is used and comes back (P-CRED-5)."""
        if self.used < self.credit and size <= 8000:
            self.used += 64 + size
            self.line.say(wire.data(self.next - 1, bytes(size)))
            self.look()

    @rule()
    def skip(self) -> None:
        if self.used < self.credit:
            self.used += 64
            self.line.say(wire.skip(self.next, self.next))
            self.next += 1
            self.look()

    @rule(count=st.sampled_from((1, 3, 10)))
    def take(self, count: int) -> None:
        self.held += self.session.take(count)

    @precondition(lambda self: self.held)
    @rule(index=st.integers(0, 9), how=st.sampled_from(("ack", "ack", "reject", "release")))
    def settle(self, index: int, how: str) -> None:
        delivery = self.held.pop(index % len(self.held))
        if how == "release":
            self.session.release(delivery, self.node.now)
            return
        self.session.settle(delivery, self.node.now, reject=(7, "no") if how == "reject" else None)
        if how == "ack" or delivery[1] < self.first:
            del self.unsettled[delivery[1]]
        else:
            self.rejected.add(delivery[1])
        self.node.pump()
        self.look()

    @rule(passes=st.booleans())
    def reject_next(self, passes: bool) -> None:
        """Its cost is held until the sender's first has passed it (P-REJECT-6)."""
        for delivery in self.session.take(1):
            self.held.append(delivery)
            self.settle(len(self.held) - 1, "reject")
        if passes:
            self.first_passes()

    @rule()
    def read(self) -> None:
        for delivery in self.session.take_settled(100, self.node.now):
            del self.unsettled[delivery[1]]
        self.node.pump()
        self.look()

    @rule()
    def first_passes(self) -> None:
        """The sender's first passes everything that was read or rejected."""
        inbox = self.session.inbox
        assert inbox is not None
        if inbox.read + 1 > self.first:
            self.first = inbox.read + 1
            self.passed()
            self.line.say(wire.ack(0, 0, 1 << 20, self.first))
            self.look()

    @rule(seconds=st.sampled_from((0.001, 0.03, 1.0)))
    def wait(self, seconds: float) -> None:
        self.node.advance(seconds)
        self.look()
        if seconds >= 0.03:
            assert self.credit >= self.due(), "the credit that is due was not told"

    def due(self) -> int:
        return max(0, self.used + self.session.window.size - sum(self.unsettled.values()))

    def look(self) -> None:
        """What the node granted is what the formula says."""
        assert self.line.live, self.line.connection.error
        for item in self.line.heard():
            told = self.granted(item)
            if told is not None:
                assert told == max(self.credit, self.due())
                self.credit = told

    def granted(self, item: Frame) -> int | None:
        if item.kind == wire.ATTACH:
            facts = msgpack.unpackb(item.body)
            return int(facts["credit"])
        return item.u64(2) if item.kind == wire.ACK else None

    @invariant()
    def the_window_is_within_its_bounds(self) -> None:
        window = self.session.window
        assert WINDOW.window_guaranteed <= window.size <= WINDOW.window_max
        assert window.size - WINDOW.window_guaranteed <= WINDOW.inbox_budget
        assert self.node.endpoint.inbox_reserved == window.reserved <= WINDOW.inbox_budget
        assert self.session.unsettled == sum(self.unsettled.values())


pytestmark = pytest.mark.slow
TestSender, TestReceiver = Sender.TestCase, Receiver.TestCase
TestSender.settings = TestReceiver.settings = machine(examples=40, steps=40)
