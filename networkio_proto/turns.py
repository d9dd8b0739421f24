"""Whose turn it is: which peer's next message goes to a worker, when a few workers serve many peers.

Theory of operation
-------------------
A peer is in one of three places: nowhere (nothing of it waits to be read), in the queue (something may wait), or with a
worker.  A worker takes the first of the queue that really has a message, and while it handles that message the peer
gets no other worker: so its messages are handled in order and one at a time.  When the turn is over the peer goes to
the end of the queue, behind all others.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from .notices import Watch
from .operations import Operation, Token

if TYPE_CHECKING:
    from .nodes import NodeHandle

__all__ = ["Turns"]


class Turns:
    """The peers of one node that are served by workers.  Everything runs inside (between enter and leave)."""

    __slots__ = ("_busy", "_idle", "_node", "_queue", "_queued", "over")

    def __init__(self, node: NodeHandle[Any], before: Turns | None = None) -> None:
        """``before``: the turns of the last time; handlers that were begun then may still be busy."""
        self._node = node
        self._queue: deque[Any] = deque()
        self._queued: set[Any] = set()
        self._busy: set[Any] = set() if before is None else before._busy
        #: workers that wait for a turn
        self._idle: list[Token] = []
        #: serving has ended: workers get None
        self.over = False

    def may_have(self, peer: Any) -> None:
        """Something of the peer may wait to be read."""
        if peer not in self._queued and peer not in self._busy:
            self._queued.add(peer)
            self._queue.append(peer)
            self._rouse()

    def finished(self, peer: Any) -> None:
        """Its message was handled; the next one may be."""
        self._busy.discard(peer)
        self.may_have(peer)

    def end(self) -> None:
        """No more turns: every worker that waits, or asks, gets None."""
        self.over = True
        idle, self._idle = self._idle, []
        for token in idle:
            token.set()

    def next(self) -> Operation[Any]:
        """The next message for a worker, which must call :meth:`finished`; None when serving is over."""
        while not self.over and not self._node.closed:
            message = self._message()
            if message is not None:
                return message
            token = self._node.token()
            self._idle.append(token)
            try:
                yield token
            except BaseException:  # it does not look again: what it was woken for is another one's
                if token not in self._idle:
                    self._rouse()
                raise
            finally:
                if token in self._idle:
                    self._idle.remove(token)
        return None

    def _rouse(self) -> None:
        """There may be a turn for one who waits."""
        if self._idle:
            self._idle.pop(0).set()

    def _message(self) -> Any:
        while self._queue:
            peer = self._queue.popleft()
            self._queued.discard(peer)
            message = peer.take_or_none()
            if message is not None:
                self._busy.add(peer)
                return message
            peer.session.watch |= Watch.READABLE
        return None
