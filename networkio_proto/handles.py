"""What an application holds of single messages: a received one, and the receipt of one that it sent.

Theory of operation
-------------------
A handle is made when the application asks for it, from the core's light tuple (a
:data:`~networkio_proto.inbox.Delivery`) or from a sequence.  Everything that needs no waiting is here and is the same
for every driver: a command goes ``inside`` (between the driver's ``enter`` and ``leave``, which are its lock or loop).
What may wait is an :data:`~networkio_proto.operations.Operation`, and a driver's subclass gives it its own way of
waiting.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from .errors import DecodeError, JournalError, MessageNotHeld, NotARequest, Outcome, UsageError, printable
from .events import GapRange, Positions
from .frames import DataFlag
from .inbox import Delivery, Details, Inbox, message_id, name
from .ledger import Failure
from .operations import Operation
from .requests import REPLY, request_of

__all__ = ["Iteration", "IteratorHandle", "MessageHandle", "ReceiptHandle"]

M = TypeVar("M", bound="MessageHandle")

_NOTHING = Details()
_COMMITTING = "committing"
_UNDECODED: Any = object()

#: as a plain number: operators of a flag are functions of Python, and slow
_RAW = int(DataFlag.RAW)


class MessageHandle:
    """A received message (guarantees, *Who holds a message*).

    It is *held* by whoever took it until :meth:`ack`, :meth:`reject` or :meth:`release`.  Repeating the same of the
    three is harmless; anything else on a message that is no longer held raises MessageNotHeld.
    """

    __slots__ = ("_data", "_delivery", "_end", "peer")

    def __init__(self, peer: Any, delivery: Delivery) -> None:
        #: the peer that sent it
        self.peer: Any = peer
        self._delivery = delivery
        self._data: Any = _UNDECODED
        self._end = ""  # how it was settled, or what is about to settle it

    def __repr__(self) -> str:
        return f"<Message {self.sequence} from {self.peer.id}: {len(self.raw)} bytes {self._end or 'held'}>"

    # -- facts --------------------------------------------------------------------------------------------------

    @property
    def data(self) -> Any:
        """The payload as an object, decoded when first asked for; raw payloads are bytes.

        Raises DecodeError if it cannot be decoded, whatever the codec raised (``__cause__``); the message is then still
        held, and can be read :attr:`raw`.
        """
        if self._data is _UNDECODED:
            raw = self._delivery[2]
            try:
                self._data = raw if self._delivery[3] & _RAW else self.peer.node.codec.decode(raw)
            except Exception as error:  # a user's codec may raise anything
                raise self.undecodable(error) from error
        return self._data

    def undecodable(self, error: Exception) -> DecodeError:
        """What its reader is told when the codec raised ``error``."""
        why = error if isinstance(error, DecodeError) else printable(f"{type(error).__name__}: {error}")
        return DecodeError(
            f"message {self.sequence} from {self.peer.id} cannot be decoded: {why}; "
            f"it can be read raw, rejected or acknowledged"
        )

    @property
    def raw(self) -> bytes:
        """The payload's bytes as they came."""
        return self._delivery[2]

    @property
    def sequence(self) -> int:
        """Its number in the peer's outbox."""
        return self._delivery[1]

    @property
    def id(self) -> str:
        """The same for every transmission of this message, and for no other message: fit to be idempotent on."""
        return message_id(self._delivery)

    @property
    def headers(self) -> dict[str, object]:
        """What the sender sent along; empty if nothing."""
        return self._details.users_headers

    @property
    def redelivered(self) -> bool:
        """A dead process of this peer id may have seen it before (promise G5)."""
        return self._details.redelivered

    @property
    def attempt(self) -> int:
        """How often it was handed over here, this time included."""
        return self._details.attempt

    @property
    def gap(self) -> tuple[GapRange, ...]:
        """Which messages right before this one will not come, and why."""
        return self._details.gap

    @property
    def peer_restarted(self) -> Positions | None:
        """Set on the first message of a new process of the peer: where the old one's outbox stood."""
        return self._details.peer_restarted

    @property
    def wants_reply(self) -> bool:
        """Does the sender wait for a :meth:`reply`?"""
        return request_of(self._details.headers) is not None

    @property
    def held(self) -> bool:
        """Neither settled nor released yet, nor being committed?"""
        return not self._end

    @property
    def settled(self) -> bool:
        """Was it acknowledged or rejected?"""
        return self._end in ("acknowledged", "rejected")

    @property
    def _details(self) -> Details:
        return self._delivery[4] or _NOTHING

    # -- commands -----------------------------------------------------------------------------------------------

    def ack(self) -> None:
        """The application is done with it: the sender learns READ.  Raises MessageNotHeld, WrongThread."""
        self._command("acknowledged")

    def reject(self, reason: str = "", code: int = 0) -> None:
        """Refuse it for good: the sender learns REJECTED with these words (``code``: 0 to 65535).

        Raises MessageNotHeld, ConfigurationError (a code or reason that cannot be sent), WrongThread.
        """
        self._command("rejected", (code, reason))

    def release(self) -> None:
        """Give it back to its old place; it is handed over again, ``attempt`` + 1.  Raises MessageNotHeld."""
        self._command("released")

    def _command(self, end: str, reject: tuple[int, str] | None = None) -> None:
        node = self.peer.node
        now = node.enter()  # as ``with node.inside``; this is the way of every message
        try:
            self.finish(end, now, reject)
        finally:
            node.leave()

    def finish(self, end: str, now: float, reject: tuple[int, str] | None = None) -> None:
        """How it ends here ("acknowledged", "rejected" or "released"); for the driver, between enter and leave."""
        if self._end == end:
            return
        self.check_held()
        if end == "released":
            self.peer.session.release(self._delivery, now)
        else:
            self.peer.session.settle(self._delivery, now, reject=reject)
        self._end = end

    def check_held(self) -> None:
        """Raise MessageNotHeld if it is not."""
        if self._end:
            how = "is being committed" if self._end == _COMMITTING else f"was {self._end} before"
            raise MessageNotHeld(f"message {self.sequence} from {self.peer.id} {how}")

    # -- for transactions -----------------------------------------------------------------------------------------

    @property
    def inbox(self) -> Inbox:
        """Where it came."""
        return self._delivery[0]

    def reserve(self) -> None:
        """A transaction is going to settle it, and nobody else may."""
        self._end = _COMMITTING

    def unreserve(self) -> None:
        """It came to nothing."""
        self._end = ""

    def committed(self) -> Delivery:
        """It is on disk: what is to be settled now."""
        self._end = "acknowledged"
        return self._delivery

    def handled(self, failed: bool) -> None:
        """The end of ``with message``: acknowledged on success, released on an exception, unless it has its end."""
        if self.held:
            self._command("released" if failed else "acknowledged")

    def _replying(self, data: Any, headers: Mapping[str, object] | None, raw: bool) -> Operation[Any]:
        """Accept the reply to a request; its receipt."""
        number = request_of(self._details.headers)
        if number is None:
            raise NotARequest(f"message {self.sequence} from {self.peer.id} is no request: nobody waits for a reply")
        payload = self.peer.node.payload(data, raw)
        accepting: Operation[Any] = self.peer.accepting(payload, headers=headers, raw=raw, reserved={REPLY: number})
        return accepting


