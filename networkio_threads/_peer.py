"""The core's peers, messages and receipts, with a thread's way of waiting.

Everything that decides is in the core (:mod:`networkio_proto.peers`, :mod:`networkio_proto.handles`).  Whatever waits
takes ``timeout``, in seconds, and raises TimeoutError when it is over, with a sentence that says what is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from networkio_proto import Ledger, NoMoreMessages, Session
from networkio_proto.handles import IteratorHandle, MessageHandle, ReceiptHandle
from networkio_proto.peers import PeerHandle

if TYPE_CHECKING:
    from ._node import Node

__all__ = ["Message", "MessageIterator", "Peer", "Receipt"]


class Message(MessageHandle):
    """A received message.  ``with message:`` acknowledges it on success and releases it on an exception.

    It may be settled from any thread.
    """

    __slots__ = ()

    peer: Peer

    def reply(
        self,
        data: Any,
        timeout: float | None = None,
        *,
        headers: Mapping[str, object] | None = None,
        raw: bool = False,
    ) -> Receipt:
        """Answer a request: accept the reply; waits while the outbox is full.  It does not settle the request.

        Raises NotARequest, and what ``Peer.send`` raises.
        """
        receipt: Receipt = self.peer.node.run(self._replying(data, headers, raw), timeout)
        return receipt

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.handled(failed=kind is not None)


class Receipt(ReceiptHandle):
    """The sender's side of one accepted message."""

    __slots__ = ()

    peer: Peer

    def received(self, timeout: float | None = None) -> None:
        """Wait until the peer's library holds it; raises the typed DeliveryFailure if that will not be.

        Raises TimeoutError, which does nothing to the message.
        """
        self.peer.node.run(self._until(read=False), timeout)

    def read(self, timeout: float | None = None) -> None:
        """Wait until the peer's application has acknowledged it; raises the typed DeliveryFailure otherwise.

        Raises TimeoutError, which does nothing to the message.
        """
        self.peer.node.run(self._until(read=True), timeout)

    def cancel(self) -> bool:
        """End it if nobody has seen it: True if it will never be seen, False if it may be."""
        return self._cancel()


class MessageIterator(IteratorHandle[Message]):
    """``for message in peer``: each message is acknowledged when the next is asked for."""

    __slots__ = ()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Message:
        try:
            message: Message = self._node.run(self._iteration.advancing())
        except NoMoreMessages:
            raise StopIteration from None
        return message


class Peer(PeerHandle[Message, Receipt]):
    """Another node, and the conversation with it.  Made by ``Node.connect``, ``Node.peer``, or by its arrival.

    Every method may be called from any thread.  What several threads send is sent in the order in which the calls
    returned; what several threads take, each message goes to one of them.
    """

    node: Node

    def __init__(self, node: Node, session: Session) -> None:
        super().__init__(node, session, Message, Receipt)

    def send(
        self,
        data: Any,
        timeout: float | None = None,
        *,
        headers: Mapping[str, object] | None = None,
        ttl: float | None = None,
        raw: bool = False,
    ) -> Receipt:
        """Accept a message for this peer, connected or not; waits while the outbox is full.

        ``raw``: ``data`` is bytes and goes as it is.  ``ttl``: seconds after which it need not arrive any more.
        ``headers``: a small map that goes along.  Raises EncodeError, MessageTooLarge, SessionClosed, NodeClosed,
        TimeoutError; then the message was not sent.
        """
        operation = self.accepting(self.node.payload(data, raw), headers=headers, ttl=ttl, raw=raw)
        return self.node.run(operation, timeout)

    def send_many(
        self,
        many: Iterable[Any],
        timeout: float | None = None,
        *,
        headers: Mapping[str, object] | None = None,
        ttl: float | None = None,
        raw: bool = False,
    ) -> list[Receipt]:
        """Accept messages in order, waiting for room as often as it takes; their receipts.

        All are encoded, and their sizes checked, before the first is accepted.  Raises what :meth:`send` raises, but
        when the time is over it returns the receipts of those that were accepted by then.
        """
        return self.node.run(self._accepting_many(many, headers, ttl, raw), timeout)

    def request(
        self, data: Any, timeout: float | None = None, *, headers: Mapping[str, object] | None = None, raw: bool = False
    ) -> Any:
        """Send a request and wait for the data of its reply (``message.reply``), at most ``timeout`` seconds.

        Raises TimeoutError; the typed DeliveryFailure if the request ends otherwise than READ; NoMoreMessages if the
        peer ends the conversation; DecodeError.  Given up, the request is cancelled if the peer does not hold it, else
        it may have been carried out; a late reply is dropped.
        """
        return self.node.run(self._requesting(data, headers, raw), timeout)

    def receive(self, timeout: float | None = None) -> Message:
        """The next message; the caller holds it and settles it.

        Raises TimeoutError, NoMoreMessages after the peer's end, NodeClosed; it has taken nothing then.
        """
        return self.node.run(self.receiving(), timeout)

    def read(self, timeout: float | None = None) -> Any:
        """The next message's data, acknowledged at once.  Raises what :meth:`receive` raises.

        Raises DecodeError with the message, still held, as its ``message``: reject or acknowledge it.
        """
        return self.node.run(self._reading(), timeout)

    def read_many(self, limit: int = 100, timeout: float | None = None) -> list[Any]:
        """The data of up to ``limit`` messages, acknowledged at once; waits for the first only."""
        return self.node.run(self._reading_many(limit), timeout)

    def __iter__(self) -> MessageIterator:
        """Each message in turn, acknowledged when the next is asked for; one iterator at a time."""
        return MessageIterator(self)

    def wait_connected(self, timeout: float | None = None) -> None:
        """Wait until there is a live connection; raises TimeoutError, which says why there is none."""
        self.node.run(self._connecting(), timeout)

    def drain(self, timeout: float | None = None) -> Ledger:
        """Take no new messages, wait until everything accepted is read, or for ``timeout`` seconds; the ledger.

        Afterwards new messages are taken again, and what is left goes on in the background.
        """
        return self.node.run(self.draining(), timeout)
