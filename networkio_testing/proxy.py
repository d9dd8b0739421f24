"""The chaos proxy: a real TCP proxy that breaks what passes through it.

A client dials the proxy instead of the target.  The proxy dials the target and carries bytes both ways, "up" from the
client to the target and "down" from the target to the client, until it is told, or its seed decides, to misbehave::

    async with ChaosProxy("127.0.0.1", 8080, chaos=Chaos(cut_every=1_000_000), seed=7) as proxy:
        await node.connect(proxy.host, proxy.port)

Theory of operation.  Each connection is one task and two `_Pump`s, one per direction.  A pump waits until its source is
readable, takes at most one chunk, gives it a due time, and hands it to its sink once that time has come.  Latency and
rate are nothing but due times; in between a chunk waits in the pump's *line*, which is bounded.  A pump that hands over
does not read, so a slow reader fills the line, then the kernel's buffers, then stops the writer: the back-pressure of a
plain TCP path.  The end of a stream travels down the line as a chunk of its own: a FIN shuts one direction only, and a
reset comes out on the other side as a reset.

The sockets are non-blocking ones of the standard library, and anyio only says when to use them.  Whatever `send` takes
is in the kernel and counted before any other task runs.  That makes a cut exact to the byte: a pump never offers more
than what is left until the cut, and the connection which carries the last of those bytes is the one cut.  A cut marks
the connection and cancels its pumps; their owner then closes both sockets, with a RST or with a FIN.

Nothing here lies about TCP.  A RST may overtake bytes that the receiver has not read yet, and a FIN is followed by a
RST when the proxy held bytes which it will never read.  On a UNIX socket there is no RST: both cuts are a close.
"""

from __future__ import annotations

import errno
import math
import os
import random
import socket
import struct
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import anyio
import anyio.abc

__all__ = ["ChaosProxy", "Chaos", "CALM", "Cut", "Direction"]

Cut = Literal["fin", "rst"]
Direction = Literal["up", "down"]

_Place = tuple[int, Any]
"""An address family and an address in the form which that family's sockets take."""

_BACKLOG = 4096
"""Thousands of clients may reconnect at once; the kernel lowers this to its own limit."""

_BREATHER = 0.05
"""Seconds of rest after a failed accept: without descriptors left, the listener stays readable and would spin."""

_MOST_HELD = 1 << 20
_MOST_CHUNKS = 4096
"""What one line holds, in bytes and in chunks.  With a delay this also caps the throughput, at 1 MiB per delay."""

_TICK = 0.01
"""Seconds of traffic that a limited link takes at once, so that a low rate is a trickle and not a rare burst."""

_RESET_ON_CLOSE = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
"""SO_LINGER on, for zero seconds: close drops what is unsent and sends a RST."""

_CONNECTING = {errno.EINPROGRESS, getattr(errno, "WSAEWOULDBLOCK", errno.EINPROGRESS)}
"""What a non-blocking connect says when the answer is still to come."""


