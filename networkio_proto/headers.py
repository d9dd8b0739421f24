"""The headers of a message: what a user may put there, and what is kept for the library.

Theory of operation
-------------------
Headers travel in front of the payload as one encoded map.  The keys ``id`` and those that begin with a dot are
reserved.  ``id`` names the outbox in which a message was accepted first, where that was another than the one it comes
in; whoever receives takes it out before the application sees the map.  :mod:`~networkio_proto.requests` has two more.
"""

from __future__ import annotations

from collections.abc import Mapping

from .errors import CloseCode, EncodeError, printable
from .frames import PeerFault
from .maps import decode_map, encode_map

__all__ = ["decode_headers", "encode_headers", "take_origin"]

#: users' headers leave room for the reserved ``id`` in the map's 64 items and 4 KiB (specification, P-DATA-21)
_HEADER_ITEMS = 63
_HEADER_BYTES = 4064


def encode_headers(headers: Mapping[str, object] | None, reserved: Mapping[str, object] | None = None) -> bytes:
    """Users' headers, and the library's own, as they go on the wire; raises EncodeError that says what is wrong."""
    headers, reserved = headers or {}, reserved or {}
    most = _HEADER_ITEMS - len(reserved)
    if len(headers) > most:
        raise EncodeError(f"{len(headers)} headers are more than {most}", "headers")
    taken = [key for key in headers if isinstance(key, str) and (key == "id" or key.startswith("."))]
    if taken:
        raise EncodeError(f"the header {taken[0]!r} is reserved for networkio", "headers")
    try:
        encoded = encode_map({**headers, **reserved})
    except ValueError as error:
        raise EncodeError(str(error), "headers") from None
    if len(encoded) > _HEADER_BYTES:
        raise EncodeError(f"the headers take {len(encoded)} bytes, at most {_HEADER_BYTES} are allowed", "headers")
    return encoded


def decode_headers(encoded: bytes) -> dict[str, object]:
    """The peer's headers; raises PeerFault for what is not a map."""
    try:
        return decode_map(encoded)
    except ValueError as error:
        raise PeerFault(CloseCode.PROTOCOL, f"headers: {printable(error)}") from None


def take_origin(headers: dict[str, object] | None) -> bytes | None:
    """The reserved header ``id``, taken out of the map; None where it is not.  Raises PeerFault."""
    if headers is None or "id" not in headers:
        return None
    origin = headers.pop("id")
    if not (isinstance(origin, bytes) and len(origin) == 24):
        raise PeerFault(CloseCode.PROTOCOL, "the reserved header id is not a binary of 24 bytes")
    return origin
