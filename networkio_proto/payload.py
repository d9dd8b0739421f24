"""Objects to bytes and back: the payload of a message.

Theory of operation
-------------------
A :class:`Codec` turns one object into bytes and back.  :class:`MsgpackCodec`, the default, promises that an object
comes back equal and of the same type, or is refused where it is sent, with the path of the element that is at fault.

*Encoding.*  Plain data (None, bool, int, float, str, bytes, list, dict) is one call into msgpack's packer.  Everything
else reaches our hook by itself, because ``strict_types`` makes the packer pass on whatever is not exactly of a plain
type.  The hook answers with an extension or, for a container, with a list that starts with a *mark*: an empty extension
that tells what the list stands for.  So the encoding stays flat: nothing is packed inside something packed, one packer
does it in one pass, and every bound below can be checked on the bytes.

The packer alone is not strict enough.  It takes bytearray, memoryview and its own extension objects as they are, and it
nests deeper than a receiver allows.  All of that leaves traces in the output: a byte that could be the header of a
binary, an extension or a container.  Few messages have enough such bytes to be suspect; those are looked at again.

*Decoding.*  The bytes may come from an enemy, so their shape is checked before anything is built from them: depth,
number of elements, and that declared lengths are really there.  A payload has at least one byte for each element, so up
to ``max_elements`` bytes only the depth is left to check, which msgpack does for us (see ``_excess``); a longer one is
walked header by header.  Then msgpack builds plain data without any hook.  Where that meets a mark, or a long payload
an extension, it starts again with hooks that know marks and that refuse keys made to collide (see ``_Reading``).

Nothing is imported, unpickled or looked up by name on behalf of a payload.  The only code of the application that runs
is that of a class which it registered under the number that was received: its constructor and, for a key, its hash.

Wire format of the codec "msgpack"
----------------------------------
A payload is exactly one msgpack object.  nil, bool, int, float (64 bits), str (UTF-8), bin, array and map stand for
None, bool, int, float, str, bytes, list and dict; a key can be anything hashable.  The rest are extensions.  Numbers
are big-endian; ``u8``, ``i64`` and ``f64`` and the like are unsigned, signed and IEEE 754 numbers of so many bits.

An array whose first element is one of these marks is not a list.  A mark has the extension's code and no data (three
bytes, ``c7 00 code``), and stands nowhere else.

====  ==========  ===========================================================================================
code  type        array
====  ==========  ===========================================================================================
1     tuple       mark, elements
2     set         mark, elements in any order
3     frozenset   mark, elements in any order
4     dataclass   mark, registered number (int), values of the fields in the order of their definition; fields at
                  the end may be left out when they have a default
====  ==========  ===========================================================================================

====  ==========  ===========================================================================================
code  type        data
====  ==========  ===========================================================================================
8     int         outside of -2**63 .. 2**64 - 1: two's complement, as short as it gets, at most 2,048 bytes
9     Decimal     the number as Python's ``str`` writes it, in lower case ASCII: ``-1.50``, ``1e+3``, ``snan``
10    complex     real f64, imaginary f64
11    UUID        its 16 bytes
12    date        year u16, month u8, day u8
13    time        hour u8, minute u8, second u8, fold u8, microsecond u32; then, if aware, UTC offset in
                  microseconds i64
14    datetime    year u16, month u8, day u8, hour u8, minute u8, second u8, fold u8, microsecond u32; then, if
                  aware, UTC offset in microseconds i64
15    timedelta   days i32, seconds u32, microseconds u32
16    Enum        registered number u16, name of the member in UTF-8; for a Flag: registered number u16, its value
                  as an unsigned integer, as short as it gets
-1    timestamp   msgpack's own, never written; read as an aware datetime in UTC, cut to microseconds
====  ==========  ===========================================================================================

Any other code is an error.  A value nests at most 32 deep (array, map, or marked array each count one; the outermost is
1) and holds at most 65,536 elements (each array element, mark, key and value counts one), unless both sides agree on
other limits.

What is kept of a time zone is the UTC offset: a datetime with a ``ZoneInfo`` comes back with a fixed ``timezone``, the
same wall clock and the same offset, hence at the same instant and (by Python's rules everywhere but in the hour that
the clock goes through twice or skips) equal.  The name of the zone is not carried; looking it up would be I/O on behalf
of the peer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag
from functools import partial
from inspect import signature
from itertools import chain
from struct import Struct
from typing import Any, Protocol
from uuid import UUID

import msgpack
from msgpack import ExtType
from msgpack import unpackb as _unpackb
from msgpack.exceptions import OutOfData, StackError

from .errors import ConfigurationError, DecodeError, EncodeError, printable

__all__ = ["Codec", "MsgpackCodec"]


class Codec(Protocol):
    """What turns payloads into bytes and back.  One instance may be used by several threads at a time."""

    name: str
    """Told to the peer in the handshake: the two sides need a codec of the same name."""

    def encode(self, obj: object) -> bytes:
        """Return the bytes that stand for ``obj``.

        Raises :class:`~networkio_proto.errors.EncodeError` if ``obj`` would not come back as it is.
        """

    def decode(self, data: bytes | memoryview) -> object:
        """Return the object that ``data`` stands for.

        Raises :class:`~networkio_proto.errors.DecodeError`, and nothing else, whatever the bytes are.  Any other
        Exception is a mistake of the codec, and reaches the message's reader as the cause of a DecodeError.
        """


# -- limits ----------------------------------------------------------------------------------------------------------

_MAX_DEPTH = 32
_MAX_ELEMENTS = 65_536

# Past this many bytes Python itself hesitates to print an int; arithmetic on it is slow enough to be an attack.
_MAX_INT_BYTES = 2_048

# A number of a registered class has 16 bits.
_MAX_NUMBER = 0xFFFF

# Keys of one hash are compared with each other: as many needless comparisons as this, in all, a decoding affords.
_MAX_COLLISIONS = 65_536

# So many keys in one container are too few to be worth an attack.
_FEW = 8

# Up to this length counting bytes is the fastest check, and no set of keys is large enough to collide expensively.
_SMALL = 1_024

# A packer keeps the buffer of its largest message; one that wrote a larger message than this is not kept.
_KEEP_PACKER = 65_536


# -- values that are one extension -----------------------------------------------------------------------------------

_COMPLEX = Struct(">dd")
_DATE = Struct(">HBB")
_TIME = Struct(">BBBBI")
_DATETIME = Struct(">HBBBBBBI")
_OFFSET = Struct(">q")
_DELTA = Struct(">iII")
_NUMBER = Struct(">H")

_MICROSECOND = timedelta(microseconds=1)


def _write_int(value: int) -> bytes:
    size = value.bit_length() // 8 + 1
    if size > _MAX_INT_BYTES:
        raise ValueError(f"an int of more than {_MAX_INT_BYTES} bytes: send it as bytes")
    return value.to_bytes(size, "big", signed=True)


def _read_int(data: bytes) -> int:
    if len(data) > _MAX_INT_BYTES:
        raise ValueError(f"an int of more than {_MAX_INT_BYTES} bytes")
    return int.from_bytes(data, "big", signed=True)


def _write_decimal(value: Decimal) -> bytes:
    # The decimal context of the caller decides about "E" or "e"; in lower case the text depends on the value alone.
    return str(value).lower().encode()


def _read_decimal(data: bytes) -> Decimal:
    # Decimal() reads more than str() writes, and makes of an exponent out of range what the context says.
    value = Decimal(data.decode("ascii"))
    if _write_decimal(value) != data:
        raise ValueError("not a decimal number as it is written")
    return value


def _write_complex(value: complex) -> bytes:
    return _COMPLEX.pack(value.real, value.imag)


def _read_complex(data: bytes) -> complex:
    return complex(*_COMPLEX.unpack(data))


def _write_uuid(value: UUID) -> bytes:
    return value.bytes


def _read_uuid(data: bytes) -> UUID:
    return UUID(bytes=data)


def _write_date(value: date) -> bytes:
    return _DATE.pack(value.year, value.month, value.day)


def _read_date(data: bytes) -> date:
    return date(*_DATE.unpack(data))


def _write_offset(value: time | datetime) -> bytes:
    if value.tzinfo is None:
        return b""
    offset = value.utcoffset()
    if offset is None:
        raise ValueError("its zone has no fixed UTC offset: use datetime.timezone, or drop the zone")
    return _OFFSET.pack(offset // _MICROSECOND)


def _read_offset(data: bytes) -> timezone | None:
    return timezone(_OFFSET.unpack(data)[0] * _MICROSECOND) if data else None


def _write_time(value: time) -> bytes:
    return _TIME.pack(value.hour, value.minute, value.second, value.fold, value.microsecond) + _write_offset(value)


def _read_time(data: bytes) -> time:
    hour, minute, second, fold, microsecond = _TIME.unpack_from(data)
    return time(hour, minute, second, microsecond, _read_offset(data[_TIME.size :]), fold=fold)


def _write_datetime(value: datetime) -> bytes:
    moment = _DATETIME.pack(
        value.year, value.month, value.day, value.hour, value.minute, value.second, value.fold, value.microsecond
    )
    return moment + _write_offset(value)


def _read_datetime(data: bytes) -> datetime:
    year, month, day, hour, minute, second, fold, microsecond = _DATETIME.unpack_from(data)
    zone = _read_offset(data[_DATETIME.size :])
    return datetime(year, month, day, hour, minute, second, microsecond, zone, fold=fold)


def _write_timedelta(value: timedelta) -> bytes:
    return _DELTA.pack(value.days, value.seconds, value.microseconds)


def _read_timedelta(data: bytes) -> timedelta:
    return timedelta(*_DELTA.unpack(data))


_Writer = Callable[[Any], object]
_Reader = Callable[[bytes], object]


# Makes an ExtType of (code, data) without its constructor, which is slow and would check what is known to be right.
_extension = partial(tuple.__new__, ExtType)


def _writer(code: int, write: Callable[[Any], bytes]) -> _Writer:
    return lambda value: _extension((code, write(value)))


_VALUES: tuple[tuple[int, type, Callable[[Any], bytes], _Reader], ...] = (
    (8, int, _write_int, _read_int),
    (9, Decimal, _write_decimal, _read_decimal),
    (10, complex, _write_complex, _read_complex),
    (11, UUID, _write_uuid, _read_uuid),
    (12, date, _write_date, _read_date),
    (13, time, _write_time, _read_time),
    (14, datetime, _write_datetime, _read_datetime),
    (15, timedelta, _write_timedelta, _read_timedelta),
)
_ENUM = 16

# -- containers that are marked arrays -------------------------------------------------------------------------------

_TUPLE = ExtType(1, b"")
_SET = ExtType(2, b"")
_FROZENSET = ExtType(3, b"")
_DATACLASS = ExtType(4, b"")
_MARKS = {mark.code: mark for mark in (_TUPLE, _SET, _FROZENSET, _DATACLASS)}

_LEAVES = frozenset({type(None), bool, int, float, str, bytes})
_CONTAINERS = frozenset({list, dict, tuple, set, frozenset})


# -- registered classes ----------------------------------------------------------------------------------------------


class _Record:
    """A registered dataclass: its fields, and nothing else of an instance, are carried."""

    def __init__(self, number: int, cls: type) -> None:
        if not is_dataclass(cls):
            raise ConfigurationError(f"{cls.__qualname__} is neither an Enum nor a dataclass")
        self.number = number
        self.cls = cls
        self.names = [field.name for field in fields(cls)]
        # An instance is made again by its constructor, which therefore has to take its fields, all and only them.
        parameters = list(signature(cls.__init__).parameters)[1:]
        if set(parameters) != set(self.names):
            raise ConfigurationError(f"the constructor of {cls.__qualname__} does not take exactly its fields")
        if issubclass(cls, (*_LEAVES, *_CONTAINERS)):
            raise ConfigurationError(f"{cls.__qualname__} holds more than its fields: it is also a builtin type")

    def values(self, obj: object) -> list[object]:
        return [getattr(obj, name) for name in self.names]

    def write(self, obj: object) -> object:
        return [_DATACLASS, self.number, *self.values(obj)]

    def make(self, values: list[object]) -> object:
        if len(values) > len(self.names):
            raise DecodeError(f"a {self.cls.__qualname__} with {len(values)} fields, not {len(self.names)}")
        return self.cls(**dict(zip(self.names, values, strict=False)))


class _Choice:
    """A registered Enum: members go by name, which unlike a value is always text and unique."""

    def __init__(self, number: int, cls: type[Enum]) -> None:
        self.prefix = _NUMBER.pack(number)
        self.cls = cls

    def write(self, member: Enum) -> object:
        return _extension((_ENUM, self.prefix + member.name.encode()))

    def make(self, data: bytes) -> object:
        member = self.cls.__members__.get(data.decode())
        if member is None:
            raise DecodeError(printable(f"{self.cls.__qualname__} has no member {data.decode()!r}"))
        return member


class _Flags(_Choice):
    """A registered Flag: combinations have no name, so members go by value."""

    def __init__(self, number: int, cls: type[Flag]) -> None:
        super().__init__(number, cls)
        self.mask = 0
        for member in cls.__members__.values():
            self.mask |= member.value

    def write(self, member: Enum) -> object:
        value: int = member.value
        # A Flag keeps every combination that it ever met, so bits without a member would let a peer fill the memory.
        if value & ~self.mask:
            raise ValueError(f"a {self.cls.__qualname__} with bits that no member has")
        return _extension((_ENUM, self.prefix + value.to_bytes((value.bit_length() + 7) // 8, "big")))

    def make(self, data: bytes) -> object:
        value = int.from_bytes(data, "big")
        if value & ~self.mask:
            raise DecodeError(f"a {self.cls.__qualname__} with bits that no member has")
        return self.cls(value)


# -- the shape of bytes ----------------------------------------------------------------------------------------------

_CONTAINER_HEADERS = bytes([*range(0x80, 0xA0), *range(0xDC, 0xE0)])
_BINARY_HEADERS = bytes([*range(0xC4, 0xCA), *range(0xD4, 0xD9)])  # bin and extension
_NOT_CONTAINER = bytes(set(range(256)) - set(_CONTAINER_HEADERS))
_NOT_BINARY = bytes(set(range(256)) - set(_BINARY_HEADERS))


def _lengths() -> list[int]:
    """For each header byte the whole length of what it starts, or 0 if more has to be read to know."""
    lengths = [1] * 256
    for header in (*_CONTAINER_HEADERS, *range(0xC4, 0xCA), *range(0xD9, 0xDC)):
        lengths[header] = 0
    for header in range(0xA0, 0xC0):
        lengths[header] = 1 + (header & 0x1F)
    lengths[0xCA:0xD4] = [5, 9, 2, 3, 5, 9, 2, 3, 5, 9]
    lengths[0xD4:0xD9] = [3, 4, 6, 10, 18]
    return lengths


_LENGTHS = _lengths()

# Of bin, ext and str with a length: how many bytes the length has, and how many come between it and the content.
_SIZED = {
    0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0),
    0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1),
    0xD9: (1, 0), 0xDA: (2, 0), 0xDB: (4, 0),
}  # fmt: skip

# Of array and map with a length: how many bytes the length has, and how many elements come for one of it.
_COUNTED = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}

_TRUNCATED = "truncated"


def _walk(data: bytes, max_depth: int, max_elements: int) -> str:
    """Go through ``data`` header by header and say what is wrong with its shape ("" if nothing is).

    It stops at the first container that breaks a limit.
    """
    end = len(data)
    position = 0
    elements = 1
    open_counts: list[int] = []  # elements to come in the containers around the present one
    to_come = 1
    while position < end:
        header = data[position]
        length = _LENGTHS[header]
        if length:
            position += length
        elif header in _SIZED:
            width, extra = _SIZED[header]
            position += 1 + width
            position += extra + int.from_bytes(data[position - width : position], "big")
        else:
            if header < 0xA0:
                count = header & 0x0F if header >= 0x90 else 2 * (header & 0x0F)
                position += 1
            else:
                width, each = _COUNTED[header]
                position += 1 + width
                count = each * int.from_bytes(data[position - width : position], "big")
            if len(open_counts) == max_depth:
                return f"nested deeper than {max_depth}"
            elements += count
            if elements > max_elements:
                return f"more than {max_elements} elements"
            if count:
                open_counts.append(to_come)
                to_come = count
                continue
        to_come -= 1
        while not to_come:
            if not open_counts:
                return "" if position == end else "followed by other bytes" if position < end else _TRUNCATED
            to_come = open_counts.pop() - 1
    return _TRUNCATED


def _opens(count: int) -> bool:
    """Whether msgpack's unpacker stands ``count`` containers that are open at the same time."""
    unpacker = msgpack.Unpacker()
    unpacker.feed(b"\x91" * count + b"\xc0")
    try:
        unpacker.skip()
    except StackError:
        return False
    return True


