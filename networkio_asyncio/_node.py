"""The node: one identity, its listeners, its dials, its peers, and the pump between the core and the streams."""

from __future__ import annotations

import errno
import logging
import socket
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import islice
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

import anyio
from anyio.abc import ByteStream, SocketAttribute, SocketListener, TaskGroup

from networkio_proto import (
    AddressError,
    Authenticator,
    Close,
    Codec,
    Config,
    ConfigurationError,
    Dial,
    EncodeError,
    Endpoint,
    Event,
    Insecure,
    Ledger,
    MsgpackCodec,
    NodeClosed,
    NoMoreMessages,
    RandomSource,
    Session,
    Target,
    TargetState,
    Transmit,
    Wake,
    WrongThread,
)
from networkio_proto.auth import check_exposure
from networkio_proto.errors import DialFailed, printable
from networkio_proto.reconnect import RetryClass, retry_class

from ._link import Link
from ._peer import Message, Peer, Receipt

__all__ = ["Handler", "Listener", "Node"]

logger = logging.getLogger("networkio.asyncio")

Handler: TypeAlias = Callable[[Message], Awaitable[None]]
OpenStream: TypeAlias = Callable[[], Awaitable[ByteStream]]

#: awaits that need not wait let others run once in so many calls
_BREATH = 256

#: out of descriptors or memory, most likely: accepting pauses for so long (seconds), and does not spin
_ACCEPT_PAUSE = 0.1

#: a handler that fails is called again after this, doubling up to the second (seconds)
_HANDLER_PAUSE = (0.05, 5.0)


_IN_USE = "the address is in use by another process; choose another one or stop it"


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


