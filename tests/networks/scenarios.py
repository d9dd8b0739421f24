"""What is done to real networks, and what must come of it.

Each scenario breaks the network of a :class:`~tests.networks.conversation.World`, lets the judge look at every message,
and returns the figures that it measured.  ``tests/networks/test_networks.py`` runs them in short,
``python -m tests.networks`` in full.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from time import monotonic
from typing import Any, TypeAlias

from .conversation import BOTH, World, converse
from .network import ENDS, Direction, End, Missing

__all__ = [
    "FAR_AWAY", "QUICK", "SHORT", "Figures", "half_open", "killed_sockets", "link_down", "narrow", "paused", "reset",
    "slow", "slowed",
]  # fmt: skip

Figures: TypeAlias = dict[str, Any]

#: a wired network that somebody waits in front of: everything quicker than by default (seconds)
QUICK: dict[str, Any] = {
    "dead_after": 1.0, "ping_after": 0.4, "probe_timeout": 0.5, "pause_threshold": 0.5,
    "dial_timeout": 0.5, "handshake_timeout": 1.0, "backoff_base": 0.05, "backoff_max": 0.3, "linger": 0.3,
}  # fmt: skip
DEAD_AFTER: float = QUICK["dead_after"]

#: what a busy machine may add to any of these times (seconds)
SLACK = 1.0

#: once the network is whole, an attempt that is under way may run into its limit, and then the next one is due; where
#: the other side has noticed nothing yet it first asks the connection that it has (docs/topics/timeouts.md)
RECONNECT: float = QUICK["dial_timeout"] + QUICK["backoff_max"] + QUICK["probe_timeout"] + SLACK


def half_open(world: World, direction: Direction, *, rounds: int = 1) -> Figures:
    """Nothing arrives any more, and nobody is told: whoever hears nothing notices it in time.

    In every other round nothing is under way.  Where only one direction is cut, the other side still hears until the
    deaf one gives up, so it may take twice as long.
    """
    deaf: set[End] = {"both": {"near", "far"}, "there": {"far"}, "back": {"near"}}[direction]  # type: ignore[assignment]
    noticed: list[float] = []
    back: list[float] = []
    for number in range(rounds):
        if number % 2:
            world.send(1)
            world.until_read()
        else:
            world.send(30, 200, 0.03)
        since = monotonic()
        world.network.cut(direction)
        cut = monotonic()
        for end in ENDS:
            for side in world.at(end):
                for fact in side.each("disconnected", since):
                    took = fact["at"] - cut
                    if end in deaf:
                        assert (fact["cause"], fact["remote"]) == ("timeout", False), fact
                        noticed.append(took)
                    limit = DEAD_AFTER * (1 if end in deaf else 2) + SLACK
                    assert took <= limit, f"{side} noticed after {took:.2f} s"
                for fact in side.each("noticed", since):  # the application knows it too
                    assert fact["cause"] == "timeout"
        mended = monotonic()
        world.network.mend()
        back.append(_back(world, mended))
    return {
        "noticed_in_time": len(noticed), "of": rounds * sum(side.plan.nodes for end in deaf for side in world.at(end)),
        "dead_after": DEAD_AFTER, "noticed_after": _spread(noticed), "back_after": _spread(back), **_judged(world),
    }  # fmt: skip


def link_down(world: World, *, rounds: int = 1) -> Figures:
    """A network card goes off and on: briefly, which nobody needs to notice, and for long, which everybody does."""
    back: list[float] = []
    for _ in range(rounds):
        begun = monotonic()
        for end in ENDS:
            world.send(20, 200, 0.02)
            world.network.link(end, up=False)
            time.sleep(0.1)  # so long is it off
            world.network.link(end, up=True)
            world.until_read()
        brief = world.count("disconnected", begun)
        assert not any(brief), f"a card that was off for 0.1 s cost connections: {brief}"
        down = monotonic()
        world.network.link("near", up=False)
        gone = monotonic()
        world.send(20, 200, 0.02)
        _all_noticed(world, down, gone)
        up = monotonic()
        world.network.link("near", up=True)
        back.append(_back(world, up))
    return {"times_down": 3 * rounds, "back_after": _spread(back), **_judged(world)}


def reset(world: World, *, rounds: int = 2) -> Figures:
    """Something on the way resets the connections, and tells only one side."""
    back: list[float] = []
    for number in range(rounds):
        end: End = "near" if number % 2 else "far"
        world.send(50, 200, 0.01)
        begun = monotonic()
        world.network.reset(end)
        _all_noticed(world, begun, monotonic())
        for side in world.at("far" if end == "near" else "near"):
            assert {fact["cause"] for fact in side.each("disconnected", begun)} == {"lost"}  # not by silence
        whole = monotonic()
        world.network.unfilter(end)
        back.append(_back(world, whole))
    return {"rounds": rounds, "back_after": _spread(back), **_judged(world)}


def killed_sockets(world: World, *, kills: int = 15) -> Figures:
    """An administrator ends all sockets, again and again, at either end, while messages flow."""
    killed = missed = 0
    began = monotonic()
    world.send(30 * kills, 2000, 0.005)
    for number in range(kills):
        world.until_connected()
        since = monotonic()
        end: End = "near" if number % 2 else "far"
        count = world.network.kill_sockets(end)
        if not number and not count:
            raise Missing("this kernel does not end sockets for `ss -K` (CONFIG_INET_DIAG_DESTROY)")
        killed += count
        if count < sum(side.plan.nodes for side in world.at(end)):  # it was changing while `ss` looked
            missed += 1
        else:
            _all_noticed(world, since, monotonic())
    took = monotonic() - began
    world.until_connected()
    world.until_read()
    assert missed <= kills // 10, f"of {kills} times, not all sockets were killed {missed} times"
    counts = world.count("connected", began)
    assert min(counts) >= kills - missed, f"{counts} connections, {kills} kills, of which {missed} were not complete"
    return {"kills": kills, "sockets": killed, "missed": missed, "seconds": round(took, 1), **_judged(world)}


def paused(world: World, *, rounds: int = 1) -> Figures:
    """Processes stand still for longer than the others' patience, which come back on another connection meanwhile.

    For the listening side also with a cut that swallows the goodbye: when it goes on it has an old connection that
    looks alive, and a new one that claims its session.
    """
    read: list[float] = []
    ways: list[tuple[End, bool]] = [("near", False), ("far", False), ("far", True)]
    for _ in range(rounds):
        for end, cut in ways:
            world.send(40, 200, 0.01)
            since = monotonic()
            with _stopped(world, end):
                if cut:
                    world.network.cut()
                for side in world.at("far" if end == "near" else "near"):
                    assert all(fact["at"] - since <= DEAD_AFTER + SLACK for fact in side.each("disconnected", since))
                world.network.mend()
                if end == "far":  # the system of the one that stands still answers the other's dials
                    _until_established(world)
            going_on = monotonic()
            world.until_connected()
            world.until_read()
            read.append(monotonic() - going_on)
    return {"pauses": rounds * len(ways), "all_read_after": _spread(read), **_judged(world)}


@contextmanager
def _stopped(world: World, end: End) -> Iterator[None]:
    """The processes of one end stand still for the length of a block."""
    for side in world.at(end):
        os.kill(side.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for side in world.at(end):
            os.kill(side.process.pid, signal.SIGCONT)


def _until_established(world: World) -> None:
    limit = monotonic() + 10
    for side in world.at("far"):
        port = f":{side.plan.port}"
        while not world.network.run("near", "ss", "-H", "-t", "state", "established", "dport", "=", port).strip():
            assert monotonic() < limit, "nobody dials"
            time.sleep(0.02)


def narrow(*, messages: int = 5, size: int = 200_000) -> Figures:
    """Hardly any room in the kernel, and big messages both ways: slow is not dead."""
    with converse(room=(4096, 8192), **{**QUICK, "dead_after": 5.0}) as world:
        world.send(messages, size)
        world.until_read(60)
        figures = _judged(world)
        _never_disconnected([world])
    return {"size": size, **figures}


#: 64 kbit/s, and a queue of up to 2 s in front of it
MODEM = ("tbf", "rate", "64kbit", "burst", "4kb", "latency", "2s")
#: four times as quick in both respects, for the short forms.  TCP waits twice as long each time a packet is lost again,
#: from about a round trip on: over ``MODEM`` nothing passes for up to 7.4 s (measured), over this for up to 2.3 s
SHORT = ("tbf", "rate", "256kbit", "burst", "4kb", "latency", "500ms")
#: a long way on which packets are late by turns, get lost and overtake each other; not every kernel has it
FAR_AWAY = ("netem", "delay", "100ms", "40ms", "loss", "1%", "rate", "64kbit")


def slow(seconds: float, *, loss: float = 2.0, discipline: Sequence[str] = MODEM, **config: Any) -> Figures:
    """A slow and lossy network, and messages of 1 MiB both ways: nobody is given up.

    Each conversation has a network of its own.  In the end the network is quick, so that all can be judged.
    """
    with ExitStack() as stack:
        worlds = [stack.enter_context(converse(adapters=[pair], **config)) for pair in BOTH]
        for world in worlds:
            world.network.shape(*discipline)
            if loss:
                world.network.lose(loss)
            world.send(2 + int(seconds / 60), 2**20)
        begun, before = monotonic(), _bytes(worlds)
        _none_given_up(worlds, seconds)
        rate = (_bytes(worlds) - before) / (monotonic() - begun) / (2 * len(worlds))
        for world in worlds:
            world.network.unshape()
            for end in ENDS if loss else ():
                world.network.unfilter(end)
        figures = _judged(*worlds)
        _never_disconnected(worlds)
    return {"seconds": seconds, "loss_percent": loss, "bytes_per_second_each_way": round(rate), **figures}


def slowed(seconds: float, *, discipline: Sequence[str] = MODEM, **config: Any) -> Figures:
    """A quick network becomes slow when the kernel has megabytes to send: it takes no more for long, and lives."""
    with ExitStack() as stack:
        config = {"window": 4 * 2**20, **config}  # the kernel's room is what ends first, not the peer's
        worlds = [stack.enter_context(converse(adapters=[pair], room=(2**18, 2**20), **config)) for pair in BOTH]
        for world in worlds:
            [near], [far] = world.at("near"), world.at("far")
            near.send(100, 2**20)
            while len(far.report()[0]["numbers"]) < 3:
                pass
            world.network.shape(*discipline)
        waiting = [world.network.unsent("near") for world in worlds]
        _none_given_up(worlds, seconds)
        for world in worlds:
            world.network.unshape()
        figures = _judged(*worlds)
        _never_disconnected(worlds)
    return {"seconds": seconds, "bytes_in_the_kernel": waiting, **figures}


def _none_given_up(worlds: Sequence[World], seconds: float) -> None:
    """So long it is slow, unless somebody is given up before."""
    begun = monotonic()
    while (left := begun + seconds - monotonic()) > 0:
        time.sleep(min(1.0, left))
        _never_disconnected(worlds)


def _never_disconnected(worlds: Sequence[World]) -> None:
    for side in (side for world in worlds for side in world.sides):
        facts = side.facts("disconnected")
        assert not facts, f"{side} had a living connection that was given up: {facts}"


def _bytes(worlds: Sequence[World]) -> int:
    """How many have arrived at all ends so far."""
    return sum(
        int(world.network.run(end, "cat", f"/sys/class/net/{end}/statistics/rx_bytes"))
        for world in worlds for end in ENDS
    )  # fmt: skip


def _all_noticed(world: World, since: float, done: float) -> None:
    """Everybody was disconnected by a fault that began ``since`` and was there when it was ``done``, and in time."""
    for side in world.sides:
        for fact in side.each("disconnected", since):
            took = fact["at"] - done
            assert took <= DEAD_AFTER + SLACK, f"{side} noticed after {took:.2f} s: {fact['why']}"


def _back(world: World, since: float) -> float:
    """Wait for a new connection of everybody; how long the last one took, which must not be too long."""
    took: float = max(fact["at"] for side in world.sides for fact in side.each("connected", since)) - since
    assert took <= RECONNECT, f"connected {took:.2f} s after the network was whole again"
    return took


def _judged(*worlds: World) -> Figures:
    """The judge has looked at everything so far; what he counted."""
    statistics = [figures for world in worlds for figures in world.judge()]
    return {
        "connections": max(figures["connections"] for figures in statistics),
        **{name: sum(figures[name] for figures in statistics) for name in ("read", "retransmitted", "duplicates")},
    }


def _spread(times: Sequence[float]) -> dict[str, float]:
    ordered = sorted(times)
    places = {"least": 0, "median": len(ordered) // 2, "most": -1}
    return {name: round(ordered[place], 2) for name, place in places.items()}
