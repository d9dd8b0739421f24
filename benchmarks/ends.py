"""What a contender has to provide: one end of a conversation, in its own process, told what to do by the runner.

Theory of operation
-------------------
Every contender is a module in :mod:`benchmarks.peers` with a class ``End``.  The runner starts two processes, one whose
end listens and one whose end connects, and tells each which of the methods below to run, and with how many messages.
A method's loop is written out in each contender, with that library's own calls and nothing in between: a shared layer
would cost the fast ones more than the slow ones.  Methods may be coroutines or block, as the library is.

Where messages are counted: ``receive`` returns when the application at the other end has the last one, and (where the
library has such a thing) has acknowledged it; ``send`` returns when the sender knows as much as its library can tell
it.  A run ends when both have returned.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from math import inf
from time import monotonic
from typing import Any

__all__ = [
    "BATCH",
    "DIALS",
    "Counter",
    "Cutter",
    "End",
    "Plan",
    "batches",
    "framed",
    "no_delay",
    "parts",
    "percentile",
    "round_trips",
    "shares",
    "until",
]

#: messages that networkio sends and reads by one call, where each call waits for the disk
BATCH = 1000

#: connections that one process makes at the same time, for every contender alike
DIALS = 100


@dataclass(frozen=True)
class Plan:
    """What both ends know before they begin."""

    #: the contender's name
    contender: str
    #: "server" listens (and receives), "client" connects (and sends)
    role: str
    #: bytes of a message
    size: int
    #: how many connections the client's end makes, and the server's end expects
    connections: int = 1
    #: the sender's messages skip the codec, for those that have one
    raw: bool = False
    #: networkio's adapter, and the event loop of asynchronous peers ("uvloop" is one)
    adapter: str = "asyncio"
    #: a directory for whatever has to be written, removed afterwards
    directory: str = ""
    #: the number of the first of the connections
    first: int = 0
    #: what only some contenders or workloads need
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def payload(self) -> bytes:
        """One message."""
        return b"x" * self.size

    def journal(self, peer_id: str) -> str | None:
        """The file of a node's journal; None where the scenario has none."""
        return f"{self.directory}/{peer_id}.db" if self.settings.get("journal") else None

    @property
    def trust(self) -> dict[str, Any]:
        """What a node is given that encrypts its streams, and proves by keys who it is; nothing where it does not."""
        if not self.settings.get("tls"):
            return {}
        from networkio_proto import PSK
        from networkio_tls import TLS

        key = bytes(range(32))
        return {"auth": PSK({"server": key, "client-0": key}), "tls": TLS.self_signed()}

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class End:
    """One end.  A contender overrides what it takes part in; all of it may be coroutines instead."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def listen(self, address: Any) -> Any:
        """The server's end: begin; where to connect to.  ``address`` is that of the broker, if there is one."""
        raise NotImplementedError

    def connect(self, address: Any) -> Any:
        """The client's end: make all connections; returns when they stand."""
        raise NotImplementedError

    def send(self, count: int) -> Any:
        """So many messages in all, evenly over the connections."""
        raise NotImplementedError

    def receive(self, count: int) -> Any:
        """So many messages in all, from whomever."""
        raise NotImplementedError

    def ask(self, count: int, seconds: float) -> Any:
        """So many requests, each after the reply to the one before, no longer than ``seconds``; the round trips (s)."""
        raise NotImplementedError

    def answer(self) -> Any:
        """Answer requests, for as long as the process lives."""
        raise NotImplementedError

    def send_back(self, count: int) -> Any:
        """The server's end of *both ways*: so many messages to the client."""
        return self.send(count)

    def receive_back(self, count: int) -> Any:
        """The client's end of *both ways*: so many messages from the server."""
        return self.receive(count)

    def rest(self) -> Any:
        """Between two runs: tidy up what would be in the way of the next."""

    def away(self) -> Any:
        """*Backlog*: leave, so that what is sent from now on has to wait."""

    def hoard(self, count: int) -> Any:
        """*Backlog*: send so many to somebody who is away."""
        raise NotImplementedError

    def back(self, count: int) -> Any:
        """*Backlog*: come back.  At the end that does so, it returns when all is over; at the other at once."""


def shares(count: int, parts: int) -> list[int]:
    """``count`` in ``parts`` nearly equal numbers."""
    each, more = divmod(count, parts)
    return [each + (part < more) for part in range(parts)]


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least so many percent are not above (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -int(-len(ordered) * percent // 100) - 1)]


def until(seconds: float) -> float:
    """When ``seconds`` are over (0: never), on the clock of ``ask``."""
    return monotonic() + seconds if seconds else inf


def round_trips(
    send: Callable[[bytes], object], recv: Callable[[], object], payload: bytes, count: int, seconds: float
) -> list[float]:
    """``ask`` where calls block: the library's own two are called, with nothing in between."""
    trips, end = list[float](), until(seconds)
    before = monotonic()
    while len(trips) < count and before < end:
        send(payload)
        recv()
        now = monotonic()
        trips.append(now - before)
        before = now
    return trips


def no_delay(sock: socket.socket) -> socket.socket:
    """Send small messages at once."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class Counter:
    """Counts what comes in callbacks, on an event loop, and wakes whoever waits for so many."""

    def __init__(self) -> None:
        self.count = 0
        self.target = 0
        self._reached = asyncio.Event()

    def arrived(self) -> None:
        """One more."""
        self.count += 1
        if self.count == self.target:
            self._reached.set()

    async def wait_for(self, more: int) -> None:
        """Until so many more are there, than when this was called the last time."""
        self.target += more
        if self.count < self.target:
            self._reached.clear()
            await self._reached.wait()


_LENGTH = struct.Struct(">I")


#: from here on a message and its length are written one after the other; below, a copy is cheaper than a system call
_JOIN_BELOW = 64 * 1024


def framed(payload: bytes) -> bytes:
    """A message with its length before it."""
    return _LENGTH.pack(len(payload)) + payload


def batches(count: int) -> list[int]:
    """How many messages to hand over at a time."""
    return [BATCH] * (count // BATCH) + [count % BATCH] * (count % BATCH > 0)


def parts(payload: bytes) -> list[bytes]:
    """The same as what to write, big payloads uncopied."""
    return [framed(payload)] if len(payload) < _JOIN_BELOW else [_LENGTH.pack(len(payload)), payload]


class Cutter:
    """Cuts a byte stream into framed messages; a big one is put together once, when its last piece is there."""

    def __init__(self) -> None:
        self._rest = b""
        self._pieces: list[bytes] = []
        self._missing = 0

    def cut(self, data: bytes) -> list[bytes]:
        """The messages that are whole with these bytes."""
        messages: list[bytes] = []
        position = 0
        if self._missing:
            if len(data) < self._missing:
                self._pieces.append(data)
                self._missing -= len(data)
                return messages
            position = self._missing
            self._pieces.append(data[:position])
            messages.append(b"".join(self._pieces))
            self._pieces, self._missing = [], 0
        elif self._rest:
            data, self._rest = self._rest + data, b""
        end = len(data)
        while end - position >= 4:
            stop = position + 4 + _LENGTH.unpack_from(data, position)[0]
            if stop > end:
                self._pieces, self._missing = [data[position + 4 :]], stop - end
                return messages
            messages.append(data[position + 4 : stop])
            position = stop
        self._rest = data[position:]
        return messages
