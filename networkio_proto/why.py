"""One sentence that says what a peer's messages are waiting for.

Theory of operation
-------------------
A message waits for one thing at a time: a connection, the peer's credit, its way through the network, or the peer's
application.  Which one it is follows from the positions and the targets; nothing is recorded for this beside two times.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .reconnect import TargetState

if TYPE_CHECKING:
    from .session import Session

__all__ = ["explain"]


def explain(session: Session, now: float) -> str:
    """What are the messages to this peer waiting for, and since when?"""
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
    return f"message {outbox.first} is on its way to {peer}, for {waited:.1f} s now"


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
