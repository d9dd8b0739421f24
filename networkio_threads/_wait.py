"""What a thread waits for, and what must not strike a thread that is inside of the core: Ctrl-C and fork.

Theory of operation
-------------------
A :class:`Token` is a lock that is taken at birth; whoever waits takes it a second time, and setting it releases it.
That is the cheapest wait there is for a thread, and Ctrl-C interrupts it.

Python raises KeyboardInterrupt between any two instructions of the main thread.  In the middle of a command that would
leave the core half changed, so the default handler is replaced, as long as a node is open, by one that waits until the
main thread has left the core (:data:`INTERRUPTS`).  A handler of the program's own is left alone.

A forked child has the node's memory but not its thread, and shares its sockets with the parent.  The child's copies are
closed at once, and every later call raises ForkedProcess.
"""

from __future__ import annotations

import os
import signal
import threading
import weakref
from time import monotonic
from types import FrameType
from typing import Any

__all__ = ["INTERRUPTS", "Interrupts", "Token", "watch_for_fork"]


class Token:
    """Something to wait for, once."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        """Wake whoever waits.  Called inside only, so by one thread at a time."""
        if self._lock.locked():
            self._lock.release()

    def wait(self, deadline: float | None) -> bool:
        """Until it is set, or until ``deadline`` (monotonic clock): was it set?"""
        if deadline is None:
            return self._lock.acquire()
        return self._lock.acquire(timeout=min(max(0.0, deadline - monotonic()), threading.TIMEOUT_MAX))


class Interrupts:
    """Holds Ctrl-C back while the main thread is inside of a node."""

    def __init__(self) -> None:
        self._depth = 0
        self._pending = False
        self._nodes = 0
        self._main = threading.main_thread().ident

    def install(self) -> None:
        """A node opens.  Only the main thread may set handlers, and only the default one is replaced."""
        if threading.get_ident() == self._main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._handle)
        self._nodes += 1

    def remove(self) -> None:
        """A node closed; the last one puts the default handler back."""
        self._nodes -= 1
        ours = not self._nodes and threading.get_ident() == self._main
        if ours and signal.getsignal(signal.SIGINT) == self._handle:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self._depth:
            self._pending = True
        else:
            signal.default_int_handler(signum, frame)

    def enter(self) -> None:
        """The calling thread is about to enter the core."""
        if threading.get_ident() == self._main:
            self._depth += 1

    def leave(self) -> None:
        """It has left; raises the KeyboardInterrupt that came meanwhile."""
        if threading.get_ident() == self._main:
            self._depth -= 1
            if self._pending and not self._depth:
                self._pending = False
                raise KeyboardInterrupt


INTERRUPTS = Interrupts()

_forkable: weakref.WeakSet[Any] = weakref.WeakSet()


def watch_for_fork(node: Any) -> None:
    """Call ``node.forked()`` in a child that this process may fork."""
    _forkable.add(node)


def _forked() -> None:
    for node in list(_forkable):
        node.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
