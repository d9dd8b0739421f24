"""Every state that two nodes can get into with a message each, few crashes, few cuts and few connections.

What can happen at any moment: a dial is answered; the next frame arrives at an end of a wire; an application reads;
a wire breaks, for both ends at once or for one of them, the other hears nothing more; a process dies, noticed or not,
and another begins.  Time passes only when nothing else is left to happen: then the next timer comes.  That leaves out
states in which a timer is faster than a byte, and keeps the number of states finite.

Where nothing can happen any more, or the connections are used up, the network heals: everything must be read, and the
judge must be content.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import pytest

from networkio_proto import Config
from networkio_testing import Host, Judge, Wire, World
from networkio_testing.world import Watcher
from tests.exhaustive.conversation import FULL, report
from tests.exhaustive.search import Graph, explore
from tests.proto.helpers_wire import PREAMBLE, fingerprint, plain

_PEER = {"a": "b", "b": "a"}

#: what happens, to whom, and to which end
Move: TypeAlias = "tuple[str, str | int, int]"


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may go wrong."""

    dialers: str
    crashes: int
    cuts: int
    connections: int
    messages: int = 1

    def __str__(self) -> str:
        return (
            f"dialled by {self.dialers}, {self.messages} messages each, {self.crashes} crashes, {self.cuts} cuts,"
            f" {self.connections} connections"
        )


