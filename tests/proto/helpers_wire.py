"""A peer made of bytes.

Frames are built here by hand, from the specification alone; :class:`Node` drives one real endpoint and, with every
effect that it carries out, watches what the core promises its drivers; a :class:`Line` is the far end of one of its
connections; a :class:`Peer` is who stands there: the names and facts that it puts into its handshake.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from enum import Enum
from struct import pack
from typing import Any

import msgpack

from networkio_proto import (
    Abandon,
    Close,
    CloseCode,
    Config,
    Connection,
    ConnectionState,
    Dial,
    Endpoint,
    Event,
    Limits,
    Log,
    Session,
    Target,
    TLSFacts,
    Transmit,
)
from tests.proto.helpers import Frame, frames

__all__ = [
    "ACK",
    "ACK_NOW",
    "ATTACH",
    "CLOSE",
    "CONTINUED",
    "DATA",
    "FIN",
    "HEADERS",
    "HELLO",
    "HELLO_ACK",
    "MISSING",
    "MORE",
    "PING",
    "PONG",
    "PREAMBLE",
    "RAW",
    "REDELIVERED",
    "REJECT",
    "SKIP",
    "SMALL",
    "WINDOW",
    "Line",
    "Node",
    "Peer",
    "ack",
    "close",
    "data",
    "dialled",
    "exchange",
    "fin",
    "fingerprint",
    "frame",
    "mapping",
    "opened",
    "ping",
    "pings",
    "plain",
    "pong",
    "reject",
    "skip",
]

PREAMBLE = bytes.fromhex("4e494f000d0a0100")
HELLO, HELLO_ACK, ATTACH, DATA, ACK, SKIP, REJECT, FIN = 0x01, 0x02, 0x03, 0x10, 0x11, 0x12, 0x13, 0x14
PING, PONG, CLOSE = 0x20, 0x21, 0x30
MORE, CONTINUED, REDELIVERED, ACK_NOW, HEADERS, RAW = 0x01, 0x02, 0x04, 0x08, 0x10, 0x40

WINDOW = 256 * 1024

#: small bounds, so that fragments, credit and windows come into play
SMALL = Config(limits=Limits(frame=8192, message=20_000), window=20_000, window_guaranteed=10_000, window_max=40_000)

#: in place of a value: the key is not there
MISSING = object()


# -- frames by hand ---------------------------------------------------------------------------------------------------


def frame(kind: int, body: bytes = b"", flags: int = 0) -> bytes:
    return pack(">IBB", len(body) + 2, kind, flags) + body


def mapping(fields: dict[str, Any]) -> bytes:
    packed = msgpack.packb({key: value for key, value in fields.items() if value is not MISSING})
    assert isinstance(packed, bytes)
    return packed


def data(
    sequence: int,
    payload: bytes = b"payload",
    flags: int = RAW,
    *,
    total: int | None = None,
    headers: dict[str, Any] | None = None,
) -> bytes:
    """DATA; with ``total`` it begins a message in fragments."""
    body = pack(">Q", sequence)
    if total is not None:
        flags |= MORE
        body += pack(">I", total)
    if headers is not None:
        flags |= HEADERS
        packed = mapping(headers)
        body += pack(">H", len(packed)) + packed
    return frame(DATA, body + payload, flags)


def ack(received: int, read: int, credit: int = WINDOW, first: int = 1) -> bytes:
    return frame(ACK, pack(">QQQQ", received, read, credit, first))


def skip(first: int, last: int, reason: int = 2) -> bytes:
    return frame(SKIP, pack(">QQH", first, last, reason))


def reject(outbox: bytes, sequence: int, code: int = 7, text: bytes = b"no") -> bytes:
    return frame(REJECT, outbox + pack(">QH", sequence, code) + text)


def fin(sequence: int) -> bytes:
    return frame(FIN, pack(">Q", sequence))


def ping(opaque: int = 5) -> bytes:
    return frame(PING, pack(">Q", opaque))


def pong(opaque: int = 5) -> bytes:
    return frame(PONG, pack(">Q", opaque))


def close(code: int, text: bytes = b"", *, retry_after: int = 0, flags: int = 1) -> bytes:
    return frame(CLOSE, pack(">HQ", code, retry_after) + text, flags)


# -- the peer ---------------------------------------------------------------------------------------------------------


class Peer:
    """Somebody who speaks the protocol by hand: ``life`` tells the processes behind one name apart."""

    def __init__(self, peer_id: str = "a", *, life: int = 1, auth: str = "insecure") -> None:
        self.peer_id = peer_id
        self.auth = auth
        self.incarnation = bytes([life]) * 16
        self.outbox = bytes([0x40 + life]) * 16
        self.run = bytes([0x80 + life]) * 16
        self.dials = 0
        self.generation = 0
        self.limits = {"frame": 65536, "message": 16 * 1024 * 1024, "idle": 45_000}

    def hello_map(self, **changes: Any) -> dict[str, Any]:
        self.dials += 1
        return {
            "v": [1, 1], "id": self.peer_id, "to": None, "incarnation": self.incarnation, "dial": self.dials,
            "nonce": bytes([self.dials % 256]) * 32, "features": [], "require": [], "auth": self.auth, "key_id": None,
            "limits": self.limits, "codec": "msgpack", "agent": "by hand", **changes,
        }  # fmt: skip

    def hello(self, **changes: Any) -> bytes:
        return frame(HELLO, mapping(self.hello_map(**changes)))

    def hello_ack(self, **changes: Any) -> bytes:
        return frame(HELLO_ACK, mapping({
            "v": 1, "id": self.peer_id, "incarnation": self.incarnation, "nonce": b"n" * 32, "features": [],
            "auth": self.auth, "limits": self.limits, "codec": "msgpack", **changes,
        }))  # fmt: skip

    def attach_map(self, other: str, **changes: Any) -> dict[str, Any]:
        """The facts for a node named ``other``; ``mac`` stays the last key."""
        if self.peer_id > other:
            self.generation += 1
            role: dict[str, Any] = {"generation": self.generation}
        else:
            role = {"seen": 0}
        facts = {
            "outbox": self.outbox, "run": self.run, "first": 1, "next": 1, "inbox": None, "ended": [],
            "durable": False, "expiry": None, "credit": WINDOW, **role, **changes,
        }  # fmt: skip
        mac = facts.pop("mac", None)
        return {**facts, "mac": mac}

    def attach(self, other: str = "m", **changes: Any) -> bytes:
        return frame(ATTACH, mapping(self.attach_map(other, **changes)))


# -- the node ---------------------------------------------------------------------------------------------------------


class Node:
    """One endpoint, its driver and its clock.

    Every effect is carried out at once, and judged: a connection has one Close effect (where that is with
    ``flush``, one without follows) and no Transmit after it, hands out at most 64 buffers at a time and none that is
    empty, and nothing at all after its end; no Dial comes twice for one dial; and a stranger never gets more than three
    times the bytes that it sent.
    """

    def __init__(self, peer_id: str = "m", config: Config | None = None, *, seed: int = 0, **settings: Any) -> None:
        self.now = 1000.0
        self.endpoint = Endpoint(peer_id, config, random=random.Random(f"{peer_id}/{seed}"), **settings)
        self.lines: dict[Connection, Line] = {}
        self.dials: list[Target] = []
        self.attempts: dict[Target, Dial] = {}
        self.abandoned: list[Dial] = []
        self.events: list[Event] = []
        self.wakes: list[Session] = []
        self.logs: list[Log] = []

    @property
    def peer_id(self) -> str:
        return self.endpoint.peer_id

    def session(self, peer: Peer | str) -> Session:
        return self.endpoint.session(peer if isinstance(peer, str) else peer.peer_id, self.now)

    def send(self, peer: Peer | str, *payloads: bytes) -> list[int]:
        sequences = [self.session(peer).send(payload, self.now, raw=True) for payload in payloads]
        self.pump()
        return sequences

    def read(self, peer: Peer | str, limit: int = 1 << 30) -> list[bytes]:
        taken = self.session(peer).take_settled(limit, self.now)
        self.pump()
        return [delivery[2] for delivery in taken]

    # -- connections --

    def accept(self, source: str = "", tls: TLSFacts | None = None) -> Line:
        """Somebody dials this node."""
        return self._line(self.endpoint.accept(self.now, source=source, tls=tls))

    def add_target(self, to: str | None, key: object = "there") -> Target:
        target = self.endpoint.add_target(key, self.now, to=to)
        self.pump()
        return target

    def answer(self, target: Target | None = None) -> Line:
        """A dial that waits succeeds (the only one, if none is named)."""
        if target is None:
            [target] = self.dials
        self.dials.remove(target)
        return self._line(self.endpoint.connect(self.attempts[target], self.now))

    def answer_late(self) -> Line:
        """The dial that was abandoned last succeeds."""
        return self._line(self.endpoint.connect(self.abandoned[-1], self.now))

    def fail(self, target: Target, error: BaseException | None = None) -> None:
        """A dial that waits fails."""
        self.dials.remove(target)
        self.endpoint.dial_failed(self.attempts[target], self.now, OSError() if error is None else error)
        self.pump()

    def dial(self, to: str | None) -> Line:
        """This node dials, and is answered at once."""
        return self.answer(self.add_target(to))

    def refuse(self, error: BaseException | None = None) -> None:
        """Every dial that waits fails."""
        dials, self.dials = self.dials, []
        for target in dials:
            failure = ConnectionRefusedError("refused") if error is None else error
            self.endpoint.dial_failed(self.attempts[target], self.now, failure)
        self.pump()

    def connect(self, peer: Peer, role: str = "acceptor", **attach: Any) -> Line:
        """A live connection with ``peer``, on which this node has the role."""
        line = self.claim(peer, role)
        line.say(peer.attach(self.peer_id, **attach))
        assert line.state is ConnectionState.LIVE, line.connection.error
        return line

    def claim(self, peer: Peer, role: str = "acceptor") -> Line:
        """A connection that is one ATTACH of ``peer`` away from being live."""
        if role == "acceptor":
            line = self.accept()
            line.say(PREAMBLE, peer.hello())
        else:
            line = self.dial(peer.peer_id)
            line.say(PREAMBLE, peer.hello_ack())
        assert line.state is ConnectionState.ATTACH, line.connection.error
        return line

    def _line(self, connection: Connection) -> Line:
        line = self.lines[connection] = Line(self, connection)
        self.pump()
        return line

    # -- the driver --

    def pump(self) -> None:
        """Carry out every effect."""
        while (effect := self.endpoint.next_effect()) is not None:
            if isinstance(effect, Transmit):
                line = self.lines[effect.connection]
                assert line.closed is None, "Transmit after Close"
                line.writable()
            elif isinstance(effect, Close):
                line = self.lines[effect.connection]
                if line.closed is None:
                    line.closed = effect
                else:
                    assert line.closed.flush, "a Close after the last one"
                    assert not effect.flush, "a second Close with flush"
                    assert not line.dropped, "a third Close"
                line.dropped = not effect.flush
                if effect.flush:
                    line.writable()
                assert effect.connection.error is not None
            elif isinstance(effect, Dial):
                assert effect.target not in self.dials, "a second Dial"
                self.dials.append(effect.target)
                self.attempts[effect.target] = effect
            elif isinstance(effect, Abandon):
                if effect.dial.target in self.dials:
                    self.dials.remove(effect.dial.target)
                assert effect.dial not in self.abandoned, "a second Abandon"
                self.abandoned.append(effect.dial)
            elif isinstance(effect, Log):
                self.logs.append(effect)
            elif effect.session is not None:
                self.wakes.append(effect.session)
            else:
                while (event := self.endpoint.next_event()) is not None:
                    self.events.append(event)

    def advance(self, seconds: float) -> None:
        """Time passes; timers are served when they are due."""
        end = self.now + seconds
        while (due := self.endpoint.get_timer()) is not None and due <= end:
            self.now = max(self.now, due)
            self.endpoint.handle_timer(self.now)
            self.pump()
        self.now = end

    def until_dialled(self) -> None:
        """Time passes until a dial waits to be answered."""
        while not self.dials:
            due = self.endpoint.get_timer()
            assert due is not None
            self.advance(max(0.0, due - self.now))

    def jump(self, seconds: float) -> None:
        """The process stands still for so long; then its timers are served."""
        self.now += seconds
        self.endpoint.handle_timer(self.now)
        self.pump()


class Line:
    """The far end of one connection of a node."""

    def __init__(self, node: Node, connection: Connection) -> None:
        self.node = node
        self.connection = connection
        #: the effect, once the driver was told
        self.closed: Close | None = None
        #: the driver was told to close it at once, first or last
        self.dropped = False
        #: the transport takes no bytes
        self.stuck = False
        self.said = 0
        self.written = 0
        self._out = bytearray()

    @property
    def state(self) -> ConnectionState:
        return self.connection.state

    @property
    def live(self) -> bool:
        return self.connection.state is ConnectionState.LIVE

    @property
    def parked(self) -> bool:
        return self.connection.state is ConnectionState.PARKED

    def say(self, *pieces: bytes, chunk: int = 1 << 30) -> None:
        """Bytes arrive at the node, in pieces of ``chunk``."""
        stream = b"".join(pieces)
        for start in range(0, len(stream), chunk):
            self.feed(stream[start : start + chunk])
        self.node.pump()

    def feed(self, piece: bytes) -> None:
        """Bytes arrive; nobody looks at the effects yet."""
        self.said += len(piece)
        self.connection.receive_data(piece, self.node.now)

    def eof(self) -> None:
        """The peer's half of the stream ends."""
        self.connection.receive_eof(self.node.now)
        self.node.pump()

    def lose(self) -> None:
        """The stream breaks."""
        self.connection.connection_lost(self.node.now, ConnectionResetError("cut"))
        self.node.pump()

    def writable(self) -> None:
        """The transport takes everything that the core has to say."""
        if self.stuck:
            return
        while buffers := self.connection.data_to_send(self.node.now):
            assert len(buffers) <= 64
            assert all(len(buffer) for buffer in buffers)
            for buffer in buffers:
                self._out += buffer
                self.written += len(buffer)
        if not self.connection.dialer and self.connection.session is None:
            assert self.written <= 3 * self.said, "amplification"

    def raw(self) -> bytes:
        """The bytes heard since the last look."""
        heard = bytes(self._out)
        self._out.clear()
        return heard

    def heard(self) -> list[Frame]:
        """The frames heard since the last look."""
        return frames(self.raw())

    def kinds(self) -> list[int]:
        """Their types."""
        return [item.kind for item in self.heard()]

    def farewell(self) -> CloseCode:
        """The code of the CLOSE that was heard; it is the last frame, and the driver was told to close."""
        last = self.heard()[-1]
        assert last.kind == CLOSE
        assert self.closed is not None
        assert self.closed.flush
        assert self.connection.error is not None
        code = CloseCode(int.from_bytes(last.body[:2], "big"))
        assert self.connection.error.code is code
        assert not self.connection.error.remote
        return code

    def ended(self) -> CloseCode:
        """The code with which the connection ended; it ended without a word."""
        assert self.closed is not None
        assert self.state is ConnectionState.CLOSED
        assert CLOSE not in self.kinds()
        assert self.connection.error is not None
        return self.connection.error.code


