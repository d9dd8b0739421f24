"""Draw games at random, every one with its own subset of faults at its own rates, so that rare things meet.

Theory of operation
-------------------
:data:`MOVES` is the one table of everything that may happen: a name, what it does to a
:class:`~networkio_testing.game.Game`, how often, and what each argument is drawn from, the simplest first.  A new kind
of fault is a method and a line in there.

:func:`draw` turns a seed into a :class:`~networkio_testing.tape.Tape`.  The seed is split into independent streams: one
for the world, one for the order of the moves, and one for the arguments of each kind of move, so that leaving a kind
out (``without``) changes nothing about the others.  Streams are seeded with text, which Python hashes in the same way
in every process and version.  A game has phases: handshakes in every order, warm-up without faults, faults, and, in
:meth:`Game.heal`, healing and draining.

:func:`play` plays a tape, and writes on it what went wrong.
"""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from random import Random
from types import FrameType
from typing import Any, Final, Literal

from networkio_proto import Config, Limits

from . import machines
from .adversary import SCRIPTS
from .disk import DEATHS
from .game import NAMES, TWIN, Game
from .judges import Violation
from .tape import Tape
from .world import CUTS

__all__ = ["MOVES", "PIECES", "SIZES", "Hung", "Move", "draw", "draw_settings", "make_config", "play", "signature"]

#: payloads around every bound: nothing, joined or not, one frame or more, over the window
SIZES: Final = (0, 1, 20, 2047, 2048, 2049, 8181, 8182, 8183, 30_000, 90_000)

#: how much of what is under way arrives at once
PIECES: Final = (1_000_000, 1, 5, 14, 100, 1000, 10_000)

#: at which byte from now a wire may break: inside of every handshake frame, and behind
BYTES: Final = (0, 1, 7, 14, 40, 70, 100, 130, 160, 200, 250, 300, 400, 1000, 9000)

#: a game that takes more than this of the processor's time hangs (seconds); the longest take two
PATIENCE: Final = 30

#: how many moves a game has
LENGTHS: Final = (100, 400, 400, 1500, 5000)

Domain = Sequence[Any] | Literal["pair", "host", "size", "durable"]


@dataclass(frozen=True, slots=True)
class Move:
    """One kind of move: what it does, how often (one of ``rates``, drawn for each game), and with what arguments.

    Half of the faults are left out of a game.
    """

    act: Callable[..., object]
    rates: tuple[float, ...]
    arguments: tuple[Domain, ...] = ()
    fault: bool = False
    #: is done by the applications: not counted among the faults of the network and the machines
    application: bool = False
    #: is left out where the world has nothing under this name
    needs: str = ""


def _fault(
    act: Callable[..., object], rate: float, *arguments: Domain, application: bool = False, needs: str = ""
) -> Move:
    rates = (0.1 * rate, 0.5 * rate, 2 * rate)
    return Move(act, rates, arguments, fault=True, application=application, needs=needs)


_WIRES = (0, 1, 2, 3)
_ENDS = (0, 1)
_ANY = range(1000)
_BOTH = (True, False)