@dataclass(frozen=True, slots=True)
class Chaos:
    """What a proxy does to its connections by itself.  The default is nothing at all."""

    cut_every: int | None = None
    """Bytes between two cuts, each drawn within 50 % of this; counted over all connections and both directions."""

    cut_how: Literal["fin", "rst", "mixed"] = "mixed"
    """How those cuts are made; "mixed" draws one of the two for each."""

    refuse_for: float = 0.0
    """Seconds after each of those cuts during which new connections are refused."""

    delay: float = 0.0
    """Seconds by which every byte arrives later."""

    rate: float | None = None
    """Bytes per second, for each direction of each connection."""

    black_hole_after: float | None = None
    """Seconds after which a connection loses everything for good, and tells nobody, not even that a side hung up."""

    chunk: int = 65536
    """The most bytes forwarded at once."""

    def __post_init__(self) -> None:
        for name in ("cut_every", "rate", "chunk"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise ValueError(f"{name} must be above 0, not {value}")
        for name in ("refuse_for", "delay", "black_hole_after"):
            if (value := getattr(self, name)) is not None and value < 0:
                raise ValueError(f"{name} must not be negative, as {value} is")
        if self.cut_how not in ("fin", "rst", "mixed"):
            raise ValueError(f'cut_how must be "fin", "rst" or "mixed", not {self.cut_how!r}')


CALM = Chaos()
"""No chaos: `proxy.chaos = CALM` heals a proxy, for the connections that are open too."""


class ChaosProxy:
    """A proxy from an address of its own to a target, inside `async with`.

    A host with a slash in it is the path of a UNIX socket, and its port is ignored.  The same traffic with the same
    seed is cut at the same bytes.  Leaving the block closes every connection.  The methods take effect before they
    return, and are for the event loop that the proxy runs in, not for other threads.
    """

    def __init__(
        self,
        target_host: str,
        target_port: int = 0,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        chaos: Chaos = CALM,
        seed: int = 0,
    ) -> None:
        self.host = host
        self.port = port  # once inside the block, the real one
        self.connections = 0  # accepted so far
        self.unreachable = 0  # of those, how many were closed because the target did not answer
        self.cuts = 0  # connections cut on purpose
        self.bytes_forwarded = 0  # both directions together
        self._target = (target_host, target_port)
        self._random = random.Random(seed)
        self._open: set[_Connection] = set()
        self._gates: dict[Direction, _Gate] = {"up": _Gate(), "down": _Gate()}
        self._accepting = _Gate()
        self._refused = False
        self._outages = 0
        self.chaos = chaos

    @property
    def chaos(self) -> Chaos:
        """What the proxy does by itself; may be replaced at any time.

        The count to the next cut then starts anew, while a connection keeps the `black_hole_after` it was accepted
        with: its streams may already have holes.
        """
        return self._chaos

    @chaos.setter
    def chaos(self, chaos: Chaos) -> None:
        self._chaos = chaos
        self._until_cut = self._draw_gap()

    @property
    def open_connections(self) -> int:
        """How many connections are open now."""
        return len(self._open)

    def cut_all(self, how: Cut = "rst") -> int:
        """Cut every connection now, and say how many there were."""
        return sum(self._cut(connection, how) for connection in self._open)

    def black_hole(self, on: bool = True, direction: Literal["up", "down", "both"] = "both") -> None:
        """Stop forwarding, or go on with it; connections stay open, new ones are accepted, and nothing is lost."""
        for name, gate in self._gates.items():
            if direction in (name, "both"):
                gate.set_open(not on)

    def refuse(self, on: bool = True) -> None:
        """Refuse new connections, or accept them again at the same address; open connections are left alone."""
        self._refused = on
        self._update_listener()

    async def __aenter__(self) -> Self:
        self._targets = await _resolve(*self._target)
        self._place = (await _resolve(self.host, self.port))[0]
        self._listener = _bind(self._place, listen=True)
        self._place = (self._place[0], self._listener.getsockname())
        if not _is_path(self.host):
            self.port = self._place[1][1]
        self._tasks = await anyio.create_task_group().__aenter__()
        self._tasks.start_soon(self._accept)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self._tasks.cancel_scope.cancel()
        try:
            # The group has to see a cancellation, which may be its own.  Any other error of the block is none of its
            # business: it would come out wrapped in an exception group.
            if isinstance(error, anyio.get_cancelled_exc_class()):
                return await self._tasks.__aexit__(kind, error, trace)
            await self._tasks.__aexit__(None, None, None)
            return None
        finally:
            self._unbind()

    async def _accept(self) -> None:
        while True:
            await self._accepting.wait()
            try:
                await anyio.wait_readable(self._listener)
                client, _ = self._listener.accept()
            except (BlockingIOError, anyio.ClosedResourceError):  # the client has gone again; `refuse` closed it
                continue
            except OSError:
                await anyio.sleep(_BREATHER)
                continue
            client.setblocking(False)
            self.connections += 1
            connection = _Connection(self, client)
            self._open.add(connection)
            self._tasks.start_soon(self._serve, connection)

    async def _serve(self, connection: _Connection) -> None:
        try:
            await connection.run(self._targets)
        except OSError:
            self.unreachable += 1
        finally:
            connection.close()
            self._open.remove(connection)

    def _draw_gap(self) -> int | None:
        if (every := self._chaos.cut_every) is None:
            return None
        return self._random.randint(every - every // 2, every + every // 2)

    def _draw_how(self) -> Cut:
        how = self._chaos.cut_how
        return self._random.choice(("fin", "rst")) if how == "mixed" else how

    def _cut(self, connection: _Connection, how: Cut) -> bool:
        if connection.ending is not None:
            return False
        self.cuts += 1
        connection.end(how)
        return True

    def _forwarded(self, size: int, connection: _Connection) -> None:
        """Count bytes that the kernel has taken, and cut their connection if they were the last ones before a cut."""
        self.bytes_forwarded += size
        if self._until_cut is None:
            return
        self._until_cut -= size
        if self._until_cut == 0:
            self._cut(connection, self._draw_how())
            self._until_cut = self._draw_gap()
            if self._chaos.refuse_for:
                self._tasks.start_soon(self._refuse_for, self._chaos.refuse_for)

    async def _refuse_for(self, seconds: float) -> None:
        self._outages += 1
        self._update_listener()
        await anyio.sleep(seconds)
        self._outages -= 1
        self._update_listener()

    def _update_listener(self) -> None:
        accepting = not self._refused and self._outages == 0
        if accepting == self._accepting.is_open:
            return
        self._accepting.set_open(accepting)
        if accepting:
            self._listener.listen(_BACKLOG)
        else:
            # A socket that is bound and does not listen refuses like no socket at all, and keeps the port for us.
            anyio.notify_closing(self._listener)
            self._unbind()
            self._listener = _bind(self._place, listen=False)

    def _unbind(self) -> None:
        self._listener.close()
        if _is_path(self.host):
            Path(self.host).unlink(missing_ok=True)


class _Gate:
    """What a task can wait for until it is open; passing an open one costs no turn of the event loop."""

    def __init__(self) -> None:
        self._opened: anyio.Event | None = None

    @property
    def is_open(self) -> bool:
        return self._opened is None

    def set_open(self, is_open: bool) -> None:
        if not is_open:
            self._opened = self._opened or anyio.Event()
        elif self._opened is not None:
            self._opened.set()
            self._opened = None

    async def wait(self) -> None:
        while self._opened is not None:  # it may be closed again before we get our turn
            await self._opened.wait()


class _Connection:
    """A client's socket, the socket to the target, and how they end."""

    def __init__(self, proxy: ChaosProxy, client: socket.socket) -> None:
        self.proxy = proxy
        self.ending: Cut | None = None
        self._sockets = [client]
        self._scope = anyio.CancelScope()
        silent_after = proxy.chaos.black_hole_after
        self._silent_at = math.inf if silent_after is None else anyio.current_time() + silent_after

    @property
    def passing(self) -> bool:
        """Whether anything may still come out of this connection."""
        return self.ending is None and anyio.current_time() < self._silent_at

    async def run(self, targets: list[_Place]) -> None:
        """Carry bytes until both sides have ended or the connection is cut; OSError if there is no target."""
        with self._scope:
            target = await _connect(targets)
            (client,) = self._sockets
            self._sockets.append(target)
            for sock in self._sockets:
                if sock.family in (socket.AF_INET, socket.AF_INET6):
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with anyio.create_task_group() as pumps:
                pumps.start_soon(_Pump(self, "down", target, client).run)
                await _Pump(self, "up", client, target).run()

    def end(self, how: Cut) -> None:
        """Let nothing more through from now on, and have the sockets closed in this way."""
        self.ending = how
        self._scope.cancel()

    def close(self) -> None:
        for sock in self._sockets:
            try:
                if self.ending == "rst":
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                else:
                    # Without this, a close with unread input would send a RST and no FIN.
                    sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # the other side was faster
            sock.close()


class _Pump:
    """One direction of one connection: from its source, through its line, to its sink."""

    def __init__(self, connection: _Connection, direction: Direction, source: socket.socket, sink: socket.socket):
        self._connection = connection
        self._proxy = connection.proxy
        self._gate = connection.proxy._gates[direction]
        self._source = source
        self._sink = sink
        self._line: deque[tuple[float, bytes | None]] = deque()  # when due, and what: bytes, b"" a FIN, None a reset
        self._held = 0  # bytes in the line
        self._ended = False  # the line's last entry is a FIN or a reset
        self._free_at = 0.0  # when a limited link has sent all that it was given

    async def run(self) -> None:
        while self._connection.ending is None:
            due = self._line[0][0] if self._line else math.inf
            if due <= anyio.current_time():
                _, data = self._line.popleft()
                if not data:
                    await self._forward_end(data)
                    return
                self._held -= len(data)
                await self._forward(data)
            elif self._has_room():
                with anyio.CancelScope(deadline=due):
                    await self._read()
            else:
                await anyio.sleep_until(due)

    def _has_room(self) -> bool:
        chaos = self._proxy.chaos
        # A limited link holds what is under way, that is rate times delay; more would only be hidden queueing.
        most = _MOST_HELD if chaos.rate is None else min(_MOST_HELD, chaos.rate * chaos.delay)
        return not self._ended and self._held <= most and len(self._line) < _MOST_CHUNKS

    async def _read(self) -> None:
        """Wait for input and put one chunk in the line; being cancelled loses nothing."""
        await anyio.wait_readable(self._source)
        chaos = self._proxy.chaos
        size = chaos.chunk if chaos.rate is None else min(chaos.chunk, math.ceil(chaos.rate * _TICK))
        data: bytes | None
        try:
            data = self._source.recv(size)
        except BlockingIOError:
            return
        except OSError:
            data = None
        self._ended = not data
        due = anyio.current_time()
        if data and chaos.rate is not None:
            due = self._free_at = max(self._free_at, due) + len(data) / chaos.rate
        self._held += len(data or b"")
        self._line.append((due + chaos.delay, data))

    async def _forward(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            await self._gate.wait()
            if not self._connection.passing:
                return
            try:
                sent = self._sink.send(rest[: self._proxy._until_cut])
            except BlockingIOError:
                await anyio.wait_writable(self._sink)
            except OSError:
                self._connection.end("rst")
            else:
                rest = rest[sent:]
                self._proxy._forwarded(sent, self._connection)

    async def _forward_end(self, data: bytes | None) -> None:
        await self._gate.wait()
        if not self._connection.passing:
            return
        if data is None:
            self._connection.end("rst")
        else:
            try:
                self._sink.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # the sink is dead; the other direction finds out


def _is_path(host: str) -> bool:
    return "/" in host


async def _resolve(host: str, port: int) -> list[_Place]:
    if _is_path(host):
        return [(socket.AF_UNIX, host)]
    found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, address) for family, _, _, _, address in found]


def _bind(place: _Place, *, listen: bool) -> socket.socket:
    family, address = place
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        # The port is bound again while connections of the last time still live.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        if listen:
            sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


async def _connect(places: list[_Place]) -> socket.socket:
    """A connection to the first place that answers; the last OSError if none does."""
    *others, last = places
    for place in others:
        try:
            return await _connect_one(place)
        except OSError:
            pass
    return await _connect_one(last)


async def _connect_one(place: _Place) -> socket.socket:
    family, address = place
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        failure = sock.connect_ex(address)
        if failure in _CONNECTING:
            await anyio.wait_writable(sock)
            failure = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failure:
            raise OSError(failure, os.strerror(failure))
    except BaseException:
        sock.close()
        raise
    return sock
