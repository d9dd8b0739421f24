"""What a payload of one mebibyte can cost its receiver: time and memory, whoever wrote it (attacks 34 to 37)."""

from __future__ import annotations

import random
import time
import tracemalloc
from typing import Any

import msgpack

from networkio_proto import DecodeError, MsgpackCodec

__all__ = ["PAYLOADS", "bombs"]

SIZE = 1 << 20


def _filled(header: bytes, element: bytes) -> bytes:
    """An array of as many of these as fit."""
    count = (SIZE - 5) // len(element)
    return header + count.to_bytes(4, "big") + element * count


def _array(count: int) -> bytes:
    return b"\xdd" + count.to_bytes(4, "big")


PAYLOADS: dict[str, bytes] = {
    "one string": b"\xdb" + (SIZE - 5).to_bytes(4, "big") + b"a" * (SIZE - 5),
    "one binary": b"\xc6" + (SIZE - 5).to_bytes(4, "big") + bytes(SIZE - 5),
    "small integers": _filled(b"\xdd", b"\x01"),
    "empty arrays": _filled(b"\xdd", b"\x90"),
    "empty maps": _filled(b"\xdd", b"\x80"),
    "empty strings": _filled(b"\xdd", b"\xa0"),
    "nests": _filled(b"\xdd", b"\x91" * 30 + b"\x90"),
    "one nest": b"\x91" * SIZE,
    "maps of themselves": _filled(b"\xdd", b"\x81\xa1a\x81\xa1b\xc0"),
    "doubles": _filled(b"\xdd", b"\xcb" + bytes(8)),
    "timestamps": _filled(b"\xdd", b"\xd6\xff\x00\x00\x00\x01"),
    "extensions": _filled(b"\xdd", b"\xd4\x01\x00"),
    "strings, as many as may be": _array(65_000) + (b"\xaf" + b"a" * 15) * 65_000,
    "arrays, as many as may be": _array(21_000) + (b"\x92\xd9\x2c" + b"a" * 44 + b"\x01") * 21_000,
    "maps, as many as may be": _array(21_000) + (b"\x81\xa4aaaa\xd9\x28" + b"a" * 40) * 21_000,
    "equal keys": b"\xdf" + ((SIZE - 5) // 2).to_bytes(4, "big") + b"\x01\x01" * ((SIZE - 5) // 2),
    "a declared length without its bytes": b"\xdd\xff\xff\xff\xff" + bytes(SIZE - 5),
    "noise": random.Random(1).randbytes(SIZE),
    "a table": bytes(msgpack.packb([{"name": f"n{i}", "value": i * 1.5} for i in range(40_000)]))[:SIZE],
}


def bombs() -> dict[str, dict[str, Any]]:
    """Each payload: refused or not, how long that took at best of five, and how many times its size it took."""
    codec, figures = MsgpackCodec(), {}
    for name, payload in PAYLOADS.items():
        best, refused = float("inf"), False
        for _ in range(5):
            begin = time.perf_counter()
            refused = not _decodes(codec, payload)
            best = min(best, time.perf_counter() - begin)
        tracemalloc.start()
        _decodes(codec, payload)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        figures[name] = {
            "refused": refused, "milliseconds": round(best * 1000, 1), "times": round(peak / len(payload), 1)
        }  # fmt: skip
    return figures


def _decodes(codec: MsgpackCodec, payload: bytes) -> bool:
    try:
        codec.decode(payload)
    except DecodeError:
        return False
    return True