MOVES: Final[Mapping[str, Move]] = {
    # what usually happens
    "send": Move(Game.send, (12,), ("pair", "size")),
    "send_many": Move(Game.send_many, (2, 4), ("pair", "size", (3, 8, 20, 40))),
    "take": Move(Game.take, (8,), ("pair", (1, 3, 100))),
    "settle": Move(Game.settle, (5, 20), ("pair", _ANY)),
    "read": Move(Game.read, (3,), ("pair", (1, 10, 1000))),
    "deliver": Move(Game.deliver, (5, 20, 40), (_WIRES, _ENDS, PIECES)),
    "drip": Move(Game.deliver, (0.1,), (_WIRES, _ENDS, PIECES[:5], (7, 1))),
    "answer": Move(Game.answer, (3,)),
    "run": Move(Game.run, (1, 3, 10), ((0.001, 0.03, 0.3, 3.0),)),
    "advance": Move(Game.advance, (2,), ((0.01, 0.1, 1.0),)),
    "restart": Move(Game.restart, (1,), ("host",)),
    # what applications do now and then
    "send_special": _fault(
        Game.send_special, 3, "pair", SIZES, (None, 0.01, 1.0, 30.0), (0, 1, 9), _BOTH, application=True
    ),
    "reject": _fault(Game.reject, 2, "pair", _ANY, application=True),
    "release": _fault(Game.release, 2, "pair", _ANY, application=True),
    "cancel": _fault(Game.cancel, 2, "pair", range(20), application=True),
    "end": _fault(Game.end, 0.1, "pair", application=True),
    "abort": _fault(Game.abort, 0.1, "pair", application=True),
    "disconnect": _fault(Game.disconnect, 0.1, "pair", application=True),
    "dial": _fault(Game.dial, 1, "pair", application=True),
    "impostor_sends": _fault(Game.send, 1, (TWIN + "b",), "size", application=True),
    "impostor_reads": _fault(Game.read, 1, (TWIN + "b",), (1, 10), application=True),
    # the network
    "cut": _fault(Game.cut, 1, _WIRES, _ENDS, CUTS, PIECES),
    "fuse": _fault(Game.fuse, 1, _WIRES, _ENDS, CUTS, BYTES),
    "fuse_next": _fault(Game.fuse_next, 0.5, _ENDS, CUTS, BYTES),
    "straggle": _fault(Game.straggle, 0.5, (None, 0.01, 0.3, 3.0)),
    "black_hole": _fault(Game.black_hole, 0.3, _WIRES),
    "clog": _fault(Game.clog, 1, _WIRES, _ENDS, (0.1, 1.0, 3.0, 20.0)),
    "throttle": _fault(Game.throttle, 1, _WIRES, _ENDS, (0, 10, 1000, 1 << 20)),
    "replay": _fault(Game.replay, 1, _WIRES, _ENDS),
    "answer_badly": _fault(Game.answer_badly, 1, ("refused", "timeout", "silent")),
    # the machines
    "crash": _fault(Game.crash, 0.2, "host", _BOTH),
    "crash_for_good": _fault(Game.crash_for_good, 0.1, "host", _BOTH),
    "crash_between": _fault(Game.crash_between, 0.2, "host", (1, 2, 3, 5, 8, 13, 21), _BOTH),
    "pause": _fault(Game.pause, 0.3, "host"),
    "twin": _fault(Game.twin, 0.2),
    "jump": _fault(Game.jump, 0.3, (1.0, 6.0, 60.0)),
    "wait": _fault(Game.run, 0.05, (30.0, 130.0)),
    # the disks
    "slow_disk": _fault(machines.slow_disk, 2, "durable", (0.0, 0.01, 0.3, 3.0, 20.0, inf), needs="durable"),
    "finish_sync": _fault(machines.finish_sync, 3, "durable", needs="durable"),
    "full_disk": _fault(machines.full_disk, 1, "durable", (1, 2, 10), needs="durable"),
    "failed_sync": _fault(machines.failed_sync, 0.5, "durable", ("lost", "kept"), needs="durable"),
    "crash_writing": _fault(machines.crash_writing, 0.5, "durable", DEATHS, _BOTH, needs="durable"),
    "old_copy": _fault(machines.old_copy, 0.5, "durable", (0.99, 0.9, 0.5, 0.0), needs="durable"),
    # the clocks
    "stall": _fault(machines.stall, 0.2, "host", (1.0, 6.0, 20.0, 60.0), needs="clocks"),
    "suspend": _fault(machines.suspend, 0.2, "host", (1.0, 20.0, 60.0, 600.0), _BOTH, needs="clocks"),
    # a third party
    "stranger_comes": _fault(machines.stranger_comes, 2, "host", SCRIPTS, BYTES, needs="stranger"),
    "stranger_answers": _fault(machines.stranger_answers, 0.3, "host", SCRIPTS, BYTES, needs="stranger"),
    "stranger_floods": _fault(machines.stranger_floods, 0.5, "host", SCRIPTS, (3, 30), needs="stranger"),
    "stranger_says": _fault(machines.stranger_says, 4, _ANY, (1_000_000, 1, 7, 100), needs="stranger"),
    "stranger_leaves": _fault(machines.stranger_leaves, 1, _ANY, ("rst", "fin"), needs="stranger"),
    "impersonate": _fault(machines.impersonate, 0.5, "pair", needs="stranger"),
}


