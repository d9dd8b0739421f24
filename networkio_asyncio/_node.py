"""The node: one identity, its listeners, its dials, its peers, and the pump between the core and the streams."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Future
from functools import partial
from math import inf
from threading import Thread, get_ident
from time import monotonic
from types import TracebackType
from typing import Any, Self, TypeAlias

import anyio
from anyio.abc import ByteStream, SocketAttribute, SocketListener, TaskGroup

from networkio_journal import SQLiteJournal
from networkio_proto import Dial, Event, Ledger, Log, NodeClosed, Session, WrongThread
from networkio_proto.links import Carried, ListenerHandle
from networkio_proto.memory import ReceiveBuffer
from networkio_proto.nodes import Address, NodeHandle, in_use
from networkio_proto.operations import Operation, Steps, T

from . import _direct
from ._direct import Acceptor, DirectLink, DirectToken
from ._link import Link
from ._peer import Message, Peer, Receipt

logger = logging.getLogger("networkio.asyncio")

Handler: TypeAlias = Callable[[Message], Awaitable[None]]
OpenStream: TypeAlias = Callable[[], Awaitable[ByteStream]]

#: awaits that need not wait let others run once in so many calls
_BREATH = 256


class Listener(ListenerHandle[SocketListener]):
    """Addresses that a node accepts connections on."""

    _acceptors: Sequence[Acceptor] = ()

    @property
    def addresses(self) -> list[Any]:
        """The local addresses: ``(host, port)`` pairs or UNIX paths."""
        return [listener.extra(SocketAttribute.local_address) for listener in self._sockets]

    @property
    def port(self) -> int:
        """The (first) TCP port, useful after listening on port 0."""
        return int(self._sockets[0].extra(SocketAttribute.local_port))

    async def aclose(self) -> None:
        """Accept no more; what was accepted stays."""
        for acceptor in self._acceptors:
            acceptor.end()
        self._acceptors = ()
        for listener in self._sockets:
            await listener.aclose()

    def accept_directly(self) -> None:
        """Serve whatever comes, in the event loop's own calls."""
        self._acceptors = [Acceptor(self, self._node, each.extra(SocketAttribute.raw_socket)) for each in self._sockets]

    async def accept_on(self, listener: SocketListener) -> None:
        """Serve whatever comes to one of the addresses, until it is closed."""
        while True:
            try:
                stream = await listener.accept()
            except anyio.ClosedResourceError:
                return
            except OSError as error:
                await anyio.sleep(self.failed(error))
                continue
            try:
                self.accepted(stream, _source(stream))
            except NodeClosed:  # it came too late
                await anyio.aclose_forcefully(stream)