class Dull:
    """Randomness of which no draw tells how many came before it; only what must be unique (an outbox's id) is."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._ids = 0

    def random(self) -> float:
        return 0.5

    def randbytes(self, size: int) -> bytes:
        if size != 16:
            return bytes(size)
        self._ids += 1
        return f"{self._owner} {self._ids}".encode().rjust(16)


class _Boring(Watcher):
    """Every process draws dully, once it has its name."""

    def booted(self, host: Host) -> None:
        host.endpoint.random = Dull(f"{host.name}{host.lives}")


class Small(World):
    """Two nodes, each with a message for the other."""

    def __init__(self, bounds: Bounds) -> None:
        super().__init__(6)
        self.bounds = bounds
        self.crashes, self.cuts = bounds.crashes, bounds.cuts
        self.judge = Judge(self)
        self.watchers.append(_Boring())
        for name in "ab":
            self.host(name, Config(session_expiry=None))
        for name, peer in _PEER.items():
            self.hosts[name].send(peer, *(b"%s%d" % (name.encode(), number) for number in range(bounds.messages)))
        for name in bounds.dialers:
            self.hosts[name].dial(_PEER[name])

    def wire(self, number: str | int) -> Wire:
        [wire] = [wire for wire in self.wires if wire.number == number]
        return wire

    def restart(self, name: str, *, reset: bool) -> None:
        """A process dies, and the next begins."""
        host = self.hosts[name]
        host.crash(reset=reset)
        host.restart()
        if name in self.bounds.dialers:
            host.dial(_PEER[name])

    def at_ease(self) -> bool:
        """One connection, on which everything was said and read."""
        wire = self.live("a", "b")
        return wire is not None and self.open_wires() == [wire] and all(self._is_done(name) for name in "ab")

    def _is_done(self, name: str) -> bool:
        session = self.hosts[name].session(_PEER[name])
        return session.outbox.all_read and not session.unread


def moves(world: Small) -> list[Move]:
    """Everything that can happen next."""
    found: list[Move] = []
    if world.connections_made < world.bounds.connections:
        found += [("dial", host.name, 0) for host in world.hosts.values() if host.dials]
    elif any(host.dials for host in world.hosts.values()):
        return []
    wires = world.open_wires()
    for wire in wires:
        found += [("arrive", wire.number, end) for end in (0, 1) if wire.waiting(end) and wire.ends[1 - end]]
    found += [("read", name, 0) for name, peer in _PEER.items() if world.hosts[name].session(peer).unread]
    if not found:
        if world.at_ease() and not (world.crashes or world.cuts):
            return []
        found = [] if world.at_ease() else [("time", 0, 0)]
    if world.cuts:
        whole = [wire for wire in wires if None not in wire.ends]
        found += [(how, wire.number, end) for wire in whole for how, end in (("cut", 0), ("lose", 0), ("lose", 1))]
    if world.crashes:
        found += [("crash", name, reset) for name in "ab" for reset in (0, 1)]
    return found


def make(world: Small, move: Move) -> None:
    """Let it happen."""
    what, which, end = move
    if what == "dial":
        world.hosts[str(which)].answer_dials()
    elif what == "arrive":
        wire = world.wire(which)
        wire.deliver(end, next_frame(wire, end))
    elif what == "read":
        world.hosts[str(which)].read(_PEER[str(which)])
    elif what == "time":
        world.advance(max(0.0, world.next_timer() - world.now))
    elif what == "crash":
        world.crashes -= 1
        world.restart(str(which), reset=bool(end))
    else:
        world.cuts -= 1
        wire = world.wire(which)
        if what == "cut":
            wire.cut()
        else:
            wire.cut_half(end)


def next_frame(wire: Wire, end: int) -> int:
    """How long the next frame is, with the preamble if that stands before it."""
    waiting = bytes(wire.pipes[end].data[:20])
    start = len(PREAMBLE) if waiting.startswith(PREAMBLE) else 0
    return start + 4 + int.from_bytes(waiting[start : start + 4], "big")


def name(world: Small) -> str:
    """Everything that the future depends on."""
    hosts = [
        (
            host.lives,
            fingerprint(host.endpoint),
            [(target.state, target.attempts) for target in host.endpoint.targets],
            len(host.dials),
            round(min(host.timer - world.now, 1e6), 3),
        )
        for host in world.hosts.values()
    ]
    wires = [
        (
            wire.hosts[0].name,
            [
                end and (end.state.value, end.dial, end.generation, end.credit_told, plain(end.attached))
                for end in wire.ends
            ],
            [(bytes(pipe.data), pipe.fin, pipe.black_hole) for pipe in wire.pipes],
        )
        for wire in world.open_wires()
    ]
    left = world.bounds.connections - world.connections_made
    return repr((world.crashes, world.cuts, left, hosts, wires))


def finish(world: Small) -> None:
    """Everything goes right from now on."""
    for _ in range(20):
        world.run(10.0)
        for host, peer in _PEER.items():
            world.hosts[host].read(peer)
    made = world.connections_made
    world.run(60.0)
    assert world.connections_made == made, "connections come and go"
    assert world.at_ease()
    world.judge.at_rest()


def search(bounds: Bounds, most: int = 1 << 60) -> Graph[Move]:
    return explore(Small(bounds), moves, make, name, finish, most=most)


QUICK = [Bounds("a", 0, 1, 2), Bounds("b", 1, 0, 2)]
WHOLE = [
    *(Bounds(dialers, crashes, cuts, crashes + cuts + 1) for crashes, cuts in ((0, 1), (1, 0), (0, 2), (1, 1), (2, 0))
      for dialers in ("a", "b")),
    Bounds("ab", 0, 1, 3), Bounds("ab", 1, 0, 3),
]  # fmt: skip
#: too much to be visited whole: so many states of it are
VAST = [Bounds(dialers, 2, 2, 3) for dialers in ("a", "b")]
MOST = 100_000


@pytest.mark.slow
@pytest.mark.parametrize("bounds", WHOLE if FULL else QUICK, ids=str)
def test_whatever_happens_to_two_nodes_everything_is_read_in_the_end(bounds: Bounds) -> None:
    graph = search(bounds)
    assert graph.states > 100
    assert not graph.cut_short
    report(f"{bounds}: {graph.states} states, {graph.steps} steps, {graph.ends} ends")


@pytest.mark.slow
@pytest.mark.skipif(not FULL, reason="it takes long: make exhaust")
@pytest.mark.parametrize("bounds", VAST, ids=str)
def test_everything_is_read_in_the_end_in_as_many_states_as_can_be_visited(bounds: Bounds) -> None:
    graph = search(bounds, MOST)
    report(
        f"{bounds}: {graph.states} states{', there are more' * graph.cut_short}, {graph.steps} steps, {graph.ends} ends"
    )
