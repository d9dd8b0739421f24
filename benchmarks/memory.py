"""What do messages and peers take in memory, beside the cost that bounds them?  Measured with tracemalloc, no sockets.

    python benchmarks/memory.py

Prints bytes for each message in an outbox and in an inbox, by payload size, next to its cost; and bytes for each peer
that is merely known, and for each one that is connected (the core's part, one side of it).
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable

from networkio_proto import COST_PER_MESSAGE, Config, Connection, Endpoint

MESSAGES = 2_000
PEERS = 500
BIG = Config(outbox_limit=1 << 30, window=1 << 28, window_max=1 << 28)


def measured(make: Callable[[], object]) -> int:
    """Bytes that ``make`` allocates and keeps."""
    gc.collect()
    before, _ = tracemalloc.get_traced_memory()
    kept = make()
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    del kept
    return after - before


def carry(a: Connection, b: Connection) -> None:
    """Move bytes both ways until both sides are silent."""
    moved = True
    while moved:
        moved = False
        for source, sink in ((a, b), (b, a)):
            while buffers := source.data_to_send(0.0):
                sink.receive_data(b"".join(buffers), 0.0)
                moved = True


def connected(client: Endpoint, server: Endpoint) -> tuple[Connection, Connection]:
    """A live connection."""
    dial = client.add_target(server.peer_id, 0.0, to=server.peer_id).dial
    assert dial is not None
    pair = client.connect(dial, 0.0), server.accept(0.0)
    carry(*pair)
    return pair


def outbox(size: int) -> float:
    """Bytes for each message that waits in an outbox."""
    session = Endpoint("sender", BIG).session("receiver", 0.0)

    def send() -> None:
        for _ in range(MESSAGES):
            session.send(bytes(size), 0.0, raw=True)

    return measured(send) / MESSAGES


def inbox(size: int) -> float:
    """Bytes for each message that waits to be taken."""
    sender, receiver = Endpoint("sender", BIG), Endpoint("receiver", BIG)
    pair = connected(sender, receiver)
    session = sender.session("receiver", 0.0)
    for _ in range(MESSAGES):
        session.send(bytes(size), 0.0, raw=True)
    per_message = measured(lambda: carry(*pair)) / MESSAGES
    if receiver.session("sender", 0.0).unread != MESSAGES:
        raise SystemExit("not all messages arrived")
    return per_message


def known() -> float:
    """Bytes for each peer that is known and was never met."""
    node = Endpoint("node")
    return measured(lambda: [node.session(f"peer-{number}", 0.0) for number in range(PEERS)]) / PEERS


def met() -> float:
    """Bytes for each connected peer, at the side that accepted."""
    server = Endpoint("server")
    clients = [Endpoint(f"peer-{number}") for number in range(PEERS)]
    both = measured(lambda: [connected(client, server) for client in clients])
    return both / PEERS / 2


def main() -> None:
    tracemalloc.start()
    print(f"{'payload':>10} {'cost':>8} {'in an outbox':>14} {'in an inbox':>14}")
    for size in (0, 100, 1_000, 10_000):
        print(f"{size:>10,} {COST_PER_MESSAGE + size:>8,} {outbox(size):>14,.0f} {inbox(size):>14,.0f}")
    print(f"a peer that is known: {known():,.0f} bytes; connected: {met():,.0f} bytes a side")


if __name__ == "__main__":
    main()
