"""A receiver with a durable inbox, killed at random: ``make crash`` counts thousands.

It acknowledges what it has in hand, and writes the number of each into a table, in one transaction.  After all the
kills the table must have every number once, in order: nothing that was settled came again, and nothing is missing.

Then the other way round: the sender sends, is told that all is received, and leaves; the receiver, which has read none
of it, is killed; and the sender's journal is deleted.  The next receiver must find every message on its own disk.
"""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import networkio_asyncio
import networkio_threads
from networkio_proto.config import Config
from tests.chaos.crash import Process, column, finish, free_port, judge, send, sent
from tests.chaos.tally import Tally

__all__ = ["ADAPTERS", "play", "play_left"]

ADAPTERS = ("threads", "asyncio")

_PATIENCE = 60
_CONFIG = Config(retry_quick=0.005, backoff_max=0.05)

#: so many messages are received, and read by a later process only
_LEFT = 200


# -- in the processes -------------------------------------------------------------------------------------------------


def receive_on_threads(journal: str, port: int, seed: int, most: int) -> None:
    """Until it is killed, or has read the message ``most``; 0: it reads none."""
    chance = Random(seed)
    with networkio_threads.Node("receiver", config=_CONFIG, journal=journal, durable_inbox=True) as node:
        node.commit([], partial(_write, numbers=[]))
        node.listen("127.0.0.1", port)
        there, last = node.peer("sender"), 0
        while last < most:
            held = [there.receive()]
            while len(held) < chance.choice([1, 5, 50]) and (more := there.receive_nowait(None)) is not None:
                held.append(more)
            last = _in_order(held, last)
            node.commit(held, partial(_write, numbers=[message.data[0] for message in held]))
        if not most:
            time.sleep(_PATIENCE)


def receive_on_asyncio(journal: str, port: int, seed: int, most: int) -> None:
    """The same."""
    asyncio.run(_receive(journal, port, seed, most))


async def _receive(journal: str, port: int, seed: int, most: int) -> None:
    chance = Random(seed)
    async with networkio_asyncio.Node("receiver", config=_CONFIG, journal=journal, durable_inbox=True) as node:
        await node.commit([], partial(_write, numbers=[]))
        await node.listen("127.0.0.1", port)
        there, last = node.peer("sender"), 0
        while last < most:
            held = [await there.receive()]
            while len(held) < chance.choice([1, 5, 50]) and (more := there.receive_nowait(None)) is not None:
                held.append(more)
            last = _in_order(held, last)
            await node.commit(held, partial(_write, numbers=[message.data[0] for message in held]))
        if not most:
            await asyncio.sleep(_PATIENCE)


def _in_order(held: list[Any], last: int) -> int:
    """The last number, of messages that each come once to a process, and in order."""
    for message in held:
        assert message.data[0] > last, (message.data[0], last)
        last = message.data[0]
    return last


def _write(db: Any, numbers: list[int]) -> None:
    db.execute("CREATE TABLE IF NOT EXISTS got (place INTEGER PRIMARY KEY, n INTEGER)")
    db.executemany("INSERT INTO got (n) VALUES (?)", [(number,) for number in numbers])


def leave(journal: str, port: int, _seed: int, last: int) -> None:
    """A sender that goes when the receiver's library has all of it."""
    with networkio_threads.Node("sender", config=_CONFIG, journal=journal) as node:
        there = node.connect("127.0.0.1", port, "receiver")
        receipts = [there.send([number, b"."]) for number in range(1, last + 1)]
        receipts[-1].received(_PATIENCE)
        node.close(0)


_RECEIVERS = {"threads": receive_on_threads, "asyncio": receive_on_asyncio}


# -- outside ----------------------------------------------------------------------------------------------------------


def play(directory: Path, adapter: str, kills: int, seed: int) -> Tally:
    """So many kills of the receiver.  Raises AssertionError if a process fails or hangs."""
    logging.getLogger("networkio").addHandler(logging.NullHandler())  # that dials fail is no news here
    chance, port = Random(f"{adapter}/{seed}"), free_port()
    sender = Process(directory, "sender", send, port)
    receiver = Process(directory, "receiver", _RECEIVERS[adapter], port)
    try:
        for each in (receiver, sender):
            each.start(chance.getrandbits(32), 10**9)
        for _ in range(kills):
            time.sleep(chance.choice([chance.uniform(0, 0.1), chance.uniform(0.1, 0.4)]))
            receiver.kill()
            receiver.start(chance.getrandbits(32), 10**9)
        killed = receiver.kills
        sender.kill()
        last = sent(sender.journal) + 100
        sender.start(1, last)
        finish(sender, receiver)
    finally:
        for each in (sender, receiver):
            each.discard()
    return judge(sender, receiver, last, killed)


def play_left(directory: Path, adapter: str) -> Tally:
    """The sender's journal is deleted after its messages were received."""
    logging.getLogger("networkio").addHandler(logging.NullHandler())
    port = free_port()
    sender = Process(directory, "sender", leave, port)
    receiver = Process(directory, "receiver", _RECEIVERS[adapter], port)
    try:
        receiver.start(1, 0)
        sender.start(1, _LEFT)
        finish(sender, receiver)
        receiver.kill()
        sender.journal.unlink()
        receiver.start(1, _LEFT)
        end = time.monotonic() + _PATIENCE
        while not receiver.ended():
            assert time.monotonic() < end, "what was received is not read"
            time.sleep(0.005)
    finally:
        for each in (sender, receiver):
            each.discard()
    numbers = column(receiver.journal, "SELECT n FROM got ORDER BY place")
    return Tally.of(numbers, _LEFT, [receiver.journal], receiver.kills)

