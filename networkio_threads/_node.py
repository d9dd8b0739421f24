"""The node for threads: one identity, its lock, its loop, and the pump between the core and the sockets."""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from time import monotonic
from typing import Any, TypeAlias

from networkio_journal import SQLiteJournal
from networkio_proto import Dial, ForkedProcess, Log, NodeClosed, Session, WrongThread
from networkio_proto.blocking import BlockingNode
from networkio_proto.journal import RestoredRecord
from networkio_proto.links import Carried, ListenerHandle
from networkio_proto.nodes import in_use
from networkio_proto.operations import Operation, Steps, T
from networkio_proto.turns import Turns

from ._dial import Address, Attempt, Resolver, prepare, resolve_numeric, resolver_for
from ._link import Link
from ._loop import READ, Loop
from ._peer import Message, Peer, Receipt
from ._wait import INTERRUPTS, Token, watch_for_fork

logger = logging.getLogger("networkio.threads")

Handler: TypeAlias = Callable[[Message], object]
OpenSocket: TypeAlias = Callable[[], socket.socket]

#: so many connections are accepted before something else has its turn
_ACCEPT_BATCH = 64

_BACKLOG = 4096


class Listener(ListenerHandle[socket.socket]):
    """Addresses that a node accepts connections on."""

    def __init__(self, node: Node, sockets: list[socket.socket]) -> None:
        super().__init__(node, sockets)
        #: the local addresses: ``(host, port)`` pairs or UNIX paths
        self.addresses: list[Any] = [sock.getsockname() for sock in sockets]
        for sock in sockets:
            node.loop.call(partial(self._listen, sock))

    @property
    def port(self) -> int:
        """The (first) TCP port, useful after listening on port 0."""
        return int(self.addresses[0][1])

    def close(self) -> None:
        """Accept no more; what was accepted stays.  Afterwards the addresses are free."""
        for sock in self._sockets:
            self._node.loop.call(partial(self._node.loop.drop, sock))
        self._node.loop.settle()

    def abandon(self) -> None:
        """In a forked child: it is the parent's."""
        for sock in self._sockets:
            sock.close()

    def _listen(self, sock: socket.socket) -> None:
        if sock.fileno() >= 0:
            self._node.loop.register(sock, READ, lambda events: self._accept(sock))

    def _accept(self, sock: socket.socket) -> None:
        for _ in range(_ACCEPT_BATCH):
            try:
                stream, address = sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._node.loop.forget(sock)
                self._node.loop.later(self.failed(error), lambda: self._listen(sock))
                return
            try:
                self.accepted(stream, str(address[0]) if isinstance(address, tuple) else "")
            except (NodeClosed, OSError):  # it came too late, or went too early
                stream.close()


