"""The one thread of a node: it reads every socket, serves the timers, and finishes what others could not write at once.

Theory of operation
-------------------
All sockets are non-blocking and stand in one selector that only this thread touches.  Others ask it to do something
by :meth:`Loop.call`, which wakes it through a pair of sockets.  It waits for sockets or for the next deadline,
whichever comes first, and everything that it does is short: neither a peer nor the application can hold it up.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, TypeAlias

from networkio_proto.memory import ReceiveBuffer

from ._wait import Token

if TYPE_CHECKING:
    from ._node import Node

__all__ = ["READ", "WRITE", "Loop"]

logger = logging.getLogger("networkio.threads")

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

#: closing waits so long for what should be done at once (seconds)
_PATIENCE = 5.0

#: what to do when a socket is ready, called with the events
Ready: TypeAlias = Callable[[int], object]


class Loop:
    """The thread of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._selector = selectors.DefaultSelector()
        self._inner, self._outer = socket.socketpair()
        self._inner.setblocking(False)
        self._outer.setblocking(False)
        self._asked: deque[Callable[[], object]] = deque()
        self._later: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        #: where links read to, one at a time: the core keeps no part of it
        self.chunk = ReceiveBuffer()
        #: a byte is under way that wakes the thread
        self._woken = False
        self._stopping = False
        #: nothing is done any more
        self.ended = False
        self.thread = threading.Thread(target=self._run, name=f"networkio {node.id}", daemon=True)
        self.register(self._inner, READ, self._awake)

    @property
    def here(self) -> bool:
        """Is this code running in the loop's thread?"""
        return threading.get_ident() == self.thread.ident and not self.ended  # then another may have its number

    # -- from any thread ------------------------------------------------------------------------------------------

    def call(self, do: Callable[[], object]) -> None:
        """Do this soon, in the loop's thread."""
        self._asked.append(do)
        if not self.here:
            self.wake()

    def wake(self) -> None:
        """Go round once more.  Safe anywhere, even in a finalizer."""
        if not self._woken:
            self._woken = True
            try:
                self._outer.send(b"\0")
            except OSError:  # it is closed
                pass

    def settle(self) -> None:
        """Wait until everything is done that was asked so far."""
        if not self.here:
            done = Token()
            self.call(done.set)
            until = monotonic() + _PATIENCE
            while not self.ended and monotonic() < until and not done.wait(monotonic() + 0.05):
                pass

    def stop(self) -> None:
        """Do what was asked, then end the thread."""
        self._stopping = True
        self.wake()

    def join(self) -> None:
        """Wait for the end of the thread, not for ever: it may be held up in what ``on_notice`` was given."""
        if not self.here:
            self.thread.join(_PATIENCE)
            if self.thread.is_alive():
                logger.warning("the thread of node %s is busy in what on_notice was given, and is left", self._node.id)

    # -- in the loop's thread -------------------------------------------------------------------------------------

    def later(self, seconds: float, do: Callable[[], object]) -> None:
        """Do this after so many seconds."""
        heapq.heappush(self._later, (monotonic() + seconds, next(self._numbers), do))

    def register(self, sock: socket.socket, events: int, ready: Ready) -> None:
        """Call ``ready(events)`` whenever the socket is ready for them; again to change them."""
        if sock.fileno() in self._selector.get_map():
            self._selector.modify(sock, events, ready)
        else:
            self._selector.register(sock, events, ready)

    def forget(self, sock: socket.socket) -> None:
        """Watch the socket no more.  Idempotent."""
        if sock.fileno() >= 0 and sock.fileno() in self._selector.get_map():
            self._selector.unregister(sock)

    def drop(self, sock: socket.socket) -> None:
        """Close a socket, registered or not.  Idempotent."""
        self.forget(sock)
        sock.close()

    def _run(self) -> None:
        try:
            while not self._stopping:
                for key, events in self._selector.select(self._patience()):
                    self._do(partial(key.data, events))
                self._serve()
            self._serve()
        finally:
            self.ended = True
            self.abandon()

    def _patience(self) -> float | None:
        """How long there is nothing to do but to wait for sockets (seconds)."""
        if self._asked:
            return 0.0
        due = self._node.due()
        if self._later:
            due = min(due, self._later[0][0])
        return None if due == inf else max(0.0, due - monotonic())

    def _serve(self) -> None:
        """Everything that is not a socket: what was asked, what is due."""
        while self._asked:
            self._do(self._asked.popleft())
        while self._later and self._later[0][0] <= monotonic():
            self._do(heapq.heappop(self._later)[2])
        self._do(self._node.tick)

    def _awake(self, events: int) -> None:
        self._inner.recv(4096)
        self._woken = False  # before anything is looked at: whoever comes later sends another byte

    def _do(self, do: Callable[[], object]) -> None:
        try:
            do()
        except BaseException:  # the thread must outlive whatever happens; nothing is expected here
            logger.exception("unexpected error in the thread of node %s", self._node.id)

    def abandon(self) -> None:
        """Close what is still open: at the end of the thread, and in a forked child, which has no such thread."""
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._selector.close()
        self._outer.close()