def opened(config: Config = SMALL, **attach: Any) -> tuple[Node, Peer, Line]:
    """A live connection on which the node has said what it had to say."""
    node, peer = Node(config=config), Peer()
    line = node.connect(peer, **attach)
    line.raw()
    return node, peer, line


def pings(line: Line) -> list[int]:
    """The opaque values of the PINGs that were heard."""
    return [item.u64() for item in line.heard() if item.kind == PING]


def dialled(dialer: Node, acceptor: Node, tls: tuple[TLSFacts, TLSFacts] | None = None) -> tuple[Line, Line]:
    """A byte stream from one node to the other, on which nothing has arrived yet."""
    target = dialer.endpoint.add_target("there", dialer.now, to=acceptor.peer_id)
    dialer.pump()
    dialer.dials.remove(target)
    facts = (None, None) if tls is None else tls
    return (
        dialer._line(dialer.endpoint.connect(dialer.attempts[target], dialer.now, tls=facts[0])),
        acceptor.accept(tls=facts[1]),
    )


def exchange(dialer: Line, acceptor: Line, tamper: Callable[[int, bytes], bytes] | None = None) -> None:
    """Everything that the nodes at both ends say arrives at the other, until nobody has anything to say.

    The first line belongs to the node that dialled, so what is heard there is said at the second. ``tamper`` may change
    a stretch: it is told which end it leads away from, 0 for the dialer.
    """
    while True:
        stretches = dialer.raw(), acceptor.raw()
        if stretches == (b"", b""):
            return
        for end, (stretch, other) in enumerate(zip(stretches, (acceptor, dialer), strict=True)):
            if stretch:
                other.say(stretch if tamper is None else tamper(end, stretch))


