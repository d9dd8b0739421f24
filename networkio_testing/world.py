"""A simulated network of nodes with a virtual clock, in which everything can break at any byte.

Theory of operation
-------------------
A :class:`World` owns the time, the hosts and the wires.  A :class:`Host` drives one real
:class:`~networkio_proto.endpoint.Endpoint` exactly as an adapter does: it empties the effects after every input.  A
:class:`Wire` is one byte stream: two pipes whose bytes wait until somebody delivers them, whole or in part.  Nothing
happens by itself: a test (or :meth:`World.run`, which lets everything go right) decides which bytes arrive when, which
wire is cut, who crashes, and how time passes.  All randomness comes from seeds, so that a run repeats bit for bit.
Whoever wants to know what happens hangs a :class:`Watcher` into ``world.watchers``; a
:class:`~networkio_testing.judges.Judge` is one that compares it with the guarantees.  ``world.steps`` counts every call
of a core that gives it something or takes bytes from it.

    world = World()
    a, b = world.host("a"), world.host("b")
    a.dial("b")
    a.send("b", b"hello")
    world.run()
    assert b.read("a") == [b"hello"]
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from math import inf
from typing import Final, Literal, SupportsIndex

from networkio_proto import (
    Abandon,
    Close,
    Config,
    Connection,
    ConnectionState,
    Delivery,
    Dial,
    Effect,
    Endpoint,
    Event,
    Log,
    Session,
    Target,
    Transmit,
    UsageError,
    Wake,
)
from networkio_proto.auth import Authenticator
from networkio_proto.journal import JournalBatch

from .clocks import Clock
from .disk import Disk

__all__ = ["CUTS", "Cut", "Host", "Pipe", "Steps", "Watcher", "Watchers", "Wire", "World"]

#: a pipe that nobody throttles takes so many bytes before its writer is blocked
CAPACITY = 1 << 30

#: how a wire breaks: both ends learn it at once; both, after what is under way; one end; one, and what it said comes
#: three seconds late; neither
Cut = Literal["rst", "fin", "half", "late", "hole"]
CUTS: Final[tuple[Cut, ...]] = ("rst", "fin", "half", "late", "hole")

#: how late that is (seconds)
_LATE = 3.0


class Watcher:
    """Is told what happens in a world, after it happened but for ``ticking`` and ``arriving``; methods here do nothing.
    """

    def booted(self, host: Host) -> None:
        """A process of ``host`` began."""

    def crashed(self, host: Host) -> None:
        """The process of ``host`` is no more."""

    def accepted(self, host: Host, peer: str, sequence: int, payload: bytes, options: Mapping[str, object]) -> None:
        """A message was sent; ``options`` are the arguments of ``Session.send``."""

    def cancelled(self, host: Host, peer: str, sequence: int, certain: bool) -> None:
        """A message was cancelled; ``certain`` is what the sender was told."""

    def ended(self, host: Host, peer: str) -> None:
        """The application said that nothing follows."""

    def handed_over(self, host: Host, peer: str, deliveries: Sequence[Delivery]) -> None:
        """The application took messages."""

    def settled(self, host: Host, peer: str, delivery: Delivery, reject: tuple[int, str] | None) -> None:
        """It acknowledged or rejected one."""

    def released(self, host: Host, peer: str, delivery: Delivery) -> None:
        """It gave one back."""

    def effect(self, host: Host, effect: Effect) -> None:
        """The core asked its driver for something, which is done next."""

    def noticed(self, host: Host, notice: Event) -> None:
        """The application took a notice."""

    def pumped(self, host: Host) -> None:
        """All effects of ``host`` are carried out."""

    def ticking(self, host: Host) -> None:
        """The timers of ``host`` are about to be served."""

    def ticked(self, host: Host) -> None:
        """The timers of ``host`` were served."""

    def wrote(self, wire: Wire, end: int, buffers: Sequence[bytes | memoryview]) -> None:
        """``end`` wrote what one call of ``data_to_send`` returned."""

    def journaling(self, host: Host, batch: JournalBatch) -> None:
        """The disk of ``host`` began to write this."""

    def journaled(self, host: Host, batch: JournalBatch, error: OSError | None) -> None:
        """The core was told that this is on disk, or why not."""

    def arriving(self, wire: Wire, end: int) -> None:
        """Bytes are about to arrive at ``end``."""

    def arrived(self, wire: Wire, end: int) -> None:
        """They arrived, and nothing else has happened since."""


class Watchers(list[Watcher]):
    """The watchers of a world.  Only those are called that override a method, for most override few."""

    def __init__(self) -> None:
        super().__init__()
        self._sort()

    def append(self, watcher: Watcher) -> None:
        super().append(watcher)
        self._sort()

    def insert(self, index: SupportsIndex, watcher: Watcher) -> None:
        super().insert(index, watcher)
        self._sort()

    def extend(self, watchers: Iterable[Watcher]) -> None:
        super().extend(watchers)
        self._sort()

    def __iadd__(self, watchers: Iterable[Watcher]) -> Watchers:  # type: ignore[override,misc]
        self.extend(watchers)
        return self

    def remove(self, watcher: Watcher) -> None:
        super().remove(watcher)
        self._sort()

    def _sort(self) -> None:
        self.booted = [w.booted for w in self if type(w).booted is not Watcher.booted]
        self.crashed = [w.crashed for w in self if type(w).crashed is not Watcher.crashed]
        self.accepted = [w.accepted for w in self if type(w).accepted is not Watcher.accepted]
        self.cancelled = [w.cancelled for w in self if type(w).cancelled is not Watcher.cancelled]
        self.ended = [w.ended for w in self if type(w).ended is not Watcher.ended]
        self.handed_over = [w.handed_over for w in self if type(w).handed_over is not Watcher.handed_over]
        self.settled = [w.settled for w in self if type(w).settled is not Watcher.settled]
        self.released = [w.released for w in self if type(w).released is not Watcher.released]
        self.effect = [w.effect for w in self if type(w).effect is not Watcher.effect]
        self.noticed = [w.noticed for w in self if type(w).noticed is not Watcher.noticed]
        self.pumped = [w.pumped for w in self if type(w).pumped is not Watcher.pumped]
        self.ticking = [w.ticking for w in self if type(w).ticking is not Watcher.ticking]
        self.ticked = [w.ticked for w in self if type(w).ticked is not Watcher.ticked]
        self.wrote = [w.wrote for w in self if type(w).wrote is not Watcher.wrote]
        self.journaling = [w.journaling for w in self if type(w).journaling is not Watcher.journaling]
        self.journaled = [w.journaled for w in self if type(w).journaled is not Watcher.journaled]
        self.arriving = [w.arriving for w in self if type(w).arriving is not Watcher.arriving]
        self.arrived = [w.arrived for w in self if type(w).arrived is not Watcher.arrived]


@dataclass(slots=True)
class Steps:
    """How often the cores of a world were called: with bytes, time, commands, or for bytes.

    What a driver only asks (``next_effect``, ``next_event``, ``get_timer``) is counted apart, in ``asked``.
    ``wrote`` are calls of ``data_to_send`` that returned something; ``idle`` those that returned nothing, as the last
    of a driver's loop does.
    """

    accept: int = 0
    connect: int = 0
    dial_failed: int = 0
    receive_data: int = 0
    lost: int = 0
    wrote: int = 0
    idle: int = 0
    handle_timer: int = 0
    send: int = 0
    cancel: int = 0
    take: int = 0
    take_settled: int = 0
    settle: int = 0
    release: int = 0
    #: end, abort, disconnect
    leave: int = 0
    #: add_target, remove_target
    target: int = 0
    asked: int = 0

    @property
    def total(self) -> int:
        """All but ``asked``."""
        return sum(self.counts().values())

    def counts(self) -> dict[str, int]:
        """By kind, without ``asked``."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "asked"}


