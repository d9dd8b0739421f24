"""What an application writes, acknowledges and sends in one transaction of its node's journal.

Theory of operation
-------------------
An application's function writes its own tables over the journal's connection.  It runs in the store's thread, within
a transaction that the store began for it (:meth:`Store.run <networkio_proto.journal.Store.run>`).  What it sends is
only collected there; nothing of the core is touched.  When it has returned, the :class:`Transaction` is *prepared*
inside the node: what was collected gets its places in the outboxes, and the messages to be acknowledged count as
settled in the records that are made now, although they are held on.  The batch with these records ends the same
transaction.  Only when it is on disk are the messages settled.  If anything fails before, all of it is undone: they are
still held, nothing was sent, nothing was written.

Where an outbox has no room, the function is undone and is called anew when there is some: it may have looked at rows
that others have changed since.

Whoever waits for this may give up.  What has not begun by then never will.  What has begun is carried out, or undone
with its messages released, for nobody holds them any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .config import check_peer_id
from .errors import ConfigurationError, JournalError, MessageTooLarge, OutboxFull, UsageError
from .handles import MessageHandle, ReceiptHandle
from .headers import encode_headers
from .journal import InboxMoved
from .operations import Operation, T
from .session import Session

__all__ = ["Transaction", "transacting"]


class _Draft:
    """One message that is to be sent."""

    __slots__ = ("headers", "payload", "peer_id", "raw", "receipt")

    def __init__(
        self, receipt: ReceiptHandle, peer_id: str, payload: bytes, headers: Mapping[str, object] | None, raw: bool
    ) -> None:
        self.receipt = receipt
        self.peer_id = peer_id
        self.payload = payload
        self.headers = headers
        self.raw = raw


class Transaction:
    """One call of an application's function, from when it is asked for to when it is on disk, or undone."""

    __slots__ = (
        "_collecting",
        "_deserted",
        "_drafts",
        "_full",
        "_function",
        "_messages",
        "_node",
        "_sends",
        "_starving",
        "_value",
        "error",
        "over",
        "token",
    )

    def __init__(self, node: Any, function: Callable[..., Any], messages: Iterable[Any], *, sends: bool) -> None:
        self._node = node
        self._function = function
        self._sends = sends
        self._messages: list[MessageHandle] = list(dict.fromkeys(messages))
        self._drafts: list[_Draft] = []
        self._value: Any = None
        self._collecting = False
        self._deserted = False
        #: the last outbox that had no room, and what the function was told
        self._full: Session | None = None
        self._starving: OutboxFull | None = None
        #: is it on disk, or undone?
        self.over = False
        self.error: BaseException | None = None
        self.token = node.token()
        for message in self._messages:
            if message.peer.node is not node:
                raise UsageError(f"message {message.sequence} from {message.peer.id} belongs to another node")
            message.check_held()
        for message in self._messages:
            message.reserve()

    # -- in the store's thread ------------------------------------------------------------------------------------

    def call(self, db: Any) -> object:
        """Call the application's function; returns its value for the store to see, raises what it raises."""
        self._collecting = True
        try:
            value = self._function(db, self._send) if self._sends else self._function(db)
        finally:
            self._collecting = False
        if hasattr(value, "__await__"):
            if hasattr(value, "close"):
                value.close()
            raise UsageError("the function of a transaction is a coroutine; make it a plain function: it may not wait")
        self._value = value
        return value

    def _send(
        self, peer: Any, data: Any, *, headers: Mapping[str, object] | None = None, raw: bool = False
    ) -> Any:
        """Collect a message to ``peer`` (a peer of this node, or its id); its receipt, good once all is on disk.

        Raises EncodeError, MessageTooLarge, ConfigurationError (an unusable id), SessionClosed, NodeClosed;
        OutboxFull, and if that comes out of the function, it is called again when there is room.
        """
        if not self._collecting:
            raise UsageError("this send() belongs to a transaction that is over; call it in the function only")
        node = self._node
        peer_id = peer if isinstance(peer, str) else peer.id
        payload = node.payload(data, raw)
        known = node.peer_if_known(peer_id)
        if known is None:
            _check_stranger(node, peer_id, payload, headers)
        else:
            session: Session = known.session
            session.check_open()
            session.check_size(payload, headers)
            if not session.has_room:
                self._full, self._starving = session, OutboxFull(f"the outbox to {peer_id} is full")
                raise self._starving
        receipt: ReceiptHandle = node.receipts(known, 0)
        self._drafts.append(_Draft(receipt, peer_id, payload, None if headers is None else dict(headers), raw))
        return receipt

    # -- inside the node ------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """The function has returned: accept what it sent, and let the next batch have it all.

        Raises SessionClosed, NodeClosed, MessageTooLarge for what has changed meanwhile; nothing was done then.
        """
        node = self._node
        peers = [node.peer_within(draft.peer_id, node.time) for draft in self._drafts]
        for peer, draft in zip(peers, self._drafts, strict=True):
            peer.session.check_open()
            peer.session.check_size(draft.payload, draft.headers)
        for peer, draft in zip(peers, self._drafts, strict=True):
            self._accept(peer, draft)
        for message in self._messages:
            session, inbox = message.peer.session, message.inbox
            inbox.committing.add(message.sequence)
            # else its sender went on to another outbox
            if session.journal is not None and (inbox is session.inbox or inbox.kept):
                session.journal.want(InboxMoved)

    def _accept(self, peer: Any, draft: _Draft) -> None:
        session: Session = peer.session
        session.overfull = True
        try:
            sequence = session.send(draft.payload, self._node.time, headers=draft.headers, raw=draft.raw)
        finally:
            session.overfull = False
        draft.receipt.peer, draft.receipt.sequence = peer, sequence
        assert session.journal is not None
        session.journal.follow(draft.receipt)

    def done(self, now: float) -> None:
        """It is on disk: settle the messages."""
        deliveries: dict[Session, list[Any]] = {}
        for message in self._messages:
            deliveries.setdefault(message.peer.session, []).append(message.committed())
        for session, those in deliveries.items():
            session.settle_all(those, now)
        self._end()

    def failed(self, error: BaseException, now: float) -> None:
        """It is undone."""
        self.error = error
        why = error if isinstance(error, JournalError) else JournalError("its transaction was undone")
        for draft in self._drafts:
            if not draft.receipt.sequence:
                draft.receipt.refusal = why
        for message in self._messages:
            message.unreserve()
            if self._deserted and not self._node.closed:
                message.finish("released", now)
        self._end()

    def _end(self) -> None:
        for message in self._messages:
            message.inbox.committing.discard(message.sequence)
        self.over = True
        self.token.set()

    def desert(self) -> None:
        """Nobody waits for it any more, and it has begun."""
        self._deserted = True

    @property
    def starved(self) -> Session | None:
        """Whose outbox had no room, so that it is undone: then it is to be tried again."""
        return self._full if self.error is not None and self.error is self._starving else None

    @property
    def value(self) -> Any:
        """What the function returned; raises the error for which it is undone."""
        if self.error is not None:
            raise self.error
        return self._value


def _check_stranger(node: Any, peer_id: str, payload: bytes, headers: Mapping[str, object] | None) -> None:
    """A message to a peer that this node does not know: raise what sending it would."""
    if check_peer_id(peer_id) == node.id:
        raise ConfigurationError(f"{peer_id} is this node's own id; a node has no session with itself")
    size = len(payload) + (len(encode_headers(headers)) if headers else 0)
    quotas = node.endpoint.quotas
    limit = quotas.of(peer_id).limits.message
    if size > limit:
        text = f"a message of {size} bytes to {peer_id} is over the limit of {limit} here; {quotas.advice(peer_id)}"
        raise MessageTooLarge(text)


def transacting(
    node: Any, function: Callable[..., T], messages: Iterable[Any] = (), *, sends: bool
) -> Operation[T]:
    """Call ``function(db)``, or ``function(db, send)``, in a transaction that acknowledges ``messages``; its value.

    Raises what the function raises; ConfigurationError without a journal, MessageNotHeld, JournalError, NodeClosed.
    """
    keeper = node.keeper
    if keeper is None:
        raise ConfigurationError(
            f"node {node.id} has no journal, and so no database: make it with Node({node.id!r}, journal='FILE')"
        )
    messages = list(messages)
    while True:
        keeper.check("the transaction")
        transaction = Transaction(node, function, messages, sends=sends)
        keeper.begin(transaction)
        try:
            while not transaction.over:
                yield transaction.token
        except BaseException:
            if not transaction.over and not keeper.withdraw(transaction):
                transaction.desert()
            raise
        if transaction.starved is None:
            value: T = transaction.value
            return value
        yield from node.finding_room(transaction.starved)
