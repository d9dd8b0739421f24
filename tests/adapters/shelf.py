"""A store for journals whose disk does what a test wants."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from networkio_proto.journal import JournalBatch, JournalRecord, MessageAccepted
from networkio_proto.spill import JournalLoad

__all__ = ["Shelf"]


class Shelf:
    """Batches in memory, written by a thread of its own; they outlive a node that is opened on them again."""

    def __init__(self) -> None:
        self.batches: list[JournalBatch] = []
        #: cleared, nothing is written any further
        self.going = threading.Event()
        self.going.set()
        #: why what is written from now on fails
        self.error: BaseException | None = None
        #: why nothing can be read back
        self.unreadable: BaseException | None = None
        #: what was tried, whether it failed or not
        self.tried = 0
        self._thread: ThreadPoolExecutor | None = None

    def open(self, node_id: str, resident: int) -> list[JournalRecord]:
        self._thread = ThreadPoolExecutor(1)
        return [record for batch in self.batches for record in batch.records]

    def write(self, batch: JournalBatch, done: Callable[[BaseException | None], None]) -> None:
        assert self._thread is not None
        self._thread.submit(self._write, batch, done)

    def load(self, load: JournalLoad, done: Callable[[Sequence[MessageAccepted], BaseException | None], None]) -> None:
        assert self._thread is not None
        self._thread.submit(self._load, load, done)

    def run(self, call: Callable[[Any], object], done: Callable[[BaseException | None], None]) -> None:
        raise NotImplementedError

    def undo(self) -> None:
        raise NotImplementedError

    def here(self) -> bool:
        return False

    def close(self) -> None:
        self.going.set()
        if self._thread is not None:
            self._thread.shutdown()

    def _write(self, batch: JournalBatch, done: Callable[[BaseException | None], None]) -> None:
        self.going.wait(10)
        self.tried += 1
        if self.error is None:
            self.batches.append(batch)
        done(self.error)

    def _load(self, load: JournalLoad, done: Callable[[Sequence[MessageAccepted], BaseException | None], None]) -> None:
        self.going.wait(10)
        records = [record for batch in self.batches for record in batch.records if record.peer_id == load.peer_id]
        messages = [record for record in records if isinstance(record, MessageAccepted)]
        found = [message for message in messages if load.first <= message.sequence <= load.last]
        done([] if self.unreadable else found, self.unreadable)

    @property
    def messages(self) -> list[int]:
        """How many messages each batch holds."""
        return [sum(isinstance(record, MessageAccepted) for record in batch.records) for batch in self.batches]
