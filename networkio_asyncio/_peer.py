"""The core's peers, messages and receipts, with an event loop's way of waiting.

Everything that decides is in the core (:mod:`networkio_proto.peers`, :mod:`networkio_proto.handles`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import anyio

from networkio_proto import Ledger, NoMoreMessages, Session
from networkio_proto.handles import IteratorHandle, MessageHandle, ReceiptHandle
from networkio_proto.operations import T
from networkio_proto.peers import NOTHING, PeerHandle

if TYPE_CHECKING:
    from ._node import Node


class Message(MessageHandle):
    """A received message.  ``async with message:`` acknowledges it on success and releases it on an exception."""

    __slots__ = ()

    peer: Peer

    async def reply(self, data: Any, *, headers: Mapping[str, object] | None = None, raw: bool = False) -> Receipt:
        """Answer a request: accept the reply; waits while the outbox is full.  It does not settle the request.

        Raises NotARequest, and what ``Peer.send`` raises.  Cancelled while it waits, nothing was sent.
        """
        receipt: Receipt = await self.peer.node.run(self._replying(data, headers, raw))
        return receipt

    async def commit(self, function: Callable[[Any], T]) -> T:
        """Call ``function(db)`` and acknowledge the message, in one transaction of the journal; its value.

        As ``Node.commit`` with this one message.
        """
        return await self.peer.node.commit([self], function)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.handled(failed=kind is not None)


class Receipt(ReceiptHandle):
    """The sender's side of one accepted message."""

    __slots__ = ()

    peer: Peer

    async def received(self) -> None:
        """Wait until the peer's library holds it; raises the typed DeliveryFailure if that will not be.

        Cancelling the wait does nothing to the message.
        """
        await self.peer.node.run(self._until(read=False))

    async def read(self) -> None:
        """Wait until the peer's application has acknowledged it; raises the typed DeliveryFailure otherwise.

        Cancelling the wait does nothing to the message.
        """
        await self.peer.node.run(self._until(read=True))

    async def cancel(self) -> bool:
        """End it if nobody has seen it: True if it will never be seen, False if it may be.

        With a journal it returns when that is on disk, and raises JournalError if that fails: then it may be sent after
        all by a later process.  Cancelled while it waits, the message has its end all the same.
        """
        return await self.peer.node.run(self._cancelling())


class MessageIterator(IteratorHandle[Message]):
    """``async for message in peer``: each message is acknowledged when the next is asked for."""

    __slots__ = ()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        node = self._node
        if node.handy() and (message := self._iteration.step()) is not None:
            return message
        if node.breathless():
            await self._breathe()
        try:
            message = self.advance()
            if message is None:
                message = await self._node.run(self._iteration.advancing())
        except NoMoreMessages:
            raise StopAsyncIteration from None
        return message

    async def _breathe(self) -> None:
        """Let others run, with nothing in hand: it may be cancelled."""
        with self._node.inside:
            self._iteration.settle()
        try:
            await anyio.lowlevel.checkpoint()
        except BaseException:
            self.close()  # a loop ends with what it raises; the traceback may keep its iterator alive
            raise


