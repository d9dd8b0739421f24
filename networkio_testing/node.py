"""A node in the simulated world, with an application's interface: your own code, tested in virtual time.

Theory of operation
-------------------
A :class:`SimulatedNode` drives the core of one :class:`~networkio_testing.world.Host` as every adapter does.  Its
methods wait like blocking ones, but where a thread would wait, the world goes on (bytes arrive, timers are served,
other nodes' handlers are called) until what is waited for is there or virtual time is up.  An hour passes in
milliseconds, and every run is the same.  What would wait for ever raises :class:`Stuck`.

There is one thread, so waits nest: what a handler waits for must not depend on whoever lets the world run meanwhile.
Handlers are called by the world between two things that happen, in order and one at a time for each peer.

    world = World()
    client, server = SimulatedNode(world.host("client")), SimulatedNode(world.host("server"))
    server.serve(lambda message: message.reply(message.data + 1))
    assert client.connect("server", "server").request(41) == 42
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from networkio_proto import (
    Codec,
    ConfigurationError,
    Event,
    Ledger,
    NodeClosed,
    NoMoreMessages,
    Session,
)
from networkio_proto.handles import IteratorHandle, MessageHandle, ReceiptHandle
from networkio_proto.nodes import NodeHandle
from networkio_proto.operations import Operation, Steps
from networkio_proto.peers import PeerHandle

from .world import Host

__all__ = ["Flag", "SimulatedMessage", "SimulatedNode", "SimulatedPeer", "SimulatedReceipt", "Stuck"]

T = TypeVar("T")


class Stuck(AssertionError):
    """What was waited for did not come in a long virtual time, and there was no timeout."""


class Flag:
    """A token: is it worth looking again?"""

    __slots__ = ("_then", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._then: Callable[[], object] | None = None

    def set(self) -> None:
        """It is."""
        self.is_set = True
        if self._then is not None:
            then, self._then = self._then, None
            then()

    def then(self, function: Callable[[], object]) -> None:
        """Call ``function`` once when it is set, or now."""
        self._then = function
        if self.is_set:
            self.set()


class SimulatedMessage(MessageHandle):
    """A received message.  ``with message:`` acknowledges it on success and releases it on an exception."""

    __slots__ = ()

    peer: SimulatedPeer

    def reply(
        self, data: Any, *, headers: Mapping[str, object] | None = None, raw: bool = False,
        timeout: float | None = None,
    ) -> SimulatedReceipt:
        """Answer a request; waits while the outbox is full.  It does not settle the request.  Raises NotARequest."""
        receipt: SimulatedReceipt = self.peer.node.run(self._replying(data, headers, raw), timeout)
        return receipt

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.handled(failed=kind is not None)


class SimulatedReceipt(ReceiptHandle):
    """The sender's side of one accepted message."""

    __slots__ = ()

    peer: SimulatedPeer

    def received(self, timeout: float | None = None) -> None:
        """Wait until the peer's library holds it; raises the typed DeliveryFailure, TimeoutError."""
        self.peer.node.run(self._until(read=False), timeout)

    def read(self, timeout: float | None = None) -> None:
        """Wait until the peer's application has acknowledged it; raises the typed DeliveryFailure, TimeoutError."""
        self.peer.node.run(self._until(read=True), timeout)

    def cancel(self) -> bool:
        """End it if nobody has seen it: True if it will never be seen, False if it may be."""
        return self._cancel()


class SimulatedIterator(IteratorHandle[SimulatedMessage]):
    """``for message in peer``: each message is acknowledged when the next is asked for."""

    __slots__ = ()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> SimulatedMessage:
        try:
            message: SimulatedMessage = self._node.run(self._iteration.advancing())
        except NoMoreMessages:
            raise StopIteration from None
        return message