# The unpacker in C has a stack of fixed size, which can measure depth for us; the one in Python has none (0).
_STACK = 1024 if _opens(1024) and not _opens(1025) else 0


def _may_hold_binary(data: bytes) -> bool:
    """Whether a byte of ``data`` could be the header of a binary or of an extension."""
    if len(data) <= _SMALL:
        return bool(data.translate(None, _NOT_BINARY))
    return any(map(data.__contains__, _BINARY_HEADERS))


# -- the codec -------------------------------------------------------------------------------------------------------


class _ExtensionFound(Exception):
    """Decoding has to start again with the hooks of :class:`_Reading`."""


def _stop_at_extension(code: int, data: bytes) -> object:
    raise _ExtensionFound


class MsgpackCodec:
    """The default codec: msgpack, made strict about types and safe against hostile bytes.

    It carries None, bool, int, float, str, bytes, list, dict, tuple, set, frozenset, complex, Decimal, UUID, date,
    time, datetime, timedelta and registered Enum and dataclass types; a dict key can be any of them that is hashable.
    What comes out is equal to what went in and has the same types, except that a time zone comes back as its UTC
    offset, and that of a dataclass only the fields are carried.

    ``max_depth`` (1 to 256) and ``max_elements`` (1 or more) bound what is encoded and decoded; give the same to both
    sides.  An element may take 100 bytes of memory and more: think of that when raising ``max_elements``.  Other values
    raise :class:`~networkio_proto.errors.ConfigurationError`.

    An instance may be shared by threads.  Register all classes before the first message.
    """

    name: str = "msgpack"

    def __init__(self, *, max_depth: int = _MAX_DEPTH, max_elements: int = _MAX_ELEMENTS) -> None:
        if not 1 <= max_depth <= 256:
            raise ConfigurationError(f"max_depth is {max_depth}; it has to be 1 to 256")
        if max_elements < 1:
            raise ConfigurationError(f"max_elements is {max_elements}; it has to be 1 or more")
        self._max_depth = max_depth
        self._max_elements = max_elements
        # Fewer bytes than these cannot break a limit.
        self._harmless = min(max_depth, max_elements)
        self._prefix = b"\x91" * (_STACK - max_depth)
        self._hook = self._read  # made once: a bound method is an object
        # A packer is taken out while in use: hooks may run other code, or another thread, that encodes as well.
        self._packers: list[msgpack.Packer] = []
        self._writers: dict[type, _Writer] = {
            tuple: lambda value: [_TUPLE, *value],
            set: lambda value: [_SET, *value],
            frozenset: lambda value: [_FROZENSET, *value],
            **{cls: _writer(code, write) for code, cls, write, _ in _VALUES},
        }
        self._holding: set[type] = {*_CONTAINERS}  # the types of what holds elements
        self._carried: set[type] = {*_LEAVES, *_CONTAINERS, *self._writers}
        self._readers: dict[int, _Reader] = {code: read for code, _, _, read in _VALUES}
        self._readers[_ENUM] = self._read_enum
        self._records: dict[type, _Record] = {}
        self._registered: dict[int, _Record | _Choice] = {}

    def register(self, number: int, cls: type) -> None:
        """Let instances of ``cls``, an Enum or a dataclass, be carried under ``number`` (0 to 65535).

        Both sides have to register the same class under the same number; the number stands for the class in every
        message (and journal), so do not use it again for another one.  Members of an Enum go by name, those of a Flag
        by value.  Fields of a dataclass go by position: add new ones at the end and with a default, and what was sent
        without them can still be read.

        Raises :class:`~networkio_proto.errors.ConfigurationError` if the number or the class is registered already, the
        number is out of range, or the class is neither an Enum nor a dataclass whose constructor takes its fields, all
        of them and nothing else.
        """
        if type(number) is not int or not 0 <= number <= _MAX_NUMBER:
            raise ConfigurationError(f"the number of a class is {number!r}, not an int from 0 to {_MAX_NUMBER}")
        if not isinstance(cls, type):
            raise ConfigurationError(f"{cls!r} is not a class")
        if number in self._registered:
            raise ConfigurationError(f"the number {number} is registered already")
        if cls in self._carried:
            raise ConfigurationError(f"{cls.__qualname__} is carried or registered already")
        if issubclass(cls, Enum):
            entry: _Record | _Choice = _Flags(number, cls) if issubclass(cls, Flag) else _Choice(number, cls)
        else:
            entry = self._records[cls] = _Record(number, cls)
            self._holding.add(cls)
        self._registered[number] = entry
        self._carried.add(cls)
        self._writers[cls] = entry.write

    # -- encoding

    def encode(self, obj: object) -> bytes:
        """Return the bytes that stand for ``obj``.

        Raises :class:`~networkio_proto.errors.EncodeError`, with the path of the element that is at fault, if ``obj``
        would not come back as it is or is larger than the limits.
        """
        try:
            packer = self._packers.pop()
        except IndexError:
            packer = msgpack.Packer(strict_types=True, default=self._write)
        try:
            data = packer.pack(obj)
        except Exception as exc:
            raise self._complaint(obj, f"{type(exc).__name__}: {exc}") from exc
        if len(data) <= _KEEP_PACKER:
            self._packers.append(packer)
        if type(obj) not in _LEAVES:
            excess = self._excess(data) if len(data) > self._harmless else ""
            if excess or (_may_hold_binary(data) and not self._carries(obj)):
                raise self._complaint(obj, excess)
        return data

    def _write(self, obj: object) -> object:
        return self._writers[type(obj)](obj)

    def _carries(self, obj: object) -> bool:
        """Whether ``obj`` holds, at any level, nothing but instances of the carried types."""
        level: list[Any] = [obj]
        while True:
            kinds = set(map(type, level))
            if not kinds <= self._carried:
                return False
            if kinds.isdisjoint(self._holding):
                return True
            below: list[Any] = []
            for parent in level:
                kind = type(parent)
                if kind in _CONTAINERS:
                    below += parent
                    if kind is dict:
                        below += parent.values()
                elif kind in self._records:
                    below += self._records[kind].values(parent)
            level = below

    def _complaint(self, obj: object, reason: str) -> EncodeError:
        """Find out which element of ``obj`` could not be encoded; ``reason`` holds if none can be blamed."""
        try:
            found = self._find_fault(obj, "$", frozenset())
        except Exception:  # an element that raises when it is looked at: what was raised at packing says it already
            found = None
        return found or EncodeError(printable(reason), "$")

    def _find_fault(self, obj: object, path: str, around: frozenset[int]) -> EncodeError | None:
        children = self._children(obj)
        if children is None:
            fault = self._fault(obj)
            return EncodeError(fault, path) if fault else None
        if id(obj) in around:
            return EncodeError("a container that holds itself", path)
        if len(around) == self._max_depth:
            return EncodeError(f"nested deeper than {self._max_depth}", path)
        around |= {id(obj)}
        for step, child in children:
            found = self._find_fault(child, path + step, around)
            if found:
                return found
        return None

    def _children(self, obj: Any) -> Iterator[tuple[str, object]] | None:
        """The elements of a container, each with the step that leads to it; None for what is no container.

        The steps are ``[index]``, ``[key]``, ``.field`` and, for an element of a set and a key itself, ``{element}``.
        """
        kind = type(obj)
        if kind is dict:
            keys = ((f"{{{_show(key)}}}", key) for key in obj)
            return chain(keys, ((f"[{_show(key)}]", value) for key, value in obj.items()))
        if kind in self._records:
            record = self._records[kind]
            return zip((f".{name}" for name in record.names), record.values(obj), strict=True)
        if kind is list or kind is tuple:
            return ((f"[{index}]", element) for index, element in enumerate(obj))
        if kind is set or kind is frozenset:
            return ((f"{{{_show(element)}}}", element) for element in obj)
        return None

    def _fault(self, obj: object) -> str:
        """Why ``obj``, which is no container, cannot be carried ("" if it can)."""
        kind = type(obj)
        if kind in self._carried:
            try:
                msgpack.packb(obj, strict_types=True, default=self._write)
            except Exception as exc:
                return printable(exc)
            return ""
        name = printable(kind.__qualname__)
        if issubclass(kind, Enum) or is_dataclass(kind):
            return f"{name} is not registered: codec.register(number, {name}) lets it be carried"
        if kind is bytearray or kind is memoryview:
            return f"a {name} would come back as bytes: convert it to bytes"
        for base in kind.__mro__:
            if base in self._carried:
                return f"a {name} would come back as {base.__name__}: convert it to a plain {base.__name__}"
        return f"an object of type {name} cannot be carried"

    # -- decoding

    def decode(self, data: bytes | memoryview) -> object:
        """Return the object that ``data`` stands for.

        Raises :class:`~networkio_proto.errors.DecodeError`, and nothing else, if ``data`` is not exactly one value in
        the format of this codec, is larger than the limits, or if a registered class refuses what it is made of.
        """
        if type(data) is not bytes:
            data = bytes(data)
        try:
            size = len(data)
            if size > self._harmless and data[0] in _CONTAINER_HEADERS and (excess := self._excess(data)):
                raise DecodeError(excess)
            hook = self._hook if size <= _SMALL else _stop_at_extension
            try:
                return _unpackb(data, strict_map_key=False, timestamp=3, ext_hook=hook)
            except _ExtensionFound:
                return _Reading(self).read(data)
        except DecodeError:
            raise
        except Exception as exc:  # msgpack's own errors, and whatever the constructor of a registered class raises
            raise DecodeError(printable(f"{type(exc).__name__}: {exc}")) from exc

    def _excess(self, data: bytes) -> str:
        """Say which limit ``data`` breaks ("" if none), at the expense of no memory that ``data`` could choose.

        With at most ``max_elements`` bytes only the depth counts.  It is within the limit if hardly a byte looks like
        the header of a container.  Else msgpack's own unpacker skips over the data with so many containers opened
        before that its stack overflows past ``max_depth``; this finds truncated data as well.
        """
        size = len(data)
        if size <= self._max_elements:
            if size <= _SMALL and len(data.translate(None, _NOT_CONTAINER)) <= self._max_depth:
                return ""
            if self._prefix:
                unpacker = msgpack.Unpacker(max_buffer_size=size + len(self._prefix))
                unpacker.feed(self._prefix)
                unpacker.feed(data)
                try:
                    unpacker.skip()
                except StackError:
                    return f"nested deeper than {self._max_depth}"
                except OutOfData:
                    return _TRUNCATED
                return ""
        return _walk(data, self._max_depth, self._max_elements)

    def _read(self, code: int, data: bytes) -> object:
        reader = self._readers.get(code)
        if reader is None:
            if code in _MARKS:
                raise _ExtensionFound
            raise DecodeError(f"unknown extension {code}")
        return reader(data)

    def _read_enum(self, data: bytes) -> object:
        (number,) = _NUMBER.unpack_from(data)
        entry = self._registered.get(number)
        if not isinstance(entry, _Choice):
            raise DecodeError(f"no Enum is registered under the number {number}")
        return entry.make(data[_NUMBER.size :])

    def _read_record(self, number: object = None, *values: object) -> object:
        entry = self._registered.get(number) if type(number) is int else None
        if not isinstance(entry, _Record):
            raise DecodeError(f"no dataclass is registered under the number {number!r}")
        return entry.make(list(values))


