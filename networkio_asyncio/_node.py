"""The node: one identity, its listeners, its dials, its peers, and the pump between the core and the streams."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from math import inf
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar

import anyio
from anyio.abc import ByteStream, SocketAttribute, SocketListener, TaskGroup

from networkio_proto import (
    ConfigurationError,
    Connection,
    Dial,
    Event,
    Ledger,
    Log,
    NodeClosed,
    Session,
    WrongThread,
)
from networkio_proto.nodes import NodeHandle, address_error, in_use
from networkio_proto.operations import Operation, Steps

from ._link import Link
from ._peer import Message, Peer, Receipt

__all__ = ["Handler", "Listener", "Node"]

logger = logging.getLogger("networkio.asyncio")

Handler: TypeAlias = Callable[[Message], Awaitable[None]]
OpenStream: TypeAlias = Callable[[], Awaitable[ByteStream]]
T = TypeVar("T")

#: awaits that need not wait let others run once in so many calls
_BREATH = 256

#: out of descriptors or memory, most likely: accepting pauses for so long (seconds), and does not spin
_ACCEPT_PAUSE = 0.1


class Address:
    """Where a target's byte stream comes from; hashable by identity, printable for messages."""

    __slots__ = ("_name", "open")

    def __init__(self, name: str, open_stream: OpenStream) -> None:
        self._name = name
        self.open = open_stream

    def __str__(self) -> str:
        return self._name


