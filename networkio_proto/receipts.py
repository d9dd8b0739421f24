"""Who waits for which message to be received or read.

Theory of operation
-------------------
A receipt costs nothing until somebody waits for it.  Then the driver's token (an event, a future) stands in one of two
heaps, ordered by sequence, so that an acknowledgement of a thousand messages touches only those who waited for them.
Failures come in any order and are rare: they make the heaps be looked through once.  Whoever stops waiting leaves a
hole that is filled when holes are the majority.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .outbox import Outbox

__all__ = ["ReceiptWaiters", "Waiter"]


class Waiter:
    """One who waits; ``token`` is the driver's, None once it stopped waiting."""

    __slots__ = ("sequence", "token")

    def __init__(self, sequence: int, token: Any) -> None:
        self.sequence = sequence
        self.token = token


class ReceiptWaiters:
    """The waiters of one session."""

    __slots__ = ("_count", "_holes", "_read", "_received", "failed")

    def __init__(self) -> None:
        self._received: list[tuple[int, int, Waiter]] = []
        self._read: list[tuple[int, int, Waiter]] = []
        self._count = 0
        self._holes = 0
        #: a message failed since :meth:`due` was called
        self.failed = False

    def __len__(self) -> int:
        return len(self._received) + len(self._read) - self._holes

    def add(self, sequence: int, token: Any, *, read: bool) -> Waiter:
        """Wait for ``sequence`` to be received, or read."""
        waiter = Waiter(sequence, token)
        self._count += 1
        heapq.heappush(self._read if read else self._received, (sequence, self._count, waiter))
        return waiter

    def remove(self, waiter: Waiter) -> None:
        """Stop waiting.  Harmless after :meth:`due` returned the token."""
        if waiter.token is None:
            return
        waiter.token = None
        self._holes += 1
        if self._holes > 16 and 2 * self._holes > len(self._received) + len(self._read):
            for heap in (self._received, self._read):
                heap[:] = [item for item in heap if item[2].token is not None]
                heapq.heapify(heap)
            self._holes = 0

    def all(self) -> list[Any]:
        """Every token that waits."""
        return [item[2].token for item in self._received + self._read if item[2].token is not None]

    def due(self, outbox: Outbox) -> list[Any]:
        """The tokens whose wait is over."""
        tokens = self._pop(self._received, max(outbox.received, outbox.read)) + self._pop(self._read, outbox.read)
        if self.failed:
            self.failed = False
            for heap in (self._received, self._read):
                tokens += [self._release(item[2]) for item in heap if outbox.failures.find(item[0]) is not None]
                heap[:] = [item for item in heap if outbox.failures.find(item[0]) is None]
                heapq.heapify(heap)
        return [token for token in tokens if token is not None]

    def _pop(self, heap: list[tuple[int, int, Waiter]], through: int) -> list[Any]:
        tokens = []
        while heap and heap[0][0] <= through:
            tokens.append(self._release(heapq.heappop(heap)[2]))
        return tokens

    def _release(self, waiter: Waiter) -> Any:
        token, waiter.token = waiter.token, None
        if token is None:
            self._holes -= 1
        return token
