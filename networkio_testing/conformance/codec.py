"""Frames of the protocol as bytes, and back: a second codec, written from the specification and from nothing else.

Theory of operation
-------------------
The runner must not share a mistake with what it tests, so nothing of networkio is imported here.  A frame is a name and
fields; :func:`build` makes its bytes and lets every field be wrong, and :func:`parse` takes the next frame off a buffer
and says no more about it than what is there.  Handshake frames have the keys of their map as fields.  Maps keep the
order that they were given in, for the ``mac`` of an ATTACH is found by its place.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from struct import pack, unpack, unpack_from
from typing import Any

__all__ = ["CODES", "FLAGS", "PREAMBLE", "TYPES", "Absent", "Frame", "Malformed", "build", "mac", "pack_value", "parse"]

PREAMBLE = bytes.fromhex("4e494f000d0a0100")

TYPES = {
    "HELLO": 0x01, "HELLO_ACK": 0x02, "ATTACH": 0x03, "DATA": 0x10, "ACK": 0x11, "SKIP": 0x12, "REJECT": 0x13,
    "FIN": 0x14, "PING": 0x20, "PONG": 0x21, "CLOSE": 0x30,
}  # fmt: skip
_NAMES = {kind: name for name, kind in TYPES.items()}

FLAGS = {"MORE": 0x01, "CONTINUED": 0x02, "REDELIVERED": 0x04, "ACK_NOW": 0x08, "HEADERS": 0x10, "RAW": 0x40}
_RESUMABLE = 0x01

CODES = {
    name: code
    for code, name in enumerate((
        "NORMAL", "RESTARTING", "OVERLOAD", "COLLISION", "SUPERSEDED", "DUPLICATE_IDENTITY", "AUTH_FAILED", "VERSION",
        "PROTOCOL", "FLOW", "TOO_LARGE", "TIMEOUT", "ABORT", "ABUSE", "SELF", "RETRY", "WRONG_PEER", "CODEC",
    ))
}  # fmt: skip


class Malformed(Exception):
    """These bytes are no frame of the specification."""


class Absent:
    """In place of a value: the key is not there."""


@dataclass
class Frame:
    """A frame that came: its name (``TYPE_80`` for one that has none), its fields, and its bytes."""

    name: str
    fields: dict[str, Any]
    raw: bytes = field(repr=False, default=b"")

    def __str__(self) -> str:
        return " ".join([self.name, *(f"{key}={_short(value)}" for key, value in self.fields.items())])


def _short(value: object) -> str:
    text = f"hex({value.hex()!r})" if isinstance(value, bytes) else repr(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"


# -- MessagePack ------------------------------------------------------------------------------------------------------


def pack_value(value: Any) -> bytes:
    """MessagePack, as short as it gets; also of what a map of the protocol may not hold."""
    if value is None or isinstance(value, bool):
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
    if isinstance(value, int):
        return _pack_int(value)
    if isinstance(value, float):
        return b"\xcb" + pack(">d", value)
    if isinstance(value, bytes):
        return _sized(len(value), ((0xC4, "B"), (0xC5, "H"), (0xC6, "I"))) + value
    if isinstance(value, str):
        data = value.encode()
        return (bytes([0xA0 | len(data)]) if len(data) < 32 else _sized(len(data), _STR)) + data
    if isinstance(value, list):
        return _container(len(value), 0x90, 0xDC) + b"".join(map(pack_value, value))
    if isinstance(value, dict):
        pairs = [pack_value(key) + pack_value(item) for key, item in value.items() if item is not Absent]
        return _container(len(pairs), 0x80, 0xDE) + b"".join(pairs)
    raise TypeError(f"{value!r} has no place in a frame")


_STR = ((0xD9, "B"), (0xDA, "H"), (0xDB, "I"))


def _sized(size: int, forms: tuple[tuple[int, str], ...]) -> bytes:
    for (first, form), width in zip(forms, (1, 2, 4), strict=True):
        if size < 1 << 8 * width:
            return pack(f">B{form}", first, size)
    raise ValueError(size)


def _container(size: int, short: int, long: int) -> bytes:
    return bytes([short | size]) if size < 16 else pack(">BH", long, size)


def _pack_int(value: int) -> bytes:
    if 0 <= value < 128 or -32 <= value < 0:
        return pack(">B", value & 0xFF)
    if value < 0:
        return b"\xd3" + pack(">q", value)
    for first, form, width in ((0xCC, "B", 8), (0xCD, "H", 16), (0xCE, "I", 32), (0xCF, "Q", 64)):
        if value < 1 << width:
            return pack(f">B{form}", first, value)
    raise ValueError(value)


def _unpack(data: bytes, at: int) -> tuple[Any, int]:
    """The value that begins at ``at``, and where it ends; of the types that a map of the protocol may hold."""
    first, at = data[at], at + 1
    if first < 0x80:
        return first, at
    if first < 0x90:
        return _unpack_map(data, at, first & 0x0F)
    if first < 0xA0:
        return _unpack_array(data, at, first & 0x0F)
    if first < 0xC0:
        size = first & 0x1F
        return data[at : at + size].decode(), at + size
    if first in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[first], at
    if first not in _FORMS:
        raise Malformed(f"a map with the byte {first:02x}")
    form, what = _FORMS[first]
    (number,) = unpack_from(f">{form}", data, at)
    at += {"B": 1, "H": 2, "I": 4, "Q": 8}[form]
    if what == "uint":
        return number, at
    if what == "array":
        return _unpack_array(data, at, number)
    if what == "map":
        return _unpack_map(data, at, number)
    piece = data[at : at + number]
    return (piece.decode() if what == "str" else piece), at + number


_FORMS = {
    0xC4: ("B", "bin"), 0xC5: ("H", "bin"), 0xC6: ("I", "bin"),
    0xCC: ("B", "uint"), 0xCD: ("H", "uint"), 0xCE: ("I", "uint"), 0xCF: ("Q", "uint"),
    0xD9: ("B", "str"), 0xDA: ("H", "str"), 0xDB: ("I", "str"),
    0xDC: ("H", "array"), 0xDD: ("I", "array"), 0xDE: ("H", "map"), 0xDF: ("I", "map"),
}  # fmt: skip


def _unpack_array(data: bytes, at: int, size: int) -> tuple[list[Any], int]:
    items = []
    for _ in range(size):
        item, at = _unpack(data, at)
        items.append(item)
    return items, at


def _unpack_map(data: bytes, at: int, size: int) -> tuple[dict[str, Any], int]:
    pairs: dict[str, Any] = {}
    for _ in range(size):
        key, at = _unpack(data, at)
        if not isinstance(key, str) or key in pairs:
            raise Malformed(f"the key {key!r} of a map")
        pairs[key], at = _unpack(data, at)
    return pairs, at


def _map(data: bytes) -> dict[str, Any]:
    try:
        value, end = _unpack(data, 0)
    except (IndexError, ValueError, OverflowError) as error:
        raise Malformed(f"a map that cannot be read: {error}") from error
    if end != len(data) or not isinstance(value, dict):
        raise Malformed("a map that is none, or is followed by something")
    return value


# -- frames out -------------------------------------------------------------------------------------------------------


def build(name: str, fields: dict[str, Any]) -> bytes:
    """The bytes of a frame.

    Beside the fields of its type every frame takes ``flags``, ``body`` (in place of all fields), ``more`` (bytes behind
    the body), and ``length`` and ``type``, which are written as they are.
    """
    fields = dict(fields)
    kind = fields.pop("type", TYPES.get(name))
    if kind is None:
        raise ValueError(f"there is no frame {name}")
    flags, length, more = fields.pop("flags", None), fields.pop("length", None), fields.pop("more", b"")
    body: bytes | None = fields.pop("body", None)
    natural = 0
    if body is None:
        body, natural = _BODIES[name](fields)
        if fields and name in _FIXED:
            raise ValueError(f"{name} has no {', '.join(fields)}")
    body += more
    return pack(">IBB", len(body) + 2 if length is None else length, kind, natural if flags is None else flags) + body


def _handshake(fields: dict[str, Any]) -> tuple[bytes, int]:
    return pack_value(fields), 0


def _data(fields: dict[str, Any]) -> tuple[bytes, int]:
    flags = fields.pop("set", 0)
    body = pack(">Q", fields.pop("sequence"))
    if "total" in fields:
        flags |= FLAGS["MORE"]
        body += pack(">I", fields.pop("total"))
    if "headers" in fields:
        headers = fields.pop("headers")
        packed = headers if isinstance(headers, bytes) else pack_value(headers)
        flags |= FLAGS["HEADERS"]
        body += pack(">H", fields.pop("header_length", len(packed))) + packed
    if "raw" in fields:
        raw = fields.pop("raw")
        flags |= 0 if flags & FLAGS["CONTINUED"] else FLAGS["RAW"]
        return body + (raw.encode() if isinstance(raw, str) else raw), flags
    if "payload" in fields:
        return body + bytes(fields.pop("payload")), flags
    return body + pack_value(fields.pop("value", None)), flags


def _numbers(form: str, **defaults: int) -> Any:
    def body(fields: dict[str, Any]) -> tuple[bytes, int]:
        return pack(form, *(fields.pop(key, default) for key, default in defaults.items())), 0

    return body


def _reject(fields: dict[str, Any]) -> tuple[bytes, int]:
    start = fields.pop("outbox") + pack(">QH", fields.pop("rejected"), fields.pop("code", 0))
    return start + _text(fields), 0


def _close(fields: dict[str, Any]) -> tuple[bytes, int]:
    flags = _RESUMABLE if fields.pop("resumable", True) else 0
    return pack(">HQ", fields.pop("code"), fields.pop("retry_after", 0)) + _text(fields), flags


def _text(fields: dict[str, Any]) -> bytes:
    text = fields.pop("text", b"")
    return text.encode() if isinstance(text, str) else bytes(text)


def _opaque(fields: dict[str, Any]) -> tuple[bytes, int]:
    return fields.pop("opaque", b"\0\1\2\3\4\5\6\7"), 0


_BODIES = {
    "HELLO": _handshake, "HELLO_ACK": _handshake, "ATTACH": _handshake, "DATA": _data,
    "ACK": _numbers(">QQQQ", received=0, read=0, credit=0, first=1),
    "SKIP": _numbers(">QQH", first=1, last=1, reason=2),
    "REJECT": _reject,
    "FIN": _numbers(">Q", sequence=1),
    "PING": _opaque, "PONG": _opaque, "CLOSE": _close,
}  # fmt: skip
_MAPS = frozenset({"HELLO", "HELLO_ACK", "ATTACH"})
_FIXED = _BODIES.keys() - _MAPS


# -- frames in --------------------------------------------------------------------------------------------------------


def parse(buffer: bytearray) -> Frame | None:
    """Take the next frame off the buffer; None if it is not all there.  Raises Malformed."""
    if len(buffer) < 4:
        return None
    (length,) = unpack_from(">I", buffer)
    if length < 2:
        raise Malformed(f"a frame of length {length}")
    if len(buffer) < 4 + length:
        return None
    raw = bytes(buffer[: 4 + length])
    del buffer[: 4 + length]
    kind, flags, body = raw[4], raw[5], raw[6:]
    name = _NAMES.get(kind, f"TYPE_{kind:02X}")
    try:
        fields = _READERS[name](flags, body) if name in _READERS else {"body": body}
    except (ValueError, IndexError) as error:
        raise Malformed(f"{name} with the body {body[:40].hex()}: {error}") from error
    except Exception as error:  # struct.error is no ValueError
        raise Malformed(f"{name} with the body {body[:40].hex()}: {error}") from error
    if name not in _MAPS:
        fields = {"flags": flags, **fields}
    return Frame(name, fields, raw)


def _plain_map(flags: int, body: bytes) -> dict[str, Any]:
    if flags:
        raise ValueError(f"flags {flags:02x}")
    return _map(body)


def _read_data(flags: int, body: bytes) -> dict[str, Any]:
    (sequence,) = unpack_from(">Q", body)
    found: dict[str, Any] = {"sequence": sequence}
    rest = body[8:]
    if flags & FLAGS["MORE"] and not flags & FLAGS["CONTINUED"]:
        (found["total"],), rest = unpack_from(">I", rest), rest[4:]
    if flags & FLAGS["HEADERS"]:
        (size,) = unpack_from(">H", rest)
        found["headers"], rest = _map(rest[2 : 2 + size]), rest[2 + size :]
    found["payload"] = rest
    if flags & FLAGS["RAW"]:
        found["raw"] = rest
    found["size"] = len(rest)
    return found


def _read_reject(flags: int, body: bytes) -> dict[str, Any]:
    outbox, rejected, code = unpack_from(">16sQH", body)
    return {"outbox": outbox, "rejected": rejected, "code": code, "text": body[26:].decode()}


def _read_close(flags: int, body: bytes) -> dict[str, Any]:
    code, retry_after = unpack_from(">HQ", body)
    text = body[10:]
    if len(text) > 512:
        raise ValueError("a text of more than 512 bytes")
    return {"code": code, "retry_after": retry_after, "resumable": bool(flags & 1), "text": text.decode()}


def _reader(form: str, *keys: str) -> Any:
    return lambda flags, body: dict(zip(keys, unpack(form, body), strict=True))


_READERS = {
    "HELLO": lambda flags, body: _plain_map(flags, body),
    "HELLO_ACK": lambda flags, body: _plain_map(flags, body),
    "ATTACH": lambda flags, body: _plain_map(flags, body),
    "DATA": _read_data,
    "ACK": _reader(">QQQQ", "received", "read", "credit", "first"),
    "SKIP": _reader(">QQH", "first", "last", "reason"),
    "REJECT": _read_reject,
    "FIN": _reader(">Q", "sequence"),
    "PING": _reader("8s", "opaque"),
    "PONG": _reader("8s", "opaque"),
    "CLOSE": _read_close,
}


# -- proofs -----------------------------------------------------------------------------------------------------------


def mac(
    key: bytes, role: bytes, ids: tuple[str, str], transcript: bytes, attach: bytes, first: bytes = b"",
    binding: bytes = b"",
) -> bytes:
    """The mac of an ATTACH whose own is zeroed.

    ``ids``: the dialer's and the acceptor's; ``first``: the dialer's mac, in the acceptor's.
    """
    th = hashlib.sha256(b"networkio/1" + _lp(transcript) + _lp(binding)).digest()
    derived = hmac.digest(hmac.digest(th, key, "sha256"), b"auth\x01", "sha256")
    dialer, acceptor = (_lp(peer_id.encode()) for peer_id in ids)
    names = dialer + acceptor if role == b"D" else acceptor + dialer
    return hmac.digest(derived, role + names + first + attach, "sha256")


def _lp(data: bytes) -> bytes:
    return pack(">I", len(data)) + data