@dataclass(slots=True)
class Pipe:
    """One direction of a wire: bytes that were written and have not arrived."""

    data: bytearray = field(default_factory=bytearray)
    #: the writer's FIN stands behind the data
    fin: bool = False
    #: bytes vanish on their way, nobody is told
    black_hole: bool = False
    #: bytes that arrived so far
    delivered: int = 0
    #: nothing arrives before this time
    held_until: float = 0.0
    #: bytes the pipe takes before the writer is blocked
    capacity: int = CAPACITY
    #: the wire breaks when so many more bytes have arrived, and in this way
    fuse: int | None = None
    fuse_cut: Cut = "rst"


class Wire:
    """One byte stream between two hosts; end 0 dialled, end 1 accepted."""

    def __init__(self, world: World, number: int, hosts: tuple[Host, Host]) -> None:
        self.world = world
        #: from 1 on, in the order in which the wires of the world came about
        self.number = number
        self.hosts = hosts
        #: None: this end is gone (closed, crashed)
        self.ends: list[Connection | None] = [None, None]
        self.pipes = (Pipe(), Pipe())  # pipes[i] leads away from end i
        #: the driver of end i was told to flush and close, and when all is written, it shuts its half down
        self.closing = [False, False]
        self.shut = [False, False]
        #: somebody on the way added bytes
        self.tampered = False

    def __repr__(self) -> str:
        return f"<Wire {self.number} {self.hosts[0].name}->{self.hosts[1].name}>"

    @property
    def open(self) -> bool:
        """Does either end still use it?"""
        return self.ends != [None, None]

    def waiting(self, end: int) -> int:
        """Bytes (FIN counts as one) on their way from ``end``."""
        pipe = self.pipes[end]
        return len(pipe.data) + pipe.fin

    def write(self, end: int) -> None:
        """The driver of ``end``: move what the core has to say into the pipe, as far as it takes it."""
        connection, pipe, host = self.ends[end], self.pipes[end], self.hosts[end]
        if connection is None or host.paused:
            return
        world, data, now = self.world, pipe.data, host.now
        while len(data) < pipe.capacity:
            buffers = connection.data_to_send(now, world.write_size)
            if not buffers:
                world.steps.idle += 1
                break
            world.steps.wrote += 1
            for buffer in buffers:
                data += buffer
            for wrote in world.watchers.wrote:
                wrote(self, end, buffers)
        if pipe.black_hole:
            pipe.data.clear()
        if self.closing[end] and not connection.dirty and not self.shut[end]:
            self.shut[end] = pipe.fin = True

    def leave(self, end: int) -> None:
        """This end is gone."""
        self.ends[end] = None
        self.world.ends_left = True

    def deliver(self, end: int, count: int | None = None, chunk: int | None = None) -> int:
        """Let up to ``count`` bytes from ``end`` arrive (in pieces of ``chunk``), then FIN if all of them did."""
        pipe, world = self.pipes[end], self.world
        other, waiting = 1 - end, len(pipe.data)
        if self.hosts[other].paused or world.now < pipe.held_until:
            return 0
        if pipe.black_hole:
            pipe.data.clear()
            return 0
        if count is None or count > waiting:
            count = waiting
        if pipe.fuse is not None:
            count = min(count, pipe.fuse)
        whole = count == waiting
        if count:
            if whole:
                data = bytes(pipe.data)
                pipe.data.clear()
            else:
                data = bytes(pipe.data[:count])
                del pipe.data[:count]
            pipe.delivered += count
            if chunk is None:
                self._arrive(other, data)
            else:
                for start in range(0, count, chunk):
                    self._arrive(other, data[start : start + chunk])
        if pipe.fuse is not None:
            pipe.fuse -= count
            if not pipe.fuse:
                self.snap(end, pipe.fuse_cut)
                return count
        if whole and pipe.fin:
            pipe.fin = False
            self._lose(other, None)
        connection = self.ends[end]
        if count and connection is not None and connection.dirty:  # it was blocked
            self.write(end)
            self.hosts[end].pump(connection.session)
        return count

    def deliver_or_end(self, end: int, chunk: int | None = None) -> bool:
        """Deliver all that is under way; did anything come of it, if only the news that nothing more follows?"""
        pipe = self.pipes[end]
        waiting = len(pipe.data) + pipe.fin
        return self.deliver(end, None, chunk) > 0 or len(pipe.data) + pipe.fin < waiting

    def _arrive(self, end: int, data: bytes) -> None:
        connection, world = self.ends[end], self.world
        if connection is None:
            return
        for arriving in world.watchers.arriving:
            arriving(self, end)
        world.steps.receive_data += 1
        connection.receive_data(data, self.hosts[end].now)
        for arrived in world.watchers.arrived:
            arrived(self, end)
        self.hosts[end].pump(connection.session)

    def snap(self, end: int, how: Cut) -> None:
        """Break it in one of the five ways of :data:`CUTS`; ``end`` is the one that learns it when only one does."""
        for pipe in self.pipes:
            pipe.fuse = None
        if how == "rst" or how == "fin":
            self.cut(how)
        elif how == "hole":
            self.black_hole()
        else:
            self.cut_half(end, late=_LATE if how == "late" else None)

    def set_fuse(self, end: int, count: int, how: Cut) -> None:
        """The wire breaks in that way when exactly so many more bytes from ``end`` have arrived."""
        self.pipes[end].fuse, self.pipes[end].fuse_cut = count, how
        if not count:
            self.snap(end, how)

    def cut(self, how: str = "rst") -> None:
        """Break it: ``rst`` both ends learn at once and bytes under way are gone; ``fin`` they arrive first."""
        if how == "fin":
            for end in (0, 1):
                self.deliver(end)
        for pipe in self.pipes:
            pipe.data.clear()
            pipe.fin = False
        for end in (0, 1):
            self._lose(end, None if how == "fin" else ConnectionResetError("cut"))

    def cut_half(self, end: int, *, late: float | None = None) -> None:
        """Only ``end`` learns that the wire is gone; the other side hears nothing any more.

        ``late``: what is under way from ``end`` still arrives, so many seconds later.
        """
        for pipe in self.pipes:
            if pipe is self.pipes[end] and late is not None:
                pipe.held_until = self.world.now + late
            else:
                pipe.black_hole = True
                pipe.data.clear()
        self._lose(end, ConnectionResetError("cut"))
        self.pipes[end].fin = False

    def throttle(self, end: int, capacity: int = CAPACITY) -> None:
        """The pipe that leads away from ``end`` takes this much before it blocks; 0: not a byte."""
        self.pipes[end].capacity = capacity
        if self.ends[end] is not None:
            self.write(end)
            self.hosts[end].pump()

    def replay(self, end: int, data: bytes) -> None:
        """Somebody on the way says once more what ``end`` said before (whole frames, between two writes)."""
        self.tampered = True
        self.pipes[end].data += data

    def black_hole(self, on: bool = True) -> None:
        """Bytes of both directions vanish; nobody is told."""
        for pipe in self.pipes:
            pipe.black_hole = on

    def _lose(self, end: int, error: BaseException | None) -> None:
        connection = self.ends[end]
        if connection is None:
            return
        if self.hosts[end].paused:
            self.hosts[end].missed.append((self, end, error))
            return
        self.leave(end)
        self.world.steps.lost += 1
        if error is None:
            connection.receive_eof(self.hosts[end].now)
        else:
            connection.connection_lost(self.hosts[end].now, error)
        self.pipes[end].fin = True
        self.hosts[end].pump()


