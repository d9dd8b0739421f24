"""The short way of reading: many messages in one turn, while there is nothing to tell anybody.

Theory of operation
-------------------
Most messages are read in a row: each is the next one, whole and plain, and by far not the last that waits.  To settle
one of them moves two numbers, and its acknowledgement is told with that of many others.  A :class:`Reading` is the
permission to do just that.  The session gives it (``Session.reading``) after it has looked once whether anybody would
have to be told, and how many messages later that will be so; it is good until anything else is done with the core.

Where a message is not of that kind, or the permission is used up, nothing is changed and the long way has to be gone.
Both ways leave the core in the same state (``tests/proto/test_short_ways.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .config import COST_PER_MESSAGE
from .inbox import Delivery, Inbox

if TYPE_CHECKING:
    from .acknowledger import Acknowledger

__all__ = ["Reading"]


class Reading:
    """Reads from one inbox."""

    __slots__ = ("_acknowledger", "_floor", "_inbox", "_spare", "ready")

    def __init__(self, inbox: Inbox, acknowledger: Acknowledger) -> None:
        #: what waits, the next one first
        self.ready = inbox.ready
        self._inbox = inbox
        self._acknowledger = acknowledger
        #: so many messages may be settled, and ``unsettled`` has to stay above this
        self._spare, self._floor = acknowledger.allowance(inbox)

    def consume(self, delivery: Delivery) -> bool:
        """Take and settle the message at the front, if it is this one.  False: not in this way; nothing was changed."""
        ready, inbox, sequence = self.ready, self._inbox, delivery[1]
        unsettled = inbox.unsettled - COST_PER_MESSAGE - len(delivery[2])
        if (
            sequence != inbox.read + 1
            or unsettled <= self._floor
            or not self._spare
            or delivery[4] is not None
            or len(ready) < 2  # the last one is told at once
            or ready[0] is not delivery
        ):
            return False
        ready.popleft()
        inbox.read = sequence
        inbox.unsettled = unsettled
        self._spare -= 1
        self._acknowledger.pending = True
        return True

    def exchange(self, held: Delivery | None) -> Delivery | None:
        """Settle what is held, if anything, and take the next message.  None: not in this way; nothing was changed."""
        if not self.ready or (held is not None and not self._settle(held)):
            return None
        delivery = self.ready.popleft()
        self._inbox.held[delivery[1]] = delivery
        return delivery

    def _settle(self, held: Delivery) -> bool:
        inbox, sequence = self._inbox, held[1]
        unsettled = inbox.unsettled - COST_PER_MESSAGE - len(held[2])
        if (
            sequence != inbox.read + 1
            or unsettled <= self._floor
            or not self._spare
            or held[4] is not None
            or held[0] is not inbox
            or inbox.held.pop(sequence, None) is None
        ):
            return False
        inbox.read = sequence
        inbox.unsettled = unsettled
        self._spare -= 1
        self._acknowledger.pending = True
        return True
