"""What an application holds: one received message, one receipt.  The part that every adapter shares.

Theory of operation
-------------------
A handle is made when the application asks for it, from the core's light tuple (a
:data:`~networkio_proto.inbox.Delivery`) or from a sequence.  It knows what can be known without waiting; an adapter's
subclass adds its clock, its lock or loop, and its way of waiting.
"""

from __future__ import annotations

from typing import Any

from .errors import DecodeError, DeliveryFailure, MessageNotHeld, Outcome
from .events import GapRange, Positions
from .frames import DataFlag
from .inbox import Delivery, Details
from .ledger import Failure
from .payload import Codec
from .session import Session

__all__ = ["MessageHandle", "ReceiptHandle"]

_NOTHING = Details()
_UNDECODED: Any = object()


class MessageHandle:
    """A received message (guarantees, *Who holds a message*).

    It is *held* by whoever took it until :meth:`ack`, :meth:`reject` or :meth:`release`.  Repeating the same of the
    first two is harmless; settling a message that was given back raises MessageNotHeld.
    """

    __slots__ = ("_codec", "_data", "_delivery", "_end", "_session")

    def __init__(self, session: Session, delivery: Delivery, codec: Codec) -> None:
        self._session = session
        self._delivery = delivery
        self._codec = codec
        self._data: Any = _UNDECODED
        self._end = ""  # how it was settled

    def __repr__(self) -> str:
        return f"<Message {self.sequence} from {self._session.peer_id}: {len(self.raw)} bytes {self._end or 'held'}>"

    @property
    def data(self) -> Any:
        """The payload as an object, decoded when first asked for; raw payloads are bytes.

        Raises DecodeError if it cannot be decoded; the message is then still held, and can be read :attr:`raw`.
        """
        if self._data is _UNDECODED:
            raw = self._delivery[2]
            try:
                self._data = raw if self._delivery[3] & DataFlag.RAW else self._codec.decode(raw)
            except DecodeError as error:
                raise DecodeError(
                    f"message {self.sequence} from {self._session.peer_id} cannot be decoded: {error}; "
                    f"it can be read raw, rejected or acknowledged"
                ) from error
        return self._data

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
        origin = self._details.origin or self._delivery[0].outbox_id + self.sequence.to_bytes(8, "big")
        return f"{origin[:16].hex()}-{int.from_bytes(origin[16:], 'big')}"

    @property
    def headers(self) -> dict[str, object]:
        """What the sender sent along; empty if nothing."""
        return self._details.headers or {}

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
    def held(self) -> bool:
        """Neither settled nor released yet?"""
        return not self._end

    @property
    def settled(self) -> bool:
        """Was it acknowledged or rejected?"""
        return self._end in ("acknowledged", "rejected")

    @property
    def _details(self) -> Details:
        return self._delivery[4] or _NOTHING

    def _settle(self, end: str, now: float, reject: tuple[int, str] | None = None) -> None:
        """Acknowledge or reject; the adapter's methods call this under its lock or on its loop."""
        if self._end == end:
            return
        if self._end:
            raise MessageNotHeld(f"message {self.sequence} from {self._session.peer_id} was {self._end} before")
        self._session.settle(self._delivery, now, reject=reject)
        self._end = end

    def _give_back(self, now: float) -> None:
        if self._end:
            if self._end == "released":
                return
            raise MessageNotHeld(f"message {self.sequence} from {self._session.peer_id} was {self._end} before")
        self._session.release(self._delivery, now)
        self._end = "released"


class ReceiptHandle:
    """The sender's side of one accepted message.  It costs nothing until somebody waits for it."""

    __slots__ = ("_session", "sequence")

    def __init__(self, session: Session, sequence: int) -> None:
        self._session = session
        #: its number in the outbox to that peer; it never changes
        self.sequence = sequence

    def __repr__(self) -> str:
        outcome = self.outcome
        return f"<Receipt {self.sequence} to {self._session.peer_id}: {outcome.value if outcome else 'under way'}>"

    @property
    def outcome(self) -> Outcome | None:
        """How it ended; None while it is under way (promise G3)."""
        return self._session.outcome(self.sequence)

    @property
    def failure(self) -> Failure | None:
        """The record of its end, if it was not read."""
        return self._session.failure(self.sequence)

    def _done(self, *, read: bool) -> bool:
        """Is the wait over?  Raises the typed failure if it ended otherwise."""
        error = self._error()
        if error is not None:
            raise error
        outbox = self._session.outbox
        return self.sequence <= (outbox.read if read else max(outbox.received, outbox.read))

    def _error(self) -> DeliveryFailure | None:
        failure = self.failure
        return None if failure is None else failure.error(self.sequence)
