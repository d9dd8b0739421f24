"""One socket and its core connection: the roles that read and that write, and nothing that decides.

Theory of operation
-------------------
The node's loop reads: bytes go to the core, and nothing waits.  Writing is a *token*, not a thread: whoever has caused
something to be sent takes the token if it is free and writes what the core gives, without the node's lock, as long as
the socket takes it.  So the reply of an application leaves in the application's own thread, without a switch.  What the
socket does not take at once, and what would keep an application's thread busy with other threads' messages, is left to
the loop.
"""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

from networkio_proto import Close
from networkio_proto.links import BATCH, Carried, LinkHandle
from networkio_sockets import backlog_of

from ._loop import READ, WRITE

if TYPE_CHECKING:
    from ._node import Node

#: so many batches of the core's bytes are written by one who has other things to do; the loop goes on with the rest
_BATCHES = 4


class Link(LinkHandle):
    """Drives one connection over one socket."""

    __slots__ = ("_blocked", "_gone", "_left", "_shut", "_socket", "_token", "_wanted")

    def __init__(self, node: Node, connection: Carried, sock: socket.socket) -> None:
        super().__init__(node, connection)
        self._socket = sock
        connection.backlog = backlog_of(sock, lambda: len(self._left or b""))
        #: whoever holds it writes
        self._token = threading.Lock()
        self._wanted = False
        #: bytes that the core gave out and the socket did not take yet
        self._left: memoryview | None = None
        #: the loop will go on writing
        self._blocked = False
        self._shut = False
        self._gone = False

    def start(self) -> None:
        """In the loop: from now on it reads."""
        if not self._gone:
            self.node.loop.register(self._socket, READ, self._ready)

    def transmit(self) -> None:
        """Inside: the core has something to send; whoever is inside writes it, if that is urgent and it has left."""
        if self.connection.prompt or self.node.loop.here:
            self.node.writers.append(self)
        else:
            self.node.loop.call(self.flush)

    def close(self, effect: Close) -> None:
        """Inside: the core is done with it.  Flush, half-close and read on, or drop it now."""
        self.closing = True
        self.node.loop.call(self.flush if effect.flush else self.drop)

    def abandon(self) -> None:
        """In a forked child: it is the parent's."""
        self._socket.close()

    # -- in the loop ----------------------------------------------------------------------------------------------

    def _ready(self, events: int) -> None:
        if self._gone:
            return
        if events & WRITE:
            self._blocked = False
            self.flush()
            if not self._blocked:  # whoever sets it from now on asks for WRITE again
                self.node.loop.register(self._socket, READ, self._ready)
        if events & READ and not self._gone:
            self._read()

    def _read(self) -> None:
        try:
            count = self._socket.recv_into(self.node.loop.chunk.view)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.lost(error)
            return
        if not count:
            self.lost(None)
            return
        with self.node.inside as now:
            self.connection.receive_data(self.node.loop.chunk.received(count), now)

    def _go_on_writing(self) -> None:
        if not self._gone:
            self.node.loop.register(self._socket, READ | WRITE, self._ready)

    def drop(self) -> None:
        """In the loop: close the socket.  Idempotent."""
        if not self._gone:
            self._gone = True
            with self._token:  # nobody writes to a number that may be another socket's by then
                self.node.loop.drop(self._socket)
            self.node.unlink(self)

    # -- in any thread, without the lock --------------------------------------------------------------------------

    def flush(self) -> None:
        """There may be something to send: write it, or leave it to whoever is writing already."""
        self._wanted = True
        batches = _BATCHES
        while self._wanted and not self._blocked and self._token.acquire(blocking=False):
            error: OSError | None = None
            try:
                self._wanted = False
                if not self._gone:
                    batches = self._write(batches)
                    self._blocked = not batches
            except OSError as failed:
                error = failed
            finally:
                self._token.release()
            if error is not None:
                self.lost(error)
                return
            if not batches:
                self.node.loop.call(self._go_on_writing)
                return

    def _write(self, batches: int) -> int:
        """Send what there is, at most so many batches; how many more might be sent, 0 if the loop must go on."""
        while self._left is not None or self._take():
            assert self._left is not None
            try:
                sent = self._socket.send(self._left)
            except (BlockingIOError, InterruptedError):
                return 0
            self._left = self._left[sent:] if sent < len(self._left) else None
            batches -= 1
            if not batches:
                return 0
        return batches

    def _take(self) -> bool:
        """Get the next bytes from the core; at the end of a closing connection, say so to the peer."""
        with self.node.inside as now:
            buffers = self.connection.data_to_send(now, BATCH)
        if buffers:
            self._left = memoryview(b"".join(buffers))
        elif self.closing and not self._shut:
            self._shut = True
            self._socket.shutdown(socket.SHUT_WR)
        return bool(buffers)
