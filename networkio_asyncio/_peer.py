"""One peer, as the application sees it: send, read, wait, end."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import anyio

from networkio_proto import (
    DecodeError,
    Failure,
    Ledger,
    NodeClosed,
    NoMessage,
    NoMoreMessages,
    OutboxFull,
    Session,
    Watch,
)
from networkio_proto.errors import IteratorBusy
from networkio_proto.handles import MessageHandle, ReceiptHandle
from networkio_proto.receipts import Waiter

if TYPE_CHECKING:
    from ._node import Node

__all__ = ["Message", "MessageIterator", "Peer", "Receipt"]

_MISSING: Any = object()


def _nobody() -> None:
    """The iterator of a peer that nobody iterates over."""


class Message(MessageHandle):
    """A received message.  ``async with message:`` acknowledges it on success and releases it on an exception."""

    __slots__ = ("peer",)

    def __init__(self, peer: Peer, delivery: Any) -> None:
        super().__init__(peer.session, delivery, peer.node.codec)
        self.peer = peer

    def ack(self) -> None:
        """The application is done with it: the sender learns READ.  Raises MessageNotHeld, WrongThread."""
        node = self.peer.node
        self._settle("acknowledged", node.command())
        node.pump()

    def reject(self, reason: str = "", code: int = 0) -> None:
        """Refuse it for good: the sender learns REJECTED with these words.  Raises MessageNotHeld, WrongThread."""
        node = self.peer.node
        self._settle("rejected", node.command(), (code, reason))
        node.pump()

    def release(self) -> None:
        """Give it back to its old place; it is handed over again, ``attempt`` + 1.  Raises MessageNotHeld."""
        node = self.peer.node
        self._give_back(node.command())
        node.pump()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.held:
            return
        if kind is None:
            self.ack()
        else:
            self.release()


class Receipt(ReceiptHandle):
    """The sender's side of one accepted message."""

    __slots__ = ("_peer",)

    def __init__(self, peer: Peer, sequence: int) -> None:
        super().__init__(peer.session, sequence)
        self._peer = peer

    async def received(self) -> None:
        """Wait until the peer's library holds it; raises the typed DeliveryFailure if that will not be."""
        await self._wait(read=False)

    async def read(self) -> None:
        """Wait until the peer's application has acknowledged it; raises the typed DeliveryFailure otherwise.

        Cancelling the wait does nothing to the message.
        """
        await self._wait(read=True)

    async def cancel(self) -> bool:
        """End it if nobody has seen it: True if it will never be seen, False if it may be."""
        node = self._peer.node
        cancelled = self._session.cancel(self.sequence, node.command())
        node.pump()
        return cancelled

    async def _wait(self, *, read: bool) -> None:
        while not self._done(read=read):
            await self._peer.wait_receipt(self.sequence, read=read)


class MessageIterator:
    """``async for message in peer``: each message is acknowledged when the next is asked for."""

    __slots__ = ("_held", "_peer", "__weakref__")

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._held: Message | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        held, self._held = self._held, None
        if held is not None and held.held:
            held.ack()
        try:
            self._held = await self._peer.receive()
        except BaseException as error:
            self.close()  # a loop ends with what it raises; the traceback may keep its iterator alive
            if isinstance(error, NoMoreMessages):
                raise StopAsyncIteration from None
            raise
        return self._held

    def close(self) -> None:
        """The loop was left: what it held and did not settle is given back, and is the next to be taken."""
        self._peer.iterator_left(self)
        held, self._held = self._held, None
        if held is not None and held.held and self._peer.node.usable:
            held.release()

    def __del__(self) -> None:
        self.close()


