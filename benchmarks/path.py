"""Where the time of a small message goes: the calls of the application, the rest of the way, and what Python takes.

    python benchmarks/path.py [--size BYTES] [--rounds N]

Two nodes of ``networkio_asyncio`` in one process, connected over loopback.  In each round 200 messages are sent in a
row, carried, and read in a row; each figure is the least of all rounds, in microseconds a message.  ``whole`` is all of
it, for both ends together.  Below stands what single steps cost by themselves in this Python, in this minute: below the
sum of those no library in pure Python gets.
"""

from __future__ import annotations

import argparse
import asyncio
import struct
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import msgpack

from networkio_asyncio import Node
from networkio_asyncio._node import _BREATH

_COUNT = 200
_WARM = 10


async def run(size: int, rounds: int) -> dict[str, float]:
    """``send``, ``read`` and ``whole``."""
    payload = bytes(size)
    least = {"send": 1e9, "read": 1e9, "whole": 1e9}

    def note(name: str, begin: float, count: int) -> None:
        least[name] = min(least[name], (time.perf_counter() - begin) / count * 1e6)

    async with Node("server") as server, Node("client") as client:
        listener = await server.listen("127.0.0.1", 0)
        near = await client.connect("127.0.0.1", listener.port, "server")
        await near.wait_connected()
        far = server.peer("client")
        for _ in range(rounds):
            client.breath = server.breath = _BREATH  # so that none of the measured calls lets others run
            whole = time.perf_counter()
            for _ in range(_WARM):
                await near.send(payload)
            begin = time.perf_counter()
            for _ in range(_COUNT):
                receipt = await near.send(payload)
            note("send", begin, _COUNT)
            while far.unread < _COUNT + _WARM:
                await asyncio.sleep(0)
            server.breath = _BREATH
            for _ in range(_WARM // 2):
                await far.read()
            begin = time.perf_counter()
            for _ in range(_COUNT):
                await far.read()
            note("read", begin, _COUNT)
            for _ in range(_WARM // 2):
                await far.read()
            await receipt.read()
            note("whole", whole, _COUNT + _WARM)
    return least


class _Thing:
    __slots__ = ("one", "other")

    def __init__(self, one: object, other: object) -> None:
        self.one = one
        self.other = other


async def _nothing(one: object, *, other: object = None) -> object:
    return one


def parts(size: int, rounds: int) -> dict[str, float]:
    """What single steps of Python and of msgpack take."""
    payload = bytes(size)
    packer, head = msgpack.Packer(), struct.Struct(">IBBQ")
    packed = packer.pack(payload)
    frames, queue = list[bytes](), deque[object]()

    def through() -> None:
        queue.append((None, 1, packed, 0, None))
        queue.popleft()

    def frame() -> None:
        frames.append(head.pack(len(packed) + 10, 3, 0, 1) + packed)

    steps: dict[str, Callable[[], Any]] = {
        "a call": lambda: None,
        "msgpack, packing": lambda: packer.pack(payload),
        "a frame, built and kept": frame,
        "an object with two attributes": lambda: _Thing(1, 2),
        "msgpack, unpacking": lambda: msgpack.unpackb(packed),
        "a tuple through a deque": through,
    }
    took = {name: _least(step, rounds) for name, step in steps.items()}
    call = took["a call"]
    result = {name: seconds - call * (name != "a call") for name, seconds in took.items()}
    result["an await of a coroutine"] = asyncio.run(_least_await(rounds))
    return result


def _least(step: Callable[[], Any], rounds: int) -> float:
    least = 1e9
    for _ in range(rounds):
        begin = time.perf_counter()
        for _ in range(1000):
            step()
        least = min(least, time.perf_counter() - begin)
    return least * 1000


async def _least_await(rounds: int) -> float:
    least = 1e9
    for _ in range(rounds):
        begin = time.perf_counter()
        for _ in range(1000):
            await _nothing(1)
        least = min(least, time.perf_counter() - begin)
    return least * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64, help="bytes of a message (default: 64)")
    parser.add_argument("--rounds", type=int, default=1000, help="more give a steadier least (default: 1000)")
    arguments = parser.parse_args()
    figures = asyncio.run(run(arguments.size, arguments.rounds))
    for name, microseconds in (figures | parts(arguments.size, min(arguments.rounds, 200))).items():
        print(f"{name:32} {microseconds:6.2f} us")


if __name__ == "__main__":
    main()
