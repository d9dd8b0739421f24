"""Disjoint ranges of sequences, in order: what is settled beyond the place where everything is.

Theory of operation
-------------------
Two lists of the same length, first and last of each range, so that a place is found by bisection and a neighbour is
joined at once: a range of 2^60 sequences costs as much as one of a single sequence.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

__all__ = ["Ranges"]


class Ranges:
    """A set of sequences, kept as ranges that do not touch each other."""

    __slots__ = ("firsts", "lasts")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        #: the first of each range, in order; empty when there is none (for hot paths to look at)
        self.firsts: list[int] = []
        self.lasts: list[int] = []
        for first, last in ranges:
            self.add(first, last)

    def __len__(self) -> int:
        return len(self.firsts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self.firsts, self.lasts, strict=True)

    def __contains__(self, sequence: int) -> bool:
        place = bisect_left(self.lasts, sequence)
        return place < len(self.lasts) and self.firsts[place] <= sequence

    def add(self, first: int, last: int) -> None:
        """These too, be some of them in it already."""
        begin, end = bisect_left(self.lasts, first - 1), bisect_right(self.firsts, last + 1)
        if begin < end:  # those in between touch it, or each other by it
            first, last = min(first, self.firsts[begin]), max(last, self.lasts[end - 1])
        self.firsts[begin:end] = [first]
        self.lasts[begin:end] = [last]

    def pass_over(self, position: int, limit: int) -> int:
        """Where ``position`` comes to when it goes on over what begins right after it, up to ``limit``.

        Everything up to there is in it no more.
        """
        if not self.firsts or self.firsts[0] != position + 1 or position >= limit:
            return position
        if self.lasts[0] > limit:
            self.firsts[0] = limit + 1
            return limit
        del self.firsts[0]
        return self.lasts.pop(0)
