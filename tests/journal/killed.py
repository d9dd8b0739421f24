"""Kill a process that writes a journal, again and again: ``python -m tests.journal.killed FILE KILLS SEED``.

Each child opens the journal, writes batches one after the other, and says of each that it was reported.  It is killed
with SIGKILL after so many reports, wherever it then is: also before the first, while it makes or opens the file.  The
journal must open every time and hold every message that was reported, in order, and at most the one batch more that was
under way.  Children are forked by this process, which has no thread at that moment, and so cost next to nothing.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from queue import SimpleQueue
from random import Random
from typing import NoReturn

from networkio_journal import SQLiteJournal, store
from networkio_proto.journal import (
    JournalBatch,
    JournalRecord,
    MessageAccepted,
    OutboxOpened,
    OutboxTrimmed,
    RestoredRecord,
)

_PEER = "b"


def write_for_ever(path: str, said: int, chance: Random) -> NoReturn:
    """The child: write, and say the last sequence of each batch that was reported done."""
    store._LOG = 100_000  # type: ignore[misc]  # so that it is killed while the log is copied back, too
    journal = SQLiteJournal(path)
    _, sequence, opened = standing(journal.open("node"))
    told: SimpleQueue[BaseException | None] = SimpleQueue()
    while True:
        records: list[JournalRecord] = [] if opened else [OutboxOpened(_PEER, bytes(16), bytes(16), 1)]
        opened = True
        for _ in range(chance.choice([1, 3, 50])):
            sequence += 1
            records.append(MessageAccepted(_PEER, sequence, payload_of(sequence), b"", 0x40))
        if chance.random() < 0.5:
            records.append(OutboxTrimmed(_PEER, max(1, sequence - 60)))
        journal.write(JournalBatch(1, tuple(records)), told.put)
        if (error := told.get()) is not None:
            os.write(2, str(error).encode())
            os._exit(1)
        os.write(said, sequence.to_bytes(8, "big"))


def payload_of(sequence: int) -> bytes:
    return b"%d " % sequence * (sequence * 7919 % 500)


def standing(records: list[RestoredRecord]) -> tuple[int, int, bool]:
    """The first and the last retained message, and whether the outbox is there; every one must be what was sent."""
    messages = [record for record in records if isinstance(record, MessageAccepted)]
    opened = [record for record in records if isinstance(record, OutboxOpened)]
    first = messages[0].sequence if messages else opened[0].first if opened else 1
    assert [message.sequence for message in messages] == list(range(first, first + len(messages)))
    assert all(message.payload == payload_of(message.sequence) for message in messages)
    return first, first + len(messages) - 1, bool(opened)


def kill_once(path: str, before: int, chance: Random) -> tuple[int, int]:
    """One life; the last sequence that was reported, and the last that is there."""
    says, said = os.pipe()
    child = os.fork()
    if not child:
        os.close(says)
        write_for_ever(path, said, chance)
    os.close(said)
    reported = before
    for _ in range(chance.choice([0, 0, 1, 5, 30])):
        reported = int.from_bytes(os.read(says, 8), "big")
    time.sleep(chance.choice([0.0, chance.random() * 0.005]))  # anywhere in the next batches
    os.kill(child, signal.SIGKILL)
    while late := os.read(says, 8):
        reported = int.from_bytes(late, "big")
    os.close(says)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL, status
    journal = SQLiteJournal(path)
    _, last, _ = standing(journal.open("node"))
    journal.close()
    return reported, last


def main(path: str, kills: int, seed: int) -> None:
    """So many lives over one journal."""
    last = more = 0
    for number in range(kills):
        reported, last = kill_once(path, last, Random(f"{seed}/{number}"))
        assert reported <= last <= reported + 50, (number, reported, last)
        more += last > reported
    print(f"{kills} kills, {last} messages, {more} times one batch more than was reported")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