# -- the fingerprint --------------------------------------------------------------------------------------------------

#: what a session holds that is no fact of its own: its surroundings, and what only tells or schedules
_SURROUNDINGS = frozenset({
    "_endpoint", "connection", "parked", "targets", "handle", "watch", "timer_at", "_wake", "_waking",
    "Notices._pending", "error", "Arbitration.generation", "Arbitration.stated", "window", "Acknowledger._delayed",
    "counters", "_linked",
})  # fmt: skip

#: what ends with a connection: cursor, credit, acknowledgements to be sent, incomplete messages
_OF_CONNECTION = frozenset({
    "cursor", "fragment", "used", "credit", "allowed", "partial", "frame_limit", "since",
    "Attachment.hole", "Attachment._known", "Acknowledger.pending", "Acknowledger._urgent", "Acknowledger._received",
    "Acknowledger._cost", "Acknowledger._rejects", "Progress._heard",
})  # fmt: skip


def fingerprint(endpoint: Endpoint, *, connected: bool = True) -> dict[str, Any]:
    """Everything that the sessions of an endpoint know, in plain containers that can be compared.

    What a side counts of its own handshakes is left out: ``generation``, which an arbiter counts up for a peer that has
    not proved itself too (P-HS-6), the dial on which it stated facts, and the reservation of a window. Without
    ``connected`` so is everything that ends with a connection.
    """
    return {name: plain(session, connected) for name, session in endpoint.sessions.items()}


