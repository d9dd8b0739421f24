"""A node in the simulated world, with an application's interface: your own code, tested in virtual time.

Theory of operation
-------------------
A :class:`SimulatedNode` drives the core of one :class:`~networkio_testing.world.Host` as every adapter does.  Its
methods wait like blocking ones, but where a thread would wait, the world goes on (bytes arrive, timers are served,
other nodes' handlers are called) until what is waited for is there or virtual time is up.  An hour passes in
milliseconds, and every run is the same.  What would wait for ever raises :class:`Stuck`.

There is one thread, so waits nest: what a handler waits for must not depend on whoever lets the world run meanwhile.
Handlers are called by the world between two things that happen, in order and one at a time for each peer.

What the application does is told to the world's watchers, as a :class:`~networkio_testing.world.Host` does it; that is
all that :class:`_WatchedSession` adds to the core.

    world = World()
    client, server = SimulatedNode(world.host("client")), SimulatedNode(world.host("server"))
    server.serve(lambda message: message.reply(message.data + 1))
    assert client.connect("server", "server").request(41) == 42
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from networkio_proto import Codec, Delivery, NodeClosed, Session
from networkio_proto.blocking import BlockingIterator, BlockingMessage, BlockingNode, BlockingPeer, BlockingReceipt
from networkio_proto.operations import Operation, Steps, T

from .world import Host

__all__ = ["Flag", "SimulatedMessage", "SimulatedNode", "SimulatedPeer", "SimulatedReceipt", "Stuck"]


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


class SimulatedMessage(BlockingMessage["SimulatedPeer", "SimulatedReceipt"]):
    """A received message.  ``with message:`` acknowledges it on success and releases it on an exception."""

    __slots__ = ()


class SimulatedReceipt(BlockingReceipt["SimulatedPeer"]):
    """The sender's side of one accepted message."""

    __slots__ = ()


class SimulatedIterator(BlockingIterator[SimulatedMessage]):
    """``for message in peer``: each message is acknowledged when the next is asked for."""

    __slots__ = ()


class SimulatedPeer(BlockingPeer["SimulatedNode", SimulatedMessage, SimulatedReceipt, SimulatedIterator]):
    """Another node, and the conversation with it.  A ``timeout`` is in virtual seconds; TimeoutError says what lacked.

    ``send_nowait``, ``receive_nowait`` and ``read_nowait`` never let the world go on.
    """

    def __init__(self, node: SimulatedNode, session: Session) -> None:
        super().__init__(node, session, SimulatedMessage, SimulatedReceipt, SimulatedIterator)
        session.__class__ = _WatchedSession


class _WatchedSession(Session):
    """The core's session, which also tells the world's watchers what its application does."""

    __slots__ = ()

    @property
    def _host(self) -> Host:
        host: Host = self.handle.node.host
        return host

    def send(
        self,
        payload: bytes,
        now: float,
        *,
        headers: Mapping[str, object] | None = None,
        raw: bool = False,
        ttl: float | None = None,
        ack_now: bool = False,
        reserved: Mapping[str, object] | None = None,
    ) -> int:
        sequence = super().send(
            payload, now, headers=headers, raw=raw, ttl=ttl, ack_now=ack_now, reserved=reserved
        )
        options = {"headers": {**(headers or {}), **(reserved or {})}, "raw": raw, "ttl": ttl, "ack_now": ack_now}
        for accepted in self._host.world.watchers.accepted:
            accepted(self._host, self.peer_id, sequence, payload, options)
        return sequence

    def cancel(self, sequence: int, now: float) -> bool:
        certain = super().cancel(sequence, now)
        for cancelled in self._host.world.watchers.cancelled:
            cancelled(self._host, self.peer_id, sequence, certain)
        return certain

    def take_one(self) -> Delivery | None:
        taken = super().take_one()
        if taken is not None:
            self._handed_over([taken])
        return taken

    def settle(self, delivery: Delivery, now: float, *, reject: tuple[int, str] | None = None) -> None:
        super().settle(delivery, now, reject=reject)
        self._settled(delivery, reject)

    def settle_all(self, deliveries: Sequence[Delivery], now: float) -> None:
        super().settle_all(deliveries, now)
        for delivery in deliveries:
            self._settled(delivery, None)

    def release(self, delivery: Delivery, now: float) -> None:
        super().release(delivery, now)
        for released in self._host.world.watchers.released:
            released(self._host, self.peer_id, delivery)

    def end(self, now: float) -> None:
        super().end(now)
        for ended in self._host.world.watchers.ended:
            ended(self._host, self.peer_id)

    def pass_replies_on(self, now: float) -> None:
        inbox = self.inboxes.present
        replies = [] if inbox is None else list(inbox.replies)
        super().pass_replies_on(now)
        for delivery in replies:
            self._handed_over([delivery])
            if delivery[1] not in delivery[0].held:  # nobody waited for it
                self._settled(delivery, None)

    def _handed_over(self, deliveries: list[Delivery]) -> None:
        for handed_over in self._host.world.watchers.handed_over:
            handed_over(self._host, self.peer_id, deliveries)

    def _settled(self, delivery: Delivery, reject: tuple[int, str] | None) -> None:
        for settled in self._host.world.watchers.settled:
            settled(self._host, self.peer_id, delivery, reject)


