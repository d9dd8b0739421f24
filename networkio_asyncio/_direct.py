"""The short way on asyncio: sockets whose transports call the core, without a task for each connection.

Theory of operation
-------------------
A :class:`DirectLink` is the protocol of one transport of the event loop (``asyncio``'s own, uvloop's).  What comes is
handed to the core in the turn of the loop in which it comes.  What is to be sent is noted, and goes out once in a turn,
so that whatever was sent in the same turn shares a write.  The transport keeps nothing back: the core is asked for more
only when its buffer is empty, and is told how much is in it (``Connection.backlog``); so the core judges the stream.

The link is there before its transport: it gets a connected socket, and is the transport's protocol from the beginning.
So nothing can come before there is a connection of the core to take it.  Sockets come from :func:`connect_tcp`,
:func:`connect_unix`, and an :class:`Acceptor` of each listening socket.

An event loop only logs what a protocol raises.  What the core raises here is a bug, and ends the node instead
(``Node.fail``), as it does where a task of the node calls the core.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from itertools import chain, zip_longest
from math import inf
from typing import TYPE_CHECKING, Any

import anyio

from networkio_proto import NodeClosed
from networkio_proto.links import BATCH, Carried, LinkHandle, ListenerHandle
from networkio_sockets import backlog_of

if TYPE_CHECKING:
    from ._node import Node

#: of several addresses, each is dialled so much later than the one before (seconds; RFC 8305 calls it the delay)
_STAGGER = 0.25

#: so many connections are accepted in one turn of the event loop
_ACCEPTS = 64


def usable() -> bool:
    """Is this an event loop whose transports can be used directly?

    Those of Windows' proactor read ahead, and all links of a node share a buffer.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return False
    if asyncio.current_task() is None:  # trio, as a guest of it
        return False
    return not isinstance(loop, getattr(asyncio, "ProactorEventLoop", ()))


class DirectLink(LinkHandle, asyncio.BufferedProtocol):
    """Drives one connection over one transport."""

    __slots__ = ("_blocked", "_chunk", "_dropped", "_due", "_opening", "_shut", "_transport")

    def __init__(self, node: Node, connection: Carried, sock: socket.socket) -> None:
        super().__init__(node, connection)
        self._transport: asyncio.Transport | None = None
        #: the task that makes it
        self._opening: asyncio.Task[None] | None = node.loop.create_task(self._open(sock))
        self._chunk = node.chunk
        #: a flush is on its way
        self._due = False
        #: the transport holds bytes that the socket did not take
        self._blocked = False
        #: nothing follows from this side
        self._shut = False
        self._dropped = False

    async def _open(self, sock: socket.socket) -> None:
        """Make a transport of a connected socket; from then on, everything happens in the transport's calls."""
        error: Exception | None = None
        try:
            if sock.family in (socket.AF_INET, socket.AF_INET6):  # asyncio does so only where the protocol is spelt out
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self.node.loop.connect_accepted_socket(lambda: self, sock)
        except Exception as failed:
            error = failed
        finally:
            self._opening = None
            if self._transport is None:  # else that calls :meth:`connection_lost`
                self._dropped = True
                sock.close()
                self._attempt(self.over, error)

    def transmit(self) -> None:
        """The core has something to send."""
        if not self._due:
            self._due = True
            self.node.loop.call_soon(self._flush)

    def drop(self) -> None:
        """Close the socket now."""
        self._dropped = True
        if self._transport is not None:
            self._transport.abort()

    # -- the transport's calls --------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """There it is."""
        self._transport = transport
        transport.set_write_buffer_limits(0)
        self.connection.backlog = self._backlog
        if self._dropped:
            transport.abort()
        else:
            self.transmit()  # what was flushed before there was a transport

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go: a place of the node's, for the core keeps no part of it."""
        return self._chunk.view

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came."""
        node = self.node
        try:
            now = node.enter()
            try:
                self.connection.receive_data(self._chunk.received(nbytes), now)
            finally:
                node.leave()
        except Exception as error:
            node.fail(error)

    def eof_received(self) -> bool:
        """The peer's half of the stream ended; the core says what becomes of the other."""
        self._attempt(self.lost, None)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The stream is over, and its socket closed after this."""
        self._dropped = True
        self.connection.backlog = None
        self._attempt(self.over, exc)

    def pause_writing(self) -> None:
        """The socket did not take all."""
        self._blocked = True

    def resume_writing(self) -> None:
        """It has taken the rest."""
        self._blocked = False
        self.transmit()

    # -- writing ----------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Send what there is."""
        self._due = False
        self._attempt(self._write)

    def _write(self) -> None:
        transport, connection, node = self._transport, self.connection, self.node
        if transport is None or self._shut:
            return
        left = BATCH  # in one turn of the event loop; then others have theirs
        while left > 0:
            if self._blocked or transport.is_closing():
                return
            now = node.enter()
            try:
                buffers = connection.data_to_send(now, BATCH)
            finally:
                node.leave()
            if not buffers:
                if self.closing:
                    self._shut = True
                    with suppress(OSError):  # it is broken, which will be told
                        transport.write_eof()
                return
            transport.write(data := b"".join(buffers))
            left -= len(data)
        self.transmit()

    def _backlog(self) -> int:
        """Made anew for each look, of which there are few: an idle connection need not keep what asks."""
        assert self._transport is not None
        asks = backlog_of(self._transport.get_extra_info("socket"), self._transport.get_write_buffer_size)
        assert asks is not None
        return asks()

    def _attempt(self, action: Callable[..., object], *arguments: object) -> None:
        """What the core raises must not end in the event loop's log."""
        try:
            action(*arguments)
        except Exception as error:
            self.node.fail(error)


