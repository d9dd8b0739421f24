"""What kills came to: how many there were, and what became of the messages and of the journals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from itertools import pairwise
from pathlib import Path

from networkio_journal.inspection import inspecting
from networkio_proto.errors import JournalError

__all__ = ["Tally", "Unopened", "is_whole"]


class Unopened(AssertionError):
    """A process found its journal to be one that does not open."""


@dataclass(frozen=True)
class Tally:
    """Of one run, or of several together."""

    kills: int = 0
    messages: int = 0
    lost: int = 0
    doubled: int = 0
    reordered: int = 0
    #: journals that do not open, or open with something wrong in them
    unopened: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(mine + its for mine, its in zip(astuple(self), astuple(other), strict=True)))

    def __str__(self) -> str:
        return (
            f"{self.kills:,} kills, {self.messages:,} messages, {self.lost} lost, {self.doubled} doubled, "
            f"{self.reordered} reordered, {self.unopened} journals that do not open"
        )

    @property
    def good(self) -> bool:
        """Is nothing lost, doubled or reordered, and every journal open?"""
        return not (self.lost or self.doubled or self.reordered or self.unopened)

    @classmethod
    def of(cls, got: Sequence[int], last: int, journals: Sequence[Path], kills: int) -> Tally:
        """``got``: numbers in the order in which they were read; they should be those from 1 to ``last``."""
        there = set(got)
        return cls(
            kills,
            last,
            lost=len(set(range(1, last + 1)) - there),
            doubled=len(got) - len(there),
            reordered=sum(left > right for left, right in pairwise(got)),
            unopened=sum(not is_whole(journal) for journal in journals),
        )


def is_whole(journal: Path) -> bool:
    """Does it open, with nothing wrong in it?"""
    try:
        with inspecting(journal) as found:
            return not list(found.faults())
    except JournalError:
        return False
