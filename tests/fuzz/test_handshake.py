"""Machine: a handshake in which the other side says the right thing, or one or several wrong ones, in any order.

The model is the table of states and the order of judgements of the specification (*States*, P-HELLO-2, P-HACK-1): it
says whether the node goes on, and else with which code it closes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from networkio_proto import CloseCode, ConnectionState
from tests.fuzz.profiles import machine
from tests.proto import helpers_wire as wire
from tests.proto.helpers_wire import MISSING, PREAMBLE, SMALL, Line, Node, Peer, fingerprint

PROTOCOL = CloseCode.PROTOCOL

#: what may be wrong with HELLO and HELLO_ACK: (rank in the order of judgement, key, value, code); the least rank counts
COMMON: list[tuple[int, str, Any, CloseCode]] = [
    *((2, key, MISSING, PROTOCOL) for key in ("id", "incarnation", "nonce", "features", "auth", "limits", "codec")),
    (2, "id", "not an id", PROTOCOL),
    (2, "id", "x" * 65, PROTOCOL),
    (2, "incarnation", b"short", PROTOCOL),
    (2, "nonce", "n" * 32, PROTOCOL),
    (2, "features", [1], PROTOCOL),
    (2, "auth", "x" * 65, PROTOCOL),
    (2, "limits", {"frame": 8191, "message": 1, "idle": 100}, PROTOCOL),
    (2, "limits", {"frame": 8192, "message": 0, "idle": 100}, PROTOCOL),
    (2, "limits", {"frame": 8192, "message": 1, "idle": 99}, PROTOCOL),
    (2, "codec", None, PROTOCOL),
    (3, "id", "m", CloseCode.SELF),
    (6, "auth", "psk", CloseCode.AUTH_FAILED),
    (7, "codec", "json", CloseCode.CODEC),
]
IN_HELLO = [
    *COMMON,
    *((2, key, MISSING, PROTOCOL) for key in ("to", "dial", "require", "key_id", "agent")),
    (0, "v", MISSING, PROTOCOL),
    (0, "v", [2, 1], PROTOCOL),
    (0, "v", 1, PROTOCOL),
    (1, "v", [2, 9], CloseCode.VERSION),
    (2, "dial", True, PROTOCOL),
    (4, "to", "somebody", CloseCode.WRONG_PEER),
    (5, "require", ["unknown"], CloseCode.VERSION),
]
IN_HELLO_ACK = [
    *COMMON,
    (2, "v", MISSING, PROTOCOL),
    (2, "v", [1, 1], PROTOCOL),
    (2.5, "v", 2, CloseCode.VERSION),
    (4, "id", "somebody", CloseCode.WRONG_PEER),
    (5, "features", ["unknown"], PROTOCOL),
]
IN_ATTACH: list[tuple[int, str, Any, CloseCode]] = [
    *((0, key, MISSING, PROTOCOL) for key in ("outbox", "run", "first", "next", "inbox", "ended", "durable", "credit")),
    (0, "first", 0, PROTOCOL),
    (0, "first", 2, PROTOCOL),  # beyond next
    (0, "next", 2**63, PROTOCOL),
    (0, "outbox", b"short", PROTOCOL),
    (0, "expiry", "never", PROTOCOL),
    (0, "inbox", {"outbox": bytes(16), "run": bytes(16), "received": 1, "read": 2, "first": 1}, PROTOCOL),
    (0, "ended", [{"outbox": bytes(16)}], PROTOCOL),
    (0, "ended", [{"outbox": bytes(16), "run": bytes(16), "received": 1, "read": 1, "first": 1, "why": 1}] * 17,
     PROTOCOL),
    (0, "generation", 1, PROTOCOL),  # the follower has none to send
    (1, "mac", b"m" * 32, CloseCode.AUTH_FAILED),
]  # fmt: skip

chunks = st.sampled_from((1 << 30, 1 << 30, 1, 7))
strangers = st.sampled_from([
    (wire.data(1), PROTOCOL), (wire.ack(0, 0), PROTOCOL), (wire.skip(1, 1), PROTOCOL), (wire.fin(1), PROTOCOL),
    (wire.ping(), PROTOCOL), (wire.pong(), PROTOCOL), (wire.reject(bytes(16), 1), PROTOCOL),
    (wire.frame(0x80, b"ignorable"), PROTOCOL), (wire.frame(0x7F), PROTOCOL), (wire.frame(0x00), PROTOCOL),
    (bytes.fromhex("000000010100"), PROTOCOL), (bytes.fromhex("000000000000"), PROTOCOL),
    (bytes.fromhex("000010010100"), CloseCode.TOO_LARGE), (bytes.fromhex("ffffffff1000"), CloseCode.TOO_LARGE),
])  # fmt: skip


def faults(table: list[Any]) -> st.SearchStrategy[list[Any]]:
    """None, mostly; else one, or several of different keys."""
    some = st.lists(st.sampled_from(table), min_size=1, max_size=3, unique_by=lambda fault: fault[1])
    return st.just([]) | st.just([]) | some


class Handshake(RuleBasedStateMachine):
    """One node, and one connection after another."""

    def __init__(self) -> None:
        super().__init__()
        self.node, self.peer = Node(config=SMALL), Peer()
        self.session = self.node.session("a")
        self.line: Line | None = None

    @initialize(dialled=st.booleans())
    def first(self, dialled: bool) -> None:
        self.begin(dialled)

    @precondition(lambda self: self.line.closed is not None)
    @rule(dialled=st.booleans())
    def begin(self, dialled: bool) -> None:
        if dialled:
            target = self.node.add_target("a")
            if target not in self.node.dials:  # it is connected already
                return
            self.line = self.node.answer(target)
        else:
            self.line = self.node.accept()
        self.began = self.node.now
        self.before = self.state()

    @property
    def now(self) -> Line:
        assert self.line is not None
        return self.line

    def state(self) -> dict[str, Any]:
        return fingerprint(self.node.endpoint)

    def expect(self, code: CloseCode | None, state: ConnectionState) -> None:
        """It closed with that code, or went on to that state."""
        if code is None:
            assert self.now.state is state, self.now.connection.error
            return
        assert self.now.farewell() is code
        assert self.state() == self.before, "a session changed"

    def say(self, kind: int, fields: dict[str, Any], broken: list[Any], chunk: int, then: ConnectionState) -> None:
        """A frame of the handshake, in its place or out of it."""
        in_place = {
            wire.HELLO: ConnectionState.HELLO,
            wire.HELLO_ACK: ConnectionState.HELLO_ACK,
            wire.ATTACH: ConnectionState.ATTACH,
        }[kind]
        if self.now.state is ConnectionState.PREAMBLE:
            self.now.say(PREAMBLE)
        code: CloseCode | None = PROTOCOL
        if self.now.state is in_place:
            code = min(broken, key=lambda fault: fault[0])[3] if broken else None
        fields |= {key: value for _, key, value, _ in broken}
        if kind == wire.ATTACH:
            fields["mac"] = fields.pop("mac")
        self.now.say(wire.frame(kind, wire.mapping(fields)), chunk=chunk)
        self.expect(code, then)

    # the frames of the handshake

    @precondition(lambda self: self.line.closed is None)
    @rule(broken=faults(IN_HELLO), chunk=chunks)
    def hello(self, broken: list[Any], chunk: int) -> None:
        self.say(wire.HELLO, self.peer.hello_map(to="m"), broken, chunk, ConnectionState.ATTACH)

    @precondition(lambda self: self.line.closed is None)
    @rule(broken=faults(IN_HELLO_ACK), chunk=chunks)
    def hello_ack(self, broken: list[Any], chunk: int) -> None:
        fields = {"v": 1, "id": "a", "incarnation": self.peer.incarnation, "nonce": b"n" * 32, "features": [],
                  "auth": "insecure", "limits": self.peer.limits, "codec": "msgpack"}  # fmt: skip
        self.say(wire.HELLO_ACK, fields, broken, chunk, ConnectionState.ATTACH)

    @precondition(lambda self: self.line.closed is None)
    @rule(broken=faults(IN_ATTACH), chunk=chunks)
    def attach(self, broken: list[Any], chunk: int) -> None:
        fields = self.peer.attach_map("m", seen=self.session.arbitration.generation)
        self.say(wire.ATTACH, fields, broken, chunk, ConnectionState.LIVE)
        if self.now.live:
            self.now.lose()

    # what is none

    @precondition(lambda self: self.line.closed is None)
    @rule(stranger=strangers, chunk=chunks)
    def stray_frame(self, stranger: tuple[bytes, CloseCode], chunk: int) -> None:
        if self.now.state is ConnectionState.PREAMBLE:
            self.now.say(PREAMBLE)
        self.now.say(stranger[0], chunk=chunk)
        self.expect(stranger[1], self.now.state)

    @precondition(lambda self: self.line.closed is None)
    @rule(kind=st.sampled_from((wire.HELLO, wire.HELLO_ACK, wire.ATTACH)), body=st.binary(max_size=20))
    def garbage(self, kind: int, body: bytes) -> None:
        if self.now.state is ConnectionState.PREAMBLE:
            self.now.say(PREAMBLE)
        self.now.say(wire.frame(kind, body))
        self.expect(PROTOCOL, self.now.state)

    @precondition(lambda self: self.line.closed is None and self.line.state is ConnectionState.PREAMBLE)
    @rule(first=st.binary(min_size=8, max_size=12).filter(lambda first: first[:6] != PREAMBLE[:6]))
    def another_protocol(self, first: bytes) -> None:
        self.now.say(first)
        assert self.now.closed is not None
        assert self.now.ended() is PROTOCOL
        assert self.state() == self.before

    @precondition(lambda self: self.line.closed is None)
    @rule(code=st.integers(0, 40), flags=st.integers(0, 3))
    def close(self, code: int, flags: int) -> None:
        if self.now.state is ConnectionState.PREAMBLE:
            self.now.say(PREAMBLE)
        self.now.say(wire.close(code, b"text", flags=flags))
        assert self.now.closed is not None
        assert self.now.connection.error is not None
        assert self.now.connection.error.remote == (flags < 2)
        assert self.state() == self.before

    @precondition(lambda self: self.line.closed is None)
    @rule(how=st.sampled_from((Line.eof, Line.lose)))
    def cut(self, how: Callable[[Line], None]) -> None:
        how(self.now)
        assert self.now.closed is not None
        assert self.state() == self.before

    @rule(said=st.binary(max_size=30))
    def say_more_after_the_end(self, said: bytes) -> None:
        if self.now.closed is not None:
            before = self.state()
            self.now.raw()
            self.now.say(PREAMBLE, said)
            assert self.now.raw() == b""
            assert self.state() == before

    @rule(seconds=st.sampled_from((0.5, 2.0, 4.9)))
    def wait(self, seconds: float) -> None:
        """The deadline is absolute (P-HS-7)."""
        was_open = self.now.closed is None
        self.node.advance(seconds)
        if was_open and self.now.state is not ConnectionState.LIVE:
            assert (self.now.closed is not None) == (self.node.now >= self.began + 5.0)

    def teardown(self) -> None:
        self.node.advance(10.0)
        assert self.line is None or self.now.closed is not None


pytestmark = pytest.mark.slow
TestHandshake = Handshake.TestCase
TestHandshake.settings = machine(examples=60, steps=25)
