"""One byte stream as its driver holds it: the part that every driver shares.

Theory of operation
-------------------
A driver's link moves bytes between a stream and the core's :class:`~networkio_proto.connection.Connection`, and carries
out what the core wants done with the stream: :meth:`LinkHandle.transmit` and :meth:`LinkHandle.close`.  Both are called
inside, and only note what is to be done.
"""

from __future__ import annotations

from typing import Any

from .connection import Connection
from .events import Close

__all__ = ["LinkHandle"]


class LinkHandle:
    """One connection and its stream."""

    __slots__ = ("closing", "connection", "node")

    def __init__(self, node: Any, connection: Connection) -> None:
        self.node: Any = node
        self.connection = connection
        #: the core is done with it: what it still says is to be written, then the stream is closed
        self.closing = False

    def transmit(self) -> None:
        """The core has something to send."""
        raise NotImplementedError

    def close(self, effect: Close) -> None:
        """The core is done with it: flush, half-close and read on, or (without ``effect.flush``) drop it now."""
        raise NotImplementedError

    def lost(self, error: BaseException | None) -> None:
        """From the driver: the stream broke (``error``) or ended.  :meth:`close` follows."""
        with self.node.inside as now:
            self.connection.connection_lost(now, error)