class Listener:
    """Addresses that a node accepts connections on."""

    def __init__(self, listeners: list[SocketListener]) -> None:
        self._listeners = listeners

    @property
    def addresses(self) -> list[Any]:
        """The local addresses: ``(host, port)`` pairs or UNIX paths."""
        return [listener.extra(SocketAttribute.local_address) for listener in self._listeners]

    @property
    def port(self) -> int:
        """The (first) TCP port, useful after listening on port 0."""
        return int(self._listeners[0].extra(SocketAttribute.local_port))

    async def aclose(self) -> None:
        """Accept no more; what was accepted stays."""
        for listener in self._listeners:
            await listener.aclose()


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
    Leaving the block waits up to ``config.drain_timeout`` until everything is read.

    All methods belong to the event loop's thread (else WrongThread).
    """

    def prepare(self) -> None:
        """Set up what is this adapter's own; nothing is open yet."""
        self._served: Callable[[Peer], None] | None = None
        self._calls = 0
        self._inside = 0
        self._pumping = False
        self._tick_at = inf
        self._alarm: anyio.CancelScope | None = None
        self._thread = 0
        #: what cancels each dial that is under way
        self._dials: dict[Dial, anyio.CancelScope] = {}
        self._clock: Callable[[], float] = anyio.current_time
        self._tasks: TaskGroup

    # -- life ---------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self.begin()
        self._thread = threading.get_ident()
        asyncio = sys.modules.get("asyncio")
        if asyncio is not None and asyncio._get_running_loop() is not None:
            self._clock = asyncio.get_running_loop().time  # the same clock as anyio's, without the detour
        self._tasks = await anyio.create_task_group().__aenter__()
        self._tasks.start_soon(self._tick)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.aclose(self.config.drain_timeout if kind is None else 0)
        finally:
            self._tasks.cancel_scope.cancel()
            await self._tasks.__aexit__(None, None, None)

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
        self.check_thread()
        self._inside += 1
        self.time = now = self._clock()
        if self._given_back:
            self.take_back()
        return now

    def check_thread(self) -> None:
        """Raise WrongThread, or NodeClosed where there is none yet."""
        if threading.get_ident() != self._thread:
            if not self._thread:
                raise NodeClosed(f"node {self.id} is not open: use it inside of `async with Node(...) as node:`")
            raise WrongThread(f"node {self.id} belongs to another thread's event loop; call it from there")

    def check_open(self) -> None:
        """Raise NodeClosed before the beginning and after the end, and WrongThread."""
        super().check_open()
        self.check_thread()

    def leave(self) -> None:
        """After it: carry out what the core wants done."""
        if self.endpoint.effects or self.endpoint.timers.sooner:
            self._pump()
        self._inside -= 1

    def nudge(self) -> None:
        """Something waits for the next ``enter``."""
        if not self._inside and threading.get_ident() == self._thread and not self.closed:
            with self.inside:
                pass

    def token(self) -> anyio.Event:
        """Something to wait for."""
        return anyio.Event()

    def make_peer(self, session: Session) -> Peer:
        """A peer of this loop."""
        return Peer(self, session)

    async def run(self, operation: Operation[T], timeout: float | None = None) -> T:
        """Run one of the core's operations: a step inside, a wait outside, until it returns."""
        steps: Steps[T] = Steps(operation, self.inside)
        deadline = inf if timeout is None else self.now() + timeout
        try:
            while (event := steps.next()) is not None:
                if timeout is None:
                    await event.wait()
                    continue
                with anyio.CancelScope(deadline=deadline) as scope:
                    await event.wait()
                if scope.cancelled_caught:
                    steps.time_is_up(timeout)
        except BaseException:
            steps.close()
            raise
        return steps.result

    async def breathe(self) -> None:
        """Let others run once in a while, even if the caller never has to wait."""
        self._calls += 1
        if not self._calls % _BREATH:
            await anyio.lowlevel.checkpoint()

    # -- listening and connecting -------------------------------------------------------------------------------

    async def listen(self, host: str, port: int) -> Listener:
        """Accept connections on all addresses of ``host``; port 0 takes a free one (``listener.port``).

        Raises AddressError (in use, not permitted, not resolvable), ConfigurationError (an unprotected address off
        loopback), NodeClosed.
        """
        self.check_open()
        self.check_address(host, port, least=0)
        try:
            multi = await anyio.create_tcp_listener(local_host=host, local_port=port, backlog=4096)
        except OSError as error:
            raise address_error(f"{host} port {port}", error) from error
        return await self._accept_on([listener for listener in multi.listeners])  # noqa: C416 (typed anew)

    async def listen_unix(self, path: str) -> Listener:
        """Accept connections on a UNIX socket; one that a dead process left behind is taken over.

        Raises AddressError, NodeClosed.
        """
        self.check_open()
        if await _answers(path):
            raise in_use(path)
        try:
            listener = await anyio.create_unix_listener(path, backlog=4096)
        except OSError as error:
            raise address_error(path, error) from error
        return await self._accept_on([listener])

    async def _accept_on(self, listeners: list[Any]) -> Listener:
        made = Listener(listeners)
        if self.endpoint.closed:
            await made.aclose()
            raise NodeClosed(f"node {self.id} is closed: it was while this listener was made")
        self._listeners.append(made)
        for listener in listeners:
            self._tasks.start_soon(self._accept, listener)
        return made

    async def _accept(self, listener: SocketListener) -> None:
        failing = False
        while True:
            try:
                stream = await listener.accept()
            except anyio.ClosedResourceError:
                return
            except OSError as error:
                if not failing:  # once, until it works again
                    logger.warning("accepting a connection failed: %s", error)
                failing = True
                await anyio.sleep(_ACCEPT_PAUSE)
                continue
            failing = False
            if self.endpoint.closed:  # it came too late
                await anyio.aclose_forcefully(stream)
            else:
                self.serve_stream(stream, source=_source(stream))

    async def connect(self, host: str, port: int, peer_id: str | None = None) -> Peer:
        """Keep a connection to ``peer_id`` at this address, from now until ``disconnect``, ``end`` or the node's end.

        With ``peer_id`` it returns at once: what is sent waits until the connection stands.  Without, it waits until
        somebody has answered there, whoever it is; then it raises the ConnectionFailure that only a human can mend
        (wrong key, version, itself, a host name that does not resolve).  Cancelled, it stops trying.
        """
        self.check_address(host, port, least=1)
        return await self.connect_stream(lambda: anyio.connect_tcp(host, port), peer_id, name=f"{host}:{port}")

    async def connect_unix(self, path: str, peer_id: str | None = None) -> Peer:
        """As :meth:`connect`, over a UNIX socket."""
        return await self.connect_stream(lambda: anyio.connect_unix(path), peer_id, name=path)

    async def connect_stream(self, open_stream: OpenStream, peer_id: str | None = None, *, name: str = "") -> Peer:
        """As :meth:`connect`, over byte streams that ``open_stream`` makes: called for every dial."""
        return await self.run(self.connecting(Address(name or "a stream", open_stream), peer_id))

    def dial(self, dial: Dial) -> None:
        """The core wants a stream."""
        self._dials[dial] = anyio.CancelScope()
        self._tasks.start_soon(self._dial, dial, self._dials[dial])

    def abandon(self, dial: Dial) -> None:
        """The core no longer wants it."""
        if dial in self._dials:
            self._dials[dial].cancel()

    async def _dial(self, dial: Dial, scope: anyio.CancelScope) -> None:
        stream: ByteStream | None = None
        error: BaseException | None = None
        with scope:
            try:
                stream = await dial.target.key.open()
            except (OSError, anyio.BrokenResourceError) as failed:
                error = _cause(failed)
            except Exception as failed:  # a user's open_stream may raise anything; it is tried again like any other
                logger.debug("dialling %s failed", dial.target.key, exc_info=True)  # the core's line says it once
                error = failed
        del self._dials[dial]
        self.dialled(dial, stream, error)

    def make_link(self, connection: Connection, stream: ByteStream) -> Link:
        """A task that carries bytes between the two."""
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

    async def serve(self, handler: Handler, *, max_attempts: int | None = None) -> None:
        """Call ``handler(message)`` for every message of every peer: in order and one at a time for each peer.

        A message is acknowledged when its handler returns.  When it raises, the message is released and comes again
        after a pause; at its ``max_attempts``-th failure it is rejected instead.  Runs until cancelled, or until the
        node is closed.
        """
        self.check_open()
        if self._served is not None:
            raise ConfigurationError(f"node {self.id} is served already; one handler serves all peers")
        async with anyio.create_task_group() as tasks:

            def begin(peer: Peer) -> None:
                tasks.start_soon(peer.serve, handler, max_attempts)

            self._served = begin
            try:
                for peer in self.peers:
                    begin(peer)
                await self.run(self.ending())
            finally:
                self._served = None
            tasks.cancel_scope.cancel()

    def met(self, peer: Peer) -> None:
        """A peer is new: its messages are served too, by a task of its own."""
        if self._served is not None:
            self._served(peer)

    def report(self, message: Message, error: Exception) -> None:
        """A handler failed."""
        logger.error("the handler failed on message %d of %s", message.sequence, message.peer.id, exc_info=error)

    def log(self, line: Log) -> None:
        """Write a line."""
        logger.log(line.level, line.text, *line.arguments)

    def call(self, callback: Callable[[], object]) -> None:
        """Run what ``on_notice`` was given; its errors are its own."""
        try:
            callback()
        except Exception:
            logger.exception("what on_notice was given failed")

    # -- the pump -----------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Carry out what the core wants done."""
        if self._pumping:  # an effect led to a command: the loop below sees to its effects
            return
        self._pumping = True
        try:
            self.carry_out()
        finally:
            self._pumping = False
        due = self.endpoint.get_timer()
        if due is not None and due < self._tick_at and self._alarm is not None:
            self._tick_at = self._alarm.deadline = due

    async def _tick(self) -> None:
        """Serve the core's timers; never write."""
        while True:
            due = self.endpoint.get_timer()
            self._tick_at = inf if due is None else due
            with anyio.CancelScope(deadline=self._tick_at) as self._alarm:
                await anyio.sleep_forever()  # the pump moves the deadline when something earlier comes up
            self.tick()


def _cause(error: BaseException) -> BaseException:
    """The operating system's word on it: anyio wraps the failures of several addresses."""
    cause = error.__cause__
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return error if cause is None else cause


async def _answers(path: str) -> bool:
    """Does a process listen on the UNIX socket?  One that a dead process left behind is taken over."""
    try:
        await (await anyio.connect_unix(path)).aclose()
    except OSError:
        return False
    return True


def _source(stream: ByteStream) -> str:
    """The address of whoever dialled, without its port."""
    address = stream.extra(SocketAttribute.remote_address, "")
    return str(address[0]) if isinstance(address, tuple) else str(address)