class Acceptor:
    """Takes what comes to one listening socket, without a task."""

    def __init__(self, listener: ListenerHandle[Any], node: Node, sock: Any) -> None:
        self._listener = listener
        self._node = node
        self._socket = sock
        self._pause: asyncio.TimerHandle | None = None
        self._begin()

    def _begin(self) -> None:
        self._node.loop.add_reader(self._socket, self._ready)

    def end(self) -> None:
        """Accept no more; the socket is not closed.  Idempotent."""
        self._node.loop.remove_reader(self._socket)
        if self._pause is not None:
            self._pause.cancel()

    def _ready(self) -> None:
        try:
            for _ in range(_ACCEPTS):
                if not self._accept():
                    return
        except Exception as error:
            self._node.fail(error)

    def _accept(self) -> bool:
        """Take one connection, if there is one and the system has the means."""
        try:
            sock, address = self._socket.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False
        except OSError as error:
            self.end()
            self._pause = self._node.loop.call_later(self._listener.failed(error), self._begin)
            return False
        sock.setblocking(False)
        try:
            self._listener.accepted(sock, str(address[0]) if isinstance(address, tuple) else "")
        except NodeClosed:  # it came too late
            sock.close()
        return True


# -- dialling ---------------------------------------------------------------------------------------------------------


async def connect_tcp(host: str, port: int) -> socket.socket:
    """Dial the addresses of the host, each a little later than the one before; the first that answers wins.

    Raises the OSError of the first that failed.
    """
    addresses = await _addresses(host, port)
    if len(addresses) == 1:
        return await _connect(*addresses[0])
    found: list[socket.socket] = []
    errors: list[OSError] = []

    async def attempt(family: int, address: Any, over: anyio.Event) -> None:
        try:
            found.append(await _connect(family, address))
        except OSError as error:
            errors.append(error)
            over.set()
        else:
            tasks.cancel_scope.cancel()

    try:
        async with anyio.create_task_group() as tasks:
            for family, address in addresses:
                over = anyio.Event()
                tasks.start_soon(attempt, family, address, over)
                with anyio.move_on_after(_STAGGER):
                    await over.wait()
        if not found:
            raise errors[0]
        return found.pop()
    finally:
        for sock in found:
            sock.close()


async def connect_unix(path: str) -> socket.socket:
    """Dial a UNIX socket."""
    return await _connect(socket.AF_UNIX, path)


async def _connect(family: int, address: Any) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


async def _addresses(host: str, port: int) -> list[tuple[int, Any]]:
    """The families and addresses of a host, the families in turn."""
    try:
        return [(socket.AF_INET if ip_address(host).version == 4 else socket.AF_INET6, (host, port))]
    except ValueError:
        found = [(each[0], each[4]) for each in await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    same = [each for each in found if each[0] == found[0][0]]
    other = [each for each in found if each[0] != found[0][0]]
    return [each for each in chain(*zip_longest(same, other)) if each is not None]


# -- waiting ----------------------------------------------------------------------------------------------------------


class DirectToken(asyncio.Future[bool]):
    """Something to wait for; its result is whether it came in time."""

    def set(self) -> None:
        """It came."""
        if not self.done():
            self.set_result(True)

    def expire(self) -> None:
        """It did not."""
        if not self.done():
            self.set_result(False)


async def wait(token: DirectToken, deadline: float) -> bool:
    """Wait for it until then (the loop's clock; infinity: for ever); did it come?"""
    if deadline == inf:
        return await token
    timer = token.get_loop().call_at(deadline, token.expire)
    try:
        return await token
    finally:
        timer.cancel()
