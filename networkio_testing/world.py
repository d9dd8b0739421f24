"""A simulated network of nodes with a virtual clock, in which everything can break at any byte.

Theory of operation
-------------------
A :class:`World` owns the time, the hosts and the wires.  A :class:`Host` drives one real
:class:`~networkio_proto.endpoint.Endpoint` exactly as an adapter does: it empties the effects after every input.  A
:class:`Wire` is one byte stream: two pipes whose bytes wait until somebody delivers them, whole or in part.  Nothing
happens by itself: a test (or :meth:`World.run`, which lets everything go right) decides which bytes arrive when, which
wire is cut, who crashes, and how time passes.  All randomness comes from seeds, so that a run repeats bit for bit.
Whoever wants to know what happens hangs a :class:`Watcher` into ``world.watchers``; a
:class:`~networkio_testing.judges.Judge` is one that compares it with the guarantees.

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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

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
)
from networkio_proto.auth import Authenticator

__all__ = ["Host", "Pipe", "Watcher", "Wire", "World"]

#: a pipe that nobody throttles takes so many bytes before its writer is blocked
CAPACITY = 1 << 30


class Watcher:
    """Is told what happens in a world, each time after it happened; every method here does nothing."""

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

    def ticked(self, host: Host) -> None:
        """The timers of ``host`` were served."""

    def wrote(self, wire: Wire, end: int, buffers: Sequence[bytes | memoryview]) -> None:
        """``end`` wrote what one call of ``data_to_send`` returned."""

    def arriving(self, wire: Wire, end: int) -> None:
        """Bytes are about to arrive at ``end``: the one thing that is told before it happens."""

    def arrived(self, wire: Wire, end: int) -> None:
        """They arrived, and nothing else has happened since."""


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


class Wire:
    """One byte stream between two hosts; end 0 dialled, end 1 accepted."""

    def __init__(self, world: World, number: int, hosts: tuple[Host, Host]) -> None:
        self.world = world
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

    def write(self, end: int, now: float) -> None:
        """The driver of ``end``: move what the core has to say into the pipe, as far as it takes it."""
        connection, pipe = self.ends[end], self.pipes[end]
        if connection is None or self.hosts[end].paused:
            return
        while len(pipe.data) < pipe.capacity:
            buffers = connection.data_to_send(now, self.world.write_size)
            if not buffers:
                break
            for buffer in buffers:
                pipe.data += buffer
            for watcher in self.world.watchers:
                watcher.wrote(self, end, buffers)
        if pipe.black_hole:
            pipe.data.clear()
        if self.closing[end] and not connection.dirty and not self.shut[end]:
            self.shut[end] = pipe.fin = True

    def deliver(self, end: int, count: int | None = None, chunk: int | None = None) -> int:
        """Let up to ``count`` bytes from ``end`` arrive (in pieces of ``chunk``), then FIN if all of them did."""
        pipe, other = self.pipes[end], 1 - end
        if self.hosts[other].paused or self.world.now < pipe.held_until:
            return 0
        if pipe.black_hole:
            pipe.data.clear()
            return 0
        count = len(pipe.data) if count is None else min(count, len(pipe.data))
        whole = count == len(pipe.data)
        data = bytes(pipe.data[:count])
        del pipe.data[:count]
        pipe.delivered += count
        step = chunk or max(1, count)
        for start in range(0, count, step):
            target = self.ends[other]
            if target is not None:
                for watcher in self.world.watchers:
                    watcher.arriving(self, other)
                target.receive_data(data[start : start + step], self.world.now)
                for watcher in self.world.watchers:
                    watcher.arrived(self, other)
                self.hosts[other].pump()
        if whole and pipe.fin:
            pipe.fin = False
            self._lose(other, None)
        if count and self.ends[end] is not None:
            self.write(end, self.world.now)
            self.hosts[end].pump()
        return count

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
            self.write(end, self.world.now)
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
        self.ends[end] = None
        if error is None:
            connection.receive_eof(self.world.now)
        else:
            connection.connection_lost(self.world.now, error)
        self.pipes[end].fin = True
        self.hosts[end].pump()


class Host:
    """A machine that runs one node, which may crash and come back as a new process."""

    def __init__(
        self, world: World, name: str, config: Config, auth: Authenticator | None, peer_id: str | None = None
    ) -> None:
        self.world = world
        self.name = name
        self.peer_id = name if peer_id is None else peer_id
        self.config = config
        self.auth = auth
        self.lives = 0
        self.up = False
        self.listening = True
        #: the process stands still: it reads nothing, and its timers are not served
        self.paused = False
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
        self.endpoint = Endpoint(self.peer_id, self.config, auth=self.auth, random=source)
        for watcher in self.world.watchers:
            watcher.booted(self)
        return self.endpoint

    # -- the application ----------------------------------------------------------------------------------------

    def session(self, peer: str) -> Session:
        """The session with ``peer``."""
        return self.endpoint.session(peer, self.world.now)

    def dial(self, peer: str, to: str | None = "") -> Target:
        """Keep a connection to the host named ``peer``; ``to=None`` takes whoever answers."""
        target = self.endpoint.add_target(peer, self.world.now, to=peer if to == "" else to)
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
        session = self.session(peer)
        sequences = []
        for payload in payloads:
            sequences.append(
                session.send(payload, self.world.now, raw=raw, ttl=ttl, headers=headers, ack_now=ack_now)
            )
            options = {"raw": raw, "ttl": ttl, "headers": headers, "ack_now": ack_now}
            for watcher in self.world.watchers:
                watcher.accepted(self, peer, sequences[-1], payload, options)
        self.pump()
        return sequences

    def cancel(self, peer: str, sequence: int) -> bool:
        """Cancel a message; True: nobody will ever see it."""
        certain = self.session(peer).cancel(sequence, self.world.now)
        for watcher in self.world.watchers:
            watcher.cancelled(self, peer, sequence, certain)
        self.pump()
        return certain

    def read(self, peer: str, limit: int = 1 << 30) -> list[bytes]:
        """Take and acknowledge everything that is there (or ``limit``)."""
        taken = self.session(peer).take_settled(limit, self.world.now)
        for watcher in self.world.watchers:
            watcher.handed_over(self, peer, taken)
            for delivery in taken:
                watcher.settled(self, peer, delivery, None)
        self.pump()
        return [delivery[2] for delivery in taken]

    def take(self, peer: str, limit: int = 1) -> list[Delivery]:
        """Take and hold."""
        taken = self.session(peer).take(limit)
        for watcher in self.world.watchers:
            watcher.handed_over(self, peer, taken)
        return taken

    def settle(self, peer: str, delivery: Delivery, reject: tuple[int, str] | None = None) -> None:
        """Acknowledge or reject a held message."""
        self.session(peer).settle(delivery, self.world.now, reject=reject)
        for watcher in self.world.watchers:
            watcher.settled(self, peer, delivery, reject)
        self.pump()

    def release(self, peer: str, delivery: Delivery) -> None:
        """Give a held message back."""
        self.session(peer).release(delivery, self.world.now)
        for watcher in self.world.watchers:
            watcher.released(self, peer, delivery)
        self.pump()

    def end(self, peer: str) -> None:
        """Say that nothing follows."""
        self.session(peer).end(self.world.now)
        for watcher in self.world.watchers:
            watcher.ended(self, peer)
        self.pump()

    def abort(self, peer: str) -> None:
        """Give the session up."""
        self.session(peer).abort(self.world.now)
        self.pump()

    def disconnect(self, peer: str) -> None:
        """Close the connection, and dial no more."""
        self.session(peer).disconnect(self.world.now)
        self.pump()

    # -- the driver ---------------------------------------------------------------------------------------------

    def pump(self) -> None:
        """Carry out the effects, as every driver does after every input and command."""
        endpoint, watchers = self.endpoint, self.world.watchers
        while (effect := endpoint.next_effect()) is not None:
            for watcher in watchers:
                watcher.effect(self, effect)
            if isinstance(effect, Transmit):
                place = self.wires.get(effect.connection)
                if place is not None:
                    place[0].write(place[1], self.world.now)
            elif isinstance(effect, Close):
                self._close(effect)
            elif isinstance(effect, Dial):
                self.dials.append(effect)
            elif isinstance(effect, Abandon):
                if effect.dial in self.dials:
                    self.dials.remove(effect.dial)
            elif isinstance(effect, Log):
                pass  # whoever wants to read it watches for effects
            elif self.on_wake is not None:
                self.on_wake(effect.session)
            elif effect.session is None:
                while (notice := endpoint.next_event()) is not None:
                    self.notices.append(notice)
                    for watcher in watchers:
                        watcher.noticed(self, notice)
        if self.on_pump is not None:
            self.on_pump(self)
        for watcher in watchers:
            watcher.pumped(self)

    def _close(self, effect: Close) -> None:
        place = self.wires.get(effect.connection)
        if place is None:
            return
        wire, end = place
        if effect.flush:
            wire.closing[end] = True
            wire.write(end, self.world.now)
            return
        del self.wires[effect.connection]
        if wire.ends[end] is not None:
            wire.pipes[end].fin = True
            wire.ends[end] = None

    @property
    def timer(self) -> float:
        """When something of this process is due: a timer of the core, or a :meth:`call_at`."""
        due = self.endpoint.get_timer()
        return min(inf if due is None else due, self._calls[0][0] if self._calls else inf)

    def tick(self) -> None:
        """Serve the timers that are due."""
        if self.paused:
            return
        self.endpoint.handle_timer(self.world.now)
        for watcher in self.world.watchers:
            watcher.ticked(self)
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

    def answer_dials(self, *, refuse: bool = False) -> list[Wire]:
        """Answer the dials that wait: connected if the other host is up and listens, else refused.

        Dials from and to a paused host go on waiting.
        """
        wires: list[Wire] = []
        if self.paused:
            return wires
        dials, self.dials = self.dials, []
        for dial in dials:
            other = self.world.hosts.get(str(dial.target.key))
            if other is not None and other.paused:
                self.dials.append(dial)
            elif refuse or other is None or not other.up or not other.listening:
                self.endpoint.dial_failed(dial, self.world.now, ConnectionRefusedError("refused"))
                self.pump()
            else:
                wires.append(self.world.connect(self, other, dial))
        return wires

    # -- the machine --------------------------------------------------------------------------------------------

    def crash(self, *, reset: bool = True) -> None:
        """The process dies.  Bytes that it wrote may still arrive; with ``reset`` the peer then learns that it is gone.

        Without, the machine is gone too: the peer hears nothing more.
        """
        if not self.up:
            return
        self.up = self.paused = False
        self.dials.clear()
        self.missed.clear()
        self.wires.clear()
        self._calls.clear()
        self.on_wake = None
        for wire in self.world.wires:
            for end in (0, 1):
                if wire.hosts[end] is self and wire.ends[end] is not None:
                    wire.ends[end] = None
                    wire.pipes[1 - end].black_hole = True
                    wire.pipes[end].fin = reset
        for watcher in self.world.watchers:
            watcher.crashed(self)

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
                    wire.write(end, self.world.now)
        if self.up:
            self.tick()


class World:
    """The time, the hosts, the wires."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.random = random.Random(f"{seed}/world")
        self.now = 1000.0
        self.hosts: dict[str, Host] = {}
        self.wires: list[Wire] = []
        self.watchers: list[Watcher] = []
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
    ) -> Host:
        """A new host; its name is its address, and its peer id unless it claims to be another."""
        host = self.hosts[name] = Host(self, name, Config() if config is None else config, auth, peer_id)
        return host

    @property
    def connections_made(self) -> int:
        """How many wires there have been."""
        return self._count

    def connect(self, dialer: Host, acceptor: Host, dial: Dial) -> Wire:
        """A byte stream comes about."""
        self._count += 1
        wire = Wire(self, self._count, (dialer, acceptor))
        for pipe in wire.pipes:
            pipe.capacity = self.capacity
        self.wires.append(wire)
        accepted = acceptor.endpoint.accept(self.now, source=dialer.name)
        dialled = dialer.endpoint.connect(dial, self.now)
        wire.ends = [dialled, accepted]
        dialer.wires[dialled] = (wire, 0)
        acceptor.wires[accepted] = (wire, 1)
        dialer.pump()
        acceptor.pump()
        return wire

    def open_wires(self) -> list[Wire]:
        """Wires that an end still uses."""
        self.wires = [wire for wire in self.wires if wire.open]
        return list(self.wires)

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
            for host in list(self.hosts.values()):
                moved += host.make_calls()
                if host.up and host.dials:
                    moved += len(host.dials)
                    host.answer_dials()
                    moved -= len(host.dials)
            for wire in self.open_wires():
                for end in (0, 1):
                    waiting = wire.waiting(end)
                    if waiting:
                        arrived = wire.deliver(end, chunk=chunk)
                        moved += arrived > 0 or wire.waiting(end) < waiting
            if not moved:
                return rounds
        raise AssertionError("the world does not come to rest")

    def next_timer(self) -> float:
        """When the next timer of any host is due."""
        return min((host.timer for host in self.hosts.values() if host.up and not host.paused), default=inf)

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
        while (due := self.next_timer()) <= end:
            self.now = max(self.now, due)
            for host in list(self.hosts.values()):
                if host.up and not host.paused and host.timer <= self.now:
                    host.tick()
            if move:
                self.deliver_all()
        self.now = max(self.now, end)  # a call may have let more time pass
