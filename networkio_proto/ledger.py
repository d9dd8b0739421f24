"""How messages ended: counters for all of them, and a bounded record of those that were not read.

Theory of operation
-------------------
READ is the rule and costs nothing: every sequence below the peer's ``read`` position was read unless it stands in the
:class:`FailureLog`.  The log holds disjoint ranges in order; neighbours with the same end melt into one, so a million
messages that expire together are one range.  Past ``FAILURE_RANGES`` the two oldest are melted although they differ;
such a range is *inexact*: it may cover messages that were read, and says of each only that its end was forgotten.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace

from .errors import (
    DeliveryFailure,
    MessageAbandoned,
    MessageCancelled,
    MessageExpired,
    MessageLost,
    MessageRejected,
    Outcome,
    OutcomeForgotten,
)

__all__ = ["FAILURE_RANGES", "Failure", "FailureLog", "Ledger", "melted"]

#: so many separate ranges of failed messages are remembered per peer
FAILURE_RANGES = 1024

_EXCEPTIONS: dict[Outcome, type[DeliveryFailure]] = {
    Outcome.REJECTED: MessageRejected,
    Outcome.EXPIRED: MessageExpired,
    Outcome.CANCELLED: MessageCancelled,
    Outcome.LOST: MessageLost,
    Outcome.ABANDONED: MessageAbandoned,
}


@dataclass(frozen=True, slots=True)
class Failure:
    """The sequences ``first`` to ``last`` ended as ``outcome``."""

    first: int
    last: int
    outcome: Outcome
    reason: str
    #: ``"no"``: the peer's application certainly never saw it; ``"yes"``: it rejected it; else ``"unknown"``
    seen: str
    #: the peer's code, for REJECTED
    code: int = 0
    #: False where two different ranges were melted to stay within bounds
    exact: bool = True

    def error(self, sequence: int) -> DeliveryFailure:
        """The exception for one of its messages."""
        if not self.exact:
            return OutcomeForgotten(sequence, "its record was melted with others; it may have been read")
        return _EXCEPTIONS[self.outcome](sequence, self.reason, seen=self.seen, code=self.code)


class FailureLog:
    """The failed ranges of one outbox, in order."""

    __slots__ = ("_firsts", "_limit", "_ranges")

    def __init__(self, limit: int = FAILURE_RANGES) -> None:
        self._ranges: list[Failure] = []
        self._firsts: list[int] = []
        self._limit = limit

    def add(self, failure: Failure) -> None:
        """Record a range that overlaps none before, unless it lies inside of a melted one: then it melts with it."""
        ranges, firsts = self._ranges, self._firsts
        place = bisect_right(firsts, failure.first)
        if place and failure.last <= ranges[place - 1].last:
            return
        if place and _same_end(ranges[place - 1], failure):
            place -= 1
            failure = _joined(ranges[place], failure)
            del ranges[place], firsts[place]
        if place < len(ranges) and _same_end(failure, ranges[place]):
            failure = _joined(failure, ranges[place])
            del ranges[place], firsts[place]
        ranges.insert(place, failure)
        firsts.insert(place, failure.first)
        if len(ranges) > self._limit:
            self._melt_oldest()

    def learn(self, failure: Failure) -> None:
        """Record of a range what is not known yet; what is known stays, for a message ends once."""
        first = failure.first
        while first <= failure.last:
            known = self.find(first)
            if known is not None:
                first = known.last + 1
                continue
            place = bisect_right(self._firsts, first)
            after = self._firsts[place] if place < len(self._firsts) else failure.last + 1
            last = min(failure.last, after - 1)
            self.add(replace(failure, first=first, last=last))
            first = last + 1

    def find(self, sequence: int) -> Failure | None:
        """The range that covers ``sequence``, if there is one."""
        if not self._ranges:
            return None
        place = bisect_right(self._firsts, sequence) - 1
        if place >= 0 and self._ranges[place].last >= sequence:
            return self._ranges[place]
        return None

    def ranges(self) -> list[Failure]:
        """All of them, oldest first."""
        return list(self._ranges)

    def within(self, first: int, last: int) -> tuple[Failure, ...]:
        """What is on record of the sequences from ``first`` to ``last``."""
        ranges = self._ranges
        if not ranges or ranges[-1].last < first:
            return ()
        place = max(0, bisect_right(self._firsts, first) - 1)
        return tuple(
            replace(each, first=max(first, each.first), last=min(last, each.last))
            for each in ranges[place:]
            if each.last >= first and each.first <= last
        )

    def __len__(self) -> int:
        return len(self._ranges)

    def _melt_oldest(self) -> None:
        older, newer = self._ranges[0], self._ranges[1]
        self._ranges[:2] = [melted(older, newer)]
        self._firsts[:2] = [older.first]


def melted(older: Failure, newer: Failure) -> Failure:
    """One range in place of two: how the messages in it ended is forgotten."""
    return Failure(older.first, newer.last, Outcome.LOST, "several ends", "unknown", exact=False)


def _joined(left: Failure, right: Failure) -> Failure:
    return Failure(left.first, right.last, left.outcome, left.reason, left.seen, left.code)


def _same_end(left: Failure, right: Failure) -> bool:
    return (
        left.last + 1 == right.first
        and left.exact
        and right.exact
        and (left.outcome, left.reason, left.seen, left.code)
        == (right.outcome, right.reason, right.seen, right.code)
    )


@dataclass(slots=True)
class Ledger:
    """What became of the messages that were accepted for one peer, or for all (promise G3).

    ``unread`` is what is still under way: queued, in flight, or received and not yet acknowledged.
    """

    accepted: int = 0
    read: int = 0
    rejected: int = 0
    expired: int = 0
    cancelled: int = 0
    lost: int = 0
    abandoned: int = 0

    @property
    def unread(self) -> int:
        return self.accepted - self.read - self.failed

    @property
    def failed(self) -> int:
        return self.rejected + self.expired + self.cancelled + self.lost + self.abandoned

    def count(self, outcome: Outcome, messages: int = 1) -> None:
        """So many messages ended as ``outcome``."""
        name = outcome._value_  # the property ``value`` is a function of Python, and slow
        setattr(self, name, getattr(self, name) + messages)

    def copy(self) -> Ledger:
        """The figures as they stand."""
        return replace(self)

    def __add__(self, other: Ledger) -> Ledger:
        return Ledger(
            self.accepted + other.accepted,
            self.read + other.read,
            self.rejected + other.rejected,
            self.expired + other.expired,
            self.cancelled + other.cancelled,
            self.lost + other.lost,
            self.abandoned + other.abandoned,
        )
