"""How much a peer may send: one session's window, taken out of the node's budget.

Theory of operation
-------------------
Every session has a guaranteed window; what exceeds it is reserved in ``Config.inbox_budget``, which all sessions of the
node share.  A promise of credit cannot be taken back while its connection lives, so it is the *promise* that is
reserved, not the messages: five thousand peers at once cannot make the node hold more than its budget.  A window grows
while it is used up and the application keeps up; a lost connection gives back all but what is still unread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .quotas import Bounds

if TYPE_CHECKING:
    from .endpoint import Endpoint

__all__ = ["Window"]


class Window:
    """The window of one session."""

    __slots__ = ("_endpoint", "bounds", "reserved", "size")

    def __init__(self, endpoint: Endpoint, bounds: Bounds) -> None:
        self._endpoint = endpoint
        #: from the next connection on
        self.bounds = bounds
        #: cost that may be unsettled at a time
        self.size = bounds.window_guaranteed
        #: the part of the node's budget that it holds
        self.reserved = 0

    def open(self, unsettled: int) -> None:
        """For a new connection: the peer's first window, as far as the budget reaches."""
        self.release(unsettled)
        self.size = self.bounds.window_guaranteed
        self._grant(self.bounds.window - self.size)

    def grow(self) -> None:
        """It is used up, and the application keeps up."""
        self._grant(min(self.size, self.bounds.window_max - self.size))

    def release(self, unsettled: int) -> None:
        """No promise stands any more: give back what exceeds the messages that are still here."""
        kept = min(self.reserved, max(0, unsettled - self.bounds.window_guaranteed))
        self._endpoint.inbox_reserved -= self.reserved - kept
        self.reserved = kept

    def _grant(self, wanted: int) -> None:
        endpoint = self._endpoint
        granted = max(0, min(wanted, endpoint.config.inbox_budget - endpoint.inbox_reserved))
        endpoint.inbox_reserved += granted
        self.reserved += granted
        self.size += granted
