"""Messages of an outbox that are on disk only: which are put away, and which are read back in time.  No disk here.

Theory of operation
-------------------
With a journal a message that is durable need not be in memory as well.  Memory holds what was transmitted and is not
read (the peer's credit bounds it), about ``bound`` of cost ahead of the cursor, and what is not on disk yet.  All that
lies behind is *spilled*: in its place in the outbox stands a :class:`~networkio_proto.outbox.Spilled`, which knows what
the message costs, so that bounds, cancelling, trimming and the ledger need no disk.

What a batch made durable is spilled at once where something before it is spilled already, or ``bound`` lies ahead.
When less than half of that does, the next half is asked for (:class:`LoadQueue`), through the journal's seam like a
batch: ``Endpoint.journal_load`` hands out one :class:`JournalLoad` at a time, and ``Endpoint.journal_loaded`` brings
what the disk has of it.  What was cancelled, read or given up meanwhile is left alone.  :meth:`Outbox.pull` stops at a
placeholder as it does at the peer's credit.

Nothing is looked for message by message.  How much lies ahead is added up when an eighth of ``bound`` is new, and what
a look ahead has found holds until the cursor has passed half of that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .outbox import Outbox, Spilled

if TYPE_CHECKING:
    from .journal import MessageAccepted
    from .session import Session

__all__ = ["JournalLoad", "LoadQueue", "Spill"]


@dataclass(frozen=True, slots=True)
class JournalLoad:
    """The messages ``first`` to ``last`` to this peer are wanted; ``token`` comes back with ``journal_loaded``."""

    token: int
    peer_id: str
    first: int
    last: int


class Spill:
    """What of one outbox is on disk only."""

    __slots__ = (
        "_bound", "_counted", "_done", "_enough", "_new", "_outbox", "_seen", "_whole", "loading", "through"
    )  # fmt: skip

    def __init__(self, outbox: Outbox, bound: int, accepted: int) -> None:
        self._outbox = outbox
        self._bound = bound
        #: so far it was decided what stays in memory; and what the messages cost that are on disk since, so far
        self._done = self._counted = accepted
        self._new = 0
        #: no message beyond is spilled; at first all may be that a journal brought
        self.through = accepted
        #: everything ahead of the cursor was loaded, up to ``through``
        self._whole = False
        #: while the cursor is between these two, enough lies ahead of it
        self._seen = self._enough = 0
        #: something was asked for and has not come
        self.loading = False

    def put_away(self, through: int) -> None:
        """All up to there are on disk now: of those that are new there keep what goes out next, spill the others."""
        outbox = self._outbox
        start = max(self._done + 1, outbox.first)
        if outbox.cost > self._bound and (self._whole or self.through < outbox.cursor):
            if not self._is_enough_new(through):
                return
            start = max(start, self._reach(self._bound, through + 1))
        elif outbox.cost <= self._bound:
            start = through + 1
        self._done = self._counted = through
        self._new = 0
        spilled = [sequence for sequence in range(start, through + 1) if outbox.spill(sequence)]
        if spilled:
            self.through, self._whole = spilled[-1], False

    def _is_enough_new(self, through: int) -> bool:
        """Is an eighth of the bound new, so that it is worth looking how much lies ahead of the cursor?"""
        for sequence in range(max(self._counted + 1, self._outbox.first), through + 1):
            self._new += self._outbox.cost_of(sequence)
        self._counted = through
        return 8 * self._new > self._bound

    def missing(self) -> tuple[int, int] | None:
        """The first and the last message to be loaded next; None: enough lies ahead of the cursor."""
        outbox = self._outbox
        cursor, half = outbox.cursor, self._bound // 2
        if self.loading or self.through < cursor or self._seen <= cursor < self._enough:
            return None
        start = max(cursor, outbox.first)  # a message that is half sent may be gone
        reach = self._reach(half, self.through + 1)
        for sequence in range(start, reach):
            if type(outbox.entries[sequence - outbox.origin]) is Spilled:
                return sequence, self._last_of(sequence, half)
        self._seen = cursor
        self._enough = reach if reach > self.through else (start + reach) // 2 + 1
        return None

    def take_back(self, load: JournalLoad, records: Iterable[MessageAccepted]) -> None:
        """What was asked for has come."""
        self.loading = False
        for record in records:
            self._outbox.unspill(record.sequence, record.payload, record.headers, record.flags)
        if load.last >= self.through:
            self._whole = True

    def _reach(self, cost: int, end: int) -> int:
        """The sequence up to which, from the cursor on, lies so much; at most ``end``."""
        outbox = self._outbox
        start = max(outbox.cursor, outbox.first)
        for sequence in range(start, end):
            if cost < 0:
                return sequence
            cost -= outbox.cost_of(sequence)
        return end

    def _last_of(self, first: int, cost: int) -> int:
        """The last spilled message of those that are loaded together; what stands between is read for nothing."""
        outbox, last = self._outbox, first
        for sequence in range(first, self.through + 1):
            cost -= outbox.cost_of(sequence)
            if cost < 0:
                break
            if type(outbox.entries[sequence - outbox.origin]) is Spilled:
                last = sequence
        return last


class LoadQueue:
    """What waits to be loaded, of all sessions: at most one load for each."""

    __slots__ = ("_token", "_under_way", "_waiting", "error")

    def __init__(self) -> None:
        #: why the last load failed; None if it did not
        self.error: BaseException | None = None
        self._waiting: deque[tuple[Session, Spill, int, int]] = deque()
        self._under_way: tuple[Session, Spill, JournalLoad] | None = None
        self._token = 0

    def add(self, session: Session, spill: Spill, first: int, last: int) -> None:
        """These are wanted."""
        spill.loading = True
        self._waiting.append((session, spill, first, last))

    def request(self) -> JournalLoad | None:
        """The next load; None while one is under way, or when nothing is wanted."""
        if self._under_way is not None or not self._waiting:
            return None
        session, spill, first, last = self._waiting.popleft()
        self._token += 1
        load = JournalLoad(self._token, session.peer_id, first, last)
        self._under_way = (session, spill, load)
        return load

    def done(self, token: int, records: Iterable[MessageAccepted], now: float, error: BaseException | None) -> None:
        """These are the messages; or (``error``) they are wanted still.  Raises ValueError for another token."""
        if self._under_way is None or token != self._under_way[2].token:
            raise ValueError(f"no load with token {token} is under way")
        (session, spill, load), self._under_way = self._under_way, None
        self.error = error
        if error is not None:
            self._waiting.appendleft((session, spill, load.first, load.last))
            return
        spill.take_back(load, records)
        session.transmit(now)
