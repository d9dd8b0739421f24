"""One side of the canonical conversation, written down: every input of its core, which can be played to a core again.

Theory of operation
-------------------
:func:`record` plays the conversation and notes what reaches one of the two cores: bytes, ends of streams, timers, calls
of the application.  A :class:`Core` is the thinnest driver there is.  It begins as the recorded core did, with the
same randomness; each input that it plays gives a *trace*, which is everything that came out: the bytes written, the
effects, the notices.  Trace and :meth:`Core.state` together are all that anybody can ever learn of a core.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from networkio_proto import Close, Connection, Delivery, Dial, Endpoint, Log, Transmit
from networkio_proto.auth import Authenticator
from networkio_testing import Host, Wire
from tests.exhaustive.conversation import Conversation
from tests.proto.helpers_wire import fingerprint, plain

__all__ = ["Core", "Input", "Tape", "record", "whole"]

#: how one input's bytes come in pieces
Split: TypeAlias = "Callable[[bytes], Sequence[bytes]]"


@dataclass(frozen=True, slots=True)
class Input:
    """What reached the core, and when; ``what`` names the method of :class:`Core` that does it."""

    now: float
    what: str
    arguments: tuple[Any, ...] = ()

    @property
    def data(self) -> bytes:
        """The bytes, if it is bytes."""
        return bytes(self.arguments[1]) if self.what == "receive" else b""


@dataclass(slots=True)
class Tape:
    """How the core was in the beginning, what reached it, and what it wrote on each of its connections."""

    name: str
    fresh: bytes = b""
    inputs: list[Input] = field(default_factory=list)
    written: dict[int, bytearray] = field(default_factory=dict)


def whole(data: bytes) -> Sequence[bytes]:
    """In one piece."""
    return (data,)


class Core:
    """One endpoint and its driver."""

    def __init__(self, fresh: bytes, peer: str) -> None:
        self.endpoint: Endpoint = pickle.loads(fresh)
        self.peer = peer
        self.now = 0.0
        self.trace: list[object] = []
        self.written: dict[int, bytearray] = {}
        self.connections: list[Connection] = []
        self.dials: list[Dial] = []
        self.held: list[Delivery] = []

    def play(self, item: Input, split: Split = whole, *, eager: bool = False) -> list[object]:
        """Do it, and return what came of it; ``eager``: effects are carried out after each piece."""
        self.now, self.trace = item.now, []
        if item.what == "receive":
            number, data = item.arguments
            for piece in split(data):
                self.connections[number].receive_data(piece, self.now)
                if eager:
                    self.pump()
        else:
            getattr(self, item.what)(*item.arguments)
        self.pump()
        return self.trace

    # -- inputs ---------------------------------------------------------------------------------------------------

    def dial(self) -> None:
        self.endpoint.add_target(self.peer, self.now, to=self.peer)

    def connect(self) -> None:
        self.connections.append(self.endpoint.connect(self.dials.pop(), self.now))

    def accept(self) -> None:
        self.connections.append(self.endpoint.accept(self.now, source=self.peer))

    def eof(self, number: int) -> None:
        self.connections[number].receive_eof(self.now)

    def lose(self, number: int) -> None:
        self.connections[number].connection_lost(self.now, ConnectionResetError("cut"))

    def tick(self) -> None:
        self.endpoint.handle_timer(self.now)

    def send(self, payload: bytes) -> None:
        self.endpoint.session(self.peer, self.now).send(payload, self.now, raw=True)

    def take(self, count: int) -> None:
        taken = self.endpoint.session(self.peer, self.now).take(count)
        self.held += taken
        self.trace.append([(item[1:4], plain(item[4])) for item in taken])

    def settle(self, reject: tuple[int, str] | None) -> None:
        self.endpoint.session(self.peer, self.now).settle(self.held.pop(0), self.now, reject=reject)

    def end(self) -> None:
        self.endpoint.session(self.peer, self.now).end(self.now)

    # -- what comes out -------------------------------------------------------------------------------------------

    def pump(self) -> None:
        """Carry out every effect, and note it."""
        endpoint, note = self.endpoint, self.trace.append
        while (effect := endpoint.next_effect()) is not None:
            if isinstance(effect, Transmit):
                self._write(effect.connection)
            elif isinstance(effect, Close):
                note(("close", self.connections.index(effect.connection), effect.flush, repr(effect.connection.error)))
                if effect.flush:
                    self._write(effect.connection)
            elif isinstance(effect, Dial):
                self.dials.append(effect)
                note("dial")
            elif isinstance(effect, Log):
                note(repr(effect))
            else:
                while (notice := endpoint.next_event()) is not None:
                    note(repr(notice))

    def _write(self, connection: Connection) -> None:
        number = self.connections.index(connection)
        while buffers := connection.data_to_send(self.now):
            data = b"".join(buffers)
            self.written.setdefault(number, bytearray()).extend(data)
            self.trace.append(("wrote", number, data))

    def state(self) -> str:
        """Everything that what comes later can depend on, but the time."""
        connections = [
            (it.state, it.dial, it.generation, it.credit_told, plain(it.attached), repr(it.error))
            for it in self.connections
        ]
        targets = [(it.state, it.attempts, it.retry_at) for it in self.endpoint.targets]
        return repr((fingerprint(self.endpoint), connections, targets, self.endpoint.get_timer(), len(self.held)))


class _Recorder(Conversation):
    """Writes down what reaches the core of one host."""

    def __init__(self, name: str, auth: Authenticator | None) -> None:
        super().__init__(auth)
        host = self.hosts[name]
        self.tape = Tape(name, pickle.dumps(host.endpoint, pickle.HIGHEST_PROTOCOL))
        self._wires: list[int] = []
        #: what was written on its way, by wire and end
        self._under_way: dict[tuple[int, int], bytearray] = {}

    def note(self, what: str, *arguments: object) -> None:
        self.tape.inputs.append(Input(self.world.now, what, arguments))

    def mine(self, host: Host) -> bool:
        return host.name == self.tape.name

    def dial(self) -> None:
        if self.tape.name == "a":
            self.note("dial")
        super().dial()

    def connected(self, wires: list[Wire]) -> None:
        for wire in wires:
            self._wires.append(wire.number)
            self.note("connect" if self.mine(wire.hosts[0]) else "accept")

    def lost(self, wire: Wire) -> None:
        self.note("lose", self._wires.index(wire.number))

    def arriving_next(self, wire: Wire, end: int) -> None:
        """The hook: everything that was written there arrives."""
        data = self._under_way.pop((wire.number, end), bytearray())
        if self.mine(wire.hosts[1 - end]) and wire.ends[1 - end] is not None:
            number = self._wires.index(wire.number)
            if data:
                self.note("receive", number, bytes(data))
            if wire.waiting(end) > len(data):
                self.note("eof", number)

    def wrote(self, wire: Wire, end: int, buffers: Sequence[bytes | memoryview]) -> None:
        data = b"".join(buffers)
        self._under_way.setdefault((wire.number, end), bytearray()).extend(data)
        if self.mine(wire.hosts[end]):
            self.tape.written.setdefault(wire.number - 1, bytearray()).extend(data)

    def ticked(self, host: Host) -> None:
        if self.mine(host):
            self.note("tick")

    def accepted(self, host: Host, peer: str, sequence: int, payload: bytes, options: object) -> None:
        super().accepted(host, peer, sequence, payload, options)
        if self.mine(host):
            self.note("send", payload)

    def handed_over(self, host: Host, peer: str, deliveries: object) -> None:
        super().handed_over(host, peer, deliveries)
        assert isinstance(deliveries, list)
        if self.mine(host) and deliveries:
            self.note("take", len(deliveries))

    def settled(self, host: Host, peer: str, delivery: Delivery, reject: tuple[int, str] | None) -> None:
        if self.mine(host):
            self.note("settle", reject)

    def ended(self, host: Host, peer: str) -> None:
        if self.mine(host):
            self.note("end")


def record(name: str, auth: Authenticator | None = None) -> Tape:
    """What reached the core of this host, from the beginning to the end of the conversation."""
    recorder = _Recorder(name, auth)
    recorder.play(lambda _, wire, end: recorder.arriving_next(wire, end))
    return recorder.tape
