"""Machine: a sender whose peer is cut off, dies, forgets, comes back from an old copy, or has dropped the session.

The model of the outbox is a dictionary of what has no outcome yet, and three numbers; of the peer, what it says that it
holds.  After every resume the node's frames must be those that the verdict of the specification names (P-RES-11), with
REDELIVERED on those that a dead process may have seen (P-MARK), and on no other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from struct import unpack_from
from typing import Any

import msgpack
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from networkio_proto import CloseCode, Config, Limits, Outcome
from tests.fuzz.profiles import machine
from tests.proto import helpers_wire as wire
from tests.proto.helpers import Frame
from tests.proto.helpers_wire import Line, Node, Peer

FORGOT, NORMAL, HOLE, ROLLED_BACK, ENDED = "AE", "B", "D", "C", "G"
_WHY = {1: Outcome.EXPIRED, 2: Outcome.EXPIRED, 3: Outcome.ABANDONED, 9: Outcome.EXPIRED}


@dataclass
class Outbox:
    """What the sender must know, by the specification."""

    name: bytes
    #: payload of each sequence without an outcome
    messages: dict[int, bytes] = field(default_factory=dict)
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    next: int = 1
    first: int = 1
    received: int = 0
    #: the highest ever transmitted, and to whom
    sent: int = 0
    receiver: int = 0
    durable: bool = False
    #: must go out flagged; and what has an older name
    marked: set[int] = field(default_factory=set)
    names: dict[int, tuple[bytes, int]] = field(default_factory=dict)

    def settle(self, through: int, outcome: Outcome) -> None:
        for sequence in [sequence for sequence in self.messages if sequence <= through]:
            del self.messages[sequence]
            self.outcomes[sequence] = outcome
        self.first = max(self.first, through + 1)

    def mark(self, sequences: range) -> None:
        self.marked |= {sequence for sequence in sequences if sequence in self.messages}


class Resume(RuleBasedStateMachine):
    """The node sends everything at once: credit is plenty, and the stream is never blocked."""

    @initialize(first=st.integers(0, 3))
    def begin(self, first: int) -> None:
        self.node = Node(config=Config(limits=Limits(frame=8192), window=1 << 20))
        self.session = self.node.session("a")
        self.model = Outbox(self.session.outbox.outbox_id)
        self.life = 1
        self.peer = Peer(life=1)
        self.line: Line | None = None
        for _ in range(first):
            self.send(10)

    @property
    def live(self) -> bool:
        return self.line is not None and self.line.live

    # -- while it lives -------------------------------------------------------------------------------------------

    @rule(size=st.sampled_from((0, 10, 10, 2049, 9000)))
    def send(self, size: int) -> None:
        model, payload = self.model, b"%d." % self.model.next + bytes(size)
        assert self.session.send(payload, self.node.now, raw=True) == model.next
        model.messages[model.next] = payload
        model.next += 1
        self.node.pump()
        if self.live:
            self.expect(range(model.next - 1, model.next))

    @precondition(lambda self: self.live)
    @rule(received=st.integers(0, 3), read=st.integers(0, 3))
    def acknowledge(self, received: int, read: int) -> None:
        """The peer holds, and has read, so many more."""
        model = self.model
        model.received = min(model.next - 1, model.received + received)
        read = min(model.received, model.first - 1 + read)
        assert self.line is not None
        self.line.say(wire.ack(model.received, read, 1 << 30))
        assert self.line.live
        model.settle(read, Outcome.READ)

    @precondition(lambda self: self.live)
    @rule()
    def cut(self) -> None:
        assert self.line is not None
        self.line.lose()

    # -- and when it comes back -----------------------------------------------------------------------------------

    def inbox(self, received: int, read: int, **changes: Any) -> dict[str, Any]:
        return {"outbox": self.model.name, "run": self.session.outbox.run, "received": received, "read": read,
                "first": 1, **changes}  # fmt: skip

    @rule(more=st.integers(0, 3), read=st.integers(0, 3), durable=st.booleans())
    def same_process(self, more: int, read: int, durable: bool) -> None:
        """It holds what was under way when the connection was lost, or a part of that (case B)."""
        model = self.model
        received = min(max(model.sent, model.received), model.received + more)
        read = min(received, model.first - 1 + read)
        self.resume(NORMAL, received, read, self.life, durable, inbox=self.inbox(received, read))

    @rule(durable=st.booleans(), more=st.integers(0, 2))
    def new_process_over_its_journal(self, durable: bool, more: int) -> None:
        """Everything that it stated is still there (case B); it need not say the same about itself as before."""
        model = self.model
        received = min(max(model.sent, model.received), model.received + more)
        self.resume(NORMAL, received, model.first - 1, self.life + 1, durable,
                    inbox=self.inbox(received, model.first - 1))  # fmt: skip

    @rule(durable=st.booleans(), same=st.booleans(), other=st.booleans())
    def forgot(self, durable: bool, same: bool, other: bool) -> None:
        """Nothing is left, or something of another outbox (cases A and E)."""
        inbox = self.inbox(3, 2, outbox=b"?" * 16) if other else None
        first = self.model.first
        self.resume(FORGOT, first - 1, first - 1, self.life + (not same), durable, inbox=inbox)

    @rule(less=st.integers(1, 3), durable=st.booleans(), same=st.booleans())
    def old_copy(self, less: int, durable: bool, same: bool) -> None:
        """It holds less than it once said, perhaps less than what was read (cases B and D)."""
        model = self.model
        received = max(0, model.received - less)
        case = HOLE if received < model.first - 1 else NORMAL
        self.resume(case, received, min(received, model.first - 1), self.life + (not same), durable,
                    inbox=self.inbox(received, min(received, model.first - 1)))  # fmt: skip

    @rule(how=st.sampled_from(("run", "received", "first")), durable=st.booleans())
    def sender_was_rolled_back(self, how: str, durable: bool) -> None:
        """What it holds was never sent by a process that this one knows of (case C)."""
        model = self.model
        changes: dict[str, Any] = {"run": b"unknown" + bytes(9)} if how == "run" else {}
        received = model.next + 5 if how == "received" else model.received
        if how == "first":
            changes = {"first": model.first + 1}
        inbox = self.inbox(received, min(received, model.first - 1), **changes)
        self.resume(ROLLED_BACK, 0, 0, self.life, durable, inbox=inbox)

    @rule(read=st.integers(0, 2), more=st.integers(0, 2), why=st.sampled_from(sorted(_WHY)), inbox=st.booleans())
    def dropped_the_session(self, read: int, more: int, why: int, inbox: bool) -> None:
        """It says how far it came, and why no further (case G)."""
        model = self.model
        received = min(max(model.sent, model.received), model.received + more)
        read = min(received, model.first - 1 + read)
        ended = [{**self.inbox(received, read), "why": why}]
        present = self.inbox(1, 1, outbox=b"?" * 16) if inbox else None
        self.resume(ENDED, received, read, self.life, False, inbox=present, ended=ended, why=why)

    @rule(inbox=st.booleans())
    def claims_what_was_never_sent(self, inbox: bool) -> None:
        """P-RES-18: of the present run, and above the bound."""
        if self.live or not max(self.model.received, self.model.first - 1, self.model.sent) < self.model.next - 1:
            return
        claim = self.inbox(self.model.next - 1, 0)
        facts = {"inbox": claim} if inbox else {"ended": [{**claim, "why": 2}]}
        line = self.node.claim(self.peer)
        seen = self.session.arbitration.generation
        line.say(self.peer.attach("m", seen=seen, **facts))
        assert line.farewell() is CloseCode.PROTOCOL

    def resume(
        self, case: str, received: int, read: int, life: int, durable: bool, *, why: int = 0, **facts: Any
    ) -> None:
        """A new connection; the model judges first."""
        if self.live:
            self.cut()
        model, position = self.model, self.judge(case, received, read, life, durable, why)
        if life != self.life:
            self.life, self.peer = life, Peer(life=1 + life % 60)
        seen = self.session.arbitration.generation
        self.line = self.node.accept()
        self.line.say(wire.PREAMBLE, self.peer.hello(), self.peer.attach("m", seen=seen, credit=1 << 30,
                                                                          durable=durable, **facts))  # fmt: skip
        assert self.line.live, self.line.connection.error
        if case in (ROLLED_BACK, ENDED):
            model.name = self.session.outbox.outbox_id
        hole = range(received + 1, model.first) if case == HOLE else range(0)
        self.expect(range(position + 1, model.next), hole)

    def judge(self, case: str, received: int, read: int, life: int, durable: bool, why: int) -> int:
        """The verdict and the marks; returns the position after which the node goes on."""
        model = self.model
        echoed = case in (NORMAL, HOLE, ROLLED_BACK)
        position = received if echoed else model.first - 1
        if model.receiver and model.receiver != life and not (model.durable and echoed):
            model.mark(range(1, model.sent + 1))
        if position < model.received:
            model.mark(range(position + 1, model.received + 1))
        model.receiver, model.durable = life, durable
        if case == NORMAL:
            model.settle(read, Outcome.READ)
        elif case == ENDED:
            model.settle(read, Outcome.READ)
            model.settle(received, _WHY[why])
        elif case == ROLLED_BACK:
            model.mark(range(1, model.sent + 1))
        if case in (ENDED, ROLLED_BACK):
            for sequence in model.messages:
                model.names.setdefault(sequence, (model.name, sequence))
        model.received = received if case == NORMAL else model.first - 1
        return model.received

    # -- what is compared -----------------------------------------------------------------------------------------

    def expect(self, sequences: range, hole: range = range(0)) -> None:
        """These messages, in their order, and before them a SKIP of the hole."""
        assert self.line is not None
        model, heard = self.model, self.line.heard()
        for item in heard:
            if item.kind == wire.ATTACH:
                stated = msgpack.unpackb(item.body)
                assert (stated["outbox"], stated["first"], stated["next"]) == (model.name, model.first, model.next)
        skips = [unpack_from(">QQH", item.body) for item in heard if item.kind == wire.SKIP]
        assert skips == ([(hole.start, hole.stop - 1, 1)] if hole else [])
        came = _messages([item for item in heard if item.kind == wire.DATA])
        assert [message[0] for message in came] == [sequence for sequence in sequences if sequence in model.messages]
        for sequence, flags, headers, payload in came:
            assert payload == model.messages[sequence]
            flagged = bool(flags & wire.REDELIVERED)
            assert flagged or sequence not in model.marked, "a mark is missing"
            assert not flagged or sequence <= model.sent, "a first transmission is flagged"
            name = model.names.get(sequence)
            assert headers.get("id") == (None if name is None else name[0] + name[1].to_bytes(8, "big"))
        if came:
            model.sent = max(model.sent, came[-1][0])

    @invariant()
    def outcomes_agree(self) -> None:
        model, session = self.model, self.session
        assert {sequence: session.outcome(sequence) for sequence in range(1, model.next)} == {
            sequence: model.outcomes.get(sequence) for sequence in range(1, model.next)
        }
        assert session.ledger.unread == len(model.messages)
        assert session.outbox.cost == sum(64 + len(payload) for payload in model.messages.values())


def _messages(frames: list[Frame]) -> list[tuple[int, int, dict[str, Any], bytes]]:
    """Sequence, flags, headers and payload of what DATA frames carry."""
    found: list[tuple[int, int, dict[str, Any], bytes]] = []
    for item in frames:
        sequence, body = item.u64(), item.body[8:]
        if item.flags & wire.CONTINUED:
            last = found[-1]
            assert last[0] == sequence
            found[-1] = (*last[:3], last[3] + body)
            continue
        if item.flags & wire.MORE:
            body = body[4:]
        headers: dict[str, Any] = {}
        if item.flags & wire.HEADERS:
            size = int.from_bytes(body[:2], "big")
            headers, body = msgpack.unpackb(body[2 : 2 + size]), body[2 + size :]
        found.append((sequence, item.flags, headers, body))
    return found


pytestmark = pytest.mark.slow
TestResume = Resume.TestCase
TestResume.settings = machine(examples=50, steps=35)
