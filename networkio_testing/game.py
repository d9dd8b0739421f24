"""A game with the network: some nodes, their applications, and everything that may go wrong between them.

Theory of operation
-------------------
A :class:`Game` is a world, its judge, and the *moves*: methods, each of which is always allowed and needs nothing but
its arguments.  What does not apply (nobody runs there, nothing is held) does nothing; an index counts modulo what is
there.  So any list of moves is a game, and stays one when some are left out or changed: that is what
:mod:`~networkio_testing.swarm` draws at random, :mod:`~networkio_testing.shrink` makes shorter, and a state machine of
hypothesis makes up.  Every game ends in :meth:`Game.heal`: the network works again, the applications settle
everything, and nothing may be left.

Hosts have names of one letter, and a *pair* is two of them: ``"ab"`` is what the application on "a" has to do with
"b".  "A" is a second process with the peer id of "a", an impostor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from struct import Struct
from typing import Literal
from zlib import crc32

from networkio_proto import Config, Delivery, MessageTooLarge, OutboxFull, SessionClosed, TargetState
from networkio_proto.journal import JournalBatch

from .adversary import Adversary, SharedKey
from .clocks import Clock
from .disk import Disk
from .durable import DurableJudge
from .judges import Judge, Violation
from .stalls import StallJudge
from .world import Cut, Host, Watcher, Wire, World

__all__ = ["NAMES", "TWIN", "Game", "Recorder"]

#: the hosts of a game; it has as many of them as it needs
NAMES = "abcdefgh"

#: the impostor, and whom it impersonates
TWIN = "A"

#: what a sender may be told
_REFUSALS = (OutboxFull, SessionClosed, MessageTooLarge)

#: payloads that somebody on the way may repeat are no longer than this
_REPEATABLE = 3000

#: of each write so many bytes are hashed; what lies behind is mostly payload
_HASHED = 512

_WROTE = Struct("<IBId")
_ARRIVED = Struct("<IBQ")
_TICKED = Struct("<Id")
_JOURNALED = Struct("<IQI")

#: a message is told from another by so many bytes of its payload
_TELLING = 12


class Recorder(Watcher):
    """Remembers the last writes of each end, for those who replay them, and hashes what happens.

    Equal hashes: every write, arrival and timer was the same, at the same time, in the same order.
    """

    def __init__(self, world: World) -> None:
        self.written: dict[tuple[int, int], bytes] = {}
        self.world = world
        self._hash = 0
        world.watchers.append(self)

    @property
    def trace(self) -> str:
        """The hash of everything so far."""
        return f"{self._hash:08x}"

    def wrote(self, wire: Wire, end: int, buffers: Sequence[bytes | memoryview]) -> None:
        first = bytes(buffers[0]) if len(buffers) == 1 else b"".join(buffers)
        size, number = len(first), wire.number
        if size < _REPEATABLE:
            self.written[(number, end)] = first
        sofar = crc32(_WROTE.pack(number, end, size, self.world.now), self._hash)
        self._hash = crc32(first if size <= _HASHED else first[:_HASHED], sofar)

    def arrived(self, wire: Wire, end: int) -> None:
        self._hash = crc32(_ARRIVED.pack(wire.number, end, wire.pipes[1 - end].delivered), self._hash)

    def ticked(self, host: Host) -> None:
        self._hash = crc32(_TICKED.pack(host.number, self.world.now), self._hash)

    def journaled(self, host: Host, batch: JournalBatch, error: OSError | None) -> None:
        number = 0 if error is None else error.errno or 0
        self._hash = crc32(_JOURNALED.pack(host.number, batch.token, number), self._hash)


class Game:
    """The world, its hosts, and what their applications hold.

    ``configs``: one for each host "a", "b", ...; None: the default.  ``pairs``: who talks to whom.  ``dialers``: the
    pairs whose first dials the second.  ``named``: dials say whom they expect.  ``durable``: the hosts that keep a
    journal, on a disk of their own; ``inboxes``: those of them that have a durable inbox.  ``clocks``: what the clocks
    of some hosts show at first, and their rates.  ``stranger``: there is an adversary, and the hosts have a key
    ("secret") or none ("open").
    """

    def __init__(
        self,
        seed: int = 0,
        configs: Sequence[Config | None] = (None, None),
        *,
        pairs: Sequence[str] = ("ab", "ba"),
        dialers: Sequence[str] = ("ab",),
        named: bool = True,
        durable: str = "",
        inboxes: str = "",
        clocks: Mapping[str, Sequence[float]] | None = None,
        stranger: str = "",
    ) -> None:
        self.world = World(seed)
        self.judge = DurableJudge(self.world) if durable else Judge(self.world)
        self.recorder = Recorder(self.world)
        self.names = NAMES[: len(configs)]
        self.disks = {name: Disk(inbox=name in inboxes) for name in self.names if name in durable}
        now = self.world.now
        self.clocks = {name: Clock(rate, shows, now) for name, (shows, rate) in (clocks or {}).items()}
        self.stalls = StallJudge(self.world) if clocks else None
        self.auth = SharedKey(b"a key that all hosts share") if stranger == "secret" else None
        self.hosts = {
            name: self.world.host(name, config, self.auth, disk=self.disks.get(name), clock=self.clocks.get(name))
            for name, config in zip(self.names, configs, strict=True)
        }
        self.adversary = Adversary(self.world, secret=stranger == "secret") if stranger else None
        self.pairs = tuple(pairs)
        self.dialers = tuple(dialers)
        #: an application left, so applications must ask for connections again
        self.left = False
        #: somebody answered for another where nobody proves who he is; who was answered so may have given up
        self.misled = False
        #: look on for some minutes in the end, whether connections really stay
        self.vigil = True
        everybody = (*self.pairs, TWIN + "b")
        self.held: dict[str, list[Delivery]] = {pair: [] for pair in everybody}
        self.sent: dict[str, list[int]] = {pair: [] for pair in everybody}
        self._count = 0
        self._named = named or stranger == "secret"  # a shared key needs to know whom it is meant for
        for pair in self.dialers:
            self._dial(pair)

    # -- what applications do -------------------------------------------------------------------------------------

    def _runs(self, name: str) -> Host | None:
        """The host, if there is a process that can do anything."""
        host = self.hosts.get(name)
        return None if host is None or not host.up or host.paused else host

    def send(
        self, pair: str, size: int, *, ttl: float | None = None, headers: int = 0, ack_now: bool = False
    ) -> int | None:
        """Send a message of this size, if that is possible now."""
        host = self._runs(pair[0])
        if host is None:
            return None
        payload = self._payload(pair, size)
        extra: dict[str, object] | None = {f"key{i}": self._count + i for i in range(headers)} if headers else None
        try:
            (sequence,) = host.send(pair[1], payload, ttl=ttl, headers=extra, ack_now=ack_now)
        except _REFUSALS as error:
            self.judge.tally[type(error).__name__] += 1
            return None
        self.sent[pair].append(sequence)
        return sequence

    def send_many(self, pair: str, size: int, count: int) -> None:
        """Send some messages of this size at a time."""
        host = self._runs(pair[0])
        if host is None:
            return
        payloads = [self._payload(pair, size) for _ in range(count)]
        try:
            self.sent[pair] += host.send(pair[1], *payloads)
        except _REFUSALS as error:
            self.judge.tally[type(error).__name__] += 1

    def _payload(self, pair: str, size: int) -> bytes:
        """What no other message of the game has, if there is room for it."""
        self._count += 1
        if self.disks:  # old copies give a number to two messages: they must differ
            size = max(size, _TELLING)
        return (b"%s%07d" % (pair.encode(), self._count)).ljust(size, b".")[:size]

    def send_special(self, pair: str, size: int, ttl: float | None, headers: int, ack_now: bool) -> None:
        """Send a message with something more than its bytes."""
        self.send(pair, size, ttl=ttl, headers=headers, ack_now=ack_now)

    def cancel(self, pair: str, index: int) -> None:
        """Cancel one of the last messages."""
        host = self._runs(pair[0])
        if host is not None and self.sent[pair]:
            last = self.sent[pair][-20:]
            host.cancel(pair[1], last[index % len(last)])

    def take(self, pair: str, limit: int) -> None:
        """Take messages, and hold them."""
        host = self._runs(pair[0])
        if host is not None:
            self.held[pair] += host.take(pair[1], limit)

    def read(self, pair: str, limit: int) -> None:
        """Take messages, and acknowledge them at once."""
        host = self._runs(pair[0])
        if host is not None:
            host.read(pair[1], limit)

    def settle(self, pair: str, index: int, how: Literal["ack", "reject", "release"] = "ack") -> None:
        """Be done with one of the held messages, in any order."""
        host, held = self._runs(pair[0]), self.held[pair]
        if host is None or not held:
            return
        delivery = held.pop(index % len(held))
        if how == "release":
            host.release(pair[1], delivery)
        else:
            host.settle(pair[1], delivery, (7 + delivery[1] % 3, "no") if how == "reject" else None)

    def reject(self, pair: str, index: int) -> None:
        """Reject one of the held messages."""
        self.settle(pair, index, "reject")

    def release(self, pair: str, index: int) -> None:
        """Give one of the held messages back."""
        self.settle(pair, index, "release")

    def leave(self, pair: str, how: Literal["end", "abort", "disconnect"]) -> None:
        """Say good-bye in one of three ways."""
        host = self._runs(pair[0])
        if host is not None:
            self.left = True
            {"end": host.end, "abort": host.abort, "disconnect": host.disconnect}[how](pair[1])

    def end(self, pair: str) -> None:
        """Nothing follows."""
        self.leave(pair, "end")

    def abort(self, pair: str) -> None:
        """The session is given up."""
        self.leave(pair, "abort")

    def disconnect(self, pair: str) -> None:
        """The connection is given up, the session is not."""
        self.leave(pair, "disconnect")

    def dial(self, pair: str) -> None:
        """Dial again what is not dialled any more."""
        host = self._runs(pair[0])
        if host is None or pair[0] == TWIN:
            return
        targets = [target for target in host.endpoint.targets if target.key == pair[1]]
        for target in targets:
            if target.state is TargetState.STOPPED:
                self.world.steps.target += 1
                host.endpoint.remove_target(target)
        if not targets:
            self._dial(pair)

    def _dial(self, pair: str) -> None:
        self.hosts[pair[0]].dial(pair[1], to=pair[1] if self._named else None)

    # -- what the network does ------------------------------------------------------------------------------------

    def wire(self, index: int) -> Wire | None:
        """One of the wires that are in use."""
        wires = self.world.open_wires()
        return wires[index % len(wires)] if wires else None

    def deliver(self, index: int, end: int, count: int | None, chunk: int | None = None) -> None:
        """Some bytes arrive."""
        if wire := self.wire(index):
            wire.deliver(end, count, chunk)

    def cut(self, index: int, end: int, how: Cut, count: int = 0) -> None:
        """A wire breaks after so many more of the bytes that are under way."""
        if wire := self.wire(index):
            wire.deliver(end, count)
            wire.snap(end, how)

    def fuse(self, index: int, end: int, how: Cut, count: int) -> None:
        """A wire breaks at an exact byte that is perhaps not yet said; without a wire, the next one does."""
        if wire := self.wire(index):
            wire.set_fuse(end, count, how)
        else:
            self.world.fuse = (end, count, how)

    def fuse_next(self, end: int, how: Cut, count: int) -> None:
        """The next wire breaks at this byte: somewhere in the handshake, or soon after."""
        self.world.fuse = (end, count, how)

    def straggle(self, late: float | None) -> None:
        """All wires break; new ones get as far as the dialer's ATTACH; then it gives up, and that comes late."""
        for wire in self.world.open_wires():
            wire.cut()
        self.world.advance(0.06)
        self.answer()
        for wire in self.world.open_wires():
            wire.deliver(0)
            wire.deliver(1)
            if late is not None:
                wire.cut_half(0, late=late)

    def black_hole(self, index: int) -> None:
        """A wire loses everything from now on."""
        if wire := self.wire(index):
            wire.black_hole()

    def clog(self, index: int, end: int, seconds: float) -> None:
        """Nothing of what this end says arrives for a while."""
        if wire := self.wire(index):
            wire.pipes[end].held_until = self.world.now + seconds

    def throttle(self, index: int, end: int, capacity: int) -> None:
        """A wire takes only so much before its writer is blocked."""
        if wire := self.wire(index):
            wire.throttle(end, capacity)

    def replay(self, index: int, end: int) -> None:
        """Somebody says again what a live end said on this wire."""
        wire = self.wire(index)
        if wire is not None and wire is self.world.live(wire.hosts[0].name, wire.hosts[1].name):
            wire.replay(end, self.recorder.written.get((wire.number, end), b""))

    def answer(self, *, refuse: bool = False) -> None:
        """The dials that wait are answered."""
        for host in tuple(self.hosts.values()):
            if host.up and host.dials:
                host.answer_dials(refuse=refuse)

    def answer_badly(self, how: Literal["refused", "timeout", "silent"]) -> None:
        """The dials that wait fail, or are answered by something that never says a word."""
        for host in tuple(self.hosts.values()):
            if host.up and host.dials:
                host.answer_dials(refuse=how == "refused", timeout=how == "timeout", silent=how == "silent")

    # -- what time and machines do --------------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        """Everything goes right for a while."""
        self.world.run(seconds)

    def advance(self, seconds: float) -> None:
        """Time passes, and nothing arrives."""
        self.world.advance(seconds)

    def jump(self, seconds: float) -> None:
        """All clocks leap: the machine slept."""
        self.world.jump(seconds)

    def crash(self, name: str, reset: bool, restart: bool = True) -> None:
        """A process dies, and another may take its place."""
        host = self.hosts.get(name)
        if host is not None and host.up:
            host.crash(reset=reset)
            if restart:
                self.restart(name)

    def crash_for_good(self, name: str, reset: bool) -> None:
        """A process dies, and it may take long until somebody restarts it."""
        self.crash(name, reset=reset, restart=False)

    def crash_between(self, name: str, effects: int, reset: bool) -> None:
        """A process dies in the middle of its work, between two effects; nobody restarts it at once."""
        host = self._runs(name)
        if host is not None:
            host.crash_after(effects, reset=reset)

    def restart(self, name: str) -> None:
        """A process begins, if there is none."""
        host = self.hosts[name]
        if host.up:
            return
        for pair in self.held:
            if pair[0] == name:
                self.held[pair].clear()
                if host.disk is None:
                    self.sent[pair].clear()
        host.restart()
        for pair in self.dialers:
            if pair[0] == name:
                self._dial(pair)

    def pause(self, name: str) -> None:
        """A process stands still, or goes on."""
        host = self.hosts[name]
        if host.paused:
            host.resume()
        else:
            host.pause()

    def twin(self) -> None:
        """Another process with the id of "a" comes and dials "b", or goes."""
        host = self.hosts.get(TWIN)
        if host is None:
            host = self.hosts[TWIN] = self.world.host(TWIN, self.hosts["a"].config, self.auth, peer_id="a")
        elif host.up:
            host.crash(reset=True)
            return
        else:
            self.restart(TWIN)
        host.dial("b")

    # -- the end --------------------------------------------------------------------------------------------------

    def heal(self) -> None:
        """Nothing goes wrong any more: everything must come to its end, and then to rest."""
        world = self.world
        self._mend()
        for rounds in range(100):
            for pair in self.dialers if self.left or self.misled else ():
                self.dial(pair)
            while self.settle_everything():
                world.run(0.2)
            world.run(0.2 if rounds < 10 else 5 if rounds < 30 else 30)
            if rounds > 5 and self.is_done():
                break
        world.run(5)
        self.settle_everything()
        world.run(5)
        if self.vigil:
            world.run(max(80.0, self._longest_wait()))
            made = world.connections_made
            world.run(60)
            if made != world.connections_made:
                raise Violation("I24", "connections come and go, and nothing is wrong", world)
        self.judge.at_rest()

    def _longest_wait(self) -> float:
        """Until the last target has dialled that waits: who answers at it may long be connected, and it not know."""
        waits = [
            target.retry_at - host.now
            for host in self.hosts.values()
            for target in host.endpoint.targets
            if host.up and target.retry_at is not None
        ]
        return 1.1 * max(waits, default=0.0) + 5.0  # its clock may be slow

    def _mend(self) -> None:
        """All machines run, and all wires that are left carry what they are given."""
        world = self.world
        world.capacity, world.fuse = 1 << 30, None
        if TWIN in self.hosts:
            self.hosts[TWIN].crash(reset=True)
        for host in self.hosts.values():
            host.doom = None
        for name in self.names:
            self.hosts[name].resume()
            if (disk := self.disks.get(name)) is not None:
                disk.heal()
                if disk.stopped:  # its process can keep no promise any more
                    self.hosts[name].crash()
            self.restart(name)
            if disk is not None:
                disk.finish(self.hosts[name])
                disk.serve(self.hosts[name])
        for wire in world.open_wires():
            for end, pipe in enumerate(wire.pipes):
                pipe.fuse = None
                wire.throttle(end)

    def settle_everything(self) -> int:
        """All applications acknowledge what they hold and all that they can get; how many was that?"""
        settled = 0
        for pair in self.pairs:
            settled += len(self.held[pair])
            while self.held[pair]:
                self.settle(pair, 0)
            settled += len(self.hosts[pair[0]].read(pair[1]))
        return settled

    def is_done(self) -> bool:
        """Is everything read, everywhere, and known to be?  Who died in silence is missed only after a while."""
        sessions = [self.hosts[pair[0]].session(pair[1]) for pair in self.pairs]
        return all(session.outbox.all_read and not session.unsettled for session in sessions)