class Node(NodeHandle[Peer]):
    """One identity on the network.

    ::

        async with Node("client-123") as node:
            peer = await node.connect("127.0.0.1", 8080, "server-001")
            receipt = await peer.send({"hello": 1})
            await receipt.read()

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

    All methods belong to the event loop's thread (else WrongThread).
    """

    opened_by = "async with"
    store_in = SQLiteJournal
    receipts = Receipt

    def prepare(self) -> None:
        """Set up what is this adapter's own; nothing is open yet."""
        #: so many calls more return at once, if they can; then others have their turn of the event loop
        self.breath = _BREATH
        self._inside = 0
        self._pumping = False
        self._tick_at = inf
        #: what the node's own task waits for
        self._alarm: anyio.Event | DirectToken | None = None
        self._failure: Exception | None = None
        #: the event loop's; 0 before there is one
        self.thread = 0
        #: dials to be begun, and what cancels each one that is under way
        self._wanted: list[Dial] = []
        self._dials: dict[Dial, anyio.CancelScope] = {}
        self._clock: Callable[[], float] = anyio.current_time
        self._wait: Callable[[Any, float], Awaitable[bool]] = _wait
        self._tasks: TaskGroup
        #: does it use the event loop itself, where it need not go by anyio?
        self._direct = False
        self.loop: asyncio.AbstractEventLoop
        #: where its links read to
        self.chunk = ReceiveBuffer()

    # -- life ---------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self.begin()
        self.thread = get_ident()
        if _direct.usable():
            self._direct = True
            self.loop = asyncio.get_running_loop()
            plain = getattr(self.loop.time, "__func__", None) is asyncio.BaseEventLoop.time
            self._clock = monotonic if plain else self.loop.time  # the same clock as anyio's, without the detours
            self._wait = _direct.wait
        if self.keeper is not None:
            self.post = _poster()
            await self._open_journal()
        self._tasks = await anyio.create_task_group().__aenter__()
        self._tasks.start_soon(self._tick)
        return self

    async def _open_journal(self) -> None:
        assert self.keeper is not None
        try:
            self.restore(await _thoroughly(self.keeper.open))
        except BaseException:
            self.closed = True  # it is of no use any more
            await self._close_journal()
            raise

    async def _close_journal(self) -> None:
        if self.keeper is not None:
            await _thoroughly(self.keeper.close)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.aclose(self.config.drain_timeout if kind is None else 0)
        finally:
            self._tasks.cancel_scope.cancel()
            for link in list(self._links.values()):
                link.drop()
            try:
                await self._tasks.__aexit__(None, None, None)
            finally:
                with anyio.CancelScope(shield=True):
                    await self.run(self.emptying(), 1.0)  # a turn of the event loop, unless the core has failed
                    await self._close_journal()
                self._raise_failure()

    async def aclose(self, timeout: float | None = None) -> Ledger:
        """Leave: wait until everything is read, at most ``timeout`` (default ``config.drain_timeout``); the ledger.

        Cancelled, the connections are closed at once.  Idempotent.
        """
        try:
            await self.drain(self.drain_time(timeout))
        finally:
            with self.inside:
                self.gone()
            for listener in self._listeners:
                with anyio.CancelScope(shield=True):
                    await listener.aclose()
            await self.run(self.emptying(), self.config.linger + 0.5)
            await self._close_journal()
        return self.ledger

    async def drain(self, timeout: float | None = None) -> Ledger:
        """Wait until every peer has read everything accepted so far, or for ``timeout`` seconds; the ledger.

        Meanwhile no peer takes new messages.  Cancelled, sending goes on in the background.
        """
        return await self.run(self._draining(), timeout)

    # -- the way into the core, and of waiting ------------------------------------------------------------------

    def now(self) -> float:
        """The event loop's clock (seconds)."""
        return self._clock()

    def enter(self) -> float:
        """Before every touch of the core: the right thread?  Returns the time."""
        if get_ident() != self.thread:
            self._refuse()
        self._inside += 1
        self.time = now = self._clock()
        self.turn += 1
        if self._given_back:  # as in ``arrive``; this is the way of every message
            self.take_back()
        return now

    def handy(self) -> bool:
        """On the loop's thread, unless it is time to let others run."""
        if self.breath == 1 or get_ident() != self.thread:
            return False  # and it is ``breathless``
        self.breath -= 1
        return True

    def _refuse(self) -> None:
        if not self.thread:
            self.check_open()
        raise WrongThread(f"node {self.id} belongs to another thread's event loop; call it from there")

    def leave(self) -> None:
        """After it: carry out what the core wants done."""
        if (self.endpoint.effects or self.endpoint.timers.sooner) and not self._pumping:
            self._pump()  # else an effect led to a command, and the pump sees to its effects
        if self.keeper is not None:
            self.keeper.serve()
        self._inside -= 1

    def nudge(self) -> None:
        """Something waits for the next ``enter``."""
        if not self._inside and get_ident() == self.thread and not self.closed:
            self.visit()

    def token(self) -> anyio.Event | DirectToken:
        """Something to wait for."""
        return DirectToken(loop=self.loop) if self._direct else anyio.Event()

    def make_peer(self, session: Session) -> Peer:
        """A peer of this loop."""
        return Peer(self, session)

    async def run(self, operation: Operation[T], timeout: float | None = None) -> T:
        """Run one of the core's operations: a step inside, a wait outside, until it returns."""
        deadline = inf if timeout is None else self.now() + timeout
        with Steps(operation, self) as steps:
            while (token := steps.next()) is not None:
                if not await self._wait(token, deadline):
                    steps.time_is_up(timeout)
            return steps.result

    def fail(self, error: Exception) -> None:
        """From what the event loop called: end the node by this, as if one of its tasks had raised it."""
        self._failure = error
        self._rouse()

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def breathless(self) -> bool:
        """Is it time to let others run, even if the caller need not wait?"""
        self.breath = self.breath - 1 or _BREATH
        return self.breath == _BREATH

    async def breathe(self) -> None:
        """Let them run if it is; may be cancelled."""
        if self.breathless():
            await anyio.lowlevel.checkpoint()

    # -- listening and connecting -------------------------------------------------------------------------------

    async def listen(self, host: str, port: int) -> Listener:
        """Accept connections on all addresses of ``host``; port 0 takes a free one (``listener.port``).

        Raises AddressError (in use, not permitted, not resolvable), ConfigurationError (an unprotected address off
        loopback), NodeClosed.
        """
        with self.listening(host, port):
            multi = await anyio.create_tcp_listener(local_host=host, local_port=port, backlog=4096)
        return await self._accept_on([listener for listener in multi.listeners])  # noqa: C416 (typed anew)

    async def listen_unix(self, path: str) -> Listener:
        """Accept connections on a UNIX socket; one that a dead process left behind is taken over.

        Raises AddressError, NodeClosed.
        """
        with self.listening(path):
            await _check_unused(path)
            listener = await anyio.create_unix_listener(path, backlog=4096)
        return await self._accept_on([listener])

    async def _accept_on(self, listeners: list[Any]) -> Listener:
        made = Listener(self, listeners)
        if self.endpoint.closed:
            await made.aclose()
            raise NodeClosed(f"node {self.id} is closed: it was while this listener was made")
        self._listeners.append(made)
        if self._direct:
            made.accept_directly()
        else:
            for listener in listeners:
                self._tasks.start_soon(made.accept_on, listener)
        return made

    async def connect(self, host: str, port: int, peer_id: str | None = None) -> Peer:
        """Keep a connection to ``peer_id`` at this address, from now until ``disconnect``, ``end`` or the node's end.

        With ``peer_id`` it returns at once: what is sent waits until the connection stands.  Without, it waits until
        somebody has answered there, whoever it is; then it raises the ConnectionFailure that only a human can mend
        (wrong key, version, itself, a host name that does not resolve).  Cancelled, it stops trying.
        """
        dial = _direct.connect_tcp if self._direct else anyio.connect_tcp
        return await self._connect(partial(dial, host, port), peer_id, self.dialling(host, port))

    async def connect_unix(self, path: str, peer_id: str | None = None) -> Peer:
        """As :meth:`connect`, over a UNIX socket."""
        dial = _direct.connect_unix if self._direct else anyio.connect_unix
        return await self._connect(partial(dial, path), peer_id, self.dialling(path))

    async def connect_stream(self, open_stream: OpenStream, peer_id: str | None = None, *, name: str = "") -> Peer:
        """As :meth:`connect`, over byte streams that ``open_stream`` makes: called for every dial."""
        return await self._connect(open_stream, peer_id, name or "a stream")

    async def _connect(self, open_stream: Callable[[], Awaitable[Any]], peer_id: str | None, name: str) -> Peer:
        return await self.run(self.connecting(Address(name, open_stream), peer_id))

    def dial(self, dial: Dial) -> None:
        """The core wants a stream."""
        self._wanted.append(dial)
        self._rouse()

    def abandon(self, dial: Dial) -> None:
        """The core no longer wants it."""
        if dial in self._dials:
            self._dials[dial].cancel()
        elif dial in self._wanted:
            self._wanted.remove(dial)

    async def _dial(self, dial: Dial, scope: anyio.CancelScope) -> None:
        stream: ByteStream | socket.socket | None = None
        error: BaseException | None = None
        try:
            with scope:
                stream = await dial.target.key.open()
        except (OSError, anyio.BrokenResourceError) as failed:
            error = _cause(failed)
        except Exception as failed:  # a user's open_stream may raise anything; it is tried again like any other
            logger.debug("dialling %s failed", dial.target.key, exc_info=True)  # the core's line says it once
            error = failed
        except anyio.get_cancelled_exc_class():
            if anyio.current_effective_deadline() == -inf:  # the node ends
                raise
            error = OSError("it was cancelled while it was opened, by something else than the node")
        finally:
            del self._dials[dial]
        self.dialled(dial, stream, error)

    def make_link(self, connection: Carried, stream: ByteStream | socket.socket) -> Link | DirectLink:
        """What carries bytes between the two: a task, or for a socket the event loop."""
        if isinstance(stream, socket.socket):
            return DirectLink(self, connection, stream)
        link = Link(self, connection, stream)
        self._tasks.start_soon(link.run)
        return link

    # -- peers and notices --------------------------------------------------------------------------------------

    async def send(self, peer_id: str, data: Any, **options: Any) -> Receipt:
        """Send to the peer of that id, known already or not: ``node.peer(peer_id).send(data)``, with its options."""
        return await self.peer(peer_id).send(data, **options)

    async def next_notice(self, timeout: float | None = None) -> Event | None:
        """The next notice, or None after ``timeout`` seconds.  Each notice goes to one taker.  Raises NodeClosed."""
        await self.breathe()
        return await self.run(self._noticing(), timeout)

    async def notifications(self) -> AsyncIterator[Event]:
        """The notices of all peers, one light queue; ends when the node is closed."""
        while (notice := await self.run(self._noticing_to_the_end())) is not None:
            yield notice
            await self.breathe()

    async def commit(self, messages: Iterable[Message], function: Callable[[Any], T]) -> T:
        """Call ``function(db)`` and acknowledge these messages, which are held, in one transaction; its value.

        ``db`` is the journal's ``sqlite3.Connection``, and the function (a plain one) is called in the journal's
        thread: it writes the application's own tables and waits for nothing.  When this returns, all of it is on disk.

        Whatever it raises comes out here; then nothing was written and the messages are still held.  So it is with
        JournalFull and JournalFailed, MessageNotHeld, UsageError (the function ended the transaction, or touched what
        is networkio's), ConfigurationError (there is no journal), NodeClosed.  Cancelled before it has begun, nothing
        was done; later, it is carried out, or undone and the messages are released.
        """
        return await self.run(self._committing(messages, function))

    async def transaction(self, function: Callable[[Any, Any], T], *, messages: Iterable[Message] = ()) -> T:
        """Call ``function(db, send)``: what it writes and what it sends is on disk together, or nothing is; its value.

        ``send(peer, data, *, headers=None, raw=False)`` takes a peer or its id and returns the receipt, which is good
        when this has returned.  ``messages``, which are held, are acknowledged in the same transaction.  Where an
        outbox is full the function is undone, and called again when there is room.  Else as :meth:`commit`; raises
        what ``Peer.send`` raises, too.
        """
        return await self.run(self._transacting(function, messages))

    async def serve(self, handler: Handler, *, max_attempts: int | None = None) -> None:
        """Call ``handler(message)`` for every message of every peer: in order and one at a time for each peer.

        A message is acknowledged when its handler returns.  When it raises, the message is released and comes again
        after a pause; at its ``max_attempts``-th failure it is rejected instead.  Runs until cancelled, or until the
        node is closed.
        """
        with self.inside:
            self.check_unserved()  # out here: the task group would wrap what it raises
        unserved: list[Peer] = []

        def serve(peer: Peer) -> None:
            unserved.append(peer)
            self.wake_watchers()

        async with anyio.create_task_group() as tasks:
            with self.serving(serve):
                while not self.closed:
                    while unserved:
                        tasks.start_soon(unserved.pop(0).serve, handler, max_attempts)
                    await self.run(self.changing())
            tasks.cancel_scope.cancel()

    def log(self, line: Log) -> None:
        """Write a line."""
        logger.log(line.level, line.text, *line.arguments, exc_info=line.error)

    # -- the pump -----------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Carry out what the core wants done."""
        self._pumping = True
        try:
            self.carry_out()
        finally:
            self._pumping = False
        due = self.endpoint.get_timer()
        if due is not None and due < self._tick_at:
            self._rouse()

    def _rouse(self) -> None:
        """Let the node's own task look what there is."""
        self._tick_at = -inf  # once is enough
        if self._alarm is not None:
            self._alarm.set()

    async def _tick(self) -> None:
        """The node's own task: serve the core's timers, and begin its dials; never write.

        The core may be called by the event loop itself, where no task can be begun; here it can.
        """
        while True:
            self._raise_failure()
            wanted, self._wanted = self._wanted, []
            for dial in wanted:
                self._dials[dial] = anyio.CancelScope()
                self._tasks.start_soon(self._dial, dial, self._dials[dial])
            self._tick_at = self.due()
            self._alarm = self.token()
            await self._wait(self._alarm, self._tick_at)
            self.tick()


