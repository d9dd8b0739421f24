"""Byte streams, and where they come from, as their driver holds them: the part that every driver shares.

Theory of operation
-------------------
A driver's link moves bytes between a stream and the core's :class:`~networkio_proto.connection.Connection`, and carries
out what the core wants done with the stream: :meth:`LinkHandle.transmit` and :meth:`LinkHandle.close`.  Both are called
inside, and only note what is to be done.  At the end of the stream, whoever brought it about, the driver says so once
(:meth:`LinkHandle.over`).

A driver's listener accepts streams.  When the operating system lets that fail, it tells so
(:meth:`ListenerHandle.failed`), and pauses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from .connection import Connection
from .events import Close, Log
from .logbook import WARNING

__all__ = ["BATCH", "Carried", "LinkHandle", "ListenerHandle", "Security"]

S = TypeVar("S")

#: what a driver asks for at a time if it can tell how much of that is still under way (bytes).  From others silence for
#: as long as a slow line needs for so much would look like a line that has stalled.
BATCH = 256 * 1024

#: out of descriptors or memory, most likely: accepting pauses for so long (seconds), and does not spin
_ACCEPT_PAUSE = 0.1


class Carried(Protocol):
    """What a link carries bytes for: a core connection, or what stands around one; the calls are the connection's."""

    backlog: Callable[[], int] | None

    @property
    def prompt(self) -> bool: ...

    def receive_data(self, data: bytes | bytearray | memoryview, now: float) -> None: ...

    def data_to_send(self, now: float, max_bytes: int = 65536) -> list[bytes | memoryview]: ...

    def connection_lost(self, now: float, exc: BaseException | None = None) -> None: ...


class Channel(Carried, Protocol):
    """What stands around a connection."""

    #: what carries it; whoever made both says so before the first call
    link: LinkHandle


class Security(Protocol):
    """What protects the streams of a node (``networkio_tls.TLS``)."""

    @property
    def verifies(self) -> bool:
        """Does nobody get through but those whose certificate is good?"""

    def channel(self, connection: Connection) -> Channel:
        """What stands around this connection."""


class LinkHandle:
    """One connection and its stream."""

    __slots__ = ("closing", "connection", "core", "node")

    def __init__(self, node: Any, connection: Carried) -> None:
        self.node: Any = node
        #: what the stream's bytes are for
        self.connection = connection
        #: the core's connection in it
        self.core: Any = connection
        #: the core is done with it: what it still says is to be written, then the stream is closed
        self.closing = False

    def transmit(self) -> None:
        """The core has something to send."""
        raise NotImplementedError

    def close(self, effect: Close) -> None:
        """The core is done with it: flush, half-close and read on, or (without ``effect.flush``) drop it now."""
        self.closing = True
        if effect.flush:
            self.transmit()
        else:
            self.drop()

    def drop(self) -> None:
        """Close the stream now; what was not written yet is lost.  Harmless when it is closed."""
        raise NotImplementedError

    def lost(self, error: BaseException | None) -> None:
        """From the driver: the stream broke (``error``) or ended.  :meth:`close` follows."""
        with self.node.inside as now:
            self.connection.connection_lost(now, error)

    def over(self, error: BaseException | None) -> None:
        """From the driver, once: it has closed the stream, or does so now."""
        self.node.unlink(self)
        self.lost(error)


class ListenerHandle(Generic[S]):
    """Addresses that a node accepts connections on."""

    def __init__(self, node: Any, sockets: list[S]) -> None:
        self._node: Any = node
        #: the driver's own kind of what accepts, one for each address
        self._sockets = sockets
        self._failing = False

    def accepted(self, stream: Any, source: str) -> None:
        """A stream came, from ``source``.  Raises NodeClosed if it came too late; the driver closes it then."""
        self._failing = False
        self._node.serve_stream(stream, source=source)

    def failed(self, error: OSError) -> float:
        """Accepting failed, which is told once until it works again: how long to pause (seconds)."""
        if not self._failing:
            self._failing = True
            with self._node.inside:
                self._node.log(Log(WARNING, "accepting a connection failed: %s", (error,)))
        return _ACCEPT_PAUSE