class _Reading:
    """One decoding of data that holds marks or many extensions: the hooks, and what they count.

    Hashes of most types carried as extensions can be computed by the sender, so it could make keys that all have the
    same one, and a dict or set of them takes quadratic time.  Hence keys are counted by hash before they are used.
    """

    def __init__(self, codec: MsgpackCodec) -> None:
        self.codec = codec
        self.marks = 0  # marks that no array has begun with so far
        self.collisions = 0

    def read(self, data: bytes) -> object:
        obj: object = msgpack.unpackb(
            data,
            strict_map_key=False,
            timestamp=3,
            ext_hook=self.extension,
            list_hook=self.array,
            object_pairs_hook=self.map,
        )
        if self.marks:
            raise DecodeError("a mark that is not at the start of an array")
        return obj

    def extension(self, code: int, data: bytes) -> object:
        mark = _MARKS.get(code)
        if mark is None:
            return self.codec._read(code, data)
        if data:
            raise DecodeError("a mark that holds data")
        self.marks += 1
        return mark

    def array(self, elements: list[object]) -> object:
        mark = elements[0] if elements else None
        if type(mark) is not ExtType:
            return elements
        self.marks -= 1
        del elements[0]
        if mark is _TUPLE:
            return tuple(elements)
        if mark is _DATACLASS:
            return self.codec._read_record(*elements)
        if len(elements) > _FEW:
            self.count_collisions(elements)
        return set(elements) if mark is _SET else frozenset(elements)

    def map(self, pairs: list[tuple[object, object]]) -> dict[object, object]:
        if len(pairs) > _FEW:
            self.count_collisions([key for key, _ in pairs])
        return dict(pairs)

    def count_collisions(self, keys: list[object]) -> None:
        hashes = list(map(hash, keys))
        if len(set(hashes)) < len(hashes):
            self.collisions += sum(same * (same - 1) // 2 for same in Counter(hashes).values())
            if self.collisions > _MAX_COLLISIONS:
                raise DecodeError("too many keys with the same hash")


def _show(key: Any) -> str:
    """A key or an element of a set, as a path shows it."""
    if type(key) in _LEAVES and not (type(key) is int and key.bit_length() > 64):  # repr() refuses a long int
        return printable(repr(key), 40)
    name = type(key).__name__
    return printable(f"{name}.{key.name}" if isinstance(key, Enum) else f"<{name}>", 40)
