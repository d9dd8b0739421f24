"""Being told of every message: one interface for tracing, and for metrics of one's own.

Theory of operation
-------------------
An application that wants to follow messages gives its node an :class:`Instrumentation`.  Its methods are called where
the thing happens, inside of the core, so they must return at once, must not wait, and must not call the node: with
``networkio_threads`` the node's lock is held.  They are called in the thread (and the task, where there are tasks) that
sends, takes or settles; what the network brings is told in the thread that reads it.

It can see names, sequences, headers and sizes, never payloads, and it can add headers.  It can do no harm: what it
raises, and headers that could not be sent, are logged once for each method, and the message goes its way without.

Without one nothing of this costs anything but the question whether there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from .errors import ConnectionFailure, MessageTooLarge, Outcome
from .events import ResumeReport
from .headers import encode_headers
from .inbox import Delivery, Details, message_id

if TYPE_CHECKING:
    from .endpoint import Endpoint

__all__ = ["HandedOver", "How", "Instrumentation", "Observer"]

#: how a message that was handed over left the application's hands
How: TypeAlias = Literal["acknowledged", "rejected", "released"]

_NOTHING = Details()


@dataclass(frozen=True, slots=True)
class HandedOver:
    """A received message, without its payload."""

    #: who sent it
    peer_id: str
    #: the same for every transmission of this message, and for no other: ``message.id``
    id: str
    #: its number in the peer's outbox
    sequence: int
    #: what the sender sent along; a copy
    headers: dict[str, object]
    #: of the payload, in bytes
    size: int
    #: how often it was handed over here, this time included
    attempt: int
    #: a dead process of this peer id may have seen it before
    redelivered: bool


class Instrumentation:
    """To be derived from; every method does nothing until it is overridden.  See the module for where they run."""

    def sending(self, peer_id: str, headers: Mapping[str, object]) -> Mapping[str, object]:
        """A message is about to be accepted; returns the headers that it gets, which may be more.

        It is called once for each message, when nothing stands in its way any more, and :meth:`accepted` follows.
        Values are of the closed set (None, bool, int, float, str, bytes, lists and maps of these).
        """
        return headers

    def accepted(self, peer_id: str, sequence: int, headers: Mapping[str, object]) -> None:
        """It is in the outbox, with these headers."""

    def outcome(self, peer_id: str, sequence: int, outcome: Outcome) -> None:
        """A message to the peer has ended so: once for each, READ in the order of sequences, others at any time."""

    def receiving(self, message: HandedOver) -> None:
        """A message was handed to the application; a reply, to whoever waits for it."""

    def settled(self, message: HandedOver, how: How) -> None:
        """The application is done with it, or gave it back: ``"released"``, it will be handed over again."""

    def connected(self, peer_id: str, report: ResumeReport) -> None:
        """The session with the peer has a live connection."""

    def disconnected(self, peer_id: str, error: ConnectionFailure) -> None:
        """It has it no longer.  One that was superseded by a newer one is told here too, before :meth:`connected`."""


class Observer:
    """Calls the instrumentation of one endpoint, and catches what it raises."""

    __slots__ = ("_broken", "_endpoint", "_given")

    def __init__(self, given: Instrumentation, endpoint: Endpoint) -> None:
        self._given = given
        self._endpoint = endpoint
        #: methods that failed, which was told
        self._broken: set[str] = set()

    # -- sending ------------------------------------------------------------------------------------------------

    def sending(
        self, peer_id: str, headers: Mapping[str, object] | None, reserved: Mapping[str, object] | None,
        encoded: bytes, room: int,
    ) -> tuple[Mapping[str, object], bytes]:  # fmt: skip
        """The headers that go along and how they are encoded; ``room`` is what the message's limit leaves them."""
        given = dict(headers or {})
        try:
            changed = self._given.sending(peer_id, given)
            again = encode_headers(changed, reserved) if changed or reserved else b""
            if len(again) > room:
                raise MessageTooLarge(f"{len(again)} bytes of headers, where the limit of the message leaves {room}")
        except Exception as error:
            self._failed("sending", error)
            return dict(headers or {}), encoded
        return changed, again

    def accepted(self, peer_id: str, sequence: int, headers: Mapping[str, object]) -> None:
        """A message is in the outbox."""
        self._call("accepted", self._given.accepted, peer_id, sequence, headers)

    def outcomes(self, peer_id: str) -> Callable[[int, Outcome], None]:
        """For the outbox to this peer: what to call with the end of each message."""
        return partial(self._outcome, peer_id)

    def _outcome(self, peer_id: str, sequence: int, outcome: Outcome) -> None:
        self._call("outcome", self._given.outcome, peer_id, sequence, outcome)

    # -- receiving ----------------------------------------------------------------------------------------------

    def receiving(self, peer_id: str, deliveries: Iterable[Delivery]) -> None:
        """Messages were handed over."""
        for delivery in deliveries:
            self._call("receiving", self._given.receiving, _handed_over(peer_id, delivery))

    def settled(self, peer_id: str, delivery: Delivery, how: How) -> None:
        """One was settled or released."""
        self._call("settled", self._given.settled, _handed_over(peer_id, delivery), how)

    # -- connections --------------------------------------------------------------------------------------------

    def connected(self, peer_id: str, report: ResumeReport) -> None:
        """A connection is live."""
        self._call("connected", self._given.connected, peer_id, report)

    def disconnected(self, peer_id: str, error: ConnectionFailure) -> None:
        """A live connection ended."""
        self._call("disconnected", self._given.disconnected, peer_id, error)

    # -- keeping it harmless ------------------------------------------------------------------------------------

    def _call(self, kind: str, method: Callable[..., None], *arguments: Any) -> None:
        try:
            method(*arguments)
        except Exception as error:
            self._failed(kind, error)

    def _failed(self, kind: str, error: Exception) -> None:
        if kind not in self._broken:
            self._broken.add(kind)
            self._endpoint.logbook.instrumentation_failed(kind, error)


def _handed_over(peer_id: str, delivery: Delivery) -> HandedOver:
    details = delivery[4] or _NOTHING
    return HandedOver(
        peer_id=peer_id,
        id=message_id(delivery),
        sequence=delivery[1],
        headers=details.users_headers,
        size=len(delivery[2]),
        attempt=details.attempt,
        redelivered=details.redelivered,
    )
