"""Makes the seed corpus: real frames in the shape that each target reads.  ``python -m tests.fuzz.make_corpus``

The frames are those of the examples in ``docs/protocol.md`` (built from the specification alone) and of the hand-made
peer of the tests; programs and objects are drawn from a fixed seed.  Files are named after their content, and files
that a finding left there stay.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack

from tests.fuzz.psk_target import OPERATIONS
from tests.fuzz.targets import CORPUS, TARGETS
from tests.proto import helpers_wire as wire
from tests.proto.helpers_wire import PREAMBLE, Peer

__all__ = ["examples", "main", "made"]

_PAGE = Path(__file__).parents[2] / "docs" / "protocol.md"
_BLOCK = re.compile(r"```text\n# example ([a-z0-9-]+)\n(.*?)```", re.DOTALL)
_LINE = re.compile(r"^[0-9a-f]{4}  ((?:[0-9a-f]{2} ?)+)", re.MULTILINE)


def examples() -> dict[str, bytes]:
    """The byte examples of the specification, by name."""
    found = {}
    for name, text in _BLOCK.findall(_PAGE.read_text()):
        hexadecimal = "".join(_LINE.findall(text))
        if hexadecimal:
            found[name] = bytes.fromhex(hexadecimal)
    return found


def made(target: str) -> Iterator[bytes]:
    """The seeds of one target."""
    draw = random.Random(f"corpus of {target}")
    page, peer = examples(), Peer()
    live = [bytes_ for name, bytes_ in page.items() if bytes_[4:5] >= b"\x10" and name != "payload"]
    if target == "frames":
        for number, frame in enumerate(page.values()):
            yield bytes([2 + number % 2, number % 40]) + frame
        yield b"\x02\x07" + b"".join(live)
    elif target == "maps":
        for frame in page.values():
            body = frame[6:] if frame[:3] != PREAMBLE[:3] else frame[14:]
            if body[:1] >= b"\x80" and body[:1] < b"\x90":
                yield body
        yield msgpack.packb({"a": [1, 2**32, True, None, {"b": b"x", "c": "\u00e9" * 40}], "z" * 40: 2**64 - 1})
        yield bytes.fromhex("82a16101a16102")
        for depth, items, size in ((3, 1, 1), (4, 1, 1), (1, 64, 1), (1, 65, 1), (1, 1, 4089), (1, 1, 4090)):
            value: object = "x" * size
            for _ in range(depth):
                value = [value] * items
            yield msgpack.packb({"k": value})
        yield bytes.fromhex("de0001d90161dd00000001cf0000000000000001")
    elif target == "payload":
        from tests.fuzz.codec_targets import _CODECS, Colour, Point, Right

        for value in (
            [None, True, -1, 2**63, 1.5, "text", b"bytes", [1, [2, [3]]], {"k": {"v": [1]}}],
            (1, {2, 3}, frozenset({"a"}), 2**70, 1j, Point(1, Colour.RED), Right.READ | Right.WRITE),
            {(1, 2): {3: {4: 5}}, "x": [[] for _ in range(30)]},
        ):
            yield _CODECS[0].encode(value)
        yield page["payload"]
        yield bytes.fromhex("93c70001c0c70004")
        yield b"\x91" * 40 + b"\xc0"
    elif target == "objects":
        for size in (8, 30, 80, 200):
            yield draw.randbytes(size)
        yield bytes(draw.choice((15, 16, 17, 18, 19, 2)) for _ in range(120))
    elif target == "acceptor":
        hello = peer.hello(to="m")
        whole = hello + peer.attach("m")
        yield b"\x01" + whole
        yield b"\x50" + PREAMBLE + whole + wire.data(1) + wire.ping()
        yield b"\x01" + peer.hello(to=None) + peer.attach("m", ended=[{
            "outbox": b"o" * 16, "run": b"r" * 16, "received": 3, "read": 2, "first": 1, "why": 3}])  # fmt: skip
        for text in (b"GET / HTTP/1.1\r\n\r\n", bytes.fromhex("1603010200010001"), b"SSH-2.0-x\r\n"):
            yield b"\x00" + text
        yield b"\x00" + PREAMBLE[:6] + b"\x02\x00"
        yield b"\x01" + page["handshake-hello"][8:] + page["handshake-attach-dialer"]
        yield b"\x01" + hello + wire.close(0)
    elif target == "dialer":
        for to in (0, 4):
            whole = peer.hello_ack() + peer.attach("m") + wire.data(1) + wire.ack(0, 0)
            yield bytes([1 | to]) + whole
            yield bytes([0x28 | to]) + PREAMBLE + whole
            yield bytes([1 | to]) + page["handshake-hello-ack"][8:] + page["handshake-attach-acceptor"]
            yield bytes([1 | to]) + peer.hello_ack() + wire.close(2, b"busy", retry_after=1500)
    elif target == "stream":
        yield b"\x01" + b"".join(live)
        for frame in live:
            yield b"\x01" + wire.data(1) + wire.data(2) + frame
        yield b"\x01" + wire.data(1, bytes(300), total=600)  # and no more
        yield b"\x03" + wire.ack(3, 2) + wire.skip(1, 4) + wire.fin(5)
        yield b"\x2a" + wire.data(1, bytes(300), total=600) + wire.data(1, bytes(300), wire.CONTINUED) + wire.ping()
    elif target == "psk":
        yield from _conversations()
        for _ in range(4):
            yield bytes(draw.randrange(16) if place % 4 == 0 else draw.randrange(256) for place in range(160))
    else:
        for size in (20, 60, 150):
            yield draw.randbytes(size)
        peers, nodes = bytes(range(16)), bytes(range(0x80, 0x91))
        for _ in range(6):  # mostly what is allowed
            yield b"".join(
                bytes([draw.choice(peers + nodes), *(draw.randrange(0xC0) for _ in range(draw.randrange(1, 6)))])
                for _ in range(40)
            )


def _conversations() -> Iterator[bytes]:
    """Programs of the attacker: what it can do with a right conversation, one idea after the other."""

    def program(*instructions: tuple[Any, ...]) -> bytes:
        codes = {operation.__name__: code for code, operation in reversed(list(enumerate(OPERATIONS)))}
        return b"".join(bytes([codes[name], *how, *(0,) * (3 - len(how))]) for name, *how in instructions)

    for dialer in (0, 1):  # a, m; stream 1 is the dialer's then, and stream 0 the acceptor's
        meet = ("meet", dialer)
        hello, hello_ack, attach, answer = (("relay", which) for which in (1, 0, 1, 0))
        yield program(meet, ("relay_all", 0, 3), ("send",), ("relay_all",), ("rotate", 0, 1), ("rotate", 0, 2))
        yield program(meet, ("relay_all", 0, 3, 0xC3), ("cut", 1), ("cut", 0), meet, ("relay_all", 0, 3))
        for before in ((), (hello,), (hello, hello_ack), (hello, hello_ack, attach)):
            for place in (0x80, 0x90, 0xA8, 0x30):  # of the mac, and of what it covers
                yield program(meet, *before, ("tamper", 1 - len(before) % 2, place, 1), ("relay_all", 0, 2))
        for one, two in ((1, 2), (1, 0), (0, 1)):  # channels that differ, or somebody with a certificate between
            yield program(("meet", dialer, one, two), ("relay_all", 0, 3))
        for again in (0, 1, 2, 3):  # what was once heard, again and elsewhere
            yield program(meet, ("relay_all", 0, 1), ("alone", 0), *(("repeat", 0, again),) * 2)
            yield program(meet, hello, hello_ack, meet, hello, hello_ack, ("turn", 1, 2), ("turn", 3, 0),
                          ("relay", 1), ("relay", 3), ("repeat", again, again), ("relay_all", 0, 3))  # fmt: skip
        for key in range(14):
            yield program(meet, hello, ("graft", 1, 0x10, key), attach, answer)
            yield program(meet, hello, hello_ack, ("graft", 0, 0x20, key), answer)
        yield program(meet, hello, hello_ack, attach, ("forge_attach", 1, 1, 0), answer)
    for how in (0x00, 0x01, 0x02, 0x10, 0x20, 0x30):
        for who in (0, 1, 2, 3):
            forge = (("forge_hello", 0, who, how), ("forge_attach", 0, 1, how))
            yield program(("alone", 0), *forge)
            yield program(("alone", 1), *forge, ("wait", 0, 3))
            yield program(("meet", 0), ("relay_all", 0, 3), ("alone", 0), *forge, ("relay_all",))


def main() -> None:
    """Write them all."""
    for target in TARGETS:
        directory = CORPUS / target
        directory.mkdir(parents=True, exist_ok=True)
        for data in made(target):
            (directory / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)


if __name__ == "__main__":
    main()
