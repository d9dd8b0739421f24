"""``SQLiteJournal``: the store in a thread of its own, behind some calls.

Theory of operation
-------------------
SQLite blocks, so everything that touches the file happens in one thread, which :meth:`SQLiteJournal.open` starts.  A
batch goes there over a queue; its callback is called there too, as soon as the transaction is on disk or has failed.
While one is written, the core forms the next: that is the group commit, and the queue is never long.  An application's
function goes there in the same way, and has the transaction open until its batch comes; so do loads, in their turn.

The store lives in that thread's frame and nowhere else.  So no other thread ever frees its connection, and neither does
a forked child, in which that thread does not exist: freed there, it would write to the parent's file.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from networkio_proto.errors import ConfigurationError, JournalLocked, UsageError
from networkio_proto.journal import JournalBatch, MessageAccepted, RestoredRecord
from networkio_proto.spill import JournalLoad

if TYPE_CHECKING:
    from .store import Connect, Store

__all__ = ["SQLiteJournal"]

Done: TypeAlias = Callable[[BaseException | None], None]
Job: TypeAlias = "Callable[[Store], None]"

_SYNCHRONOUS: Final = {"full": "FULL", "os": "NORMAL"}

#: below that there is no room for the tables themselves (bytes)
_LEAST: Final = 64 * 1024


class SQLiteJournal:
    """What one node must not lose, in one SQLite file.

    ``durability``: ``"full"`` syncs each batch to the disk before it is reported.  With ``"os"`` a batch is handed to
    the operating system: it outlives the process, and a loss of power may take the last ones back.  ``limit``: the
    file may grow to so many bytes (at least 65,536; the log beside it takes a few MiB more); None: as far as the disk
    goes.  Raises ConfigurationError.

    The file, its ``-wal`` and its ``.lock`` are legible to their owner only; a journal with a wider mode gets this one
    when it is opened.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, durability: Literal["full", "os"] = "full", limit: int | None = None
    ) -> None:
        if durability not in _SYNCHRONOUS:
            raise ConfigurationError(f"durability is {durability!r}; it must be 'full' or 'os'")
        if limit is not None and limit < _LEAST:
            raise ConfigurationError(f"the limit of a journal is {limit!r}; it must be at least {_LEAST} bytes")
        if not os.fspath(path):
            raise ConfigurationError("the journal has no name: give the path of a file")
        self.path = os.path.abspath(os.fspath(path))
        self.durability = durability
        self.limit = limit
        self._thread: threading.Thread | None = None
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        #: the connection is made by this, if tests put something in its place
        self._connect: Connect | None = None

    def __repr__(self) -> str:
        return f"SQLiteJournal({self.path!r}, durability={self.durability!r}, limit={self.limit!r})"

    def open(self, node_id: str, resident: int | None = None) -> list[RestoredRecord]:
        """Open the file, or make it; returns what it holds, for ``Endpoint.restore``.  Blocks, for the disk.

        Of the messages to a peer those beyond a cost of ``resident`` come as MessagesKept; None: all come whole.
        Raises JournalLocked, JournalMismatch, JournalDamaged or JournalFailed, with everything closed again.
        Interrupted, it closes too.
        """
        if self._thread is not None:
            raise JournalLocked(f"the journal {self.path} is open already, in another node of this process")
        self._queue = SimpleQueue()
        opened: Future[list[RestoredRecord]] = Future()
        self._thread = threading.Thread(
            target=_serve, args=(partial(self._store, node_id, resident), self._queue, opened),
            name="networkio-journal", daemon=True,
        )  # fmt: skip
        self._thread.start()
        try:
            return opened.result()
        except BaseException:
            self.close()
            raise

    def write(self, batch: JournalBatch, done: Done) -> None:
        """Hand a batch over; returns at once.

        ``done`` is called in the journal's thread: with None when the batch is durable, and what :meth:`run` has left
        open with it, else with a JournalFull (it failed whole, and a later one may succeed) or a JournalFailed (this
        and all that follow).  Raises UsageError if the journal is not open.
        """
        self._put(lambda store: _tell(done, _error(store.commit, batch)))

    def load(
        self, load: JournalLoad, done: Callable[[Sequence[MessageAccepted], BaseException | None], None]
    ) -> None:
        """Have messages read back; returns at once.

        ``done`` is called in the journal's thread: with the messages, as far as they are not trimmed; or with a
        JournalDamaged or JournalFailed, which all that follows gets too.  Raises UsageError if the journal is not open.
        """

        def job(store: Store) -> None:
            found: list[MessageAccepted] = []
            error = _error(lambda wanted: found.extend(store.load(wanted)), load)
            _tell(lambda error: done(found, error), error)

        self._put(job)

    def run(self, call: Callable[[Any], object], done: Done) -> None:
        """Have ``call(connection)`` called in a transaction, in the journal's thread; returns at once.

        ``done`` is called there with what it raised, and all is undone; or with None, and the transaction waits for the
        next :meth:`write` or :meth:`undo`.  Raises UsageError if the journal is not open.
        """
        self._put(lambda store: _tell(done, _error(store.run, call)))

    def undo(self) -> None:
        """What :meth:`run` has left open comes to nothing; returns at once."""
        self._put(lambda store: store.undo())

    def here(self) -> bool:
        """Is this the journal's thread?"""
        return self._thread is threading.current_thread()

    def _put(self, job: Job) -> None:
        if self._thread is None:
            raise UsageError(f"the journal {self.path} is not open")
        self._queue.put(job)

    def close(self) -> None:
        """Wait for what was handed over, and give file and lock back; once more does nothing.

        Called by a ``done``, that is in the journal's thread, it does not wait.
        """
        thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            if thread is not threading.current_thread():
                thread.join()

    def _store(self, node_id: str, resident: int | None) -> Store:
        from .store import Store, connect  # only now: programs without a journal need no SQLite

        synchronous = _SYNCHRONOUS[self.durability]
        return Store(
            self.path, node_id, resident,
            synchronous=synchronous, limit=self.limit, connect=self._connect or connect,
        )  # fmt: skip


def _serve(
    make: Callable[[], Store],
    queue: SimpleQueue[Job | None],
    opened: Future[list[RestoredRecord]],
) -> None:
    """The journal's thread."""
    try:
        store = make()
    except BaseException as error:
        opened.set_exception(error)
        return
    records, store.records = store.records, []
    opened.set_result(records)
    del records, opened
    try:
        while (job := queue.get()) is not None:
            job(store)
            del job
            store.tidy()
    finally:
        store.close()


def _error(call: Callable[[Any], None], argument: object) -> BaseException | None:
    try:
        call(argument)
    except BaseException as error:
        return error
    return None


def _tell(done: Done, error: BaseException | None) -> None:
    """A callback that raises is shown, and stops nothing."""
    try:
        done(error)
    except BaseException as raised:
        traceback: TracebackType | None = raised.__traceback__
        threading.excepthook(threading.ExceptHookArgs((type(raised), raised, traceback, threading.current_thread())))
