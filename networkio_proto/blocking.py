"""The node and its peers as a program sees them that waits in place: the part that every blocking driver shares.

Theory of operation
-------------------
A blocking driver runs an operation by a call that returns when it is over (:meth:`BlockingNode.run`), be it that a
thread waits meanwhile or that a simulated world goes on.  Everything that may wait takes a ``timeout`` in the seconds
of the driver's clock, hands it to ``run`` with its operation, and so is written here, once.

How to open and end what drives the node is the driver's: :meth:`BlockingNode.start` and :meth:`BlockingNode.stop`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from .errors import NoMoreMessages
from .events import Event
from .handles import IteratorHandle, MessageHandle, ReceiptHandle
from .ledger import Ledger
from .nodes import NodeHandle
from .operations import Operation, T
from .peers import NOTHING, PeerHandle
from .session import Session

__all__ = ["BlockingIterator", "BlockingMessage", "BlockingNode", "BlockingPeer", "BlockingReceipt"]

N = TypeVar("N", bound="BlockingNode[Any]")
P = TypeVar("P", bound="BlockingPeer[Any, Any, Any, Any]")
M = TypeVar("M", bound=MessageHandle)
R = TypeVar("R", bound=ReceiptHandle)
I = TypeVar("I", bound="BlockingIterator[Any]")  # noqa: E741 (it stands for one word, as the others do)


class BlockingMessage(MessageHandle, Generic[P, R]):
    """A received message.  ``with message:`` acknowledges it on success and releases it on an exception."""

    __slots__ = ()

    peer: P

    def reply(
        self,
        data: Any,
        timeout: float | None = None,
        *,
        headers: Mapping[str, object] | None = None,
        raw: bool = False,
    ) -> R:
        """Answer a request: accept the reply; waits while the outbox is full.  It does not settle the request.

        Raises NotARequest, and what ``Peer.send`` raises.
        """
        receipt: R = self.peer.node.run(self._replying(data, headers, raw), timeout)
        return receipt

    def commit(self, function: Callable[[Any], T], timeout: float | None = None) -> T:
        """Call ``function(db)`` and acknowledge the message, in one transaction of the journal; its value.

        As ``Node.commit`` with this one message.
        """
        value: T = self.peer.node.commit([self], function, timeout)
        return value

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.handled(failed=kind is not None)


class BlockingReceipt(ReceiptHandle, Generic[P]):
    """The sender's side of one accepted message."""

    __slots__ = ()

    peer: P

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

    def cancel(self, timeout: float | None = None) -> bool:
        """End it if nobody has seen it: True if it will never be seen, False if it may be.

        With a journal it returns when that is on disk, and raises JournalError if that fails: then it may be sent after
        all by a later process.  Raises TimeoutError; the message has its end all the same.
        """
        cancelled: bool = self.peer.node.run(self._cancelling(), timeout)
        return cancelled


class BlockingIterator(IteratorHandle[M]):
    """``for message in peer``: each message is acknowledged when the next is asked for."""

    __slots__ = ()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> M:
        try:
            message = self.advance()
            return self._node.run(self._iteration.advancing()) if message is None else message
        except NoMoreMessages:
            raise StopIteration from None


class BlockingPeer(PeerHandle[M, R], Generic[N, M, R, I]):
    """Another node, and the conversation with it.  Made by ``Node.connect``, ``Node.peer``, or by its arrival."""

    node: N

    def __init__(self, node: N, session: Session, message: type[M], receipt: type[R], iterator: type[I]) -> None:
        super().__init__(node, session, message, receipt)
        self._iterator = iterator

    def send(
        self,
        data: Any,
        timeout: float | None = None,
        *,
        headers: Mapping[str, object] | None = None,
        ttl: float | None = None,
        raw: bool = False,
    ) -> R:
        """Accept a message for this peer, connected or not; waits while the outbox is full.

        ``raw``: ``data`` is bytes and goes as it is.  ``ttl``: seconds after which it need not arrive any more.
        ``headers``: a small map that goes along.  Raises EncodeError, MessageTooLarge, SessionClosed, NodeClosed,
        TimeoutError; then the message was not sent.
        """
        payload = self.node.payload(data, raw)
        receipt = self.accept_or_none(payload, headers=headers, ttl=ttl, raw=raw)
        if receipt is None:
            receipt = self.node.run(self.accepting(payload, headers=headers, ttl=ttl, raw=raw), timeout)
        return receipt

    def send_many(
        self,
        many: Iterable[Any],
        timeout: float | None = None,
        *,
        headers: Mapping[str, object] | None = None,
        ttl: float | None = None,
        raw: bool = False,
    ) -> list[R]:
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

    def receive(self, timeout: float | None = None) -> M:
        """The next message; the caller holds it and settles it.

        Raises TimeoutError, NoMoreMessages after the peer's end, NodeClosed; it has taken nothing then.
        """
        message: M | None = self.receive_nowait(None)
        return self.node.run(self.receiving(), timeout) if message is None else message

    def read(self, timeout: float | None = None) -> Any:
        """The next message's data, acknowledged at once.  Raises what :meth:`receive` raises.

        Raises DecodeError with the message, still held, as its ``message``: reject or acknowledge it.
        """
        data = self.read_nowait(NOTHING)
        return self.node.run(self._reading(), timeout) if data is NOTHING else data

    def read_many(self, limit: int = 100, timeout: float | None = None) -> list[Any]:
        """The data of up to ``limit`` messages, acknowledged at once; waits for the first only."""
        return self.node.run(self._reading_many(limit), timeout)

    def __iter__(self) -> I:
        """Each message in turn, acknowledged when the next is asked for; one iterator at a time."""
        return self._iterator(self)

    def wait_connected(self, timeout: float | None = None) -> None:
        """Wait until there is a live connection; raises TimeoutError, which says why there is none."""
        self.node.run(self._connecting(), timeout)

    def drain(self, timeout: float | None = None) -> Ledger:
        """Take no new messages, wait until everything accepted is read, or for ``timeout`` seconds; the ledger.

        Afterwards new messages are taken again, and what is left goes on in the background.
        """
        return self.node.run(self.draining(), timeout)