# -- from a seed to a tape --------------------------------------------------------------------------------------------


def draw(seed: int, length: int | None = None, *, without: Collection[str] = ()) -> Tape:
    """The game of this seed; ``length`` moves (drawn too, unless it is given), ``without`` these kinds of moves."""
    chance = Random(f"{seed}/world")
    world = _draw_world(seed, chance)
    length = chance.choice(LENGTHS) if length is None else length
    order = Random(f"{seed}/order")
    possible = {name: move for name, move in MOVES.items() if not move.needs or world.get(move.needs)}
    rates = {name: order.choice(m.rates) for name, m in possible.items() if not m.fault or order.random() < 0.5}
    usual = {name: rate for name, rate in rates.items() if not MOVES[name].fault}
    names = order.choices(("answer", "deliver", "deliver"), k=order.choice((0, 60)))
    names += order.choices(list(usual), list(usual.values()), k=length // 10)
    names += order.choices(list(rates), list(rates.values()), k=length - length // 10)
    streams = {name: _stream(seed, name, count, world) for name, count in sorted(Counter(names).items())}
    return Tape(seed, world, [next(streams[name]) for name in names if name not in without])


def _stream(seed: int, name: str, count: int, world: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    """So many moves of one kind, with all their arguments."""
    chance = Random(f"{seed}/{name}")
    domains = [domain_of(domain, world) for domain in MOVES[name].arguments]
    return zip([name] * count, *(chance.choices(domain, k=count) for domain in domains), strict=True)


def domain_of(domain: Domain, world: Mapping[str, Any]) -> Sequence[Any]:
    """What an argument may be in this world, the simplest first."""
    if not isinstance(domain, str):
        return domain
    if domain == "pair":
        return tuple(world["pairs"])
    if domain == "durable":
        return str(world.get("durable", ""))
    return NAMES[: len(world["configs"])] if domain == "host" else tuple(world["sizes"])


def _draw_world(seed: int, chance: Random) -> dict[str, Any]:
    """Mostly two nodes; else a ring with chords.  Who dials whom is drawn for every pair."""
    count = chance.choice((2, 2, 2, 2, 2, 2, 2, 2, 3, 4, 8))
    names = NAMES[:count]
    edges = {"ab"} | {"".join(sorted((names[i - 1], names[i]))) for i in range(count)}
    edges |= {"".join(sorted(chance.sample(names, 2))) for _ in range(count - 2)}
    dialers = []
    for edge in sorted(edges):
        way = chance.choice(("one", "other", "both", "both"))
        dialers += [edge] * (way != "other") + [edge[::-1]] * (way != "one")
    some = chance.choice((SIZES[:3], SIZES[:3], (*SIZES[:3] * 12, *SIZES), (*SIZES[:3] * 3, *SIZES), SIZES))
    world: dict[str, Any] = {
        "configs": [draw_settings(chance) for _ in names],
        "pairs": sorted(edges | {edge[::-1] for edge in edges}),
        "dialers": dialers,
        "named": chance.random() < 0.8,
        "sizes": list(some),
        "capacity": chance.choice((1 << 30, 20_000)),
        "vigil": chance.random() < 0.2,
        "write_size": chance.choice((1, 10_000, 65536)),
    }
    return world | _draw_machines(seed, names, world["configs"])


def _draw_machines(seed: int, names: str, configs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What is special about the machines of some worlds; a stream of its own, and nothing in most of them."""
    chance = Random(f"{seed}/machines")
    special: dict[str, Any] = {}
    if chance.random() < 0.25:
        special["durable"] = "".join(name for name in names if chance.random() < 0.7) or names[0]
        own = Random(f"{seed}/inboxes")
        if own.random() < 0.5:
            special["inboxes"] = "".join(name for name in special["durable"] if own.random() < 0.7)
        for settings in configs:  # the messages of such a game are told apart by their bytes
            settings["message"] = max(settings["message"], 2500)
        memory = Random(f"{seed}/resident")
        for settings in configs:  # nearly nothing stays in memory, or all of it
            settings["outbox_resident"] = memory.choice((1, 200, 3000, 1 << 20))
    if chance.random() < 0.25:
        special["clocks"] = {
            name: [chance.choice((0.0, 7.25, 1e6)), 1 + chance.choice((-1, 1)) * chance.choice((0, 3e-4, 5e-3, 0.03))]
            for name in names
        }
    if chance.random() < 0.25:
        special["stranger"] = chance.choice(("secret", "secret", "open"))
    return special


def draw_settings(chance: Random) -> dict[str, Any]:
    """For a Config: bounds so small that they are met, times so short that they come; or what is usual."""
    choice = chance.choice
    guaranteed = choice((64, 500, 5000, 65536))
    window = max(guaranteed, choice((64, 1000, 20_000, 262_144)))
    return {
        "frame": choice((8192, 9001, 65536)),
        "message": choice((1, 2500, 40_000, 1 << 20, 1 << 20, 1 << 20)),
        "window": window,
        "window_guaranteed": guaranteed,
        "window_max": max(window, choice((1000, 100_000, 4_194_304))),
        "inbox_budget": choice((1, 30_000, 1 << 28)),
        "outbox_limit": choice((500, 20_000, 200_000, 1 << 20)),
        "overflow": choice(("wait", "wait", "drop_oldest")),
        "on_peer_restart": choice(("redeliver", "redeliver", "report")),
        "ack_delay": choice((0.001, 0.025, 0.5)),
        "ack_messages": choice((1, 5, 64)),
        "ack_cost": choice((64, 3000, 65536)),
        "session_expiry": choice(("auto", "auto", "auto", None, 20.0, 90.0)),
        "shrink_after": choice((2.0, 30.0, 900.0)),
        "dead_after": choice((9.0, 45.0)),
        "ping_after": choice((2.0, 4.0)),
        "max_pending": choice((4, 1024)),
    }


def make_config(settings: Mapping[str, Any]) -> Config:
    """The Config of such settings; what is missing is as usual."""
    rest = dict(settings)
    limits = Limits(**{name: rest.pop(name) for name in ("frame", "message") if name in rest})
    return Config(limits=limits, **rest)


# -- playing ----------------------------------------------------------------------------------------------------------


class Hung(Exception):
    """A game took too long."""


def play(tape: Tape, *, on_move: Callable[[Game, tuple[Any, ...]], None] | None = None) -> Game:
    """Play a tape to its end; ``on_move`` is called before each move.

    A promise that breaks is a :class:`~networkio_testing.judges.Violation`; a core that raises, or hangs, does not get
    away with it either.  Then ``failure`` and ``words`` of the tape say so, and its moves end with the one that did it.
    """
    made, acts = 0, {name: move.act for name, move in MOVES.items()}
    try:
        with _patience():
            game = start(tape)
            for made, move in enumerate(tape.moves, 1):  # noqa: B007 - for whoever catches
                if on_move is not None:
                    on_move(game, move)
                acts[move[0]](game, *move[1:])
            made += 1
            game.heal()
    except Exception as error:
        tape.moves = tape.moves[:made]
        tape.failure, tape.words = signature(error), f"{type(error).__name__}: {error}"
        raise
    return game


def start(tape: Tape) -> Game:
    """The game of a tape before its first move."""
    world = tape.world
    configs = [make_config(settings) for settings in world["configs"]]
    named = bool(world.get("named", True))
    game = Game(
        tape.seed,
        configs,
        pairs=world["pairs"],
        dialers=world["dialers"],
        named=named,
        durable=str(world.get("durable", "")),
        inboxes=str(world.get("inboxes", "")),
        clocks=world.get("clocks"),
        stranger=str(world.get("stranger", "")),
    )
    game.world.capacity = world.get("capacity", game.world.capacity)
    game.vigil = bool(world.get("vigil", True))
    game.world.write_size = world.get("write_size", game.world.write_size)
    return game


def signature(error: Exception) -> str:
    """What makes two failures the same: the invariant, or else what was raised."""
    return error.invariant if isinstance(error, Violation) else type(error).__name__


@contextmanager
def _patience() -> Iterator[None]:
    """Raise Hung if it takes too long; where there are no alarms, nobody looks.

    A game never waits, so that only the processor's time counts: a busy machine is no hanging game.
    """
    if not hasattr(signal, "SIGPROF") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise Hung(f"the game is not over after {PATIENCE} s of the processor's time")

    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
