"""Between a node's core and the store of its journal: one batch after the other, and what becomes of those that fail.

Theory of operation
-------------------
A driver with a :class:`~networkio_proto.journal.Store` has a :class:`Keeper`, and lets it :meth:`~Keeper.serve` when it
leaves the core.  While nothing is being written, that hands the core's next batch to the store; whatever is asked
for meanwhile is in the one after it, so the busier the node, the more each of them holds.  When the store is done, in a
thread of its own, the driver's ``post`` brings the news inside.

Where there was no room the batch has failed, and after a while what is still wanted of it is asked for again.  Any
other error is the last: nobody knows what is on disk, so nothing is written any more.  While the store cannot write,
nothing is accepted; what comes in is read and stays unacknowledged; the connections stay.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from .errors import JournalError, JournalFailed, JournalFull, printable
from .events import Log
from .journal import JournalRecord, Store
from .logbook import ERROR, INFO
from .operations import Operation
from .timers import Timed

__all__ = ["Keeper"]

#: after a batch that found no room the next is tried in so many seconds
_RETRY = 0.5


class Keeper(Timed):
    """The driver's part of one node's journal."""

    __slots__ = ("_count", "_failing", "_node", "_open", "_store", "busy", "error")

    def __init__(self, node: Any, store: Store) -> None:
        super().__init__()
        self._node = node
        self._store = store
        self._open = False
        #: the last batch could not be written
        self._failing = False
        #: something is being written
        self.busy = False
        self._count = 0
        #: why nothing can be written now
        self.error: JournalError | None = None

    def check(self, peer_id: str) -> None:
        """Raise the JournalError for which no message is accepted now, if there is one; NodeClosed."""
        self._node.check_open()
        if self.error is not None:
            again = type(self.error)(f"nothing is accepted for {peer_id}: {self.error}")
            raise again from self.error

    def open(self) -> list[JournalRecord]:
        """For the driver, not inside: what the node begins with.  May take long.  Raises JournalError."""
        records = list(self._store.open(self._node.id))
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
        with self._node.inside:
            self._node.wake_unwritten()

    def serve(self) -> None:
        """Inside: hand over what waits to be written."""
        if self.busy or self.error is not None or not self._open:
            return
        batch = self._node.endpoint.journal_request()
        if batch is not None:
            self.busy = True
            self._store.write(batch, partial(self._done, batch.token))

    def _done(self, token: int, error: BaseException | None) -> None:
        self._node.post(partial(self._written, token, error))

    def _written(self, token: int, error: BaseException | None) -> None:
        with self._node.inside as now:
            self.busy = False
            self._count += 1
            if error is not None:
                self._fail(error, now)
            elif self._failing:
                self._failing = False
                self._node.log(Log(INFO, "node %s: its journal is written again", (self._node.id,)))
            self._node.endpoint.journal_done(token, now, self.error)
            self._node.wake_watchers()

    def _fail(self, error: BaseException, now: float) -> None:
        self.error = error if isinstance(error, JournalError) else JournalFailed(printable(error))
        retry = isinstance(error, JournalFull)
        if retry:
            self._node.endpoint.timers.schedule(self, now + _RETRY)
        if not self._failing:
            hope = "until there is room" if retry else "any more; mend the disk, and start it anew"
            text = "node %s: its journal cannot be written, so nothing is accepted or acknowledged %s: %s"
            self._node.log(Log(ERROR, text, (self._node.id, hope, self.error)))
        self._failing = True

    def catching_up(self) -> Operation[None]:
        """Until everything that was asked for by now is written, or failed; what is read here is told only then."""
        through = self._count + 2  # the batch under way, and the one after it
        while self.busy and self._count < through:
            yield from self._node.changing()

    def on_timer(self, now: float) -> float | None:
        """Try again."""
        self.error = None
        return None
