"""What a thread waits for, and what must not strike a thread that is inside of the core: Ctrl-C and fork.

Theory of operation
-------------------
A :class:`Token` is a lock that is taken at birth; whoever waits takes it a second time, and setting it releases it.
That is the cheapest wait there is for a thread, and Ctrl-C interrupts it.

Python raises KeyboardInterrupt between any two instructions of the main thread.  In the middle of a command that would
leave the core half changed, and at its end it would take the result away from the caller: a message that was taken, and
that nobody has then.  So the default handler is replaced, as long as a node is open, by one that lets Ctrl-C strike a
command only while it waits (:data:`INTERRUPTS`).  One that comes at another moment is raised anew by a node's own
thread, as soon as the main thread is outside.  A handler of the program's own is left alone.

A forked child has the node's memory but not its thread, and shares its sockets with the parent.  The child's copies are
closed at once, and every later call raises ForkedProcess.
"""

from __future__ import annotations

import _thread
import os
import signal
import threading
import weakref
from functools import partial
from math import inf
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._loop import Loop

__all__ = ["INTERRUPTS", "Interrupts", "Token", "watch_for_fork"]

#: a Ctrl-C that came at a bad moment is tried again after this (seconds)
_AGAIN = 0.001

#: a signal that comes right before the main thread blocks, or in another thread, does not wake it: it looks up so often
_GLANCE = 0.2


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
    """Holds Ctrl-C back while the main thread is inside of a node (``with INTERRUPTS``) and does not wait."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """At the beginning, and in a forked child, which has no open node and maybe another main thread."""
        self._depth = 0
        #: the depth at which the main thread waits; a handler's call in the middle of a wait is deeper.  0: it does not
        self._waiting = 0
        #: a Ctrl-C was held back
        self._pending = False
        #: the next SIGINT is a held back one, raised anew
        self._anew = False
        self._installed = False
        #: the threads of the open nodes
        self._loops: list[Loop] = []
        self._main = threading.main_thread().ident or 0

    def opened(self, loop: Loop) -> None:
        """A node opens."""
        self._loops.append(loop)

    def closed(self, loop: Loop) -> None:
        """A node closed; the last one puts the default handler back, which only the main thread can."""
        self._loops.remove(loop)
        self._pending = self._pending and self._ours()
        if self._loops and self._pending:
            self._loops[-1].call(partial(self._again, self._loops[-1]))
        if not self._loops and threading.get_ident() == self._main:
            self.restore()

    def restore(self) -> None:
        """Put the default handler back, if this one is there."""
        self._installed = False
        if self._ours():
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _ours(self) -> bool:
        return signal.getsignal(signal.SIGINT) == self._handle

    def enter(self) -> None:
        """The calling thread is about to enter a node."""
        if threading.get_ident() == self._main:
            if self._loops and not self._installed:
                self._installed = True
                if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                    signal.signal(signal.SIGINT, self._handle)
            self._depth += 1

    def leave(self) -> None:
        """It has left.  After the depth is 0 nothing is called here: the caller would lose what it is given."""
        if threading.get_ident() == self._main:
            self._depth -= 1
            if self._pending and not self._depth and not self._loops:  # there is nobody who could do it later
                self._pending = False
                raise KeyboardInterrupt

    def __enter__(self) -> None:
        self.enter()

    def __exit__(self, *exc: object) -> None:
        self.leave()

    def wait(self, token: Token, deadline: float | None) -> bool:
        """Between enter and leave: wait for the token; here Ctrl-C may strike."""
        if threading.get_ident() != self._main:
            return token.wait(deadline)
        before, self._waiting = self._waiting, self._depth
        try:
            while not (done := token.wait(min(monotonic() + _GLANCE, inf if deadline is None else deadline))):
                if deadline is not None and deadline <= monotonic():
                    break
            return done
        finally:
            self._waiting = before

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        anew, self._anew = self._anew, False
        if anew and not self._pending:  # it came out meanwhile
            return
        if self._depth not in (0, self._waiting):
            before, self._pending = self._pending, True
            if self._loops and not before:
                loop = self._loops[-1]
                loop.call(partial(self._again, loop))
            return
        self._pending, self._waiting = False, 0
        signal.default_int_handler(signum, frame)

    def _again(self, loop: Loop) -> None:
        """In the thread of a node: raise the one that was held back, when the main thread is outside or waits."""
        self._pending = self._pending and self._ours()  # else the program has another handler now
        if self._pending:
            if self._depth in (0, self._waiting):
                self._anew = True
                if hasattr(signal, "pthread_kill"):
                    signal.pthread_kill(self._main, signal.SIGINT)
                else:
                    _thread.interrupt_main()
            loop.later(_AGAIN, partial(self._again, loop))


INTERRUPTS = Interrupts()

_forkable: weakref.WeakSet[Any] = weakref.WeakSet()


def watch_for_fork(node: Any) -> None:
    """Call ``node.forked()`` in a child that this process may fork."""
    _forkable.add(node)


def _forked() -> None:
    for node in list(_forkable):
        node.forked()
    INTERRUPTS.reset()
    INTERRUPTS.restore()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
