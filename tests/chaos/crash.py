"""A sender and a receiver over a real socket, both with a journal, killed at random: ``make crash`` counts thousands.

``python -m tests.chaos.crash [--kills N] [--seed S] [--processes sender receiver both]``.  The sender numbers what it
sends, in a table of its own, in the transaction that accepts it.  The receiver writes each number it reads into a
table, in the transaction that acknowledges it.  After every kill the process is started again; a journal that does not
open ends its process with an error, which ends the run.

At the end, when everything is read, the receiver's table must be the numbers from 1 on: none lost, doubled or
reordered.  The kills come at any moment: while the journal is made, opened, written or copied back, in the handshake,
in the stream.  Processes are forked by one that has no thread, so they start within milliseconds.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sqlite3
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from networkio_journal import store
from networkio_journal.inspection import inspecting
from networkio_proto.config import Config
from networkio_threads import Message, Node

__all__ = ["PROCESSES", "Process", "finish", "free_port", "judge", "play", "receive", "send"]

PROCESSES = ("sender", "receiver", "both")

#: nothing is waited for any longer (seconds)
_PATIENCE = 60

_CONFIG = Config(retry_quick=0.005, backoff_max=0.05)


# -- in the processes -------------------------------------------------------------------------------------------------


def send(journal: str, port: int, seed: int, last: int) -> None:
    """The sender: numbers from where it is to ``last``, until all are read."""
    chance = Random(seed)
    with Node("sender", config=_CONFIG, journal=journal) as node:
        there = node.connect("127.0.0.1", port, "receiver")
        number = node.transaction(_count)
        while number < last:
            many = min(last - number, chance.choice([1, 3, 20]))
            number = node.transaction(partial(_send, number=number, many=many))
            time.sleep(chance.choice([0, 0, 0.002]))
        node.drain(_PATIENCE)
        assert there.unacknowledged == 0
        node.close(0)


def _count(db: Any, _send: Any) -> int:
    db.execute("CREATE TABLE IF NOT EXISTS sent (one INTEGER PRIMARY KEY CHECK (one = 1), number INTEGER)")
    db.execute("INSERT OR IGNORE INTO sent VALUES (1, 0)")
    return int(db.execute("SELECT number FROM sent").fetchone()[0])


def _send(db: Any, send: Any, number: int, many: int) -> int:
    for each in range(number + 1, number + many + 1):
        send("receiver", [each, b"." * (each * 7919 % 3000)])
    db.execute("UPDATE sent SET number = ?", (number + many,))
    return number + many


def receive(journal: str, port: int, seed: int, _last: int) -> None:
    """The receiver: until it is killed."""
    chance = Random(seed)
    with Node("receiver", config=_CONFIG, journal=journal) as node:
        node.commit([], partial(_write, numbers=[]))
        node.listen("127.0.0.1", port)
        there = node.peer("sender")
        while True:
            held: list[Message] = [there.receive()]
            while len(held) < chance.choice([1, 5, 50]) and (more := there.receive_nowait(None)) is not None:
                held.append(more)
            node.commit(held, partial(_write, numbers=[message.data[0] for message in held]))


def _write(db: Any, numbers: list[int]) -> None:
    db.execute("CREATE TABLE IF NOT EXISTS got (place INTEGER PRIMARY KEY, n INTEGER)")
    db.executemany("INSERT INTO got (n) VALUES (?)", [(number,) for number in numbers])


# -- outside ----------------------------------------------------------------------------------------------------------


class Process:
    """One of the two, killed and started again."""

    def __init__(self, directory: Path, name: str, run: Callable[[str, int, int, int], None], port: int) -> None:
        self.journal = directory / f"{name}.db"
        self.kills = 0
        self._name, self._run, self._port = name, run, port
        self._pid = 0

    def start(self, seed: int, last: int) -> None:
        self._pid = os.fork()
        if not self._pid:
            try:
                store._LOG = 200_000  # type: ignore[misc]  # so that it is killed while the log is copied back, too
                self._run(str(self.journal), self._port, seed, last)
            except BaseException as error:
                print(f"{self._name}: {error!r}", file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)

    def ended(self) -> bool:
        """Has it left, in good order?"""
        if not self._pid:
            return True
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        if pid:
            self._pid = 0
            assert status == 0, f"{self._name} ended with {status}"
        return not self._pid

    def kill(self) -> None:
        """Nothing, if it left by itself."""
        if not self.ended():
            os.kill(self._pid, signal.SIGKILL)
            _, status = os.waitpid(self._pid, 0)
            assert os.WIFSIGNALED(status) or status == 0, f"{self._name} ended with {status}"
            self._pid = 0


def play(directory: Path, who: str, kills: int, seed: int) -> str:
    """So many kills of one of PROCESSES; what came of it.  Raises AssertionError."""
    logging.getLogger("networkio").addHandler(logging.NullHandler())  # that dials fail is no news here
    chance, began = Random(f"{who}/{seed}"), time.monotonic()
    port = free_port()
    sender, receiver = Process(directory, "sender", send, port), Process(directory, "receiver", receive, port)
    victims = {"sender": [sender], "receiver": [receiver], "both": [sender, receiver]}[who]
    try:
        for each in (receiver, sender):
            each.start(chance.getrandbits(32), 10**9)
        for _ in range(kills):
            time.sleep(chance.choice([chance.uniform(0, 0.02), chance.uniform(0, 0.1), chance.uniform(0.05, 0.3)]))
            for victim in victims:
                victim.kill()
            for victim in victims:
                victim.start(chance.getrandbits(32), 10**9)
        sender.kill()
        last = sent(sender.journal) + 100
        sender.start(1, last)
        finish(sender, receiver)
    finally:
        for each in (sender, receiver):
            each.kill()
    return f"{who}: {kills} kills in {time.monotonic() - began:.0f} s, {judge(sender, receiver, last)}"


def finish(sender: Process, receiver: Process) -> None:
    """Until everything is read."""
    end = time.monotonic() + _PATIENCE
    while not sender.ended():
        assert time.monotonic() < end, "what was sent is not read"
        assert not receiver.ended()
        time.sleep(0.005)


def judge(sender: Process, receiver: Process, last: int) -> str:
    """Look into what both left behind; raises AssertionError."""
    got = column(receiver.journal, "SELECT n FROM got ORDER BY place")
    lost, doubled = len(set(range(1, last + 1)) - set(got)), len(got) - len(set(got))
    reordered = sum(left > right for left, right in pairwise(got))
    for each in (sender, receiver):
        with inspecting(each.journal) as found:
            assert not list(found.faults()), each.journal
    told = f"{last:,} messages, {lost} lost, {doubled} doubled, {reordered} reordered, 0 journals that did not open"
    assert got == list(range(1, last + 1)), told
    return told


def free_port() -> int:
    """Of this machine, at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def sent(journal: Path) -> int:
    """The last number that the sender has accepted."""
    return max(column(journal, "SELECT number FROM sent"), default=0)


def column(journal: Path, query: str) -> list[int]:
    """From a table of a journal that nobody has open."""
    db = sqlite3.connect(journal)
    try:
        return [int(value) for (value,) in db.execute(query)]
    except sqlite3.OperationalError:  # it was killed before there was one
        return []
    finally:
        db.close()


def main() -> None:
    """The arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", nargs="*", choices=PROCESSES, default=PROCESSES)
    arguments = parser.parse_args()
    for who in arguments.processes:
        with TemporaryDirectory() as directory:
            print(play(Path(directory), who, arguments.kills, arguments.seed), flush=True)


if __name__ == "__main__":
    main()