class ReceiptHandle:
    """The sender's side of one accepted message.  It costs nothing until somebody waits for it."""

    __slots__ = ("peer", "refusal", "sequence")

    #: why the message is not in the journal, and so was never accepted; unset otherwise, for that costs nothing
    refusal: JournalError

    def __init__(self, peer: Any, sequence: int) -> None:
        #: the peer that it was sent to
        self.peer: Any = peer
        #: its number in the outbox to that peer; it never changes.  0: its transaction is not over yet
        self.sequence = sequence

    def __repr__(self) -> str:
        outcome = self.outcome
        state = outcome.value if outcome else "refused by the journal" if self.refused else "under way"
        return f"<Receipt {self.sequence} to {self.peer.id if self.peer else 'a new peer'}: {state}>"

    @property
    def id(self) -> str:
        """The message's ``id``, as the peer sees it too; ``Node.receipt`` finds it again, in a later process as well.

        Raises UsageError if it has none: its transaction is not over, it was never accepted, or after it the outbox was
        renamed more than 64 times (old copies of journals).
        """
        self._check_sent()
        outbox_id: bytes | None = None if self.refused else self.peer.session.outbox.name_of(self.sequence)
        if outbox_id is None:
            why = "was never accepted" if self.refused else "was accepted so long ago that its name is forgotten"
            raise UsageError(f"message {self.sequence} to {self.peer.id} {why}")
        return name(outbox_id, self.sequence)

    @property
    def outcome(self) -> Outcome | None:
        """How it ended; None while it is under way (promise G3)."""
        if not self.sequence:
            return None
        with self.peer.node.looking:
            outcome: Outcome | None = None if self.refused else self.peer.session.outcome(self.sequence)
        return outcome

    @property
    def failure(self) -> Failure | None:
        """The record of its end, if it was not read."""
        if not self.sequence:
            return None
        with self.peer.node.looking:
            failure: Failure | None = None if self.refused else self.peer.session.failure(self.sequence)
        return failure

    def _cancelling(self) -> Operation[bool]:
        """End it; with a journal, wait until that is on disk."""
        self._check_sent()
        node, session = self.peer.node, self.peer.session
        cancelled: bool = self.refused or session.cancel(self.sequence, node.time)
        while node.keeper is not None and self.sequence in (session.outbox.ends or ()):
            node.keeper.check(f"the end of message {self.sequence} to {self.peer.id}, which is kept in memory only")
            yield from node.changing()
        return cancelled

    def _until(self, *, read: bool) -> Operation[None]:
        """Wait until it is received, or read; raises the typed DeliveryFailure if it ended otherwise."""
        self._check_sent()
        while not self.done(read=read):
            yield from self.peer.waiting_for(self.sequence, read=read)

    def done(self, *, read: bool) -> bool:
        """Is it received, or read?  Raises the typed DeliveryFailure if it ended otherwise.

        With a journal also the JournalError for which it could not be written, and so was never accepted.
        """
        if self.refused:
            raise self.refusal.anew(self.sequence, self.peer.id)
        failure = self.peer.session.failure(self.sequence)
        if failure is not None:
            raise failure.error(self.sequence)
        outbox = self.peer.session.outbox
        return bool(self.sequence <= (outbox.read if read else max(outbox.received, outbox.read)))

    def _check_sent(self) -> None:
        if not self.sequence:
            refusal = getattr(self, "refusal", None)
            text = "it is sent when its transaction is on disk" if refusal is None else f"it was not sent: {refusal}"
            raise UsageError(f"this receipt has no message: {text}")

    @property
    def refused(self) -> bool:
        """Could it not be written to the journal?  Then it was never accepted, and its number is another message's."""
        return (self.peer is None or self.peer.node.keeper is not None) and hasattr(self, "refusal")


