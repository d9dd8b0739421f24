"""One heap of deadlines for everything an endpoint owns.

Theory of operation
-------------------
Deadlines are *lazy*.  An owner (a connection, a session, a target) has at most one valid place in the heap,
``timer_at``.  When its true deadline moves *later* (a byte arrived, so the peer is alive) nothing is done: the entry
comes up early, the owner looks at its own facts, does nothing, and asks for its next deadline.  When it moves
*earlier*, a second entry is pushed and the old one becomes stale; stale entries are thrown away when they surface, and
the heap is rebuilt when they are the majority, so its size stays below twice the number of owners.

Acknowledgement delays would move a deadline earlier for every message.  They are all equally long, so they come due in
the order in which they were asked for: a plain queue serves them without touching the heap.
"""

from __future__ import annotations

import heapq
from collections import deque
from math import inf

__all__ = ["Timed", "Timers"]


#: so many owners are served in one go
_AT_ONCE = 64


class Timed:
    """Something that wants to be called at a time."""

    __slots__ = ("timer_at",)

    def __init__(self) -> None:
        #: where this owner stands in the heap; ``inf`` = nowhere
        self.timer_at: float = inf

    def on_timer(self, now: float) -> float | None:
        """Do what is due at ``now``; return the next deadline, or None."""
        raise NotImplementedError

    def on_ack_timer(self, now: float) -> None:
        """The acknowledgement delay that was asked for is over."""
        raise NotImplementedError


class Timers:
    """The deadlines of one endpoint; :meth:`next` is O(1)."""

    __slots__ = ("_acks", "_count", "_heap", "_live", "_told", "sooner")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timed]] = []
        self._acks: deque[tuple[float, Timed]] = deque()
        self._count = 0  # breaks ties in the order of scheduling, so that runs are reproducible
        self._live = 0
        self._told = inf
        #: something is due before the deadline that :meth:`next` told last: the driver must ask again
        self.sooner = False

    def schedule(self, owner: Timed, deadline: float) -> None:
        """See to it that ``owner.on_timer`` is called at ``deadline`` or (lazily) earlier."""
        if deadline >= owner.timer_at:
            return
        if owner.timer_at == inf:
            self._live += 1
        owner.timer_at = deadline
        if deadline < self._told:
            self.sooner = True
        self._count += 1
        heapq.heappush(self._heap, (deadline, self._count, owner))
        self._tidy()

    def schedule_ack(self, owner: Timed, deadline: float) -> None:
        """Call ``owner.on_ack_timer`` at ``deadline``, which is not earlier than any asked for before."""
        self._acks.append((deadline, owner))
        if deadline < self._told:
            self.sooner = True

    def cancel(self, owner: Timed) -> None:
        """Forget the owner's deadline, if it has one."""
        if owner.timer_at != inf:
            owner.timer_at = inf
            self._live -= 1
            self._tidy()

    def next(self) -> float | None:
        """The earliest deadline, or None.  It may be in the past."""
        heap = self._heap
        while heap and heap[0][2].timer_at != heap[0][0]:
            heapq.heappop(heap)
        told = heap[0][0] if heap else inf
        if self._acks and self._acks[0][0] < told:
            told = self._acks[0][0]
        self._told = told
        self.sooner = False
        return None if told == inf else told

    def run(self, now: float) -> None:
        """Serve what is due, each owner at most once; of very many the rest is left due, so that others have a turn."""
        acks = self._acks
        while acks and acks[0][0] <= now:
            acks.popleft()[1].on_ack_timer(now)
        due: list[Timed] = []
        heap = self._heap
        while heap and heap[0][0] <= now and len(due) < _AT_ONCE:
            deadline, _, owner = heapq.heappop(heap)
            if owner.timer_at == deadline:
                owner.timer_at = inf
                self._live -= 1
                due.append(owner)
        due.reverse()
        try:
            while due:
                owner = due.pop()
                following = owner.on_timer(now)
                if following is not None:
                    self.schedule(owner, following)
        finally:  # one raised something: the others have their turn the next time
            for owner in reversed(due):
                self.schedule(owner, now)
            self._tidy()

    def __len__(self) -> int:
        return len(self._heap) + len(self._acks)

    def _tidy(self) -> None:
        """Throw stale entries away when they are the majority."""
        if len(self._heap) > 64 and len(self._heap) > 2 * self._live:
            self._heap = [entry for entry in self._heap if entry[2].timer_at == entry[0]]
            heapq.heapify(self._heap)
