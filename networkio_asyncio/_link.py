"""One byte stream of anyio and its core connection: the three roles of an adapter, and nothing that decides.

``_read`` only reads: it hands bytes to the core, never writes, never waits for the application.  ``_write`` is the only
place that sends: it takes the bytes from the core first and waits for the stream with nothing in its hands.  Timers are
served elsewhere (``Node``), and may only kill: a stuck write cannot hide a dead peer.

This is the way of trio, and of streams that come from the application; asyncio has a shorter one for its own sockets
(:mod:`~networkio_asyncio._direct`).
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
from anyio.abc import ByteStream, SocketAttribute

from networkio_proto.links import Carried, LinkHandle
from networkio_sockets import backlog_of

if TYPE_CHECKING:
    from ._node import Node

logger = logging.getLogger("networkio.asyncio")

_CHUNK = 65536


class Link(LinkHandle):
    """Drives one connection over one anyio byte stream."""

    __slots__ = ("_scope", "_stream", "_wake")

    def __init__(self, node: Node, connection: Carried, stream: ByteStream) -> None:
        super().__init__(node, connection)
        self._stream = stream
        self._wake = anyio.Event()
        self._scope = anyio.CancelScope()
        with suppress(Exception):  # a user's stream may raise anything, or know nothing of attributes
            connection.backlog = backlog_of(stream.extra(SocketAttribute.raw_socket))

    def transmit(self) -> None:
        """The core has something to send."""
        self._wake.set()

    def drop(self) -> None:
        """Close the stream now."""
        self._scope.cancel()

    async def run(self) -> None:
        """Carry bytes until the stream is over; never raises because of it."""
        try:
            with self._scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._write)
                    await self._read()
                    tasks.cancel_scope.cancel()
        finally:
            self.over(None)
            try:
                await anyio.aclose_forcefully(self._stream)
            except Exception:  # a user's stream may raise anything
                logger.warning("closing the stream of %r failed", self.connection, exc_info=True)

    async def _read(self) -> None:
        receive, connection, inside = self._stream.receive, self.connection, self.node.inside
        while True:
            try:
                data = await receive(_CHUNK)
            except anyio.EndOfStream:
                self.lost(None)
                return
            except Exception as error:  # a user's stream may raise anything
                self.lost(error.__cause__ or error)
                return
            with inside as now:
                connection.receive_data(data, now)

    async def _write(self) -> None:
        send, connection, inside = self._stream.send, self.connection, self.node.inside
        while True:
            with inside as now:
                buffers = connection.data_to_send(now)
            try:
                if buffers:
                    await send(b"".join(buffers))
                    continue
                if self.closing:
                    await self._stream.send_eof()
                    return
            except Exception as error:
                if not self.closing:
                    self.lost(error.__cause__ or error)
                return
            self._wake = anyio.Event()
            await self._wake.wait()
