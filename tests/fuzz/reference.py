"""The specification once more, in as few words as possible and without a line of the library: what the core is compared
with.

Everything here looks at the whole of its input at once, copies as it likes, and prefers the plain way to the fast one.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

__all__ = ["ENDLESS", "PROTOCOL", "TOO_LARGE", "Found", "NotAMap", "cut", "parse_frames", "parse_map"]

PROTOCOL, TOO_LARGE = 8, 10

#: body sizes by type (P-FRAME-4): least and most
BODIES = {
    0x01: (0, 4094), 0x02: (0, 4094), 0x03: (0, 4094), 0x10: (8, None), 0x11: (32, 32), 0x12: (18, 18),
    0x13: (26, 538), 0x14: (8, 8), 0x20: (8, 8), 0x21: (8, 8), 0x30: (10, 522),
}  # fmt: skip

#: no end in sight: what a stream that is not finished ends with
ENDLESS = None


class Found(NamedTuple):
    """Frames as (type, flags, body), the code of the fault that ended them, and how many bytes lie behind them."""

    frames: list[tuple[int, int, bytes]]
    fault: int | None
    rest: int


def parse_frames(stream: bytes, limit: int) -> Found:
    """P-FRAME-1 to P-FRAME-5, from the whole stream."""
    frames: list[tuple[int, int, bytes]] = []
    while len(stream) >= 6:
        length, kind, flags = int.from_bytes(stream[:4], "big"), stream[4], stream[5]
        least, most = BODIES.get(kind, (0, None))
        if length > limit:
            return Found(frames, TOO_LARGE, len(stream))
        if length < 2 + least or (most is not None and length > 2 + most):
            return Found(frames, PROTOCOL, len(stream))
        if len(stream) < 4 + length:
            break
        frames.append((kind, flags, stream[6 : 4 + length]))
        stream = stream[4 + length :]
    return Found(frames, ENDLESS, len(stream))


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    """The stream in chunks; places beyond its end, and the same place twice, make empty chunks."""
    bounds = [0, *sorted(min(place, len(stream)) for place in places), len(stream)]
    return [stream[start:end] for start, end in pairwise(bounds)]


class NotAMap(Exception):
    """The bytes break one of P-MAP-1 to P-MAP-3."""


def parse_map(data: bytes) -> dict[str, Any]:
    """A map of the closed set, by P-MAP-1 to P-MAP-4; raises NotAMap."""
    if len(data) > 4096:
        raise NotAMap("too long")
    value, end = _value(data, 0, 0)
    if end != len(data) or type(value) is not dict:
        raise NotAMap("no map, or more than one")
    return value


def _value(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    """The value that begins at a place, found at that depth, and where it ends."""
    head, at = _number(data, at, 1)
    if head < 0x80:
        return head, at
    if head in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[head], at
    if 0xCC <= head <= 0xCF:
        return _number(data, at, 1 << (head - 0xCC))
    if 0xA0 <= head < 0xC0 or 0xD9 <= head <= 0xDB:
        size, at = (head & 0x1F, at) if head < 0xC0 else _number(data, at, 1 << (head - 0xD9))
        try:
            return _bytes(data, at, size).decode(), at + size
        except UnicodeDecodeError:
            raise NotAMap("no UTF-8") from None
    if 0xC4 <= head <= 0xC6:
        size, at = _number(data, at, 1 << (head - 0xC4))
        return _bytes(data, at, size), at + size
    if 0xD0 <= head <= 0xD3 and _bytes(data, at, 1) < b"\x80":  # signed, and not negative
        return _number(data, at, 1 << (head - 0xD0))
    if head >= 0xE0 or head in (0xC1, *range(0xC7, 0xCC), *range(0xD0, 0xD9)):
        raise NotAMap("a negative number, a float, an extension, or the byte that is never used")
    count, at = (head & 0x0F, at) if head < 0xA0 else _number(data, at, 2 if head in (0xDC, 0xDE) else 4)
    if depth == 4 or count > 64:
        raise NotAMap("too deep, or too many items")
    items: list[Any] = []
    for _ in range(count * (2 if head < 0x90 or head >= 0xDE else 1)):
        item, at = _value(data, at, depth + 1)
        items.append(item)
    if 0x90 <= head < 0xA0 or head in (0xDC, 0xDD):
        return items, at
    keys = items[::2]
    if any(type(key) is not str for key in keys) or len(set(keys)) < len(keys):
        raise NotAMap("a key that is no str, or twice the same")
    return dict(zip(keys, items[1::2], strict=True)), at


def _bytes(data: bytes, at: int, size: int) -> bytes:
    if at + size > len(data):
        raise NotAMap("cut off")
    return data[at : at + size]


def _number(data: bytes, at: int, size: int) -> tuple[int, int]:
    return int.from_bytes(_bytes(data, at, size), "big"), at + size