class SimulatedPeer(PeerHandle[SimulatedMessage, SimulatedReceipt]):
    """Another node, and the conversation with it.  A ``timeout`` is in virtual seconds; TimeoutError says what lacked.

    ``send_nowait``, ``receive_nowait`` and ``read_nowait`` never let the world go on.
    """

    node: SimulatedNode

    def __init__(self, node: SimulatedNode, session: Session) -> None:
        super().__init__(node, session, SimulatedMessage, SimulatedReceipt)

    def send(
        self, data: Any, *, headers: Mapping[str, object] | None = None, ttl: float | None = None, raw: bool = False,
        timeout: float | None = None,
    ) -> SimulatedReceipt:
        """Accept a message for this peer, connected or not; waits while the outbox is full."""
        payload = self.node.payload(data, raw)
        return self.node.run(self.accepting(payload, headers=headers, ttl=ttl, raw=raw), timeout)

    def send_many(
        self, many: Iterable[Any], *, headers: Mapping[str, object] | None = None, ttl: float | None = None,
        raw: bool = False, timeout: float | None = None,
    ) -> list[SimulatedReceipt]:
        """Accept messages in order; when time is up, the receipts of those that were accepted."""
        return self.node.run(self._accepting_many(many, headers, ttl, raw), timeout)

    def request(
        self, data: Any, timeout: float | None = None, *, headers: Mapping[str, object] | None = None, raw: bool = False
    ) -> Any:
        """Send a request and wait for the data of its reply."""
        return self.node.run(self._requesting(data, headers, raw), timeout)

    def receive(self, timeout: float | None = None) -> SimulatedMessage:
        """The next message; the caller holds it and settles it.  Raises NoMoreMessages after the peer's end."""
        return self.node.run(self.receiving(), timeout)

    def read(self, timeout: float | None = None) -> Any:
        """The next message's data, acknowledged at once."""
        return self.node.run(self._reading(), timeout)

    def read_many(self, limit: int = 100, timeout: float | None = None) -> list[Any]:
        """The data of up to ``limit`` messages, acknowledged at once; waits for the first only."""
        return self.node.run(self._reading_many(limit), timeout)

    def __iter__(self) -> SimulatedIterator:
        """Each message in turn, acknowledged when the next is asked for; one iterator at a time."""
        return SimulatedIterator(self)

    def wait_connected(self, timeout: float | None = None) -> None:
        """Wait until there is a live connection."""
        self.node.run(self._connecting(), timeout)

    def drain(self, timeout: float | None = None) -> Ledger:
        """Take no new messages until everything accepted is read, or time is up; the ledger."""
        return self.node.run(self.draining(), timeout)


