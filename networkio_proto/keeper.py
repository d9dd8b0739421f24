"""Between a node's core and the store of its journal: one batch after the other, and what becomes of those that fail.

Theory of operation
-------------------
A driver with a :class:`~networkio_proto.journal.Store` has a :class:`Keeper`, and lets it :meth:`~Keeper.serve` when it
leaves the core.  While nothing is being written, that hands the core's next batch to the store; whatever is asked
for meanwhile is in the one after it, so the busier the node, the more each of them holds.  When the store is done, in a
thread of its own, the driver's ``post`` brings the news inside.

What the core wants to have read back is asked of the store beside all that, one load at a time: the store's thread does
one thing after the other, so neither keeps the other waiting for more than one of its kind.

A transaction of the application comes before the next batch, which ends it: first its function is run by the store,
then it is prepared, then the batch is made and written.  One is under way at a time.

Where there was no room the batch has failed, and after a while what is still wanted of it is asked for again; loads go
on, for what is read makes room.  Of a batch that is optional the core sees to that, and nothing else waits.  Any other
error is the last: nobody knows what is on disk, so nothing is written or loaded any more.  While the store cannot
write, nothing is accepted; what comes in is read and stays unacknowledged; the connections stay.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any

from .errors import JournalError, JournalFailed, JournalFull, NodeClosed, printable
from .events import Log
from .journal import MessageAccepted, RestoredRecord, Store
from .logbook import ERROR, INFO
from .operations import Operation
from .timers import Timed
from .transactions import Transaction

__all__ = ["Keeper"]

#: after a batch that found no room the next is tried in so many seconds
_RETRY = 0.5


class Keeper(Timed):
    """The driver's part of one node's journal."""

    __slots__ = (
        "_count",
        "_failing",
        "_loading",
        "_node",
        "_open",
        "_optional",
        "_owing",
        "_short",
        "_store",
        "_transaction",
        "_waiting",
        "busy",
        "error",
    )

    def __init__(self, node: Any, store: Store) -> None:
        super().__init__()
        self._node = node
        self._store = store
        self._open = False
        #: why the last batch could not be written, as far as it was logged
        self._failing: type[JournalError] | None = None
        #: something is being written
        self.busy = False
        #: if that finds no room, nothing else has to wait; and it did not, the last time
        self._optional = False
        self._short = False
        #: something is being read back
        self._loading = False
        self._count = 0
        #: the transaction that is under way, and those that wait for their turn
        self._transaction: Transaction | None = None
        self._waiting: deque[Transaction] = deque()
        #: the last one failed, and so did not take along what else was to be written: that is next
        self._owing = False
        #: why nothing can be written now
        self.error: JournalError | None = None

    def check(self, what: str) -> None:
        """Raise the JournalError for which nothing is accepted now (for ``what``), if there is one; NodeClosed."""
        self._node.check_open()
        if self.error is not None:
            again = type(self.error)(f"nothing is accepted for {what}: {self.error}")
            raise again from self.error

    def here(self) -> bool:
        """Is this the store's thread, in which nothing may wait?"""
        return self._store.here()

    def open(self) -> list[RestoredRecord]:
        """For the driver, not inside: what the node begins with.  May take long.  Raises JournalError."""
        records = list(self._store.open(self._node.id, self._node.config.outbox_resident))
        self._open = True
        return records

    def close(self) -> None:
        """For the driver, not inside: what was handed over is written, nothing more.  May take long.  Idempotent."""
        if not self._open:
            return
        self._open = False
        self._store.close()
        if self._node.closed:  # else it never began, and nobody waits
            self._node.post(self._give_up)

    def _give_up(self) -> None:
        with self._node.inside as now:
            self._node.wake_unwritten()
            self._fail_transactions(NodeClosed(f"node {self._node.id} is closed; the transaction was undone"), now)

    def serve(self) -> None:
        """Inside: hand over what waits to be written, or is wanted back."""
        if not self._open:
            return
        if not self._loading and (self.error is None or isinstance(self.error, JournalFull)):
            self._begin_load()
        if self.busy or self.error is not None:
            return
        if self._owing or not self._waiting:
            self._owing = False
            batch = self._node.endpoint.journal_request()
            if batch is not None:
                self.busy, self._optional = True, batch.optional
                self._store.write(batch, partial(self._done, batch.token))
                return
        if self._waiting:
            self.busy, self._optional = True, False
            self._transaction = self._waiting.popleft()
            self._store.run(self._transaction.call, self._ran)

    def _done(self, token: int, error: BaseException | None) -> None:
        self._node.post(partial(self._written, token, error))

    def _written(self, token: int, error: BaseException | None) -> None:
        with self._node.inside as now:
            self.busy = False
            self._count += 1
            if self._optional and (error is None or isinstance(error, JournalFull)):
                self._tell_short(error)
                self._node.endpoint.journal_done(token, now, error)
                self._node.wake_watchers()
                return
            if error is not None:
                self._fail(error, now)
            elif self._failing is not None and self.error is None:
                self._failing = None
                self._node.log(Log(INFO, "node %s: its journal is written again", (self._node.id,)))
            self._node.endpoint.journal_done(token, now, None if error is None else self.error)
            transaction = self._transaction
            if self.error is not None and error is not None:
                self._fail_transactions(self.error, now)
            elif transaction is not None:
                self._transaction = None
                transaction.done(now)
            if self.error is not None and error is None:
                self._refuse(now)
            self._node.wake_watchers()

    def _tell_short(self, error: JournalFull | None) -> None:
        if error is not None and not self._short:
            text = "node %s: its journal has no room for what comes in, which is not acknowledged until there is: %s"
            self._node.log(Log(ERROR, text, (self._node.id, error)))
        self._short = error is not None

    # -- what is on disk only ---------------------------------------------------------------------------------------

    def _begin_load(self) -> None:
        load = self._node.endpoint.journal_load()
        if load is not None:
            self._loading = True
            self._store.load(load, partial(self._found, load.token))

    def _found(self, token: int, records: Sequence[MessageAccepted], error: BaseException | None) -> None:
        self._node.post(partial(self._loaded, token, records, error))

    def _loaded(self, token: int, records: Sequence[MessageAccepted], error: BaseException | None) -> None:
        with self._node.inside as now:
            self._loading = False
            self._node.endpoint.journal_loaded(token, records, now, error)
            if error is not None:
                self._fail(error, now, "read")  # what is being written, or run, may still succeed; the rest is refused

    def _refuse(self, now: float) -> None:
        """Nothing could be read back, so nothing is written any more: not what waits for it, either."""
        assert self.error is not None
        batch = self._node.endpoint.journal_request()
        if batch is not None:
            self._node.endpoint.journal_done(batch.token, now, self.error)
        self._fail_transactions(self.error, now)

    # -- transactions -----------------------------------------------------------------------------------------------

    def begin(self, transaction: Transaction) -> None:
        """Inside: it is carried out when it is its turn."""
        self._waiting.append(transaction)

    def withdraw(self, transaction: Transaction) -> bool:
        """Inside: do not carry it out; False if it has begun."""
        if transaction not in self._waiting:
            return False
        self._waiting.remove(transaction)
        transaction.failed(TimeoutError("it was given up before it began"), self._node.time)
        return True

    def _ran(self, error: BaseException | None) -> None:
        self._node.post(partial(self._go_on, error))

    def _go_on(self, error: BaseException | None) -> None:
        """The function has returned, or raised."""
        transaction = self._transaction
        with self._node.inside as now:
            if transaction is None:  # the journal was closed
                return
            if error is None:
                try:
                    if not self._open:
                        raise NodeClosed(f"node {self._node.id} was closed before the transaction was written")
                    transaction.prepare()
                    batch = self._node.endpoint.journal_request(empty=True)
                    self._store.write(batch, partial(self._done, batch.token))
                    return
                except Exception as unprepared:
                    if self._open:  # else the store has undone it by closing
                        self._store.undo()
                    error = unprepared
            self.busy, self._owing = False, True
            self._count += 1
            self._transaction = None
            transaction.failed(error, now)
            if self.error is not None:
                self._refuse(now)
            self._node.wake_watchers()

    def _fail_transactions(self, error: Exception, now: float) -> None:
        """The one that is under way, and those that wait, come to nothing."""
        transaction, self._transaction = self._transaction, None
        waiting, self._waiting = self._waiting, deque()
        for each in [*([] if transaction is None else [transaction]), *waiting]:
            each.failed(error, now)

    # -- what the disk says -----------------------------------------------------------------------------------------

    def _fail(self, error: BaseException, now: float, deed: str = "written") -> None:
        self.error = error if isinstance(error, JournalError) else JournalFailed(printable(error))
        retry = isinstance(error, JournalFull)
        if retry:
            self._node.endpoint.timers.schedule(self, now + _RETRY)
        if self._failing is not type(self.error):
            mend = "mend the disk" if deed == "written" else "look after file and disk"
            hope = "until there is room" if retry else f"any more; {mend}, and start it anew"
            text = f"node %s: its journal cannot be {deed}, so nothing is accepted or acknowledged %s: %s"
            self._node.log(Log(ERROR, text, (self._node.id, hope, self.error)))
        self._failing = type(self.error)

    def catching_up(self) -> Operation[None]:
        """Until everything that was asked for by now is written, or failed; what is read here is told only then."""
        through = self._count + 2 + 2 * len(self._waiting)  # what is under way, and what comes after it
        while self.busy and self._count < through:
            yield from self._node.changing()

    def on_timer(self, now: float) -> float | None:
        """Try again, if it was only full."""
        self.error = None if isinstance(self.error, JournalFull) else self.error
        return None
