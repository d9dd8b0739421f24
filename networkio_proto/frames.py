"""Bytes to frames and frames to bytes; nothing here knows what a frame means.

Theory of operation
-------------------
A stream is an eight-byte preamble and then frames: ``length u32 | type u8 | flags u8 | body``, big-endian, where
``length`` counts type, flags and body.  :class:`FrameDecoder` is fed chunks as they come and hands out the *place* of
one frame at a time, so that the caller copies only what it keeps.  A length is judged against the bounds of its type
as soon as the six header bytes are there, before any of the body is waited for; a declared length allocates nothing.

Bytes of an unfinished frame are collected in a ``bytearray`` that is looked at again only when the frame is complete,
so that a peer which drips single bytes costs linear time.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from struct import Struct
from typing import cast

from .errors import CloseCode

__all__ = [
    "ACK",
    "ATTACH",
    "CLOSE",
    "DATA",
    "FIN",
    "HANDSHAKE_FRAME_LIMIT",
    "HEADER_SIZE",
    "HELLO",
    "HELLO_ACK",
    "MAX_SEQUENCE",
    "PING",
    "PONG",
    "PREAMBLE",
    "REJECT",
    "SKIP",
    "DataFlag",
    "FrameDecoder",
    "PeerFault",
    "SkipReason",
    "check_preamble",
    "encode_ack",
    "encode_close",
    "encode_fin",
    "encode_frame",
    "encode_ping",
    "encode_pong",
    "encode_reject",
    "encode_skip",
    "frame_name",
]

#: "NIO", a zero, CR LF (mangled by whatever mangles text), the framing version, a zero
PREAMBLE = b"NIO\x00\r\n\x01\x00"

HELLO = 0x01
HELLO_ACK = 0x02
ATTACH = 0x03
DATA = 0x10
ACK = 0x11
SKIP = 0x12
REJECT = 0x13
FIN = 0x14
PING = 0x20
PONG = 0x21
CLOSE = 0x30

_NAMES = {
    HELLO: "HELLO",
    HELLO_ACK: "HELLO_ACK",
    ATTACH: "ATTACH",
    DATA: "DATA",
    ACK: "ACK",
    SKIP: "SKIP",
    REJECT: "REJECT",
    FIN: "FIN",
    PING: "PING",
    PONG: "PONG",
    CLOSE: "CLOSE",
}

#: types from here on may be ignored by those who do not know them
FIRST_IGNORABLE = 0x80

#: until ATTACH completes no frame may be longer: a stranger gets no more memory than this
HANDSHAKE_FRAME_LIMIT = 4096

#: texts in REJECT and CLOSE
TEXT_LIMIT = 512

#: no sequence is greater, so that it fits a signed integer in any language; 10^9 messages/s reach it in 292 years
MAX_SEQUENCE = 2**63 - 1

FLAG_RESUMABLE = 0x01


class DataFlag(IntFlag):
    """The flags of a DATA frame; all but the first two stand on a message's first fragment only."""

    FRAGMENT_MORE = 0x01
    FRAGMENT_CONTINUED = 0x02
    REDELIVERED = 0x04
    ACK_NOW = 0x08
    HEADERS = 0x10
    RAW = 0x40


class SkipReason(IntEnum):
    """Why sequences of an outbox will not come."""

    ALREADY_READ = 1
    EXPIRED = 2
    CANCELLED = 3
    TOO_LARGE = 4
    OVERFLOW = 5
    PEER_RESTARTED = 6


#: body bounds of the types whose size is known; the frame limit bounds the others
_BODY_BOUNDS: dict[int, tuple[int, int]] = {
    HELLO: (0, HANDSHAKE_FRAME_LIMIT - 2),
    HELLO_ACK: (0, HANDSHAKE_FRAME_LIMIT - 2),
    ATTACH: (0, HANDSHAKE_FRAME_LIMIT - 2),
    ACK: (32, 32),
    SKIP: (18, 18),
    REJECT: (26, 26 + TEXT_LIMIT),
    FIN: (8, 8),
    PING: (8, 8),
    PONG: (8, 8),
    CLOSE: (10, 10 + TEXT_LIMIT),
}
_DATA_MINIMUM = 10  # type, flags, sequence