class Iteration(Generic[M]):
    """``for message in peer``: each message is acknowledged when the next is asked for.

    The driver's iterator owns one and closes it when its loop is left, be it by its finalizer: that may run anywhere,
    so what is given back goes through ``node.give_back``, which waits for a moment when the core can be touched.
    """

    __slots__ = ("_held", "_peer")

    def __init__(self, peer: Any) -> None:
        self._peer: Any = peer
        self._held: M | None = None

    def settle(self) -> None:
        """Acknowledge the one in hand; between enter and leave."""
        held, self._held = self._held, None
        if held is not None and not held._end:
            held.finish("acknowledged", self._peer.node.time)

    def advance(self) -> M | None:
        """Acknowledge the one in hand, then take the next, None if there is none now; between enter and leave.

        Raises NoMoreMessages after the peer's end.
        """
        self.settle()
        try:
            self._held = self._peer.take()
        except BaseException:
            self.close()  # a loop ends with what it raises; the traceback may keep its iterator alive
            raise
        return self._held

    def step(self) -> M | None:
        """The short way of :meth:`advance`, where the node is handy; None: that has to see to it."""
        peer, held = self._peer, self._held
        reading = peer.reading()
        delivery = None if reading is None else reading.exchange(None if held is None or held._end else held._delivery)
        if delivery is None:
            return None
        if held is not None and not held._end:
            held._end = "acknowledged"
        message: M = peer._message(peer, delivery)
        self._held = message
        return message

    def advancing(self) -> Operation[M]:
        """The same, when there is one."""
        message = self.advance()
        if message is None:
            try:
                message = self._held = yield from self._peer.receiving()
            except BaseException:
                self.close()
                raise
        return message

    def close(self) -> None:
        """The loop was left: what it held and did not settle is given back, and is the next to be taken."""
        self._peer.iteration_over(self)
        held, self._held = self._held, None
        if held is not None and held.held:
            self._peer.node.give_back(held)


class IteratorHandle(Generic[M]):
    """What ``iter(peer)`` or ``aiter(peer)`` returns, but for its way of waiting."""

    __slots__ = ("_iteration", "_node")

    def __init__(self, peer: Any) -> None:
        self._iteration: Iteration[M] = peer.iterate()
        self._node: Any = peer.node

    def advance(self) -> M | None:
        """The next message, if there is one now; the one before is acknowledged.  Raises NoMoreMessages."""
        node = self._node
        node.enter()
        try:
            return self._iteration.advance()
        finally:
            node.leave()

    def close(self) -> None:
        """The loop was left: what it held and did not settle is given back, and is the next to be taken."""
        self._iteration.close()

    def __del__(self) -> None:
        if hasattr(self, "_iteration"):  # else there was another one already
            self._iteration.close()
