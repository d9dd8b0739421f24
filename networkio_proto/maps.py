"""The maps of the handshake and of message headers: a closed set of types under tight bounds.

Theory of operation
-------------------
These maps are read before the peer is known, so they can hold little: nil, bool, unsigned int (64 bits), str, bin,
array and map with str keys; at most 4,096 bytes, 4 levels (the outermost map is the first), 64 items in an array or
map, no key twice, and nothing after the map.  Within 4,096 bytes and 64 items a container, msgpack can do no harm, so
the bytes are unpacked first and looked at afterwards.  The same look is taken at what is to be encoded: whatever is
encoded can be decoded, and comes back equal (a tuple as a list).
"""

from __future__ import annotations

from typing import Any

import msgpack

__all__ = ["MAX_MAP_BYTES", "MAX_MAP_DEPTH", "MAX_MAP_ITEMS", "decode_map", "encode_map"]

MAX_MAP_BYTES = 4_096
MAX_MAP_DEPTH = 4
MAX_MAP_ITEMS = 64

_UINT_END = 2**64
_LEAVES = frozenset((type(None), bool, str, bytes))


def encode_map(value: dict[str, object]) -> bytes:
    """Return the bytes of a map.

    Raises ValueError, which says why, if ``value`` holds anything outside of the closed set or its bounds.
    """
    _check_map(value)
    try:
        data = msgpack.packb(value)
    except UnicodeEncodeError as exc:
        raise ValueError("map: text that UTF-8 cannot carry") from exc
    if len(data) > MAX_MAP_BYTES:
        raise ValueError(f"map: {len(data)} bytes, at most {MAX_MAP_BYTES} are allowed")
    return data


def decode_map(data: bytes | memoryview) -> dict[str, object]:
    """Return the map that ``data`` stands for; raises ValueError, which says why, if it stands for none."""
    if len(data) > MAX_MAP_BYTES:
        raise ValueError(f"map: {len(data)} bytes, at most {MAX_MAP_BYTES} are allowed")
    try:
        value: Any = msgpack.unpackb(
            data,
            max_array_len=MAX_MAP_ITEMS,
            max_map_len=MAX_MAP_ITEMS,
            object_pairs_hook=_distinct,
            ext_hook=_refuse_extension,
        )
    except Exception as exc:
        raise ValueError(f"map: {str(exc) or type(exc).__name__}") from exc
    return _check_map(value)


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("the same key twice")
    return found


def _refuse_extension(code: int, data: bytes) -> object:
    raise ValueError(f"extension {code}")


def _check_map(value: Any) -> dict[str, object]:
    if type(value) is not dict:
        raise ValueError(f"map: {type(value).__name__} instead of a map")
    _check(value, 1)
    return value


def _check(value: Any, depth: int) -> None:
    """Raise ValueError unless ``value``, found at this depth, is a container of the closed set within its bounds."""
    kind = type(value)
    if kind is dict or kind is list or kind is tuple:
        if depth > MAX_MAP_DEPTH:
            raise ValueError(f"map: nested deeper than {MAX_MAP_DEPTH}")
        if len(value) > MAX_MAP_ITEMS:
            raise ValueError(f"map: {len(value)} items in one container, at most {MAX_MAP_ITEMS} are allowed")
        if kind is dict:
            for key in value:
                if type(key) is not str:
                    raise ValueError(f"map: a key that is {type(key).__name__}, not str")
            value = value.values()
        for item in value:
            kind = type(item)
            if kind not in _LEAVES and not (kind is int and 0 <= item < _UINT_END):  # what a leaf must be
                _check(item, depth + 1)
    elif kind is int:
        raise ValueError("map: an int that is not 0 to 2**64 - 1")
    else:
        raise ValueError(f"map: {kind.__name__} is not allowed")