def plain(value: object, connected: bool = True) -> Any:
    """The facts of anything of the core in plain containers."""
    return _plain(value, connected, ())


def _plain(value: Any, connected: bool, path: tuple[Any, ...]) -> Any:
    kind = type(value)
    if kind in _LEAVES or isinstance(value, Enum):
        return value
    if kind is list or kind is tuple or kind is deque:
        return [_plain(item, connected, path) for item in value]
    if kind is dict:
        return {key: _plain(item, connected, path) for key, item in value.items()}
    if kind is set or kind is frozenset:
        return sorted(value)
    if any(value is outer for outer in path):
        return f"this {kind.__name__}"
    slots, inner = _slots(kind, connected), (*path, value)
    return {slot: _plain(getattr(value, slot), connected, inner) for slot in slots}


_LEAVES = {type(None), bool, int, float, str, bytes}


_SLOTS: dict[tuple[type, bool], tuple[str, ...]] = {}


def _slots(kind: type, connected: bool) -> tuple[str, ...]:
    """The slots of a class that hold facts."""
    if (kind, connected) in _SLOTS:
        return _SLOTS[kind, connected]
    hidden = _SURROUNDINGS if connected else _SURROUNDINGS | _OF_CONNECTION
    slots = [slot for cls in kind.__mro__ for slot in getattr(cls, "__slots__", ())]
    assert slots, f"{kind.__name__} has facts that this function does not find"
    facts = tuple(slot for slot in slots if slot not in hidden and f"{kind.__name__}.{slot}" not in hidden)
    return _SLOTS.setdefault((kind, connected), facts)