class SimulatedNode(BlockingNode[SimulatedPeer]):
    """The application's side of the process that runs on ``host`` now; a process started later needs its own.

    ``codec``: objects to bytes.  ``patience``: after so many virtual seconds a wait without a timeout raises Stuck.
    The node takes its host's notices and wakes.
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
        #: the wait of each peer's handler, which must not end with the token that it waits for: the collector may
        #: close the generators of a node that nobody has any more in any order, and that would be in the middle of one
        self._looks: dict[SimulatedPeer, Steps[SimulatedMessage | None]] = {}
        host.on_wake = self.wake
        self.time = host.now

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
        return self.arrive(self.host.now)

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
            self.host.call_at(self.world.now, self.visit)

    def token(self) -> Flag:
        """Something to wait for."""
        return Flag()

    def make_peer(self, session: Session) -> SimulatedPeer:
        """A peer of this world."""
        return SimulatedPeer(self, session)

    def run(self, operation: Operation[T], timeout: float | None = None) -> T:
        """Run one of the core's operations; where it waits, the world goes on.  Raises Stuck."""
        until = self.world.now + (self.patience if timeout is None else timeout)
        steps: Steps[T] = Steps(operation, self)
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
        return self.run(self.connecting(address, peer_id), timeout)

    def call(self, callback: Callable[[], object]) -> None:
        """Run what ``on_notice`` was given; its errors are the test's, and come out of whatever lets the world run."""
        callback()

    def stop(self) -> None:
        """Its process says goodbye, if it still can."""
        if self.alive:
            with self.inside:
                self.gone()

    # -- serving ------------------------------------------------------------------------------------------------

    def serve(self, handler: Callable[[SimulatedMessage], object], *, max_attempts: int | None = None) -> None:
        """From now on ``handler(message)`` is called for every message of every peer, whenever the world goes on.

        As with the adapters' ``serve``: acknowledged when the handler returns, released and called again after a pause
        when it raises, rejected at the ``max_attempts``-th failure.  An AssertionError is the test's own: it comes out
        of whatever lets the world run.
        """
        with self.inside:
            self.check_unserved()
            self._handler, self._max_attempts = handler, max_attempts
            self.begin_serving(self._serve)

    def _serve(self, peer: SimulatedPeer, pause: float = 0.0) -> None:
        """After the pause: wait for the next message."""
        self.host.call_at(self.world.now + pause, partial(self._look, peer, Steps(peer.serving(), self)))

    def _look(self, peer: SimulatedPeer, steps: Steps[SimulatedMessage | None]) -> None:
        """A step of the wait for a message; with one, call the handler."""
        self._looks[peer] = steps
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
