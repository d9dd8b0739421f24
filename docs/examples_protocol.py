"""The byte examples of ``docs/protocol.md``, built from the specification alone.

Nothing of the library is imported: the examples are a second opinion.  Every value is fixed, so the output is the same
on every run.

``python docs/examples_protocol.py``            prints every block, in the order of the page
``python docs/examples_protocol.py --update``   rewrites the blocks inside ``docs/protocol.md``

A block of the page is a fenced ``text`` block whose first line is ``# example NAME``.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack

__all__ = ["EXAMPLES", "PAGE", "blocks_of_page", "render", "render_all", "update"]

PAGE = Path(__file__).with_name("protocol.md")

Piece = tuple[bytes, str]  # some bytes, and what they are

PREAMBLE = bytes.fromhex("4e494f000d0a0100")

CLIENT, SERVER = "client-123", "server-001"  # "server-001" is the greater id: the arbiter
CLIENT_INCARNATION, SERVER_INCARNATION = b"\xc1" * 16, b"\x51" * 16
CLIENT_OUTBOX, CLIENT_RUN = b"\xa1" * 16, b"\xa2" * 16
SERVER_OUTBOX, SERVER_RUN = b"\xb1" * 16, b"\xb2" * 16
CODEC = "msgpack"
AGENT = "example/1"
LIMITS = {"frame": 65536, "message": 16777216, "idle": 45000}
WINDOW = 262144
DAY = 86_400_000

HELLO, HELLO_ACK, ATTACH, DATA, ACK, SKIP, REJECT, FIN = 0x01, 0x02, 0x03, 0x10, 0x11, 0x12, 0x13, 0x14
PING, PONG, CLOSE = 0x20, 0x21, 0x30
MORE, CONTINUED, REDELIVERED, ACK_NOW, HEADERS, RAW = 0x01, 0x02, 0x04, 0x08, 0x10, 0x40
NAMES = {
    HELLO: "HELLO", HELLO_ACK: "HELLO_ACK", ATTACH: "ATTACH", DATA: "DATA", ACK: "ACK", SKIP: "SKIP",
    REJECT: "REJECT", FIN: "FIN", PING: "PING", PONG: "PONG", CLOSE: "CLOSE",
}  # fmt: skip


# -- building -------------------------------------------------------------------------------------------------------


def pack(value: Any) -> bytes:
    result = msgpack.packb(value, use_bin_type=True)
    assert isinstance(result, bytes)
    return result


def shown(value: Any) -> str:
    if value is None:
        return "nil"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list):
        return "[" + ", ".join(shown(item) for item in value) + "]"
    return str(value)


def map_pieces(mapping: dict[str, Any], name: str, indent: str = "") -> list[Piece]:
    """One piece per key, in the order given; nested maps are opened, other values stand beside their key."""
    head = pack({str(n): 0 for n in range(len(mapping))})
    head = head[:1] if head[0] != 0xDE else head[:3]
    pieces: list[Piece] = [(head, f"{indent}{name}: map of {len(mapping)}")]
    for key, value in mapping.items():
        if isinstance(value, dict):
            (first, note), *rest = map_pieces(value, key, indent + "  ")
            pieces += [(pack(key) + first, note), *rest]
        else:
            pieces.append((pack(key) + pack(value), f"{indent}  {key}: {shown(value)}"))
    return pieces


def frame(kind: int, flags: int, body: list[Piece], flag_note: str = "") -> list[Piece]:
    length = 2 + sum(len(data) for data, _ in body)
    return [
        (struct.pack(">I", length), f"length {length}"),
        (bytes([kind]), f"type {NAMES.get(kind, 'ignorable')}"),
        (bytes([flags]), f"flags {flag_note}".rstrip() if flags else "flags: none"),
        *body,
    ]


def u64(value: int, name: str) -> Piece:
    return struct.pack(">Q", value), f"{name} {value}"


def u32(value: int, name: str) -> Piece:
    return struct.pack(">I", value), f"{name} {value}"


def u16(value: int, name: str) -> Piece:
    return struct.pack(">H", value), f"{name} {value}"


def raw(pieces: list[Piece]) -> bytes:
    return b"".join(data for data, _ in pieces)


def dump(pieces: list[Piece]) -> str:
    """Offset, up to 16 bytes, meaning; every piece starts a line of its own."""
    lines, offset = [], 0
    for data, note in pieces:
        for start in range(0, len(data), 16):
            line = f"{offset + start:04x}  {data[start : start + 16].hex(' '):<47}  {note if start == 0 else ''}"
            lines.append(line.rstrip())
        offset += len(data)
    return "\n".join(lines)


# -- the handshake maps ---------------------------------------------------------------------------------------------


def hello(dial: int, nonce: bytes, *, auth: str = "insecure", key_id: str | None = None) -> list[Piece]:
    return frame(HELLO, 0, map_pieces({
        "v": [1, 1], "id": CLIENT, "to": SERVER, "incarnation": CLIENT_INCARNATION, "dial": dial, "nonce": nonce,
        "features": [], "require": [], "auth": auth, "key_id": key_id, "limits": LIMITS, "codec": CODEC,
        "agent": AGENT,
    }, "HELLO"))  # fmt: skip


def hello_ack(nonce: bytes, *, auth: str = "insecure") -> list[Piece]:
    return frame(HELLO_ACK, 0, map_pieces({
        "v": 1, "id": SERVER, "incarnation": SERVER_INCARNATION, "nonce": nonce, "features": [], "auth": auth,
        "limits": LIMITS, "codec": CODEC,
    }, "HELLO_ACK"))  # fmt: skip


def inbox(outbox: bytes, run: bytes, received: int, read: int, first: int) -> dict[str, Any]:
    return {"outbox": outbox, "run": run, "received": received, "read": read, "first": first}


def attach_client(
    first: int, next_: int, inbox: dict[str, Any] | None, seen: int, mac: bytes | None = None
) -> list[Piece]:
    return frame(ATTACH, 0, map_pieces({
        "outbox": CLIENT_OUTBOX, "run": CLIENT_RUN, "first": first, "next": next_, "inbox": inbox, "ended": [],
        "durable": False, "expiry": None, "credit": WINDOW, "seen": seen, "mac": mac,
    }, "ATTACH"))  # fmt: skip


def attach_server(
    first: int, next_: int, inbox: dict[str, Any] | None, generation: int, mac: bytes | None = None
) -> list[Piece]:
    return frame(ATTACH, 0, map_pieces({
        "outbox": SERVER_OUTBOX, "run": SERVER_RUN, "first": first, "next": next_, "inbox": inbox, "ended": [],
        "durable": False, "expiry": DAY, "credit": WINDOW, "generation": generation, "mac": mac,
    }, "ATTACH"))  # fmt: skip


# -- single frames --------------------------------------------------------------------------------------------------


def data_plain() -> list[Piece]:
    return frame(DATA, 0, [u64(1, "sequence"), (pack("Hello"), 'payload: msgpack str "Hello"')])


def data_raw_headers() -> list[Piece]:
    headers = map_pieces({"kind": "image"}, "headers")
    size = len(raw(headers))
    return frame(
        DATA,
        ACK_NOW | HEADERS | RAW,
        [u64(2, "sequence"), u16(size, "header length"), *headers, (bytes.fromhex("00ff10"), "payload: 3 raw bytes")],
        "ACK_NOW | HEADERS | RAW",
    )


def data_requeued() -> list[Piece]:
    origin = CLIENT_OUTBOX + struct.pack(">Q", 7)
    headers = raw(map_pieces({"id": origin}, "headers"))
    return frame(
        DATA,
        REDELIVERED | HEADERS,
        [
            u64(7, "sequence"),
            u16(len(headers), "header length"),
            (headers[:1], "headers: map of 1"),
            (headers[1:6], "  id: bin of 24 bytes"),
            (headers[6:22], "    outbox_id of the first acceptance"),
            (headers[22:], "    sequence of the first acceptance: 7"),
            (pack(42), "payload: msgpack uint 42"),
        ],
        "REDELIVERED | HEADERS",
    )


def data_fragments() -> list[Piece]:
    """Ten raw bytes in three fragments (tiny on purpose; a real sender fills its frames)."""
    payload = bytes(range(10))
    return [
        *frame(
            DATA,
            MORE | RAW,
            [u64(3, "sequence"), u32(10, "total"), (payload[:4], "payload, bytes 0 to 3")],
            "FRAGMENT_MORE | RAW",
        ),
        *frame(
            DATA,
            MORE | CONTINUED,
            [u64(3, "sequence"), (payload[4:8], "payload, bytes 4 to 7")],
            "FRAGMENT_MORE | FRAGMENT_CONTINUED",
        ),
        *frame(DATA, CONTINUED, [u64(3, "sequence"), (payload[8:], "payload, bytes 8 and 9")], "FRAGMENT_CONTINUED"),
    ]


def ack(received: int = 3, read: int = 2, credit: int = 262293, first: int = 1) -> list[Piece]:
    return frame(
        ACK,
        0,
        [
            u64(received, "received"),
            u64(read, "read"),
            u64(credit, "credit"),
            u64(first, "first"),
        ],
    )


def skip() -> list[Piece]:
    return frame(SKIP, 0, [u64(4, "first"), u64(6, "last"), u16(2, "reason EXPIRED =")])


def reject() -> list[Piece]:
    return frame(
        REJECT,
        0,
        [
            (CLIENT_OUTBOX, "outbox of the rejected message"),
            u64(3, "rejected"),
            u16(7, "code"),
            (b"bad order", 'text "bad order"'),
        ],
    )


def fin() -> list[Piece]:
    return frame(FIN, 0, [u64(8, "sequence")])


def ping() -> list[Piece]:
    return frame(PING, 0, [(bytes.fromhex("0123456789abcdef"), "opaque")])


def pong() -> list[Piece]:
    return frame(PONG, 0, [(bytes.fromhex("0123456789abcdef"), "opaque, as in the PING")])


def close_overload() -> list[Piece]:
    return frame(
        CLOSE,
        1,
        [u16(2, "code OVERLOAD ="), u64(1500, "retry_after, ms,"), (b"busy", 'text "busy"')],
        "RESUMABLE",
    )


def close_normal() -> list[Piece]:
    return frame(CLOSE, 0, [u16(0, "code NORMAL ="), u64(0, "retry_after, ms,")])


def ignorable() -> list[Piece]:
    return frame(0x80, 0, [(b"\x00\x01", "body: skipped")])


def payload() -> list[Piece]:
    """Some values of the codec "msgpack" that MessagePack has no type for."""
    ext = msgpack.ExtType
    moment = struct.pack(">HBBBBBBIq", 2024, 2, 29, 12, 30, 0, 0, 5, 3_600_000_000)
    return [
        (b"\x95", "array of 5"),
        (b"\x93" + pack(ext(1, b"")), "array of 3: mark, a tuple"),
        (pack(1), "  1"),
        (pack("a"), '  "a"'),
        (b"\x92" + pack(ext(2, b"")), "array of 2: mark, a set"),
        (pack(7), "  7"),
        (pack(ext(14, moment)), "date and time with an offset"),
        (pack(ext(15, struct.pack(">iII", -1, 86_399, 999_999))), "duration"),
        (pack(ext(8, (2**64).to_bytes(9, "big", signed=True))), "int 2^64"),
    ]


# -- conversations --------------------------------------------------------------------------------------------------

NONCES = [b"\xd1" * 32, b"\xe1" * 32, b"\xd2" * 32, b"\xe2" * 32]
PREAMBLE_PIECE: Piece = (PREAMBLE, "preamble")


def handshake_hello() -> list[Piece]:
    return [PREAMBLE_PIECE, *hello(1, NONCES[0])]


def handshake_hello_ack() -> list[Piece]:
    return [PREAMBLE_PIECE, *hello_ack(NONCES[1])]


def handshake_attach_dialer() -> list[Piece]:
    return attach_client(1, 1, None, seen=0)


def handshake_attach_acceptor() -> list[Piece]:
    return attach_server(1, 1, None, generation=1)


def resume_hello() -> list[Piece]:
    return [PREAMBLE_PIECE, *hello(2, NONCES[2])]


def resume_hello_ack() -> list[Piece]:
    return [PREAMBLE_PIECE, *hello_ack(NONCES[3])]


def resume_attach_dialer() -> list[Piece]:
    return attach_client(2, 4, inbox(SERVER_OUTBOX, SERVER_RUN, received=1, read=1, first=1), seen=1)


def resume_attach_acceptor() -> list[Piece]:
    return attach_server(2, 2, inbox(CLIENT_OUTBOX, CLIENT_RUN, received=2, read=2, first=2), generation=2)


def resume_data() -> list[Piece]:
    return frame(DATA, 0, [u64(3, "sequence"), (pack("three"), 'payload: msgpack str "three"')])


def resume_ack() -> list[Piece]:
    return ack(received=3, read=3, credit=WINDOW + 64 + len(pack("three")), first=2)


# -- the pre-shared key ---------------------------------------------------------------------------------------------

PSK = bytes(range(32))


def lp(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def psk_handshake() -> dict[str, bytes]:
    """Every intermediate value of a PSK handshake without TLS (the binding is empty)."""
    frame_hello = raw(hello(1, NONCES[0], auth="psk", key_id="k1"))
    frame_hello_ack = raw(hello_ack(NONCES[1], auth="psk"))
    attach_d = raw(attach_client(1, 1, None, seen=0, mac=bytes(32)))
    attach_a = raw(attach_server(1, 1, None, generation=1, mac=bytes(32)))
    transcript = PREAMBLE + frame_hello + PREAMBLE + frame_hello_ack
    th = hashlib.sha256(b"networkio/1" + lp(transcript) + lp(b"")).digest()
    prk = hmac.digest(th, PSK, "sha256")  # HKDF-Extract
    key = hmac.digest(prk, b"auth" + b"\x01", "sha256")  # HKDF-Expand, 32 bytes
    mac_d = hmac.digest(key, b"D" + lp(CLIENT.encode()) + lp(SERVER.encode()) + attach_d, "sha256")
    mac_a = hmac.digest(key, b"A" + lp(SERVER.encode()) + lp(CLIENT.encode()) + mac_d + attach_a, "sha256")
    return {
        "psk": PSK,
        "HELLO": frame_hello,
        "HELLO_ACK": frame_hello_ack,
        "th": th,
        "K": key,
        "ATTACH_D, mac zeroed": attach_d,
        "mac_D": mac_d,
        "ATTACH_A, mac zeroed": attach_a,
        "mac_A": mac_a,
    }


def psk_pieces() -> list[Piece]:
    return [
        (value[start : start + 32], f"{name}" if start == 0 else "")
        for name, value in psk_handshake().items()
        for start in range(0, len(value), 32)
    ]


def psk_dump() -> str:
    lines = []
    for name, value in psk_handshake().items():
        lines.append(f"{name} ({len(value)} bytes)")
        lines += [f"  {value[start : start + 32].hex(' ')}" for start in range(0, len(value), 32)]
    return "\n".join(lines)


# -- the page -------------------------------------------------------------------------------------------------------

EXAMPLES: dict[str, Callable[[], list[Piece]]] = {
    "preamble": lambda: [PREAMBLE_PIECE],
    "ignorable": ignorable,
    "data": data_plain,
    "data-raw-headers": data_raw_headers,
    "data-fragments": data_fragments,
    "data-requeued": data_requeued,
    "ack": ack,
    "skip": skip,
    "reject": reject,
    "fin": fin,
    "ping": ping,
    "pong": pong,
    "close-overload": close_overload,
    "close-normal": close_normal,
    "psk": psk_pieces,
    "payload": payload,
    "handshake-hello": handshake_hello,
    "handshake-hello-ack": handshake_hello_ack,
    "handshake-attach-dialer": handshake_attach_dialer,
    "handshake-attach-acceptor": handshake_attach_acceptor,
    "resume-hello": resume_hello,
    "resume-hello-ack": resume_hello_ack,
    "resume-attach-dialer": resume_attach_dialer,
    "resume-attach-acceptor": resume_attach_acceptor,
    "resume-data": resume_data,
    "resume-ack": resume_ack,
}


def render(name: str) -> str:
    """The block of that name, its first line included."""
    body = psk_dump() if name == "psk" else dump(EXAMPLES[name]())
    return f"# example {name}\n{body}\n"


def render_all() -> str:
    return "\n".join(render(name) for name in EXAMPLES)


BLOCK = re.compile(r"^```text\n(# example (\S+)\n.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks_of_page(text: str) -> dict[str, str]:
    """Name and content of every example block in the text of the page."""
    return {found[2]: found[1] for found in BLOCK.finditer(text)}


def update(text: str) -> str:
    """The text of the page with every example block made anew."""
    return BLOCK.sub(lambda found: f"```text\n{render(found[2])}```", text)


if __name__ == "__main__":
    if "--update" in sys.argv[1:]:
        PAGE.write_text(update(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        sys.stdout.write(render_all())
