"""Dialling without waiting: names are resolved in threads of their own, addresses are tried in the node's loop.

Theory of operation
-------------------
A name may lead to several addresses, some of them dead.  They are tried in order, the next one as soon as one fails and
at the latest a quarter of a second after the one before; the first that answers wins, and the others are closed.  Only
resolving a name, and what a user gave to ``connect_stream``, can block: a few daemon threads do that for all dials.
Nobody can stop what blocks there.  So an address is asked by one thread at a time: a dial that comes while it is still
being asked for the one before waits for the same answer.
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

from networkio_proto import nodes

from ._loop import WRITE, Loop

__all__ = ["Address", "Attempt", "Places", "Resolver", "prepare", "resolve_numeric", "resolver_for"]

#: (family, kind, protocol, address) of one place to dial
Place: TypeAlias = tuple[int, int, int, Any]
Places: TypeAlias = list[Place]

#: the next address is tried so long after one that does not answer (seconds)
_STAGGER = 0.25

#: so many threads resolve names at a time
_RESOLVERS = 4


class Address(nodes.Address):
    """Where a target's socket comes from: ``open`` returns places to dial, or a connected socket; it may block."""

    __slots__ = ("asked", "places", "waiting")

    def __init__(self, name: str, find: Callable[[], Places | socket.socket], places: Places | None = None) -> None:
        super().__init__(name, find)
        #: where to dial, if that is known without asking anybody
        self.places = places
        #: a thread asks, or is about to
        self.asked = False
        #: who gets the answer; None: nobody any more.  In the loop's thread
        self.waiting: Attempt | None = None


def resolver_for(host: str, port: int) -> Callable[[], Places]:
    """A function that asks the system for the addresses of a name; raises socket.gaierror."""
    return lambda: _resolve(host, port, 0)


def resolve_numeric(host: str, port: int) -> Places | None:
    """The place of an address that needs no asking; None for a name."""
    try:
        return _resolve(host, port, socket.AI_NUMERICHOST)
    except OSError:
        return None


def _resolve(host: str, port: int, flags: int) -> Places:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    except UnicodeError as error:  # a label that is too long, or empty
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known: no host can be called so") from error
    return list(dict.fromkeys((family, kind, protocol, address) for family, kind, protocol, _, address in found))


def prepare(sock: socket.socket) -> None:
    """Make a connected socket ready for the loop; raises OSError if it is none any more."""
    sock.setblocking(False)
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class Resolver:
    """A few daemon threads that run what may block."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._threads = 0
        self._idle = 0
        self._lock = threading.Lock()

    def submit(self, do: Callable[[], object]) -> None:
        """Run this in one of the threads; raises RuntimeError if the system has no more of them."""
        with self._lock:
            if self._idle:
                self._idle -= 1
            elif self._threads < _RESOLVERS:
                threading.Thread(target=self._run, name="networkio resolver", daemon=True).start()
                self._threads += 1
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
    """One dial of an address; begins and ends in the loop's thread, where it calls ``done`` once."""

    def __init__(
        self,
        loop: Loop,
        resolver: Resolver,
        address: Address,
        done: Callable[[socket.socket | None, BaseException | None], object],
    ) -> None:
        self._loop = loop
        self._resolver = resolver
        self._address = address
        self._places: deque[Place] = deque()
        self._done: Callable[[socket.socket | None, BaseException | None], object] | None = done
        self._error: OSError = OSError(errno.EADDRNOTAVAIL, "the name has no address")
        self._trying: set[socket.socket] = set()

    def begin(self) -> None:
        """Look for places, and try them."""
        address = self._address
        if address.places is not None:
            self.answered(address.places)
            return
        address.waiting = self
        if not address.asked:
            address.asked = True
            try:
                self._resolver.submit(partial(_ask, address, self._loop))
            except RuntimeError as error:
                _answer(address, None, error)

    def abandon(self) -> None:
        """Give it up, if it has not ended yet; then ``done`` hears of it too."""
        if self._address.waiting is self:
            self._address.waiting = None
        self._finish(None, self._error)

    def answered(self, found: Places | socket.socket | None, error: BaseException | None = None) -> None:
        """The address was asked, and this is what it said; the attempt may be over by then."""
        if isinstance(found, list):
            self._places.extend(found)
            self._next()
        else:
            self._finish(found, error)

    def _next(self) -> None:
        """Try the next place; without one, and with nothing under way, it has failed."""
        while self._done is not None and self._places:
            family, kind, protocol, address = self._places.popleft()
            try:
                sock = socket.socket(family, kind, protocol)
            except OSError as error:  # no descriptors left, or a family that this machine lacks
                self._error = error
                continue
            if self._begin(sock, address):
                self._trying.add(sock)
                self._loop.register(sock, WRITE, partial(self._answered, sock))
                self._loop.later(_STAGGER, self._next)
                return
            sock.close()
        if not self._trying:
            self._finish(None, self._error)

    def _begin(self, sock: socket.socket, address: Any) -> bool:
        """Begin to connect; False if that failed at once."""
        sock.setblocking(False)
        try:
            code = sock.connect_ex(address)
        except (OSError, ValueError) as error:  # no address at all: a path that is too long, a null byte
            self._error = error if isinstance(error, OSError) else OSError(errno.EINVAL, str(error))
            return False
        under_way = [errno.EINPROGRESS]
        if sock.family in (socket.AF_INET, socket.AF_INET6):  # Windows says so; of a UNIX socket, it is a full queue
            under_way.append(errno.EWOULDBLOCK)
        if code and code not in under_way:
            self._error = _error(code)
            return False
        return True

    def _answered(self, sock: socket.socket, events: int) -> None:
        if sock not in self._trying:  # another one was faster, in this very round
            return
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not code:
            self._trying.discard(sock)
            self._loop.forget(sock)
            self._finish(sock, None)
            return
        self._error = _error(code)
        self._trying.discard(sock)
        self._loop.drop(sock)
        self._next()

    def _finish(self, sock: socket.socket | None, error: BaseException | None) -> None:
        done, self._done = self._done, None
        if done is None:
            if sock is not None:  # found too late
                sock.close()
            return
        for other in self._trying:
            self._loop.drop(other)
        self._trying.clear()
        done(sock, error)


def _ask(address: Address, loop: Loop) -> None:
    """In a resolver's thread: ask for places, or for a socket."""
    found: Places | socket.socket | None = None
    error: BaseException | None = None
    try:
        found = address.open()
        if not isinstance(found, (list, socket.socket)):
            error, found = TypeError(f"{address} opened to {type(found).__name__} in place of a connected socket"), None
    except BaseException as failed:  # a user's open_stream may raise anything; it is tried again like any other
        error = failed
    loop.call(partial(_answer, address, found, error))
    if loop.ended:
        _answer(address, found, error)


def _answer(address: Address, found: Places | socket.socket | None, error: BaseException | None) -> None:
    """In the loop's thread, or after its end: give the answer to whoever waits for it."""
    if not address.asked:  # both of the above came to this
        return
    address.asked = False
    attempt, address.waiting = address.waiting, None
    if attempt is not None:
        attempt.answered(found, error)
    elif isinstance(found, socket.socket):
        found.close()


def _error(code: int) -> OSError:
    return OSError(code, os.strerror(code))
