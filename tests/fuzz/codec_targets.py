"""Targets: the maps of handshake and headers, and the payload codec."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from math import isnan
from typing import Any
from uuid import UUID

from networkio_proto import DecodeError, EncodeError, MsgpackCodec
from networkio_proto.maps import decode_map, encode_map
from tests.fuzz.reader import Reader
from tests.fuzz.reference import NotAMap, parse_map

__all__ = ["maps", "objects", "payload"]


def maps(data: bytes) -> None:
    """A map is read exactly when the specification has it so, and comes back the same when it is written again."""
    expected: dict[str, Any] | None
    try:
        expected = parse_map(data)
    except NotAMap:
        expected = None
    try:
        found = decode_map(data)
    except ValueError:
        assert expected is None, "a map that is none"
        return
    assert _same(found, expected)
    assert _same(decode_map(encode_map(found)), found)


@dataclass(frozen=True)
class Point:
    """A dataclass that the codec knows."""

    x: object
    y: object = None


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Right(enum.Flag):
    READ = 1
    WRITE = 2


def _codec(*, depth: int = 32, elements: int = 65_536) -> MsgpackCodec:
    codec = MsgpackCodec(max_depth=depth, max_elements=elements)
    for number, cls in enumerate((Point, Colour, Right)):
        codec.register(number, cls)
    return codec


_CODECS = (_codec(), _codec(depth=3, elements=40))


def payload(data: bytes) -> None:
    """Any bytes are an object within the limits or a DecodeError; what was read comes back when it is sent on."""
    for codec, depth, elements in zip(_CODECS, (32, 3), (65_536, 40), strict=True):
        try:
            found = codec.decode(data)
        except DecodeError:
            continue
        assert _depth(found) <= depth
        assert _elements(found) <= 2 * elements  # a field that was left out, and a mark, count too
        try:
            encoded = codec.encode(found)
        except EncodeError:
            if _elements(found) <= elements // 2:
                raise
            continue  # fields that were left out when it was read count when it is written
        assert _same(codec.decode(encoded), found)


def objects(data: bytes) -> None:
    """An object made out of the bytes comes back equal and of the same types, or is refused where it is sent."""
    reader = Reader(data)
    made = _object(reader, 0)
    for codec in _CODECS:
        try:
            encoded = codec.encode(made)
        except EncodeError:
            assert codec is not _CODECS[0] or _depth(made) > 32, "refused without a reason"
            continue
        assert _same(codec.decode(encoded), made)


def _object(reader: Reader, depth: int) -> object:
    kind = reader.byte() % 20
    if depth > 34 or kind < 8:
        return _leaf(reader, kind)
    if kind < 14:
        return (
            None, True, Decimal(reader.number()).scaleb(reader.byte() - 128), complex(reader.number(), 0.5),
            UUID(bytes=reader.take(16).ljust(16)), date.fromordinal(1 + reader.number() % 3_652_059),
        )[kind - 8]  # fmt: skip
    if kind == 14:
        zone = timezone(timedelta(minutes=reader.byte() - 128))
        moment = datetime(1 + reader.number() % 9000, 1, 1, fold=reader.byte() % 2)
        return moment.replace(tzinfo=zone) if reader.byte() % 2 else moment
    children = [_object(reader, depth + 1) for _ in range(reader.byte() % 6)]
    if kind == 15:
        return children
    if kind == 16:
        return tuple(children)
    hashable = [child for child in children if _hashable(child)]
    if kind == 17:
        return set(hashable) if reader.byte() % 2 else frozenset(hashable)
    if kind == 18:
        return {key: _object(reader, depth + 1) for key in hashable}
    return Point(*children[:2]) if children else (Colour.RED, Right.READ | Right.WRITE, Right(0))[reader.byte() % 3]


def _leaf(reader: Reader, kind: int) -> object:
    leaves: tuple[Callable[[], object], ...] = (
        lambda: None,
        lambda: bool(reader.byte() & 1),
        reader.byte,
        lambda: reader.number() - 2**31,
        lambda: reader.number() ** (1 + reader.byte() % 30) * (-1) ** reader.byte(),
        lambda: reader.number() / (1 + reader.byte()),
        lambda: reader.take(reader.byte()).decode("latin-1"),
        lambda: reader.take(reader.byte()),
    )
    return leaves[kind % 8]()


def _hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _same(one: Any, other: Any) -> bool:
    """Equal and of the same types at every level; a NaN is itself."""
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict):
        return len(one) == len(other) and all(map(_same, _sorted(one), _sorted(other)))
    if isinstance(one, (set, frozenset)):
        return len(one) == len(other) and all(map(_same, _sorted(one), _sorted(other)))
    if isinstance(one, Point):
        return _same((one.x, one.y), (other.x, other.y))
    if isinstance(one, (float, Decimal)) and isnan(one):
        return repr(one) == repr(other)
    if isinstance(one, complex) and one != one:
        return repr(one) == repr(other)
    return bool(one == other)


def _sorted(container: Any) -> list[Any]:
    """The elements, or the items, of a container without an order, in an order."""
    return sorted(container.items() if isinstance(container, dict) else container, key=_key)


def _key(value: object) -> str:
    if isinstance(value, (set, frozenset)):
        return f"{type(value).__name__}({','.join(sorted(map(_key, value)))})"
    if isinstance(value, tuple):
        return f"({','.join(map(_key, value))})"
    return repr(value)


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value, *value.values()]
    if isinstance(value, Point):
        return [value.x, value.y]
    return list(value) if isinstance(value, (list, tuple, set, frozenset)) else []


def _depth(value: object) -> int:
    """How deep it nests; what holds nothing and is no container has depth 0."""
    if not isinstance(value, (list, tuple, set, frozenset, dict, Point)):
        return 0
    return 1 + max(map(_depth, _children(value)), default=0)


def _elements(value: object) -> int:
    return 1 + sum(map(_elements, _children(value)))
