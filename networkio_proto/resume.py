"""What resuming means, as one pure function of the facts that two ATTACH frames exchanged.

Theory of operation
-------------------
Nobody issues a session id.  Each direction of a session is judged by its *sender* alone: it knows its outbox and reads
in the peer's ATTACH what the peer's inbox holds.  The cases are those of the specification (*The verdict*), judged
in its order; case F (nonsense) was refused when the frame was parsed.  The receiver needs no verdict: it states its
inbox and takes what comes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from .handshake import Ended, InboxFacts

__all__ = ["OutboxFacts", "Verdict", "judge"]


class Verdict(Enum):
    """The letter of the case in the specification."""

    #: the receiver knows nothing of any outbox of ours: send from ``first``
    FORGOT = "A"
    #: apply the positions like an ACK, send from ``received + 1``
    NORMAL = "B"
    #: our journal went back in time: a new outbox_id for everything unread
    ROLLED_BACK = "C"
    #: the receiver's inbox went back in time: SKIP up to ``first``
    HOLE = "D"
    #: the receiver holds another outbox of ours: send this one from ``first``
    NEW_OUTBOX = "E"
    #: the receiver dropped our outbox: settle by its final positions, a new outbox_id for the rest
    ENDED = "G"


@dataclass(frozen=True, slots=True)
class OutboxFacts:
    """What the sender knows about its own outbox."""

    outbox_id: bytes
    #: the last sequence of every run that is remembered, the present run's included
    runs: Mapping[bytes, int]
    first: int
    #: every outbox id this journal ever had; None in memory mode, where nothing can come back
    history: Collection[bytes] | None = None


def judge(
    mine: OutboxFacts, inbox: InboxFacts | None, ended: Sequence[Ended]
) -> tuple[Verdict, Ended | None]:
    """The verdict for one direction, and the ``ended`` entry that it rests on (case G only)."""
    if mine.history is not None:
        named = [e.outbox_id for e in ended] + ([inbox.outbox_id] if inbox is not None else [])
        if any(outbox_id not in mine.history for outbox_id in named):
            return Verdict.ROLLED_BACK, None  # case U
    for entry in ended:
        if entry.outbox_id == mine.outbox_id:
            if _impossible(mine, entry.run, entry.received, entry.first):
                return Verdict.ROLLED_BACK, None
            return Verdict.ENDED, entry
    if inbox is None:
        return Verdict.FORGOT, None
    if inbox.outbox_id != mine.outbox_id:
        return Verdict.NEW_OUTBOX, None
    if _impossible(mine, inbox.run, max(inbox.received, inbox.seen), inbox.first):
        return Verdict.ROLLED_BACK, None
    if inbox.received < mine.first - 1:
        return Verdict.HOLE, None
    return Verdict.NORMAL, None


def _impossible(mine: OutboxFacts, run: bytes, received: int, first: int) -> bool:
    """Does the echo name something that this sender, as it remembers itself, never did?"""
    last = mine.runs.get(run)
    return last is None or received > last or first > mine.first