class Host:
    """A machine that runs one node, which may crash and come back as a new process."""

    def __init__(
        self,
        world: World,
        name: str,
        config: Config,
        auth: Authenticator | None,
        peer_id: str | None = None,
        disk: Disk | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.world = world
        #: from 0 on, in the order in which the hosts of the world came about
        self.number = len(world.hosts)
        self.name = name
        self.peer_id = name if peer_id is None else peer_id
        self.config = config
        self.auth = auth
        #: what its journal is on; None: the node lives in memory
        self.disk = disk
        #: its own monotonic clock; None: that of the world
        self.clock = clock
        self.lives = 0
        self.up = False
        self.listening = True
        #: the process stands still: it reads nothing, and its timers are not served
        self.paused = False
        #: the process dies when it has carried out so many more effects; None: it does not
        self.doom: int | None = None
        #: the peer then learns that it is gone
        self.doom_reset = True
        #: the session that the last input or command was about; None: perhaps all of them
        self.touched: Session | None = None
        #: ends of streams that it has not heard of because it stands still
        self.missed: list[tuple[Wire, int, BaseException | None]] = []
        self.notices: list[Event] = []
        self.wires: dict[Connection, tuple[Wire, int]] = {}
        #: dials that the core asked for and that were not answered yet
        self.dials: list[Dial] = []
        #: called after every pump, for judges
        self.on_pump: Callable[[Host], None] | None = None
        #: what to do with a Wake, for drivers of their own, which die with the process; without it notices are
        #: collected in ``notices``
        self.on_wake: Callable[[Session | None], None] | None = None
        self._calls: list[tuple[float, int, Callable[[], object]]] = []
        self._called = 0  # breaks ties in the order of asking
        self.endpoint = self._boot()

    def __repr__(self) -> str:
        return f"<Host {self.name}, life {self.lives}>"

    def _boot(self) -> Endpoint:
        self.lives += 1
        self.up = True
        source = random.Random(f"{self.world.seed}/{self.name}/{self.lives}")
        disk = self.disk
        self.endpoint = Endpoint(
            self.peer_id, self.config, auth=self.auth, random=source, journal=disk is not None,
            durable_inbox=disk is not None and disk.inbox,
        )  # fmt: skip
        if disk is not None:
            self.endpoint.restore(disk.open(self.config.outbox_resident), self.now)
        for booted in self.world.watchers.booted:
            booted(self)
        return self.endpoint

    @property
    def now(self) -> float:
        """What its monotonic clock shows."""
        return self.world.now if self.clock is None else self.clock.read(self.world.now)

    # -- the application ----------------------------------------------------------------------------------------

    def session(self, peer: str) -> Session:
        """The session with ``peer``."""
        return self.endpoint.session(peer, self.now)

    def dial(self, peer: str, to: str | None = "") -> Target:
        """Keep a connection to the host named ``peer``; ``to=None`` takes whoever answers."""
        self.world.steps.target += 1
        target = self.endpoint.add_target(peer, self.now, to=peer if to == "" else to)
        self.pump()
        return target

    def send(
        self,
        peer: str,
        *payloads: bytes,
        raw: bool = True,
        ttl: float | None = None,
        headers: Mapping[str, object] | None = None,
        ack_now: bool = False,
    ) -> list[int]:
        """Send; returns the sequences."""
        session, world = self.session(peer), self.world
        sequences = []
        options = {"raw": raw, "ttl": ttl, "headers": headers, "ack_now": ack_now}
        plain = ttl is None and headers is None and not ack_now
        try:
            for payload in payloads:
                world.steps.send += 1
                sequence = session.stream(payload, raw) if plain and session.streaming() else 0
                if not sequence:
                    sequence = session.send(payload, self.now, raw=raw, ttl=ttl, headers=headers, ack_now=ack_now)
                sequences.append(sequence)
                for accepted in world.watchers.accepted:
                    accepted(self, peer, sequence, payload, options)
        except UsageError:
            self.pump(session)  # a message that found no room may have cost others their place
            raise
        self.pump(session)
        return sequences

    def cancel(self, peer: str, sequence: int) -> bool:
        """Cancel a message; True: nobody will ever see it."""
        session = self.session(peer)
        self.world.steps.cancel += 1
        certain = session.cancel(sequence, self.now)
        for cancelled in self.world.watchers.cancelled:
            cancelled(self, peer, sequence, certain)
        self.pump(session)
        return certain

    def read(self, peer: str, limit: int = 1 << 30) -> list[bytes]:
        """Take and acknowledge everything that is there (or ``limit``)."""
        session = self.session(peer)
        self.world.steps.take_settled += 1
        reading = session.reading() if limit == 1 else None
        if reading is not None and reading.consume(first := reading.ready[0]):
            taken = [first]
        else:
            taken = session.take_settled(limit, self.now)
        if taken:
            for handed_over in self.world.watchers.handed_over:
                handed_over(self, peer, taken)
            for settled in self.world.watchers.settled:
                for delivery in taken:
                    settled(self, peer, delivery, None)
        self.pump(session)
        return [delivery[2] for delivery in taken]

    def take(self, peer: str, limit: int = 1) -> list[Delivery]:
        """Take and hold."""
        self.world.steps.take += 1
        session = self.session(peer)
        reading = session.reading() if limit == 1 else None
        delivery = None if reading is None else reading.exchange(None)
        taken = session.take(limit) if delivery is None else [delivery]
        if taken:
            for handed_over in self.world.watchers.handed_over:
                handed_over(self, peer, taken)
        return taken

    def settle(self, peer: str, delivery: Delivery, reject: tuple[int, str] | None = None) -> None:
        """Acknowledge or reject a held message."""
        session = self.session(peer)
        self.world.steps.settle += 1
        session.settle(delivery, self.now, reject=reject)
        for settled in self.world.watchers.settled:
            settled(self, peer, delivery, reject)
        self.pump(session)

    def release(self, peer: str, delivery: Delivery) -> None:
        """Give a held message back."""
        session = self.session(peer)
        self.world.steps.release += 1
        session.release(delivery, self.now)
        for released in self.world.watchers.released:
            released(self, peer, delivery)
        self.pump(session)

    def end(self, peer: str) -> None:
        """Say that nothing follows."""
        self.world.steps.leave += 1
        self.session(peer).end(self.now)
        for ended in self.world.watchers.ended:
            ended(self, peer)
        self.pump()

    def abort(self, peer: str) -> None:
        """Give the session up."""
        self.world.steps.leave += 1
        self.session(peer).abort(self.now)
        self.pump()

    def disconnect(self, peer: str) -> None:
        """Close the connection, and dial no more."""
        self.world.steps.leave += 1
        self.session(peer).disconnect(self.now)
        self.pump()

    # -- the driver ---------------------------------------------------------------------------------------------

    def pump(self, session: Session | None = None) -> None:
        """Carry out the effects, as every driver does after every input and command.

        ``session``: the only one that the input or command was about.
        """
        world, next_effect = self.world, self.endpoint.next_effect
        watchers = world.watchers
        asked = 1
        while (effect := next_effect()) is not None:
            asked += 1
            for watcher in watchers.effect:
                watcher(self, effect)
            if isinstance(effect, Transmit):
                place = self.wires.get(effect.connection)
                if place is not None:
                    place[0].write(place[1])
            else:
                self._carry_out(effect)
            if self.doom is not None and not self._survives():
                world.steps.asked += asked
                return
        world.steps.asked += asked
        if self.on_pump is not None:
            self.on_pump(self)
        self.touched = session
        for pumped in watchers.pumped:
            pumped(self)
        if self.disk is not None:
            self.disk.serve(self)

    def _carry_out(self, effect: Effect) -> None:
        """Any but a Transmit."""
        if isinstance(effect, Wake):
            self._wake(effect)
        elif isinstance(effect, Close):
            self._close(effect)
        elif isinstance(effect, Dial):
            self.dials.append(effect)
        elif isinstance(effect, Abandon):
            if effect.dial in self.dials:
                self.dials.remove(effect.dial)
        elif not isinstance(effect, Log):  # whoever wants to read that watches for effects
            raise AssertionError(f"{effect} is not for a driver to ignore")

    def _wake(self, effect: Wake) -> None:
        if self.on_wake is not None:
            self.on_wake(effect.session)
        elif effect.session is None:
            world, next_event = self.world, self.endpoint.next_event
            asked = 1
            while (notice := next_event()) is not None:
                asked += 1
                self.notices.append(notice)
                for noticed in world.watchers.noticed:
                    noticed(self, notice)
            world.steps.asked += asked

    def _survives(self) -> bool:
        """One more effect was carried out: was it the last that this process lived to see?"""
        assert self.doom is not None
        self.doom -= 1
        if self.doom <= 0:
            self.crash(reset=self.doom_reset)
        return self.up

    def _close(self, effect: Close) -> None:
        place = self.wires.get(effect.connection)
        if place is None:
            return
        wire, end = place
        if effect.flush:
            wire.closing[end] = True
            wire.write(end)
            return
        del self.wires[effect.connection]
        if wire.ends[end] is not None:
            wire.pipes[end].fin = True
            wire.leave(end)

    @property
    def timer(self) -> float:
        """When something of this process is due: a timer of the core, or a :meth:`call_at`."""
        self.world.steps.asked += 1
        due = self.endpoint.timers.next()  # all that get_timer does
        if due is not None and self.clock is not None:
            due = self.clock.when(due)
        if self._calls and (due is None or self._calls[0][0] < due):
            return self._calls[0][0]
        return inf if due is None else due

    def tick(self) -> None:
        """Serve the timers that are due."""
        if self.paused:
            return
        self.world.steps.handle_timer += 1
        for ticking in self.world.watchers.ticking:
            ticking(self)
        self.endpoint.handle_timer(self.now)
        for ticked in self.world.watchers.ticked:
            ticked(self)
        self.pump()
        self.make_calls()

    def call_at(self, when: float, function: Callable[[], object]) -> None:
        """The process calls ``function`` at that time or as soon as it can, and never in the middle of something.

        It may do anything there, let the world run on included.  A process that dies takes its calls with it.
        """
        self._called += 1
        heapq.heappush(self._calls, (when, self._called, function))

    def make_calls(self) -> int:
        """Make the calls that are due; returns how many there were."""
        made = 0
        while self.up and not self.paused and self._calls and self._calls[0][0] <= self.world.now:
            heapq.heappop(self._calls)[2]()
            made += 1
        return made

    def answer_dials(self, *, refuse: bool = False, timeout: bool = False, silent: bool = False) -> list[Wire]:
        """Answer the dials that wait: connected if the other host is up and listens, else refused.

        Dials from and to a paused host, or to one that is not reachable, go on waiting.  ``refuse``: all are refused;
        ``timeout``: nobody answered them; ``silent``: something accepts them that will never say a word.
        """
        wires: list[Wire] = []
        if self.paused:
            return wires
        dials, self.dials = self.dials, []
        process = self.endpoint
        for dial in dials:
            if not self.up or self.endpoint is not process:  # it died of an answer before
                break
            other = self.world.hosts.get(str(dial.target.key))
            if other is not None and (other.paused or not self.world.reachable(self, other)):
                self.dials.append(dial)
            elif refuse or timeout or other is None or not self.world.listens(other):
                error = TimeoutError("nobody answered") if timeout else ConnectionRefusedError("refused")
                self.world.steps.dial_failed += 1
                self.endpoint.dial_failed(dial, self.now, error)
                self.pump()
            else:
                wires.append(self.world.connect(self, other, dial, silent=silent))
        return wires

    # -- the machine --------------------------------------------------------------------------------------------

    def crash(self, *, reset: bool = True) -> None:
        """The process dies.  Bytes that it wrote may still arrive; with ``reset`` the peer then learns that it is gone.

        Without, the machine is gone too: the peer hears nothing more.
        """
        if not self.up:
            return
        self.up = self.paused = False
        self.doom = None
        self.dials.clear()
        self.missed.clear()
        self.wires.clear()
        self._calls.clear()
        self.on_wake = None
        if self.disk is not None:
            self.disk.lose()
        for wire in self.world.wires:
            for end in (0, 1):
                if wire.hosts[end] is self and wire.ends[end] is not None:
                    wire.leave(end)
                    wire.pipes[1 - end].black_hole = True
                    wire.pipes[end].fin = reset
        for crashed in self.world.watchers.crashed:
            crashed(self)

    def crash_after(self, effects: int, *, reset: bool = True) -> None:
        """The process dies in the middle of its work: as soon as it has carried out so many more effects."""
        if self.up:
            self.doom, self.doom_reset = max(1, effects), reset

    def restart(self) -> None:
        """A new process with the same peer id; it has forgotten everything."""
        self.crash()
        self.notices.clear()
        self._boot()

    def pause(self) -> None:
        """The process stands still, and nobody is told."""
        self.paused = self.up

    def resume(self) -> None:
        """It goes on; what happened meanwhile reaches it only now."""
        self.paused = False
        missed, self.missed = self.missed, []
        for wire, end, error in missed:
            wire._lose(end, error)
        for wire in self.world.open_wires():
            for end in (0, 1):
                if wire.hosts[end] is self:
                    wire.write(end)
        if self.up:
            self.tick()


class World:
    """The time, the hosts, the wires."""

    #: what carries bytes in it
    wire_type: type[Wire] = Wire

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.random = random.Random(f"{seed}/world")
        self.now = 1000.0
        self.hosts: dict[str, Host] = {}
        self.wires: list[Wire] = []
        self.watchers = Watchers()
        self.steps = Steps()
        #: an end left its wire since :meth:`open_wires` last looked
        self.ends_left = False
        #: the next wire breaks after so many bytes from that end, in that way
        self.fuse: tuple[int, int, Cut] | None = None
        #: what the pipes of new wires take, and how much a driver asks for at once
        self.capacity = CAPACITY
        self.write_size = 65536
        self._count = 0

    def host(
        self,
        name: str,
        config: Config | None = None,
        auth: Authenticator | None = None,
        *,
        peer_id: str | None = None,
        disk: Disk | None = None,
        clock: Clock | None = None,
    ) -> Host:
        """A new host; its name is its address, and its peer id unless it claims to be another.

        With a ``disk`` its node keeps a journal there; with a ``clock`` it goes by that.
        """
        config = Config() if config is None else config
        host = self.hosts[name] = Host(self, name, config, auth, peer_id, disk, clock)
        return host

    def reachable(self, dialer: Host, acceptor: Host) -> bool:
        """Does a dial get from one to the other?  It waits as long as it does not."""
        return True

    def listens(self, host: Host) -> bool:
        """Is a dial of that host answered?"""
        return host.up and host.listening

    @property
    def connections_made(self) -> int:
        """How many wires there have been."""
        return self._count

    def knock(self, stranger: Host, acceptor: Host) -> Wire:
        """A byte stream comes about at whose dialling end there is no core."""
        self._count += 1
        wire = Wire(self, self._count, (stranger, acceptor))
        self.wires.append(wire)
        self.steps.accept += 1
        accepted = wire.ends[1] = acceptor.endpoint.accept(acceptor.now, source=stranger.name)
        acceptor.wires[accepted] = (wire, 1)
        acceptor.pump()
        return wire

    def connect(
        self, dialer: Host, acceptor: Host, dial: Dial, *, silent: bool = False, nobody: bool = False
    ) -> Wire:
        """A byte stream comes about; ``silent``: nobody sits at its other end, and nobody tells.

        ``nobody``: there is no core at its other end.
        """
        self._count += 1
        wire = self.wire_type(self, self._count, (dialer, acceptor))
        for pipe in wire.pipes:
            pipe.capacity, pipe.black_hole = self.capacity, silent
        if self.fuse is not None and not silent and not nobody:
            end, count, how = self.fuse
            wire.pipes[end].fuse, wire.pipes[end].fuse_cut, self.fuse = max(1, count), how, None
        self.wires.append(wire)
        if not silent and not nobody:
            self.steps.accept += 1
            accepted = wire.ends[1] = acceptor.endpoint.accept(acceptor.now, source=dialer.name)
            acceptor.wires[accepted] = (wire, 1)
        self.steps.connect += 1
        dialled = wire.ends[0] = dialer.endpoint.connect(dial, dialer.now)
        dialer.wires[dialled] = (wire, 0)
        dialer.pump()
        if not silent and not nobody:
            acceptor.pump()
        return wire

    def open_wires(self) -> list[Wire]:
        """Wires that an end still uses."""
        if self.ends_left:
            self.ends_left = False
            self.wires = [wire for wire in self.wires if wire.ends[0] is not None or wire.ends[1] is not None]
        return self.wires.copy()

    def live(self, a: str, b: str) -> Wire | None:
        """The wire on which both hosts' sessions are live, if there is one."""
        for wire in self.open_wires():
            names = {wire.hosts[0].name, wire.hosts[1].name}
            states = [end.state if end is not None else None for end in wire.ends]
            if names == {a, b} and states == [ConnectionState.LIVE, ConnectionState.LIVE]:
                return wire
        return None

    def deliver_all(self, limit: int = 10_000, chunk: int | None = None) -> int:
        """Deliver until nothing is under way; answers dials.  Returns the rounds that it took."""
        for rounds in range(limit):
            moved = 0
            for host in tuple(self.hosts.values()):
                if host._calls:
                    moved += host.make_calls()
                if host.dials and host.up:
                    moved += len(host.dials)
                    host.answer_dials()
                    moved -= len(host.dials)
            for wire in self.open_wires():
                there, back = wire.pipes
                if there.data or there.fin:
                    moved += wire.deliver_or_end(0, chunk)
                if back.data or back.fin:
                    moved += wire.deliver_or_end(1, chunk)
            if not moved:
                return rounds
        raise AssertionError("the world does not come to rest")

    def next_timer(self) -> float:
        """When the next timer of any host is due."""
        return min([host.timer for host in self.hosts.values() if host.up and not host.paused], default=inf)

    def advance(self, seconds: float) -> None:
        """Let time pass, serving timers when they are due; no bytes move."""
        self._pass_time(self.now + seconds, move=False)

    def jump(self, seconds: float) -> None:
        """Time passes in one leap (a pause, a suspended machine)."""
        self.now += seconds
        for host in list(self.hosts.values()):
            if host.up:
                host.tick()

    def run(self, seconds: float = 60.0) -> None:
        """Let everything go right for a while: bytes arrive at once, dials are answered, timers are served."""
        self._pass_time(self.now + seconds, move=True)

    def step(self, until: float) -> None:
        """Let what comes next go right: the bytes under way, else the next timer or late arrival up to ``until``."""
        if not self.deliver_all():
            late = [
                pipe.held_until
                for wire in self.open_wires()
                for pipe in wire.pipes
                if (pipe.data or pipe.fin) and pipe.held_until > self.now
            ]
            self._pass_time(min(self.next_timer(), until, *late), move=True)

    def _pass_time(self, end: float, *, move: bool) -> None:
        if move:
            self.deliver_all()
        while True:
            due, timers = inf, []
            for host in self.hosts.values():
                if host.up and not host.paused:
                    timer = host.timer
                    timers.append((host, timer))
                    if timer < due:
                        due = timer
            if due > end:
                break
            if due > self.now:
                self.now = due
            for host, timer in timers:
                if timer <= self.now and host.up and not host.paused:
                    host.tick()
            if move:
                self.deliver_all()
        self.now = max(self.now, end)  # a call may have let more time pass
