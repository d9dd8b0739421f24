"""How targets read the bytes that they are given."""

from __future__ import annotations

__all__ = ["Reader", "mended"]


def mended(stream: bytes, limit: int) -> bytes:
    """The same frames, but no length points beyond the end of the stream; what is no frame any more is left out."""
    out = bytearray()
    while len(stream) >= 6:
        length = int.from_bytes(stream[:4], "big")
        length = min(length % (limit + 2), len(stream) - 4)
        out += length.to_bytes(4, "big") + stream[4 : 4 + length]
        stream = stream[4 + length :]
    return bytes(out)


class Reader:
    """Bytes as numbers and pieces; zero when they are used up."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        piece = self._data[self._at : self._at + size]
        self._at += size
        return piece

    def byte(self) -> int:
        return int.from_bytes(self.take(1), "big")

    def number(self) -> int:
        return int.from_bytes(self.take(4), "big")