def _poster() -> Callable[[Callable[[], object]], object]:
    """What brings a call from any thread into this event loop."""
    try:
        return asyncio.get_running_loop().call_soon_threadsafe
    except RuntimeError:
        import trio

        return trio.lowlevel.current_trio_token().run_sync_soon


async def _thoroughly(call: Callable[[], T]) -> T:
    """Call it in a thread, and wait for its end; a cancellation waits too, asyncio's own as well as anyio's."""
    cancelled: BaseException | None = None
    outcome: Future[T] = Future()
    over = anyio.Event()
    post = _poster()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:
            outcome.set_exception(error)
        post(over.set)

    Thread(target=run, name="networkio journal", daemon=True).start()
    with anyio.CancelScope(shield=True):
        while not over.is_set():
            try:
                await over.wait()
            except anyio.get_cancelled_exc_class() as error:
                cancelled = error
    if cancelled is not None:
        raise cancelled
    return outcome.result()


async def _wait(token: anyio.Event, deadline: float) -> bool:
    """Wait for it until then (the loop's clock; infinity: for ever); did it come?"""
    if deadline == inf:
        await token.wait()
        return True
    with anyio.CancelScope(deadline=deadline) as scope:
        await token.wait()
    return not scope.cancelled_caught


def _cause(error: BaseException) -> BaseException:
    """The operating system's word on it: anyio wraps the failures of several addresses."""
    cause = error.__cause__
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return error if cause is None else cause


async def _check_unused(path: str) -> None:
    """Raise AddressError if a process listens on the UNIX socket; one that a dead process left behind is taken over."""
    try:
        stream = await anyio.connect_unix(path)
    except OSError:
        return
    await stream.aclose()
    raise in_use(path)


def _source(stream: ByteStream) -> str:
    """The address of whoever dialled, without its port."""
    address = stream.extra(SocketAttribute.remote_address, "")
    return str(address[0]) if isinstance(address, tuple) else str(address)
