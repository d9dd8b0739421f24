"""Requests and replies: which message answers which.

Theory of operation
-------------------
A request is a message like any other whose reserved header ``.request`` holds 16 bytes that nobody else draws; its
reply carries the same bytes as ``.reply``.  A reply does not join the stream of messages: it is diverted when it
arrives (:class:`~networkio_proto.inbox.Inbox`) and waits here for whoever asked.  It is settled when it is picked up.
A reply that nobody waits for (the requester gave up, or restarted, or has its answer already) is settled and dropped,
so it can neither fill the window nor turn up as a message that nobody understands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .inbox import Delivery
    from .operations import Token

__all__ = ["REPLY", "REQUEST", "Request", "Requests", "reply_to", "request_of"]

#: reserved headers (specification, *Header keys*)
REQUEST = ".request"
REPLY = ".reply"

_NUMBER_BYTES = 16


class Request:
    """One who waits for a reply."""

    __slots__ = ("delivery", "number", "over", "token")

    def __init__(self, number: bytes) -> None:
        self.number = number
        #: set when it is worth looking again; None while nobody waits
        self.token: Token | None = None
        #: the reply, once it is there
        self.delivery: Delivery | None = None
        #: the peer ended the conversation: none will come
        self.over = False


class Requests:
    """The requests of one session that are not answered yet."""

    __slots__ = ("_due", "_waiting", "dropped")

    def __init__(self) -> None:
        self._waiting: dict[bytes, Request] = {}
        self._due: list[Request] = []
        #: replies that nobody waited for
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def open(self, number: bytes) -> Request:
        """Wait for the reply with that number, from now until :meth:`close`."""
        request = self._waiting[number] = Request(number)
        return request

    def close(self, request: Request) -> None:
        """Its reply is no longer waited for."""
        self._waiting.pop(request.number, None)

    def answer(self, delivery: Delivery) -> bool:
        """A reply came; False if nobody waits for it."""
        number = reply_to(delivery[4].headers if delivery[4] is not None else None)
        request = None if number is None else self._waiting.get(number)
        if request is None or request.delivery is not None:
            self.dropped += 1
            return False
        request.delivery = delivery
        self._due.append(request)
        return True

    def give_up(self) -> None:
        """No more replies will come to those who wait now, whoever answers later under the peer's name."""
        for request in self._waiting.values():
            request.over = True
        self._due = list(self._waiting.values())

    def due(self) -> list[Token]:
        """The tokens of those whose wait is over since this was asked last."""
        requests, self._due = self._due, []
        return [request.token for request in requests if request.token is not None]

    def all(self) -> list[Token]:
        """Every token that waits."""
        return [request.token for request in self._waiting.values() if request.token is not None]


def reply_to(headers: dict[str, object] | None) -> bytes | None:
    """The number of the request that a message answers; None if it is not a reply."""
    return _number(headers, REPLY)


def request_of(headers: dict[str, object] | None) -> bytes | None:
    """The number that a reply to this message must carry; None if it is not a request."""
    return _number(headers, REQUEST)


def _number(headers: dict[str, object] | None, key: str) -> bytes | None:
    number = headers.get(key) if headers else None
    return number if isinstance(number, bytes) and len(number) == _NUMBER_BYTES else None