#: shorter chunks are copied at once (bytes)
_WORTH_LENDING = 4 * 1024

_HEADER = Struct(">IBB")
HEADER_SIZE = _HEADER.size
_unpack_header = _HEADER.unpack_from
_NUMBER = Struct(">IBBQ")
_ACK = Struct(">IBBQQQQ")
_SKIP = Struct(">IBBQQH")
_REJECT = Struct(">IBB16sQH")
_CLOSE = Struct(">IBBHQ")


class PeerFault(Exception):
    """The peer broke a rule.  Internal: it never leaves the core, it becomes a CLOSE with ``code``.

    ``detail`` is told to both sides, ``private`` to this one only.
    """

    def __init__(self, code: CloseCode, detail: str, *, private: str = "") -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.private = private


def frame_name(kind: int) -> str:
    """The name of a frame type for a message to a human."""
    return _NAMES.get(kind, f"frame 0x{kind:02x}")


def check_preamble(received: bytes) -> None:
    """Judge the first eight bytes of a stream; names what speaks instead (specification, *Frames*)."""
    if received == PREAMBLE:
        return
    if received[:6] == PREAMBLE[:6]:
        raise PeerFault(CloseCode.VERSION, f"framing version {received[6]} is not supported, only 1")
    if received[:2] in (b"\x16\x03", b"\x15\x03"):
        detail = "the peer speaks TLS, this side does not"
    elif received[:4] in (b"GET ", b"POST", b"HEAD", b"PUT ", b"HTTP", b"OPTI"):
        detail = "the peer speaks HTTP"
    elif received[:4] == b"SSH-":
        detail = "the peer speaks SSH"
    else:
        detail = f"the peer does not speak networkio, its first bytes are {received.hex(' ')}"
    raise PeerFault(CloseCode.PROTOCOL, detail)


class FrameDecoder:
    """Finds the frames in a stream of chunks."""

    __slots__ = ("_needed", "_partial", "buffer", "lent", "position")

    def __init__(self) -> None:
        #: where the places that :meth:`next_frame` returned lie
        self.buffer: bytes = b""
        self.position = 0
        #: is the buffer still the caller's?
        self.lent = False
        self._partial = bytearray()
        self._needed = 0

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Add a chunk.  Frames found before must have been taken: the buffer may be replaced."""
        if self._partial or self.position < len(self.buffer):
            if self.position < len(self.buffer):
                self._partial += self.buffer[self.position :]
                self.buffer, self.position = b"", 0
            self._partial += data
            if len(self._partial) < self._needed:
                return
            self.buffer = bytes(self._partial)
            self._partial = bytearray()
        else:
            self.buffer = bytes(data)
        self.position = 0
        self._needed = 0

    def lend(self, data: bytes | bytearray | memoryview) -> None:
        """Add a chunk that is the caller's until :meth:`keep`: so what is taken before is not copied on its way.

        A chunk that continues something, is short, or is no plain row of bytes is fed.
        """
        if (
            len(data) < _WORTH_LENDING
            or self._partial
            or self.position < len(self.buffer)
            or (type(data) is memoryview and not (data.format == "B" and data.ndim == 1 and data.c_contiguous))
        ):
            self.feed(data)
        else:
            self.buffer, self.position, self.lent = cast(bytes, data), 0, True

    def keep(self) -> None:
        """The chunk that was lent is the caller's again: keep what was not taken of it."""
        self.lent = False
        data, position, self.buffer, self.position = self.buffer, self.position, b"", 0
        self.feed(memoryview(data)[position:])

    def take(self, size: int) -> bytes | None:
        """The next ``size`` bytes as they are (the preamble), or None while they are not all there."""
        end = self.position + size
        if len(self.buffer) < end:
            self._keep(size)
            return None
        taken = self.buffer[self.position : end]
        self.position = end
        return taken

    def next_frame(self, limit: int) -> tuple[int, int, int, int] | None:
        """The next frame as ``(type, flags, start, end)`` of its body in :attr:`buffer`; None when more is needed.

        Raises :class:`PeerFault` when the header breaks a bound; ``limit`` bounds the length field.
        """
        start = self.position
        buffer = self.buffer
        left = len(buffer) - start
        if left < 6:
            if left:
                self._keep(6)
            else:  # all is taken: the memory need not wait for the next chunk
                self.buffer, self.position = b"", 0
            return None
        length, kind, flags = _unpack_header(buffer, start)
        if kind != DATA or not _DATA_MINIMUM <= length <= limit:
            check_length(length, kind, limit)
        end = start + 4 + length
        if end > len(buffer):
            self._keep(4 + length)
            return None
        self.position = end
        return kind, flags, start + 6, end

    def clear(self) -> None:
        """Forget everything that was fed: what a closed connection still receives means nothing."""
        self.buffer, self.position, self._needed, self.lent = b"", 0, 0, False
        self._partial = bytearray()

    @property
    def pending(self) -> int:
        """Bytes fed and not yet taken."""
        return len(self._partial) + len(self.buffer) - self.position

    def _keep(self, needed: int) -> None:
        if self._partial:  # the rest of a frame is waited for already: being asked again in between changes nothing
            return
        self._partial += self.buffer[self.position :]
        self._needed = needed
        self.buffer, self.position = b"", 0


