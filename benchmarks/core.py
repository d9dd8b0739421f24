"""How fast is the bare core?  Two endpoints in one process, no sockets: accept, frame, parse, take, acknowledge.

    python benchmarks/core.py [--messages N] [--size BYTES]

Prints messages per second through both halves together, and the same loop over a bare ``bytes.join`` and ``struct``
framing as the yardstick of this machine in this minute.
"""

from __future__ import annotations

import argparse
import struct
import time
from collections import deque

from networkio_proto import Config, Endpoint
from networkio_proto.connection import Connection


def _link(a: Connection, b: Connection, now: float) -> None:
    """Carry bytes both ways until both sides are silent."""
    moved = True
    while moved:
        moved = False
        for source, target in ((a, b), (b, a)):
            while buffers := source.data_to_send(now):
                target.receive_data(b"".join(buffers), now)
                moved = True


def run_core(messages: int, size: int, batch: int = 256) -> float:
    """Messages per second, each accepted, transmitted, taken, settled and acknowledged."""
    config = Config(window=1 << 20)
    sender, receiver = Endpoint("sender", config), Endpoint("receiver", config)
    target = sender.add_target("receiver", 0.0, to="receiver")
    assert target.dial is not None
    a, b = sender.connect(target.dial, 0.0), receiver.accept(0.0)
    _link(a, b, 0.0)
    outgoing, incoming = sender.session("receiver"), receiver.session("sender")
    payload = bytes(size)
    begin = time.perf_counter()
    for _ in range(messages // batch):
        for _ in range(batch):
            outgoing.send(payload, 0.0, raw=True)
        _link(a, b, 0.0)
        while incoming.take_settled(batch, 0.0):
            pass
        _link(a, b, 0.0)
        sender.effects.clear()
        receiver.effects.clear()
    seconds = time.perf_counter() - begin
    if outgoing.unacknowledged:
        raise SystemExit(f"{outgoing.unacknowledged} messages were not acknowledged")
    return messages // batch * batch / seconds


def run_bare(messages: int, size: int, batch: int = 256) -> float:
    """The least that any framing in Python costs: pack, join, unpack, slice, queue."""
    header = struct.Struct(">IBBQ")
    payload = bytes(size)
    queue: deque[bytes] = deque()
    begin = time.perf_counter()
    for _ in range(messages // batch):
        data = b"".join([header.pack(size + 10, 0x10, 0, i) + payload for i in range(batch)])
        position = 0
        while position < len(data):
            length, _, _, _ = header.unpack_from(data, position)
            queue.append(data[position + 14 : position + 4 + length])
            position += 4 + length
        while queue:
            queue.popleft()
    return messages // batch * batch / (time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=300_000)
    parser.add_argument("--size", type=int, default=64)
    options = parser.parse_args()
    pairs = [(run_core(options.messages, options.size), run_bare(options.messages, options.size)) for _ in range(5)]
    core, bare = sorted(pairs)[2]
    print(f"{options.size} B: core {core:,.0f} messages/s (both halves, acknowledged), bare framing {bare:,.0f}/s")
    print(f"one message costs {1e6 / core:.2f} us for both sides; {bare / core:.2f} x the bare framing")


if __name__ == "__main__":
    main()