class BlockingNode(NodeHandle[P]):
    """One identity on the network, and its life in a ``with`` block."""

    # -- the driver's part ----------------------------------------------------------------------------------------

    def run(self, operation: Operation[T], timeout: float | None = None) -> T:
        """Run one of the core's operations: a step inside, a wait outside, until it returns."""
        raise NotImplementedError

    def start(self) -> None:
        """The node opens: begin to drive it."""

    def stop(self) -> None:
        """The node ends (:meth:`gone`), and with it what drives it.  Called at every :meth:`close`."""
        raise NotImplementedError

    def check_waiting(self) -> None:
        """Raise WrongThread where nothing may wait."""

    @property
    def alive(self) -> bool:
        """Does it belong to a running process, which is this one?"""
        return True

    # -- life -----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.begin()
        try:
            self.start()
        except BaseException:
            self.closed = True  # it is of no use any more
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.alive:
            self.close(self.config.drain_timeout if kind is None else 0)

    def close(self, timeout: float | None = None) -> Ledger:
        """Leave: wait until everything is read, at most ``timeout`` (default ``config.drain_timeout``); the ledger.

        Interrupted, the connections are closed at once.  Idempotent.  Raises WrongThread.
        """
        self.check_waiting()
        try:
            if not self.closed:
                self.drain(self.drain_time(timeout))
        finally:
            self.stop()
        return self.ledger

    def drain(self, timeout: float | None = None) -> Ledger:
        """Wait until every peer has read everything accepted so far, or for ``timeout`` seconds; the ledger.

        Meanwhile no peer takes new messages.
        """
        return self.run(self._draining(), timeout)

    # -- transactions ---------------------------------------------------------------------------------------------

    def commit(self, messages: Iterable[Any], function: Callable[[Any], T], timeout: float | None = None) -> T:
        """Call ``function(db)`` and acknowledge these messages, which are held, in one transaction; its value.

        ``db`` is the journal's ``sqlite3.Connection``, and the function is called in the journal's thread: it writes
        the application's own tables and waits for nothing.  When this returns, all of it is on disk.

        Whatever it raises comes out here; then nothing was written and the messages are still held.  So it is with
        JournalFull and JournalFailed, MessageNotHeld, UsageError (the function ended the transaction, or touched what
        is networkio's), ConfigurationError (there is no journal), NodeClosed, and TimeoutError if it had not begun.  If
        it had, it is carried out, or undone and the messages are released.
        """
        return self.run(self._committing(messages, function), timeout)

    def transaction(
        self, function: Callable[[Any, Any], T], timeout: float | None = None, *, messages: Iterable[Any] = ()
    ) -> T:
        """Call ``function(db, send)``: what it writes and what it sends is on disk together, or nothing is; its value.

        ``send(peer, data, *, headers=None, raw=False)`` takes a peer or its id and returns the receipt, which is good
        when this has returned.  ``messages``, which are held, are acknowledged in the same transaction.  Where an
        outbox is full the function is undone, and called again when there is room.  Else as :meth:`commit`; raises
        what ``Peer.send`` raises, too.
        """
        return self.run(self._transacting(function, messages), timeout)

    # -- notices --------------------------------------------------------------------------------------------------

    def next_notice(self, timeout: float | None = None) -> Event | None:
        """The next notice, or None after ``timeout`` seconds.  Each notice goes to one taker.  Raises NodeClosed."""
        return self.run(self._noticing(), timeout)

    def notifications(self) -> Iterator[Event]:
        """The notices of all peers, one light queue; ends when the node is closed."""
        while (notice := self.run(self._noticing_to_the_end())) is not None:
            yield notice