class Peer(PeerHandle[Message, Receipt]):
    """Another node, and the conversation with it.  Made by ``Node.connect``, ``Node.peer``, or by its arrival."""

    node: Node

    def __init__(self, node: Node, session: Session) -> None:
        super().__init__(node, session, Message, Receipt)

    async def send(
        self, data: Any, *, headers: Mapping[str, object] | None = None, ttl: float | None = None, raw: bool = False
    ) -> Receipt:
        """Accept a message for this peer, connected or not; waits while the outbox is full.

        ``raw``: ``data`` is bytes and goes as it is.  ``ttl``: seconds after which it need not arrive any more.
        ``headers``: a small map that goes along.  Raises EncodeError, MessageTooLarge, SessionClosed, NodeClosed,
        WrongThread.  Cancelled while it waits, the message was not sent; it is never half sent.
        """
        node = self.node
        payload = node.payload(data, raw) if raw else node.codec.encode(data)
        if (  # ``node.handy()``, written out: this is the way of every message
            node.breath != 1
            and get_ident() == node.thread
            and headers is None
            and ttl is None
            and (self._sent_in == node.turn or self._streaming())
            and (sequence := self.session.stream(payload, raw))
        ):
            node.breath -= 1
            return Receipt(self, sequence)
        await node.breathe()
        receipt = self.accept_or_none(payload, headers=headers, ttl=ttl, raw=raw)
        if receipt is None:
            receipt = await self.node.run(self.accepting(payload, headers=headers, ttl=ttl, raw=raw))
        return receipt

    async def send_many(
        self, many: Iterable[Any], *, headers: Mapping[str, object] | None = None, ttl: float | None = None,
        raw: bool = False
    ) -> list[Receipt]:
        """Accept messages in order, waiting for room as often as it takes; their receipts.

        All are encoded, and their sizes checked, before the first is accepted.  Raises what :meth:`send` raises.
        Cancelled, those before some point were accepted and the rest was not.
        """
        return await self.node.run(self._accepting_many(many, headers, ttl, raw))

    async def request(
        self, data: Any, timeout: float | None = None, *, headers: Mapping[str, object] | None = None, raw: bool = False
    ) -> Any:
        """Send a request and wait for the data of its reply (``message.reply``), at most ``timeout`` seconds.

        Raises TimeoutError; the typed DeliveryFailure if the request ends otherwise than READ; NoMoreMessages if the
        peer ends the conversation first; DecodeError, and the reply is rejected.  Given up or cancelled, the request is
        cancelled if the peer does not hold it, else it may have been carried out; a late reply is dropped.

        A reply passes messages that wait to be read, but not a full window: who leaves messages unread until the peer
        may send no more gets no reply either.  A peer that restarts after it acknowledged the request, and before it
        replied, has forgotten it: give a timeout.
        """
        return await self.node.run(self._requesting(data, headers, raw), timeout)

    async def receive(self) -> Message:
        """The next message; the caller holds it and settles it.

        Raises NoMoreMessages after the peer's end, NodeClosed.  Cancelled, it takes nothing.
        """
        node = self.node
        if node.handy() and (reading := self.reading()) and (delivery := reading.exchange(None)) is not None:
            return Message(self, delivery)
        await node.breathe()
        message: Message | None = self.receive_nowait(None)
        return await self.node.run(self.receiving()) if message is None else message

    async def read(self) -> Any:
        """The next message's data, acknowledged at once.  Cancelled, it takes nothing.

        Raises DecodeError with the message, still held, as its ``message``: reject or acknowledge it.
        """
        node = self.node
        if node.breath != 1 and get_ident() == node.thread and (data := self.read_plain()) is not NOTHING:
            node.breath -= 1
            return data
        await node.breathe()
        data = self.read_nowait(NOTHING)
        return await node.run(self._reading()) if data is NOTHING else data

    async def read_many(self, limit: int = 100) -> list[Any]:
        """The data of up to ``limit`` messages, acknowledged at once; waits for the first only."""
        await self.node.breathe()
        return await self.node.run(self._reading_many(limit))

    def __aiter__(self) -> MessageIterator:
        """Each message in turn, acknowledged when the next is asked for; one iterator at a time."""
        return MessageIterator(self)

    async def wait_connected(self) -> None:
        """Wait until there is a live connection."""
        await self.node.run(self._connecting())

    async def drain(self, timeout: float | None = None) -> Ledger:
        """Take no new messages, wait until everything accepted is read, or for ``timeout`` seconds; the ledger.

        Cancelled, sending goes on in the background; afterwards new messages are taken again.
        """
        return await self.node.run(self.draining(), timeout)

    async def serve(self, handler: Any, max_attempts: int | None = None) -> None:
        """The part of ``Node.serve`` that is this peer's."""
        while (message := await self.node.run(self.serving())) is not None:
            with self.handling(message, max_attempts) as handling:
                await handler(message)
            await anyio.sleep(handling.pause)