class Node:
    """One identity on the network.

    ::

        async with Node("client-123") as node:
            peer = await node.connect("127.0.0.1", 8080, "server-001")
            receipt = await peer.send({"hello": 1})
            await receipt.read()

    ``peer_id``: this node's name, unique among those it talks to.  ``config``: every limit and time.
    ``auth``: how identities are proved; ``"insecure"`` spells out that nobody does, which only loopback gets unsaid.
    ``codec``: objects to bytes.  Leaving the block waits up to ``config.drain_timeout`` until everything is read.

    All methods belong to the event loop's thread (else WrongThread).
    """

    def __init__(
        self,
        peer_id: str,
        *,
        config: Config | None = None,
        auth: Authenticator | Literal["insecure"] | None = None,
        codec: Codec | None = None,
        random: RandomSource | None = None,
    ) -> None:
        self._auth: Authenticator | None = Insecure() if auth == "insecure" else auth
        self.codec: Codec = MsgpackCodec() if codec is None else codec
        self.endpoint = Endpoint(peer_id, config, auth=self._auth, codec=self.codec.name, random=random)
        self.config = self.endpoint.config
        self.closed = False
        self._peers: dict[str, Peer] = {}
        self._links: dict[Any, Link] = {}
        self._listeners: list[Listener] = []
        self._handler: Callable[[Peer], None] | None = None
        self._watchers: list[anyio.Event] = []
        self._calls = 0
        self._pumping = False
        self._tick_at = float("inf")
        self._alarm: anyio.CancelScope | None = None
        self._thread = 0
        self._clock: Callable[[], float] = anyio.current_time
        self._tasks: TaskGroup

    def __repr__(self) -> str:
        return f"<Node {self.id} {'closed' if self.closed else f'{len(self._links)} connections'}>"

    @property
    def id(self) -> str:
        """This node's peer id."""
        return self.endpoint.peer_id

    # -- life ---------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._thread or self.closed:
            raise NodeClosed(f"node {self.id} was used before; make a new one")
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
            if not self.closed:
                await self.drain(self.config.drain_timeout if timeout is None else timeout)
        finally:
            await self._leave()
        return self.ledger

    async def _leave(self) -> None:
        self.closed = True
        self.endpoint.close(self.now())
        self.pump()
        for peer in self._peers.values():
            peer.wake_everybody()
        self._wake_watchers()
        for listener in self._listeners:
            with anyio.CancelScope(shield=True):
                await listener.aclose()
        with anyio.move_on_after(self.config.linger + 0.5):
            while self._links:
                await self._changed()

    async def drain(self, timeout: float | None = None) -> Ledger:
        """Wait until every peer has read everything accepted so far, or for ``timeout`` seconds; the ledger."""
        with anyio.move_on_after(timeout):
            for peer in list(self._peers.values()):
                await peer.drain()
        return self.ledger

    @property
    def ledger(self) -> Ledger:
        """What became of all messages that this node accepted."""
        return sum((session.ledger for session in self.endpoint.sessions.values()), Ledger())

    @property
    def usable(self) -> bool:
        """Open, and called from its own thread?"""
        return not self.closed and threading.get_ident() == self._thread

    def now(self) -> float:
        """The event loop's clock."""
        return self._clock()

    def command(self) -> float:
        """Before every command of the application: the right thread?  Returns the time."""
        if threading.get_ident() != self._thread:
            if not self._thread:
                raise NodeClosed(f"node {self.id} is not open: use it inside of `async with Node(...) as node:`")
            raise WrongThread(f"node {self.id} belongs to another thread's event loop; call it from there")
        return self._clock()

    async def breathe(self) -> None:
        """Let others run once in a while, even if the caller never has to wait."""
        self._calls += 1
        if not self._calls % _BREATH:
            await anyio.lowlevel.checkpoint()

    def encode(self, data: Any, raw: bool) -> bytes:
        """The payload of a message."""
        if not raw:
            return self.codec.encode(data)
        if type(data) is bytes:
            return data
        if isinstance(data, (bytes, bytearray, memoryview)):
            return bytes(data)  # what is retained must not change under us
        raise EncodeError(f"a raw message is bytes, not {type(data).__name__}")

    # -- listening and connecting -------------------------------------------------------------------------------

    async def listen(self, host: str, port: int) -> Listener:
        """Accept connections on all addresses of ``host``; port 0 takes a free one (``listener.port``).

        Raises AddressError (in use, not permitted, not resolvable), ConfigurationError (an unprotected address off
        loopback), NodeClosed.
        """
        self._check_open()
        check_exposure(host, self._auth)
        _check_port(port, least=0)
        try:
            multi = await anyio.create_tcp_listener(local_host=host, local_port=port, backlog=4096)
        except OSError as error:
            raise AddressError(f"cannot listen on {printable(host)} port {port}: {_reason(error)}") from error
        return self._accept_on([listener for listener in multi.listeners])  # noqa: C416 (typed anew)

    async def listen_unix(self, path: str) -> Listener:
        """Accept connections on a UNIX socket."""
        self._check_open()
        if await _answers(path):
            raise AddressError(f"cannot listen on {printable(path)}: {_IN_USE}")
        try:
            listener = await anyio.create_unix_listener(path, backlog=4096)
        except OSError as error:
            raise AddressError(f"cannot listen on {printable(path)}: {_reason(error)}") from error
        return self._accept_on([listener])

    def _accept_on(self, listeners: list[Any]) -> Listener:
        made = Listener(listeners)
        self._listeners.append(made)
        for listener in listeners:
            self._tasks.start_soon(self._accept, listener)
        return made

    async def _accept(self, listener: SocketListener) -> None:
        while True:
            try:
                stream = await listener.accept()
            except anyio.ClosedResourceError:
                return
            except OSError as error:
                logger.warning("accepting a connection failed: %s", error)
                await anyio.sleep(_ACCEPT_PAUSE)
                continue
            self._link(self.endpoint.accept(self.now(), source=_source(stream)), stream)

    def serve_stream(self, stream: ByteStream, *, source: str = "") -> None:
        """Take a byte stream that somebody else accepted.  ``source`` groups strangers (an address without port)."""
        self._check_open()
        self._link(self.endpoint.accept(self.now(), source=source), stream)

    async def connect(self, host: str, port: int, peer_id: str | None = None) -> Peer:
        """Keep a connection to ``peer_id`` at this address, from now until ``disconnect``, ``end`` or the node's end.

        With ``peer_id`` it returns at once: what is sent waits until the connection stands.  Without, it waits until
        somebody has answered there, whoever it is; then it raises the ConnectionFailure that only a human can mend
        (wrong key, version, itself, a host name that does not resolve).  Cancelled, it stops trying.
        """
        check_exposure(host, self._auth)
        _check_port(port, least=1)
        return await self._connect(Address(f"{host}:{port}", lambda: anyio.connect_tcp(host, port)), peer_id)

    async def connect_unix(self, path: str, peer_id: str | None = None) -> Peer:
        """As :meth:`connect`, over a UNIX socket."""
        return await self._connect(Address(path, lambda: anyio.connect_unix(path)), peer_id)

    async def connect_stream(self, open_stream: OpenStream, peer_id: str | None = None, *, name: str = "") -> Peer:
        """As :meth:`connect`, over byte streams that ``open_stream`` makes: called for every dial."""
        return await self._connect(Address(name or "a stream", open_stream), peer_id)

    async def _connect(self, address: Address, peer_id: str | None) -> Peer:
        self._check_open()
        target = self.endpoint.add_target(address, self.now(), to=peer_id)
        self.pump()
        if peer_id is not None:
            return self.peer(peer_id)
        try:
            while target.session is None:
                self._check_open()
                _raise_if_hopeless(target)
                await self._changed()
        except BaseException:
            self.endpoint.abandon_target(target, self.now())
            self.pump()
            raise
        return self.peer(target.session.peer_id)

    async def _dial(self, target: Target) -> None:
        address: Any = target.key
        try:
            with anyio.fail_after(self.config.dial_timeout):
                stream = await address.open()
        except TimeoutError:
            self.endpoint.dial_failed(target, self.now(), TimeoutError("no answer in time"))
        except (OSError, anyio.BrokenResourceError) as error:
            self.endpoint.dial_failed(target, self.now(), _cause(error))
        except Exception as error:  # a user's open_stream may raise anything; it is tried again like any other
            logger.warning("dialling %s failed", address, exc_info=True)
            self.endpoint.dial_failed(target, self.now(), error)
        else:
            self._link(self.endpoint.connect(target, self.now()), stream)
        self.pump()
        self._wake_watchers()

    def _link(self, connection: Any, stream: ByteStream) -> None:
        link = self._links[connection] = Link(self, connection, stream)
        self._tasks.start_soon(link.run)
        self.pump()

    def unlink(self, link: Link) -> None:
        """Its stream is over."""
        self._links.pop(link.connection, None)
        self._wake_watchers()

    # -- peers and notices --------------------------------------------------------------------------------------

    def peer(self, peer_id: str) -> Peer:
        """The peer of that id, known already or not; raises ConfigurationError for an unusable id."""
        peer = self._peers.get(peer_id)
        if peer is None:
            self._meet()
            session = self.endpoint.session(peer_id, self.command())
            peer = self._peers.get(peer_id) or self._welcome(session)
        return peer

    @property
    def peers(self) -> list[Peer]:
        """Every peer this node knows."""
        self._meet()
        return list(self._peers.values())

    def _meet(self) -> None:
        """Give every session of the core its Peer."""
        if len(self._peers) < len(self.endpoint.sessions):  # both are in the order of arrival
            for session in list(islice(self.endpoint.sessions.values(), len(self._peers), None)):
                self._welcome(session)

    def _welcome(self, session: Session) -> Peer:
        peer = self._peers[session.peer_id] = Peer(self, session)
        if self._handler is not None:
            self._handler(peer)
        return peer

    async def send(self, peer_id: str, data: Any, **options: Any) -> Receipt:
        """``node.peer(peer_id).send(data)``."""
        return await self.peer(peer_id).send(data, **options)

    async def next_notice(self, timeout: float | None = None) -> Event | None:
        """The next notice, or None after ``timeout`` seconds.  Each notice goes to one taker.  Raises NodeClosed."""
        self.command()
        await self.breathe()
        if timeout is None:
            return await self._next_notice()
        with anyio.move_on_after(timeout):
            return await self._next_notice()
        return None

    async def _next_notice(self) -> Event:
        while True:
            self._meet()
            notice = self.endpoint.next_event()
            if notice is not None:
                return notice
            self._check_open()
            await self._changed()

    async def notifications(self) -> AsyncIterator[Event]:
        """The notices of all peers, one light queue; ends when the node is closed."""
        while True:
            try:
                notice = await self.next_notice()
            except NodeClosed:
                return
            assert notice is not None
            yield notice

    async def serve(self, handler: Handler, *, max_attempts: int | None = None) -> None:
        """Call ``handler(message)`` for every message of every peer: in order and one at a time for each peer.

        A message is acknowledged when its handler returns.  When it raises, the message is released and comes again
        after a pause; at its ``max_attempts``-th failure it is rejected instead.  Runs until cancelled, or until the
        node is closed.
        """
        self._check_open()
        if self._handler is not None:
            raise ConfigurationError(f"node {self.id} is served already; one handler serves all peers")
        async with anyio.create_task_group() as tasks:
            def begin(peer: Peer) -> None:
                tasks.start_soon(self._serve_peer, peer, handler, max_attempts)

            self._meet()
            self._handler = begin
            try:
                for peer in self._peers.values():
                    begin(peer)
                while not self.closed:
                    await self._changed()
            finally:
                self._handler = None
            tasks.cancel_scope.cancel()

    async def _serve_peer(self, peer: Peer, handler: Handler, max_attempts: int | None) -> None:
        pause = _HANDLER_PAUSE[0]
        while True:
            try:
                message = await peer.receive()
            except NoMoreMessages:
                if self.closed:
                    return
                await peer.wait_readable()
                continue
            except NodeClosed:
                return
            try:
                async with _Judged(message, max_attempts):
                    await handler(message)
                pause = _HANDLER_PAUSE[0]
            except Exception:
                logger.exception("the handler failed on message %d of %s", message.sequence, peer.id)
                if not message.settled:
                    await anyio.sleep(pause)
                    pause = min(2 * pause, _HANDLER_PAUSE[1])

    # -- the pump -----------------------------------------------------------------------------------------------

    def pump(self) -> None:
        """Carry out what the core wants done; after every input and every command."""
        if self._pumping:  # an effect led to a command: the loop below sees to its effects
            return
        self._pumping = True
        next_effect = self.endpoint.next_effect
        try:
            while (effect := next_effect()) is not None:
                if type(effect) is Transmit:
                    link = self._links.get(effect.connection)
                    if link is not None:
                        link.transmit()
                elif type(effect) is Close:
                    link = self._links.get(effect.connection)
                    if link is not None:
                        link.close(effect)
                elif type(effect) is Dial:
                    self._tasks.start_soon(self._dial, effect.target)
                elif type(effect) is Wake:
                    self._wake(effect.session)
        finally:
            self._pumping = False
        due = self.endpoint.get_timer()
        if due is not None and due < self._tick_at and self._alarm is not None:
            self._tick_at = self._alarm.deadline = due

    def _wake(self, session: Any) -> None:
        if session is not None:
            session.handle.wake()
            return
        self._meet()
        self._wake_watchers()

    def _wake_watchers(self) -> None:
        watchers, self._watchers = self._watchers, []
        for event in watchers:
            event.set()

    async def _changed(self) -> None:
        """Until something about the node as a whole may have changed."""
        event = anyio.Event()
        self._watchers.append(event)
        try:
            await event.wait()
        finally:
            if event in self._watchers:
                self._watchers.remove(event)

    async def _tick(self) -> None:
        """Serve the core's timers; never write."""
        while True:
            due = self.endpoint.get_timer()
            self._tick_at = float("inf") if due is None else due
            with anyio.CancelScope(deadline=self._tick_at) as self._alarm:
                await anyio.sleep_forever()  # the pump moves the deadline when something earlier comes up
            self.endpoint.handle_timer(self.now())
            self.pump()

    def _check_open(self) -> None:
        if self.closed:
            raise NodeClosed(f"node {self.id} is closed")
        self.command()


