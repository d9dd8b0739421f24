"""One sentence that says what a peer's messages are waiting for.

Theory of operation
-------------------
A message waits for one thing at a time: a connection, the peer's credit, the journal, its way through the network, or
the peer's application.  Which one it is follows from the positions and the targets; nothing is recorded for this beside
two times.  A journal that cannot be written or read keeps more waiting than one message, so that is always said too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .outbox import Spilled
from .reconnect import TargetState

if TYPE_CHECKING:
    from .journal import JournalQueue
    from .session import Session

__all__ = ["explain"]


def explain(session: Session, queue: JournalQueue | None, now: float) -> str:
    """What are the messages to this peer waiting for, and since when?  ``queue``: of the journal, if there is one."""
    trouble = "" if queue is None else queue.trouble
    text = _explained(session, trouble, now)
    return f"{text}; {trouble}" if trouble else text


def _explained(session: Session, trouble: str, now: float) -> str:
    outbox, peer = session.outbox, session.peer_id
    if session.connection is None:
        return _disconnected(session, now)
    if outbox.all_read:
        return f"nothing is waiting: {peer} has read every message"
    waited = now - session.waiting_since
    if outbox.received >= outbox.first:
        return (
            f"the application of {peer} has not acknowledged message {outbox.first} for {waited:.1f} s; "
            f"it holds {outbox.received - outbox.read} messages that it has not acknowledged"
        )
    if outbox.untransmitted and outbox.used >= outbox.credit:
        return f"{peer} gives no credit for message {outbox.cursor}: its inbox is full, for {waited:.1f} s now"
    return f"{_on_its_way(session, trouble)}, for {waited:.1f} s now"


def _on_its_way(session: Session, trouble: str) -> str:
    """The peer has not received the oldest message, and would take it."""
    outbox, journal, first = session.outbox, session.journal, session.outbox.first
    if outbox.cursor <= first:
        if journal is not None and outbox.sendable < first:
            what = f"message {first}" if journal.accepted < first else f"what goes before message {first}"
            return f"{what} is not on disk yet"
        if type(outbox.entries[first - outbox.origin]) is Spilled:
            return f"message {first} is {'to be' if trouble else 'being'} read back from the journal"
    return f"message {first} is on its way to {session.peer_id}"


def _disconnected(session: Session, now: float) -> str:
    when = f"no connection to {session.peer_id} for {now - session.since:.1f} s"
    if session.error is not None:
        when += f" ({session.error})"
    if not session.targets:
        return f"{when}; this side has no address to dial, it waits to be dialled"
    if session.retry_at is not None:
        return f"{when}; next dial in {max(0.0, session.retry_at - now):.1f} s"
    errors = [target.error for target in session.targets if target.state is TargetState.STOPPED]
    if len(errors) == len(session.targets):
        return f"{when}; dialling has stopped: {errors[0]}"
    return f"{when}; dialling now"