class SimulatedNode(NodeHandle[SimulatedPeer]):
    """The application's side of the process that runs on ``host`` now; a process started later needs its own.

    ``codec``: objects to bytes.  ``patience``: after so many virtual seconds a wait without a timeout raises Stuck.
    The node takes its host's notices and wakes; a ``Judge`` watches what a ``Host`` does by itself, not this.
    """

    def __init__(self, host: Host, *, codec: Codec | None = None, patience: float = 3600.0) -> None:
        # the core is the host's; the one made here is not used, and draws nothing from the world's randomness
        super().__init__(host.peer_id, config=host.config, codec=codec, random=random.Random(0))
        self.host = host
        self.world = host.world
        self.endpoint = host.endpoint
        self.endpoint.codec = self.codec.name
        self.patience = patience
        self._inside = 0
        self._handler: Callable[[SimulatedMessage], object] | None = None
        self._max_attempts: int | None = None
        host.on_wake = self.wake
        self.time = self.world.now

    def __repr__(self) -> str:
        return f"<SimulatedNode {self.id}>"

    @property
    def alive(self) -> bool:
        """Does its process still run?"""
        return self.host.up and self.host.endpoint is self.endpoint

    # -- the way into the core, and of waiting ------------------------------------------------------------------

    def enter(self) -> float:
        """Before every touch of the core; raises NodeClosed if its process is dead."""
        self._check_alive()
        self._inside += 1
        self.time = self.world.now
        self.take_back()
        return self.time

    def leave(self) -> None:
        """After it: carry out what the core wants done."""
        self.host.pump()
        self._inside -= 1

    def check_open(self) -> None:
        """Raise NodeClosed after the end, that of its process included."""
        super().check_open()
        self._check_alive()

    def _check_alive(self) -> None:
        if not self.alive:
            raise NodeClosed(f"the process of node {self.id} is gone; make a node for the new one")

    def nudge(self) -> None:
        """Something waits for the next ``enter``; this may be in the middle of anything."""
        if self.alive:
            self.host.call_at(self.world.now, self._visit)

    def _visit(self) -> None:
        self.enter()
        self.leave()

    def token(self) -> Flag:
        """Something to wait for."""
        return Flag()

    def make_peer(self, session: Session) -> SimulatedPeer:
        """A peer of this world."""
        return SimulatedPeer(self, session)

    def run(self, operation: Operation[T], timeout: float | None = None) -> T:
        """Run one of the core's operations; where it waits, the world goes on.  Raises Stuck."""
        until = self.world.now + (self.patience if timeout is None else timeout)
        steps: Steps[T] = Steps(operation, self.inside)
        try:
            while (flag := steps.next()) is not None:
                if not self._wait(flag, until):
                    if timeout is None:
                        raise self._stuck()
                    steps.time_is_up(timeout)
        except BaseException:
            if self.alive:  # what a dead process waited for died with it
                steps.close()
            raise
        return steps.result

    def _wait(self, flag: Flag, until: float) -> bool:
        """Let the world go on until the flag is set; False: time is up."""
        while not flag.is_set and self.alive and self.world.now < until:
            self.world.step(until)
        self._check_alive()
        return flag.is_set

    def _stuck(self) -> Stuck:
        why = "; ".join(f"{peer.id}: {peer.why()}" for peer in self.peers) or "it has no peers"
        return Stuck(f"what {self.id} waits for did not come in {self.patience:g} virtual seconds ({why})")

    # -- what an application does -------------------------------------------------------------------------------

    def connect(self, address: str, peer_id: str | None = None, timeout: float | None = None) -> SimulatedPeer:
        """Keep a connection to the host of that name.

        With ``peer_id`` it returns at once; without, it waits until somebody has answered there, whoever it is, and
        raises the ConnectionFailure that only a human can mend.
        """
        self.check_open()
        now = self.enter()
        try:
            target = self.endpoint.add_target(address, now, to=peer_id)
            if peer_id is not None:
                return self.peer_within(peer_id, now)
        finally:
            self.leave()
        return self.run(self._answering(target), timeout)

    def next_notice(self, timeout: float | None = None) -> Event | None:
        """The next notice, or None after ``timeout`` virtual seconds."""
        return self.run(self._noticing(), timeout)

    def drain(self, timeout: float | None = None) -> Ledger:
        """Wait until every peer has read everything accepted so far, or time is up; the ledger."""
        return self.run(self._draining(), timeout)

    def close(self, timeout: float | None = None) -> Ledger:
        """Leave: drain for ``timeout`` (default ``config.drain_timeout``), and say goodbye; the ledger.  Idempotent."""
        if self.closed:
            return self.ledger
        try:
            return self.drain(self.config.drain_timeout if timeout is None else timeout)
        finally:
            if self.alive:
                self.enter()
                self.gone()
                self.leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.alive:
            self.close(None if kind is None else 0)

    # -- serving ------------------------------------------------------------------------------------------------

    def serve(self, handler: Callable[[SimulatedMessage], object], *, max_attempts: int | None = None) -> None:
        """From now on ``handler(message)`` is called for every message of every peer, whenever the world goes on.

        As with the adapters' ``serve``: acknowledged when the handler returns, released and called again after a pause
        when it raises, rejected at the ``max_attempts``-th failure.  An AssertionError is the test's own: it comes out
        of whatever lets the world run.
        """
        self.check_open()
        if self._handler is not None:
            raise ConfigurationError(f"node {self.id} is served already; one handler serves all peers")
        self._handler, self._max_attempts = handler, max_attempts
        for peer in self.peers:
            self.met(peer)

    def met(self, peer: SimulatedPeer) -> None:
        """A peer is new: its messages are served too."""
        if self._handler is not None:
            self._serve(peer, 0.0)

    def _serve(self, peer: SimulatedPeer, pause: float) -> None:
        """After the pause: wait for the next message."""
        self.host.call_at(self.world.now + pause, partial(self._look, peer, Steps(peer.serving(), self.inside)))

    def _look(self, peer: SimulatedPeer, steps: Steps[SimulatedMessage | None]) -> None:
        """A step of the wait for a message; with one, call the handler."""
        flag: Flag | None = steps.next()
        if flag is not None:
            flag.then(lambda: self.host.call_at(self.world.now, partial(self._look, peer, steps)))
        elif steps.result is not None:
            self._handle(peer, steps.result)

    def _handle(self, peer: SimulatedPeer, message: SimulatedMessage) -> None:
        assert self._handler is not None  # nobody looks for messages before
        failed: Exception | None = None
        try:
            self._handler(message)
        except AssertionError:
            raise
        except Exception as error:
            failed = error
        if self.alive:  # the handler may have crashed its own host
            self._serve(peer, peer.judged(message, failed, self._max_attempts))