class _Judged:
    """``async with message``, but the last of its attempts is rejected where it would be released."""

    def __init__(self, message: Message, max_attempts: int | None) -> None:
        self._message = message
        self._last = max_attempts is not None and message.attempt >= max_attempts

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, kind: type[BaseException] | None, error: Any, trace: Any) -> None:
        message = self._message
        if self._last and isinstance(error, Exception) and message.held:
            message.reject(f"the handler failed {message.attempt} times: {type(error).__name__}")
        await message.__aexit__(kind, error, trace)


def _check_port(port: int, *, least: int) -> None:
    if not isinstance(port, int) or not least <= port < 65536:
        raise ConfigurationError(f"{printable(repr(port))} is not a port: a number from {least} to 65535")


def _raise_if_hopeless(target: Target) -> None:
    """For whoever waits for a first handshake: is there anything left to wait for?"""
    error = target.error
    if error is None:
        return
    unresolved = isinstance(error, DialFailed) and isinstance(error.__cause__, socket.gaierror)
    if target.state is TargetState.STOPPED or unresolved or retry_class(error) is RetryClass.SLOW:
        raise error


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


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return _IN_USE
    if isinstance(error, socket.gaierror):
        return "the host name does not resolve"
    return printable(getattr(error, "strerror", None) or error)


def _source(stream: ByteStream) -> str:
    """The address of whoever dialled, without its port."""
    address = stream.extra(SocketAttribute.remote_address, "")
    return str(address[0]) if isinstance(address, tuple) else str(address)
