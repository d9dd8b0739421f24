"""What the commands see of a node: blocking calls with the adapters' names, whichever adapter is behind them.

Theory of operation
-------------------
Each command is written once, as plain blocking code against the protocols of this module.  Where an adapter runs an
event loop, every call crosses into another thread and back, which costs as much as a dozen messages; so there is
nothing here that would have to be called for each message of a stream.  Streams go through :meth:`Peer.send_some`,
:meth:`Peer.receive_some` and :meth:`Peer.settle`, a batch a call.

A call that waits takes a ``timeout`` and is given a short one, so that a command notices Ctrl-C: the library itself is
never interrupted.  What may take long returns a Future instead; to cancel it is to stop waiting.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from networkio_proto import (
    Config,
    ConnectionFailure,
    EncodeError,
    Event,
    Failure,
    Ledger,
    MessageTooLarge,
)
from networkio_proto.handles import MessageHandle
from networkio_proto.peers import PeerHandle

from ._trust import Trust

__all__ = ["ADAPTERS", "Node", "Peer", "PeerFacts", "Receipt", "accepting", "of_peer", "open_node"]

T = TypeVar("T")

ADAPTERS = ("asyncio", "threads")

#: somebody looks on: a second without a try is long
_CONFIG = Config(backoff_max=1.0, retry_quick=0.02)


class Receipt(Protocol):
    """The sender's side of one accepted message."""

    @property
    def sequence(self) -> int:
        """Its number in the outbox."""
        ...

    def received(self, timeout: float) -> None:
        """Wait until the peer's library holds it; raises DeliveryFailure, TimeoutError."""
        ...

    def read(self, timeout: float) -> None:
        """Wait until the peer's application has acknowledged it; raises DeliveryFailure, TimeoutError."""
        ...


class Peer(Protocol):
    """Another node, and the conversation with it; the same object each time, so that it can be a key."""

    @property
    def id(self) -> str:
        """Its peer id."""
        ...

    @property
    def connected(self) -> bool:
        """Is there a live connection?"""
        ...

    @property
    def incarnation(self) -> str:
        """Which run of the peer's process it is, in hexadecimal digits; empty before the first connection."""
        ...

    @property
    def ledger(self) -> Ledger:
        """What became of the messages to this peer so far."""
        ...

    @property
    def reconnects(self) -> int:
        """How many connections followed the first."""
        ...

    @property
    def unread(self) -> int:
        """Messages to it that its application has not read, those of earlier processes included."""
        ...

    @property
    def unreceived(self) -> int:
        """Messages to it that its library is not known to hold."""
        ...

    def why(self) -> str:
        """One sentence that says what the messages to this peer are waiting for."""
        ...

    def failures(self) -> list[Failure]:
        """The messages that ended otherwise than READ, as ranges."""
        ...

    def send_some(self, items: Sequence[object], *, raw: bool, timeout: float) -> tuple[int, Receipt | None]:
        """Accept as many of ``items`` as there is room for: their number, and the receipt of the last one.

        Waits up to ``timeout`` seconds for the first.  Raises EncodeError or MessageTooLarge only because of the
        first; so what was accepted before is known.
        """
        ...

    def send_all(
        self, items: Sequence[object], note: Callable[[Any, int], None], *, raw: bool
    ) -> Future[tuple[int, Receipt]]:
        """Accept ``items`` in one transaction of the journal: their number, and the receipt of the last one.

        ``note(db, number)`` is called in it, to write what has to be on disk with them, and once more after each time
        that there was no room.  The first that cannot be sent ends them, and if nothing stands before it, the Future
        raises its EncodeError or MessageTooLarge.  It raises JournalError, too.
        """
        ...

    def commit(
        self, messages: Sequence[MessageHandle], rejected: Mapping[int, str], note: Callable[[Any], None]
    ) -> Future[None]:
        """As :meth:`settle`, with what ``note(db)`` writes in the transaction of the acknowledgements.

        The Future raises JournalError; then nothing of it was done.
        """
        ...

    def receive_some(self, limit: int, size: int) -> list[MessageHandle]:
        """The messages that are there, until there are ``limit`` of them or ``size`` bytes; the caller settles them."""
        ...

    def settle(self, messages: Sequence[MessageHandle], rejected: Mapping[int, str]) -> None:
        """Acknowledge them; reject those whose places in ``messages`` are keys of ``rejected``, with its reasons."""
        ...

    def round_trip(self, data: object, headers: Mapping[str, object], timeout: float) -> Future[float]:
        """Send one message and wait until it is read: the seconds from one to the other.

        The Future raises TimeoutError if that takes longer than ``timeout``, DeliveryFailure if it will never be.
        """
        ...

    def end(self) -> None:
        """Nothing more follows from this side."""
        ...


