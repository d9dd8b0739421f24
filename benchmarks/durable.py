"""What durability costs: commits and syncs of the journals at both ends, and the time to open one that is full.

    python benchmarks/durable.py [--seconds S] [--pending N]

Two nodes of ``networkio_threads`` in processes of their own, both with a journal (durability "full").  Commits are
counted where they are made, in ``networkio_journal.store``.  Where strace is installed, the syncs that the kernel sees
are counted beside them, for messages that come one by one: each waits until nothing happens any more.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

if __name__ == "__main__":  # run as a file, its own directory is where Python would look first
    sys.path[0] = str(Path(__file__).parents[1])

from networkio_journal.store import Store
from networkio_proto.journal import JournalBatch
from networkio_threads import Config, Node

_PAYLOAD = b"x" * 64
_ROOM = Config(outbox_limit=256 << 20)

#: so long nothing may happen until a message is said to be over (seconds)
_CALM = 0.2


class Commits:
    """How many commits the journals of this process have made."""

    def __init__(self) -> None:
        self.count = 0
        commit = Store.commit

        def counted(store: Store, batch: JournalBatch) -> None:
            commit(store, batch)
            self.count += 1

        Store.commit = counted  # type: ignore[method-assign, assignment]


def receiver(channel: Connection, directory: str, many: int) -> None:
    """The other end: reads ``many`` at a time, for as long as it is let; asked for its commits, it tells them."""
    commits = Commits()
    with Node("receiver", journal=f"{directory}/receiver.db") as node:
        channel.send(node.listen("127.0.0.1", 0).port)
        peer = node.peer("sender")

        def read() -> None:
            while True:
                if many > 1:
                    peer.read_many(many)
                else:
                    peer.read()

        threading.Thread(target=read, daemon=True).start()
        while channel.recv():
            channel.send(commits.count)
        os._exit(0)  # nobody needs goodbyes


Way = Callable[[Node], int]


def alone(node: Node) -> int:
    """One thread, one message after the other."""
    node.peer("receiver").send(_PAYLOAD)
    return 1


def heap(node: Node) -> int:
    """1,000 by one call."""
    node.peer("receiver").send_many([_PAYLOAD] * 1000)
    return 1000


#: what is called again and again: by how many threads, and how many are read at a time
WAYS: dict[str, tuple[Way, int, int]] = {
    "send(), one thread": (alone, 1, 1),
    "send(), 10 threads": (alone, 10, 1),
    "send(), 100 threads": (alone, 100, 1),
    "send_many(1,000) and read_many(1,000)": (heap, 1, 1000),
}


class Pair:
    """A node here, and the receiver in a process of its own."""

    def __init__(self, directory: str, many: int) -> None:
        self._channel, there = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=receiver, args=(there, directory, many))
        self._process.start()
        self.node = Node("sender", config=_ROOM, journal=f"{directory}/sender.db").__enter__()
        self.peer = self.node.connect("127.0.0.1", self._channel.recv(), "receiver")
        self.peer.wait_connected(30)
        self.peer.send(_PAYLOAD).read(30)

    def commits(self) -> tuple[int, int]:
        """Of the sender and of the receiver, from the beginning."""
        self._channel.send(True)
        return COMMITS.count, self._channel.recv()

    def calm(self) -> tuple[int, int]:
        """The commits when there are no more to come."""
        before, now = (-1, -1), self.commits()
        while now != before:
            time.sleep(_CALM)
            before, now = now, self.commits()
        return now

    def close(self) -> None:
        """End both."""
        self._channel.send(False)
        self._process.join()
        self.node.close(0)


def load(way: Way, threads: int, many: int, seconds: float) -> str:
    """Messages a second, and for each commit at either end."""
    counts = [0] * threads
    with TemporaryDirectory(prefix="networkio-durable-") as directory:
        pair = Pair(directory, many)
        before, begin = pair.calm(), time.monotonic()

        def work(number: int) -> None:
            while time.monotonic() < begin + seconds:
                counts[number] += way(pair.node)

        workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        pair.node.drain(60)
        took = time.monotonic() - begin
        after = pair.calm()
        pair.close()
    sent, received = (now - then for now, then in zip(after, before, strict=True))
    count = sum(counts)
    return f"{count / took:10,.0f} messages/s, {count / sent:8,.1f} a commit sent, {count / received:8,.1f} received"


def lone(count: int) -> tuple[int, int]:
    """So many messages, each when all about the one before is over: the commits at both ends."""
    with TemporaryDirectory(prefix="networkio-durable-") as directory:
        pair = Pair(directory, 1)
        before = pair.calm()
        for _ in range(count):
            pair.peer.send(_PAYLOAD).read(30)
            pair.calm()
        after = pair.commits()
        pair.close()
    return after[0] - before[0], after[1] - before[1]


def syncs(count: int) -> int:
    """What the kernel sees of a run of :func:`lone`, opening and closing included."""
    with TemporaryDirectory(prefix="networkio-durable-") as directory:
        trace = Path(directory) / "trace"
        command = [sys.executable, __file__, "--lone", str(count)]
        subprocess.run(
            ["strace", "-f", "-qq", "-o", str(trace), "-e", "trace=fsync,fdatasync", *command],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        return sum("(" in line for line in trace.read_text().splitlines())


def opening(pending: int) -> tuple[float, float]:
    """Seconds to read a journal with so many messages pending, and until a node has them in its core."""
    with TemporaryDirectory(prefix="networkio-durable-") as directory:
        file = f"{directory}/sender.db"
        with Node("sender", config=_ROOM, journal=file) as node:
            for first in range(0, pending, 1000):
                node.peer("receiver").send_many([_PAYLOAD] * min(1000, pending - first))
            node.close(0)
        begin = time.monotonic()
        store = Store(file, "sender")
        read = time.monotonic() - begin
        store.close()
        del store
        begin = time.monotonic()
        with Node("sender", config=_ROOM, journal=file) as node:
            whole = time.monotonic() - begin
            assert node.peer("receiver").unacknowledged == pending
            node.close(0)
    return read, whole


COMMITS = Commits()


def main(words: Sequence[str]) -> None:
    """The arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each load (default: %(default)s)")
    parser.add_argument("--pending", type=int, default=100_000, help="in the journal that is opened")
    parser.add_argument("--lone", type=int, help="only so many messages, one by one")
    given = parser.parse_args(words)
    if given.lone is not None:
        sent, received = lone(given.lone)
        print(f"{given.lone} messages alone: {sent} commits of their sender, {received} of their receiver")
        return
    for name, (way, threads, many) in WAYS.items():
        print(f"{name:38} {load(way, threads, many, given.seconds)}", flush=True)
    few, more = 5, 25
    sent, received = lone(more)
    print(f"a message alone: {sent / more:.2f} commits of its sender, {received / more:.2f} of its receiver", end="")
    if shutil.which("strace"):
        print(f", {(syncs(more) - syncs(few)) / (more - few):.2f} syncs in all", end="")
    print(flush=True)
    times = [opening(given.pending) for _ in range(5)]
    read, whole = (median(column) for column in zip(*times, strict=True))
    print(f"{given.pending:,} pending: read in {read:.2f} s, in the core of an open node after {whole:.2f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
