"""A sender and a receiver over a real socket, both with a journal, killed at random: ``make crash`` counts thousands.

The sender numbers what it
sends, in a table of its own, in the transaction that accepts it.  The receiver writes each number it reads into a
table, in the transaction that acknowledges it.  After every kill the process is started again; a journal that does not
open ends its process, and so the run.

At the end, when everything is read, the receiver's table must be the numbers from 1 on: none lost, doubled or
reordered.  The kills come at any moment: while the journal is made, opened, written or copied back, in the handshake,
in the stream.  Processes are forked by one that has no thread, so they start within milliseconds.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sqlite3
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from networkio_journal import store
from networkio_proto.config import Config
from networkio_proto.errors import JournalError
from networkio_threads import Message, Node
from tests.chaos.tally import Tally, Unopened

__all__ = ["PROCESSES", "Process", "finish", "free_port", "judge", "play", "receive", "send"]

PROCESSES = ("sender", "receiver", "both")

#: nothing is waited for any longer (seconds)
_PATIENCE = 60

#: how a process ends that cannot open its journal
_UNOPENED = 3

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
            except JournalError as error:
                print(f"{self._name}: {error!r}", file=sys.stderr, flush=True)
                os._exit(_UNOPENED)
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
            self._judge(status)
        return not self._pid

    def kill(self) -> None:
        """Nothing, if it left by itself."""
        if not self.ended():
            os.kill(self._pid, signal.SIGKILL)
            _, status = os.waitpid(self._pid, 0)
            killed = os.WIFSIGNALED(status)
            self.kills += killed
            self._judge(0 if killed else status)

    def discard(self) -> None:
        """Nothing of it is left running, whatever its end says."""
        try:
            self.kill()
        except AssertionError:  # another one is on its way, and more is known by then
            pass

    def _judge(self, status: int) -> None:
        """It has ended, with that status."""
        self._pid = 0
        if os.waitstatus_to_exitcode(status) == _UNOPENED:
            raise Unopened(f"{self.journal} does not open")
        assert status == 0, f"{self._name} ended with {status}"


def play(directory: Path, who: str, kills: int, seed: int) -> Tally:
    """So many kills of one of PROCESSES (of both: so many each).  Raises AssertionError if a process fails or hangs."""
    logging.getLogger("networkio").addHandler(logging.NullHandler())  # that dials fail is no news here
    chance = Random(f"{who}/{seed}")
    port = free_port()
    sender, receiver = Process(directory, "sender", send, port), Process(directory, "receiver", receive, port)
    victims = {"sender": [sender], "receiver": [receiver], "both": [sender, receiver]}[who]
    try:
        for each in (receiver, sender):
            each.start(chance.getrandbits(32), 10**9)
        for _ in range(kills):
            time.sleep(chance.choice([chance.uniform(0, 0.02), chance.uniform(0, 0.1), chance.uniform(0.05, 0.3)]))
            assert not any([sender.ended(), receiver.ended()]), "a process has left by itself"
            for victim in victims:
                victim.kill()
            for victim in victims:
                victim.start(chance.getrandbits(32), 10**9)
        killed = sum(victim.kills for victim in victims)
        sender.kill()
        last = sent(sender.journal) + 100
        sender.start(1, last)
        finish(sender, receiver)
        receiver.kill()
        return judge(sender, receiver, last, killed)
    except Unopened:
        return Tally(sum(victim.kills for victim in victims), unopened=1)
    finally:
        for each in (sender, receiver):
            each.discard()


def finish(sender: Process, receiver: Process) -> None:
    """Until everything is read."""
    end = time.monotonic() + _PATIENCE
    while not sender.ended():
        assert time.monotonic() < end, "what was sent is not read"
        assert not receiver.ended()
        time.sleep(0.005)


def judge(sender: Process, receiver: Process, last: int, kills: int) -> Tally:
    """Look into what both left behind."""
    got = column(receiver.journal, "SELECT n FROM got ORDER BY place")
    return Tally.of(got, last, [sender.journal, receiver.journal], kills)


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