class Node(BlockingNode[Peer]):
    """One identity on the network.

    ::

        with Node("client-123") as node:
            peer = node.connect("127.0.0.1", 8080, "server-001")
            receipt = peer.send({"hello": 1})
            receipt.read(timeout=10)

    ``peer_id``: this node's name, unique among those it talks to.  ``config``: every limit and time.
    ``auth``: how identities are proved; ``"insecure"`` spells out that nobody does, which only loopback gets unsaid.
    ``codec``: objects to bytes.  ``instrumentation`` is told of every message; it must not call the node.
    ``journal``: the file (or SQLiteJournal) that keeps what has to outlive the process; opening it raises JournalError.
    ``durable_inbox``: what comes is in it before it is acknowledged as received, and is handed over after a restart.
    ``tls``: encrypts all its streams (``networkio_tls.TLS``); with certificates of both sides these prove identities.
    ``authorize(identity)`` is asked about every peer that has proved who it is: it may return a Refusal, must not call
    the node, and refuses if it raises.
    ``quotas``: for single peers, by their ids, what they may have (Quota) instead of what ``config`` grants everybody.
    Leaving the block waits up to ``config.drain_timeout`` until everything is read.

    Every method may be called from any thread.  What waits takes ``timeout`` (seconds) and raises TimeoutError.
    """

    opened_by = "with"
    store_in = SQLiteJournal
    receipts = Receipt

    def prepare(self) -> None:
        """Set up what is this adapter's own; nothing is open yet."""
        self._lock = threading.Lock()
        #: the threads that have the lock, are about to take it, or have just given it back
        self._entered: set[int] = set()
        self.looking = self.inside
        self._resolver = Resolver()
        #: the dials that are under way
        self._attempts: dict[Dial, Attempt] = {}
        self._due = 0.0
        #: links to be written by whoever is inside, and what else it has to do once it has left
        self.writers: list[Link] = []
        self._calls: list[Callable[[], object]] = []
        self._forked = False
        self.post = self._post
        #: the node's own thread; None before the beginning
        self._loop: Loop | None = None

    # -- life ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to drive it, in a thread of its own."""
        records = [] if self.keeper is None else self.keeper.open()
        try:
            self._begin(records)
        except BaseException:
            if self.keeper is not None:
                self.keeper.close()
            raise

    def _begin(self, records: list[RestoredRecord]) -> None:
        self._loop = loop = Loop(self)
        try:
            loop.thread.start()
            self.restore(records)
        except RuntimeError:  # the system has no more threads
            self._loop = None
            loop.abandon()
            raise
        except BaseException:  # Ctrl-C, and the thread runs, or will: it cleans up by itself
            loop.stop()
            raise
        watch_for_fork(self)
        INTERRUPTS.opened(loop)

    @property
    def alive(self) -> bool:
        """Does it belong to this process?"""
        return not self._forked

    @property
    def loop(self) -> Loop:
        """The node's own thread; raises NodeClosed where there is none."""
        if self._loop is None:
            self.check_open()
        assert self._loop is not None
        return self._loop

    def stop(self) -> None:
        """The end of the core, of the connections, and of the thread; whoever is not the first waits for that."""
        first = False
        with INTERRUPTS:
            try:
                with self.inside:
                    first = self.gone()
            finally:  # whatever carrying out came to
                if first:
                    self._end()
            if not first:
                self.loop.join()  # of whoever was first

    def _end(self) -> None:
        try:
            for listener in self._listeners:
                listener.close()
            self.run(self.emptying(), self.config.linger + 0.5)
        finally:
            for link in list(self._links.values()):
                self.loop.call(link.drop)
            self._resolver.stop()
            if self.keeper is not None:
                self.keeper.close()
            self.loop.stop()
            self.loop.join()
            INTERRUPTS.closed(self.loop)

    def forked(self) -> None:
        """In a forked child: this node is the parent's.  Its sockets are closed here, and calls are refused."""
        self._forked = True
        for listener in self._listeners:
            listener.abandon()
        for link in self._links.values():
            link.abandon()
        if self._loop is not None:
            self._loop.abandon()

    # -- the way into the core, and of waiting ------------------------------------------------------------------

    def enter(self) -> float:
        """Before every touch of the core: its lock.  Returns the time.  Raises NodeClosed, ForkedProcess, WrongThread.

        A thread that is inside already cannot enter again, be it in a codec, an iterable or a finalizer.
        """
        if self._forked:
            raise ForkedProcess(f"node {self.id} belongs to the parent process; make a node of its own in the child")
        if self._loop is None:
            self.check_open()
        thread = threading.get_ident()
        if thread in self._entered:
            raise WrongThread(
                f"node {self.id} is called in the middle of another call of the same thread: by a codec, an "
                f"authenticator, a finalizer or a signal handler; let them only note what is to be done"
            )
        INTERRUPTS.enter()
        self._entered.add(thread)  # not behind the lock: a signal handler may run in between, and would wait for ever
        self._lock.acquire()
        return self.arrive(monotonic())

    def leave(self) -> None:
        """After it: carry out what the core wants done; what may take long without the lock."""
        try:
            endpoint = self.endpoint
            writers: list[Link] = []
            calls: list[Callable[[], object]] = []
            try:
                if endpoint.effects:
                    self.carry_out()
                if self.keeper is not None:
                    self.keeper.serve()
                sooner = endpoint.timers.sooner
                writers, self.writers, calls, self._calls = self.writers, writers, self._calls, calls
            finally:
                self._lock.release()
                self._entered.discard(threading.get_ident())
            for link in writers:
                link.flush()
            if sooner and not self.loop.here:
                self.loop.wake()
            for call in calls:
                _call(call)
        finally:
            INTERRUPTS.leave()

    def on_notice(self, callback: Callable[[], object]) -> None:
        """As in :class:`NodeHandle`; the callback comes from any thread, mostly from the node's own."""
        with self.inside:
            super().on_notice(callback)

    def call(self, callback: Callable[[], object]) -> None:
        """Inside: what ``on_notice`` was given is run without the lock."""
        self._calls.append(callback)

    def log(self, line: Log) -> None:
        """A handler of the log may be slow, or look at the node: it is called without the lock."""
        self._calls.append(partial(logger.log, line.level, line.text, *line.arguments, exc_info=line.error))

    def nudge(self) -> None:
        """Something waits for the next ``enter``: the loop's, soon."""
        if self._loop is not None and not self.closed:
            self._loop.wake()

    def token(self) -> Token:
        """Something to wait for."""
        return Token()

    def make_peer(self, session: Session) -> Peer:
        """A peer for threads."""
        return Peer(self, session)

    def run(self, operation: Operation[T], timeout: float | None = None) -> T:
        """Run one of the core's operations: a step with the lock, a wait without, until it returns."""
        deadline = None if timeout is None else monotonic() + timeout
        INTERRUPTS.enter()
        try:
            with Steps(operation, self) as steps:
                while (token := steps.next()) is not None:
                    self.check_waiting()
                    if not INTERRUPTS.wait(token, deadline):
                        steps.time_is_up(timeout)
                return steps.result
        finally:
            INTERRUPTS.leave()

    def _post(self, call: Callable[[], object]) -> None:
        self.loop.call(call)  # not in the journal's thread: whoever is told of it might hold up the disk

    def check_waiting(self) -> None:
        """Raise WrongThread in the node's own thread."""
        if self._loop is not None and self._loop.here:
            raise WrongThread(f"the thread of node {self.id} must not wait; wake a thread of your own")
        if self.keeper is not None and self.keeper.here():
            raise WrongThread(f"the function of a transaction of node {self.id} must not wait; use its send() and db")

    def due(self) -> float:
        """For the loop: when ``tick`` must be called next."""
        with self.inside:
            self._due = super().due()
        return self._due

    def tick(self) -> None:
        """For the loop, each time around: serve the timers.  It never waits, and writes only what a socket takes."""
        if self._due <= monotonic() or self._given_back:
            super().tick()

    # -- listening and connecting -------------------------------------------------------------------------------

    def listen(self, host: str, port: int) -> Listener:
        """Accept connections on all addresses of ``host``; port 0 takes a free one (``listener.port``).

        Raises AddressError (in use, not permitted, not resolvable), ConfigurationError (an unprotected address off
        loopback), NodeClosed.
        """
        with self.listening(host, port), ExitStack() as unless_done:
            sockets: list[socket.socket] = []
            for family, kind, protocol, address in resolver_for(host, port)():
                sock = unless_done.enter_context(socket.socket(family, kind, protocol))
                sockets.append(sock)
                if os.name == "posix":  # elsewhere it would let two processes listen on one port
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind((address[0], sockets[0].getsockname()[1] if not port and len(sockets) > 1 else port,
                           *address[2:]))
                sock.listen(_BACKLOG)
            listener = self._accept_on(sockets)
            unless_done.pop_all()
        return listener

    def listen_unix(self, path: str) -> Listener:
        """Accept connections on a UNIX socket; one that a dead process left behind is taken over.

        Raises AddressError, NodeClosed.
        """
        with self.listening(path), ExitStack() as unless_done:
            _take_over(path)
            sock = unless_done.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            sock.bind(path)
            sock.listen(_BACKLOG)
            listener = self._accept_on([sock])
            unless_done.pop_all()
        return listener

    def _accept_on(self, sockets: list[socket.socket]) -> Listener:
        for sock in sockets:
            sock.setblocking(False)
        with self.inside:
            self.check_open()
            listener = Listener(self, sockets)
            self._listeners.append(listener)
        return listener

    def serve_stream(self, sock: socket.socket, *, source: str = "") -> None:
        """Take a connected socket that somebody else accepted.  ``source`` groups strangers (an address)."""
        prepare(sock)
        super().serve_stream(sock, source=source)

    def connect(self, host: str, port: int, peer_id: str | None = None, timeout: float | None = None) -> Peer:
        """Keep a connection to ``peer_id`` at this address, from now until ``disconnect``, ``end`` or the node's end.

        With ``peer_id`` it returns at once: what is sent waits until the connection stands.  Without, it waits until
        somebody has answered there, whoever it is; then it raises the ConnectionFailure that only a human can mend
        (wrong key, version, itself, a host name that does not resolve), or TimeoutError, and has stopped trying.
        """
        return self._connect(
            Address(self.dialling(host, port), resolver_for(host, port), resolve_numeric(host, port)), peer_id, timeout
        )

    def connect_unix(self, path: str, peer_id: str | None = None, timeout: float | None = None) -> Peer:
        """As :meth:`connect`, over a UNIX socket."""
        places = [(int(socket.AF_UNIX), int(socket.SOCK_STREAM), 0, path)]
        return self._connect(Address(self.dialling(path), lambda: places, places), peer_id, timeout)

    def connect_stream(
        self, open_stream: OpenSocket, peer_id: str | None = None, timeout: float | None = None, *, name: str = ""
    ) -> Peer:
        """As :meth:`connect`, over connected sockets that ``open_stream`` makes: called for every dial, in a thread."""
        return self._connect(Address(name or "a stream", open_stream), peer_id, timeout)

    def _connect(self, address: Address, peer_id: str | None, timeout: float | None) -> Peer:
        return self.run(self.connecting(address, peer_id), timeout)

    # -- dialling, in the loop ----------------------------------------------------------------------------------

    def dial(self, dial: Dial) -> None:
        """Inside: the core wants a stream."""
        attempt = self._attempts[dial] = Attempt(
            self.loop, self._resolver, dial.target.key, partial(self.dialled, dial)
        )
        self.loop.call(attempt.begin)

    def abandon(self, dial: Dial) -> None:
        """Inside: the core no longer wants it."""
        attempt = self._attempts.get(dial)  # one look: the loop takes it out without the lock
        if attempt is not None:
            self.loop.call(attempt.abandon)

    def dialled(self, dial: Dial, sock: socket.socket | None, error: BaseException | None) -> None:
        """In the loop: a dial ended."""
        try:
            if sock is not None:
                prepare(sock)
        except OSError as failed:  # it is closed already, or its peer has gone
            assert sock is not None
            sock.close()
            sock, error = None, failed
        self._attempts.pop(dial, None)
        if self.closed:
            if sock is not None:
                sock.close()
            return
        super().dialled(dial, sock, error)

    def make_link(self, connection: Carried, sock: socket.socket) -> Link:
        """The loop carries bytes between the two."""
        link = Link(self, connection, sock)
        self.loop.call(link.start)
        return link

    # -- notices and handlers -----------------------------------------------------------------------------------

    def send(self, peer_id: str, data: Any, timeout: float | None = None, **options: Any) -> Receipt:
        """Send to the peer of that id, known already or not: ``node.peer(peer_id).send(data)``, with its options."""
        return self.peer(peer_id).send(data, timeout, **options)

    def serve(self, handler: Handler, *, max_attempts: int | None = None, workers: int = 8) -> None:
        """Call ``handler(message)`` for every message of every peer: in order and one at a time for each peer.

        ``workers`` threads call it, for so many peers at a time.  A message is acknowledged when its handler returns.
        When it raises, the message is released and comes again after a pause; at its ``max_attempts``-th failure it is
        rejected instead.  Runs until the node is closed, or until it is interrupted.
        """
        turns = Turns(self, self.turns)
        with INTERRUPTS, self.serving(turns.may_have, turns):
            for number in range(workers):
                name, args = f"{self.id} worker {number}", (turns, handler, max_attempts)
                threading.Thread(target=self._work, args=args, name=name, daemon=True).start()
            self.run(self.ending())

    def _work(self, turns: Turns, handler: Handler, max_attempts: int | None) -> None:
        while (message := self.run(turns.next())) is not None:
            peer: Peer = message.peer
            with peer.handling(message, max_attempts, BaseException) as handling:  # sys.exit() would end this worker
                handler(message)
            over = partial(self._turn_over, peer)
            if handling.pause:
                self.loop.call(partial(self.loop.later, handling.pause, over))
            else:
                over()

    def _turn_over(self, peer: Peer) -> None:
        with self.inside:
            assert self.turns is not None
            self.turns.finished(peer)  # those of now: serving may have been begun anew


def _call(callback: Callable[[], object]) -> None:
    try:
        callback()
    except BaseException:  # it may be anybody's thread
        logger.exception("what on_notice was given failed")


def _take_over(path: str) -> None:
    """Remove the UNIX socket that a dead process left behind; raises AddressError if a process listens there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        code = sock.connect_ex(path)
    if code in (0, errno.EAGAIN, errno.EINPROGRESS):  # somebody does, be it that the queue is full
        raise in_use(path)
    if code == errno.ECONNREFUSED and stat.S_ISSOCK(os.stat(path).st_mode):  # a file is refused as well
        os.unlink(path)