def check_length(length: int, kind: int, limit: int) -> None:
    """Judge a length field by its type's bounds; raises :class:`PeerFault`."""
    if length > limit:
        raise PeerFault(CloseCode.TOO_LARGE, f"a {frame_name(kind)} of length {length} is over the limit of {limit}")
    if length < 2:
        raise PeerFault(CloseCode.PROTOCOL, f"a frame of length {length} is shorter than its type and flags")
    if kind == DATA:
        if length < _DATA_MINIMUM:
            raise PeerFault(CloseCode.PROTOCOL, f"a DATA of length {length} has no sequence")
        return
    least, most = _BODY_BOUNDS.get(kind, (0, limit))
    if not least <= length - 2 <= most:
        raise PeerFault(CloseCode.PROTOCOL, f"a {frame_name(kind)} with a body of {length - 2} bytes")


def encode_frame(kind: int, body: bytes, flags: int = 0) -> bytes:
    """Any frame."""
    return _HEADER.pack(len(body) + 2, kind, flags) + body


def encode_ack(received: int, read: int, credit: int, first: int) -> bytes:
    return _ACK.pack(34, ACK, 0, received, read, credit, first)


def encode_skip(first: int, last: int, reason: int) -> bytes:
    return _SKIP.pack(20, SKIP, 0, first, last, reason)


def encode_reject(outbox_id: bytes, sequence: int, code: int, text: str) -> bytes:
    raw = cut_text(text)
    return _REJECT.pack(28 + len(raw), REJECT, 0, outbox_id, sequence, code) + raw


def encode_fin(sequence: int) -> bytes:
    return _NUMBER.pack(10, FIN, 0, sequence)


def encode_ping(opaque: int) -> bytes:
    return _NUMBER.pack(10, PING, 0, opaque)


def encode_pong(opaque: int) -> bytes:
    return _NUMBER.pack(10, PONG, 0, opaque)


def encode_close(code: int, retry_after_ms: int, text: str, *, resumable: bool) -> bytes:
    raw = cut_text(text)
    return _CLOSE.pack(12 + len(raw), CLOSE, FLAG_RESUMABLE if resumable else 0, code, retry_after_ms) + raw


def cut_text(text: str) -> bytes:
    """UTF-8 of at most ``TEXT_LIMIT`` bytes, cut between characters."""
    raw = text.encode("utf-8", "replace")
    return raw if len(raw) <= TEXT_LIMIT else raw[:TEXT_LIMIT].decode("utf-8", "ignore").encode()
