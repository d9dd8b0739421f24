"""Which of several connections of one session is the live one.

Theory of operation
-------------------
Two nodes may dial each other at the same time, a process may die unnoticed and come back, and bytes of a connection
that everybody gave up may be read late.  One side decides: the **arbiter**, the one with the greater peer id; the
other, the *follower*, believes it.  Every ATTACH of the arbiter carries a ``generation`` greater than all before it,
and the follower takes a connection if and only if its generation is news.  Every ATTACH of the follower carries
``seen``, the highest generation that it took from this arbiter process, so that the arbiter can tell an old dial of
the follower from a new one.

A newcomer that names *another incarnation* than the incumbent's is parked by either side until the incumbent was
probed: a process that answers is never replaced (specification, *Which connection*, with the reason for each rule).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["Arbitration", "Decision", "Newcomer"]

#: generations are remembered for so many incarnations of the arbiter
_INCARNATIONS = 16


class Decision(Enum):
    """What becomes of a verified newcomer."""

    TAKE = "take"
    #: wait until the incumbent was probed
    PARK = "park"
    #: an old connection whose bytes were read late, or the one that lost a collision
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class Newcomer:
    """What the decision depends on."""

    #: the peer's incarnation, from its HELLO or HELLO_ACK
    incarnation: bytes
    #: did this side dial it?
    dialled_here: bool
    #: the dialer's count of dials
    dial: int
    #: of the arbiter's ATTACH on it
    generation: int
    #: of the follower's ATTACH on it
    seen: int


class Arbitration:
    """What one session remembers of the connections that it took."""

    __slots__ = ("_seen", "_taken", "arbiter", "generation", "stated")

    def __init__(self, my_id: str, peer_id: str) -> None:
        #: does this side decide?
        self.arbiter = my_id > peer_id
        #: the last one that this side (the arbiter) gave out
        self.generation = 0
        #: the newest dial of this side on which it stated its facts; it must not state them on an older one any more
        self.stated = 0
        self._taken: Newcomer | None = None
        self._seen: dict[bytes, int] = {}

    def next_generation(self) -> int:
        """For the ATTACH that the arbiter is about to send."""
        self.generation += 1
        return self.generation

    def seen(self, incarnation: bytes) -> int:
        """The highest generation that this side (the follower) took from that process of the arbiter."""
        return self._seen.get(incarnation, 0)

    def decide(self, newcomer: Newcomer, incumbent: bytes | None) -> Decision:
        """Judge a newcomer; ``incumbent`` is the incarnation behind the live connection, None without one."""
        if incumbent is not None and incumbent != newcomer.incarnation:
            return Decision.PARK
        return Decision.STALE if self.stale(newcomer) else Decision.TAKE

    def stale(self, newcomer: Newcomer) -> bool:
        """Was something newer of the same incarnation taken before?"""
        if not self.arbiter:
            return newcomer.generation <= self.seen(newcomer.incarnation)
        last = self._taken
        if newcomer.dialled_here or last is None or last.incarnation != newcomer.incarnation:
            return False
        if last.dialled_here:
            return newcomer.seen < last.generation
        return newcomer.dial <= last.dial

    def took(self, newcomer: Newcomer) -> None:
        """The newcomer is live; its successors are measured by it."""
        if self.arbiter:
            self._taken = newcomer
            return
        self._seen.pop(newcomer.incarnation, None)
        self._seen[newcomer.incarnation] = newcomer.generation
        if len(self._seen) > _INCARNATIONS:
            del self._seen[next(iter(self._seen))]
