"""Dialling without waiting: names are resolved in threads of their own, addresses are tried in the node's loop.

Theory of operation
-------------------
A name may lead to several addresses, some of them dead.  They are tried in order, the next one as soon as one fails and
at the latest a quarter of a second after the one before; the first that answers wins, and the others are closed.  Only
resolving a name, and what a user gave to ``connect_socket``, can block: a few daemon threads do that for all dials.
"""

from __future__ import annotations

import errno
import os
import queue
import socket
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

from ._loop import WRITE, Loop

__all__ = ["Address", "Attempt", "Places", "Resolver", "resolve_numeric", "resolver_for"]

#: (family, kind, protocol, address) of one place to dial
Place: TypeAlias = tuple[int, int, int, Any]
Places: TypeAlias = list[Place]

#: the next address is tried so long after one that does not answer (seconds)
_STAGGER = 0.25

#: so many threads resolve names at a time
_RESOLVERS = 4


class Address:
    """Where a target's socket comes from: ``find`` returns places to dial, or a connected socket; it may block.

    Hashable by identity, printable for messages.
    """

    __slots__ = ("_name", "find", "places")

    def __init__(self, name: str, find: Callable[[], Places | socket.socket], places: Places | None = None) -> None:
        self._name = name
        self.find = find
        #: where to dial, if that is known without asking anybody
        self.places = places

    def __str__(self) -> str:
        return self._name


def resolver_for(host: str, port: int) -> Callable[[], Places]:
    """A function that asks the system for the addresses of a name; raises socket.gaierror."""
    return lambda: [
        (family, kind, protocol, address)
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    ]


def resolve_numeric(host: str, port: int) -> Places | None:
    """The place of an address that needs no asking; None for a name."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except OSError:
        return None
    return [(family, kind, protocol, address) for family, kind, protocol, _, address in found]


class Resolver:
    """A few daemon threads that run what may block."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._threads = 0
        self._idle = 0
        self._lock = threading.Lock()

    def submit(self, do: Callable[[], object]) -> None:
        """Run this in one of the threads."""
        with self._lock:
            if self._idle:
                self._idle -= 1
            elif self._threads < _RESOLVERS:
                self._threads += 1
                threading.Thread(target=self._run, name="networkio resolver", daemon=True).start()
        self._queue.put(do)

    def stop(self) -> None:
        """The threads end when they have done what they are doing; nobody waits for them."""
        for _ in range(_RESOLVERS):
            self._queue.put(None)

    def _run(self) -> None:
        while (do := self._queue.get()) is not None:
            do()
            with self._lock:
                self._idle += 1


class Attempt:
    """One dial over the places of an address; runs in the loop's thread, and calls ``done`` once."""

    def __init__(
        self, loop: Loop, places: Places, timeout: float, done: Callable[[socket.socket | None, OSError | None], object]
    ) -> None:
        self._loop = loop
        self._places = deque(places)
        self._done: Callable[[socket.socket | None, OSError | None], object] | None = done
        self._error: OSError = OSError(errno.EADDRNOTAVAIL, "the name has no address")
        self._trying: set[socket.socket] = set()
        loop.later(timeout, lambda: self._finish(None, TimeoutError("no answer in time")))
        self._next()

    def _next(self) -> None:
        """Try the next place; without one, and with nothing under way, it has failed."""
        while self._done is not None and self._places:
            family, kind, protocol, address = self._places.popleft()
            try:
                sock = socket.socket(family, kind, protocol)
            except OSError as error:  # no descriptors left, or a family that this machine lacks
                self._error = error
                continue
            sock.setblocking(False)
            code = sock.connect_ex(address)
            if code in (0, errno.EINPROGRESS, errno.EWOULDBLOCK):
                self._trying.add(sock)
                self._loop.register(sock, WRITE, partial(self._answered, sock))
                self._loop.later(_STAGGER, self._next)
                return
            sock.close()
            self._error = _error(code)
        if not self._trying:
            self._finish(None, self._error)

    def _answered(self, sock: socket.socket, events: int) -> None:
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not code:
            self._trying.discard(sock)
            self._finish(sock, None)
            return
        self._error = _error(code)
        self._trying.discard(sock)
        self._loop.drop(sock)
        self._next()

    def _finish(self, sock: socket.socket | None, error: OSError | None) -> None:
        done, self._done = self._done, None
        if done is None:
            return
        for other in self._trying:
            self._loop.drop(other)
        self._trying.clear()
        done(sock, error)


def _error(code: int) -> OSError:
    return OSError(code, os.strerror(code))