class PeerFacts:
    """What can be read off a peer from any thread, whichever adapter it is of."""

    def __init__(self, peer: PeerHandle[Any, Any]) -> None:
        self.id = peer.id
        self._session = peer.session

    @property
    def connected(self) -> bool:
        return self._session.connected

    @property
    def incarnation(self) -> str:
        return (self._session.peer_incarnation or b"").hex()

    @property
    def reconnects(self) -> int:
        return max(0, self._session.connections - 1)

    @property
    def unread(self) -> int:
        return self._session.unacknowledged

    @property
    def unreceived(self) -> int:
        outbox = self._session.outbox
        return max(0, outbox.next - 1 - outbox.received)


class Node(Protocol):
    """One identity on the network, open as long as :func:`open_node`'s block lasts."""

    @property
    def id(self) -> str:
        """Its peer id."""
        ...

    def listen(self, host: str, port: int) -> int:
        """Accept connections; the port.  Raises AddressError, ConfigurationError."""
        ...

    def connect(self, host: str, port: int, peer_id: str | None) -> Future[Peer]:
        """Keep a connection to this address; without an id the Future waits until somebody answered there.

        It raises the ConnectionFailure that only a human can mend, and ConfigurationError.
        """
        ...

    def dial_error(self) -> ConnectionFailure | None:
        """Why the address that was to be connected to did not answer the last time."""
        ...

    def peer(self, peer_id: str) -> Peer:
        """The peer of that id, known already or not."""
        ...

    def record(self, function: Callable[[Any], T]) -> Future[T]:
        """What ``function(db)`` returns, called in a transaction of the journal; the Future raises JournalError."""
        ...

    def next_notice(self, timeout: float) -> Event | None:
        """The next notice, with a peer of this module as its ``peer``; None after ``timeout`` seconds."""
        ...

    def close(self, timeout: float) -> Ledger:
        """Leave: wait until everything is read, at most ``timeout`` seconds, and say goodbye; the ledger."""
        ...


@contextmanager
def open_node(adapter: str, peer_id: str, *, trust: Trust, journal: str | None = None) -> Iterator[Node]:
    """A node for the length of a block, driven by ``adapter``; raises ConfigurationError, JournalError."""
    options: dict[str, Any] = {"config": _CONFIG, "journal": journal, **trust.options(peer_id)}
    if adapter == "asyncio":
        from ._on_asyncio import asyncio_node

        with asyncio_node(peer_id, options) as node:
            yield node
    else:
        from ._on_threads import threads_node

        with threads_node(peer_id, options) as node:
            yield node


def accepting(
    peer_id: str, items: Sequence[object], note: Callable[[Any, int], None], raw: bool
) -> Callable[[Any, Any], tuple[int, Any]]:
    """The function of :meth:`Peer.send_all`'s transaction."""

    def accept(db: Any, send: Any) -> tuple[int, Any]:
        count, receipt = 0, None
        for item in items:
            try:
                receipt = send(peer_id, item, raw=raw)
            except (EncodeError, MessageTooLarge):
                if not count:
                    raise
                break
            count += 1
        note(db, count)
        return count, receipt

    return accept


def of_peer(notice: Event, peer: Peer) -> Event:
    """The same notice, with a peer of this module."""
    return dataclasses.replace(notice, peer=peer)
