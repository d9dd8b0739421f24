"""A program that is struck by Ctrl-C again and again while it works: ``struck.py WAY``.

It writes one "!" for each KeyboardInterrupt that came out, and at the end a line that tells what it found.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from networkio_threads import Config, Message, Node, Peer

COUNT = 10_000
HASTY = Config(ack_delay=0.002, linger=0.2, drain_timeout=5.0, outbox_limit=4000)


def strike_proof(step: Callable[[], bool]) -> None:
    """Call until it says that the work is done, whatever strikes.

    Whoever strikes waits for the sign that the one before came out, so the signs are given only where the next one is
    caught.
    """
    signs = [b"+"]
    while True:
        try:
            while signs:
                os.write(1, signs.pop())
            while not step():
                pass
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            return
        except KeyboardInterrupt:
            signs.append(b"!")


def send(near: Peer, far: Peer) -> list[int]:
    got: list[int] = []

    def read() -> None:
        while len(got) < COUNT:
            got.append(far.read())

    thread = threading.Thread(target=read, daemon=True)
    thread.start()

    def step() -> bool:
        number = near.ledger.accepted  # what was accepted is known, also where Ctrl-C took the receipt
        if number < COUNT:
            near.send(number)
        return number >= COUNT

    strike_proof(step)
    thread.join(20)
    return got


def fed(take: Callable[[Peer, list[int]], Any]) -> Callable[[Peer, Peer], list[int]]:
    """Numbers come from the other side, this one takes them."""

    def run(near: Peer, far: Peer) -> list[int]:
        def feed() -> None:
            for number in range(COUNT):
                far.send(number)

        threading.Thread(target=feed, daemon=True).start()
        got: list[int] = []

        def step() -> bool:
            if len(got) < COUNT:
                take(near, got)
            return len(got) >= COUNT

        strike_proof(step)
        return got

    return run


def read(peer: Peer, got: list[int]) -> None:
    got.append(peer.read())


def read_nowait(peer: Peer, got: list[int]) -> None:
    got.append(peer.read_nowait(None))
    if got[-1] is None:
        got.pop()
        time.sleep(0)  # whoever polls lets the others run


held: list[Message] = []


def receive(peer: Peer, got: list[int]) -> None:
    if not held:  # else Ctrl-C struck before it was settled
        held.append(peer.receive())
    if got[-1:] != [held[0].data]:
        got.append(held[0].data)
    held[0].ack()
    held.clear()


def serve(near: Peer, far: Peer) -> list[int]:
    got: list[int] = []
    full = threading.Event()

    def handler(message: Message) -> None:
        got.append(message.data)
        if len(got) >= COUNT:
            full.set()
            os.kill(os.getpid(), signal.SIGUSR1)

    signal.signal(signal.SIGUSR1, lambda number, frame: None)  # it wakes nobody; the next strike does

    def feed() -> None:
        for number in range(COUNT):
            far.send(number)

    threading.Thread(target=feed, daemon=True).start()

    def step() -> bool:
        if not full.is_set():
            near.node.serve(handler, workers=3)
        return full.is_set()

    strike_proof(step)
    return got


def drain(near: Peer, far: Peer) -> list[int]:
    got: list[int] = []

    def read() -> None:
        while len(got) < COUNT:
            got.append(far.read())

    thread = threading.Thread(target=read, daemon=True)
    thread.start()

    def step() -> bool:
        for _ in range(20):
            number = near.ledger.accepted
            if number < COUNT:
                near.send(number)
        near.node.drain()
        return near.ledger.read >= COUNT

    strike_proof(step)
    thread.join(20)
    return got


WAYS: dict[str, Callable[[Peer, Peer], list[int]]] = {
    "send": send,
    "read": fed(read),
    "read_nowait": fed(read_nowait),
    "receive": fed(receive),
    "serve": serve,
    "drain": drain,
}


def main(way: str) -> None:
    with Node("far", config=HASTY) as there, Node("near", config=HASTY) as here:
        near = here.connect("127.0.0.1", there.listen("127.0.0.1", 0).port, "far")
        far = there.peer("near")
        near.wait_connected(5)
        got = WAYS[way](near, far)
        os.write(1, b"\n")
        expected = list(range(COUNT))
        if got != expected:
            wrong = next((place for place, (a, b) in enumerate(zip(got, expected, strict=False)) if a != b), len(got))
            print(f"{len(got)} numbers, wrong from {wrong}: {got[wrong : wrong + 5]}")
            return
        assert not here._lock.locked()
        assert not there._lock.locked()
        for one, other in ((near, far), (far, near)):
            receipt = one.send("still fine", 5)
            assert other.read(5) == "still fine"
            receipt.read(5)
        assert near.ledger.failed == far.ledger.failed == near.unread == far.unread == 0
    print("fine")


if __name__ == "__main__":
    main(sys.argv[1])
