"""A game with the network: two nodes, their applications, everything that may go wrong, and judges that watch.

A :class:`Game` is the set of moves, each of which is always allowed.  The hypothesis state machine makes its own;
:func:`play` makes many at random, every seed with its own subset of faults at its own rates, so that rare things meet.
Both end in :meth:`Game.heal`: the network works again, the applications settle everything, and nothing may be left.

    python -m tests.proto.swarm 17          play seed 17 again
    python -m tests.proto.swarm 0:1000      play a thousand
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Sequence
from typing import Literal

from networkio_proto import (
    Config,
    Delivery,
    Limits,
    MessageTooLarge,
    OutboxFull,
    SessionClosed,
    TargetState,
)
from networkio_testing.judges import Judge
from networkio_testing.world import Host, Watcher, Wire, World

__all__ = ["PIECES", "SIZES", "Game", "draw_config", "play"]

#: payloads around every bound: nothing, joined or not, one frame or more, over the window
SIZES = (0, 1, 20, 2047, 2048, 2049, 8181, 8182, 8183, 30_000, 90_000)

#: how much of what is under way arrives at once
PIECES = (1, 5, 14, 100, 1000, 10_000, 1_000_000)

Cut = Literal["rst", "fin", "half", "late"]

_FILLER = b"." * max(SIZES)


class _Recorder(Watcher):
    """Remembers the last writes of each end, for those who replay them, and counts the calls of the core."""

    def __init__(self) -> None:
        self.calls = 0
        self.written: dict[tuple[int, int], bytes] = {}

    def wrote(self, wire: Wire, end: int, buffers: Sequence[bytes | memoryview]) -> None:
        self.calls += 1
        size = sum(map(len, buffers))
        if 0 < size < 3000:
            self.written[(wire.number, end)] = b"".join(buffers)

    def arrived(self, wire: Wire, end: int) -> None:
        self.calls += 1

    def ticked(self, host: Host) -> None:
        self.calls += 1


class Game:
    """The world, its hosts "a" and "b" (the arbiter), and what their applications hold."""

    def __init__(
        self, seed: int = 0, a: Config | None = None, b: Config | None = None, *, dialers: str = "a", to: bool = True
    ) -> None:
        self.world = World(seed)
        self.judge = Judge(self.world)
        self.recorder = _Recorder()
        self.world.watchers.append(self.recorder)
        self.hosts = {"a": self.world.host("a", a), "b": self.world.host("b", b)}
        self.dialers = dialers
        #: an application left, so applications must ask for connections again
        self.left = False
        self.held: dict[str, list[Delivery]] = {"a": [], "b": [], "twin": []}
        self.sent: dict[str, list[int]] = {"a": [], "b": [], "twin": []}
        self._count = 0
        self._to = to
        for name in dialers:
            self._dial(name)

    # -- what applications do -------------------------------------------------------------------------------------

    def runs(self, name: str) -> bool:
        """Is there a process that can do anything?"""
        host = self.hosts.get(name)
        self.recorder.calls += 1
        return host is not None and host.up and not host.paused

    def send(
        self, name: str, size: int, *, ttl: float | None = None, headers: int = 0, ack_now: bool = False
    ) -> int | None:
        """Send a message of this size, if that is possible now."""
        if not self.runs(name):
            return None
        host = self.hosts[name]
        self._count += 1
        payload = (b"%s%07d" % (name.encode(), self._count) + _FILLER)[:size]
        extra: dict[str, object] | None = {f"key{i}": self._count + i for i in range(headers)} if headers else None
        try:
            (sequence,) = host.send(_PEER[name], payload, ttl=ttl, headers=extra, ack_now=ack_now)
        except (OutboxFull, SessionClosed, MessageTooLarge) as error:
            self.judge.tally[type(error).__name__] += 1
            return None
        self.sent[name].append(sequence)
        return sequence

    def cancel(self, name: str, index: int) -> None:
        """Cancel one of the last messages."""
        if self.runs(name) and self.sent[name]:
            last = self.sent[name][-20:]
            self.hosts[name].cancel(_PEER[name], last[index % len(last)])

    def take(self, name: str, limit: int) -> None:
        """Take messages, and hold them."""
        if self.runs(name):
            self.held[name] += self.hosts[name].take(_PEER[name], limit)

    def read(self, name: str, limit: int) -> None:
        """Take messages, and acknowledge them at once."""
        if self.runs(name):
            self.hosts[name].read(_PEER[name], limit)

    def settle(self, name: str, index: int, how: Literal["ack", "reject", "release"] = "ack") -> None:
        """Be done with one of the held messages, in any order."""
        if self.runs(name) and self.held[name]:
            host, peer = self.hosts[name], _PEER[name]
            delivery = self.held[name].pop(index % len(self.held[name]))
            if how == "release":
                host.release(peer, delivery)
            else:
                host.settle(peer, delivery, (7 + delivery[1] % 3, "no") if how == "reject" else None)

    def leave(self, name: str, how: Literal["end", "abort", "disconnect"]) -> None:
        """Say good-bye in one of three ways."""
        if self.runs(name):
            self.left, host = True, self.hosts[name]
            {"end": host.end, "abort": host.abort, "disconnect": host.disconnect}[how](_PEER[name])

    def dial(self, name: str) -> None:
        """Dial again what is not dialled any more."""
        if not self.runs(name):
            return
        host = self.hosts[name]
        targets = host.endpoint.targets
        for target in [target for target in targets if target.state is TargetState.STOPPED]:
            host.endpoint.remove_target(target)
        if not targets:
            self._dial(name)

    def _dial(self, name: str) -> None:
        self.hosts[name].dial(_PEER[name], to=_PEER[name] if self._to else None)

    # -- what the network does ------------------------------------------------------------------------------------

    def wire(self, index: int) -> Wire | None:
        """One of the wires that are in use."""
        wires = [wire for wire in self.world.open_wires() if wire.open or wire.waiting(0) or wire.waiting(1)]
        return wires[index % len(wires)] if wires else None

    def deliver(self, index: int, end: int, count: int | None, chunk: int | None = None) -> None:
        """Some bytes arrive."""
        if wire := self.wire(index):
            wire.deliver(end, count, chunk)

    def cut(self, index: int, end: int, how: Cut, count: int = 0) -> None:
        """A wire breaks after so many more bytes: for both sides or for one, what it said may come late."""
        if wire := self.wire(index):
            wire.deliver(end, count)
            if how == "rst" or how == "fin":
                wire.cut(how)
            else:
                wire.cut_half(end, late=None if how == "half" else 3.0)

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

    def throttle(self, index: int, end: int, capacity: int) -> None:
        """A wire takes only so much before its writer is blocked."""
        if wire := self.wire(index):
            wire.throttle(end, capacity)

    def replay(self, index: int, end: int) -> None:
        """Somebody says again what a live end said on this wire."""
        wire = self.wire(index)
        if wire and wire is self.world.live("a", "b"):
            wire.replay(end, self.recorder.written.get((wire.number, end), b""))

    def answer(self, *, refuse: bool = False) -> None:
        """The dials that wait are answered."""
        for host in self.hosts.values():
            if host.up:
                host.answer_dials(refuse=refuse)

    # -- what time and machines do --------------------------------------------------------------------------------

    def crash(self, name: str, *, reset: bool, restart: bool = True) -> None:
        """A process dies, and another may take its place."""
        host = self.hosts[name]
        host.crash(reset=reset)
        self.held[name].clear()
        self.sent[name].clear()
        if restart:
            self.restart(name)

    def restart(self, name: str) -> None:
        """A process begins, if there is none."""
        host = self.hosts[name]
        if not host.up:
            host.restart()
            if name in self.dialers:
                self._dial(name)

    def pause(self, name: str) -> None:
        """A process stands still, or goes on."""
        host = self.hosts[name]
        if host.paused:
            host.resume()
        else:
            host.pause()

    def twin(self) -> None:
        """Another process with the id of "a" comes and dials, or goes."""
        if "twin" not in self.hosts:
            self.hosts["twin"] = self.world.host("twin", self.hosts["a"].config, peer_id="a")
            self.hosts["twin"].dial("b")
        elif self.hosts["twin"].up:
            self.crash("twin", reset=True, restart=False)
        else:
            self.hosts["twin"].restart()
            self.hosts["twin"].dial("b")

    # -- the end --------------------------------------------------------------------------------------------------

    def heal(self) -> None:
        """Nothing goes wrong any more: everything must come to its end, and then to rest."""
        world = self.world
        world.capacity = 1 << 30
        if "twin" in self.hosts:
            self.crash("twin", reset=True, restart=False)
        for name in "ab":
            self.hosts[name].resume()
            self.restart(name)
        for wire in world.open_wires():
            wire.throttle(0)
            wire.throttle(1)
        for rounds in range(100):
            for name in self.dialers if self.left else ():
                self.dial(name)
            while self.settle_everything():
                world.run(0.2)
            world.run(0.2 if rounds < 10 else 5 if rounds < 30 else 30)
            if rounds > 5 and self.is_done():
                break
        world.run(30)
        self.settle_everything()
        world.run(60)
        made = world.connections_made
        world.run(60)
        assert made == world.connections_made, f"connections come and go (seed {world.seed})"
        self.judge.at_rest()

    def settle_everything(self) -> int:
        """Both applications acknowledge what they hold and all that they can get; how many was that?"""
        settled = 0
        for name in "ab":
            settled += len(self.held[name])
            while self.held[name]:
                self.settle(name, 0)
            settled += len(self.hosts[name].read(_PEER[name]))
        return settled

    def is_done(self) -> bool:
        """Is everything read, on both sides?"""
        return all(self.hosts[name].session(_PEER[name]).outbox.all_read for name in "ab")


_PEER = {"a": "b", "b": "a", "twin": "b"}


def draw_config(draw: random.Random) -> Config:
    """Bounds so small that they are met, times so short that they come; or what is usual."""
    guaranteed = draw.choice((64, 500, 5000, 65536))
    window = max(guaranteed, draw.choice((64, 1000, 20_000, 262_144)))
    expiry: tuple[float | Literal["auto"] | None, ...] = ("auto", "auto", "auto", None, 20.0, 90.0)
    return Config(
        limits=Limits(
            frame=draw.choice((8192, 9001, 65536)),
            message=draw.choice((1, 2500, 40_000, 1 << 20, 1 << 20, 1 << 20)),
        ),
        window=window,
        window_guaranteed=guaranteed,
        window_max=max(window, draw.choice((1000, 100_000, 4_194_304))),
        inbox_budget=draw.choice((1, 30_000, 1 << 28)),
        outbox_limit=draw.choice((500, 20_000, 200_000, 1 << 20)),
        overflow=draw.choice(("wait", "wait", "drop_oldest")),
        on_peer_restart=draw.choice(("redeliver", "redeliver", "report")),
        ack_delay=draw.choice((0.001, 0.025, 0.5)),
        ack_messages=draw.choice((1, 5, 64)),
        ack_cost=draw.choice((64, 3000, 65536)),
        session_expiry=draw.choice(expiry),
        shrink_after=draw.choice((2.0, 30.0, 900.0)),
        dead_after=draw.choice((9.0, 45.0)),
        ping_after=draw.choice((2.0, 4.0)),
        max_pending=draw.choice((4, 1024)),
    )


def play(seed: int, steps: int = 400) -> Game:
    """One game at random; raises AssertionError, with the way to play it again, if a promise is broken."""
    try:
        return _play(seed, steps)
    except BaseException as error:
        error.add_note(f"play it again: python -m tests.proto.swarm {seed}")
        raise


def _play(seed: int, steps: int) -> Game:
    draw = random.Random(f"{seed}/moves")
    dialers, to = draw.choice(("a", "b", "ab", "ab")), draw.random() < 0.8
    game = Game(seed, draw_config(draw), draw_config(draw), dialers=dialers, to=to)
    world, choice, chance = game.world, draw.choice, draw.random

    def name() -> str:
        return choice("ab")

    def wire() -> int:
        return draw.randrange(4)

    def end() -> int:
        return draw.randrange(2)

    def send() -> None:
        who = "twin" if chance() < 0.1 and game.runs("twin") else name()
        for _ in range(choice((1, 1, 1, 5, 40))):
            game.send(who, choice(SIZES if chance() < big else SIZES[:3]))

    def send_special() -> None:
        game.send(name(), choice(SIZES), ttl=choice((None, 0.01, 1.0, 30.0)), headers=choice((0, 1, 9)), ack_now=True)

    def settle() -> None:
        who = name()
        game.settle(who, draw.randrange(1000))

    def read() -> None:
        game.read(choice(("a", "b", "twin")), choice((1, 10, 1000)))

    def deliver() -> None:
        game.deliver(wire(), end(), choice(PIECES), choice((None, None, 1, 7)) if chance() < 0.1 else None)

    def run() -> None:
        world.run(choice((0.001, 0.03, 0.3, 3.0)))

    big = choice((0.0, 0.1, 0.5, 1.0))
    restless = choice((0.03, 0.3))
    world.capacity, world.write_size = choice((1 << 30, 20_000)), choice((1, 10_000, 65536))
    usual: dict[Callable[[], None], float] = {
        send: 10,
        lambda: game.take(name(), choice((1, 3, 100))): 5,
        settle: 10,
        read: 3,
        deliver: choice((5, 20, 60)),
        lambda: game.answer(): 3,
        run: choice((0.3, 1, 5, 20)),
        lambda: world.advance(choice((0.01, 0.1, 1.0))): 2,
    }
    faults: dict[Callable[[], None], float] = {
        send_special: 3,
        lambda: game.settle(name(), draw.randrange(1000), "reject"): 2,
        lambda: game.settle(name(), draw.randrange(1000), "release"): 2,
        lambda: game.cancel(name(), draw.randrange(20)): 2,
        lambda: game.cut(wire(), end(), choice(("rst", "fin")), choice(PIECES)): 2,
        lambda: game.cut(wire(), end(), "half", choice(PIECES)): 1,
        lambda: game.cut(wire(), end(), "late"): 1,
        lambda: game.straggle(choice((None, 0.01, 0.3, 3.0))): 1,
        lambda: game.black_hole(wire()): 0.5,
        lambda: game.throttle(wire(), end(), choice((0, 10, 1000, 1 << 20))): 1,
        lambda: game.replay(wire(), end()): 1,
        lambda: game.answer(refuse=True): 2,
        lambda: game.crash(name(), reset=chance() < 0.5): 0.3,
        lambda: game.crash(name(), reset=chance() < 0.5, restart=False): 0.2,
        lambda: game.pause(name()): 0.5,
        lambda: game.twin(): 0.3,
        lambda: world.jump(choice((1.0, 6.0, 60.0))): 0.5,
        lambda: world.run(choice((30.0, 130.0))): 0.5,
        lambda: game.leave(name(), "end"): restless,
        lambda: game.leave(name(), "abort"): restless,
        lambda: game.leave(name(), "disconnect"): restless,
        lambda: game.dial(name()): 1,
    }
    rates = usual | {fault: rate * choice((0.3, 1, 3)) for fault, rate in faults.items() if chance() < 0.5}
    for _ in range(choice((0, 60))):  # handshakes in every order, before any application moves
        choice((game.answer, deliver, deliver))()
    moves, weights = list(rates), list(rates.values())
    for move in draw.choices(moves, weights, k=steps):
        move()
        for who, host in game.hosts.items():
            if not host.up and who != "twin" and chance() < 0.1:
                game.restart(who)
    game.heal()
    return game


def main(argument: str) -> None:
    """Play the seeds that the command line names, and say how fast that went."""
    first, _, last = argument.partition(":")
    began, calls = time.perf_counter(), 0
    for seed in range(int(first), int(last or int(first) + 1)):
        calls += play(seed).recorder.calls
    seconds = time.perf_counter() - began
    print(f"{calls} calls of the core in {seconds:.1f} s")


if __name__ == "__main__":
    main(sys.argv[1])
