"""Memory for what comes: where drivers receive it, and where a large message grows.

Theory of operation
-------------------
A large message is copied once on its way from the driver to the application: to memory that becomes its payload.  The
bytes of a ``BytesIO`` can be written through a view, and are an object of their own, which its ``getvalue`` hands out
as it is when they fill it.  (No view of one may live longer than a call: collected together with a view of it, a
``BytesIO`` complains on Python 3.13, and crashes 3.12.)

A peer says how large its message will be long before it has sent it.  Its word alone allocates nothing: memory grows
with what came, to 16 times as much up to ``_AT_ONCE`` bytes, and beyond to twice as much.
"""

from __future__ import annotations

from io import BytesIO

__all__ = ["Gathered", "ReceiveBuffer"]

#: up to here memory grows fast (bytes)
_AT_ONCE = 1024 * 1024
_FAST = 16

#: what a driver receives at a time, at most (bytes): at first, and where so much comes
_CHUNK, _LARGE_CHUNK = 64 * 1024, 256 * 1024


class ReceiveBuffer:
    """Memory for a driver to receive into, for one connection at a time: the core keeps no part of what it is fed.

    It becomes large where much comes at a time, so that a large message comes in few pieces.
    """

    __slots__ = ("view",)

    def __init__(self) -> None:
        #: where the next bytes go
        self.view = memoryview(bytearray(_CHUNK))

    def received(self, count: int) -> memoryview:
        """What came: the first ``count`` bytes; they are good until more is received."""
        data = self.view[:count]
        if count == len(self.view) < _LARGE_CHUNK:
            self.view = memoryview(bytearray(_LARGE_CHUNK))
        return data


class Gathered:
    """The bytes of one message, as they come."""

    __slots__ = ("_memory", "_room", "_size", "_total")

    def __init__(self, total: int) -> None:
        self._total = total
        self._size = self._room = 0
        self._memory = BytesIO()

    def add(self, piece: bytes | memoryview) -> None:
        """The next of them; there are never more than the total."""
        end = self._size + len(piece)
        if end > self._room:
            self._grow(end)
        with self._memory.getbuffer() as view:
            view[self._size : end] = piece
        self._size = end

    def _grow(self, least: int) -> None:
        before, self._room = self._memory, min(self._total, max(min(_FAST * least, _AT_ONCE), 2 * least))
        self._memory = BytesIO(bytes(self._room))
        with self._memory.getbuffer() as view:
            view[: self._size] = before.getbuffer()[: self._size]

    def take(self) -> bytes:
        """All of them.  Nothing can be added any more."""
        return self._memory.getvalue()