class Peer:
    """Another node, and the conversation with it.  Made by ``Node.connect``, ``Node.peer``, or by its arrival."""

    def __init__(self, node: Node, session: Session) -> None:
        self.node = node
        #: the core's session
        self.session = session
        self._waiters: list[tuple[int, anyio.Event]] = []
        self._iterator: Callable[[], MessageIterator | None] = _nobody
        session.handle = self

    def __repr__(self) -> str:
        return f"<Peer {self.id} {'connected' if self.connected else 'not connected'}>"

    @property
    def id(self) -> str:
        """Its peer id."""
        return self.session.peer_id

    @property
    def connected(self) -> bool:
        """Is there a live connection now?  Sending does not need one."""
        return self.session.connected

    @property
    def unread(self) -> int:
        """Messages of the peer that wait to be taken."""
        return self.session.unread

    @property
    def unacknowledged(self) -> int:
        """Own messages that the peer's application has not read."""
        return self.session.unacknowledged

    @property
    def ledger(self) -> Ledger:
        """What became of the messages to this peer so far."""
        return self.session.ledger

    def failures(self) -> list[Failure]:
        """The messages that ended otherwise than READ, as ranges, oldest first; the oldest melt past 1,024."""
        return self.session.failures()

    def why(self) -> str:
        """One sentence that says what the messages to this peer are waiting for."""
        return self.session.why(self.node.now())

    # -- sending ------------------------------------------------------------------------------------------------

    async def send(
        self, data: Any, *, headers: Mapping[str, object] | None = None, ttl: float | None = None, raw: bool = False
    ) -> Receipt:
        """Accept a message for this peer, connected or not; waits while the outbox is full.

        ``raw``: ``data`` is bytes and goes as it is.  ``ttl``: seconds after which it need not arrive any more.
        ``headers``: a small map that goes along.  Raises EncodeError, MessageTooLarge, SessionClosed, NodeClosed,
        WrongThread.  Cancelled while it waits, the message was not sent; it is never half sent.
        """
        payload = self.node.encode(data, raw)
        await self.node.breathe()
        while True:
            try:
                return self._accept(payload, headers, ttl, raw)
            except OutboxFull:
                await self._wait(Watch.ROOM)

    def send_nowait(
        self, data: Any, *, headers: Mapping[str, object] | None = None, ttl: float | None = None, raw: bool = False
    ) -> Receipt:
        """As :meth:`send`, but raises OutboxFull where that would wait."""
        return self._accept(self.node.encode(data, raw), headers, ttl, raw)

    def _accept(self, payload: bytes, headers: Mapping[str, object] | None, ttl: float | None, raw: bool) -> Receipt:
        node = self.node
        sequence = self.session.send(payload, node.command(), headers=headers, ttl=ttl, raw=raw)
        if node.endpoint.effects or ttl is not None:  # a ttl may be due before anything else
            node.pump()
        return Receipt(self, sequence)

    # -- receiving ----------------------------------------------------------------------------------------------

    async def receive(self) -> Message:
        """The next message; the caller holds it and settles it.

        Raises NoMoreMessages after the peer's end, NodeClosed.  Cancelled, it takes nothing.
        """
        await self.node.breathe()
        while (message := self._take()) is None:
            await self._wait(Watch.READABLE)
        return message

    def receive_nowait(self, default: Any = _MISSING) -> Any:
        """The next message, or ``default``; without one raises NoMessage."""
        message = self._take()
        if message is not None:
            return message
        if default is not _MISSING:
            return default
        raise NoMessage(f"nothing from {self.id} is waiting to be read")

    async def read(self) -> Any:
        """The next message's data, acknowledged at once.

        Raises DecodeError with the message, still held, as its ``message``: reject or acknowledge it.
        """
        return self._finish(await self.receive())

    def read_nowait(self, default: Any = _MISSING) -> Any:
        """As :meth:`read`; without a message ``default``, or NoMessage."""
        message = self._take()
        if message is not None:
            return self._finish(message)
        if default is not _MISSING:
            return default
        raise NoMessage(f"nothing from {self.id} is waiting to be read")

    async def read_many(self, limit: int = 100) -> list[Any]:
        """The data of up to ``limit`` messages, acknowledged at once; waits for the first only."""
        many = [await self.read()]
        while len(many) < limit and (message := self._take()) is not None:
            try:
                many.append(message.data)
            except DecodeError:
                message.release()  # it is the next one's trouble
                break
            message.ack()
        return many

    def __aiter__(self) -> MessageIterator:
        """Each message in turn, acknowledged when the next is asked for; one iterator at a time."""
        if self._iterator() is not None:
            raise IteratorBusy(f"the messages of {self.id} are iterated over already; use receive() in the others")
        iterator = MessageIterator(self)
        self._iterator = weakref.ref(iterator)  # it must die, and give back what it holds, when its loop is left
        return iterator

    def iterator_left(self, iterator: MessageIterator) -> None:
        """An iterator is done."""
        if self._iterator() is iterator:
            self._iterator = _nobody

    def _take(self) -> Message | None:
        self.node.command()
        taken = self.session.take(1)
        if taken:
            return Message(self, taken[0])
        if self.session.peer_ended:
            raise NoMoreMessages(f"{self.id} ended the conversation and everything it sent was read")
        self._check_open()
        return None

    def _finish(self, message: Message) -> Any:
        try:
            data = message.data
        except DecodeError as error:
            error.message = message
            raise
        message.ack()
        return data

    # -- waiting and ending -------------------------------------------------------------------------------------

    async def wait_connected(self) -> None:
        """Wait until there is a live connection."""
        while not self.connected:
            self._check_open()
            await self._wait(Watch.LINK)

    async def drain(self, timeout: float | None = None) -> Ledger:
        """Take no new messages, wait until everything accepted is read, or for ``timeout`` seconds; the ledger.

        Cancelled, sending goes on in the background; afterwards new messages are taken again.
        """
        session = self.session
        session.drain(self.node.command())
        self.node.pump()
        try:
            with anyio.move_on_after(timeout):
                while session.unacknowledged and not self.node.closed:
                    await self._wait(Watch.PROGRESS)
        finally:
            session.undrain()
        return session.ledger

    def disconnect(self) -> None:
        """Close the connection and stop dialling; the session stays and can be resumed."""
        self.session.disconnect(self.node.command())
        self.node.pump()

    def end(self) -> None:
        """Nothing more follows from this side.  When the peer has ended too, the session is over."""
        self.session.end(self.node.command())
        self.node.pump()

    def abort(self) -> None:
        """Give up everything that is unread; it ends as ABANDONED on both sides."""
        self.session.abort(self.node.command())
        self.node.pump()

    def _check_open(self) -> None:
        if self.node.closed:
            raise NodeClosed(f"node {self.node.id} is closed")
        self.node.command()

    async def _wait(self, what: int) -> None:
        """Until something of ``what`` may have happened."""
        self._check_open()
        waiter = (what, anyio.Event())
        self._waiters.append(waiter)
        self.session.watch |= what
        try:
            await waiter[1].wait()
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    async def wait_readable(self) -> None:
        """Until there may be a message to take."""
        await self._wait(Watch.READABLE)

    async def wait_receipt(self, sequence: int, *, read: bool) -> None:
        """Until the message may have been received or read, or failed."""
        self._check_open()
        event = anyio.Event()
        waiter: Waiter = self.session.receipts.add(sequence, event, read=read)
        self.session.watch |= Watch.PROGRESS
        try:
            await event.wait()
        finally:
            self.session.receipts.remove(waiter)

    def wake(self) -> None:
        """The core says that something happened which somebody waits for."""
        session = self.session
        waiters, self._waiters = self._waiters, []
        session.watch = 0
        for _, event in waiters:
            event.set()
        for event in session.receipts.due(session.outbox):
            event.set()
        if len(session.receipts):
            session.watch = Watch.PROGRESS

    def wake_everybody(self) -> None:
        """The node is closed: let all who wait find out."""
        self.wake()
        for event in self.session.receipts.all():
            event.set()

